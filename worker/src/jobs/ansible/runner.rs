//! `rekindle-runner` on the bastion, as commands over SSH: what we ask, and what its answers mean.
//!
//! It starts nothing twice for one id and keeps what became of it, so every command here can be
//! repeated. It is put there by its digest; what a run began with stays the one it goes on with.

use std::collections::BTreeMap;
use std::time::Duration;

use jobs::record::LeftBehind;
use serde::{Deserialize, Serialize};

use crate::engine::JobError;
use crate::ssh::{Command, Host, HostExt, Output, SshError};

/// Where our things are on the bastion.
pub(super) const HOME: &str = "/var/lib/rekindle";
/// One command's share of a turn: an image that takes longer goes on in the next look.
const PULL_TIMEOUT: Duration = Duration::from_secs(40);

/// The runner knows no such run. That it is not there itself (127, as the shell says) is not that: a
/// run may live without it.
const NO_SUCH_RUN: u32 = 5;

/// The runner on one host.
#[derive(Debug, Clone)]
pub(super) struct Runner<'a, H> {
    pub(super) host: &'a H,
    /// Its program there.
    pub(super) path: &'a str,
}

/// What is run. Two runs are the same when this is; the runner refuses another one under one id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) id: String,
    pub(super) image: String,
    pub(super) cwd: &'static str,
    pub(super) env: BTreeMap<&'static str, String>,
    /// `SRC:DST` or `SRC:DST:rw`.
    pub(super) binds: Vec<String>,
    pub(super) argv: Vec<String>,
}

/// What the runner knows of a run. Fields that we do not look at are left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Status {
    pub(super) state: State,
    pub(super) attempt: u32,
    #[serde(default)]
    pub(super) exit: Option<Exit>,
    pub(super) log: LogRange,
    #[serde(default)]
    pub(super) reason: Option<String>,
}

/// What the runner knows of all its runs.
#[derive(Debug, Deserialize)]
struct List {
    runs: Vec<Listed>,
    damaged: Vec<Damaged>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    id: String,
    state: State,
}

#[derive(Debug, Deserialize)]
struct Damaged {
    id: String,
    error: String,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// Being started.
    Starting,
    /// Running.
    Running,
    /// Ended, and known how.
    Exited,
    /// Gone without a word, as after a reboot.
    Lost,
}

/// How a run ended: one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Exit {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signal: Option<i32>,
}

/// Which bytes of the log there are. What is before `begin` was thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct LogRange {
    #[serde(alias = "oldest")]
    pub(super) begin: u64,
    pub(super) end: u64,
}

impl<H: Host> Runner<'_, H> {
    /// Brings an image there, or finds it. `url` is a secret: it goes through the standard input.
    pub(super) async fn pull(&self, digest: &str, url: &str) -> Result<(), JobError> {
        let argv = ["image", "pull", "--digest", digest, "--url-file", "-"];
        let argv: Vec<String> = argv.map(str::to_owned).into();
        let command = self
            .command(argv)
            .stdin(url.as_bytes().to_vec())
            .timeout(PULL_TIMEOUT);
        self.execute(command).await.map(|_| ())
    }

    /// Brings files into a folder there, or finds them. `order` holds presigned URLs: it goes through the standard
    /// input.
    pub(super) async fn fetch(&self, into: &str, order: String) -> Result<(), JobError> {
        let argv = ["fetch", "--into", into].map(str::to_owned);
        let command = self
            .command(argv.into())
            .stdin(order.into_bytes())
            .timeout(PULL_TIMEOUT);
        self.execute(command).await.map(|_| ())
    }

    /// Starts a run, or finds the one of this id. `secrets` go through the standard input into the
    /// container's memory.
    pub(super) async fn start(
        &self,
        run: &Run,
        secrets: &BTreeMap<&str, &str>,
    ) -> Result<(), JobError> {
        let stdin = serde_json::to_vec(secrets).map_err(JobError::fatal)?;
        let command = self.command(run.argv()).stdin(stdin);
        self.execute(command).await.map(|_| ())
    }

    /// How a run is; nothing when the host does not know it: it is another one than before, say.
    pub(super) async fn status(&self, id: &str) -> Result<Option<Status>, JobError> {
        let argv = ["status", id, "--output", "json"].map(str::to_owned);
        let command = self.command(argv.into()).label("rekindle-runner status");
        let output = match self.host.execute_ok(&command).await {
            Ok(output) => output,
            Err(SshError::Failed { status, .. }) if status == NO_SUCH_RUN => return Ok(None),
            Err(error) => return Err(judge(error)),
        };
        serde_json::from_slice(&output.stdout)
            .map(Some)
            .map_err(|e| {
                let text: String = output.text().chars().take(200).collect();
                JobError::retry(e).while_doing(format!("read the status of run {id}, `{text}`"))
            })
    }

    /// The runs that are being started or run.
    ///
    /// # Errors
    /// Also when the runner cannot tell of one: it may run.
    pub(super) async fn live(&self) -> Result<Vec<String>, JobError> {
        let argv = ["list", "--output", "json"].map(str::to_owned);
        let output = self.execute(self.command(argv.into())).await?;
        let list: List = serde_json::from_slice(&output.stdout).map_err(|e| {
            let text: String = output.text().chars().take(200).collect();
            JobError::retry(e).while_doing(format!("read the list of runs, `{text}`"))
        })?;
        if let Some(Damaged { id, error }) = list.damaged.first() {
            return Err(JobError::fatal(format!(
                "the bastion's run {id} is damaged, and may run: {error}; see that it does not, move its folder away, then `rekindle retry`"
            )));
        }
        let live = |run: &Listed| matches!(run.state, State::Starting | State::Running);
        let runs = list.runs.into_iter().filter(live);
        Ok(runs.map(|run| run.id).collect())
    }

    /// Ends a run. Nothing when it has ended, or is not known any more.
    pub(super) async fn stop(&self, id: &str) -> Result<(), JobError> {
        let command = self.command(["stop", id].map(str::to_owned).into());
        let command = command.label("rekindle-runner stop");
        match self.host.execute_ok(&command).await {
            Err(SshError::Failed { status, .. }) if status == NO_SUCH_RUN => Ok(()),
            ended => ended.map(|_| ()).map_err(judge),
        }
    }

    /// Some of a run's log: these bytes, or an error.
    pub(super) async fn logs(&self, id: &str, from: u64, limit: u64) -> Result<Vec<u8>, JobError> {
        let (from, limit) = (from.to_string(), limit.to_string());
        let argv = ["logs", id, "--exact", "--from", &from, "--limit", &limit].map(str::to_owned);
        Ok(self.execute(self.command(argv.into())).await?.stdout)
    }

    fn command(&self, argv: Vec<String>) -> Command {
        let words = std::iter::once(self.path.to_owned()).chain(argv);
        Command {
            argv: words.collect(),
            ..Command::new(&[])
        }
    }

    async fn execute(&self, command: Command) -> Result<Output, JobError> {
        let verb = command.argv.get(1).cloned().unwrap_or_default();
        let command = command.label(format!("rekindle-runner {verb}"));
        self.host.execute_ok(&command).await.map_err(judge)
    }
}

/// The runner's exit codes: 2 is our mistake, 4 is "not what was asked for", 5 is "no such image";
/// trying again helps against none of them.
fn judge(error: SshError) -> JobError {
    match &error {
        SshError::Failed {
            status: 2 | 4 | 5, ..
        } => JobError::fatal(error).leaves(LeftBehind::Resources),
        _ => error.into(),
    }
}

impl Run {
    fn argv(&self) -> Vec<String> {
        let mut argv: Vec<String> = ["run", "--id", &self.id, "--detach", "--image", &self.image]
            .map(str::to_owned)
            .into();
        argv.extend(["--cwd".to_owned(), self.cwd.to_owned()]);
        for (name, value) in &self.env {
            argv.extend(["--env".to_owned(), format!("{name}={value}")]);
        }
        for bind in &self.binds {
            argv.extend(["--bind".to_owned(), bind.clone()]);
        }
        argv.extend(["--secrets-stdin".to_owned(), "--".to_owned()]);
        argv.extend(self.argv.iter().cloned());
        argv
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => f.write_str("no exit code"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::engine::Again;
    use crate::ssh::scripted::{Scripted, prints};

    /// As `rekindle-runner status ID --output json` prints it.
    const EXITED: &str = r#"{
        "id": "r-1-kubespray-1", "attempt": 2, "state": "exited", "exit": {"code": 3},
        "stopped": false, "reason": null, "rootfs": {"image": "sha256:00"}, "argv": ["/bin/sh"],
        "started_at": 1795388114, "ended_at": 1795388114, "log_from": 0, "notes": ["a note"],
        "exit_code": 3, "log": {"oldest": 5, "end": 8}, "former": []
    }"#;

    fn run() -> Run {
        Run {
            id: "r-1-kubespray-1".into(),
            image: "sha256:00".into(),
            cwd: "/kubespray",
            env: BTreeMap::from([("A", "b c".to_owned())]),
            binds: vec!["/x:/y:rw".into()],
            argv: vec!["ansible-playbook".into(), "cluster.yml".into()],
        }
    }

    fn exits(status: u32) -> Scripted {
        Scripted::new(move |_, _| {
            Ok(Output {
                status,
                stderr: b"error: no".to_vec(),
                ..Output::default()
            })
        })
    }

    #[tokio::test]
    async fn a_status_is_read_and_an_unknown_run_is_none() {
        let host = Scripted::new(|_, _| prints(EXITED));
        let path = "/bin/rekindle-runner";
        let status = Runner { host: &host, path }.status("r").await.unwrap();
        let exit = Exit {
            code: Some(3),
            signal: None,
        };
        let log = LogRange { begin: 5, end: 8 };
        let want = Status {
            state: State::Exited,
            attempt: 2,
            exit: Some(exit),
            log,
            reason: None,
        };
        assert_eq!(status, Some(want));
        assert_eq!(
            host.lines(),
            ["/bin/rekindle-runner status r --output json"]
        );
        let host = exits(NO_SUCH_RUN);
        let status = Runner { host: &host, path }.status("r").await.unwrap();
        assert_eq!(status, None);
        // The program is gone, and the run may live.
        let host = exits(127);
        let status = Runner { host: &host, path }.status("r").await;
        assert_eq!(status.unwrap_err().again, Again::Retry { after: None });
        // What is no answer is not "unknown", and nothing of it is taken for one.
        for bad in [
            "",
            "{}",
            r#"{"state": "asleep", "attempt": 1, "log": {"begin": 0, "end": 0}}"#,
        ] {
            let host = Scripted::new(move |_, _| prints(bad));
            let error = Runner { host: &host, path }.status("r").await.unwrap_err();
            assert_eq!(error.again, Again::Retry { after: None });
        }
    }

    #[tokio::test]
    async fn what_may_run_counts_as_running() {
        let path = "/bin/rekindle-runner";
        let host = Scripted::new(|_, _| {
            prints(
                r#"{"runs": [{"id": "a", "state": "starting", "more": 1}, {"id": "b", "state": "exited"},
                    {"id": "c", "state": "running"}, {"id": "d", "state": "lost"}], "damaged": []}"#,
            )
        });
        let live = Runner { host: &host, path }.live().await.unwrap();
        assert_eq!(live, ["a", "c"]);
        let damaged = r#"{"runs": [], "damaged": [{"id": "a", "error": "no spec"}]}"#;
        for (said, again) in [
            (damaged, Again::Fatal),
            ("{}", Again::Retry { after: None }),
            ("", Again::Retry { after: None }),
        ] {
            let host = Scripted::new(move |_, _| prints(said));
            let error = Runner { host: &host, path }.live().await.unwrap_err();
            assert_eq!(error.again, again, "{said}");
        }
        for (status, ended) in [(0, true), (NO_SUCH_RUN, true), (1, false), (127, false)] {
            let host = exits(status);
            let stopped = Runner { host: &host, path }.stop("a").await;
            assert_eq!(stopped.is_ok(), ended, "{status}");
        }
    }

    #[tokio::test]
    async fn the_key_and_the_url_go_through_the_standard_input_only() {
        let host = Scripted::new(|command, _| {
            let stdin = String::from_utf8_lossy(&command.stdin.0).into_owned();
            assert!(!format!("{command:?}").contains("hunter2"), "{command:?}");
            assert!(stdin.contains("hunter2"), "{stdin}");
            prints("")
        });
        let runner = Runner {
            host: &host,
            path: "/bin/rekindle-runner",
        };
        let secrets = BTreeMap::from([("ssh_key", "hunter2\n")]);
        runner.start(&run(), &secrets).await.unwrap();
        runner
            .pull("sha256:00", "https://s3/x?hunter2")
            .await
            .unwrap();
        let order = r#"{"files": [{"url": "https://s3/x?hunter2"}]}"#;
        runner.fetch("/x", order.into()).await.unwrap();
        assert_eq!(
            host.lines(),
            [
                "/bin/rekindle-runner run --id r-1-kubespray-1 --detach --image sha256:00 --cwd /kubespray --env A=b c --bind /x:/y:rw --secrets-stdin -- ansible-playbook cluster.yml",
                "/bin/rekindle-runner image pull --digest sha256:00 --url-file -",
                "/bin/rekindle-runner fetch --into /x",
            ]
        );
    }

    #[tokio::test]
    async fn what_trying_again_cannot_mend_ends_the_job() {
        for (status, fatal) in [
            (1, false),
            (2, true),
            (3, false),
            (4, true),
            (5, true),
            (125, false),
        ] {
            let host = exits(status);
            let runner = Runner {
                host: &host,
                path: "/bin/rekindle-runner",
            };
            let error = runner.start(&run(), &BTreeMap::new()).await.unwrap_err();
            assert_eq!(error.again == Again::Fatal, fatal, "{status}");
            assert!(error.to_string().contains("rekindle-runner run"), "{error}");
        }
    }
}
