//! The store over the sandbox's S3 server, and over one that lists as no server should.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use e2e::store_lab::Kind;
use jobs::store::{Credentials, Secret, Store, StoreConfig, StoreError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

e2e::store_conformance!(Kind::Sandbox);

/// One page of a listing: its keys, and the token of the next page.
type Page = (&'static [&'static str], Option<&'static str>);

/// A store before a server that answers everything with these pages, one after the other and then
/// from the beginning; it counts the requests.
async fn lists(pages: &'static [Page]) -> (Store, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 8192];
            let _ = stream.read(&mut request).await;
            let n = counter.fetch_add(1, Ordering::SeqCst);
            let answer = answer(&pages[n % pages.len()]);
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let config = StoreConfig {
        endpoint: Some(endpoint),
        bucket: "bucket".into(),
        credentials: Credentials::Keys {
            access: "id".into(),
            secret: Secret::new("secret"),
        },
        region: "us-east-1".into(),
        prefix: String::new(),
        path_style: true,
        timeout: Duration::from_secs(10),
    };
    (Store::connect(&config).await.unwrap(), asked)
}

fn answer((keys, next): &Page) -> String {
    let mut body = String::from("<ListBucketResult>");
    for key in *keys {
        let _ = write!(body, "<Contents><Key>{key}</Key></Contents>");
    }
    let _ = write!(body, "<IsTruncated>{}</IsTruncated>", next.is_some());
    if let Some(next) = next {
        let _ = write!(
            body,
            "<NextContinuationToken>{next}</NextContinuationToken>"
        );
    }
    body.push_str("</ListBucketResult>");
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn a_listing_in_two_pages_is_put_together() {
    let (store, _) = lists(&[(&["a", "b"], Some("1")), (&["c"], None)]).await;
    assert_eq!(store.list("", None).await.unwrap(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_listing_out_of_order_or_in_a_circle_is_an_error() {
    let wrong: [&'static [Page]; 4] = [
        &[(&["a", "c", "b"], None)],
        &[(&["a", "b"], Some("1")), (&["b", "c"], None)],
        &[(&["a", "b"], Some("1")), (&["c", "d"], Some("2"))],
        &[(&["a", "b"], Some("1")), (&["c", "d"], Some("1"))],
    ];
    for pages in wrong {
        let (store, asked) = lists(pages).await;
        let listed = store.list("", None).await;
        assert!(
            matches!(listed, Err(StoreError::Paging { .. })),
            "{listed:?}"
        );
        assert!(asked.load(Ordering::SeqCst) <= 4, "{pages:?}");
    }
}
