//! The `flux` section of a spec: how the cluster is handed over to Flux.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use super::check::Problem;
use super::{ClusterSpec, versions};
use crate::images::is_sha256;

/// Flux on the cluster, and where it finds what it applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flux {
    /// Version of Flux, for example `2.8.8`; without `v`.
    pub version: String,
    /// `sha256:` and 64 digits of its `install.yaml`. Without it the digest of the first use is recorded, and a
    /// file that differs is refused ever after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The bucket of SOPS files that Flux decrypts.
    pub secrets: Bucket,
    /// Key in that bucket of a SOPS file that must open with the age key before anything is applied.
    pub canary: String,
    /// The folder that bootstraps Flux, packed when a recovery is started: relative to the working directory;
    /// `flux/<cluster>` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
}

impl Flux {
    /// The folder that bootstraps Flux.
    pub fn folder(&self, spec: &ClusterSpec) -> String {
        let usual = || format!("flux/{}", spec.cluster);
        self.folder.clone().unwrap_or_else(usual)
    }

    /// The digits of the digest, if one is given.
    pub fn digits(&self) -> Option<&str> {
        let digest = self.digest.as_deref()?;
        Some(digest.trim_start_matches("sha256:"))
    }
}

/// What is wrong with the section.
pub(super) fn check(spec: &ClusterSpec, found: &mut Vec<Problem>) {
    let Some(flux) = &spec.flux else { return };
    let mut bad = |field: &str, reason: String| {
        found.push(Problem::new(format!("flux.{field}"), reason));
    };
    match flux.version.parse::<versions::Version>() {
        Err(reason) => bad("version", reason),
        Ok(version) if version < OLDEST => bad(
            "version",
            format!("{version} is older than {OLDEST}, the oldest whose kinds the manifests use"),
        ),
        Ok(_) => {}
    }
    let sound = |digest: &str| digest.strip_prefix("sha256:").is_some_and(is_sha256);
    if flux.digest.as_deref().is_some_and(|digest| !sound(digest)) {
        bad(
            "digest",
            "it is not `sha256:` and 64 lower-case digits".into(),
        );
    }
    if flux.canary.is_empty() || flux.canary.starts_with('/') {
        bad("canary", "it is not a key of the bucket".into());
    }
    if flux.folder.as_deref().is_some_and(str::is_empty) {
        bad("folder", "it is empty".into());
    }
    flux.secrets.check("flux.secrets", found);
    if spec.kubernetes.is_none() {
        found.push(Problem::new(
            "flux",
            "there is no `kubernetes` section: nothing could be handed to Flux",
        ));
    }
}

/// `source.toolkit.fluxcd.io/v1` of buckets came with it.
const OLDEST: versions::Version = versions::Version(2, 7, 0);
