//! What `recover` and the single jobs have in common: start, post, say what to do next.

use serde_json::json;

use crate::cli::Begin;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;
use crate::poster::Poster;
use crate::render;
use crate::start::{self, Request};
use crate::view::{self, Snapshot};
use jobs::record::{Finished, RecoveryRecord};
use jobs::store::Store;

/// Starts the recovery, or attaches to the one that has our key.
pub(crate) async fn run(
    store: &Store,
    request: &Request,
    begin: &Begin,
    out: &mut Out,
) -> Result<ExitCode, CliError> {
    if request.plan.jobs().is_empty() {
        return Err(CliError::usage(format!(
            "there is nothing to do: the plan has no jobs for cluster `{}`",
            request.cluster
        )));
    }
    let id = request.id();
    let before = start::existing(store, request, &id).await?;
    if let Some(Finished { outcome, .. }) = before.as_ref().and_then(|r| r.finished.as_ref()) {
        return Ok(ended(&id, request, view::outcome(*outcome), out));
    }
    let poster = Poster::connect(&begin.follow, store).await?;
    let record = start::start(store, request, &id).await?;
    if let Some(Finished { outcome, .. }) = &record.finished {
        return Ok(ended(&id, request, view::outcome(*outcome), out));
    }
    let snapshot = load(store, &record).await?;
    let posted = poster.post(store, &snapshot).await?;
    let attached = before.is_some();
    let value = json!({
        "cluster": request.cluster, "recovery": id, "purpose": request.purpose,
        "attached": attached, "jobs": request.plan.jobs().len(), "posted": posted,
        "secrets": request.secrets.names(),
    });
    let text = || {
        let what = if attached { "attached to" } else { "started" };
        let jobs = render::jobs(request.plan.jobs().len());
        let mut text = format!(
            "{what} recovery {id} of cluster {}: {jobs}, {posted} posted",
            request.cluster
        );
        if !request.secrets.is_empty() {
            text += &format!("\nsealed: {}", request.secrets.names().join(", "));
        }
        if begin.follow.waits() {
            return text;
        }
        format!(
            "{text}\nfollow it with `rekindle watch --cluster {}`",
            request.cluster
        )
    };
    if begin.follow.waits() {
        out.line(&value, text);
    } else {
        out.show(&value, text);
    }
    poster.finish(store, snapshot, out).await
}

async fn load(store: &Store, record: &RecoveryRecord) -> Result<Snapshot, CliError> {
    Snapshot::load(store, &record.cluster, &record.id)
        .await?
        .ok_or_else(|| CliError::failed(format!("recovery {} vanished from the bucket", record.id)))
}

/// The key's recovery has ended before: its outcome is ours.
fn ended(
    id: &jobs::ids::RecoveryId,
    request: &Request,
    state: view::State,
    out: &mut Out,
) -> ExitCode {
    let code = state.exit_code().unwrap_or(ExitCode::Failed);
    let value = json!({
        "cluster": request.cluster, "recovery": id, "purpose": request.purpose,
        "attached": true, "state": state, "exit_code": code as u8,
    });
    out.show(&value, || {
        format!(
            "recovery {id} of cluster {} has ended before: {}",
            request.cluster,
            state.words()
        )
    });
    code
}
