//! `rekindle recover`: a whole cluster.

use crate::cli::Recover;
use crate::commands::begin;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::files;
use crate::out::Out;
use crate::requester::requester;
use crate::secrets::ToSeal;
use crate::start::Request;

pub(crate) async fn run(args: &Recover, out: &mut Out) -> Result<ExitCode, CliError> {
    let cluster = &args.cluster.name;
    let spec = files::spec_of(cluster, &args.spec)?;
    let plan = files::plan(args.plan.as_deref(), &spec.spec)?;
    let store = args.begin.follow.store.connect().await?;
    let request = Request {
        cluster: cluster.clone(),
        purpose: "recover".into(),
        key: args.begin.key.clone(),
        spec: spec.yaml,
        applies_spec: true,
        plan,
        requester: requester(),
        secrets: ToSeal::new(&args.begin.secrets)?,
    };
    begin::run(&store, &request, &args.begin, out).await
}
