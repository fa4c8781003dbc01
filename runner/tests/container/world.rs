//! A small image made of programs of this machine, and a supervisor that runs containers from it.
//!
//! The supervisor is a forked process with one thread, as the real one is. What it has to say it writes to
//! files. After each run the world looks for what should not be left: processes, mounts, cgroups.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use runner::container::{self, Container, Exit, Limits, Secrets, Spec, StartError, Stdio};
use serde::de::DeserializeOwned;

/// What the image has, beside the libraries of these.
const PROGRAMS: [&str; 12] = [
    "sh", "perl", "true", "false", "cat", "ls", "sleep", "id", "env", "stat", "touch", "mkdir",
];

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

#[track_caller]
pub(crate) fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < DEADLINE, "waited too long: {what}");
        sleep(Duration::from_millis(5));
    }
}

pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) spec: Spec,
    pub(crate) secrets: Secrets,
    /// What the supervisor does before it starts the container.
    pub(crate) before: fn(&Path),
    /// What it does with the container.
    pub(crate) after: fn(Container) -> Exit,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_image(&dir.path().join("image"));
        let env = [("PATH", "/usr/bin:/bin"), ("HOME", "/root")];
        let spec = Spec {
            args: Vec::new(),
            env: env.map(|(name, value)| (name.into(), value.into())).into(),
            cwd: "/".into(),
            hostname: "box".into(),
            binds: Vec::new(),
            secrets: Vec::new(),
            limits: Limits {
                tmpfs_bytes: 16 << 20,
                tmpfs_inodes: 4096,
                ..Limits::default()
            },
        };
        Self {
            dir,
            spec,
            secrets: Secrets::new(),
            before: |_| {},
            after: |container| container.wait().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path of the image.
    pub(crate) fn image(&self, path: &str) -> PathBuf {
        self.path("image").join(path.trim_start_matches('/'))
    }

    pub(crate) fn script(&mut self, path: &str, text: &str) {
        let file = self.image(path);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn secret(&mut self, name: &str, contents: &[u8]) {
        self.spec.secrets.push(name.into());
        self.secrets.insert(name.into(), contents.to_vec().into());
    }

    /// Runs a program to its end.
    pub(crate) fn run(&mut self, args: &[&str]) -> Output {
        self.start(args).wait()
    }

    /// Runs a shell script to its end, and gives what it said. It must succeed.
    #[track_caller]
    pub(crate) fn sh(&mut self, script: &str) -> String {
        self.run(&["sh", "-c", script]).success()
    }

    /// The same in Perl, which can make any system call and needs no file but itself.
    #[track_caller]
    pub(crate) fn perl(&mut self, script: &str) -> String {
        // glob needs a module.
        let ls = "sub ls { opendir(my $d, $_[0]) or return; map qq($_[0]/$_), sort grep !/^\\./, readdir $d }";
        self.run(&["perl", "-e", &format!("{ls}\n{script}")])
            .success()
    }

    pub(crate) fn start(&mut self, args: &[&str]) -> Running {
        self.spec.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        for name in ["stdout", "stderr", "started", "ended"] {
            let _ = fs::remove_file(self.path(name));
        }
        // SAFETY: the child has one thread; it uses nothing that another one of the test could have
        // locked but memory, whose lock the C library keeps whole over a fork.
        #[expect(unsafe_code, reason = "there is no safe fork")]
        let forked = unsafe { fork() }.unwrap();
        match forked {
            ForkResult::Parent { child } => Running {
                supervisor: child,
                group: group_of(child),
                dir: self.dir.path().to_owned(),
                reaped: false,
            },
            ForkResult::Child => {
                // A panic must not go on in what the child copied of the test.
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    self.supervise();
                }));
                exit_now(i32::from(done.is_err()))
            }
        }
    }

    fn supervise(&self) {
        set_pdeathsig(Signal::SIGKILL).unwrap();
        // Descriptors of the test's other threads are not ours.
        close_from(3);
        (self.before)(self.dir.path());
        let rootfs = if Path::new("/mnt/image").exists() {
            PathBuf::from("/mnt/image")
        } else {
            self.path("image")
        };
        let dir = rootfs.parent().unwrap();
        // In another order than their numbers, for a supervisor that has none open.
        let stderr = File::create(dir.join("stderr")).unwrap().into();
        let stdout = File::create(dir.join("stdout")).unwrap().into();
        let stdin = File::open("/dev/null").unwrap().into();
        let stdio = Stdio {
            stdin,
            stdout,
            stderr,
        };
        let ended = match container::start(&self.spec, &rootfs, self.secrets.clone(), stdio) {
            Ok(container) => {
                say(dir, "started", &(container.pid(), container.notes()));
                Ok((self.after)(container))
            }
            Err(error) => Err(describe(&error)),
        };
        say(dir, "ended", &ended);
    }
}

fn describe(error: &StartError) -> String {
    let mut text = format!("{error:?}\n{error}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

fn say(dir: &Path, name: &str, value: &impl serde::Serialize) {
    let new = dir.join(format!("{name}.new"));
    fs::write(&new, serde_json::to_vec(value).unwrap()).unwrap();
    fs::rename(new, dir.join(name)).unwrap();
}

fn said<T: DeserializeOwned>(dir: &Path, name: &str) -> Option<T> {
    let bytes = fs::read(dir.join(name)).ok()?;
    Some(serde_json::from_slice(&bytes).unwrap())
}

fn close_from(first: u32) {
    use nix::libc;
    // SAFETY: the forked child owns none of these, and no OwnedFd of it is dropped any more.
    #[expect(unsafe_code, reason = "there is no safe call")]
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    assert_eq!(result, 0);
}

fn exit_now(code: i32) -> ! {
    // SAFETY: takes a number and does not come back.
    #[expect(unsafe_code, reason = "there is no safe call")]
    unsafe {
        nix::libc::_exit(code)
    }
}

/// A supervisor and its container.
pub(crate) struct Running {
    pub(crate) supervisor: Pid,
    /// What its control groups' names begin with.
    pub(crate) group: String,
    dir: PathBuf,
    reaped: bool,
}

impl Running {
    /// Waits until the program began; gives process 1 as the host numbers it.
    #[track_caller]
    pub(crate) fn init(&self) -> i32 {
        let mut started: Option<(i32, Vec<String>)> = None;
        until("the program begins", || {
            let ended: Option<Result<Exit, String>> = said(&self.dir, "ended");
            assert!(
                !matches!(ended, Some(Err(_))),
                "it did not start: {ended:?}"
            );
            started = said(&self.dir, "started");
            started.is_some()
        });
        started.unwrap().0
    }

    /// The container's processes but the first, as the host numbers them.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let init = self.init();
        let processes = in_namespace(&namespace(init).unwrap());
        processes.into_iter().filter(|pid| *pid != init).collect()
    }

    /// Waits until the program wrote so.
    #[track_caller]
    pub(crate) fn until_stdout(&self, text: &str) {
        until(text, || {
            fs::read_to_string(self.dir.join("stdout")).is_ok_and(|stdout| stdout.contains(text))
        });
    }

    #[track_caller]
    pub(crate) fn wait(mut self) -> Output {
        waitpid(self.supervisor, None).unwrap();
        self.reaped = true;
        let read = |name: &str| {
            String::from_utf8_lossy(&fs::read(self.dir.join(name)).unwrap_or_default()).into_owned()
        };
        let started: Option<(i32, Vec<String>)> = said(&self.dir, "started");
        let exit: Option<Result<Exit, String>> = said(&self.dir, "ended");
        let output = Output {
            exit: exit.expect("the supervisor came to its end"),
            stdout: read("stdout"),
            stderr: read("stderr"),
            notes: started.map(|(_, notes)| notes).unwrap_or_default(),
        };
        self.nothing_is_left();
        output
    }

    /// No mount and no control group is left, and no child of ours.
    #[track_caller]
    pub(crate) fn nothing_is_left(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = self.dir.to_str().unwrap();
        assert!(!mounts.contains(ours), "a mount is left: {mounts}");
        assert_eq!(
            groups(&self.group),
            Vec::<PathBuf>::new(),
            "groups are left"
        );
    }
}

/// By process and start: the number alone may have been another one's.
pub(crate) fn group_of(pid: Pid) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(19)
        .unwrap();
    format!("rekindle-runner-{pid}-{start}-")
}

/// The control groups of a supervisor.
pub(crate) fn groups(prefix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(prefix) {
                    found.push(entry.path());
                }
                folders.push(entry.path());
            }
        }
    }
    found
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = kill(self.supervisor, Signal::SIGKILL);
            let _ = waitpid(self.supervisor, None);
        }
    }
}

/// What names the process namespace of a process.
pub(crate) fn namespace(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

pub(crate) fn in_namespace(name: &Path) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| namespace(*pid).is_some_and(|of| of == name))
        .collect()
}

pub(crate) struct Output {
    pub(crate) exit: Result<Exit, String>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) notes: Vec<String>,
}

impl Output {
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert_eq!(
            self.exit,
            Ok(Exit::Code(0)),
            "{}{}",
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    /// Why it did not start.
    #[track_caller]
    pub(crate) fn refusal(self) -> String {
        self.exit.expect_err("it was started")
    }
}

fn make_image(image: &Path) {
    for folder in [
        "bin", "dev", "etc", "lib64", "proc", "root", "run", "sys", "tmp", "var/tmp",
    ] {
        fs::create_dir_all(image.join(folder)).unwrap();
    }
    let output = Command::new("sh")
        .args(["-c", "for name; do command -v $name; done", "sh"])
        .args(PROGRAMS.map(|name| {
            if name == "true" || name == "false" {
                format!("/bin/{name}")
            } else {
                name.to_owned()
            }
        }))
        .output()
        .unwrap();
    let paths = String::from_utf8(output.stdout).unwrap();
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths.lines() {
        // The system's own, not a wrapper that somebody put before it.
        let name = Path::new(path).file_name().unwrap();
        let path = Path::new("/usr/bin").join(name);
        fs::copy(&path, image.join("bin").join(name)).unwrap();
        files.push(path);
    }
    assert_eq!(files.len(), PROGRAMS.len(), "programs are missing: {paths}");
    let output = Command::new("ldd").args(&files).output().unwrap();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let library = line
            .split_whitespace()
            .find(|word| word.starts_with('/') && !word.ends_with(':'));
        if let Some(library) = library {
            let to = image.join(library.trim_start_matches('/'));
            if !to.exists() {
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(library, to).unwrap();
            }
        }
    }
}
