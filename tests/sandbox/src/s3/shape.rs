//! Bodies as a bad line passes them: slowly, or not to the end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::front::BoxError;

/// The connection ends here; the client gets no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
#[error("connection cut by a fault of the sandbox")]
pub(super) struct Cut;

/// How long a line that is about to break still passes what it has.
const FLUSH: Duration = Duration::from_millis(20);

/// What becomes of a body on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// After so many bytes it ends.
    end: Option<(u64, End)>,
    /// Bytes in a second.
    pace: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Cut,
    Stall,
}

impl Shape {
    pub(super) fn cut(after: u64) -> Shape {
        Shape {
            end: Some((after, End::Cut)),
            pace: None,
        }
    }

    pub(super) fn stall(after: u64) -> Shape {
        Shape {
            end: Some((after, End::Stall)),
            pace: None,
        }
    }

    pub(super) fn throttle(per_second: u64) -> Shape {
        Shape {
            end: None,
            pace: Some(per_second.max(1)),
        }
    }

    /// The body in this shape. What its headers say of its length stays as it was.
    pub(super) fn of(self, body: s3s::Body) -> s3s::Body {
        s3s::Body::http_body_unsync(Shaped {
            body,
            shape: self,
            passed: 0,
            rest: Bytes::new(),
            wait: None,
            broken: false,
        })
    }
}

struct Shaped {
    body: s3s::Body,
    shape: Shape,
    passed: u64,
    /// Came in one piece with what was passed last.
    rest: Bytes,
    wait: Option<Pin<Box<Sleep>>>,
    /// The cut is due.
    broken: bool,
}

impl Shaped {
    /// How many bytes may pass now; 0 at the end.
    fn room(&self) -> u64 {
        let end = self
            .shape
            .end
            .map_or(u64::MAX, |(after, _)| after - self.passed);
        // Ten pieces a second look like a slow line, not like a stuck one.
        let pace = self.shape.pace.map_or(u64::MAX, |pace| (pace / 10).max(1));
        end.min(pace)
    }
}

impl Body for Shaped {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(cx));
            self.wait = None;
        }
        let room = self.room();
        if room == 0 {
            return match self.shape.end {
                Some((_, End::Stall)) => Poll::Pending,
                // What has passed must get onto the line before it breaks.
                Some((_, End::Cut)) if !self.broken => {
                    self.broken = true;
                    self.wait = Some(Box::pin(tokio::time::sleep(FLUSH)));
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                _ => Poll::Ready(Some(Err(Cut.into()))),
            };
        }
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let size = usize::try_from(room)
            .unwrap_or(usize::MAX)
            .min(self.rest.len());
        let piece = self.rest.split_to(size);
        self.passed += piece.len() as u64;
        if let Some(pace) = self.shape.pace {
            let took = Duration::from_secs_f64(piece.len() as f64 / pace as f64);
            self.wait = Some(Box::pin(tokio::time::sleep(took)));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.body.size_hint();
        let rest = self.rest.len() as u64;
        match inner.exact() {
            Some(exact) => SizeHint::with_exact(exact + rest),
            None => inner,
        }
    }
}
