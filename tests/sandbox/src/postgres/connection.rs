//! One connection: TLS, who it is, then queries until it ends.

use std::collections::HashMap;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::auth::{Scram, mechanisms};
use super::data::{Data, Disks};
use super::query::{Asked, describe, run};
use super::reply::Replies;
use super::server::Tls;
use super::sql::{Select, SqlError, parse};

/// More than any query that is understood.
const MOST_BYTES: usize = 1 << 20;

const PROTOCOL_3: u32 = 196_608;
const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// Whose disk is asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Target {
    pub(super) disks: Disks,
    pub(super) disk: String,
}

/// Serves a connection to its end.
pub(super) async fn serve(mut stream: TcpStream, target: Target, tls: Tls) -> io::Result<()> {
    loop {
        let startup = startup(&mut stream).await?;
        match startup.code {
            TLS => {
                stream.write_all(b"S").await?;
                let stream = tls.acceptor().accept(stream).await?;
                return over_tls(stream, target, tls.certificate()).await;
            }
            GSS => stream.write_all(b"N").await?,
            CANCEL => return Ok(()),
            _ => {
                // The operator's pg_hba.conf knows no line for it.
                let of = |name: &str| startup.parameters.get(name).cloned().unwrap_or_default();
                let message = format!(
                    "no pg_hba.conf entry for host \"127.0.0.1\", user \"{}\", database \"{}\", no encryption",
                    of("user"),
                    of("database")
                );
                return refuse(&mut stream, SqlError::new("28000", message)).await;
            }
        }
    }
}

async fn over_tls<S>(mut stream: S, target: Target, certificate: &[u8]) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let startup = startup(&mut stream).await?;
    if startup.code != PROTOCOL_3 {
        return refuse(
            &mut stream,
            SqlError::new("0A000", "unsupported frontend protocol"),
        )
        .await;
    }
    let user = startup.parameters.get("user").cloned().unwrap_or_default();
    let database = startup
        .parameters
        .get("database")
        .cloned()
        .unwrap_or_else(|| user.clone());
    let Some(data) = target.data() else {
        return refuse(
            &mut stream,
            SqlError::new("57P03", "the database system is starting up"),
        )
        .await;
    };
    let password = data.roles.get(&user).and_then(|role| role.password.clone());
    if !authenticate(&mut stream, certificate, password).await? {
        let message = format!("password authentication failed for user \"{user}\"");
        return refuse(&mut stream, SqlError::new("28P01", message)).await;
    }
    if !data.databases.contains_key(&database) {
        let message = format!("database \"{database}\" does not exist");
        return refuse(&mut stream, SqlError::new("3D000", message)).await;
    }
    let mut replies = Replies::default();
    replies.authentication(0, &[]);
    for (name, value) in [
        ("server_version", "15.18 (the sandbox's)"),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
    ] {
        replies.parameter(name, value);
    }
    replies.plain(b'K', &rand::random::<[u8; 8]>());
    replies.ready();
    send(&mut stream, &mut replies).await?;
    let session = Session {
        target,
        user,
        database,
        ..Session::default()
    };
    session.run(&mut stream).await
}

impl Target {
    fn data(&self) -> Option<Data> {
        self.disks.with(&self.disk, |disk| disk.data().cloned())
    }
}

/// Whether the client knows the password.
async fn authenticate<S>(
    stream: &mut S,
    certificate: &[u8],
    password: Option<String>,
) -> io::Result<bool>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut replies = Replies::default();
    let offer: String = mechanisms(true)
        .iter()
        .map(|name| format!("{name}\0"))
        .collect();
    replies.authentication(10, format!("{offer}\0").as_bytes());
    send(stream, &mut replies).await?;
    let Message {
        tag: b'p',
        mut body,
    } = read(stream).await?
    else {
        return Ok(false);
    };
    let Some(mechanism) = text(&mut body) else {
        return Ok(false);
    };
    if body.len() < 4 {
        return Ok(false);
    }
    body.advance(4);
    let Some((scram, reply)) = Scram::first(&mechanism, &body, Some(certificate), password) else {
        return Ok(false);
    };
    replies.authentication(11, &reply);
    send(stream, &mut replies).await?;
    let Message { tag: b'p', body } = read(stream).await? else {
        return Ok(false);
    };
    let Some(reply) = scram.last(&body) else {
        return Ok(false);
    };
    replies.authentication(12, &reply);
    send(stream, &mut replies).await?;
    Ok(true)
}

#[derive(Debug, Default)]
struct Session {
    target: Target,
    user: String,
    database: String,
    statements: HashMap<String, Option<Select>>,
    portals: HashMap<String, (Option<Select>, Vec<bool>)>,
    /// After an error everything is skipped until the client says `Sync`.
    failed: bool,
    replies: Replies,
}

impl Session {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(mut self, stream: &mut S) -> io::Result<()> {
        loop {
            let message = read(stream).await?;
            if message.tag == b'X' {
                return Ok(());
            }
            let Some(data) = self.target.data() else {
                let message = "terminating connection due to administrator command";
                return refuse(stream, SqlError::new("57P01", message)).await;
            };
            match message.tag {
                b'Q' => self.simple(&data, message.body),
                b'S' => {
                    self.failed = false;
                    self.replies.ready();
                }
                _ if self.failed => {}
                tag => {
                    if let Err(error) = self.extended(&data, tag, message.body) {
                        self.replies.error("ERROR", &error);
                        self.failed = true;
                    }
                }
            }
            // What is not followed by anything is waited for by the client.
            if matches!(message.tag, b'Q' | b'S' | b'H') {
                send(stream, &mut self.replies).await?;
            }
        }
    }

    fn simple(&mut self, data: &Data, mut body: Bytes) {
        let query = text(&mut body).unwrap_or_default();
        let outcome = parse(&query).and_then(|select| match select {
            None => {
                self.replies.plain(b'I', b"");
                Ok(())
            }
            Some(select) => {
                let asked = Asked {
                    data,
                    database: &self.database,
                    user: &self.user,
                };
                let fields = describe(asked, &select)?;
                let rows = run(asked, &select)?;
                self.replies.row_description(&fields, &[]);
                for row in &rows {
                    self.replies.row(&fields, row, &[]);
                }
                self.replies.complete(rows.len());
                Ok(())
            }
        });
        if let Err(error) = outcome {
            self.replies.error("ERROR", &error);
        }
        self.replies.ready();
    }

    fn extended(&mut self, data: &Data, tag: u8, mut body: Bytes) -> Result<(), SqlError> {
        let asked = Asked {
            data,
            database: &self.database,
            user: &self.user,
        };
        let broken = || SqlError::new("08P01", "invalid message format");
        match tag {
            b'P' => {
                let name = text(&mut body).ok_or_else(broken)?;
                let select = parse(&text(&mut body).ok_or_else(broken)?)?;
                if let Some(select) = &select {
                    describe(asked, select)?;
                }
                self.statements.insert(name, select);
                self.replies.plain(b'1', b"");
            }
            b'B' => {
                let portal = text(&mut body).ok_or_else(broken)?;
                let name = text(&mut body).ok_or_else(broken)?;
                let select = self.statement(&name)?.clone();
                shorts(&mut body).ok_or_else(broken)?;
                let parameters = take_u16(&mut body).ok_or_else(broken)?;
                if parameters > 0 {
                    let message = format!(
                        "bind message supplies {parameters} parameters, but prepared statement \"{name}\" requires 0"
                    );
                    return Err(SqlError::new("08P01", message));
                }
                let formats = shorts(&mut body).ok_or_else(broken)?;
                let binary = formats.into_iter().map(|format| format == 1).collect();
                self.portals.insert(portal, (select, binary));
                self.replies.plain(b'2', b"");
            }
            b'D' => {
                let of = take_u8(&mut body).ok_or_else(broken)?;
                let name = text(&mut body).ok_or_else(broken)?;
                let (select, binary) = match of {
                    b'S' => {
                        let select = self.statement(&name)?.clone();
                        self.replies.plain(b't', &[0, 0]);
                        (select, Vec::new())
                    }
                    _ => self.portal(&name)?.clone(),
                };
                match select {
                    Some(select) => {
                        let fields = describe(asked, &select)?;
                        self.replies.row_description(&fields, &binary);
                    }
                    None => self.replies.plain(b'n', b""),
                }
            }
            b'E' => {
                let name = text(&mut body).ok_or_else(broken)?;
                let (select, binary) = self.portal(&name)?.clone();
                match select {
                    Some(select) => {
                        let fields = describe(asked, &select)?;
                        let rows = run(asked, &select)?;
                        for row in &rows {
                            self.replies.row(&fields, row, &binary);
                        }
                        self.replies.complete(rows.len());
                    }
                    None => self.replies.plain(b'I', b""),
                }
            }
            b'C' => {
                let of = take_u8(&mut body).ok_or_else(broken)?;
                let name = text(&mut body).ok_or_else(broken)?;
                match of {
                    b'S' => drop(self.statements.remove(&name)),
                    _ => drop(self.portals.remove(&name)),
                }
                self.replies.plain(b'3', b"");
            }
            // Flush: done by whoever called us.
            b'H' => {}
            other => {
                let message = format!("invalid frontend message type {other}");
                return Err(SqlError::new("08P01", message));
            }
        }
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<&Option<Select>, SqlError> {
        let message = || format!("prepared statement \"{name}\" does not exist");
        self.statements
            .get(name)
            .ok_or_else(|| SqlError::new("26000", message()))
    }

    fn portal(&self, name: &str) -> Result<&(Option<Select>, Vec<bool>), SqlError> {
        let message = || format!("portal \"{name}\" does not exist");
        self.portals
            .get(name)
            .ok_or_else(|| SqlError::new("34000", message()))
    }
}

struct Startup {
    code: u32,
    parameters: HashMap<String, String>,
}

async fn startup<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Startup> {
    let length = stream.read_u32().await?;
    let mut body = read_body(stream, length).await?;
    if body.len() < 4 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let code = body.get_u32();
    let mut parameters = HashMap::new();
    while let Some(name) = text(&mut body).filter(|name| !name.is_empty()) {
        parameters.insert(name, text(&mut body).unwrap_or_default());
    }
    Ok(Startup { code, parameters })
}

struct Message {
    tag: u8,
    body: Bytes,
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Message> {
    let tag = stream.read_u8().await?;
    let length = stream.read_u32().await?;
    let body = read_body(stream, length).await?;
    Ok(Message { tag, body })
}

/// The body of a message; its length counts itself.
async fn read_body<S: AsyncRead + Unpin>(stream: &mut S, length: u32) -> io::Result<Bytes> {
    let length = usize::try_from(length)
        .unwrap_or(usize::MAX)
        .saturating_sub(4);
    if length > MOST_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = BytesMut::zeroed(length);
    stream.read_exact(&mut body).await?;
    Ok(body.freeze())
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, replies: &mut Replies) -> io::Result<()> {
    stream.write_all(&replies.0).await?;
    replies.0.clear();
    stream.flush().await
}

/// Ends a connection with a reason.
async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, error: SqlError) -> io::Result<()> {
    let mut replies = Replies::default();
    replies.error("FATAL", &error);
    send(stream, &mut replies).await?;
    stream.shutdown().await
}

fn text(body: &mut Bytes) -> Option<String> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let text = body.split_to(end);
    body.advance(1);
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn take_u8(body: &mut Bytes) -> Option<u8> {
    (!body.is_empty()).then(|| body.get_u8())
}

fn take_u16(body: &mut Bytes) -> Option<u16> {
    (body.len() >= 2).then(|| body.get_u16())
}

fn shorts(body: &mut Bytes) -> Option<Vec<u16>> {
    let count = take_u16(body)?;
    (0..count).map(|_| take_u16(body)).collect()
}
