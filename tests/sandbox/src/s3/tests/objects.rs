//! Objects, lists and buckets.

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::client::{Came, came, client, create, get, put, refused, soon};
use super::*;

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
