//! The sandbox's store as pods come to it: over HTTP, with the keys of a Secret.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jobs::store::{Credentials, Secret, Store, StoreConfig, StoreError};

use crate::operators::percona::{Bucket, Keys};
use crate::world::Sandbox;

/// The store of a world.
#[derive(Debug, Clone)]
pub struct OverHttp {
    endpoint: String,
    /// Every bucket is this one, whatever it is called.
    only: Option<String>,
}

impl OverHttp {
    /// That of a world.
    pub fn of(sandbox: &Sandbox) -> Self {
        let endpoint = sandbox.s3.endpoint();
        let only = None;
        Self { endpoint, only }
    }

    /// The same where Git calls its buckets otherwise: each is the one that there is.
    pub fn by_any_name(sandbox: &Sandbox) -> Self {
        let only = Some(sandbox.s3.bucket().to_owned());
        Self {
            only,
            ..Self::of(sandbox)
        }
    }

    async fn store(&self, keys: &Keys, bucket: &str) -> Result<Store, String> {
        let config = StoreConfig {
            endpoint: Some(self.endpoint.clone()),
            bucket: self.only.clone().unwrap_or_else(|| bucket.to_owned()),
            credentials: Credentials::Keys {
                access: keys.access.clone(),
                secret: Secret::new(keys.secret.clone()),
            },
            region: "us-east-1".into(),
            prefix: String::new(),
            path_style: true,
            timeout: Duration::from_secs(10),
        };
        Store::connect(&config).await.map_err(words)
    }
}

#[async_trait]
impl Bucket for OverHttp {
    async fn get(&self, keys: &Keys, bucket: &str, key: &str) -> Result<Option<Bytes>, String> {
        self.store(keys, bucket)
            .await?
            .get(key)
            .await
            .map_err(words)
    }

    async fn put(&self, keys: &Keys, bucket: &str, key: &str, body: Bytes) -> Result<(), String> {
        self.store(keys, bucket)
            .await?
            .put(key, body)
            .await
            .map_err(words)
    }
}

fn words(error: StoreError) -> String {
    format!("HTTP request failed: {error}")
}
