//! Specs, plans and lists of images as files, read and checked before anything else happens.

use std::path::Path;

use jobs::ids::ClusterName;
use jobs::images::{self, List};
use jobs::plan::{DEFAULT_PLAN, Plan, PlanFile};
use jobs::spec::{ClusterSpec, Problem};

use crate::error::CliError;

/// Files of people are small; a larger one is a mistake (a path to an image, say).
const MOST: u64 = 4 * 1024 * 1024;

/// A spec: as written, and read.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) yaml: String,
    pub(crate) spec: ClusterSpec,
}

/// Reads and checks a spec.
pub(crate) fn spec(path: &Path) -> Result<Spec, CliError> {
    let yaml = read(path)?;
    let spec = ClusterSpec::parse(&yaml).map_err(|problems| CliError::Problems {
        file: path.display().to_string(),
        problems,
    })?;
    Ok(Spec { yaml, spec })
}

/// Reads and checks a spec that has to be the one of `cluster`.
pub(crate) fn spec_of(cluster: &ClusterName, path: &Path) -> Result<Spec, CliError> {
    let read = spec(path)?;
    if read.spec.cluster == *cluster {
        return Ok(read);
    }
    Err(CliError::usage(format!(
        "the command names cluster `{cluster}`, but {} is the spec of cluster `{}`",
        path.display(),
        read.spec.cluster
    ))
    .hint("give the cluster's own spec: a wrong one would build servers under another name"))
}

/// Reads a plan, the built-in one without a path, and expands it for a cluster.
pub(crate) fn plan(path: Option<&Path>, spec: &ClusterSpec) -> Result<Plan, CliError> {
    let file = path.map_or_else(|| "the built-in plan".into(), |p| p.display().to_string());
    let yaml = path.map_or_else(|| Ok(DEFAULT_PLAN.to_owned()), read)?;
    PlanFile::parse(&yaml)
        .and_then(|plan| plan.expand(spec))
        .map_err(|problems| CliError::Problems { file, problems })
}

/// Reads a plan without a spec: its form only.
pub(crate) fn plan_file(path: &Path) -> Result<PlanFile, CliError> {
    PlanFile::parse(&read(path)?).map_err(|problems| CliError::Problems {
        file: path.display().to_string(),
        problems,
    })
}

/// Reads a list of images; gives it as written when it can be read.
pub(crate) fn images(path: &Path) -> Result<String, CliError> {
    let text = read(path)?;
    List::parse(&text).map_err(|problems| problems_of(path, problems))?;
    Ok(text)
}

/// Checks that a list of images, as read, has what the Kubernetes of a spec needs.
pub(crate) fn fits(path: &Path, text: &str, spec: &ClusterSpec) -> Result<usize, CliError> {
    let list = List::parse(text).map_err(|problems| problems_of(path, problems))?;
    let Some(kubernetes) = &spec.kubernetes else {
        let why = format!(
            "the spec of cluster `{}` has no `kubernetes` section",
            spec.cluster
        );
        return Err(
            CliError::usage(why).hint("images are checked against the Kubernetes of a spec")
        );
    };
    let missing = images::missing(list.images(), kubernetes);
    match missing.is_empty() {
        true => Ok(list.images().len()),
        false => Err(problems_of(path, missing)),
    }
}

fn problems_of(path: &Path, problems: Vec<Problem>) -> CliError {
    CliError::Problems {
        file: path.display().to_string(),
        problems,
    }
}

pub(crate) fn read(path: &Path) -> Result<String, CliError> {
    let failed =
        |reason: String| CliError::usage(format!("failed to read {}: {reason}", path.display()));
    let about = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?;
    if about.len() > MOST {
        return Err(failed(format!(
            "it has {} bytes, {MOST} at most",
            about.len()
        )));
    }
    std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))
}
