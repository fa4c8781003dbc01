//! A worker's way to the store: an HTTP client without sockets, over which requests travel for a
//! while, fail before or after their effect, lose their answers, or hang.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use jobs::store::{Credentials, Secret, Store, StoreConfig, StoreError};
use tokio::sync::oneshot;

use super::bucket::{self, Did, describe, refusal};
use super::stage::Stage;

/// How long a worker waits for an answer of the store.
const TIMEOUT: Duration = Duration::from_secs(4);

/// The way of one worker.
#[derive(Clone)]
pub(crate) struct Link {
    stage: Arc<Stage>,
    who: Arc<str>,
    away: Arc<AtomicBool>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Well,
    /// Refused; no effect.
    Refused,
    /// It took effect, the answer says that it failed.
    FailedAfter,
    /// It took effect, the connection is cut.
    Cut,
    /// Lost on the way there.
    Lost,
    /// It took effect, the answer never comes.
    Unanswered,
    /// It arrives long after its sender has given up.
    Late,
}

impl Link {
    pub(crate) fn new(stage: &Arc<Stage>, who: &str) -> Self {
        Self {
            stage: Arc::clone(stage),
            who: who.into(),
            away: Arc::default(),
        }
    }

    /// While away, nothing gets through in either direction.
    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    /// The store over this way, for a writer of its own.
    pub(crate) fn store(&self) -> Result<Store, StoreError> {
        let config = StoreConfig {
            endpoint: Some("http://store".into()),
            bucket: bucket::NAME.into(),
            credentials: Credentials::Keys {
                access: "simulation".into(),
                secret: Secret::new("simulation"),
            },
            region: "nowhere".into(),
            prefix: String::new(),
            path_style: true,
            timeout: TIMEOUT,
        };
        Store::connect_over(&config, SharedHttpClient::new(self.clone()))
    }

    fn fate(&self) -> Fate {
        if !self.stage.chance(self.stage.weather().store) {
            return Fate::Well;
        }
        match self.stage.below(10) {
            0 | 1 => Fate::Refused,
            2 | 3 => Fate::FailedAfter,
            4 | 5 => Fate::Cut,
            6 => Fate::Lost,
            7 | 8 => Fate::Unanswered,
            _ => Fate::Late,
        }
    }

    /// What happens to a request once it has left its sender, who may be dead by the time it arrives.
    async fn carry(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let fate = self.fate();
        let there = match fate {
            Fate::Late => self.stage.between(500, 20_000),
            _ => self.stage.between(1, 30),
        };
        tokio::time::sleep(there).await;
        if fate == Fate::Lost || self.is_away() {
            return std::future::pending().await;
        }
        if fate == Fate::Refused {
            return Ok(refusal(503, "SlowDown", "not now"));
        }
        let (answer, did) = self.stage.bucket.answer(&request);
        let status = answer.status().as_u16();
        self.stage.note(format_args!(
            "{} {} -> {status} {fate:?}",
            self.who,
            describe(&request)
        ));
        if let Did::Wrote { key, body } = did {
            let now = self.stage.elapsed();
            self.stage
                .law(|laws| laws.wrote(&self.who, &key, &body, now));
        }
        tokio::time::sleep(self.stage.between(1, 30)).await;
        match fate {
            Fate::FailedAfter => Ok(refusal(500, "InternalError", "what was that?")),
            Fate::Cut => Err(ConnectorError::io("the connection was cut".into())),
            Fate::Unanswered => std::future::pending().await,
            _ if self.is_away() => std::future::pending().await,
            _ => Ok(answer),
        }
    }

    fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }
}

impl HttpConnector for Link {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (answered, answer) = oneshot::channel();
        let carried = self.clone().carry(request);
        // Not a task of the worker: what is on its way is not stopped by the end of its sender.
        tokio::spawn(async move { answered.send(carried.await) });
        HttpConnectorFuture::new(async move {
            let gone = |_| Err(ConnectorError::io("the simulation is over".into()));
            answer.await.unwrap_or_else(gone)
        })
    }
}

impl HttpClient for Link {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("who", &self.who)
            .finish_non_exhaustive()
    }
}
