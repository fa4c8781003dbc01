//! The sandbox's store as pods come to it: over HTTP, with the keys of a Secret. Whatever a bucket is called in
//! Git, here it is the one that there is.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jobs::store::{Credentials, Secret, Store, StoreConfig, StoreError};

use crate::operators::percona::{Bucket, Keys};
use crate::world::Sandbox;

/// The store of a world.
#[derive(Debug, Clone)]
pub(super) struct OneBucket {
    endpoint: String,
    bucket: String,
}

impl OneBucket {
    pub(super) fn of(sandbox: &Sandbox) -> Self {
        Self {
            endpoint: sandbox.s3.endpoint(),
            bucket: sandbox.s3.bucket().to_owned(),
        }
    }

    async fn store(&self, keys: &Keys) -> Result<Store, String> {
        let config = StoreConfig {
            endpoint: Some(self.endpoint.clone()),
            bucket: self.bucket.clone(),
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
impl Bucket for OneBucket {
    async fn get(&self, keys: &Keys, _bucket: &str, key: &str) -> Result<Option<Bytes>, String> {
        self.store(keys).await?.get(key).await.map_err(words)
    }

    async fn put(&self, keys: &Keys, _bucket: &str, key: &str, body: Bytes) -> Result<(), String> {
        self.store(keys).await?.put(key, body).await.map_err(words)
    }
}

fn words(error: StoreError) -> String {
    format!("HTTP request failed: {error}")
}
