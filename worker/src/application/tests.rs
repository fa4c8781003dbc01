//! An application behind a load balancer: a TLS server on the loopback that knows the name in the URL.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;

use jobs::record::Address;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::engine::Again;

const NAME: &str = "shop.hidden.example.org";

/// What every request is answered with; what it was comes out of the channel.
struct Shop {
    port: u16,
    ca: NamedTempFile,
    requests: mpsc::UnboundedReceiver<String>,
}

async fn shop(answer: &'static str, tls: bool) -> Shop {
    shop_until(answer, tls, 2100).await
}

/// One whose certificate ends with that year.
async fn shop_until(answer: &'static str, tls: bool, year: i32) -> Shop {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 12, 31);
    let certificate = params.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let mut ca = NamedTempFile::new().unwrap();
    ca.write_all(certificate.pem().as_bytes()).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let asked = asked.clone();
            match tls {
                true => {
                    // Who does not trust us hangs up.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, answer, asked).await;
                    }
                }
                false => serve(stream, answer, asked).await,
            }
        }
    });
    Shop { port, ca, requests }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    answer: &str,
    asked: mpsc::UnboundedSender<String>,
) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    asked.send(String::from_utf8(request).unwrap()).unwrap();
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

fn behind() -> LoadBalancerRecord {
    LoadBalancerRecord {
        id: "lb".into(),
        name: "lb".into(),
        address: Address {
            id: "a".into(),
            ip: Ipv4Addr::LOCALHOST,
        },
        rules: vec![],
        recovery: "r-1".parse().unwrap(),
    }
}

fn application(url: &str, expect: Option<&str>) -> Application {
    serde_json::from_value(
        json!({"name": "shop", "namespace": "shop", "release": "shop",
        "switch": "shop-values-switch", "frozen": {"a": 1}, "url": url, "expect": expect}),
    )
    .unwrap()
}

fn world(shop: &Shop) -> World {
    let mut world = World::default();
    world.ca_file = Some(shop.ca.path().to_owned());
    world
}

async fn ask_at(
    world: &World,
    url: &str,
    expect: Option<&str>,
) -> Result<Option<Answer>, JobError> {
    let lb = behind();
    let application = application(url, expect);
    answers(world, Some(&lb), &application, Some("hidden.example.org")).await
}

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n12 orders";

#[tokio::test]
async fn an_application_is_asked_by_its_name_at_the_load_balancers_address() {
    let mut shop = shop(GOOD, true).await;
    let url = format!("https://shop.${{DOMAIN}}:{}/health?deep=1", shop.port);
    let answer = ask_at(&world(&shop), &url, Some("12 orders"))
        .await
        .unwrap();
    assert_eq!(
        answer,
        Some(Answer {
            url,
            through: format!("127.0.0.1:{}", shop.port),
            status: 200,
            found: Some("12 orders".into()),
        })
    );
    let request = shop.requests.recv().await.unwrap();
    assert!(
        request.starts_with("GET /health?deep=1 HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains(&format!("host: {NAME}:{}\r\n", shop.port)),
        "{request}"
    );
    let none = application("https://x/", None);
    let none = Application { url: None, ..none };
    let answer = answers(&world(&shop), None, &none, None).await.unwrap();
    assert_eq!(answer, None, "there is nothing to ask");
}

#[tokio::test]
async fn whoever_is_not_trusted_is_not_asked() {
    let mut good = shop(GOOD, true).await;
    let url = format!("https://shop.${{DOMAIN}}:{}/", good.port);
    let mut stranger = world(&good);
    let other = shop(GOOD, true).await;
    stranger.ca_file = Some(other.ca.path().to_owned());
    let error = ask_at(&stranger, &url, None).await.unwrap_err();
    assert_eq!(error.again, Again::Retry { after: None });
    let text = error.to_string();
    assert!(
        text.contains("TLS: ") && !text.contains("hidden.example.org"),
        "{text}"
    );
    // The certificate is of another name.
    let url = format!("https://other.${{DOMAIN}}:{}/", good.port);
    let text = ask_at(&world(&good), &url, None)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("TLS: ") && !text.contains("hidden.example.org"),
        "{text}"
    );
    assert!(good.requests.try_recv().is_err(), "it was asked");
    // Authorities that are none are our own mistake.
    let mut empty = world(&good);
    let file = NamedTempFile::new().unwrap();
    empty.ca_file = Some(file.path().to_owned());
    let error = ask_at(&empty, &url, None).await.unwrap_err();
    assert_eq!(error.again, Again::Fatal);
    assert!(error.to_string().contains("REKINDLE_CA_FILE"), "{error}");
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_no_certificate() {
    let mut shop = shop_until(GOOD, true, 2020).await;
    let url = format!("https://shop.${{DOMAIN}}:{}/", shop.port);
    let error = ask_at(&world(&shop), &url, None).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("TLS: ") && text.contains("expired"), "{text}");
    assert!(shop.requests.try_recv().is_err(), "it was asked");
}

#[tokio::test]
async fn another_answer_is_no_answer_and_shown_without_the_domain() {
    let check = async |answer: &'static str, words: &[&str]| {
        let shop = shop(answer, false).await;
        let url = format!("http://shop.${{DOMAIN}}:{}/", shop.port);
        let error = ask_at(&world(&shop), &url, Some("orders"))
            .await
            .unwrap_err();
        assert_eq!(error.again, Again::Retry { after: None });
        let text = error.to_string();
        for word in words {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
        assert!(!text.contains("hidden.example.org"), "{text}");
    };
    check(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 47\r\n\r\nno healthy upstream for shop.hidden.example.org",
        &["status 503 instead of 200", "upstream for shop.${DOMAIN}"],
    )
    .await;
    check(
        "HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n",
        &["status 302"],
    )
    .await;
    check(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        &["`orders` is not in the answer"],
    )
    .await;
    check("", &["GET http://shop.${DOMAIN}"]).await;
    check(
        "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n12 orders",
        &["GET"],
    )
    .await;
}

#[tokio::test]
async fn a_chunked_answer_is_read_to_its_end() {
    let answer =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n12 \r\n6\r\norders\r\n0\r\n\r\n";
    let shop = shop(answer, false).await;
    let url = format!("http://shop.${{DOMAIN}}:{}/", shop.port);
    let found = ask_at(&world(&shop), &url, Some("12 orders"))
        .await
        .unwrap();
    assert_eq!(found.unwrap().status, 200);
}
