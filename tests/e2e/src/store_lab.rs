//! An S3 server with a proxy before it, which disturbs what the store does on demand.
//!
//! Two servers that share no code: the sandbox's own, and MiniStack, which is written in Python.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_sdk_s3::config::{BehaviorVersion, Credentials as SdkCredentials, Region};
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use jobs::store::{Credentials, Secret, Store, StoreConfig};
use sandbox::s3::{S3Faults, S3Options, S3Proxy, S3Server};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ministack");

/// Names a MiniStack for everybody, started with `AUTH=true`. Without it each test starts its own.
const SHARED: &str = "S3_ENDPOINT_TEST";

/// Which server stands behind the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The sandbox's, in this process.
    Sandbox,
    /// MiniStack, in a process of its own.
    MiniStack,
}

/// A bucket of one's own, behind a proxy.
#[derive(Debug)]
pub struct StoreLab {
    proxy: S3Proxy,
    server: Server,
    /// The bucket past the proxy.
    direct: StoreConfig,
}

#[derive(Debug)]
enum Server {
    Sandbox(Box<S3Server>),
    MiniStack { _own: Option<MiniStack> },
}

impl StoreLab {
    /// A fresh bucket that behaves.
    pub async fn start(kind: Kind) -> anyhow::Result<Self> {
        let (server, direct) = match kind {
            Kind::Sandbox => {
                let server = S3Server::start(S3Options::default()).await?;
                let keys = (server.access_key(), server.secret_key());
                let direct = config(&server.endpoint(), server.bucket(), keys);
                (Server::Sandbox(Box::new(server)), direct)
            }
            Kind::MiniStack => {
                let own = match std::env::var(SHARED) {
                    Ok(_) => None,
                    Err(_) => Some(MiniStack::start().await?),
                };
                let endpoint = match &own {
                    Some(own) => own.endpoint.clone(),
                    None => std::env::var(SHARED)?,
                };
                let bucket = format!("store-{}", uuid::Uuid::new_v4().simple());
                let direct = config(&endpoint, &bucket, ("test", "test-secret"));
                let made = sdk(&direct).create_bucket().bucket(&bucket).send().await;
                made.context("make a bucket")?;
                (Server::MiniStack { _own: own }, direct)
            }
        };
        let proxy = S3Proxy::start(direct.endpoint.as_deref().unwrap_or_default()).await?;
        Ok(Self {
            proxy,
            server,
            direct,
        })
    }

    /// The faults before the server.
    pub fn faults(&self) -> &S3Faults {
        self.proxy.faults()
    }

    /// What has passed the proxy.
    pub fn proxy(&self) -> &S3Proxy {
        &self.proxy
    }

    /// The way through the proxy.
    pub fn config(&self) -> StoreConfig {
        StoreConfig {
            endpoint: Some(self.proxy.endpoint()),
            ..self.direct.clone()
        }
    }

    /// A store behind the proxy.
    pub async fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::connect(&self.config()).await?)
    }

    /// A store behind the proxy that waits for an answer no longer than this.
    pub async fn store_within(&self, timeout: Duration) -> anyhow::Result<Store> {
        let config = StoreConfig {
            timeout,
            ..self.config()
        };
        Ok(Store::connect(&config).await?)
    }

    /// A store that the faults do not strike.
    pub async fn direct(&self) -> anyhow::Result<Store> {
        Ok(Store::connect(&self.direct).await?)
    }

    /// Whether the server would notice a wrong secret key.
    pub fn verifies_signatures(&self) -> bool {
        matches!(self.server, Server::Sandbox(_))
    }

    /// Turns versioning of the bucket on.
    pub async fn set_versioned(&self) -> anyhow::Result<()> {
        if let Server::Sandbox(server) = &self.server {
            server.set_versioned(true);
            return Ok(());
        }
        let versioning = VersioningConfiguration::builder()
            .status(BucketVersioningStatus::Enabled)
            .build();
        sdk(&self.direct)
            .put_bucket_versioning()
            .bucket(&self.direct.bucket)
            .versioning_configuration(versioning)
            .send()
            .await
            .context("turn versioning on")?;
        Ok(())
    }

    /// Ends the proxy, and the server unless others use it.
    pub async fn stop(self) {
        self.proxy.stop().await;
        if let Server::Sandbox(server) = self.server {
            server.stop().await;
        }
    }
}

fn config(endpoint: &str, bucket: &str, (access, secret): (&str, &str)) -> StoreConfig {
    StoreConfig {
        endpoint: Some(endpoint.to_owned()),
        bucket: bucket.to_owned(),
        credentials: Credentials::Keys {
            access: access.to_owned(),
            secret: Secret::new(secret),
        },
        region: "us-east-1".into(),
        prefix: "conformance".into(),
        path_style: true,
        timeout: Duration::from_secs(10),
    }
}

/// A plain client, for what the store has no word for.
fn sdk(config: &StoreConfig) -> aws_sdk_s3::Client {
    let keys = match &config.credentials {
        Credentials::Keys { access, secret } => {
            SdkCredentials::new(access, secret.reveal(), None, None, "test")
        }
        Credentials::Aws => unreachable!("tests have keys"),
    };
    let sdk = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(config.endpoint.clone().unwrap_or_default())
        .region(Region::new(config.region.clone()))
        .credentials_provider(keys)
        .force_path_style(true)
        .build();
    aws_sdk_s3::Client::from_conf(sdk)
}

/// A MiniStack of one's own. It ends with this value, or with the process.
#[derive(Debug)]
struct MiniStack {
    dir: PathBuf,
    endpoint: String,
}

impl MiniStack {
    async fn start() -> anyhow::Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        // tests/run sweeps up directories of this name.
        let name = format!("rekindle-ministack-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let started = tokio::task::spawn_blocking({
            let dir = dir.clone();
            move || script("start", &dir)
        });
        let out = started.await??;
        let endpoint = out
            .lines()
            .find_map(|line| line.strip_prefix("S3_ENDPOINT="));
        let endpoint = endpoint.context("tests/ministack prints the endpoint")?;
        Ok(Self {
            dir,
            endpoint: endpoint.to_owned(),
        })
    }
}

impl Drop for MiniStack {
    fn drop(&mut self) {
        if script("stop", &self.dir).is_ok() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn script(verb: &str, dir: &std::path::Path) -> anyhow::Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(SCRIPT)
        .arg(verb)
        .arg(dir)
        .env("WITH_PID", std::process::id().to_string())
        .env("AUTH", "true")
        .output()
        .context("run tests/ministack")?;
    let words = String::from_utf8_lossy(&stderr);
    ensure!(status.success(), "tests/ministack {verb}: {words}");
    Ok(String::from_utf8(stdout)?)
}
