//! What listens on a simulated server beside sshd, and the stream a connection to it is.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Something that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Answers any HTTP request with 200 and this text, naming the server in `x-served-by`.
    Http(String),
    /// Is in truth at this loopback address (a simulated Kubernetes API, say).
    At(SocketAddr),
}

/// The client's end of a connection; breaks when its token is cancelled.
pub(super) struct Breakable<S> {
    stream: S,
    broken: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Breakable<S> {
    pub(super) fn new(stream: S, token: CancellationToken) -> Self {
        let broken = Box::pin(token.cancelled_owned());
        Self { stream, broken }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.broken.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Breakable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Breakable<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Reads one request's head and answers it.
pub(super) async fn answer_http(mut stream: DuplexStream, server: String, text: String) {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 && request.len() < 64 << 10 => request.extend_from_slice(&buffer[..n]),
            _ => return,
        }
    }
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
         x-served-by: {server}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
    // The client may be gone; nobody is left to tell.
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        stream.shutdown().await.ok();
    }
}
