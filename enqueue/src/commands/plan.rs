//! `rekindle plan`: what a recovery would consist of. Reads files only.

use serde_json::json;

use crate::cli::Plan;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::files;
use crate::out::Out;
use crate::render;

pub(crate) fn run(args: &Plan, out: &mut Out) -> Result<ExitCode, CliError> {
    let spec = files::spec(&args.spec)?.spec;
    let plan = files::plan(args.plan.as_deref(), &spec)?;
    let value = json!({ "cluster": spec.cluster, "jobs": plan });
    out.show(&value, || {
        let (nodes, jobs) = (spec.nodes().len(), render::jobs(plan.jobs().len()));
        format!(
            "cluster {}: {nodes} nodes, {jobs}\n\n{}",
            spec.cluster,
            render::plan(&plan)
        )
    });
    Ok(ExitCode::Done)
}
