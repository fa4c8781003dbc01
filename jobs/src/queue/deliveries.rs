//! What the consumers of brokers have in common: a task of their own takes the messages, and this is
//! its other end.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use backon::ExponentialBuilder;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use super::{Consumer, Delivery, QueueError};

/// What a consumer's task passes on. Dropping it ends the task.
pub(super) struct Deliveries {
    from: mpsc::Receiver<Result<Delivery, QueueError>>,
    _stop: DropGuard,
}

impl Deliveries {
    pub(super) fn new(
        from: mpsc::Receiver<Result<Delivery, QueueError>>,
        stop: DropGuard,
    ) -> Deliveries {
        Deliveries { from, _stop: stop }
    }
}

#[async_trait]
impl Consumer for Deliveries {
    async fn next(&mut self) -> Result<Delivery, QueueError> {
        loop {
            match self.from.recv().await {
                // It was lost while it waited here.
                Some(Ok(delivery)) if delivery.lost.is_cancelled() => {}
                Some(result) => return result,
                None => return Err(QueueError::closed("consume")),
            }
        }
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries").finish_non_exhaustive()
    }
}

/// Pauses between tries: jitter adds up to the delay itself, so ten seconds at most.
pub(super) fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
}
