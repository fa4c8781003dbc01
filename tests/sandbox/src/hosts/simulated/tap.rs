//! A tap on the SSH servers: somebody who is told of every contact before and after its effect, and
//! who may hold it up or break its connection. Faults ([`super::HostFaults`]) know what they want to
//! strike; a tap finds out what there is.

use std::sync::Arc;

use async_trait::async_trait;

/// The connection ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut;

/// Told of every connection to an SSH server and of every command.
#[async_trait]
pub trait Tap: Send + Sync {
    /// Something is about to happen: `connect <server>` or `<server> <program>`. Gives a number that
    /// [`Tap::after`] gets back; a cut keeps it from happening.
    async fn before(&self, what: &str) -> Result<u64, Cut>;

    /// It has happened; a cut keeps the client from learning of it.
    async fn after(&self, ticket: u64) -> Result<(), Cut>;
}

pub(super) async fn before(
    tap: &Option<Arc<dyn Tap>>,
    what: impl FnOnce() -> String,
) -> Result<u64, Cut> {
    match tap {
        Some(tap) => tap.before(&what()).await,
        None => Ok(0),
    }
}

pub(super) async fn after(tap: &Option<Arc<dyn Tap>>, ticket: u64) -> Result<(), Cut> {
    match tap {
        Some(tap) => tap.after(ticket).await,
        None => Ok(()),
    }
}
