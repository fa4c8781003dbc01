//! One ear on everything a worker does outside itself: store, cloud, SSH, Kubernetes and queue all ask
//! here before a call has its effect and after it had.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use sandbox::hosts::simulated::{Cut, Tap as HostTap};
use tokio::sync::watch;

use super::point::Call;

/// What becomes of the one call that is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// It fails and has no effect.
    CutBefore,
    /// It has its effect, and its answer is lost.
    CutAfter,
    /// It does not arrive until [`Tap::release`].
    HoldBefore,
    /// It has its effect, and its answer does not arrive until [`Tap::release`].
    HoldAfter,
}

/// Counts all calls and strikes at most one. Clones share everything.
#[derive(Debug, Clone)]
pub struct Tap {
    state: Arc<Mutex<State>>,
    struck: Arc<watch::Sender<bool>>,
    released: Arc<watch::Sender<bool>>,
    landed: Arc<watch::Sender<bool>>,
}

#[derive(Debug, Default)]
struct State {
    log: Vec<Call>,
    counts: BTreeMap<String, u64>,
    armed: Option<(Call, Blow)>,
    /// Calls that are struck once they have had their effect.
    later: BTreeMap<u64, Blow>,
}

impl Tap {
    /// Listens only.
    pub fn listening() -> Self {
        Self::with(State::default())
    }

    /// Strikes this call.
    pub fn armed(call: Call, blow: Blow) -> Self {
        Self::with(State {
            armed: Some((call, blow)),
            ..State::default()
        })
    }

    fn with(state: State) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
            struck: Arc::new(watch::Sender::new(false)),
            released: Arc::new(watch::Sender::new(false)),
            landed: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Every call so far, in order.
    pub fn log(&self) -> Vec<Call> {
        self.lock().log.clone()
    }

    /// Waits until the call has been struck. May be waited for in vain.
    pub async fn struck(&self) {
        let mut struck = self.struck.subscribe();
        // The sender lives in self, so that waiting cannot fail.
        let _ = struck.wait_for(|struck| *struck).await;
    }

    /// Whether the call was struck.
    pub fn has_struck(&self) -> bool {
        *self.struck.borrow()
    }

    /// Lets go of what is held.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// Waits until what was held has had its effect.
    pub async fn landed(&self) {
        let mut landed = self.landed.subscribe();
        let _ = landed.wait_for(|landed| *landed).await;
    }

    /// A call is about to have its effect.
    pub async fn before(&self, what: String) -> Result<u64, Cut> {
        let (ticket, blow) = self.arrive(what);
        match blow {
            None | Some(Blow::CutAfter | Blow::HoldAfter) => {}
            Some(Blow::CutBefore) => {
                self.struck.send_replace(true);
                return Err(Cut);
            }
            Some(Blow::HoldBefore) => self.hold().await,
        }
        Ok(ticket)
    }

    /// A call has had its effect and is about to be answered.
    pub async fn after(&self, ticket: u64) -> Result<(), Cut> {
        let blow = self.lock().later.remove(&ticket);
        match blow {
            Some(Blow::CutAfter) => {
                self.struck.send_replace(true);
                return Err(Cut);
            }
            Some(Blow::HoldAfter) => self.hold().await,
            Some(Blow::HoldBefore) => {
                self.landed.send_replace(true);
            }
            Some(Blow::CutBefore) | None => {}
        }
        Ok(())
    }

    fn arrive(&self, what: String) -> (u64, Option<Blow>) {
        let mut state = self.lock();
        let count = state.counts.entry(what.clone()).or_default();
        *count += 1;
        let call = Call { what, nth: *count };
        state.log.push(call.clone());
        let ticket = state.log.len() as u64;
        let blow = state.armed.take_if(|(armed, _)| *armed == call);
        let blow = blow.map(|(_, blow)| blow);
        if let Some(blow) = blow {
            state.later.insert(ticket, blow);
        }
        (ticket, blow)
    }

    async fn hold(&self) {
        let mut released = self.released.subscribe();
        self.struck.send_replace(true);
        let _ = released.wait_for(|released| *released).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl HostTap for Tap {
    async fn before(&self, what: &str) -> Result<u64, Cut> {
        Tap::before(self, format!("ssh {what}")).await
    }

    async fn after(&self, ticket: u64) -> Result<(), Cut> {
        Tap::after(self, ticket).await
    }
}

/// The same ear on the Kubernetes API.
#[derive(Debug, Clone)]
pub struct KubeEar(pub Tap);

#[async_trait]
impl HostTap for KubeEar {
    async fn before(&self, what: &str) -> Result<u64, Cut> {
        self.0.before(format!("kube {what}")).await
    }

    async fn after(&self, ticket: u64) -> Result<(), Cut> {
        self.0.after(ticket).await
    }
}
