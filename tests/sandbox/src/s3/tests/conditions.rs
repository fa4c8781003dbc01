//! Of several writers exactly one wins.

use std::time::Duration;

use aws_sdk_s3::presigning::PresigningConfig;
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Came, came, client, create, get, refused, replace, soon, winners};
use super::*;

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
