//! Taps on the wires of workers: they tell what was said there, whatever the logs say.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A proxy before the broker that counts the AMQP methods going to it. Dropping it cuts them all.
#[derive(Debug)]
pub struct Tap {
    url: String,
    counted: Arc<Counted>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counted {
    publishes: AtomicU64,
    acks: AtomicU64,
    returns: AtomicU64,
    words: Words,
}

/// What was sent, all connections after one another as it came.
#[derive(Debug, Default)]
struct Words(Mutex<Vec<u8>>);

impl Words {
    fn add(&self, bytes: &[u8]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
    }

    fn all(&self) -> Vec<u8> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.clone()
    }
}

/// How often a worker said what to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// `basic.publish`.
    pub publishes: u64,
    /// `basic.ack`.
    pub acks: u64,
    /// `basic.nack` and `basic.reject`.
    pub returns: u64,
}

impl Tap {
    /// Starts one before the broker at this URL.
    pub async fn start(broker: &str) -> anyhow::Result<Self> {
        let (rest, address) = broker.rsplit_once('@').context("no address in the URL")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("{rest}@{}", listener.local_addr()?);
        let counted = Arc::new(Counted::default());
        let (address, counting) = (address.to_owned(), Arc::clone(&counted));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&address).await else {
                    continue;
                };
                connections.spawn(pass(client, server, Arc::clone(&counting)));
            }
        });
        Ok(Self { url, counted, task })
    }

    /// The broker's URL by way of this tap.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Every frame that went to the broker, but for the one that carries the password.
    pub fn frames(&self) -> Vec<u8> {
        self.counted.words.all()
    }

    /// What was said until now.
    pub fn said(&self) -> Said {
        let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
        Said {
            publishes: read(&self.counted.publishes),
            acks: read(&self.counted.acks),
            returns: read(&self.counted.returns),
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, server: TcpStream, counted: Arc<Counted>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    // Either end closing ends both ways.
    tokio::select! {
        _ = frames(&mut from_client, &mut to_server, &counted) => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
}

/// AMQP 0-9-1, 2.3: a header of 8 bytes, then frames of type, channel, size, payload and an end byte.
async fn frames(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    counted: &Counted,
) -> std::io::Result<()> {
    const METHOD: u8 = 1;
    const BASIC: u16 = 60;
    let mut header = [0; 8];
    from.read_exact(&mut header).await?;
    to.write_all(&header).await?;
    loop {
        let mut frame = vec![0; 7];
        from.read_exact(&mut frame).await?;
        let size = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]) as usize;
        frame.resize(7 + size + 1, 0);
        from.read_exact(&mut frame[7..]).await?;
        let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        if frame[0] == METHOD && word(7) == BASIC {
            let count = match word(9) {
                40 => Some(&counted.publishes),
                80 => Some(&counted.acks),
                90 | 120 => Some(&counted.returns),
                _ => None,
            };
            if let Some(count) = count {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
        // connection.start-ok
        if !(frame[0] == METHOD && word(7) == 10 && word(9) == 11) {
            counted.words.add(&frame);
        }
        to.write_all(&frame).await?;
    }
}

/// A proxy before any server that keeps what is sent to it. Dropping it cuts all connections.
#[derive(Debug)]
pub struct Recording {
    address: std::net::SocketAddr,
    words: Arc<Words>,
    task: JoinHandle<()>,
}

impl Recording {
    /// Starts one before a server, `host:port`.
    pub async fn start(server: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let words = Arc::new(Words::default());
        let (server, keep) = (server.to_owned(), Arc::clone(&words));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else {
                    continue;
                };
                let keep = Arc::clone(&keep);
                connections.spawn(async move {
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let there = async {
                        let mut buffer = vec![0; 16 * 1024];
                        while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
                            keep.add(&buffer[..n]);
                            if to_server.write_all(&buffer[..n]).await.is_err() {
                                break;
                            }
                        }
                    };
                    tokio::select! {
                        () = there => {}
                        _ = copy(&mut from_server, &mut to_client) => {}
                    }
                });
            }
        });
        Ok(Self {
            address,
            words,
            task,
        })
    }

    /// `http://` and where it listens.
    pub fn http(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was sent until now.
    pub fn sent(&self) -> Vec<u8> {
        self.words.all()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.task.abort();
    }
}
