//! An SSH connection to one host.
//!
//! russh runs the connection in a task of its own; each command is a channel on it, so any number
//! of them share one [`Ssh`]. Nothing here retries: a broken connection is an error, and who
//! wants another one connects again.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use russh::client::{self, AuthResult, Handle, Msg};
use russh::keys::{
    Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate,
};
use russh::{
    ChannelMsg, ChannelOpenFailure, ChannelStream, ChannelWriteHalf, Disconnect, Preferred, Sig,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::error::SshError;
use super::host::{Command, Host, OUTPUT_LIMIT, Output};
use super::keys::fingerprint;
use super::quote::command_line;
use crate::net::{Dialer, at};

/// A silent connection is tested this often, and given up after three tests without an answer.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// sshd allows ten sessions per connection unless told otherwise (`MaxSessions`).
const SESSIONS: usize = 8;

/// Whom to connect to, and how to know that it is them.
#[derive(Clone)]
pub struct SshTarget {
    /// Name or address.
    pub host: String,
    /// Usually 22.
    pub port: u16,
    /// Whom to log in as.
    pub user: String,
    /// The host must show one of these keys. Without any it is never trusted.
    pub host_keys: Vec<PublicKey>,
    /// Our key.
    pub key: Arc<PrivateKey>,
}

impl SshTarget {
    /// For errors and logs.
    fn name(&self) -> String {
        format!("{}@{}", self.user, at(&self.host, self.port))
    }

    fn pinned(&self) -> Vec<String> {
        self.host_keys.iter().map(fingerprint).collect()
    }
}

impl fmt::Debug for SshTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshTarget")
            .field("host", &self.name())
            .field("host_keys", &self.pinned())
            .field("key", &fingerprint(self.key.public_key()))
            .finish()
    }
}

/// A connection that is logged in. Cheap to clone; it ends when the last clone and the last
/// [`Tunnel`] through it are gone.
#[derive(Clone)]
pub struct Ssh {
    inner: Arc<Inner>,
}

struct Inner {
    handle: Handle<Pins>,
    name: String,
    sessions: Semaphore,
}

impl fmt::Debug for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ssh({})", self.inner.name)
    }
}

impl Ssh {
    /// Connects within `timeout`, from the first packet to the login.
    pub async fn connect(
        dialer: &Dialer,
        target: &SshTarget,
        timeout: Duration,
    ) -> Result<Self, SshError> {
        refuse_without_pins(target)?;
        let started = Instant::now();
        let stream = dialer.dial(&target.host, target.port, timeout).await;
        let stream = stream.map_err(|source| SshError::Dial {
            host: target.name(),
            source,
        })?;
        Self::log_in(stream, target, started, timeout).await
    }

    /// Connects through another host: a forwarded connection, and a whole SSH session inside. The
    /// host in between sees neither our key nor our commands.
    pub async fn connect_through(
        bastion: &Ssh,
        target: &SshTarget,
        timeout: Duration,
    ) -> Result<Self, SshError> {
        refuse_without_pins(target)?;
        let started = Instant::now();
        let stream = bastion.tunnel(&target.host, target.port, timeout).await?;
        Self::log_in(stream, target, started, timeout).await
    }

    /// Opens a TCP connection from this host to another one.
    pub async fn tunnel(
        &self,
        host: &str,
        port: u16,
        timeout: Duration,
    ) -> Result<Tunnel, SshError> {
        let target = at(host, port);
        let host = host.trim_matches(['[', ']']);
        let opening =
            self.inner
                .handle
                .channel_open_direct_tcpip(host, port.into(), "127.0.0.1", 0);
        let forward = |reason: String, target_down| SshError::Forward {
            host: self.inner.name.clone(),
            target: target.clone(),
            reason,
            target_down,
        };
        match tokio::time::timeout(timeout, opening).await {
            Ok(Ok(channel)) => Ok(Tunnel {
                stream: channel.into_stream(),
                _through: self.clone(),
            }),
            Ok(Err(russh::Error::ChannelOpenFailure(reason))) => {
                let down = matches!(reason, ChannelOpenFailure::ConnectFailed);
                Err(forward(refusal(&reason), down))
            }
            Ok(Err(_)) => Err(self.cut(format!("connect to {target}"))),
            Err(_) => Err(forward(format!("no answer within {timeout:?}"), true)),
        }
    }

    /// The connection is gone; commands on it will fail.
    pub fn is_closed(&self) -> bool {
        self.inner.handle.is_closed()
    }

    /// Says goodbye. Clones of this connection end with it.
    pub async fn close(&self) {
        let goodbye = self
            .inner
            .handle
            .disconnect(Disconnect::ByApplication, "done", "en");
        // Whether the host still hears it does not matter.
        let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
    }

    async fn log_in<S>(
        stream: S,
        target: &SshTarget,
        started: Instant,
        timeout: Duration,
    ) -> Result<Self, SshError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let left = timeout.saturating_sub(started.elapsed());
        match tokio::time::timeout(left, Self::session(stream, target)).await {
            Ok(result) => result,
            Err(_) => Err(SshError::ConnectTimeout {
                host: target.name(),
                after: timeout,
            }),
        }
    }

    async fn session<S>(stream: S, target: &SshTarget) -> Result<Self, SshError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let name = target.name();
        let config = client::Config {
            keepalive_interval: Some(KEEPALIVE),
            keepalive_max: 3,
            preferred: Preferred {
                key: preferred(&target.host_keys),
                ..Preferred::DEFAULT
            },
            ..client::Config::default()
        };
        let pins = Pins {
            keys: target.host_keys.clone(),
        };
        let handshake = |source| SshError::Handshake {
            host: name.clone(),
            source,
        };
        let connected = client::connect_stream(Arc::new(config), stream, pins).await;
        let mut handle = connected.map_err(|error| match error {
            PinError::WrongKey { got } => SshError::HostKeyMismatch {
                host: name.clone(),
                expected: target.pinned(),
                got,
            },
            PinError::Ssh(source) => handshake(source),
        })?;
        let hash = match target.key.algorithm() {
            // Without an answer from the host, what every host of today takes.
            Algorithm::Rsa { .. } => handle
                .best_supported_rsa_hash()
                .await
                .map_err(&handshake)?
                .unwrap_or(Some(HashAlg::Sha512)),
            _ => None,
        };
        let key = PrivateKeyWithHashAlg::new(target.key.clone(), hash);
        let answer = handle
            .authenticate_publickey(&target.user, key)
            .await
            .map_err(&handshake)?;
        match answer {
            AuthResult::Success => {}
            // russh says "failure" without further methods also when the connection breaks.
            AuthResult::Failure {
                remaining_methods, ..
            } if remaining_methods.is_empty() && handle.is_closed() => {
                return Err(SshError::Cut {
                    host: name,
                    doing: "log in".to_owned(),
                });
            }
            AuthResult::Failure { .. } => {
                let key = fingerprint(target.key.public_key());
                return Err(SshError::AuthRefused { host: name, key });
            }
        }
        Ok(Self {
            inner: Arc::new(Inner {
                handle,
                name,
                sessions: Semaphore::new(SESSIONS),
            }),
        })
    }

    fn cut(&self, doing: String) -> SshError {
        SshError::Cut {
            host: self.inner.name.clone(),
            doing,
        }
    }

    /// One command on a channel of its own.
    async fn exec(&self, command: &Command, line: String) -> Result<Output, SshError> {
        let name = || (self.inner.name.clone(), command.name().to_owned());
        let cut = || self.cut(format!("run `{}`", command.name()));
        let not_started = |reason: String| {
            let (host, command) = name();
            SshError::NotStarted {
                host,
                command,
                reason,
            }
        };
        let channel = match self.inner.handle.channel_open_session().await {
            Ok(channel) => channel,
            Err(russh::Error::ChannelOpenFailure(reason)) => {
                return Err(not_started(refusal(&reason)));
            }
            Err(_) => return Err(cut()),
        };
        let (mut incoming, outgoing) = channel.split();
        let mut outgoing = KillOnDrop(Some(outgoing));
        let writer = outgoing.0.as_ref().expect("it was just put there");
        writer.exec(true, line).await.map_err(|_| cut())?;

        // Input and output flow at the same time, or a command that prints more than a window
        // before it reads on would wait for us while we wait for it.
        let write_input = async {
            // If this fails, the command did not want all of it or the connection broke; the
            // other direction tells which.
            let _ = writer.data_bytes(command.stdin.0.clone()).await;
            let _ = writer.eof().await;
        };
        let read_output = async {
            let mut output = Output::default();
            let (mut status, mut signal) = (None, None);
            let closed = loop {
                match incoming.wait().await {
                    Some(ChannelMsg::Data { data }) => output.stdout.extend_from_slice(&data),
                    Some(ChannelMsg::ExtendedData { data, .. }) => {
                        output.stderr.extend_from_slice(&data)
                    }
                    Some(ChannelMsg::ExitStatus { exit_status }) => status = Some(exit_status),
                    Some(ChannelMsg::ExitSignal { signal_name, .. }) => signal = Some(signal_name),
                    Some(ChannelMsg::Failure) => {
                        return Err(not_started("the host refused to run it".to_owned()));
                    }
                    Some(ChannelMsg::Close) => break true,
                    Some(_) => {}
                    None => break false,
                }
                if output.stdout.len() + output.stderr.len() > OUTPUT_LIMIT {
                    let (host, command) = name();
                    return Err(SshError::TooMuchOutput {
                        host,
                        command,
                        limit: OUTPUT_LIMIT,
                    });
                }
            };
            let (host, command) = name();
            match (closed, signal, status) {
                // Even with a status: what the command printed may not be all here.
                (false, _, _) => Err(cut()),
                (true, Some(signal), _) => Err(SshError::Killed {
                    host,
                    command,
                    signal: signal_name(signal),
                }),
                (true, None, Some(status)) => Ok(Output { status, ..output }),
                (true, None, None) => Err(SshError::NoStatus { host, command }),
            }
        };
        let result = {
            let mut write_input = std::pin::pin!(write_input);
            let mut read_output = std::pin::pin!(read_output);
            tokio::select! {
                result = &mut read_output => result,
                () = &mut write_input => read_output.await,
            }
        };
        if !matches!(result, Err(SshError::TooMuchOutput { .. })) {
            // It has ended by itself; nobody is left to be killed.
            outgoing.0 = None;
        }
        result
    }
}

#[async_trait]
impl Host for Ssh {
    fn name(&self) -> &str {
        &self.inner.name
    }

    async fn execute(&self, command: &Command) -> Result<Output, SshError> {
        let bad = |reason| SshError::BadArgument {
            host: self.inner.name.clone(),
            what: format!("the command `{}`", command.name()),
            reason,
        };
        if command.argv.first().is_none_or(String::is_empty) {
            return Err(bad("it has no program"));
        }
        if command.argv.iter().any(|word| word.contains('\0')) {
            return Err(bad("a word of it has a zero byte"));
        }
        let line = command_line(command.argv.iter().map(String::as_str));
        let _permit = self
            .inner
            .sessions
            .acquire()
            .await
            .expect("the semaphore is never closed");
        match tokio::time::timeout(command.timeout, self.exec(command, line)).await {
            Ok(result) => result,
            Err(_) => Err(SshError::CommandTimeout {
                host: self.inner.name.clone(),
                command: command.name().to_owned(),
                after: command.timeout,
            }),
        }
    }
}

/// Kills the command and closes its channel when we turn away from it early: a timeout, a
/// cancelled job, too much output. Best effort: sshd passes signals
/// on since 7.9, but not to commands of root.
struct KillOnDrop(Option<ChannelWriteHalf<Msg>>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let (Some(channel), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        runtime.spawn(async move {
            let _ = channel.signal(Sig::KILL).await;
            let _ = channel.close().await;
        });
    }
}

/// A TCP connection through a host. Keeps the connection to that host alive.
pub struct Tunnel {
    stream: ChannelStream<Msg>,
    _through: Ssh,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tunnel(through {})", self._through.inner.name)
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Accepts the pinned keys and nothing else. russh asks at the first key exchange and at each
/// later one.
struct Pins {
    keys: Vec<PublicKey>,
}

#[derive(Debug)]
enum PinError {
    WrongKey { got: String },
    Ssh(russh::Error),
}

impl From<russh::Error> for PinError {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl client::Handler for Pins {
    type Error = PinError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, PinError> {
        let got = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                if self
                    .keys
                    .iter()
                    .any(|pinned| pinned.key_data() == key.key_data())
                {
                    return Ok(true);
                }
                fingerprint(key)
            }
            PublicKeyOrCertificate::Certificate(_) => "a certificate".to_owned(),
        };
        Err(PinError::WrongKey { got })
    }
}

fn refuse_without_pins(target: &SshTarget) -> Result<(), SshError> {
    if target.host_keys.is_empty() {
        let (host, got) = (target.name(), "unknown".to_owned());
        return Err(SshError::HostKeyMismatch {
            host,
            expected: Vec::new(),
            got,
        });
    }
    Ok(())
}

/// Asks for keys of the pinned kinds first. A host has keys of several kinds, and shows the one
/// that we like best: without this it might show a good key that we do not know. The other kinds
/// stay in the list, so that an impostor's key can be named.
fn preferred(pinned: &[PublicKey]) -> Cow<'static, [Algorithm]> {
    let is_pinned = |algorithm: &Algorithm| {
        pinned.iter().any(|key| match (key.algorithm(), algorithm) {
            (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
            (key, algorithm) => key == *algorithm,
        })
    };
    let mut kinds = Preferred::DEFAULT.key.into_owned();
    kinds.sort_by_key(|algorithm| !is_pinned(algorithm));
    Cow::Owned(kinds)
}

fn refusal(reason: &ChannelOpenFailure) -> String {
    match reason {
        ChannelOpenFailure::AdministrativelyProhibited => "the host does not allow it".to_owned(),
        ChannelOpenFailure::ConnectFailed => "the target is not reachable from there".to_owned(),
        ChannelOpenFailure::ResourceShortage => "the host has no room for more".to_owned(),
        other => format!("{other:?}"),
    }
}

fn signal_name(signal: Sig) -> String {
    match signal {
        Sig::Custom(name) => name,
        known => format!("{known:?}"),
    }
}
