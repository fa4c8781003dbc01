//! The server seen by the client that Rekindle uses.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::future::Future;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

fn client(server: &S3Server) -> Client {
    client_with(server, server.secret_key(), Duration::from_secs(60))
}

/// A client without retries: every answer is the server's own.
fn client_with(server: &S3Server, secret: &str, timeout: Duration) -> Client {
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
enum Came {
    Ok(String),
    Refused(u16, String),
    Nothing,
}

fn came<T, E: ProvideErrorMetadata>(
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

fn refused(status: u16, code: &str) -> Came {
    Came::Refused(status, code.into())
}

async fn put(client: &Client, key: &str, body: impl Into<Bytes>) -> Came {
    let body = ByteStream::from(body.into());
    let put = client.put_object().bucket(BUCKET).key(key).body(body);
    came(put.send().await, |output| output.e_tag())
}

async fn create(client: &Client, key: &str, body: impl Into<Bytes>) -> Came {
    let body = ByteStream::from(body.into());
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key(key)
        .if_none_match("*")
        .body(body);
    came(put.send().await, |output| output.e_tag())
}

async fn replace(client: &Client, key: &str, etag: &str, body: impl Into<Bytes>) -> Came {
    let body = ByteStream::from(body.into());
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key(key)
        .if_match(etag)
        .body(body);
    came(put.send().await, |output| output.e_tag())
}

async fn get(client: &Client, key: &str) -> Result<Bytes, Came> {
    match client.get_object().bucket(BUCKET).key(key).send().await {
        Ok(output) => Ok(output.body.collect().await.unwrap().into_bytes()),
        Err(error) => Err(came::<(), _>(Err(error), |()| None)),
    }
}

async fn list_keys(client: &Client) -> Came {
    let list = client.list_objects_v2().bucket(BUCKET);
    came(list.send().await, |_| None)
}

/// How many of 64 concurrent creators won, for each round.
async fn winners(client: &Client, rounds: usize) -> Vec<usize> {
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
async fn soon<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let wait = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), wait).await;
    waited.unwrap_or_else(|_| panic!("{what}: not within the deadline"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exactly_one_of_64_creators_wins() {
    let server = server().await;
    assert_eq!(winners(&client(&server), 20).await, [1; 20]);
    assert_eq!(server.stats().precondition_failed, 20 * 63);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_increment_is_lost_under_if_match() {
    let server = server().await;
    let client = client(&server);
    create(&client, "counter", "0").await;
    let increments = (0..16).map(|_| async {
        for _ in 0..8 {
            loop {
                let read = client
                    .get_object()
                    .bucket(BUCKET)
                    .key("counter")
                    .send()
                    .await
                    .unwrap();
                let etag = read.e_tag().unwrap().to_owned();
                let body = read.body.collect().await.unwrap().into_bytes();
                let value: u64 = std::str::from_utf8(&body).unwrap().parse().unwrap();
                match replace(&client, "counter", &etag, (value + 1).to_string()).await {
                    Came::Ok(_) => break,
                    other => assert_eq!(other, refused(412, "PreconditionFailed")),
                }
            }
        }
    });
    join_all(increments).await;
    assert_eq!(get(&client, "counter").await.unwrap(), "128");
}

#[tokio::test]
async fn conditions_hold_one_by_one() {
    let server = server().await;
    let client = client(&server);
    let Came::Ok(first) = create(&client, "k", "one").await else {
        panic!("not created")
    };
    assert_eq!(
        first, "\"f97c5d29941bfb1b2fdab0874906ab82\"",
        "the ETag is the MD5, quoted"
    );
    assert_eq!(
        create(&client, "k", "two").await,
        refused(412, "PreconditionFailed")
    );
    let Came::Ok(second) = replace(&client, "k", &first, "two").await else {
        panic!("not put")
    };
    assert_eq!(
        replace(&client, "k", &first, "three").await,
        refused(412, "PreconditionFailed")
    );
    let unquoted = second.trim_matches('"');
    assert!(matches!(
        replace(&client, "k", unquoted, "three").await,
        Came::Ok(_)
    ));
    assert_eq!(
        replace(&client, "absent", &first, "x").await,
        refused(404, "NoSuchKey")
    );
    assert!(server.object("absent").is_none());
    assert_eq!(get(&client, "k").await.unwrap(), "three");

    let delete = || client.delete_object().bucket(BUCKET).key("k");
    let stale = came(delete().if_match(&first).send().await, |_| None);
    assert_eq!(stale, refused(412, "PreconditionFailed"));
    delete().send().await.unwrap();
    delete().send().await.unwrap();
    assert_eq!(get(&client, "k").await, Err(refused(404, "NoSuchKey")));
    assert!(matches!(create(&client, "k", "again").await, Came::Ok(_)));
}

/// Sends all of a conditional PUT but its last byte, runs `meanwhile`, sends the last byte; returns
/// the status line.
async fn slow_create(
    server: &S3Server,
    key: &str,
    size: usize,
    meanwhile: impl FnOnce(),
) -> String {
    let config = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let put = client(server)
        .put_object()
        .bucket(BUCKET)
        .key(key)
        .if_none_match("*");
    let signed = put.presigned(config).await.unwrap();
    let mut head = format!(
        "PUT {} HTTP/1.1\r\n",
        signed.uri().parse::<http::Uri>().unwrap()
    );
    head.push_str(&format!(
        "host: {}\r\ncontent-length: {size}\r\n",
        server.address()
    ));
    for (name, value) in signed
        .headers()
        .filter(|(name, _)| *name != "content-length")
    {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = tokio::net::TcpStream::connect(server.address())
        .await
        .unwrap();
    let seen = server.stats().put;
    stream
        .write_all(format!("{head}\r\n").as_bytes())
        .await
        .unwrap();
    stream.write_all(&vec![b'x'; size - 1]).await.unwrap();
    soon("the request", || async { server.stats().put > seen }).await;
    // Time for a server that decides too early; the right one has nothing to do.
    client(server).list_buckets().send().await.unwrap();
    meanwhile();
    stream.write_all(b"x").await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn conditions_are_decided_after_the_whole_body_has_come() {
    let server = server().await;
    for size in [10, 1 << 20] {
        server.put_object("k", "taken");
        let freed = slow_create(&server, "k", size, || assert!(server.delete_object("k"))).await;
        assert_eq!(freed, "HTTP/1.1 200", "{size}");
        assert_eq!(server.object("k").unwrap().len(), size);
        server.delete_object("k");
        let take = || drop(server.put_object("k", "taken"));
        assert_eq!(
            slow_create(&server, "k", size, take).await,
            "HTTP/1.1 412",
            "{size}"
        );
        assert_eq!(server.object("k").unwrap(), "taken");
    }
}

#[tokio::test]
async fn a_large_body_loses_cleanly() {
    // No broken pipe, with a body below and one above the size from which the client asks first
    // (`Expect: 100-continue`).
    let server = server().await;
    let client = client(&server);
    server.put_object("big", "taken");
    for size in [1 << 20, 3 << 20] {
        let came = create(&client, "big", vec![7u8; size]).await;
        assert_eq!(came, refused(412, "PreconditionFailed"));
    }
    assert_eq!(server.object("big").unwrap(), "taken");
}

#[tokio::test]
async fn a_20_mib_body_comes_back_whole_and_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = Some(dir.path().join("made/by/the/server"));
    let server = S3Server::start(S3Options {
        data_dir,
        ..S3Options::default()
    })
    .await
    .unwrap();
    let client = client(&server);
    let body: Bytes = (0..20u32 << 20)
        .map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8)
        .collect();
    assert!(matches!(
        put(&client, "big", body.clone()).await,
        Came::Ok(_)
    ));
    assert!(
        get(&client, "big").await.unwrap() == body,
        "the body changed on its way"
    );

    let range = client
        .get_object()
        .bucket(BUCKET)
        .key("big")
        .range("bytes=1000000-3000000");
    let part = range.send().await.unwrap();
    assert_eq!(part.content_range(), Some("bytes 1000000-3000000/20971520"));
    let part = part.body.collect().await.unwrap().into_bytes();
    assert!(
        part == body.slice(1_000_000..3_000_001),
        "the range is wrong"
    );

    // An overwritten or deleted file leaves nothing behind.
    let files = || {
        let tree = std::fs::read_dir(dir.path().join("made/by/the/server")).unwrap();
        tree.map(|e| std::fs::read_dir(e.unwrap().path()).unwrap().count())
            .sum::<usize>()
    };
    assert_eq!(files(), 1);
    put(&client, "big", body.slice(..1 << 20)).await;
    soon("the overwritten file is gone", || async { files() == 1 }).await;
    assert!(server.delete_object("big"));
    soon("the deleted file is gone", || async { files() == 0 }).await;
}

#[tokio::test]
async fn reading_a_small_object() {
    let server = server().await;
    let client = client(&server);
    let sent = client
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .content_type("application/json")
        .metadata("generation", "7")
        .body(ByteStream::from_static(b"0123456789"))
        .send()
        .await
        .unwrap();
    let etag = sent.e_tag().unwrap();
    let head = client
        .head_object()
        .bucket(BUCKET)
        .key("k")
        .send()
        .await
        .unwrap();
    assert_eq!(head.content_length(), Some(10));
    assert_eq!(head.e_tag(), Some(etag));
    assert_eq!(head.content_type(), Some("application/json"));
    assert_eq!(head.metadata().unwrap()["generation"], "7");
    assert!(head.last_modified().is_some());

    let get = || client.get_object().bucket(BUCKET).key("k");
    for (range, expected) in [("bytes=2-4", "234"), ("bytes=8-", "89"), ("bytes=-1", "9")] {
        let part = get().range(range).send().await.unwrap();
        assert_eq!(
            part.body.collect().await.unwrap().into_bytes(),
            expected,
            "{range}"
        );
    }
    let beyond = came(get().range("bytes=10-").send().await, |_| None);
    assert_eq!(beyond, refused(416, "InvalidRange"));
    let known = came(get().if_none_match(etag).send().await, |_| None);
    assert!(matches!(known, Came::Refused(304, _)), "{known:?}");
    let missing = client
        .head_object()
        .bucket(BUCKET)
        .key("absent")
        .send()
        .await;
    assert!(matches!(came(missing, |_| None), Came::Refused(404, _)));
    let elsewhere = client.get_object().bucket("another").key("k").send().await;
    assert_eq!(came(elsewhere, |_| None), refused(404, "NoSuchBucket"));
}

#[tokio::test]
async fn empty_bodies_are_objects() {
    let server = server().await;
    let client = client(&server);
    assert!(matches!(create(&client, "empty", "").await, Came::Ok(_)));
    assert_eq!(get(&client, "empty").await.unwrap(), "");
    assert_eq!(
        create(&client, "empty", "").await,
        refused(412, "PreconditionFailed")
    );
}

#[tokio::test]
async fn listing_goes_over_many_pages() {
    let server = server().await;
    let client = client(&server);
    let expected: Vec<String> = (0..2_345).map(|n| format!("jobs/{n:05}")).collect();
    for key in &expected {
        server.put_object(key, "x");
    }
    server.put_object("other/1", "x");
    server.put_object("zz", "x");

    let list = || client.list_objects_v2().bucket(BUCKET);
    let mut found = Vec::new();
    let mut pages = list()
        .prefix("jobs/")
        .max_keys(5_000)
        .into_paginator()
        .send();
    let mut sizes = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        sizes.push(page.key_count().unwrap());
        found.extend(
            page.contents()
                .iter()
                .map(|object| object.key().unwrap().to_owned()),
        );
    }
    assert_eq!(sizes, [1000, 1000, 345]);
    assert_eq!(found, expected);

    let rest = list()
        .prefix("jobs/")
        .start_after("jobs/02342")
        .send()
        .await
        .unwrap();
    let rest: Vec<&str> = rest
        .contents()
        .iter()
        .map(|object| object.key().unwrap())
        .collect();
    assert_eq!(rest, ["jobs/02343", "jobs/02344"]);

    let top = list().delimiter("/").send().await.unwrap();
    let prefixes: Vec<&str> = top
        .common_prefixes()
        .iter()
        .map(|p| p.prefix().unwrap())
        .collect();
    assert_eq!(prefixes, ["jobs/", "other/"]);
    assert_eq!(top.contents().len(), 1);
    assert_eq!(top.is_truncated(), Some(false));

    let garbled = list().continuation_token("no token of ours").send().await;
    assert_eq!(came(garbled, |_| None), refused(400, "InvalidArgument"));
}

#[tokio::test]
async fn keys_may_contain_anything() {
    let server = server().await;
    let client = client(&server);
    let keys = [
        "plain",
        "a b",
        "100%",
        "%41",
        "a+b",
        "я/ключ",
        "日本",
        "a//b",
        "q?x=1&y=2",
        "hash#tag",
        "<xml>&\"'",
        "dot/./dot/../dot",
        "trailing/",
        "~tilde",
        "semi;colon:at@",
        "emoji 🔥",
    ];
    for key in keys {
        assert!(
            matches!(create(&client, key, key).await, Came::Ok(_)),
            "{key}"
        );
    }
    for key in keys {
        assert_eq!(get(&client, key).await.unwrap(), key);
        assert_eq!(server.object(key).unwrap(), key);
    }
    let mut sorted: Vec<&str> = keys.to_vec();
    sorted.sort_unstable();
    let listed = client
        .list_objects_v2()
        .bucket(BUCKET)
        .send()
        .await
        .unwrap();
    let listed: Vec<&str> = listed
        .contents()
        .iter()
        .map(|object| object.key().unwrap())
        .collect();
    assert_eq!(listed, sorted);
    let direct: Vec<String> = server.objects("").into_iter().map(|(key, _)| key).collect();
    assert_eq!(direct, sorted);
    // Pages that begin behind an awkward key.
    let paged = client
        .list_objects_v2()
        .bucket(BUCKET)
        .max_keys(1)
        .into_paginator();
    let pages = paged.send().try_collect().await.unwrap();
    let paged: Vec<&str> = pages
        .iter()
        .flat_map(|page| page.contents())
        .map(|o| o.key().unwrap())
        .collect();
    assert_eq!(paged, sorted);
}

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
async fn buckets() {
    let server = server().await;
    let client = client(&server);
    client.head_bucket().bucket(BUCKET).send().await.unwrap();
    let missing = client.head_bucket().bucket("another").send().await;
    assert!(matches!(came(missing, |_| None), Came::Refused(404, _)));
    client
        .create_bucket()
        .bucket("another")
        .send()
        .await
        .unwrap();
    let again = client.create_bucket().bucket("another").send().await;
    assert_eq!(
        came(again, |_| None),
        refused(409, "BucketAlreadyOwnedByYou")
    );
    let all = client.list_buckets().send().await.unwrap();
    let names: Vec<&str> = all
        .buckets()
        .iter()
        .map(|bucket| bucket.name().unwrap())
        .collect();
    assert_eq!(names, ["another", BUCKET]);
    client
        .get_bucket_location()
        .bucket(BUCKET)
        .send()
        .await
        .unwrap();

    let versioning = || client.get_bucket_versioning().bucket(BUCKET).send();
    assert_eq!(versioning().await.unwrap().status(), None);
    server.set_versioned(true);
    assert_eq!(
        versioning().await.unwrap().status().unwrap().as_str(),
        "Enabled"
    );
}

#[tokio::test]
async fn faults_before_the_effect() {
    let server = server().await;
    let client = client(&server);
    let every_second = server
        .faults()
        .on(Op::Put, When::Every(2), What::Fail(Failure::Internal));
    assert!(matches!(put(&client, "k/1", "x").await, Came::Ok(_)));
    assert_eq!(
        put(&client, "k/2", "x").await,
        refused(500, "InternalError")
    );
    assert!(matches!(put(&client, "k/3", "x").await, Came::Ok(_)));
    assert_eq!(
        put(&client, "k/4", "x").await,
        refused(500, "InternalError")
    );
    let keys: Vec<String> = server.objects("").into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["k/1", "k/3"]);
    assert_eq!(server.faults().fired_by(every_second), 2);
    server.faults().remove(every_second);

    server
        .faults()
        .on(Op::Get, When::Next(2), What::Fail(Failure::SlowDown));
    assert_eq!(get(&client, "k/1").await, Err(refused(503, "SlowDown")));
    assert_eq!(get(&client, "k/1").await, Err(refused(503, "SlowDown")));
    assert_eq!(get(&client, "k/1").await.unwrap(), "x");
    server
        .faults()
        .on(Op::List, When::Next(1), What::Fail(Failure::Internal));
    assert_eq!(list_keys(&client).await, refused(500, "InternalError"));
    assert!(matches!(list_keys(&client).await, Came::Ok(_)));
    server
        .faults()
        .on(Op::Head, When::Next(1), What::Fail(Failure::SlowDown));
    let head = || client.head_object().bucket(BUCKET).key("k/1").send();
    assert!(matches!(
        came(head().await, |_| None),
        Came::Refused(503, _)
    ));
    assert!(head().await.is_ok());
    server.faults().on(Op::Put, When::Nth(1), What::LoseRequest);
    assert_eq!(put(&client, "k/5", "x").await, Came::Nothing);
    assert!(server.object("k/5").is_none());
    server
        .faults()
        .on(Op::Put, When::Next(1), What::Fail(Failure::Conflict));
    let conflict = put(&client, "k/5", "x").await;
    assert_eq!(conflict, refused(409, "ConditionalRequestConflict"));
    assert_eq!(server.faults().fired(), 2 + 2 + 1 + 1 + 1 + 1);
}

#[tokio::test]
async fn faults_after_the_effect() {
    let server = server().await;
    let client = client(&server);
    let after = What::FailAfterEffect(Failure::Internal);
    server.faults().on(Op::Put, When::Every(2), after);
    assert!(matches!(create(&client, "k/1", "x").await, Came::Ok(_)));
    assert_eq!(
        create(&client, "k/2", "x").await,
        refused(500, "InternalError")
    );
    assert_eq!(server.object("k/2").unwrap(), "x");
    server.faults().clear();

    server.faults().on(Op::Put, When::Next(1), What::LoseAnswer);
    assert_eq!(create(&client, "k/3", "x").await, Came::Nothing);
    assert_eq!(server.object("k/3").unwrap(), "x");
    assert_eq!(
        create(&client, "k/3", "y").await,
        refused(412, "PreconditionFailed")
    );

    let large = Bytes::from(vec![1; 1 << 20]);
    server.faults().on(Op::Put, When::Next(1), What::LoseAnswer);
    assert_eq!(create(&client, "k/4", large.clone()).await, Came::Nothing);
    assert!(server.object("k/4").unwrap() == large);
}

#[tokio::test]
async fn a_late_answer_comes_after_the_effect() {
    let server = server().await;
    let hasty = client_with(&server, server.secret_key(), Duration::from_millis(100));
    server.faults().on(
        Op::Put,
        When::Next(1),
        What::DelayAnswer(Duration::from_secs(600)),
    );
    assert_eq!(create(&hasty, "k", "x").await, Came::Nothing);
    soon("the effect", || async { server.object("k").is_some() }).await;
    server.stop().await;
}

#[tokio::test]
async fn a_held_request_takes_effect_after_its_client_gave_up() {
    let server = server().await;
    let client = client(&server);
    let gate = Gate::new();
    let what = What::HoldRequest(gate.clone());
    let key = Some("zombie".into());
    server.faults().add(Rule {
        op: Some(Op::Put),
        key,
        when: When::Next(1),
        what,
    });
    let zombie = tokio::spawn({
        let client = client.clone();
        async move { put(&client, "zombie", "late").await }
    });
    gate.reached(1).await;
    zombie.abort();
    assert!(server.object("zombie").is_none());
    assert!(matches!(put(&client, "zombie", "early").await, Came::Ok(_)));
    gate.open();
    soon("the late write", || async {
        server.object("zombie").unwrap() == "late"
    })
    .await;
}

#[tokio::test]
async fn an_outage_cuts_everything_and_ends() {
    let server = server().await;
    let client = client(&server);
    assert!(matches!(put(&client, "k", "x").await, Came::Ok(_)));
    server.faults().set_down(true);
    assert_eq!(put(&client, "k", "y").await, Came::Nothing);
    assert_eq!(get(&client, "k").await, Err(Came::Nothing));
    server.faults().set_down(false);
    assert_eq!(get(&client, "k").await.unwrap(), "x");
}

#[tokio::test]
async fn latency_holds_every_request_back() {
    let server = server().await;
    let hasty = client_with(&server, server.secret_key(), Duration::from_millis(100));
    server.faults().set_latency(Duration::from_secs(600));
    assert_eq!(put(&hasty, "k", "x").await, Came::Nothing);
    assert!(server.object("k").is_none());
    server.faults().set_latency(Duration::ZERO);
    assert!(matches!(put(&client(&server), "k", "x").await, Came::Ok(_)));
    assert_eq!(server.faults().fired(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_racing_store_is_right_one_by_one_and_wrong_at_once() {
    let server = misbehaving(Misbehave::RaceConditions).await;
    let client = client(&server);
    assert!(matches!(create(&client, "k", "x").await, Came::Ok(_)));
    assert_eq!(
        create(&client, "k", "y").await,
        refused(412, "PreconditionFailed")
    );
    let won = winners(&client, 3).await;
    assert!(won.iter().any(|count| *count > 1), "{won:?}");
}

#[tokio::test]
async fn stores_that_ignore_conditions() {
    let server = misbehaving(Misbehave::IgnoreConditions).await;
    let c = client(&server);
    assert!(matches!(create(&c, "k", "x").await, Came::Ok(_)));
    assert!(matches!(create(&c, "k", "y").await, Came::Ok(_)));
    assert!(matches!(
        replace(&c, "k", "\"stale\"", "z").await,
        Came::Ok(_)
    ));
    assert!(matches!(
        replace(&c, "absent", "\"stale\"", "z").await,
        Came::Ok(_)
    ));

    let server = misbehaving(Misbehave::IgnoreIfMatch).await;
    let c = client(&server);
    assert!(matches!(create(&c, "k", "x").await, Came::Ok(_)));
    assert_eq!(
        create(&c, "k", "y").await,
        refused(412, "PreconditionFailed")
    );
    assert!(matches!(
        replace(&c, "k", "\"stale\"", "z").await,
        Came::Ok(_)
    ));

    let server = misbehaving(Misbehave::IgnoreWhenVersioned).await;
    let c = client(&server);
    let Came::Ok(etag) = create(&c, "k", "x").await else {
        panic!("not created")
    };
    assert_eq!(
        create(&c, "k", "y").await,
        refused(412, "PreconditionFailed")
    );
    server.set_versioned(true);
    assert_eq!(
        replace(&c, "k", &etag, "y").await,
        refused(412, "PreconditionFailed")
    );
    assert!(matches!(create(&c, "k", "y").await, Came::Ok(_)));
}

#[tokio::test]
async fn a_store_that_wants_the_etag_unquoted() {
    let server = misbehaving(Misbehave::WantsUnquotedETag).await;
    let client = client(&server);
    let Came::Ok(etag) = create(&client, "k", "x").await else {
        panic!("not created")
    };
    assert_eq!(
        replace(&client, "k", &etag, "y").await,
        refused(412, "PreconditionFailed")
    );
    assert!(matches!(
        replace(&client, "k", etag.trim_matches('"'), "y").await,
        Came::Ok(_)
    ));
    assert_eq!(
        replace(&client, "k", etag.trim_matches('"'), "z").await,
        refused(412, "PreconditionFailed")
    );
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
