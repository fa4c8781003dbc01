//! Making the TCP connection under lapin, with a second handle to the socket to cut it off.
//!
//! lapin keeps a thread and a socket for each connection until the broker answers or the socket
//! breaks, also when nobody waits for that connection any more. With a broker that accepts
//! connections and then says nothing, each attempt would leave one of each behind, so an attempt
//! that is given up cuts its socket.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use lapin::tcp::{AsyncTcpStream, OwnedTLSConfig};
use lapin::uri::AMQPScheme;
use lapin::{Connection, ConnectionProperties};

use super::config::Settings;
use super::errors;
use crate::queue::QueueError;

/// A second handle to the socket of a connection. Dropping it cuts the socket.
#[derive(Debug, Default)]
pub(super) struct Wire(Arc<Mutex<State>>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Connecting,
    Connected(TcpStream),
    Cut,
}

impl Wire {
    /// Breaks the connection without a word; later calls do nothing.
    pub(super) fn cut(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Connected(socket) = &*state {
            // It fails when the peer was faster; then it is cut already.
            let _ = socket.shutdown(Shutdown::Both);
        }
        *state = State::Cut;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Connects and logs in. When the future is dropped half-way, nothing of it stays behind.
pub(super) async fn connect(
    settings: &Settings,
    role: &'static str,
) -> Result<(Connection, Wire), QueueError> {
    let wire = Wire::default();
    let limit = settings.connect_timeout;
    let name = format!("rekindle {role} {}", std::process::id());
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = lapin::runtime::default_runtime().map_err(|e| errors::of("connect", &e))?;
    let state = Arc::clone(&wire.0);
    let tls = OwnedTLSConfig {
        cert_chain: settings.ca.clone(),
        ..OwnedTLSConfig::default()
    };
    let connecting = Connection::connector(
        settings.uri.clone(),
        runtime,
        // Runs on lapin's own thread, which nobody stops: it needs a limit of its own.
        async move |uri, runtime| {
            let opened = async {
                let host = uri.authority.host.as_str();
                let addresses: Vec<_> = tokio::net::lookup_host((host, uri.authority.port))
                    .await?
                    .collect();
                let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
                if let AsyncTcpStream::Plain(plain) = &stream {
                    let socket = plain.get_ref();
                    socket.set_nodelay(true)?;
                    keep(&state, socket.as_fd().try_clone_to_owned()?.into())?;
                }
                match uri.scheme {
                    AMQPScheme::AMQP => Ok(stream),
                    AMQPScheme::AMQPS => stream.into_tls(host, tls.as_ref()).await,
                }
            };
            match tokio::time::timeout(limit, opened).await {
                Ok(opened) => Ok(opened?),
                Err(late) => Err(io::Error::from(late).into()),
            }
        },
        properties,
    );
    match tokio::time::timeout(limit, connecting).await {
        Ok(Ok(connection)) => Ok((connection, wire)),
        Ok(Err(error)) => Err(errors::of("connect", &error)),
        Err(_) => Err(errors::no_answer("connect", limit)),
    }
}

fn keep(state: &Mutex<State>, socket: TcpStream) -> io::Result<()> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    match *state {
        State::Cut => Err(io::Error::other("the attempt was given up")),
        _ => {
            *state = State::Connected(socket);
            Ok(())
        }
    }
}
