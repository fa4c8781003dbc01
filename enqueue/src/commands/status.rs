//! `rekindle status`: a recovery as it stands, from S3 alone.

use jiff::Timestamp;
use serde_json::json;

use crate::cli::Status;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;
use crate::render;
use crate::view;

pub(crate) async fn run(args: &Status, out: &mut Out) -> Result<ExitCode, CliError> {
    let store = args.store.connect().await?;
    let snapshot = view::find(&store, &args.target).await?;
    let (view, now, fit) = (snapshot.view(), Timestamp::now(), out.is_terminal());
    let Some(name) = &args.job else {
        out.show(&view, || render::status(&view, now, fit));
        return Ok(ExitCode::Done);
    };
    let row = view
        .jobs
        .iter()
        .find(|row| row.view.job == *name)
        .ok_or_else(|| {
            CliError::failed(format!("recovery {} has no job `{name}`", view.recovery.id))
                .hint("`rekindle status` without --job names them")
        })?;
    let record = snapshot.jobs.get(name).map(|stored| &stored.record);
    let value = json!({ "recovery": view.recovery.id, "job": row, "record": record });
    out.show(&value, || render::job(row, record, now, fit));
    Ok(ExitCode::Done)
}
