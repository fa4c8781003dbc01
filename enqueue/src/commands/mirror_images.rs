//! `rekindle mirror-images`: a list of container images into the bucket.

use jobs::message::{Job, MirrorImages};
use jobs::plan::{Plan, PlannedJob};

use crate::cli::MirrorJob;
use crate::commands::single;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::files;
use crate::out::Out;

/// Posts the job. What the worker would find wrong with the list is found here first.
pub(crate) async fn run(args: &MirrorJob, out: &mut Out) -> Result<ExitCode, CliError> {
    let text = files::images(&args.images)?;
    let store = args.single.begin.follow.store.connect().await?;
    let (spec, given) = single::spec(&store, &args.single).await?;
    files::fits(&args.images, &text, &spec.spec)?;
    let payload = Job::MirrorImages(MirrorImages {
        images: store.put_input(text.into()).await?,
        platforms: args.platforms.clone(),
        read_all: args.read_all,
    });
    let job = PlannedJob {
        name: payload.name(),
        payload,
        needs: vec![],
        always: false,
    };
    let plan = Plan::new(vec![job]).map_err(|problem| CliError::usage(problem.to_string()))?;
    single::post(
        &store,
        "mirror-images",
        &args.single,
        spec,
        given,
        plan,
        out,
    )
    .await
}
