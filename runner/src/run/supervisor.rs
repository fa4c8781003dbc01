//! The process that stays with a run: it makes the container, keeps the log within its limit, listens
//! for `stop`, and puts the exit on record. When it dies, the kernel kills the container.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::sys::prctl::set_dumpable;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{close, dup2_stdin, dup2_stdout, setsid};

use super::control;
use super::folder::{Folder, Runs, beat};
use super::log::Log;
use super::message::{Hidden, Order, Report};
use super::process::{self, Process};
use super::record::Record;
use super::request::Rootfs;
use super::scope;
use super::secrets::read_whole;
use super::status::{State, Status};
use crate::chain::chain;
use crate::container::{self, Container, Exit, Stdio};
use crate::exit::ExitCode;
use crate::image::{Image, Store, seconds};
use crate::sys::process::no_core_dumps;

/// Between two looks at the log's size.
const LOOK: Duration = Duration::from_secs(1);
/// Looks between two heartbeats.
const BEAT: u32 = 5;
/// How long a program may take when the supervisor itself is told to end, as at a shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// What is said of a log that got shorter.
const TRUNCATED: &str =
    "the program truncated its own log, as `> /dev/stdout` does; write `>> /dev/stdout` or `>&1`";

/// The hidden command `supervise`: the order comes on stdin, the lock is stdout.
pub(crate) fn supervise() -> ExitCode {
    match arrive().and_then(|(mut socket, lock)| {
        let order = read_order(&mut socket)?;
        report(&mut socket, &Report::Here);
        Ok((socket, lock, order))
    }) {
        Ok((mut socket, lock, order)) => match Run::begin(order) {
            Ok(run) => {
                report(&mut socket, &Report::Started);
                drop(socket);
                run.stay();
                drop(lock);
                ExitCode::Done
            }
            Err(message) => {
                report(&mut socket, &Report::Failed(message));
                ExitCode::Failed
            }
        },
        Err(error) => {
            complain(&format!("failed to become a supervisor: {error}"));
            ExitCode::Failed
        }
    }
}

/// Becomes a process that nothing of its starter can end. Returns the socket and the lock.
fn arrive() -> io::Result<(UnixStream, OwnedFd)> {
    // A file that the starter left open, such as the other end of an SSH session's pipe, would keep
    // somebody waiting as long as the run lasts.
    let inherited: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&number| number > 2)
        .collect();
    for number in inherited {
        // The one that read the directory is closed already.
        let _ = close(number);
    }
    // Secrets are about to come: no core dump, and no other process of this user may look.
    no_core_dumps()?;
    set_dumpable(false)?;
    // Fails only for who leads a session already, which is as good.
    let _ = setsid();
    umask(Mode::from_bits_truncate(0o077));
    std::env::set_current_dir("/")?;
    let signals = SigSet::from_iter([
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
    ]);
    signals.thread_block()?;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let lock = io::stdout().as_fd().try_clone_to_owned()?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok((socket, lock))
}

fn read_order(socket: &mut UnixStream) -> io::Result<Order> {
    let text = read_whole(socket)?;
    Ok(serde_json::from_slice(&text)?)
}

/// The starter may be gone; the run goes on.
fn report(socket: &mut UnixStream, report: &Report) {
    let text = serde_json::to_string(report).expect("a report is plain data");
    let _ = writeln!(socket, "{text}");
}

/// Says something about ourselves, into `supervisor.log`. On a full disk it stays unsaid.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// A run before it has its container: on record as starting.
struct Prepared {
    folder: Folder,
    rootfs: PathBuf,
    image: Option<Image>,
    log: Log,
    record: Record,
    status: Status,
    heartbeat: File,
    control: UnixListener,
}

/// A run that has begun.
struct Run {
    folder: Folder,
    record: Record,
    status: Status,
    log: Log,
    heartbeat: File,
    shared: Arc<Shared>,
    /// Keeps the image from being removed.
    _image: Option<Image>,
}

/// What the threads of a supervisor share.
#[derive(Debug)]
pub(crate) struct Shared {
    container: Container,
    progress: Mutex<Progress>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    stopped: bool,
    truncated: bool,
    ended: bool,
}

impl Prepared {
    /// Makes everything but the container.
    fn new(folder: &Folder, order: &Order) -> Result<Self, String> {
        let (rootfs, image) = match &order.request.rootfs {
            Rootfs::Tree(path) => (path.clone(), None),
            Rootfs::Image(digest) => {
                let image = Store::open(&order.store)
                    .and_then(|store| store.image(digest))
                    .map_err(|error| chain(&error))?
                    .ok_or_else(|| format!("the image {digest} was removed meanwhile"))?;
                (image.rootfs.clone(), Some(image))
            }
        };
        let log = in_words("open the log", Log::open(&folder.path, order.log_limit))?;
        let record = Record::new(folder);
        let mut status = Status::new(&folder.id, order.attempt, &order.request);
        leave_session(&mut status.notes);
        status.started_at = Some(seconds(SystemTime::now()));
        status.boot_id = in_words("read the boot id", process::boot_id())?;
        status.supervisor = Process::this();
        status.log_from = in_words("read the log", log.end())?;
        // On record before anything runs: an attempt that dies here is lost, not forgotten.
        in_words("write status.json", record.write(&status))?;
        let heartbeat = in_words(
            "open the heartbeat",
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(folder.file("heartbeat")),
        )?;
        in_words("write the heartbeat", beat(&heartbeat, &status.boot_id))?;
        let control = in_words("listen", control::listen(&folder.path))?;
        Ok(Self {
            folder: folder.clone(),
            rootfs,
            image,
            log,
            record,
            status,
            heartbeat,
            control,
        })
    }

    /// Starts the program. The secrets of the order are nowhere here then.
    fn start(&self, order: Order) -> Result<Container, String> {
        let stdio = in_words("open the log", stdio(&self.log))?;
        let secrets = order.secrets.into_iter();
        let secrets = secrets.map(|(name, Hidden(contents))| (name, contents));
        let spec = &order.request.spec;
        container::start(spec, &self.rootfs, secrets.collect(), stdio)
            .map_err(|error| chain(&error))
    }

    /// Puts the program on record, and listens for those who want to stop it.
    fn publish(self, container: Container) -> Result<Run, String> {
        let Self {
            record, mut status, ..
        } = self;
        status.notes.extend_from_slice(container.notes());
        status.process = u32::try_from(container.pid()).ok().and_then(Process::find);
        status.state = State::Running;
        if let Err(error) = record.write(&status) {
            // What is not on record must not run.
            let _ = container.signal(Signal::SIGKILL);
            let _ = container.wait();
            return Err(format!("failed to write status.json: {error}"));
        }
        // Not before: the program would inherit it.
        let _ = fs::write("/proc/self/oom_score_adj", "-900");
        let shared = Arc::new(Shared {
            container,
            progress: Mutex::default(),
            ended: Condvar::new(),
        });
        control::serve(self.control, Arc::clone(&shared));
        obey_signals(Arc::clone(&shared));
        Ok(Run {
            folder: self.folder,
            record,
            status,
            log: self.log,
            heartbeat: self.heartbeat,
            shared,
            _image: self.image,
        })
    }
}

impl Run {
    /// Makes the container. When this fails nothing is left of it but the log of former attempts.
    fn begin(order: Order) -> Result<Self, String> {
        let runs = Runs::open(&order.store).map_err(|error| chain(&error))?;
        let folder = runs.folder(&order.id);
        let begun = Prepared::new(&folder, &order).and_then(|prepared| {
            let container = prepared.start(order)?;
            prepared.publish(container)
        });
        begun.inspect_err(|_| {
            if let Err(error) = folder.forget_status() {
                complain(&chain(&error));
            }
        })
    }

    /// Stays until the program ends, and puts its exit on record.
    fn stay(mut self) {
        let (shared, log, heartbeat) = (Arc::clone(&self.shared), self.log, self.heartbeat);
        let boot_id = self.status.boot_id.clone();
        let longest = self.status.log_from;
        let keeper = thread::spawn(move || keep(&shared, &log, longest, &heartbeat, &boot_id));
        // In this thread: the kernel ties the container to the thread that made it.
        let exit = self.shared.container.wait();
        self.shared.progress().ended = true;
        self.shared.ended.notify_all();
        // Its last look tells whether all of the log is there.
        let _ = keeper.join();
        let (stopped, truncated) = {
            let progress = self.shared.progress();
            (progress.stopped, progress.truncated)
        };
        if truncated {
            self.status.notes.push(TRUNCATED.to_owned());
        }
        let _ = fs::remove_file(self.folder.file("control"));
        match exit {
            Ok(exit) => put_on_record(&self.record, self.status, exit, stopped),
            // Without an exit on record the run is lost, never a success.
            Err(error) => complain(&format!("failed to wait for the container: {error}")),
        }
    }
}

fn put_on_record(record: &Record, mut status: Status, exit: Exit, stopped: bool) {
    status.state = State::Exited;
    status.exit = Some(exit);
    status.stopped = stopped;
    status.ended_at = Some(seconds(SystemTime::now()));
    // The space was reserved, so this hardly ever fails; a full disk may get some again.
    for _ in 0..60 {
        match record.write(&status) {
            Ok(()) => return,
            Err(error) => complain(&format!("failed to put the exit on record: {error}")),
        }
        thread::sleep(Duration::from_secs(1));
    }
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Two flags are right whoever panicked.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the program to end, and kills it when it does not in time. Returns at once.
    pub(crate) fn stop(self: &Arc<Self>, grace: Duration) -> io::Result<()> {
        {
            let mut progress = self.progress();
            if progress.ended {
                return Ok(());
            }
            progress.stopped = true;
        }
        self.container.signal(Signal::SIGTERM)?;
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let progress = shared.progress();
            let (progress, _) = shared
                .ended
                .wait_timeout_while(progress, grace, |progress| !progress.ended)
                .unwrap_or_else(PoisonError::into_inner);
            // With the lock held: what ended is not waited for yet, or we see it here.
            if !progress.ended
                && let Err(error) = shared.container.signal(Signal::SIGKILL)
            {
                complain(&format!("failed to kill the container: {error}"));
            }
        });
        Ok(())
    }
}

/// Keeps the log within its limit and the heartbeat going, until the program ends. `longest` is how long the
/// log was already.
fn keep(shared: &Shared, log: &Log, mut longest: u64, heartbeat: &File, boot_id: &str) {
    let mut said = String::new();
    let mut looks = 0_u32;
    loop {
        let progress = shared.progress();
        let (mut progress, _) = shared
            .ended
            .wait_timeout_while(progress, LOOK, |progress| !progress.ended)
            .unwrap_or_else(PoisonError::into_inner);
        // Opening /dev/stdout with O_TRUNC, as `> /dev/stdout` does, is all it takes.
        let end = log.end().unwrap_or(longest);
        progress.truncated |= end < longest;
        let ended = progress.ended;
        drop(progress);
        longest = longest.max(end);
        let problem = match log.mend(longest).and_then(|()| log.trim()) {
            Ok(true) => None,
            Ok(false) => Some("the file system makes no holes: the log has no limit".to_owned()),
            Err(error) => Some(format!("failed to limit the log: {error}")),
        };
        if ended {
            return;
        }
        looks = looks.wrapping_add(1);
        let beaten = if looks.is_multiple_of(BEAT) {
            beat(heartbeat, boot_id)
        } else {
            Ok(())
        };
        let beaten = beaten
            .err()
            .map(|error| format!("failed to write the heartbeat: {error}"));
        // Once, not every second.
        if let Some(problem) = problem.or(beaten)
            && problem != said
        {
            complain(&problem);
            said = problem;
        }
    }
}

/// A terminal that goes away means nothing to a run; the end of the machine does.
fn obey_signals(shared: Arc<Shared>) {
    thread::spawn(move || {
        let signals = SigSet::from_iter([
            Signal::SIGHUP,
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGTERM,
        ]);
        loop {
            match signals.wait() {
                Ok(Signal::SIGTERM) => {
                    complain("stopping: the supervisor got SIGTERM");
                    if let Err(error) = shared.stop(SHUTDOWN_GRACE) {
                        complain(&format!("failed to stop the program: {error}"));
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    complain(&format!("failed to wait for signals: {error}"));
                    return;
                }
            }
        }
    });
}

fn leave_session(notes: &mut Vec<String>) {
    let cgroups = scope::cgroups_of_this_process();
    let mounts = Path::new("/sys/fs/cgroup");
    if let Err(error) = scope::leave_session(&cgroups, mounts, std::process::id()) {
        notes.push(format!(
            "the login session may take the run with it: failed to leave its cgroup: {error}"
        ));
    }
}

fn stdio(log: &Log) -> io::Result<Stdio> {
    Ok(Stdio {
        stdin: File::open("/dev/null")?.into(),
        stdout: log.writer()?.into(),
        stderr: log.writer()?.into(),
    })
}

fn in_words<T>(what: &str, result: io::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("failed to {what}: {error}"))
}
