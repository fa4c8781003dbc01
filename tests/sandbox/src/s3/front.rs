//! What stands before a server, the embedded one or another behind the proxy: it accepts, applies
//! the faults, counts, and passes requests on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::Request;
use http::header::CONTENT_LENGTH;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::{HttpRequest, HttpResponse};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::faults::{Failure, S3Faults, What};
use super::request::Op;
use super::shape::{Cut, Shape};

/// The largest body that a disturbed request may have; it waits in memory.
const MAX_DISTURBED: usize = 256 * 1024 * 1024;

/// How long [`Front::stop`] waits for connections to let go.
const STOP: Duration = Duration::from_secs(5);

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Who answers what the faults let through.
#[async_trait]
pub(super) trait Backend: Send + Sync + 'static {
    /// Does what is asked. An error cuts the client's connection.
    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, BoxError>;
}

/// What the server has seen so far. Disturbed requests count too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct S3Stats {
    /// PutObject requests.
    pub put: u64,
    /// GetObject requests.
    pub get: u64,
    /// HeadObject requests.
    pub head: u64,
    /// Listings of objects.
    pub list: u64,
    /// DeleteObject requests.
    pub delete: u64,
    /// Requests about buckets.
    pub other: u64,
    /// Answers with status 412.
    pub precondition_failed: u64,
    /// Bytes of request bodies, as declared.
    pub bytes_in: u64,
    /// Bytes of answer bodies.
    pub bytes_out: u64,
}

/// What all connections share.
pub(super) struct Front<B> {
    pub(super) backend: B,
    pub(super) faults: S3Faults,
    counters: Counters,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Counters {
    ops: [AtomicU64; Op::COUNT],
    precondition_failed: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl<B: Backend> Front<B> {
    /// Serves from tasks of the current runtime until `stop` fires.
    pub(super) fn start(backend: B, listener: TcpListener, stop: CancellationToken) -> Arc<Self> {
        let front = Arc::new(Front {
            backend,
            faults: S3Faults::default(),
            counters: Counters::default(),
            stop,
            tasks: TaskTracker::new(),
        });
        front.tasks.spawn(accept(Arc::clone(&front), listener));
        front
    }

    pub(super) fn stats(&self) -> S3Stats {
        self.counters.read()
    }

    /// Cuts all connections, ends held requests and waits until the port is free.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP, self.tasks.wait()).await.is_err() {
            tracing::warn!("connections of the sandbox's store still open after {STOP:?}");
        }
    }

    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Result<HttpResponse, BoxError> {
        let op = Op::of(request.method(), request.uri());
        let length = content_length(request.headers());
        self.counters.request(op, length);
        let fault = self.faults.pick(op, request.uri());
        if let Some(latency) = self.faults.latency() {
            tokio::time::sleep(latency).await;
        }
        let request = request.map(s3s::Body::from);
        let response = match fault {
            None => self.backend.answer(request).await?,
            Some(What::LoseRequest) => return Err(Cut.into()),
            Some(What::CutRequest(at)) => {
                let request = request.map(|body| Shape::cut(at).of(body));
                self.backend.answer(request).await?;
                return Err(Cut.into());
            }
            Some(What::StallRequest(at)) => {
                let request = request.map(|body| Shape::stall(at).of(body));
                self.backend.answer(request).await?
            }
            Some(What::Throttle(per_second)) => {
                let shape = Shape::throttle(per_second);
                let request = request.map(|body| shape.of(body));
                self.backend
                    .answer(request)
                    .await?
                    .map(|body| shape.of(body))
            }
            Some(what) => Arc::clone(&self).disturb(request, what).await?,
        };
        self.counters.answer(&response);
        Ok(response)
    }

    /// Answers a request that a fault has picked. This runs in a task of its own, because a
    /// request that was sent takes effect even if its sender has given up meanwhile.
    async fn disturb(
        self: Arc<Self>,
        mut request: HttpRequest,
        what: What,
    ) -> Result<HttpResponse, BoxError> {
        request.body_mut().store_all_limited(MAX_DISTURBED).await?;
        let front = Arc::clone(&self);
        let task = self.tasks.spawn(async move {
            tokio::select! {
                () = front.stop.cancelled() => Err(Cut.into()),
                answer = front.act(request, what) => answer,
            }
        });
        task.await?
    }

    async fn act(&self, request: HttpRequest, what: What) -> Result<HttpResponse, BoxError> {
        match what {
            What::Fail(failure) => fail(failure),
            What::FailAfterEffect(failure) => {
                self.backend.answer(request).await?;
                fail(failure)
            }
            What::LoseAnswer => {
                self.backend.answer(request).await?;
                Err(Cut.into())
            }
            What::DelayRequest(delay) => {
                tokio::time::sleep(delay).await;
                self.backend.answer(request).await
            }
            What::DelayAnswer(delay) => {
                let answer = self.backend.answer(request).await;
                tokio::time::sleep(delay).await;
                answer
            }
            What::HoldRequest(gate) => {
                gate.pass().await;
                self.backend.answer(request).await
            }
            What::HoldAnswer(gate) => {
                let answer = self.backend.answer(request).await;
                gate.pass().await;
                answer
            }
            What::CutAnswer(at) => {
                let answer = self.backend.answer(request).await?;
                Ok(answer.map(|body| Shape::cut(at).of(body)))
            }
            What::StallAnswer(at) => {
                let answer = self.backend.answer(request).await?;
                Ok(answer.map(|body| Shape::stall(at).of(body)))
            }
            // These four never come here: their bodies are not stored first.
            What::LoseRequest | What::CutRequest(_) | What::StallRequest(_) | What::Throttle(_) => {
                Err(Cut.into())
            }
        }
    }
}

async fn accept<B: Backend>(front: Arc<Front<B>>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            () = front.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            // During an outage the connection is closed at once.
            Ok(_) if front.faults.down() => {}
            Ok((stream, _)) => {
                let serve = serve(Arc::clone(&front), stream);
                front.tasks.spawn(serve);
            }
            Err(error) => {
                // Out of file descriptors, most likely: others must close first.
                tracing::warn!(%error, "the sandbox's store cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve<B: Backend>(front: Arc<Front<B>>, stream: TcpStream) {
    // Small answers must not wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let stop = front.stop.clone();
    let service = service_fn(move |request| Arc::clone(&front).handle(request));
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        () = stop.cancelled() => {}
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a connection of the sandbox's store ended");
        },
    }
}

impl Counters {
    fn request(&self, op: Op, length: Option<u64>) {
        self.ops[op.index()].fetch_add(1, Ordering::Relaxed);
        self.bytes_in
            .fetch_add(length.unwrap_or(0), Ordering::Relaxed);
    }

    fn answer(&self, response: &HttpResponse) {
        if response.status() == http::StatusCode::PRECONDITION_FAILED {
            self.precondition_failed.fetch_add(1, Ordering::Relaxed);
        }
        // Files are streams of unknown length; for them the header tells.
        let length = response.body().size_hint().exact();
        let length = length
            .or_else(|| content_length(response.headers()))
            .unwrap_or(0);
        self.bytes_out.fetch_add(length, Ordering::Relaxed);
    }

    fn read(&self) -> S3Stats {
        let op = |op: Op| self.ops[op.index()].load(Ordering::Relaxed);
        S3Stats {
            put: op(Op::Put),
            get: op(Op::Get),
            head: op(Op::Head),
            list: op(Op::List),
            delete: op(Op::Delete),
            other: op(Op::Other),
            precondition_failed: self.precondition_failed.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
        }
    }
}

fn fail(failure: Failure) -> Result<HttpResponse, BoxError> {
    Ok(failure.to_error().to_http_response()?)
}

pub(super) fn content_length(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
