//! The network of the load nodes: names, authorities, and a proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sandbox::ca::Ca;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::lab::{Lab, Shop};

const NAME: &str = "shop.example.org";

/// Serves what is loaded over TLS too.
async fn secure(shop: &Shop, ca: &Ca) -> SocketAddr {
    let (from, to) = (
        Timestamp::now() - Duration::from_secs(60),
        Timestamp::now() + Duration::from_secs(3600),
    );
    let signed = ca.sign(&[NAME.to_owned()], from, to).unwrap();
    let certificate = CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = shop.router();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// A SOCKS5 proxy that leads everything to one place, and counts.
async fn proxy(to: SocketAddr) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("socks5h://{}", listener.local_addr().unwrap());
    let through = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&through);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut greeting = [0; 2];
                client.read_exact(&mut greeting).await.unwrap();
                let mut methods = vec![0; greeting[1].into()];
                client.read_exact(&mut methods).await.unwrap();
                client.write_all(&[5, 0]).await.unwrap();
                let mut request = [0; 5];
                client.read_exact(&mut request).await.unwrap();
                // By name: it is not resolved on the way.
                assert_eq!(request[3], 3);
                let mut name = vec![0; usize::from(request[4]) + 2];
                client.read_exact(&mut name).await.unwrap();
                assert_eq!(&name[..NAME.len()], NAME.as_bytes());
                client
                    .write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
                    .await
                    .unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let mut inside = TcpStream::connect(to).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut inside).await;
            });
        }
    });
    (url, through)
}

async fn loaded(lab: &Lab, users: u32) -> i64 {
    let mut spec = Lab::spec(users, 2);
    Lab::set(&mut spec, "TARGET", &format!("https://{NAME}/"));
    lab.begin(&spec).await;
    lab.until_stage("finished").await;
    lab.ended("1").await.0
}

#[tokio::test]
async fn a_name_leads_where_the_load_nodes_are_told_and_its_certificate_is_looked_at() {
    worker::install_crypto();
    let ca = Ca::new("load").unwrap();
    let others = Ca::new("others").unwrap();
    for (trusted, code, asked) in [(&ca, 0, 4), (&others, 99, 0)] {
        let shop = Shop::closed();
        let to = secure(&shop, &ca).await;
        let lab = Lab::with(|settings| {
            settings.network.hosts = [(NAME.to_owned(), to.to_string())].into();
            settings.network.authorities = Some(trusted.pem());
        })
        .await;
        assert_eq!(loaded(&lab, 2).await, code);
        assert_eq!(shop.asked(), asked);
    }
}

#[tokio::test]
async fn load_goes_through_the_proxy_of_the_load_nodes() {
    worker::install_crypto();
    let ca = Ca::new("load").unwrap();
    let shop = Shop::closed();
    let (url, through) = proxy(secure(&shop, &ca).await).await;
    let lab = Lab::with(|settings| {
        settings.network.proxy = Some(url);
        settings.network.authorities = Some(ca.pem());
    })
    .await;
    assert_eq!(loaded(&lab, 4).await, 0);
    assert_eq!(shop.asked(), 8);
    // One connection for each virtual user.
    assert_eq!(through.load(Ordering::SeqCst), 4);
}
