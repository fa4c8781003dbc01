//! `rekindle resume`: takes the pause away and posts what is due, since workers dropped the
//! messages that came while it was paused.

use serde_json::json;

use crate::cli::Resume;
use crate::commands::flags;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;
use crate::poster::Poster;
use crate::view;

pub(crate) async fn run(args: &Resume, out: &mut Out) -> Result<ExitCode, CliError> {
    let store = args.follow.store.connect().await?;
    let mut snapshot = view::find(&store, &args.target).await?;
    let poster = Poster::connect(&args.follow, &store).await?;
    let changed = flags::change(&store, &mut snapshot, |flags| flags.paused = None).await?;
    let posted = poster.post(&store, &snapshot).await?;
    let (cluster, id) = (&snapshot.record.cluster, &snapshot.record.id);
    let value = json!({ "cluster": cluster, "recovery": id, "changed": changed, "posted": posted });
    out.line(&value, || {
        let was = if changed { "goes on" } else { "was not paused" };
        format!("recovery {id} {was}; {posted} due jobs posted")
    });
    poster.finish(&store, snapshot, out).await
}
