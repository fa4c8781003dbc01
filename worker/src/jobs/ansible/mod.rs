//! A run of Ansible in a container on the bastion, from its intent to its end.
//!
//! The run is detached: it may take an hour or two, and no worker has to live that long. A job says
//! what is to be played ([`Work`]); here it is put there (`runner`, `inputs`), started under an id that is
//! on record before, and from then on only watched (`events`, `log`). That it ended well (`verdict`)
//! is not the job's proof.
//!
//! The SSH key is lent: it goes through the standard input of the runner into the container's
//! memory, and stands in no file, argument, log or record.

mod events;
pub(super) mod inputs;
mod large;
mod log;
mod runner;
#[cfg(test)]
pub(super) mod stage;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeMap;
use std::time::Duration;

use jobs::keys;
use jobs::record::NodeRecord;
use jobs::spec::{Node, Role, ToolImage};
use russh::keys::ssh_key::LineEnding;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::cluster::Cluster;
use crate::engine::{Again, Ctx, Interrupt, JobError, Patience, Poll};
use crate::ssh::quote::command_line;
use crate::ssh::{Command, HostExt, Ssh};
use events::Progress;
use inputs::Machine;
use log::Log;
use runner::{HOME, Run, Runner, State};
use verdict::Ended;

pub(super) use inputs::Files;
pub(super) use large::{Large, bring};

/// How often a run that was lost (the bastion was started anew, say) is started again.
const MOST_STARTS: u32 = 3;
/// How long a run takes at most that works on all hosts at once.
pub(super) const DEADLINE: Duration = Duration::from_secs(6 * 60 * 60);
/// For how long a URL of the image is good.
const LOAN: Duration = Duration::from_secs(30 * 60);

/// What a run is to do. Made anew in every turn, always the same.
#[derive(Debug, Clone)]
pub(super) struct Work<'a> {
    /// The image with Ansible in it.
    pub(super) image: &'a ToolImage,
    /// Where in the image the commands run.
    pub(super) cwd: &'static str,
    /// The commands, one after the other in one container; the first that fails is the last one. Of
    /// each `ansible-playbook` the recap replaces the one before.
    pub(super) commands: Vec<Vec<String>>,
    /// The hosts that must be in the recap.
    pub(super) hosts: Vec<&'a str>,
    /// How long it may take: watched no longer, it would go on beside the next one.
    pub(super) deadline: Duration,
    /// What more the container has of the bastion's file system, `SRC:DST`.
    pub(super) binds: Vec<String>,
}

/// What is chosen before the first command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Intent {
    /// The run's id.
    id: String,
    /// Its number within the recovery: the job's generation, counted from 1. So a job that is put
    /// back, from whatever step, never takes an old run's end for a new one's.
    run: u32,
}

/// Runs it, once a generation: a job that failed is put back by an operator, and then runs anew. Uses the
/// steps `artifact`, `intent`, `runner`, `image`, `inputs`, `alone`, `start`, `run`, `log` and `clean`.
///
/// `files` are what it is given, made when they are needed.
///
/// # Errors
/// When it did not end well on every host: with the host, the task and the message that say why.
pub(super) async fn run<F, Fut>(ctx: &Ctx, work: &Work<'_>, files: F) -> Result<(), JobError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<Files, JobError>>,
{
    let bastion = bastion_of(ctx)?;
    let bastion = Cluster::of(ctx).provisioned(&bastion.name).await?;
    let mut attempt = 1;
    loop {
        let (intent, ended) = attempt_run(ctx, work, &files, &bastion, attempt).await?;
        match verdict::judge(&ended, &work.hosts) {
            Ok(()) => return Ok(()),
            Err(_) if ended.generation < ctx.generation() => attempt += 1,
            Err(why) => {
                let log = log_prefix(ctx, &intent);
                return Err(JobError::fatal(format!("{why} (log: {log})")));
            }
        }
    }
}

/// Nodes with what earlier jobs wrote down of them.
pub(super) async fn machines(ctx: &Ctx, nodes: &[Node]) -> Result<Vec<Machine>, JobError> {
    let cluster = Cluster::of(ctx);
    let mut machines = Vec::new();
    for node in nodes {
        let record = cluster.provisioned(&node.name).await?;
        let node = node.clone();
        machines.push(Machine { node, record });
    }
    Ok(machines)
}

/// One run from its intent to its end, whatever that is.
async fn attempt_run<F, Fut>(
    ctx: &Ctx,
    work: &Work<'_>,
    files: &F,
    bastion: &NodeRecord,
    attempt: u32,
) -> Result<(Intent, Ended), JobError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<Files, JobError>>,
{
    let image = work.image;
    let artifact = keys::artifact(image.key());
    ctx.step(("artifact", attempt), || there_is(ctx, &artifact))
        .await?;
    let intent: Intent = ctx
        .step(("intent", attempt), || async {
            let run = ctx.generation() + 1;
            let job = ctx.job().as_str().replace('/', "-");
            let id = format!("{}-{job}-{run}", ctx.recovery());
            Ok::<_, JobError>(Intent { id, run })
        })
        .await?;
    let folder = folder(ctx, &intent);
    let host = || ctx.world().ssh(ctx, bastion);
    let path: String = ctx
        .step(("runner", attempt), || async {
            install(ctx, &host().await?).await
        })
        .await?;
    let patience = Patience {
        every: ctx.world().poll.unwrap_or(Duration::from_secs(5)),
        deadline: Duration::from_secs(60 * 60),
    };
    ctx.wait(("image", attempt), patience, || async {
        let host = host().await?;
        let runner = Runner {
            host: &host,
            path: &path,
        };
        pull(ctx, &runner, image).await?;
        Ok::<_, JobError>(Poll::Ready(()))
    })
    .await?;
    let digest: String = ctx
        .step(("inputs", attempt), || async {
            upload(&host().await?, &folder, &files().await?).await
        })
        .await?;
    let mut binds = vec![
        format!("{folder}/in-{digest}:{}", inputs::INPUTS),
        format!("{folder}/out:{}:rw", inputs::OUTPUTS),
    ];
    binds.extend(work.binds.iter().cloned());
    let run = Run {
        id: intent.id.clone(),
        image: image.digest.clone(),
        cwd: work.cwd,
        env: inputs::environment(),
        binds,
        argv: argv(&work.commands),
    };
    let patience = Patience {
        every: ctx.world().poll.unwrap_or(Duration::from_secs(15)),
        deadline: work.deadline,
    };
    ctx.wait(("alone", attempt), patience, || async {
        let host = host().await?;
        let path = program(ctx, &host, &path).await?;
        let runner = Runner {
            host: &host,
            path: &path,
        };
        make_way(ctx, &runner, &run.id).await
    })
    .await?;
    ctx.step(("start", attempt), || async {
        let host = host().await?;
        let path = program(ctx, &host, &path).await?;
        let runner = Runner {
            host: &host,
            path: &path,
        };
        // Another job of this recovery may have been as quick as we.
        match make_way(ctx, &runner, &run.id).await? {
            Poll::Ready(()) => start(ctx, &runner, &run).await,
            Poll::Pending(why) => Err(JobError::retry(why)),
        }
    })
    .await?;

    let log = Log {
        store: ctx.store(),
        prefix: log_prefix(ctx, &intent),
    };
    let started = Started {
        bastion,
        path: &path,
        run: &run,
        folder: &folder,
        log: &log,
        image,
        deadline: work.deadline,
    };
    let ended = watch(ctx, &started, attempt).await?;
    ctx.step(("log", attempt), || async {
        let host = host().await?;
        let path = program(ctx, &host, &path).await?;
        let runner = Runner {
            host: &host,
            path: &path,
        };
        let Some(status) = runner.status(&run.id).await? else {
            return Ok(0);
        };
        let there = status.log;
        let mut carried = log.carried().await?;
        loop {
            let before = carried;
            carried = log.carry(&runner, &run.id, carried, there, true).await?;
            // What the runner has thrown away will never come.
            if carried == before {
                break;
            }
        }
        Ok::<_, JobError>(there.end)
    })
    .await?;
    ctx.step(("clean", attempt), || async {
        host().await?.run_ok(&["rm", "-rf", "--", &folder]).await?;
        Ok::<_, JobError>(())
    })
    .await?;
    Ok((intent, ended))
}

/// A run that was started, and where.
#[derive(Debug, Clone, Copy)]
struct Started<'a> {
    bastion: &'a NodeRecord,
    /// The runner's program.
    path: &'a str,
    run: &'a Run,
    folder: &'a str,
    log: &'a Log<'a>,
    image: &'a ToolImage,
    deadline: Duration,
}

/// Looks at the run until it has ended. What it says on the way is carried off: its events into the
/// job's progress, its log into the bucket.
async fn watch(ctx: &Ctx, started: &Started<'_>, attempt: u32) -> Result<Ended, JobError> {
    let Started {
        bastion,
        path,
        run,
        folder,
        log,
        image,
        deadline,
    } = *started;
    let patience = Patience {
        every: ctx.world().poll.unwrap_or(Duration::from_secs(15)),
        deadline,
    };
    let events = format!("{folder}/out/{}", inputs::EVENTS);
    // Only what saves reading twice in one turn: all of it can be had again.
    let seen: Mutex<(Progress, Option<u64>)> = Mutex::default();
    let watched = ctx
        .wait(("run", attempt), patience, || async {
            // Waiting may outlast the connection.
            let host = ctx.world().ssh(ctx, bastion).await?;
            let path = &program(ctx, &host, path).await?;
            let runner = Runner { host: &host, path };
            let Some(status) = runner.status(&run.id).await? else {
                let lost = "the bastion does not know it any more";
                return Ok(Poll::Ready(Ended::unknown(lost, ctx.generation())));
            };
            let mut seen = seen.lock().await;
            let (progress, carried) = &mut *seen;
            let so_far = match *carried {
                Some(so_far) => so_far,
                None => log.carried().await?,
            };
            *carried = Some(
                log.carry(&runner, &run.id, so_far, status.log, false)
                    .await?,
            );
            read_events(&host, &events, progress).await?;
            let ended = |lost| Ended {
                exit: status.exit,
                lost,
                recap: progress.recap.clone(),
                troubles: progress.troubles.clone(),
                log_end: status.log.end,
                generation: ctx.generation(),
            };
            let reason = || status.reason.clone().unwrap_or_else(|| "no reason".into());
            Ok::<_, JobError>(match status.state {
                State::Exited => Poll::Ready(ended(None)),
                State::Lost if status.attempt >= MOST_STARTS => {
                    let starts = status.attempt;
                    Poll::Ready(ended(Some(format!("{starts} times: {}", reason()))))
                }
                State::Lost => {
                    // Nothing held the image meanwhile.
                    pull(ctx, &runner, image).await?;
                    start(ctx, &runner, run).await?;
                    Poll::Pending(format!("lost, and started again: {}", reason()))
                }
                State::Starting => Poll::Pending("the container is being started".into()),
                State::Running => Poll::Pending(progress.text()),
            })
        })
        .await;
    if let Err(error) = &watched
        && error.again == Again::Interrupted(Interrupt::Cancelled)
    {
        stop(ctx, bastion, path, &run.id).await;
    }
    watched
}

/// No two runs change the nodes at once. A run that nobody watches any more, of another recovery or of
/// what this job was before it was put back, is ended; for one of another job of this recovery we wait.
async fn make_way(ctx: &Ctx, runner: &Runner<'_, Ssh>, ours: &str) -> Result<Poll<()>, JobError> {
    let this = format!("{}-", ctx.recovery());
    let job = ctx.job().as_str().replace('/', "-");
    // An id ends with the run's number.
    let former = |id: &str| {
        let number = id.strip_prefix(&format!("{this}{job}-"));
        number.is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut others = runner.live().await?;
    others.retain(|id| id != ours);
    let Some(other) = others.first() else {
        return Ok(Poll::Ready(()));
    };
    if other.starts_with(&this) && !former(other) {
        return Ok(Poll::Pending(format!("waits for the end of run {other}")));
    }
    tracing::warn!(run = other, "nobody watches this run any more: ending it");
    runner.stop(other).await?;
    Ok(Poll::Pending(format!(
        "has ended run {other}, which nobody watched"
    )))
}

/// The runner's program on the bastion: the one that the run began with, or ours where that is gone.
async fn program(ctx: &Ctx, host: &Ssh, path: &str) -> Result<String, JobError> {
    match host.run(&["test", "-x", path]).await?.success() {
        true => Ok(path.to_owned()),
        false => install(ctx, host).await,
    }
}

/// Brings the image there, or finds it.
async fn pull(ctx: &Ctx, runner: &Runner<'_, Ssh>, image: &ToolImage) -> Result<(), JobError> {
    let url = ctx.store().lend(&keys::artifact(image.key()), LOAN).await?;
    runner.pull(&image.digest, url.reveal()).await
}

/// A cancelled recovery should not go on changing nodes. Nobody is there to try again; the next run
/// ends what we cannot.
async fn stop(ctx: &Ctx, bastion: &NodeRecord, path: &str, id: &str) {
    let stopped = async {
        let host = ctx.world().ssh(ctx, bastion).await?;
        Runner { host: &host, path }.stop(id).await
    };
    if let Err(error) = stopped.await {
        tracing::warn!(run = id, %error, "could not stop the run: end it with `rekindle-runner stop`");
    }
}

/// Where Ansible runs.
fn bastion_of(ctx: &Ctx) -> Result<Node, JobError> {
    let mut nodes = ctx.spec().nodes();
    nodes.retain(|node| node.role == Role::Bastion);
    let missing = || JobError::fatal("the spec has no bastion to run Ansible on");
    nodes.pop().ok_or_else(missing)
}

/// One command as it is, several as a script that ends with the first one that fails.
fn argv(commands: &[Vec<String>]) -> Vec<String> {
    if let [command] = commands {
        return command.clone();
    }
    let lines = commands
        .iter()
        .map(|words| command_line(words.iter().map(String::as_str)));
    let script = lines.collect::<Vec<_>>().join("\n");
    vec!["sh".into(), "-ec".into(), script]
}

/// People put the image into the bucket; without it nothing of this makes sense.
async fn there_is(ctx: &Ctx, artifact: &str) -> Result<(), JobError> {
    let keys = ctx.store().list(artifact, None).await?;
    match keys.iter().any(|key| key == artifact) {
        true => Ok(()),
        false => Err(JobError::fatal(format!(
            "the bucket has no `{artifact}`: put the image there, then `rekindle retry`"
        ))),
    }
}

/// Puts the runner's program on the bastion, under its digest.
async fn install(ctx: &Ctx, host: &Ssh) -> Result<String, JobError> {
    let file = ctx.world().runner()?;
    let program = tokio::fs::read(&file).await.map_err(|e| {
        let doing = format!("read {} (REKINDLE_RUNNER says where it is)", file.display());
        JobError::fatal(e).while_doing(doing)
    })?;
    let digest = jobs::digest(&program);
    let folder = format!("{HOME}/bin/{digest}");
    let path = format!("{folder}/rekindle-runner");
    let there = host.run(&["sha256sum", &path]).await?;
    if !there.success() || !there.text().starts_with(&digest) {
        make_folder(host, &folder).await?;
        host.write_file(&path, &program, 0o755).await?;
    }
    Ok(path)
}

/// Writes what Ansible is given; gives the digest that its folder is named by.
async fn upload(host: &Ssh, folder: &str, files: &Files) -> Result<String, JobError> {
    let digest = inputs::digest(files);
    let inputs = format!("{folder}/in-{digest}");
    make_folder(host, &inputs).await?;
    make_folder(host, &format!("{folder}/out")).await?;
    for (name, content) in files {
        host.write_file(&format!("{inputs}/{name}"), content, 0o600)
            .await?;
    }
    Ok(digest)
}

/// A folder that only we can look into.
async fn make_folder(host: &Ssh, path: &str) -> Result<(), JobError> {
    let script = r#"umask 077 && mkdir -p -- "$1""#;
    let command = Command::new(&["sh", "-c", script, "sh", path]);
    host.execute_ok(&command.label(format!("make {path}")))
        .await?;
    Ok(())
}

/// Starts the run or finds it; either way it gets our key only now.
async fn start(ctx: &Ctx, runner: &Runner<'_, Ssh>, run: &Run) -> Result<(), JobError> {
    let key = ctx.world().ssh_key()?;
    let key = key.to_openssh(LineEnding::LF).map_err(JobError::fatal)?;
    let secrets = BTreeMap::from([(inputs::SSH_KEY, key.as_str())]);
    runner.start(run, &secrets).await
}

/// Reads on in the events. The file is there once Ansible has begun.
async fn read_events(host: &Ssh, path: &str, progress: &mut Progress) -> Result<(), JobError> {
    let from = format!("+{}", progress.offset + 1);
    let there = host.run(&["tail", "-c", &from, "--", path]).await?;
    if there.success() {
        progress.read(&there.stdout);
    }
    Ok(())
}

/// All files of the run on the bastion, below the name of the job's kind.
fn folder(ctx: &Ctx, intent: &Intent) -> String {
    let kind = ctx.job().as_str().split('/').next().unwrap_or_default();
    format!("{HOME}/{kind}/{}", intent.id)
}

fn log_prefix(ctx: &Ctx, intent: &Intent) -> String {
    let logs = keys::logs(ctx.cluster(), ctx.recovery(), ctx.job());
    format!("{logs}{}/", intent.run)
}
