//! Flux' controllers for sources, Kustomizations and HelmReleases, as far as a recovery meets them.
//!
//! They behave as Flux 2.9 does: conditions, reasons, words, what makes them look at once and what they wait for, and
//! when they give up. Strict substitution is on. What is simplified:
//!
//! - **Sources.** Every Git repository is one folder, whose revision is a digest of its files; a chart repository has
//!   no index. OCIRepository, HelmChart and ExternalArtifact do not exist; a release of a chart in Git reads it from
//!   the GitRepository at once. Nothing is downloaded: controllers hand each other the files.
//! - **Builds.** The few features of kustomize that our tree uses ([`build()`]); any other one is a failed build that
//!   names it. A SOPS file is opened with its MAC verified, which Flux does not do.
//! - **Apply.** One object after the other, without a dry run of all of them: only a kind that is not served, and a
//!   webhook that is down ([`super::Fault::WebhookDown`]), stop everything before the first write. No annotations of
//!   Flux but `prune`, `watch` and those that ask for a reconciliation.
//! - **Deletion.** No finalizers: an object of Flux that is deleted leaves what it made.
//! - **Helm.** No templates are run: a table says what a chart becomes ([`charts`]), and no release is stored in the
//!   cluster, so that a history is what the object's status says. Hooks and tests do not run. No drift detection.
//! - **Processes.** A controller acts while its Deployment in `flux-system` is available, so that it wants
//!   [`install_yaml`] applied and a [`super::kubelet`]; a new pod of it forgets nothing.
//! - **Work.** All objects are looked at each tick: there is no limit of four at a time. No events are written.
//! - **CEL.** `has(path)`, `path == 'text'`, joined by `&&`.

mod artifacts;
pub mod charts;
mod health;
mod helm;
mod install;
mod kustomize;
mod render;
mod schedule;
pub mod sealed;
mod settings;
mod source;
mod status;
mod watched;

pub use artifacts::Files;
pub use install::install_yaml;
pub use kustomize::{BuildError, Open, build};
pub use settings::{Contents, Login, Settings};

use super::{Controller, Tick};

pub(crate) const SOURCE: &str = "source.toolkit.fluxcd.io/v1";
pub(crate) const KUSTOMIZE: &str = "kustomize.toolkit.fluxcd.io/v1";
pub(crate) const HELM: &str = "helm.toolkit.fluxcd.io/v2";

/// Who writes statuses.
const MANAGER_OF_STATUS: &str = "gotk-controllers";

/// The three controllers, in the order in which they look. They share what the first one fetched.
pub fn controllers(settings: &Settings) -> Vec<Box<dyn Controller>> {
    let artifacts = artifacts::Artifacts::default();
    vec![
        Box::new(source::Source::new(settings.clone(), artifacts.clone())),
        Box::new(kustomize::Kustomize::new(artifacts.clone())),
        Box::new(helm::Helm::new(settings.charts.clone(), artifacts)),
    ]
}

/// Whether a controller runs: its Deployment in `flux-system` is available.
async fn runs(name: &str, tick: &Tick) -> kube::Result<bool> {
    let found = tick
        .cluster
        .get("apps/v1", "Deployment", "flux-system", name)
        .await?;
    Ok(found.is_some_and(|found| found["status"]["availableReplicas"].as_u64() > Some(0)))
}

fn object_ref(kind: &str, namespace: &str, name: &str) -> (String, String, String) {
    (kind.to_owned(), namespace.to_owned(), name.to_owned())
}
