//! Locks between processes: a locked file, free again whenever its holder is gone.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

/// Waits for a lock; `what` is what another process does meanwhile, for the log.
pub(super) async fn lock(path: &Path, patience: Duration, what: &str) -> anyhow::Result<File> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut told = false;
    let wait = async {
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!("another process {what}, waiting");
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    };
    tokio::time::timeout(patience, wait)
        .await
        .with_context(|| format!("wait while another process {what}"))?
        .with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}
