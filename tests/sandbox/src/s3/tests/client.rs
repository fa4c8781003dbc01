//! The client, and what came of its requests.

use std::future::Future;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures::future::join_all;

use super::*;

pub(super) fn client(server: &S3Server) -> Client {
    client_with(server, server.secret_key(), Duration::from_secs(60))
}

/// A client without retries: every answer is the server's own.
pub(super) fn client_with(server: &S3Server, secret: &str, timeout: Duration) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(server.endpoint())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(
            server.access_key(),
            secret,
            None,
            None,
            "test",
        ))
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(timeout).build())
        .build();
    Client::from_conf(config)
}

/// What a request came to: the ETag of a success, or status and code of a refusal, or no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Came {
    Ok(String),
    Refused(u16, String),
    Nothing,
}

pub(super) fn came<T, E: ProvideErrorMetadata>(
    result: Result<T, SdkError<E>>,
    etag: impl FnOnce(&T) -> Option<&str>,
) -> Came {
    match result {
        Ok(output) => Came::Ok(etag(&output).unwrap_or_default().to_owned()),
        Err(error) => match error.raw_response() {
            Some(raw) => {
                let code = error.code().unwrap_or_default().to_owned();
                Came::Refused(raw.status().as_u16(), code)
            }
            None => Came::Nothing,
        },
    }
}

pub(super) fn refused(status: u16, code: &str) -> Came {
    Came::Refused(status, code.into())
}

pub(super) async fn put(client: &Client, key: &str, body: impl Into<Bytes>) -> Came {
    let body = ByteStream::from(body.into());
    let put = client.put_object().bucket(BUCKET).key(key).body(body);
    came(put.send().await, |output| output.e_tag())
}

pub(super) async fn create(client: &Client, key: &str, body: impl Into<Bytes>) -> Came {
    let body = ByteStream::from(body.into());
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key(key)
        .if_none_match("*")
        .body(body);
    came(put.send().await, |output| output.e_tag())
}

pub(super) async fn replace(
    client: &Client,
    key: &str,
    etag: &str,
    body: impl Into<Bytes>,
) -> Came {
    let body = ByteStream::from(body.into());
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key(key)
        .if_match(etag)
        .body(body);
    came(put.send().await, |output| output.e_tag())
}

pub(super) async fn get(client: &Client, key: &str) -> Result<Bytes, Came> {
    match client.get_object().bucket(BUCKET).key(key).send().await {
        Ok(output) => Ok(output.body.collect().await.unwrap().into_bytes()),
        Err(error) => Err(came::<(), _>(Err(error), |()| None)),
    }
}

pub(super) async fn list_keys(client: &Client) -> Came {
    let list = client.list_objects_v2().bucket(BUCKET);
    came(list.send().await, |_| None)
}

/// How many of 64 concurrent creators won, for each round.
pub(super) async fn winners(client: &Client, rounds: usize) -> Vec<usize> {
    let mut won = Vec::new();
    for round in 0..rounds {
        let key = format!("race/{round}");
        let all = join_all((0..64).map(|n| create(client, &key, format!("creator {n}")))).await;
        won.push(
            all.iter()
                .filter(|came| matches!(came, Came::Ok(_)))
                .count(),
        );
        for came in all {
            let lost = refused(412, "PreconditionFailed");
            assert!(matches!(came, Came::Ok(_)) || came == lost, "{came:?}");
        }
    }
    won
}

/// A condition that comes true within the deadline.
pub(super) async fn soon<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let wait = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), wait).await;
    waited.unwrap_or_else(|_| panic!("{what}: not within the deadline"));
}
