//! A container that is a process of this machine.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::environment::Variables;

/// What the stand-in says when k6 would listen; it is no part of the log.
const READY: &[u8] = b"sandbox: ready\n";

/// A running container. It is killed when this is dropped; and when this whole process dies its standard input ends,
/// which ends it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Lines for its standard input.
    input: UnboundedSender<String>,
    log: Arc<Mutex<Log>>,
    readers: [JoinHandle<()>; 2],
    /// Bytes that were written when somebody looked.
    seen: u64,
    begun: bool,
}

#[derive(Debug, Default)]
struct Log {
    /// The newest file of it.
    text: Vec<u8>,
    written: u64,
    /// After so many bytes the kubelet begins a new file.
    limit: Option<usize>,
    ready: bool,
}

impl Process {
    /// Starts a program as a container with these files in it.
    ///
    /// # Errors
    /// When there is no such program, or it cannot be started.
    pub(super) fn start(
        program: &Path,
        arguments: &[String],
        variables: &Variables,
        files: &Variables,
        log_limit: Option<usize>,
    ) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(variables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (input, mut lines) = unbounded_channel::<String>();
        let stdin = child.stdin.take();
        tokio::spawn(async move {
            let Some(mut stdin) = stdin else { return };
            while let Some(line) = lines.recv().await {
                // One that has ended reads no more.
                if stdin.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        let log = Log {
            limit: log_limit,
            ..Log::default()
        };
        let log = Arc::new(Mutex::new(log));
        let out = child.stdout.take().map(BufReader::new);
        let err = child.stderr.take().map(BufReader::new);
        let readers = [
            tokio::spawn(read(out, Arc::clone(&log))),
            tokio::spawn(read(err, Arc::clone(&log))),
        ];
        let process = Self {
            child,
            input,
            log,
            readers,
            seen: 0,
            begun: false,
        };
        process.tell(&json!(files).to_string());
        Ok(process)
    }

    /// Whether it would answer on port 6565.
    pub(super) fn is_ready(&self) -> bool {
        lock(&self.log).ready
    }

    /// What the starter asks for: from now on it makes load.
    pub(super) fn begin(&mut self) {
        self.begun = true;
        self.tell("start");
    }

    /// Whether the starter asked for load.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Its exit code, once it has ended and its log is whole.
    pub(super) fn ended(&mut self) -> io::Result<Option<i32>> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(None);
        };
        let read = self.readers.iter().all(JoinHandle::is_finished);
        Ok(read.then(|| code(status)))
    }

    /// Its log, if there is more of it than before.
    pub(super) fn news(&mut self) -> Option<String> {
        let log = lock(&self.log);
        if log.written == self.seen {
            return None;
        }
        self.seen = log.written;
        Some(String::from_utf8_lossy(&log.text).into_owned())
    }

    fn tell(&self, line: &str) {
        // One that has ended is told nothing.
        let _ = self.input.send(format!("{line}\n"));
    }
}

/// As a shell gives it: 137 is a process that was killed.
fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let by_signal = || status.signal().map_or(-1, |signal| 128 + signal);
    status.code().unwrap_or_else(by_signal)
}

/// Lines of both streams come in the order in which they are read.
async fn read(stream: Option<BufReader<impl AsyncRead + Unpin>>, log: Arc<Mutex<Log>>) {
    let Some(mut stream) = stream else { return };
    let mut line = Vec::new();
    while let Ok(1..) = stream.read_until(b'\n', &mut line).await {
        let mut log = lock(&log);
        if line == READY {
            log.ready = true;
        } else {
            log.write(&line);
        }
        line.clear();
    }
}

impl Log {
    fn write(&mut self, line: &[u8]) {
        if self.limit.is_some_and(|limit| self.text.len() >= limit) {
            self.text.clear();
        }
        self.text.extend_from_slice(line);
        self.written += line.len() as u64;
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_too_long_begins_anew() {
        let mut log = Log {
            limit: Some(8),
            ..Log::default()
        };
        for line in ["one\n", "two\n", "three\n"] {
            log.write(line.as_bytes());
        }
        assert_eq!(log.text, b"three\n");
        assert_eq!(log.written, 14);
    }
}
