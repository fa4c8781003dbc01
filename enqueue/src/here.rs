//! `--here`: a worker inside this process, over the in-process queue. Same state in S3, no broker.

use std::sync::Arc;

use jobs::queue::{InProcess, Queue, QueueError};
use jobs::store::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use worker::engine::{Engine, Options};
use worker::world::World;

use crate::error::CliError;

/// A running worker.
#[derive(Debug)]
pub(crate) struct Here {
    queue: Arc<InProcess>,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), QueueError>>,
}

impl Here {
    /// Begins to work on whatever is posted to its queue.
    pub(crate) fn start(store: &Store, world: World) -> Self {
        let queue = Arc::new(InProcess::new());
        let shutdown = CancellationToken::new();
        // The sweep would take up jobs of every cluster in the bucket; this process is here for one.
        let options = Options {
            sweep: None,
            ..Options::default()
        };
        let engine = Engine::new(
            store.as_another_writer(),
            Arc::clone(&queue) as Arc<dyn Queue>,
            world,
            options,
            shutdown.clone(),
        );
        let running = tokio::spawn(async move { engine.run().await });
        Self {
            queue,
            shutdown,
            running,
        }
    }

    /// The queue it works on.
    pub(crate) fn queue(&self) -> Arc<dyn Queue> {
        Arc::clone(&self.queue) as Arc<dyn Queue>
    }

    /// Lets running steps end, gives the leases back, and ends.
    pub(crate) async fn stop(self) -> Result<(), CliError> {
        self.shutdown.cancel();
        match self.running.await {
            Ok(ended) => Ok(ended?),
            Err(error) => Err(CliError::failed(format!(
                "the worker in this process crashed: {error}"
            ))),
        }
    }
}
