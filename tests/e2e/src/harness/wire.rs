//! The wire between a worker and an HTTP server: passes each request on by itself, and lets the tap
//! keep it, or its answer, from arriving. One connection a request, so that a cut ends nothing else.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use sandbox::hosts::simulated::Cut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::tap::Tap;

/// A request's head is not longer.
const LARGEST_HEAD: usize = 64 << 10;

/// Names a request, from its method and its target.
pub type Name = fn(&str, &str) -> String;

/// A running wire. Dropping it cuts what is open.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    _stop: DropGuard,
}

impl Wire {
    /// Leads to `to`, past `tap`.
    pub async fn lay(to: SocketAddr, tap: Tap, name: Name) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((client, _)) = listener.accept().await {
                let passing = pass(client, to, tap.clone(), name);
                tokio::spawn(stopped.clone().run_until_cancelled_owned(passing));
            }
        }));
        Ok(Self {
            address,
            _stop: stop.drop_guard(),
        })
    }

    /// Its end on the worker's side.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn pass(mut client: TcpStream, to: SocketAddr, tap: Tap, name: Name) {
    let passed = pass_one(&mut client, to, &tap, name).await;
    if let Err(error) = passed {
        tracing::debug!(%error, "a request did not get through the wire");
    }
}

async fn pass_one(client: &mut TcpStream, to: SocketAddr, tap: &Tap, name: Name) -> io::Result<()> {
    let Some(request) = Request::read(client).await? else {
        return Ok(());
    };
    let cut = |Cut| io::Error::from(io::ErrorKind::ConnectionAborted);
    let ticket = tap.before(name(&request.method, &request.target)).await;
    let ticket = ticket.map_err(cut)?;
    let mut server = TcpStream::connect(to).await?;
    server.write_all(&request.bytes).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    tap.after(ticket).await.map_err(cut)?;
    client.write_all(&answer).await?;
    client.shutdown().await
}

/// A request as it goes on: the same, but for the last on its connection.
struct Request {
    method: String,
    target: String,
    bytes: Vec<u8>,
}

impl Request {
    async fn read(from: &mut TcpStream) -> io::Result<Option<Self>> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let mut read = Vec::new();
        let head = loop {
            if let Some(at) = read.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            if read.len() > LARGEST_HEAD {
                return Err(invalid("the head is too long"));
            }
            if from.read_buf(&mut read).await? == 0 {
                return Ok(None);
            }
        };
        let text = String::from_utf8_lossy(&read[..head]).into_owned();
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let mut words = first.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(invalid("the first line is none"));
        };
        let mut bytes = format!("{first}\r\n").into_bytes();
        let mut length = 0;
        for line in lines {
            let (key, value) = line.split_once(':').unwrap_or((line, ""));
            match key.to_ascii_lowercase().as_str() {
                "connection" => continue,
                "content-length" => {
                    let parsed = value.trim().parse();
                    length = parsed.map_err(|_| invalid("the length is no number"))?;
                }
                "expect" => {
                    from.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
                    continue;
                }
                "transfer-encoding" => return Err(invalid("a body without a length")),
                _ => {}
            }
            bytes.extend_from_slice(line.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"connection: close\r\n\r\n");
        let mut body = read.split_off(head + 4);
        while body.len() < length {
            if from.read_buf(&mut body).await? == 0 {
                return Ok(None);
            }
        }
        bytes.extend_from_slice(&body);
        Ok(Some(Self {
            method: method.to_owned(),
            target: target.to_owned(),
            bytes,
        }))
    }
}

/// `put jobs/mount/test-cache-1/*`: operation and key without what differs from run to run.
pub fn name_of_s3(method: &str, target: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (_bucket, key) = path
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or_default();
    if method == "GET" && key.is_empty() {
        let prefix = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("prefix="));
        let prefix = prefix
            .unwrap_or_default()
            .replace("%2F", "/")
            .replace("%2f", "/");
        return format!("s3 list {}", short(&prefix));
    }
    format!("s3 {} {}", method.to_ascii_lowercase(), short(key))
}

/// `cloud GET servers/*/detail`.
pub fn name_of_clo(method: &str, target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let path = path.trim_start_matches("/v2/");
    let path = match path.strip_prefix("projects/") {
        Some(below) => below.split_once('/').map_or("project", |(_, rest)| rest),
        None => path,
    };
    format!("cloud {method} {}", short(path))
}

fn short(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    if let ["clusters", _, rest @ ..] = parts.as_slice() {
        parts = rest.to_vec();
    }
    if let ["recoveries", _, rest @ ..] = parts.as_slice() {
        parts = rest.to_vec();
    }
    let is_number = |part: &str| {
        let hex = |c: char| c.is_ascii_hexdigit() || c == '-';
        let stem = part.strip_suffix(".json").unwrap_or(part);
        stem.len() >= 20 && stem.chars().all(hex)
    };
    let shown = parts
        .iter()
        .map(|part| if is_number(part) { "*" } else { part });
    shown.collect::<Vec<_>>().join("/")
}
