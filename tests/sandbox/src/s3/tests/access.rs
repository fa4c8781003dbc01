//! Keys, signatures, counts and the end.

use std::time::Duration;

use super::client::{Came, client, client_with, create, get, list_keys, put, refused};
use super::*;

#[tokio::test]
async fn wrong_credentials_are_refused() {
    let server = server().await;
    let wrong = client_with(&server, "guessed", Duration::from_secs(60));
    assert_eq!(
        put(&wrong, "k", "x").await,
        refused(403, "SignatureDoesNotMatch")
    );
    assert!(matches!(get(&wrong, "k").await, Err(Came::Refused(403, _))));
    let anonymous = reqwest::get(format!("{}/{BUCKET}/k", server.endpoint()))
        .await
        .unwrap();
    assert_eq!(anonymous.status(), 403);
    assert!(server.objects("").is_empty());
}

#[tokio::test]
async fn a_body_other_than_the_signed_one_is_refused() {
    let server = server().await;
    let client = client(&server);
    let config = aws_sdk_s3::presigning::PresigningConfig::expires_in(Duration::from_secs(60));
    let signed = client
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .presigned(config.unwrap())
        .await;
    let signed = signed.unwrap();
    let send = |digest: &'static str| {
        let request = reqwest::Client::new().put(signed.uri()).body("abc");
        request.header("x-amz-content-sha256", digest).send()
    };
    let wrong = "0000000000000000000000000000000000000000000000000000000000000000";
    assert!(send(wrong).await.unwrap().status().is_client_error());
    assert!(server.object("k").is_none());
    let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert!(send(right).await.unwrap().status().is_success());
    assert_eq!(server.object("k").unwrap(), "abc");
}

#[tokio::test]
async fn everything_is_counted() {
    let server = server().await;
    let client = client(&server);
    put(&client, "k", "12345").await;
    create(&client, "k", "123").await;
    get(&client, "k").await.unwrap();
    list_keys(&client).await;
    client
        .head_object()
        .bucket(BUCKET)
        .key("k")
        .send()
        .await
        .unwrap();
    client.head_bucket().bucket(BUCKET).send().await.unwrap();
    client
        .delete_object()
        .bucket(BUCKET)
        .key("k")
        .send()
        .await
        .unwrap();
    let stats = server.stats();
    assert_eq!((stats.put, stats.get, stats.list), (2, 1, 1));
    assert_eq!((stats.head, stats.other, stats.delete), (1, 1, 1));
    assert_eq!((stats.bytes_in, stats.precondition_failed), (8, 1));
    assert!(stats.bytes_out > 5, "{stats:?}");
}

#[tokio::test]
async fn a_stopped_server_frees_its_port_and_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = Some(dir.path().to_owned());
    let options = S3Options {
        data_dir,
        ..S3Options::default()
    };
    let server = S3Server::start(options.clone()).await.unwrap();
    let client = client(&server);
    put(&client, "k", vec![1; 1 << 20]).await;
    let listen = server.address();
    server.stop().await;
    assert_eq!(get(&client, "k").await, Err(Came::Nothing));
    let again = S3Server::start(S3Options { listen, ..options })
        .await
        .unwrap();
    assert_eq!(again.address(), listen);
    assert!(again.objects("").is_empty());
    again.stop().await;
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn secrets_are_not_shown() {
    assert!(!format!("{:?}", S3Options::default()).contains("secret"));
}
