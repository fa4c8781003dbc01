//! An SSH server in the process. It runs real commands with `sh`, forwards connections, and can
//! be told to misbehave: by the command `misbehave KIND`, or by cutting its connections.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use russh::keys::{PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Sig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::client::SshTarget;
use super::keys::{generate_host_key, parse_private_key};

/// A running server and all that a client needs to know about it.
pub(super) struct Server {
    pub(super) port: u16,
    pub(super) host_key: PublicKey,
    pub(super) user_key: Arc<PrivateKey>,
    /// Cancel it and all connections break without a goodbye.
    pub(super) cut: CancellationToken,
    /// Signals that commands were sent.
    pub(super) signals: Arc<Mutex<Vec<String>>>,
}

pub(super) fn new_key() -> Arc<PrivateKey> {
    parse_private_key(generate_host_key().unwrap().private.expose(), "test").unwrap()
}

impl Server {
    /// Starts a server with these host keys, or with one new one.
    pub(super) async fn start(host_keys: Vec<PrivateKey>) -> Self {
        let host_keys = match host_keys.is_empty() {
            true => vec![PrivateKey::clone(&new_key())],
            false => host_keys,
        };
        let server = Self {
            port: 0,
            host_key: host_keys[0].public_key().clone(),
            user_key: new_key(),
            cut: CancellationToken::new(),
            signals: Arc::default(),
        };
        let config = Arc::new(russh::server::Config {
            keys: host_keys,
            auth_rejection_time: std::time::Duration::ZERO,
            ..russh::server::Config::default()
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connection = Connection {
            user_key: server.user_key.public_key().clone(),
            cut: server.cut.clone(),
            signals: server.signals.clone(),
            channels: HashMap::new(),
        };
        let cut = server.cut.clone();
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let (config, connection, cut) = (config.clone(), connection.clone(), cut.clone());
                tokio::spawn(async move {
                    let (mut outside, inside) = tokio::io::duplex(64 * 1024);
                    let serving = async {
                        if let Ok(session) =
                            russh::server::run_stream(config, inside, connection).await
                        {
                            let _ = session.await;
                        }
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut outside) => {}
                        () = async { tokio::join!(serving, std::future::pending::<()>()); } => {}
                        () = cut.cancelled() => {}
                    }
                });
            }
        });
        Self { port, ..server }
    }

    /// How to reach it.
    pub(super) fn target(&self) -> SshTarget {
        SshTarget {
            host: "127.0.0.1".into(),
            port: self.port,
            user: "root".into(),
            host_keys: vec![self.host_key.clone()],
            key: self.user_key.clone(),
        }
    }
}

/// What goes into a running command.
enum In {
    Data(Vec<u8>),
    Eof,
    Kill,
}

struct Connection {
    user_key: PublicKey,
    cut: CancellationToken,
    signals: Arc<Mutex<Vec<String>>>,
    channels: HashMap<ChannelId, mpsc::UnboundedSender<In>>,
}

impl Clone for Connection {
    fn clone(&self) -> Self {
        let Self {
            user_key,
            cut,
            signals,
            ..
        } = self;
        Self {
            user_key: user_key.clone(),
            cut: cut.clone(),
            signals: signals.clone(),
            channels: HashMap::new(),
        }
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        if user == "cut-me" {
            self.cut.cancel();
            std::future::pending::<()>().await;
        }
        match key.public_key.key_data() == self.user_key.key_data() {
            true => Ok(Auth::Accept),
            false => Ok(Auth::reject()),
        }
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if host == "forbidden" {
            reply
                .reject(ChannelOpenFailure::AdministrativelyProhibited)
                .await;
            return Ok(());
        }
        match TcpStream::connect((host, port as u16)).await {
            Ok(mut stream) => {
                reply.accept().await;
                tokio::spawn(async move {
                    let mut channel = channel.into_stream();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut channel).await;
                });
            }
            Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let line = String::from_utf8(line.to_vec()).unwrap();
        match line.as_str() {
            "misbehave refuse" => return session.channel_failure(id),
            "misbehave cut" => self.cut.cancel(),
            "misbehave no-status" => {
                session.channel_success(id)?;
                session.data(id, "half of it".as_bytes().to_vec())?;
                return session.close(id);
            }
            "misbehave cut-after-status" => {
                session.channel_success(id)?;
                session.exit_status_request(id, 0)?;
                // The client answers in order, so with this answer the status has arrived.
                let (answer, answered) = tokio::sync::oneshot::channel();
                session.send_ping(answer)?;
                let cut = self.cut.clone();
                tokio::spawn(async move {
                    let _ = answered.await;
                    cut.cancel();
                });
                return Ok(());
            }
            "misbehave signal" => {
                session.channel_success(id)?;
                session.exit_signal_request(id, Sig::KILL, false, "", "")?;
                return session.close(id);
            }
            _ => {
                session.channel_success(id)?;
                let (input, inputs) = mpsc::unbounded_channel();
                self.channels.insert(id, input);
                tokio::spawn(run(session.handle(), id, line, inputs));
            }
        }
        Ok(())
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.tell(id, In::Data(data.to_vec()));
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.tell(id, In::Eof);
        Ok(())
    }

    async fn signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.signals.lock().unwrap().push(format!("{signal:?}"));
        self.tell(id, In::Kill);
        Ok(())
    }
}

impl Connection {
    fn tell(&self, id: ChannelId, input: In) {
        if let Some(channel) = self.channels.get(&id) {
            let _ = channel.send(input);
        }
    }
}

/// Runs a command line as sshd does: by the login shell.
async fn run(
    handle: russh::server::Handle,
    id: ChannelId,
    line: String,
    mut inputs: mpsc::UnboundedReceiver<In>,
) {
    let mut child = tokio::process::Command::new("sh")
        .args(["-c", &line])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = async {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(length @ 1..) = stdout.read(&mut buffer).await {
            let _ = handle.data(id, buffer[..length].to_vec()).await;
        }
    };
    let err = async {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(length @ 1..) = stderr.read(&mut buffer).await {
            let _ = handle.extended_data(id, 1, buffer[..length].to_vec()).await;
        }
    };
    let (kill, killed) = tokio::sync::oneshot::channel();
    let feed = async {
        let mut kill = Some(kill);
        while let Some(input) = inputs.recv().await {
            match input {
                In::Data(data) => {
                    if let Some(stdin) = &mut stdin {
                        let _ = stdin.write_all(&data).await;
                    }
                }
                In::Eof => stdin = None,
                In::Kill => drop(kill.take().map(|kill| kill.send(()))),
            }
        }
        std::future::pending::<()>().await;
    };
    let ended = async {
        let status = tokio::select! {
            ((), (), status) = async { tokio::join!(out, err, child.wait()) } => status.unwrap(),
            _ = killed => return,
        };
        let _ = handle
            .exit_status_request(id, status.code().unwrap_or(255) as u32)
            .await;
        let _ = handle.eof(id).await;
    };
    tokio::select! {
        () = ended => {}
        () = feed => {}
    }
    let _ = handle.close(id).await;
}
