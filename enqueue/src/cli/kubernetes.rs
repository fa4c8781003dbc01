//! What commands of the Kubernetes half take: Flux, switches, the database.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Args, ValueEnum};
use jiff::Timestamp;
use jobs::ids::ObjectName;
use jobs::message::{BackupKind, ImageTag, Restore, Until};
use jobs::spec::Namespaced;
use serde_json::{Map, Value};

use worker::config::{IdentityArgs, StoreArgs};

use super::{Cluster, Single};

/// Where the objects that bootstrap Flux are.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FluxFolder {
    /// The folder that bootstraps Flux; the spec's `flux.folder`, or `flux/<cluster>`, when absent
    #[arg(long = "flux", value_name = "FOLDER")]
    pub(crate) folder: Option<PathBuf>,
}

/// Hands the cluster to Flux.
#[derive(Debug, Args)]
pub(crate) struct FluxBootstrap {
    #[command(flatten)]
    pub(crate) flux: FluxFolder,
    #[command(flatten)]
    pub(crate) single: Single,
}

/// Opens what a recovery sealed.
#[derive(Debug, Args)]
pub(crate) struct Kubeconfig {
    /// Where it goes: a new file that only its owner reads, or `-` for standard output
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(flatten)]
    pub(crate) identity: IdentityArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Changes a switch.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("change").required(true).args(["freeze", "thaw", "values"])))]
pub(crate) struct Switch {
    /// Stop this application of the spec
    #[arg(long, value_name = "APPLICATION")]
    pub(crate) freeze: Option<ObjectName>,
    /// Let this application of the spec run
    #[arg(long, value_name = "APPLICATION")]
    pub(crate) thaw: Option<ObjectName>,
    /// Merge values into a switch by key, as `NAMESPACE:NAME:{"key":…}`; `null` takes a key away
    #[arg(long, value_name = "NAMESPACE:NAME:JSON")]
    pub(crate) values: Option<SwitchValues>,
    /// The HelmRelease in the switch's namespace that takes the values at once
    #[arg(long, value_name = "NAME", conflicts_with_all = ["freeze", "thaw"])]
    pub(crate) release: Option<ObjectName>,
    #[command(flatten)]
    pub(crate) single: Single,
}

/// `namespace:name:{…}`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SwitchValues {
    pub(crate) switch: Namespaced,
    pub(crate) values: Map<String, Value>,
}

impl FromStr for SwitchValues {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ':');
        let mut name = |what: &str| {
            let part = parts.next().filter(|part| !part.is_empty());
            let part = part.ok_or_else(|| format!("it has no {what}"))?;
            ObjectName::new(part).map_err(|error| error.to_string())
        };
        let switch = Namespaced {
            namespace: name("namespace")?,
            name: name("name")?,
        };
        let json = parts.next().ok_or("it has no values after the name")?;
        let values = serde_json::from_str(json);
        let values = values.map_err(|error| format!("the values are no JSON object: {error}"))?;
        Ok(Self { switch, values })
    }
}

/// Another image of an application.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("image").required(true).args(["tag", "rollback"])))]
pub(crate) struct Release {
    /// The application of the spec; may be left out when there is one only
    #[arg(long = "application", value_name = "APPLICATION")]
    pub(crate) application: Option<ObjectName>,
    /// The image's tag
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<ImageTag>,
    /// Bring the former proven tag back
    #[arg(long)]
    pub(crate) rollback: bool,
    #[command(flatten)]
    pub(crate) single: Single,
}

/// What is restored.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Restore")]
pub(crate) struct Wish {
    /// Label of the backup set; the newest that fits when absent
    #[arg(long, value_name = "LABEL")]
    pub(crate) set: Option<String>,
    /// How far recovery goes: `end` of the archived WAL, `consistent` set, or a time such as 2026-01-02T03:04:05Z
    #[arg(long, value_name = "WHEN", value_parser = until)]
    pub(crate) until: Option<Until>,
    /// When the database was lost: what is lost is counted from it; when the recovery was declared if absent
    #[arg(long, value_name = "TIME")]
    pub(crate) failed_at: Option<Timestamp>,
    /// Go on although WAL segments are missing in the middle, and lose what lies behind them
    #[arg(long)]
    pub(crate) accept_gap: bool,
}

impl Wish {
    /// What the job is told.
    pub(crate) fn payload(&self) -> Restore {
        Restore {
            set: self.set.clone(),
            until: self.until.unwrap_or_default(),
            failed_at: self.failed_at,
            accept_gap: self.accept_gap,
        }
    }

    /// Whether anything is wished for.
    pub(crate) fn is_any(&self) -> bool {
        self.payload() != Restore::default()
    }
}

/// Brings the database back.
#[derive(Debug, Args)]
pub(crate) struct RestoreJob {
    #[command(flatten)]
    pub(crate) single: Single,
    // Last: its heading would stand over what comes after it.
    #[command(flatten)]
    pub(crate) wish: Wish,
}

/// Makes a backup.
#[derive(Debug, Args)]
pub(crate) struct BackupJob {
    /// What it holds
    #[arg(long = "type", value_enum, default_value_t)]
    pub(crate) kind: Holds,
    #[command(flatten)]
    pub(crate) single: Single,
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Holds {
    /// All of the database
    #[default]
    Full,
    /// What changed since the last full one
    Differential,
    /// What changed since the last one
    Incremental,
}

impl From<Holds> for BackupKind {
    fn from(holds: Holds) -> Self {
        match holds {
            Holds::Full => Self::Full,
            Holds::Differential => Self::Differential,
            Holds::Incremental => Self::Incremental,
        }
    }
}

/// Waits for certificates.
#[derive(Debug, Args)]
pub(crate) struct WaitCertificates {
    /// The certificates; those of the spec when there are none
    #[arg(value_name = "NAMESPACE/NAME")]
    pub(crate) certificates: Vec<Namespaced>,
    #[command(flatten)]
    pub(crate) single: Single,
}

/// Writes keys of a Secret.
#[derive(Debug, Args)]
pub(crate) struct PutSecret {
    /// The Kubernetes Secret; its other keys stay
    #[arg(value_name = "NAMESPACE/NAME")]
    pub(crate) object: Namespaced,
    /// A key and the sealed secret that is its value, as `KEY=NAME`; give the secret itself with --secret
    #[arg(long = "data", value_name = "KEY=NAME", required = true)]
    // Read by the command: clap would repeat what is wrong, which may be a value.
    pub(crate) keys: Vec<String>,
    #[command(flatten)]
    pub(crate) single: Single,
}

fn until(text: &str) -> Result<Until, String> {
    match text {
        "end" => Ok(Until::End),
        "consistent" => Ok(Until::Consistent),
        time => time.parse().map(Until::Time).map_err(|_| {
            "there are `end`, `consistent`, and times such as 2026-01-02T03:04:05Z".into()
        }),
    }
}

/// What Kubernetes takes for a key of a Secret, and the name of what goes there.
///
/// # Errors
/// No error repeats the text: it may be a value by mistake.
pub(crate) fn key(text: &str) -> Result<(String, String), String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let (key, name) = text
        .split_once('=')
        .ok_or("write it as KEY=NAME, where NAME is that of a secret given with --secret")?;
    if key.is_empty() || key.len() > 253 || !key.bytes().all(fits) {
        return Err("a key has letters, digits, `-`, `_` and `.` only".into());
    }
    let upper = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    if name.is_empty() || !name.bytes().all(upper) {
        return Err("after `=` stands the name of a secret, never its value".into());
    }
    Ok((key.to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_switch_are_one_object() {
        let read: SwitchValues = r#"pg:pg-db-values-switch:{"a":{"b":1}}"#.parse().expect("good");
        assert_eq!(read.switch.to_string(), "pg/pg-db-values-switch");
        assert_eq!(read.values["a"]["b"], 1);
        for (bad, why) in [
            ("", "no namespace"),
            ("pg", "no name"),
            ("pg:x", "no values"),
            ("pg:x:", "no JSON object"),
            ("pg:x:[]", "no JSON object"),
            ("pg:../x:{}", "not a valid Kubernetes name"),
        ] {
            let error = bad.parse::<SwitchValues>().expect_err(bad);
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn moments_are_words_or_times() {
        assert_eq!(until("end"), Ok(Until::End));
        assert_eq!(until("consistent"), Ok(Until::Consistent));
        let time = "2026-01-02T03:04:05Z".parse().expect("a time");
        assert_eq!(until("2026-01-02T03:04:05Z"), Ok(Until::Time(time)));
        for bad in ["", "latest", "2026-01-02", "03:04"] {
            assert!(until(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_in_the_place_of_a_name_is_refused_and_not_repeated() {
        let fine = key("accesskey=CLUSTER_S3_ACCESS_KEY").expect("good");
        assert_eq!(fine.0, "accesskey");
        for bad in ["hunter2", "password=hunter2", "=A", "a b=A", "k="] {
            let error = key(bad).expect_err(bad);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
