//! Files for a run that are too large to come with its inputs: the runner brings them to the bastion, where they
//! stay for later runs.

use std::collections::VecDeque;
use std::time::Duration;

use jobs::ids::StepKey;
use serde_json::json;
use tokio::sync::Mutex;

use super::runner::{HOME, Runner};
use super::{LOAN, bastion_of, install};
use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError, Patience, Poll};

/// What one look asks for: so much that it ends in a look's time on a usual line. A line that is slower brings
/// the rest in the next ones.
const BYTES: u64 = 256 << 20;
const FILES: usize = 100;

/// A file in the bucket, named by its content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::jobs) struct Large {
    /// Where in the folder.
    pub(in crate::jobs) name: String,
    /// Where in the bucket.
    pub(in crate::jobs) key: String,
    /// 64 digits.
    pub(in crate::jobs) digits: String,
    /// In bytes.
    pub(in crate::jobs) size: u64,
}

/// Brings files into a folder of the bastion, or finds them there; gives the folder. Uses the step `name`, once a
/// generation: the bastion may be another one after a retry. `list` is asked once a turn at most.
///
/// # Errors
/// When `list` fails, when a file is not what it must be, or when it takes longer than `deadline`.
pub(in crate::jobs) async fn bring<F, Fut>(
    ctx: &Ctx,
    name: &'static str,
    deadline: Duration,
    list: F,
) -> Result<String, JobError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<Vec<Large>, JobError>>,
{
    let folder = format!("{HOME}/{name}");
    let bastion = Cluster::of(ctx).provisioned(&bastion_of(ctx)?.name).await?;
    let patience = Patience {
        every: ctx.world().poll.unwrap_or(Duration::from_secs(1)),
        deadline,
    };
    // What is left to bring, and the runner's path. Lost with the turn: what is there is found again.
    let state: Mutex<Option<(VecDeque<Large>, String, usize)>> = Mutex::default();
    let key = StepKey::of(name, ctx.generation() + 1);
    ctx.wait(key, patience, || async {
        let mut state = state.lock().await;
        let host = ctx.world().ssh(ctx, &bastion).await?;
        if state.is_none() {
            let files = list().await?;
            let all = files.len();
            *state = Some((files.into(), install(ctx, &host).await?, all));
        }
        let Some((left, path, all)) = state.as_mut() else {
            return Ok(Poll::Ready(()));
        };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for file in left.iter().take(FILES) {
            if bytes > 0 && bytes + file.size > BYTES {
                break;
            }
            bytes += file.size;
            // Made for this look: the one before may have been hours ago.
            let url = ctx.store().lend(&file.key, LOAN).await?;
            batch.push(json!({
                "name": file.name, "digest": format!("sha256:{}", file.digits), "size": file.size, "url": url.reveal(),
            }));
        }
        if !batch.is_empty() {
            let count = batch.len();
            let order = json!({"files": batch}).to_string();
            let runner = Runner { host: &host, path };
            runner.fetch(&folder, order).await?;
            left.drain(..count);
        }
        Ok::<_, JobError>(match left.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending(format!("{} of {all} files are on the bastion", *all - left.len())),
        })
    })
    .await?;
    Ok(folder)
}
