//! What a cluster is to be restored from, as its spec has it.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::json::{text, texts};

/// What nobody but the operator may say to pgBackRest, in the operator's words.
const FORBIDDEN: [(&str, &str); 6] = [
    (
        "--repo=",
        "Option '--repo' is not allowed: please use the 'repoName' field instead.",
    ),
    (
        "--repo ",
        "Option '--repo' is not allowed: please use the 'repoName' field instead.",
    ),
    (
        "--stanza",
        "Option '--stanza' is not allowed: the operator will automatically set this option",
    ),
    (
        "--pg1-path",
        "Option '--pg1-path' is not allowed: the operator will automatically set this option",
    ),
    (
        "--target-action",
        "Option '--target-action' is not allowed: the operator will automatically set this option ",
    ),
    (
        "--link-map",
        "Option '--link-map' is not allowed: the operator will automatically set this option ",
    ),
];

/// A data source.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// The cluster whose repositories are read; `None` for a repository of its own.
    pub(super) cluster: Option<(String, String)>,
    /// The operator's name of the repository.
    pub(super) repo: String,
    pub(super) stanza: String,
    pub(super) options: Vec<String>,
    pub(super) tolerations: Value,
    /// The repository as it stands in the source, if it does.
    settings: Value,
}

/// A repository in S3, and where its keys are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Located {
    pub(super) bucket: String,
    /// Its path, as pgBackRest has it.
    pub(super) path: String,
    /// The operator's name of it.
    pub(super) repo: String,
    /// The Secrets with pgBackRest's configuration.
    pub(super) secrets: Vec<String>,
}

impl Source {
    /// The source of a PostgresCluster. Where both forms are given `postgresCluster` wins.
    pub(super) fn of(cluster: &Value) -> Option<Self> {
        let (name, namespace) = (
            text(cluster, "/metadata/name"),
            text(cluster, "/metadata/namespace"),
        );
        let source = &cluster["spec"]["dataSource"];
        let of_cluster = &source["postgresCluster"];
        if of_cluster.is_object() {
            let or = |path: &str, own: &str| match text(of_cluster, path) {
                "" => own.to_owned(),
                other => other.to_owned(),
            };
            return Some(Self {
                cluster: Some((or("/clusterNamespace", namespace), or("/clusterName", name))),
                repo: text(of_cluster, "/repoName").to_owned(),
                stanza: "db".to_owned(),
                options: texts(&of_cluster["options"]),
                tolerations: of_cluster["tolerations"].clone(),
                settings: Value::Null,
            });
        }
        let of_repository = &source["pgbackrest"];
        of_repository.is_object().then(|| Self {
            cluster: None,
            repo: text(of_repository, "/repo/name").to_owned(),
            stanza: text(of_repository, "/stanza").to_owned(),
            options: texts(&of_repository["options"]),
            tolerations: of_repository["tolerations"].clone(),
            settings: of_repository.clone(),
        })
    }

    /// Why the operator does not take the options.
    pub(super) fn forbidden(&self) -> Option<&'static str> {
        let mut all = self.options.iter();
        all.find_map(|option| {
            FORBIDDEN
                .iter()
                .find(|(part, _)| option.contains(part))
                .map(|(_, words)| *words)
        })
    }

    /// What is compared to see whether it was changed. The bucket and the path are not in it.
    pub(super) fn hash(&self) -> String {
        let mut hash = DefaultHasher::new();
        let first = self.cluster.as_ref().map_or(&self.stanza, |(_, name)| name);
        (first, &self.repo, &self.options).hash(&mut hash);
        format!("{:08x}", hash.finish() & 0xFFFF_FFFF)
    }

    /// Where it is read: in the source itself, or in the repositories of a cluster.
    pub(super) fn located(&self, cluster: &Value) -> Option<Located> {
        match &self.cluster {
            Some(_) => own(cluster, &self.repo),
            None => located(&self.settings, &self.settings["repo"]),
        }
    }
}

/// A repository of a cluster's own.
pub(super) fn own(cluster: &Value, repo: &str) -> Option<Located> {
    let backups = &cluster["spec"]["backups"]["pgbackrest"];
    let mut repos = backups["repos"].as_array().into_iter().flatten();
    located(backups, repos.find(|found| found["name"] == repo)?)
}

fn located(settings: &Value, repo: &Value) -> Option<Located> {
    let name = text(repo, "/name").to_owned();
    let path = match text(&settings["global"], &format!("/{name}-path")) {
        "" => format!("/pgbackrest/{name}"),
        path => path.to_owned(),
    };
    let secrets = settings["configuration"].as_array().into_iter().flatten();
    let secrets = secrets
        .map(|one| text(one, "/secret/name").to_owned())
        .filter(|name| !name.is_empty());
    let bucket = text(repo, "/s3/bucket").to_owned();
    (!bucket.is_empty()).then(|| Located {
        bucket,
        path,
        repo: name,
        secrets: secrets.collect(),
    })
}
