//! What the engine takes from the process it runs in: an identity, a wall clock, chance, and tasks.
//!
//! A trait because a simulation plays many processes in one thread, kills and freezes them, and
//! must be able to do the same once more.

use std::fmt;

use futures::future::BoxFuture;
use jiff::Timestamp;
use jobs::record::Owner;
use uuid::Uuid;

use super::owner;

/// The process that an engine runs in.
pub trait Process: Send + Sync + fmt::Debug {
    /// This process as an owner of leases.
    fn owner(&self, worker: Uuid) -> Owner;

    /// Whether another owner is certainly gone. `false` when we do not know.
    fn is_gone(&self, owner: &Owner, me: &Owner) -> bool;

    /// The wall clock: for people. Nothing is decided by it.
    fn now(&self) -> Timestamp;

    /// A number from 0 to 1, for jitter.
    fn chance(&self) -> f64;

    /// Runs a task beside the caller; it ends with the process at the latest.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// The process that we really are.
#[derive(Debug, Clone, Copy)]
pub struct ThisProcess;

impl Process for ThisProcess {
    fn owner(&self, worker: Uuid) -> Owner {
        owner::here(worker)
    }

    fn is_gone(&self, owner: &Owner, me: &Owner) -> bool {
        owner::is_gone(owner, me)
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn chance(&self) -> f64 {
        rand::random_range(0.0..=1.0)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}
