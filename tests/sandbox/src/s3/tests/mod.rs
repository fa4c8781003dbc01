//! The server seen by the client that Rekindle uses.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod access;
mod client;
mod conditions;
mod faults;
mod misbehaviour;
mod objects;

use super::*;

const BUCKET: &str = "rekindle";

async fn server() -> S3Server {
    S3Server::start(S3Options::default()).await.unwrap()
}

async fn misbehaving(misbehave: Misbehave) -> S3Server {
    S3Server::start(S3Options {
        misbehave,
        ..S3Options::default()
    })
    .await
    .unwrap()
}
