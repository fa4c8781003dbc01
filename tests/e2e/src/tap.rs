//! A tap on the wire between one worker and the broker: it tells what the worker said there, whatever
//! the worker's own logs say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
        to.write_all(&frame).await?;
    }
}
