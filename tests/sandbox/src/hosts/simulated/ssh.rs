//! sshd of a simulated server: public keys only, `exec` and `direct-tcpip` only.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use russh::keys::PublicKey;
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelMsg, ChannelOpenFailure, MethodKind, MethodSet};
use tokio::io::{DuplexStream, copy_bidirectional};
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::faults::Strike;
use super::shell::Output;
use super::tap;
use super::words;

/// More standard input than this is a mistake in a test.
const LARGEST_STDIN: usize = 256 << 20;

/// Serves one connection until it ends.
pub(super) async fn serve(
    inner: Arc<Inner>,
    server: String,
    stream: DuplexStream,
    connection: CancellationToken,
) {
    let Some(host_key) = inner.host_key(&server) else {
        return;
    };
    let mut methods = MethodSet::empty();
    methods.push(MethodKind::PublicKey);
    let config = Config {
        keys: vec![host_key],
        methods,
        auth_rejection_time: Duration::from_millis(1),
        auth_rejection_time_initial: Some(Duration::ZERO),
        inactivity_timeout: None,
        ..Config::default()
    };
    let handler = Sshd {
        inner,
        server,
        connection,
    };
    match russh::server::run_stream(Arc::new(config), stream, handler).await {
        Ok(session) => {
            if let Err(error) = session.await {
                tracing::debug!("simulated host: SSH session ended: {error}");
            }
        }
        Err(error) => tracing::debug!("simulated host: SSH handshake failed: {error}"),
    }
}

struct Sshd {
    inner: Arc<Inner>,
    server: String,
    /// Cancelled to break this connection.
    connection: CancellationToken,
}

impl Handler for Sshd {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let known = self.inner.authorized_keys(&self.server, user);
        let mut known = known
            .lines()
            .filter_map(|l| PublicKey::from_openssh(l).ok());
        Ok(
            match known.any(|k| k.key_data() == key.public_key.key_data()) {
                true => Auth::Accept,
                false => Auth::reject(),
            },
        )
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        let command = Command {
            inner: self.inner.clone(),
            server: self.server.clone(),
            connection: self.connection.clone(),
            handle: session.handle(),
        };
        let connection = self.connection.clone();
        tokio::spawn(async move {
            connection.run_until_cancelled(command.run(channel)).await;
        });
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let inner = self.inner.clone();
        let to = inner.resolve(&self.server, host);
        let to = to.zip(u16::try_from(port).ok());
        let (connection, server) = (self.connection.clone(), self.server.clone());
        // Apart from the session's own loop: what is dialled may be slow.
        let forward = async move {
            let opened = match to {
                Some((ip, port)) => {
                    let to = SocketAddr::new(IpAddr::V4(ip), port);
                    inner.open_from(&server, to).await
                }
                None => Err(std::io::ErrorKind::HostUnreachable.into()),
            };
            let Ok(mut inside) = opened else {
                return reply.reject(ChannelOpenFailure::ConnectFailed).await;
            };
            reply.accept().await;
            let mut outside = channel.into_stream();
            if let Err(error) = copy_bidirectional(&mut outside, &mut inside).await {
                tracing::debug!("simulated host: forwarding ended: {error}");
            }
        };
        tokio::spawn(async move {
            connection.run_until_cancelled(forward).await;
        });
        Ok(())
    }
}

/// One session channel: at most one command.
struct Command {
    inner: Arc<Inner>,
    server: String,
    connection: CancellationToken,
    handle: Handle,
}

impl Command {
    async fn run(self, mut channel: Channel<Msg>) {
        let id = channel.id();
        let line = loop {
            match channel.wait().await {
                Some(ChannelMsg::Exec { command, .. }) => break command,
                Some(
                    ChannelMsg::RequestShell { .. }
                    | ChannelMsg::RequestPty { .. }
                    | ChannelMsg::RequestSubsystem { .. },
                ) => {
                    // Workers get no terminal, no shell and no sftp.
                    if self.handle.channel_failure(id).await.is_err() {
                        return;
                    }
                }
                Some(_) => {}
                None => return,
            }
        };
        if self.handle.channel_success(id).await.is_err() {
            return;
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let output = match words::split(&line) {
            Ok(argv) => {
                let mut stdin = Vec::new();
                if self.inner.reads_stdin(&argv) && !read_all(&mut channel, &mut stdin).await {
                    return;
                }
                self.execute(argv, stdin).await
            }
            Err(why) => Output::fail(127, format!("sandbox: not a simple command: {why}")),
        };
        if let Err(error) = finish(&channel, output).await {
            tracing::debug!("simulated host: the client left before the answer: {error}");
        }
    }

    async fn execute(&self, argv: Vec<String>, stdin: Vec<u8>) -> Output {
        let name = self.inner.name_of(&self.server).unwrap_or_default();
        let tap = self.inner.tapped();
        let what = || {
            let program = super::shell::unwrap(&argv).first();
            format!(
                "{name} {}",
                program.map_or("", |p| super::tree::file_name(p))
            )
        };
        let Ok(ticket) = tap::before(&tap, what).await else {
            return self.suffer(Strike::Cut).await;
        };
        let output = self.answer(&name, argv, stdin).await;
        match tap::after(&tap, ticket).await {
            Ok(()) => output,
            Err(tap::Cut) => self.suffer(Strike::Cut).await,
        }
    }

    async fn answer(&self, name: &str, argv: Vec<String>, stdin: Vec<u8>) -> Output {
        let strike = self.inner.faults.strike(name, &argv);
        if let Some((strike, false)) = strike {
            return self.suffer(strike).await;
        }
        let output = self.inner.execute(&self.server, &argv, stdin).await;
        match strike {
            Some((strike, _)) => self.suffer(strike).await,
            None => output,
        }
    }

    async fn suffer(&self, strike: Strike) -> Output {
        match strike {
            Strike::Answer(output) => output,
            Strike::Cut => {
                self.connection.cancel();
                std::future::pending().await
            }
            Strike::Hang => std::future::pending().await,
        }
    }
}

/// Reads to EOF; `false` if the channel ended or the limit was passed before.
async fn read_all(channel: &mut Channel<Msg>, stdin: &mut Vec<u8>) -> bool {
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Data { data }) => stdin.extend_from_slice(&data),
            Some(ChannelMsg::Eof) => return true,
            Some(ChannelMsg::Close) | None => return false,
            Some(_) => {}
        }
        if stdin.len() > LARGEST_STDIN {
            return false;
        }
    }
}

async fn finish(channel: &Channel<Msg>, output: Output) -> Result<(), russh::Error> {
    if !output.stdout.is_empty() {
        channel.data(output.stdout.as_slice()).await?;
    }
    if !output.stderr.is_empty() {
        channel.extended_data(1, output.stderr.as_slice()).await?;
    }
    channel.exit_status(output.status).await?;
    channel.eof().await?;
    channel.close().await
}
