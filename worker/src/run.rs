//! The worker from its settings to its end.

use std::error::Error;
use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use ::jobs::queue::QueueError;
use ::jobs::store::StoreError;
use tokio_util::sync::CancellationToken;

use crate::args::WorkerArgs;
use crate::config::SettingError;
use crate::engine::Engine;

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting is missing or makes no sense.
    #[error("failed to read the settings")]
    Settings(#[from] SettingError),
    /// The store cannot be worked on.
    #[error("failed to start on this store")]
    Store(#[from] StoreError),
    /// The queue refuses us.
    #[error("failed to take jobs")]
    Queue(#[from] QueueError),
}

impl RunError {
    /// The exit code that goes with it.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            RunError::Settings(_) => 2,
            RunError::Store(StoreError::Unsafe { .. }) => 5,
            RunError::Store(_) | RunError::Queue(_) => 1,
        })
    }

    /// The whole chain in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        match self {
            RunError::Settings(SettingError {
                hint: Some(hint), ..
            }) => format!("{text} ({hint})"),
            _ => text,
        }
    }
}

/// Checks the store, then works until `shutdown` resolves.
pub async fn run(args: WorkerArgs, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let store = args.store.connect().await?;
    let queue = args.queue.connect()?;
    let world = args.world.world()?;
    // Signals are listened to from here on: also during the probe.
    tokio::pin!(shutdown);
    tokio::select! {
        probed = store.probe() => probed?,
        () = &mut shutdown => return Ok(()),
    }
    let token = CancellationToken::new();
    let engine = Engine::new(
        store,
        Arc::clone(&queue),
        world,
        args.options(),
        token.clone(),
    );
    let work = engine.run();
    tokio::pin!(work);
    let ended = tokio::select! {
        ended = &mut work => ended,
        () = &mut shutdown => {
            tracing::info!("shutting down: running steps may finish");
            token.cancel();
            work.await
        }
    };
    queue.close().await;
    Ok(ended?)
}

/// Resolves at the first SIGTERM or SIGINT.
pub async fn shutdown_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::warn!("could not listen for signals");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
