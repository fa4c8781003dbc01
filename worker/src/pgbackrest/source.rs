//! The Helm values that make the operator restore a new cluster, and those that it runs with afterwards.
//! They go into the switch ConfigMap; the chart renders them into the PerconaPGCluster.
//!
//! Two repositories are named: the source, which is only read (`dataSource.pgbackrest`), and a place of its
//! own for the new cluster's backups (`backups.pgbackrest.global`). Were they one, two databases would
//! archive into one stanza, and neither could be restored any more. So the other form of a source,
//! `dataSource.postgresCluster`, which reads from where the cluster writes, is never made; and after the
//! restore the new place stays in the switch: the values below it still name the old one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use jobs::ids::{ClusterName, RecoveryId};
use serde::{Deserialize, Serialize};

use super::choose::Target;
use super::info::Label;

/// Where a repository lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The bucket.
    pub bucket: String,
    /// The endpoint, as pgBackRest wants it: a host name.
    pub endpoint: String,
    /// The region.
    pub region: String,
    /// The repository's path in the bucket, pgBackRest's `repo-path`: `/pgbackrest/repo1`.
    pub path: String,
}

/// What a restore needs to know beside the choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where the backups are.
    pub location: Location,
    /// Their stanza; the operator's is `db`.
    pub stanza: String,
    /// The operator's name of the repository, `repo1` to `repo4`: the keys in the Secret are named by it.
    pub repo: String,
    /// The Secret with the bucket's keys, in the cluster's namespace.
    pub secret: String,
    /// Whether the bucket is addressed as `host/bucket` instead of `bucket.host`.
    pub path_style: bool,
    /// What the database's nodes are tainted with. The restore's Job does not have the instances' own
    /// tolerations, and without them it is never scheduled.
    pub tolerations: Vec<Toleration>,
}

/// A toleration, as Kubernetes has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Toleration {
    /// The taint's key; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `Equal` or `Exists`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// The taint's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// How long a `NoExecute` taint is tolerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// Why values cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The new backups would go into the repository that is read.
    #[error(
        "new backups in `{new}` would be written into the source repository `{source_path}` of bucket \
         `{bucket}`: give the restored cluster a path of its own"
    )]
    SameRepository {
        /// The bucket.
        bucket: String,
        /// The path of the source.
        source_path: String,
        /// The path for new backups.
        new: String,
    },
    /// A setting is not of the form that the operator takes.
    #[error("{field}: `{value}` is not {wanted}")]
    Setting {
        /// Which.
        field: &'static str,
        /// What it is.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
}

/// The values of the switch. `dataSource` is in them only while a cluster is restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Values {
    #[serde(skip_serializing_if = "Option::is_none")]
    data_source: Option<DataSource>,
    backups: Backups,
    /// Off while a cluster is restored: the server may be lost as well, and an agent that does not find it keeps
    /// its database from being ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pmm: Option<Pmm>,
}

/// The one form of source that we make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct DataSource {
    pgbackrest: PgBackRest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Pmm {
    enabled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct PgBackRest {
    stanza: String,
    configuration: Vec<Configuration>,
    global: BTreeMap<String, String>,
    options: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tolerations: Vec<Toleration>,
    repo: Repo,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Configuration {
    secret: SecretName,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct SecretName {
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Repo {
    name: String,
    s3: S3,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct S3 {
    bucket: String,
    endpoint: String,
    region: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Backups {
    pgbackrest: NewBackups,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct NewBackups {
    global: BTreeMap<String, String>,
}

impl Values {
    /// The values that restore a set, with the new cluster's own backups at `new`.
    ///
    /// # Errors
    /// When the new backups would go into the source, or a setting has no form that the operator takes.
    pub fn restoring(
        source: &Source,
        set: &Label,
        target: Target,
        new: &Location,
    ) -> Result<Self, SourceError> {
        source.check()?;
        source.keeps_clear_of(new)?;
        let path = &source.location.path;
        let pgbackrest = PgBackRest {
            stanza: source.stanza.clone(),
            configuration: vec![Configuration {
                secret: SecretName {
                    name: source.secret.clone(),
                },
            }],
            global: source.global(path),
            options: options(set, target),
            tolerations: source.tolerations.clone(),
            repo: Repo {
                name: source.repo.clone(),
                s3: S3 {
                    bucket: source.location.bucket.clone(),
                    endpoint: source.location.endpoint.clone(),
                    region: source.location.region.clone(),
                },
            },
        };
        Ok(Self {
            data_source: Some(DataSource { pgbackrest }),
            pmm: Some(Pmm { enabled: false }),
            ..Self::running(source, new)?
        })
    }

    /// The values after the restore: no source any more, and the same place for new backups.
    ///
    /// # Errors
    /// As [`Values::restoring`].
    pub fn running(source: &Source, new: &Location) -> Result<Self, SourceError> {
        source.check()?;
        source.keeps_clear_of(new)?;
        let global = source.global(&new.path);
        Ok(Self {
            data_source: None,
            pmm: None,
            backups: Backups {
                pgbackrest: NewBackups { global },
            },
        })
    }
}

impl Source {
    fn global(&self, path: &str) -> BTreeMap<String, String> {
        let mut global = BTreeMap::from([(format!("{}-path", self.repo), path.to_owned())]);
        if self.path_style {
            global.insert(format!("{}-s3-uri-style", self.repo), "path".to_owned());
        }
        global
    }

    /// Also a path inside the other is refused: expiring one would sweep through the other.
    fn keeps_clear_of(&self, new: &Location) -> Result<(), SourceError> {
        let old = &self.location;
        check_path("the path for new backups", &new.path)?;
        let inside = |one: &str, other: &str| {
            let (one, other) = (format!("{one}/"), format!("{other}/"));
            one.starts_with(&other) || other.starts_with(&one)
        };
        // One bucket has many endpoints, so only its name is compared.
        if old.bucket == new.bucket && inside(&old.path, &new.path) {
            return Err(SourceError::SameRepository {
                bucket: old.bucket.clone(),
                source_path: old.path.clone(),
                new: new.path.clone(),
            });
        }
        Ok(())
    }

    fn check(&self) -> Result<(), SourceError> {
        check_path("the repository's path", &self.location.path)?;
        let bad = |field, value: &str, wanted| {
            Err(SourceError::Setting {
                field,
                value: value.to_owned(),
                wanted,
            })
        };
        if !matches!(self.repo.as_str(), "repo1" | "repo2" | "repo3" | "repo4") {
            return bad("the repository's name", &self.repo, "one of repo1 to repo4");
        }
        if self.location.endpoint.contains("://") || self.location.endpoint.contains('/') {
            let wanted = "a host name without scheme and path";
            return bad("the endpoint", &self.location.endpoint, wanted);
        }
        Ok(())
    }
}

/// A path that compares as text: absolute, no empty part, no dots.
fn check_path(field: &'static str, path: &str) -> Result<(), SourceError> {
    let part = |part: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(fits)
    };
    match path.strip_prefix('/') {
        Some(rest) if rest.split('/').all(part) => Ok(()),
        _ => Err(SourceError::Setting {
            field,
            value: path.to_owned(),
            wanted: "a path such as /pgbackrest/repo1",
        }),
    }
}

/// The path for the backups of what a recovery restores: a new one each time, so that a drill never
/// writes where another one reads.
pub fn generation_path(cluster: &ClusterName, recovery: &RecoveryId) -> String {
    format!("/pgbackrest/{cluster}/{recovery}")
}

/// What pgBackRest is told. The operator puts the options into one line of a shell, and adds
/// `--target-action=promote` where one is about a target. Without a type recovery goes to the end.
fn options(label: &Label, target: Target) -> Vec<String> {
    let set = format!("--set={label}");
    match target {
        Target::End => vec![set],
        Target::Immediate => vec![set, "--type=immediate".into()],
        Target::Time(at) => {
            let target = format!("--target=\"{}\"", postgres_time(at));
            vec![set, "--type=time".into(), target]
        }
    }
}

/// A moment as PostgreSQL and pgBackRest both read it, in UTC.
fn postgres_time(at: Timestamp) -> String {
    let at = at.to_zoned(TimeZone::UTC);
    let micros = at.subsec_nanosecond() / 1000;
    let second = at.strftime("%Y-%m-%d %H:%M:%S");
    match micros {
        0 => format!("{second}+00"),
        _ => format!("{second}.{micros:06}+00"),
    }
}
