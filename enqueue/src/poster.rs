//! What every command that posts goes through: the way to workers, and waiting for them.

use std::sync::Arc;
use std::time::Duration;

use jobs::queue::Queue;
use jobs::store::Store;

use crate::cli::Follow;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::here::Here;
use crate::out::Out;
use crate::post::post_due;
use crate::view::Snapshot;
use crate::wait;

/// The broker, or a worker in this process.
#[derive(Debug)]
pub(crate) struct Poster {
    queue: Arc<dyn Queue>,
    here: Option<Here>,
    wait: bool,
    timeout: Option<Duration>,
}

impl Poster {
    /// Finds the broker and makes sure that it answers, before anything is written.
    pub(crate) async fn connect(follow: &Follow, store: &Store) -> Result<Self, CliError> {
        let (queue, here) = if follow.here {
            let world = follow.world.world()?;
            // As every worker does before it trusts a bucket.
            store.probe().await?;
            let here = Here::start(store, world);
            (here.queue(), Some(here))
        } else {
            let queue = follow.queue.connect()?;
            queue.depth().await?;
            (queue, None)
        };
        Ok(Self {
            queue,
            here,
            wait: follow.waits(),
            timeout: follow.timeout,
        })
    }

    /// Posts what is due.
    pub(crate) async fn post(&self, store: &Store, snapshot: &Snapshot) -> Result<usize, CliError> {
        post_due(store, self.queue.as_ref(), snapshot).await
    }

    /// Waits if that was asked for, and closes everything in order.
    pub(crate) async fn finish(
        self,
        store: &Store,
        snapshot: Snapshot,
        out: &mut Out,
    ) -> Result<ExitCode, CliError> {
        let ended = if self.wait {
            let cluster = snapshot.record.cluster.clone();
            tokio::select! {
                ended = wait::until_settled(store, snapshot, self.timeout, out) => ended,
                () = worker::shutdown_signal(), if self.here.is_some() => Err(CliError::failed(
                    "interrupted; the state is in S3",
                ).hint(format!("go on with `rekindle retry --cluster {cluster} --reason interrupted --here`"))),
            }
        } else {
            Ok(ExitCode::Done)
        };
        match self.here {
            Some(here) => here.stop().await?,
            None => self.queue.close().await,
        }
        ended
    }
}
