//! The server: it listens, applies the faults, counts, and passes requests on to `s3s`.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::Request;
use http::header::CONTENT_LENGTH;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{HttpRequest, HttpResponse};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::faults::{Failure, S3Faults, What};
use super::protocol::Protocol;
use super::request::Op;
use super::store::{Conditions, INLINE, Object, Store};

/// The largest body that a disturbed request may have; it waits in memory.
const MAX_DISTURBED: usize = 256 * 1024 * 1024;

/// How long [`S3Server::stop`] waits for connections to let go.
const STOP: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How the server is set up.
#[derive(Clone)]
pub struct S3Options {
    /// The bucket that exists from the start.
    pub bucket: String,
    /// Where bodies above 256 KiB go; a fresh directory is made in it and removed at the end.
    /// Default: the system's temporary directory.
    pub data_dir: Option<PathBuf>,
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The key pair that clients must sign with.
    pub access_key: String,
    /// Its secret half.
    pub secret_key: String,
    /// Which kind of store to play.
    pub misbehave: Misbehave,
}

impl Default for S3Options {
    fn default() -> Self {
        S3Options {
            bucket: "rekindle".into(),
            data_dir: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            access_key: "SANDBOX".into(),
            secret_key: "sandbox-secret".into(),
            misbehave: Misbehave::No,
        }
    }
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("bucket", &self.bucket)
            .field("listen", &self.listen)
            .field("misbehave", &self.misbehave)
            .finish_non_exhaustive()
    }
}

/// The stores one meets. All but the first are unfit for Rekindle, or fit only with care.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Misbehave {
    /// Keeps its promises, like AWS.
    #[default]
    No,
    /// Answers 200 to every condition, like Garage.
    IgnoreConditions,
    /// Obeys `If-None-Match`, ignores `If-Match`.
    IgnoreIfMatch,
    /// Looks first and acts later: right one by one, several winners at once.
    RaceConditions,
    /// Like Ceph: on a versioned bucket ([`S3Server::set_versioned`]) `If-None-Match` is ignored
    /// and `If-Match` always fails.
    IgnoreWhenVersioned,
    /// Like Ceph up to 18: `If-Match` holds only if the ETag is written without quotes.
    WantsUnquotedETag,
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

/// A running server. Dropping it ends it too, but does not wait.
pub struct S3Server {
    shared: Arc<Shared>,
    options: S3Options,
    address: SocketAddr,
    _stop_on_drop: DropGuard,
}

/// What all connections share.
struct Shared {
    service: S3Service,
    store: Arc<Store>,
    faults: S3Faults,
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

/// The connection ends here; the client gets no answer.
#[derive(Debug, thiserror::Error)]
#[error("connection cut by a fault of the sandbox")]
struct Cut;

impl S3Server {
    /// Binds the address and serves from tasks of the current runtime.
    pub async fn start(options: S3Options) -> anyhow::Result<S3Server> {
        let store = Store::new(options.data_dir.as_deref()).context("make the data directory")?;
        let store = Arc::new(store);
        store.create_bucket(&options.bucket);
        let listener = TcpListener::bind(options.listen)
            .await
            .with_context(|| format!("listen on {}", options.listen))?;
        let address = listener.local_addr().context("read the address bound")?;

        let protocol = Protocol {
            store: Arc::clone(&store),
            misbehave: options.misbehave,
        };
        let mut builder = S3ServiceBuilder::new(protocol);
        builder.set_auth(SimpleAuth::from_single(
            options.access_key.as_str(),
            options.secret_key.as_str(),
        ));
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            service: builder.build(),
            store,
            faults: S3Faults::default(),
            counters: Counters::default(),
            stop: stop.clone(),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(accept(Arc::clone(&shared), listener));
        Ok(S3Server {
            shared,
            options,
            address,
            _stop_on_drop: stop.drop_guard(),
        })
    }

    /// The URL for clients; they need path-style addressing.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The bucket that exists from the start.
    pub fn bucket(&self) -> &str {
        &self.options.bucket
    }

    /// The access key that clients sign with.
    pub fn access_key(&self) -> &str {
        &self.options.access_key
    }

    /// Its secret half.
    pub fn secret_key(&self) -> &str {
        &self.options.secret_key
    }

    /// The switchboard of the faults; clone it freely.
    pub fn faults(&self) -> &S3Faults {
        &self.shared.faults
    }

    /// What was counted until now.
    pub fn stats(&self) -> S3Stats {
        self.shared.counters.read()
    }

    /// All objects of the bucket below a prefix, in order. Reads them whole: for tests.
    pub fn objects(&self, prefix: &str) -> Vec<(String, Bytes)> {
        let found = self.shared.store.with_keys(self.bucket(), |keys| {
            let from = (
                std::ops::Bound::Included(prefix),
                std::ops::Bound::Unbounded,
            );
            keys.range::<str, _>(from)
                .take_while(|(key, _)| key.starts_with(prefix))
                .map(|(key, object)| (key.to_string(), Arc::clone(object)))
                .collect::<Vec<_>>()
        });
        let read = |object: &Object| object.body.read().expect("the store owns its files");
        let found = found.expect("buckets are never removed");
        found
            .into_iter()
            .map(|(key, object)| (key, read(&object)))
            .collect()
    }

    /// One object of the bucket, read whole.
    pub fn object(&self, key: &str) -> Option<Bytes> {
        let object = self.shared.store.get(self.bucket(), key).ok()?;
        Some(object.body.read().expect("the store owns its files"))
    }

    /// Puts an object behind the clients' backs, past all faults; returns its ETag.
    pub fn put_object(&self, key: &str, body: impl Into<Bytes>) -> String {
        let object = Object::in_memory(body.into());
        let etag = object.etag.clone();
        let put = self
            .shared
            .store
            .put(self.bucket(), key, object, &Conditions::default());
        put.expect("a PUT without conditions into a bucket that is never removed");
        etag
    }

    /// Deletes an object behind the clients' backs; says whether it was there.
    pub fn delete_object(&self, key: &str) -> bool {
        let removed = self.shared.store.delete(self.bucket(), key, None);
        removed.expect("a DELETE without conditions from a bucket that is never removed")
    }

    /// Marks the bucket as versioned, or not. Old versions are not kept.
    pub fn set_versioned(&self, versioned: bool) {
        let set = self.shared.store.set_versioned(self.bucket(), versioned);
        set.expect("buckets are never removed");
    }

    /// Cuts all connections, ends held requests and waits until the port is free.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(STOP, self.shared.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("connections of the sandbox's store still open after {STOP:?}");
        }
    }
}

impl fmt::Debug for S3Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Server")
            .field("address", &self.address)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            // During an outage the connection is closed at once.
            Ok(_) if shared.faults.down() => {}
            Ok((stream, _)) => {
                let serve = serve(Arc::clone(&shared), stream);
                shared.tasks.spawn(serve);
            }
            Err(error) => {
                // Out of file descriptors, most likely: others must close first.
                tracing::warn!(%error, "the sandbox's store cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    // Small answers must not wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let stop = shared.stop.clone();
    let service = service_fn(move |request| Arc::clone(&shared).handle(request));
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        () = stop.cancelled() => {}
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a connection of the sandbox's store ended");
        },
    }
}

impl Shared {
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
            None => self.serve(request, INLINE).await?,
            Some(What::LoseRequest) => return Err(Cut.into()),
            Some(what) => Arc::clone(&self).disturb(request, what).await?,
        };
        self.counters.answer(&response);
        Ok(response)
    }

    /// Answers a request; a body up to `read_first` bytes is read before anything else happens.
    async fn serve(
        &self,
        mut request: HttpRequest,
        read_first: usize,
    ) -> Result<HttpResponse, BoxError> {
        let length = content_length(request.headers()).unwrap_or(0);
        if length > 0 && length <= read_first as u64 {
            request.body_mut().store_all_limited(read_first).await?;
        }
        Ok(self.service.call(request).await?)
    }

    /// Answers a request that a fault has picked. This runs in a task of its own, because a
    /// request that was sent takes effect even if its sender has given up meanwhile.
    async fn disturb(
        self: Arc<Self>,
        mut request: HttpRequest,
        what: What,
    ) -> Result<HttpResponse, BoxError> {
        request.body_mut().store_all_limited(MAX_DISTURBED).await?;
        let shared = Arc::clone(&self);
        let task = self.tasks.spawn(async move {
            tokio::select! {
                () = shared.stop.cancelled() => Err(Cut.into()),
                answer = shared.act(request, what) => answer,
            }
        });
        task.await?
    }

    async fn act(&self, request: HttpRequest, what: What) -> Result<HttpResponse, BoxError> {
        match what {
            What::Fail(failure) => fail(failure),
            What::FailAfterEffect(failure) => {
                self.serve(request, 0).await?;
                fail(failure)
            }
            What::LoseRequest => Err(Cut.into()),
            What::LoseAnswer => {
                self.serve(request, 0).await?;
                Err(Cut.into())
            }
            What::DelayRequest(delay) => {
                tokio::time::sleep(delay).await;
                self.serve(request, 0).await
            }
            What::DelayAnswer(delay) => {
                let answer = self.serve(request, 0).await;
                tokio::time::sleep(delay).await;
                answer
            }
            What::HoldRequest(gate) => {
                gate.pass().await;
                self.serve(request, 0).await
            }
            What::HoldAnswer(gate) => {
                let answer = self.serve(request, 0).await;
                gate.pass().await;
                answer
            }
        }
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

fn content_length(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
