//! `rekindle pause`: no new steps until `rekindle resume`.

use serde_json::json;

use crate::cli::Control;
use crate::commands::flags;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;
use crate::view;

pub(crate) async fn run(args: &Control, out: &mut Out) -> Result<ExitCode, CliError> {
    let store = args.store.connect().await?;
    let mut snapshot = view::find(&store, &args.target).await?;
    let changed = flags::change(&store, &mut snapshot, |flags| {
        flags.paused = Some(args.reason.clone());
    })
    .await?;
    let (cluster, id) = (&snapshot.record.cluster, &snapshot.record.id);
    let value =
        json!({ "cluster": cluster, "recovery": id, "paused": args.reason, "changed": changed });
    out.show(&value, || {
        format!("recovery {id} is paused; `rekindle resume --cluster {cluster}` lets it go on")
    });
    Ok(ExitCode::Done)
}
