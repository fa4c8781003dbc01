//! The service as publishers and consumers share it: a client and the queues behind it, both made
//! when first needed. Queues that vanish are made again.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::calls::{Attributes, Calls};
use super::config::Settings;
use super::envelope::{Letter, hop};
use super::errors::Kind;
use super::queues::Queues;
use crate::queue::{Outgoing, QueueError};

pub(super) struct Service {
    pub(super) settings: Settings,
    calls: OnceCell<Calls>,
    queues: Mutex<Option<Arc<Queues>>>,
    /// Held while the queues are looked for, so that many publishers do it once.
    ensuring: tokio::sync::Mutex<()>,
}

impl Service {
    pub(super) fn new(settings: Settings) -> Service {
        Service {
            settings,
            calls: OnceCell::new(),
            queues: Mutex::default(),
            ensuring: tokio::sync::Mutex::default(),
        }
    }

    pub(super) async fn calls(&self) -> &Calls {
        self.calls.get_or_init(|| Calls::new(&self.settings)).await
    }

    /// The queues, looked for and made if nobody did yet.
    pub(super) async fn queues(&self) -> Result<Arc<Queues>, QueueError> {
        if let Some(queues) = self.known() {
            return Ok(queues);
        }
        let _turn = self.ensuring.lock().await;
        if let Some(queues) = self.known() {
            return Ok(queues);
        }
        let queues = Arc::new(Queues::ensure(self.calls().await, &self.settings).await?);
        *self.lock() = Some(Arc::clone(&queues));
        Ok(queues)
    }

    /// Says that these queues are not there any more.
    pub(super) fn forget(&self, gone: &Arc<Queues>) {
        let mut known = self.lock();
        if known.as_ref().is_some_and(|known| Arc::ptr_eq(known, gone)) {
            *known = None;
        }
    }

    /// Sends a message; what SQS does not take of its delay is left to who receives it.
    pub(super) async fn publish(
        &self,
        message: &Outgoing,
        delay: Duration,
    ) -> Result<(), QueueError> {
        let letter = Letter::new(Some(&message.id), &message.body);
        self.post(letter, delay).await
    }

    /// The same for a message that has waited for some of its delay.
    pub(super) async fn post(&self, letter: Letter, delay: Duration) -> Result<(), QueueError> {
        let (first, left) = hop(delay, self.settings.hop);
        let letter = letter.delay_left(left);
        self.send("publish", |queues| &queues.work, &letter, first)
            .await
    }

    /// Sends a message to the dead queue.
    pub(super) async fn bury(&self, letter: &Letter) -> Result<(), QueueError> {
        self.send("dead-letter", |queues| &queues.dead, letter, Duration::ZERO)
            .await
    }

    /// The attributes of the work queue and of the dead queue.
    pub(super) async fn attributes(&self) -> Result<(Attributes, Attributes), QueueError> {
        let calls = self.calls().await;
        let queues = self.queues().await?;
        let both = async |queues: &Queues| {
            tokio::try_join!(
                calls.attributes(&queues.work),
                calls.attributes(&queues.dead)
            )
        };
        let found = match both(&queues).await {
            Err(failed) if failed.kind == Kind::Absent => {
                self.forget(&queues);
                let queues = self.queues().await?;
                both(&queues).await
            }
            found => found,
        };
        found.map_err(|failed| failed.during("depth"))
    }

    async fn send(
        &self,
        doing: &'static str,
        target: impl Fn(&Queues) -> &str,
        letter: &Letter,
        delay: Duration,
    ) -> Result<(), QueueError> {
        let queues = self.queues().await?;
        let calls = self.calls().await;
        let sent = match calls.send(target(&queues), letter, delay).await {
            Err(failed) if failed.kind == Kind::Absent => {
                self.forget(&queues);
                let queues = self.queues().await?;
                calls.send(target(&queues), letter, delay).await
            }
            sent => sent,
        };
        sent.map_err(|failed| failed.during(doing))
    }

    fn known(&self) -> Option<Arc<Queues>> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Queues>>> {
        // Nothing is half-changed under this lock.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
