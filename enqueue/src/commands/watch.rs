//! `rekindle watch`: follow a recovery until it is settled.

use crate::cli::Watch;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;
use crate::view;
use crate::wait;

pub(crate) async fn run(args: &Watch, out: &mut Out) -> Result<ExitCode, CliError> {
    let store = args.store.connect().await?;
    let snapshot = view::find(&store, &args.target).await?;
    wait::until_settled(&store, snapshot, args.timeout, out).await
}
