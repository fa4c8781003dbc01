//! Real processes for the end-to-end tests: a RabbitMQ node of one's own and `rekindle-worker`s that
//! may be killed at any moment. Whatever a test starts ends with it, also when the test is killed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jobs::queue::{Queue, Rabbit, RabbitConfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::world::Sandbox;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::script::Script;

/// No verb of the script takes longer on any machine.
const SCRIPT_TIME: Duration = Duration::from_secs(180);

/// Lines of a worker's log that a failed test shows.
const TAIL: usize = 60;

/// A RabbitMQ node of one's own. Dropping it ends the node and removes its data.
#[derive(Debug)]
pub struct Broker {
    script: Script,
    url: String,
}

impl Broker {
    /// Starts one on a free port.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with("", "").await
    }

    /// Starts one with a password of its own.
    pub async fn with_password(password: &str) -> anyhow::Result<Self> {
        let conf = format!("default_pass = {password}\n");
        let mut broker = Self::with("", &conf).await?;
        let known = format!(":{password}@");
        broker.url = broker.url.replace(":guest@", &known);
        Ok(broker)
    }

    /// Starts one that gives a consumer only so long to settle a delivery. It looks every second
    /// instead of every minute.
    pub async fn impatient(consumer_timeout: Duration) -> anyhow::Result<Self> {
        let ms = consumer_timeout.as_millis();
        let terms =
            format!("[{{rabbit, [{{consumer_timeout, {ms}}}, {{channel_tick_interval, 1000}}]}}].");
        Self::with(&terms, "").await
    }

    /// Starts one with these Erlang terms, and these lines after its own configuration.
    async fn with(terms: &str, lines: &str) -> anyhow::Result<Self> {
        let script = Script::new("rabbitmq", "rekindle-broker", SCRIPT_TIME);
        std::fs::create_dir_all(script.dir())?;
        for (file, text) in [("advanced.config", terms), ("extra.conf", lines)] {
            if !text.is_empty() {
                std::fs::write(script.dir().join(file), text)?;
            }
        }
        let url = script.start("AMQP_URL").await?;
        Ok(Self { script, url })
    }

    /// Where it listens, with user and password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The work queue as an operator's command line sees it.
    pub fn queue(&self) -> anyhow::Result<Arc<dyn Queue>> {
        Ok(Arc::new(Rabbit::new(RabbitConfig::new(&self.url))?))
    }

    /// Ends it as a power cut would.
    pub async fn kill9(&self) -> anyhow::Result<()> {
        self.script.run("kill").await.map(|_| ())
    }

    /// Starts it again: same port, same data.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.script.run("restart").await.map(|_| ())
    }

    /// Ends it and starts it again on the same port, without any data.
    pub async fn wipe(&self) -> anyhow::Result<()> {
        self.script.run("wipe").await.map(|_| ())
    }
}

/// A program that this workspace builds, beside the running test.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    // target/<profile>/deps/<test>-<hash>
    let test = std::env::current_exe()?;
    let path = test.ancestors().nth(2).context("the test lies nowhere")?;
    let path = path.join(name);
    ensure!(
        path.is_file(),
        "there is no {}: run cargo build first (tests/run does)",
        path.display()
    );
    Ok(path)
}

/// Worker processes, all with the same settings.
#[derive(Debug)]
pub struct Workers {
    env: Vec<(String, String)>,
    args: Vec<String>,
    logs: tempfile::TempDir,
    running: Vec<WorkerProcess>,
    started: usize,
    in_order: bool,
}

impl Workers {
    /// None yet. `args` is what stands on their command line.
    pub fn new(sandbox: &Sandbox, broker: &Broker, args: &[&str]) -> anyhow::Result<Self> {
        Self::on(sandbox, &[("AMQP_URL", broker.url())], args)
    }

    /// The same on any queue; `queue` are the variables that choose it.
    pub fn on(sandbox: &Sandbox, queue: &[(&str, &str)], args: &[&str]) -> anyhow::Result<Self> {
        let mut env: Vec<(String, String)> = sandbox
            .environment()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        env.extend(
            queue
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into())),
        );
        Ok(Self {
            env,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            logs: tempfile::tempdir()?,
            running: Vec::new(),
            started: 0,
            in_order: false,
        })
    }

    /// Sets or, with `None`, removes a variable of the workers started from now on.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        self.env.retain(|(there, _)| there != name);
        if let Some(value) = value {
            self.env.push((name.into(), value.into()));
        }
        self
    }

    /// Starts one more and gives its process id.
    pub fn spawn(&mut self) -> anyhow::Result<u32> {
        self.started += 1;
        let log = self.logs.path().join(format!("{}.log", self.started));
        let worker = WorkerProcess::start(&self.env, &self.args, log)?;
        let pid = worker.pid;
        self.running.push(worker);
        Ok(pid)
    }

    /// Process ids of those that were not taken away.
    pub fn pids(&self) -> Vec<u32> {
        self.running.iter().map(|worker| worker.pid).collect()
    }

    /// Kills one with signal 9.
    pub async fn kill9(&mut self, pid: u32) -> anyhow::Result<()> {
        let mut worker = self.take(pid)?;
        // It may have ended by itself in this very moment.
        let _ = worker.signal(Signal::SIGKILL);
        worker.ended(Duration::from_secs(30)).await?;
        Ok(())
    }

    /// Sends one a SIGTERM and waits for its end.
    pub async fn terminate(&mut self, pid: u32, within: Duration) -> anyhow::Result<ExitStatus> {
        let mut worker = self.take(pid)?;
        worker.signal(Signal::SIGTERM)?;
        worker.ended(within).await
    }

    /// Freezes one, as a virtual machine that is moved, or a process in a debugger.
    pub fn freeze(&self, pid: u32) -> anyhow::Result<()> {
        self.signal(pid, Signal::SIGSTOP)
    }

    /// Lets a frozen one go on.
    pub fn thaw(&self, pid: u32) -> anyhow::Result<()> {
        self.signal(pid, Signal::SIGCONT)
    }

    fn signal(&self, pid: u32, signal: Signal) -> anyhow::Result<()> {
        let worker = self.running.iter().find(|worker| worker.pid == pid);
        let worker = worker.with_context(|| format!("no worker of ours has pid {pid}"))?;
        worker.signal(signal)
    }

    /// Waits until one ends by itself; its exit status and its log.
    pub async fn ended(
        &mut self,
        pid: u32,
        within: Duration,
    ) -> anyhow::Result<(ExitStatus, String)> {
        let mut worker = self.take(pid)?;
        let status = worker.ended(within).await?;
        Ok((status, worker.log()))
    }

    /// Those that have ended by themselves since the last look.
    pub fn fallen(&mut self) -> anyhow::Result<Vec<ExitStatus>> {
        let mut fallen = Vec::new();
        let mut index = 0;
        while let Some(worker) = self.running.get_mut(index) {
            match worker.child.try_wait()? {
                Some(status) => {
                    fallen.push(status);
                    self.running.remove(index);
                }
                None => index += 1,
            }
        }
        Ok(fallen)
    }

    /// What all of them logged so far, the dead ones too.
    pub fn logs(&self) -> anyhow::Result<String> {
        let mut all = String::new();
        for number in 1..=self.started {
            let log = self.logs.path().join(format!("{number}.log"));
            all.push_str(&String::from_utf8_lossy(&std::fs::read(log)?));
        }
        Ok(all)
    }

    /// Ends all of them with SIGTERM; each has to exit with 0.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for worker in &self.running {
            worker.signal(Signal::SIGTERM)?;
        }
        for mut worker in std::mem::take(&mut self.running) {
            let status = worker.ended(Duration::from_secs(60)).await?;
            ensure!(status.success(), "a worker ended with {status}");
        }
        self.in_order = true;
        Ok(())
    }

    fn take(&mut self, pid: u32) -> anyhow::Result<WorkerProcess> {
        let place = self.running.iter().position(|worker| worker.pid == pid);
        let place = place.with_context(|| format!("no worker of ours has pid {pid}"))?;
        Ok(self.running.remove(place))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if self.in_order {
            return;
        }
        // The last ones are those that were there when it went wrong.
        for number in self.started.saturating_sub(3) + 1..=self.started {
            let log = self.logs.path().join(format!("{number}.log"));
            eprintln!("--- end of the log of worker {number}\n{}", tail(&log));
        }
    }
}

/// One worker. Dropping it kills it.
#[derive(Debug)]
struct WorkerProcess {
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl WorkerProcess {
    fn start(env: &[(String, String)], args: &[String], log: PathBuf) -> anyhow::Result<Self> {
        let worker = program("rekindle-worker")?;
        let file = std::fs::File::create(&log)?;
        // setpriv becomes the worker, which then dies with the thread that started it, should this
        // test be killed. Tests start workers from their own thread, which lives as long as they do.
        let mut command = Command::new("setpriv");
        command
            .args([
                OsStr::new("--pdeathsig"),
                OsStr::new("KILL"),
                OsStr::new("--"),
            ])
            .arg(worker)
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true);
        let child = command.spawn().context("start rekindle-worker")?;
        let pid = child.id().context("it has no process id")?;
        Ok(Self { child, pid, log })
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // Not waited for yet, so the number cannot be somebody else's.
        Ok(kill(Pid::from_raw(self.pid.cast_signed()), signal)?)
    }

    async fn ended(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        match timeout(within, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!(
                "worker {} does not end within {within:?}; its log ends with\n{}",
                self.pid,
                tail(&self.log)
            ),
        }
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// The processes below a process that are not dead, nearest first (proc_pid_stat(5), fields 3 and 4).
pub fn descendants(pid: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let parents: Vec<(u32, u32)> = all
        .filter_map(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let dead = matches!(fields.next()?, "Z" | "X");
            let parent = fields.next()?.parse().ok()?;
            let child = entry.file_name().to_str()?.parse().ok()?;
            (!dead).then_some((child, parent))
        })
        .collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        found.extend(children.map(|(child, _)| *child));
        next += 1;
    }
    found.split_off(1)
}

/// Whether a process runs (a zombie does not).
pub fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|rest| !rest.starts_with(['Z', 'X']))
}

/// Waits until a look gives something. The deadline only ends runs that are broken.
pub async fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "not within {within:?}: {what}");
        sleep(Duration::from_millis(30)).await;
    }
}
