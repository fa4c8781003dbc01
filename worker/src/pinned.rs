//! Manifests that others release: downloaded once, kept in the bucket, and the same for ever.
//!
//! A version names a manifest, but it is the digest that pins it: the one in the spec, or that of the first use,
//! which is recorded. Without a way to the release somebody puts the file into the bucket by hand.

use std::time::Duration;

use bytes::Bytes;
use jobs::keys;
use jobs::store::{Created, Small, Store};
use serde::{Deserialize, Serialize};

use crate::engine::JobError;

/// No manifest is larger, in bytes: that of Flux 2.8 has half a million.
const LARGEST: u64 = 16 << 20;
/// The download.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A manifest of a release, before anybody has looked at it.
#[derive(Debug, Clone, Copy)]
pub struct Release<'a> {
    /// Whose it is, for people: `Flux`.
    pub name: &'a str,
    /// Its folder below `artifacts/`: `flux`.
    pub folder: &'a str,
    /// The version, without `v`.
    pub version: &'a str,
    /// The file: `install.yaml`.
    pub file: &'a str,
    /// Where it is downloaded from.
    pub url: &'a str,
    /// The digest that it must have, if the spec says so: 64 digits.
    pub digest: Option<&'a str>,
    /// The field of the spec with the version: `flux.version`.
    pub version_field: &'a str,
    /// The field of the spec with the digest: `flux.digest`.
    pub digest_field: &'a str,
}

/// A manifest that is in the bucket, by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// The version.
    pub version: String,
    /// SHA-256 of the manifest: 64 digits.
    pub digest: String,
}

impl Release<'_> {
    /// Makes sure that the manifest is in the bucket, and is the one that it should be: by the digest of the spec, or
    /// by the one of its first use. What `check` refuses is not kept.
    ///
    /// # Errors
    /// A download that fails may be tried again. Another digest than the spec's is fatal; another one than that of
    /// the first use needs a person.
    pub async fn fetch(
        &self,
        store: &Store,
        check: impl FnOnce(&[u8]) -> Result<(), JobError>,
    ) -> Result<Pinned, JobError> {
        let kept = match store.get_small(&self.key(), LARGEST).await? {
            Small::Body(bytes) => Some(bytes),
            Small::Absent => None,
            Small::TooLarge(size) => return Err(self.too_large(&self.key(), size)),
        };
        let bytes = match &kept {
            Some(bytes) => bytes.clone(),
            None => self.download().await?,
        };
        let digest = jobs::digest(&bytes);
        match self.digest {
            Some(wanted) if wanted != digest => {
                return Err(JobError::fatal(format!(
                    "{self} has the digest sha256:{digest}, and `{}` says sha256:{wanted}: correct the spec, or put the right file at `{}` in the bucket",
                    self.digest_field,
                    self.key()
                )));
            }
            Some(_) => check(&bytes)?,
            None => {
                check(&bytes)?;
                self.remember(store, &digest).await?;
            }
        }
        if kept.is_none() {
            // Somebody else's is seen by its digest when it is read.
            store.create(&self.key(), bytes).await?;
        }
        Ok(Pinned {
            version: self.version.to_owned(),
            digest,
        })
    }

    /// The manifest that was fetched.
    ///
    /// # Errors
    /// That it is gone is fatal; that it is another one now needs a person.
    pub async fn read(&self, store: &Store, pinned: &Pinned) -> Result<Bytes, JobError> {
        let key = self.key();
        let bytes = match store.get_small(&key, LARGEST).await? {
            Small::Body(bytes) => bytes,
            Small::Absent => {
                return Err(JobError::fatal(format!("`{key}` is gone from the bucket")));
            }
            Small::TooLarge(size) => return Err(self.too_large(&key, size)),
        };
        let digest = jobs::digest(&bytes);
        if digest != pinned.digest {
            return Err(JobError::needs_approval(format!(
                "`{key}` in the bucket was changed while it was applied: it was sha256:{}, and is sha256:{digest}",
                pinned.digest
            )));
        }
        Ok(bytes)
    }

    fn key(&self) -> String {
        keys::artifact(&format!("{}/{}/{}", self.folder, self.version, self.file))
    }

    fn digest_key(&self) -> String {
        keys::artifact(&format!("{}/{}/sha256", self.folder, self.version))
    }

    fn too_large(&self, key: &str, size: u64) -> JobError {
        JobError::fatal(format!(
            "`{key}` has {size} bytes: it is no manifest of {}",
            self.name
        ))
    }

    /// Keeps the digest of the first use, for ever.
    async fn remember(&self, store: &Store, digest: &str) -> Result<(), JobError> {
        let ours = Bytes::from(digest.to_owned());
        match store.create(&self.digest_key(), ours.clone()).await? {
            Created::New => Ok(()),
            Created::Exists(there) if there == ours => Ok(()),
            Created::Exists(there) => Err(JobError::needs_approval(format!(
                "{self} has the digest sha256:{digest}, and when it was first used it was sha256:{}: somebody has changed it. If that is right, say so by `{}` of the spec",
                String::from_utf8_lossy(&there).trim(),
                self.digest_field
            ))),
        }
    }

    async fn download(&self) -> Result<Bytes, JobError> {
        let url = self.url;
        let failed = |error: reqwest::Error| {
            JobError::retry(error).while_doing(format!(
                "download {url} (without a way there, put the file at `{}` in the bucket)",
                self.key()
            ))
        };
        let client = reqwest::Client::builder().timeout(TIMEOUT);
        let client = client.build().map_err(JobError::fatal)?;
        let mut answer = client.get(url).send().await.map_err(failed)?;
        match answer.status().as_u16() {
            200 => {}
            404 => {
                let field = self.version_field;
                return Err(JobError::fatal(format!(
                    "there is no {url}: is `{field}` right?"
                )));
            }
            status => return Err(JobError::retry(format!("GET {url}: status {status}"))),
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > LARGEST {
                return Err(self.too_large(url, bytes.len() as u64));
            }
        }
        Ok(bytes.into())
    }
}

impl std::fmt::Display for Release<'_> {
    /// `install.yaml of Flux 2.8.0`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} {}", self.file, self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;

    use super::*;
    use crate::engine::Again;

    fn release(url: &str) -> Release<'_> {
        Release {
            name: "Flux",
            folder: "flux",
            version: "2.8.0",
            file: "install.yaml",
            url,
            digest: None,
            version_field: "flux.version",
            digest_field: "flux.digest",
        }
    }

    async fn server() -> String {
        let large = || async { vec![b'#'; LARGEST as usize + 1] };
        let routes = Router::new()
            .route("/v1.0.0/install.yaml", get(|| async { "kind: List" }))
            .route("/v2.0.0/install.yaml", get(large))
            .route(
                "/v3.0.0/install.yaml",
                get(|| async { (StatusCode::BAD_GATEWAY, "later") }),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        format!("http://{at}")
    }

    #[tokio::test]
    async fn a_manifest_is_downloaded_unless_it_is_not_there_or_too_large() {
        crate::install_crypto();
        let releases = server().await;
        let download = |version: &str| {
            let url = format!("{releases}/v{version}/install.yaml");
            async move { release(&url).download().await }
        };
        assert_eq!(download("1.0.0").await.unwrap(), "kind: List");
        let error = download("2.0.0").await.unwrap_err();
        assert_eq!(error.again, Again::Fatal);
        let error = download("3.0.0").await.unwrap_err();
        assert_eq!(error.again, Again::Retry { after: None });
        let error = download("4.0.0").await.unwrap_err();
        assert!(error.to_string().contains("flux.version"), "{error}");
    }

    #[test]
    fn a_manifest_has_its_place_in_the_bucket() {
        let release = release("http://localhost/");
        assert_eq!(release.key(), "artifacts/flux/2.8.0/install.yaml");
        assert_eq!(release.digest_key(), "artifacts/flux/2.8.0/sha256");
        assert_eq!(release.to_string(), "install.yaml of Flux 2.8.0");
    }
}
