//! `rekindle plan`: what a recovery would consist of and, with `--cloud`, what it would change.
//! Changes nothing. Without `--cloud` or `--job` it reads files only.

use jobs::spec::ClusterSpec;
use serde_json::json;
use worker::cluster::Cluster;

use super::preview;
use crate::changes::{self, Change, Known};
use crate::cli::Plan;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::files;
use crate::out::Out;
use crate::render;

pub(crate) async fn run(args: &Plan, out: &mut Out) -> Result<ExitCode, CliError> {
    let spec = files::spec(&args.spec)?.spec;
    if args.job.is_some() {
        return preview::run(args, &spec, out).await;
    }
    if args.wish.is_any() {
        return Err(CliError::usage(
            "--set, --until, --failed-at and --accept-gap go with --job restore",
        ));
    }
    let plan = files::plan(args.plan.as_deref(), &spec)?;
    let changes = match args.cloud {
        true => Some(compare(args, &spec).await?),
        false => None,
    };
    let value = json!({ "cluster": spec.cluster, "jobs": plan, "changes": changes });
    out.show(&value, || {
        let (nodes, jobs) = (spec.nodes().len(), render::jobs(plan.jobs().len()));
        let changes = changes
            .as_deref()
            .map_or_else(String::new, |all| "\n".to_owned() + &text(all));
        format!(
            "cluster {}: {nodes} nodes, {jobs}\n\n{}{changes}",
            spec.cluster,
            render::plan(&plan)
        )
    });
    Ok(ExitCode::Done)
}

async fn compare(args: &Plan, spec: &ClusterSpec) -> Result<Vec<Change>, CliError> {
    let clo = args.clo.connect()?.ok_or_else(|| {
        CliError::usage("there is no cloud to look at").hint("set CLO_AUTH_TOKEN and CLO_OBJECT_ID")
    })?;
    let store = args.store.connect().await?;
    let records = Cluster::new(&spec.cluster, &store);
    let (nodes, volumes, load_balancer) =
        tokio::try_join!(records.nodes(), records.volumes(), records.load_balancer())?;
    let (cloud_servers, cloud_volumes, cloud_balancers) = tokio::try_join!(
        clo.list_servers(),
        clo.list_volumes(),
        clo.list_load_balancers()
    )
    .map_err(|error| {
        CliError::failed(format!("failed to {error}"))
            .hint("`rekindle doctor` checks the connections one by one")
    })?;
    let known = Known {
        nodes,
        volumes,
        load_balancer,
        cloud_servers,
        cloud_volumes,
        cloud_balancers,
    };
    Ok(changes::changes(spec, &known))
}

fn text(changes: &[Change]) -> String {
    let mut text =
        "in the cloud: + is made, = is there, > is adopted, ! asks, . is left alone\n".to_owned();
    for change in changes {
        let id = change
            .id
            .as_ref()
            .map_or_else(String::new, |id| format!(" ({id})"));
        let note = if change.note.is_empty() {
            String::new()
        } else {
            format!(": {}", change.note)
        };
        text += &format!(
            "  {} {} {}{id}{note}\n",
            change.act.mark(),
            change.what,
            change.name
        );
    }
    text
}
