//! SOCKS5 (RFC 1928) as far as it is needed: no authentication, CONNECT, IPv4 and host names.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const VERSION: u8 = 5;

/// What the client wants to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Address(Ipv4Addr, u16),
    Name(String, u16),
}

impl Wanted {
    pub(super) fn port(&self) -> u16 {
        match self {
            Self::Address(_, port) | Self::Name(_, port) => *port,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip, port) => write!(f, "{ip}:{port}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// The reply codes of the RFC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Succeeded = 0,
    HostUnreachable = 4,
    Refused = 5,
    CommandNotSupported = 7,
    AddressNotSupported = 8,
}

/// Reads greeting and request. `None`: the client was told no and the connection is over.
pub(super) async fn greet(client: &mut TcpStream) -> io::Result<Option<Wanted>> {
    let mut head = [0; 2];
    client.read_exact(&mut head).await?;
    let [version, methods] = head;
    if version != VERSION {
        return Err(io::Error::other("not SOCKS5"));
    }
    let mut offered = vec![0; usize::from(methods)];
    client.read_exact(&mut offered).await?;
    if !offered.contains(&0) {
        client.write_all(&[VERSION, 0xff]).await?;
        return Ok(None);
    }
    client.write_all(&[VERSION, 0]).await?;

    let mut request = [0; 4];
    client.read_exact(&mut request).await?;
    let [_, command, _, kind] = request;
    let host = match kind {
        1 => {
            let mut ip = [0; 4];
            client.read_exact(&mut ip).await?;
            Ok(Ipv4Addr::from(ip))
        }
        3 => {
            let len = client.read_u8().await?;
            let mut name = vec![0; usize::from(len)];
            client.read_exact(&mut name).await?;
            Err(String::from_utf8_lossy(&name).into_owned())
        }
        _ => {
            reply(client, Reply::AddressNotSupported).await?;
            return Ok(None);
        }
    };
    let port = client.read_u16().await?;
    if command != 1 {
        reply(client, Reply::CommandNotSupported).await?;
        return Ok(None);
    }
    Ok(Some(match host {
        Ok(ip) => Wanted::Address(ip, port),
        Err(name) => Wanted::Name(name, port),
    }))
}

/// Answers the request; the bound address is of no use to anybody and left zero.
pub(super) async fn reply(client: &mut TcpStream, reply: Reply) -> io::Result<()> {
    let answer = [VERSION, reply as u8, 0, 1, 0, 0, 0, 0, 0, 0];
    client.write_all(&answer).await
}
