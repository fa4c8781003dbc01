//! The embedded server: which store it plays, and what tests do to it behind its clients' backs.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{HttpRequest, HttpResponse};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::faults::S3Faults;
use super::front::{Backend, BoxError, Front, S3Stats, content_length};
use super::protocol::Protocol;
use super::store::{Conditions, INLINE, Object, Store};

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

/// A running server. Dropping it ends it too, but does not wait.
pub struct S3Server {
    front: Arc<Front<Embedded>>,
    options: S3Options,
    address: SocketAddr,
    _stop_on_drop: DropGuard,
}

/// The embedded store behind its protocol.
struct Embedded {
    service: S3Service,
    store: Arc<Store>,
}

#[async_trait]
impl Backend for Embedded {
    async fn answer(&self, mut request: HttpRequest) -> Result<HttpResponse, BoxError> {
        // A small body is read before anything else happens, so that a 412 is not sent before it.
        let length = content_length(request.headers()).unwrap_or(0);
        if length > 0 && length <= INLINE as u64 {
            request.body_mut().store_all_limited(INLINE).await?;
        }
        Ok(self.service.call(request).await?)
    }
}

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
        let backend = Embedded {
            service: builder.build(),
            store,
        };
        let stop = CancellationToken::new();
        Ok(S3Server {
            front: Front::start(backend, listener, stop.clone()),
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
        &self.front.faults
    }

    /// What was counted until now.
    pub fn stats(&self) -> S3Stats {
        self.front.stats()
    }

    /// All objects of the bucket below a prefix, in order. Reads them whole: for tests.
    pub fn objects(&self, prefix: &str) -> Vec<(String, Bytes)> {
        let found = self.front.backend.store.with_keys(self.bucket(), |keys| {
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
        let object = self.front.backend.store.get(self.bucket(), key).ok()?;
        Some(object.body.read().expect("the store owns its files"))
    }

    /// Puts an object behind the clients' backs, past all faults; returns its ETag.
    pub fn put_object(&self, key: &str, body: impl Into<Bytes>) -> String {
        let object = Object::in_memory(body.into());
        let etag = object.etag.clone();
        let put = self
            .front
            .backend
            .store
            .put(self.bucket(), key, object, &Conditions::default());
        put.expect("a PUT without conditions into a bucket that is never removed");
        etag
    }

    /// Deletes an object behind the clients' backs; says whether it was there.
    pub fn delete_object(&self, key: &str) -> bool {
        let removed = self.front.backend.store.delete(self.bucket(), key, None);
        removed.expect("a DELETE without conditions from a bucket that is never removed")
    }

    /// Marks the bucket as versioned, or not. Old versions are not kept.
    pub fn set_versioned(&self, versioned: bool) {
        let set = self
            .front
            .backend
            .store
            .set_versioned(self.bucket(), versioned);
        set.expect("buckets are never removed");
    }

    /// Cuts all connections, ends held requests and waits until the port is free.
    pub async fn stop(self) {
        self.front.stop().await;
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
