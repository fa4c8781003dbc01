//! Following a run's log to its end.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use super::error::{RunError, failed};
use super::folder::Runs;
use super::id::RunId;
use super::view::View;

/// Read at once.
const CHUNK: usize = 256 << 10;
/// Between two looks at a log that does not grow.
const LOOK: Duration = Duration::from_millis(50);

/// Why following stopped.
#[derive(Debug)]
pub enum Followed {
    /// The run is over, and all of its log was copied.
    Over(Box<View>),
    /// Nobody reads what we copy. The run goes on.
    NoReader,
}

impl Runs {
    /// Copies the log from an offset on, until the run is over. Bytes that are not kept any more are
    /// skipped; `skipped` is told how many.
    ///
    /// # Errors
    /// When the run cannot be read, or the copy not be written.
    pub fn follow(
        &self,
        id: &RunId,
        from: u64,
        to: &mut impl Write,
        mut skipped: impl FnMut(u64),
    ) -> Result<Followed, RunError> {
        let path = self.folder(id).file("log");
        let mut at = from;
        loop {
            // In this order: all that a run wrote is there once it is over.
            let view = self.view(id)?;
            if let Some(log) = self.log(id)? {
                loop {
                    let chunk = log.read(at, CHUNK).map_err(failed("read", &path))?;
                    if chunk.bytes.is_empty() {
                        break;
                    }
                    if chunk.from > at {
                        skipped(chunk.from - at);
                    }
                    match to.write_all(&chunk.bytes).and_then(|()| to.flush()) {
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                            return Ok(Followed::NoReader);
                        }
                        result => result.map_err(failed("copy", &path))?,
                    }
                    at = chunk.next();
                }
            }
            if !view.status.is_live() {
                return Ok(Followed::Over(Box::new(view)));
            }
            thread::sleep(LOOK);
        }
    }
}
