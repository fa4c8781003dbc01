//! What tests of the load test have in common: an application to load, and the plan of a test with its clean-up.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use jobs::message::{Job, LoadTest};
use jobs::plan::PlannedJob;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An application that answers, or not, and counts.
#[derive(Debug, Default)]
pub struct Counter {
    asked: AtomicU64,
    broken: AtomicBool,
}

impl Counter {
    /// Starts it on a port of the loopback, which comes back. It lives as long as the test's runtime.
    pub async fn start(self: &Arc<Self>) -> anyhow::Result<u16> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let counter = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&counter).serve(stream));
            }
        });
        Ok(port)
    }

    /// How often it was asked.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// It answers 503 from now on.
    pub fn breaks(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            text.extend_from_slice(&buffer[..read]);
            while let Some(end) = text.windows(4).position(|it| it == b"\r\n\r\n") {
                text.drain(..end + 4);
                self.asked.fetch_add(1, Ordering::Relaxed);
                let status = match self.broken.load(Ordering::Relaxed) {
                    true => "503 Service Unavailable",
                    false => "200 OK",
                };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A load test, and what cleans up after it, as `rekindle load-test` posts them.
pub fn jobs(test: LoadTest) -> Vec<PlannedJob> {
    let test = Job::LoadTest(test);
    let clean_up = PlannedJob {
        name: Job::LoadTestCleanUp.name(),
        payload: Job::LoadTestCleanUp,
        needs: vec![test.name()],
        always: true,
    };
    let test = PlannedJob {
        name: test.name(),
        payload: test,
        needs: vec![],
        always: false,
    };
    vec![test, clean_up]
}
