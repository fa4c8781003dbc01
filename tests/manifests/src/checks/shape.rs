//! The fields of Flux' own kinds, as their resource definitions in Flux 2.8 have them: a misspelt one would be refused
//! at best and dropped at worst, and with it what it was to protect.

#![expect(
    dead_code,
    reason = "the types say which fields there may be; nobody reads them"
)]

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error};
use serde_json::{Map, Value};

use crate::{Document, Finding, Tree};

/// Every object of Flux has only fields that Flux knows.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for document in &tree.documents {
        let said = match (document.group(), document.kind()) {
            ("source.toolkit.fluxcd.io", "GitRepository") => read::<GitRepository>(document),
            ("source.toolkit.fluxcd.io", "Bucket") => read::<Bucket>(document),
            ("source.toolkit.fluxcd.io", "HelmRepository") => read::<HelmRepository>(document),
            ("kustomize.toolkit.fluxcd.io", "Kustomization") => read::<Kustomization>(document),
            ("helm.toolkit.fluxcd.io", "HelmRelease") => read::<HelmRelease>(document),
            _ => Ok(()),
        };
        if let Err(said) = said {
            findings.push(Finding::new(document.id(), said));
        }
    }
    findings
}

fn read<Spec: DeserializeOwned>(document: &Document) -> Result<(), String> {
    let object: Result<Object<Spec>, _> = serde_path_to_error::deserialize(&document.value);
    object
        .map(|_| ())
        .map_err(|e| format!("{}: {}", e.path(), e.inner()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Object<Spec> {
    api_version: String,
    kind: String,
    metadata: Value,
    spec: Spec,
}

/// `10m`, `1h30m`.
struct Duration;

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let number = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            let unit = ["ms", "s", "m", "h"];
            let after = unit.iter().find_map(|unit| number.strip_prefix(unit));
            match after {
                Some(after) if number.len() < rest.len() => rest = after,
                _ => return Err(D::Error::custom(format!("no duration: {text:?}"))),
            }
        }
        if text.is_empty() {
            return Err(D::Error::custom("no duration: it is empty"));
        }
        Ok(Self)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dependency {
    name: String,
    namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Reference {
    api_version: Option<String>,
    kind: String,
    name: String,
    namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GitReference {
    branch: Option<String>,
    tag: Option<String>,
    semver: Option<String>,
    commit: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GitRepository {
    url: String,
    interval: Duration,
    timeout: Option<Duration>,
    r#ref: Option<GitReference>,
    secret_ref: Option<Named>,
    ignore: Option<String>,
    suspend: Option<bool>,
    recurse_submodules: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum BucketProvider {
    Generic,
    Aws,
    Gcp,
    Azure,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Bucket {
    provider: Option<BucketProvider>,
    bucket_name: String,
    endpoint: String,
    region: Option<String>,
    prefix: Option<String>,
    insecure: Option<bool>,
    interval: Duration,
    timeout: Option<Duration>,
    secret_ref: Option<Named>,
    cert_secret_ref: Option<Named>,
    ignore: Option<String>,
    suspend: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HelmRepository {
    url: String,
    interval: Option<Duration>,
    timeout: Option<Duration>,
    secret_ref: Option<Named>,
    cert_secret_ref: Option<Named>,
    pass_credentials: Option<bool>,
    r#type: Option<String>,
    suspend: Option<bool>,
}

#[derive(Deserialize)]
enum DeletionPolicy {
    MirrorPrune,
    Delete,
    WaitForTermination,
    Orphan,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum DecryptionProvider {
    Sops,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Decryption {
    provider: DecryptionProvider,
    secret_ref: Option<Named>,
}

#[derive(Deserialize)]
enum Text {
    Secret,
    ConfigMap,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubstituteFrom {
    kind: Text,
    name: String,
    optional: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PostBuild {
    substitute: Option<Map<String, Value>>,
    substitute_from: Option<Vec<SubstituteFrom>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HealthExpressions {
    api_version: String,
    kind: String,
    current: String,
    in_progress: Option<String>,
    failed: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kustomization {
    path: Option<String>,
    source_ref: Reference,
    interval: Duration,
    retry_interval: Option<Duration>,
    timeout: Option<Duration>,
    prune: bool,
    wait: Option<bool>,
    force: Option<bool>,
    suspend: Option<bool>,
    target_namespace: Option<String>,
    deletion_policy: Option<DeletionPolicy>,
    depends_on: Option<Vec<Dependency>>,
    decryption: Option<Decryption>,
    post_build: Option<PostBuild>,
    health_checks: Option<Vec<Reference>>,
    health_check_exprs: Option<Vec<HealthExpressions>>,
}

#[derive(Deserialize)]
enum ReconcileStrategy {
    ChartVersion,
    Revision,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ChartSpec {
    chart: String,
    version: Option<String>,
    source_ref: Reference,
    interval: Option<Duration>,
    reconcile_strategy: Option<ReconcileStrategy>,
    values_files: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChartTemplate {
    spec: ChartSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ValuesFrom {
    kind: Text,
    name: String,
    values_key: Option<String>,
    target_path: Option<String>,
    optional: Option<bool>,
}

#[derive(Deserialize)]
enum Crds {
    Skip,
    Create,
    CreateReplace,
}

#[derive(Deserialize)]
enum StrategyName {
    RemediateOnFailure,
    RetryOnFailure,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Strategy {
    name: StrategyName,
    retry_interval: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct InstallRemediation {
    retries: Option<i64>,
    remediate_last_failure: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Install {
    timeout: Option<Duration>,
    crds: Option<Crds>,
    disable_wait: Option<bool>,
    remediation: Option<InstallRemediation>,
    strategy: Option<Strategy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum BackBy {
    Rollback,
    Uninstall,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UpgradeRemediation {
    retries: Option<i64>,
    remediate_last_failure: Option<bool>,
    strategy: Option<BackBy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Upgrade {
    timeout: Option<Duration>,
    crds: Option<Crds>,
    disable_wait: Option<bool>,
    remediation: Option<UpgradeRemediation>,
    strategy: Option<Strategy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HelmRelease {
    chart: ChartTemplate,
    release_name: Option<String>,
    interval: Duration,
    timeout: Option<Duration>,
    depends_on: Option<Vec<Dependency>>,
    install: Option<Install>,
    upgrade: Option<Upgrade>,
    values: Option<Map<String, Value>>,
    values_from: Option<Vec<ValuesFrom>>,
    target_namespace: Option<String>,
    suspend: Option<bool>,
}
