//! The supervisor's socket: how `stop` reaches it, and nobody but the owner of the store does.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::message::{Answer, Ask};
use super::supervisor::{Shared, complain};

/// How long the other side may take for its line.
const TIMEOUT: Duration = Duration::from_secs(5);
/// More than any question has.
const LONGEST: u64 = 4096;

/// A path to the socket that is short enough for the kernel (107 bytes), however long the store's is.
fn short(folder: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/control", folder.as_raw_fd()))
}

pub(crate) fn listen(folder: &Path) -> io::Result<UnixListener> {
    let path = folder.join("control");
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => result?,
    }
    let listener = UnixListener::bind(short(&File::open(folder)?))?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

pub(crate) fn serve(listener: UnixListener, shared: Arc<Shared>) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let answered = stream.and_then(|stream| answer(&stream, &shared));
            if let Err(error) = answered {
                complain(&format!("failed to answer on the control socket: {error}"));
                // Out of files, perhaps: not as fast as we can.
                thread::sleep(Duration::from_millis(100));
            }
        }
    });
}

fn answer(stream: &UnixStream, shared: &Arc<Shared>) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line)?;
    let answer = match serde_json::from_str(&line) {
        Ok(Ask::Stop { grace_ms }) => match shared.stop(Duration::from_millis(grace_ms)) {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Failed(error.to_string()),
        },
        Err(error) => Answer::Failed(format!("no such question: {error}")),
    };
    let text = serde_json::to_string(&answer).expect("an answer is plain data");
    writeln!(&mut &*stream, "{text}")
}

/// Asks the supervisor of a folder.
pub(crate) fn ask(folder: &Path, ask: &Ask) -> io::Result<()> {
    let stream = UnixStream::connect(short(&File::open(folder)?))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let text = serde_json::to_string(ask).expect("a question is plain data");
    writeln!(&mut &stream, "{text}")?;
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line)?;
    match serde_json::from_str(&line)? {
        Answer::Done => Ok(()),
        Answer::Failed(why) => Err(io::Error::other(why)),
    }
}
