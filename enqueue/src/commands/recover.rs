//! `rekindle recover`: a whole cluster.

use jobs::message::Job;
use jobs::plan::Plan;

use crate::cli::{Recover, Wish};
use crate::commands::{begin, load_test};
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::files;
use crate::flux;
use crate::out::Out;
use crate::requester::requester;
use crate::secrets::ToSeal;
use crate::start::Request;

pub(crate) async fn run(args: &Recover, out: &mut Out) -> Result<ExitCode, CliError> {
    let cluster = &args.cluster.name;
    let spec = files::spec_of(cluster, &args.spec)?;
    let mut plan = files::plan(args.plan.as_deref(), &spec.spec)?;
    if args.wish.is_any() {
        plan = with_wish(&plan, &args.wish)?;
    }
    let bootstraps = plan.jobs().iter().any(|j| j.payload == Job::FluxBootstrap);
    let flux = match bootstraps || args.flux.folder.is_some() {
        true => flux::pack(args.flux.folder.as_deref(), &spec.spec)?,
        false => None,
    };
    let store = args.begin.follow.store.connect().await?;
    if let Some(script) = &args.load_script {
        plan = load_test::with_script(&store, &plan, &spec.spec, script).await?;
    }
    let request = Request {
        cluster: cluster.clone(),
        purpose: "recover".into(),
        key: args.begin.key.clone(),
        spec: spec.yaml,
        applies_spec: true,
        plan,
        requester: requester(),
        secrets: ToSeal::new(&args.begin.secrets)?,
        flux,
    };
    begin::run(&store, &request, &args.begin, out).await
}

/// The plan, with what the operator says of the restore.
fn with_wish(plan: &Plan, wish: &Wish) -> Result<Plan, CliError> {
    let mut jobs = plan.jobs().to_vec();
    let mut restores = jobs.iter_mut().map(|job| &mut job.payload);
    let restore = restores.find(|payload| matches!(payload, Job::Restore(_)));
    let restore = restore.ok_or_else(|| {
        CliError::usage("--set, --until, --failed-at or --accept-gap is given, and the plan has no job `restore`")
            .hint("a `database` section in the spec brings one")
    })?;
    *restore = Job::Restore(wish.payload());
    Plan::new(jobs).map_err(|problem| CliError::usage(problem.to_string()))
}
