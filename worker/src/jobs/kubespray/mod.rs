//! Kubespray: Kubernetes on every node of the spec, by Ansible in a container on the bastion.
//!
//! The run is detached: it takes an hour or two, and no worker has to live that long. The job puts
//! what it needs there (`runner`, `inventory`), starts it under an id that is on record before, and
//! from then on only watches it (`events`, `log`). That it ended well (`verdict`) is not the proof;
//! what the Kubernetes API says of the nodes is (`nodes`).
//!
//! The SSH key is lent: it goes through the standard input of the runner into the container's
//! memory, and stands in no file, argument, log or record.

#[cfg(test)]
mod ansible_tests;
mod events;
mod inventory;
mod log;
mod nodes;
mod runner;
mod verdict;

use std::collections::BTreeMap;
use std::time::Duration;

use jobs::keys;
use jobs::record::NodeRecord;
use jobs::spec::{Kubernetes, Node, Role};
use russh::keys::ssh_key::LineEnding;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::cluster::Cluster;
use crate::engine::{Again, Ctx, Interrupt, JobError, Patience, Poll, Proof, Proven};
use crate::ssh::{Command, HostExt, Ssh};
use events::Progress;
use inventory::Machine;
use log::Log;
use runner::{HOME, Run, Runner, State};
use verdict::Ended;

/// The step names.
pub const STEPS: &[&str] = &[
    "artifact", "intent", "runner", "image", "inputs", "start", "run", "log", "clean", "ready",
    "prove",
];

/// How often a run that was lost (the bastion was started anew, say) is started again.
const MOST_STARTS: u32 = 3;
/// For how long a URL of the image is good.
const LOAN: Duration = Duration::from_secs(30 * 60);

/// What is chosen before the first command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Intent {
    /// The run's id.
    id: String,
    /// Its number within the recovery: the job's generation, counted from 1. So a job that is put
    /// back, from whatever step, never takes an old run's end for a new one's.
    run: u32,
}

impl Intent {
    /// All files of the run on the bastion.
    fn folder(&self) -> String {
        format!("{HOME}/kubespray/{}", self.id)
    }
}

/// Installs Kubernetes, or brings it to what the spec says, and proves it.
pub async fn run(ctx: &Ctx) -> Result<Proven, JobError> {
    let kubernetes = ctx
        .spec()
        .kubernetes
        .as_ref()
        .ok_or_else(|| JobError::fatal("the spec has no `kubernetes` section"))?;
    let (bastion, nodes) = nodes_of(ctx)?;
    let bastion = Cluster::of(ctx).provisioned(&bastion.name).await?;

    // One run a generation: a job that failed is put back by an operator, and then runs anew.
    let mut attempt = 1;
    loop {
        let (intent, ended) = attempt_run(ctx, kubernetes, &bastion, &nodes, attempt).await?;
        let hosts: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        match verdict::judge(&ended, &hosts) {
            Ok(()) => break,
            Err(_) if ended.generation < ctx.generation() => attempt += 1,
            Err(why) => {
                let log = log_prefix(ctx, &intent);
                return Err(JobError::fatal(format!("{why} (log: {log})")));
            }
        }
    }

    let patience = Patience {
        every: ctx.world().poll.unwrap_or(Duration::from_secs(10)),
        deadline: Duration::from_secs(15 * 60),
    };
    ctx.wait("ready", patience, || async {
        let proof = look(ctx, kubernetes, &nodes).await?;
        Ok::<_, JobError>(match proof.holds {
            true => Poll::Ready(()),
            false => Poll::Pending(nodes::missing(&proof)),
        })
    })
    .await?;
    ctx.prove("nodes", || look(ctx, kubernetes, &nodes)).await
}

/// One run of Ansible from its intent to its end, whatever that is.
async fn attempt_run(
    ctx: &Ctx,
    kubernetes: &Kubernetes,
    bastion: &NodeRecord,
    nodes: &[Node],
    attempt: u32,
) -> Result<(Intent, Ended), JobError> {
    let image = &kubernetes.image;
    let artifact = keys::artifact(image.key());
    ctx.step(("artifact", attempt), || there_is(ctx, &artifact))
        .await?;
    let intent: Intent = ctx
        .step(("intent", attempt), || async {
            let run = ctx.generation() + 1;
            let id = format!("{}-{}-{run}", ctx.recovery(), ctx.job());
            Ok::<_, JobError>(Intent { id, run })
        })
        .await?;
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
        let url = ctx.store().lend(&artifact, LOAN).await?;
        let host = host().await?;
        let runner = Runner {
            host: &host,
            path: &path,
        };
        runner.pull(&image.digest, url.reveal()).await?;
        Ok::<_, JobError>(Poll::Ready(()))
    })
    .await?;
    let digest: String = ctx
        .step(("inputs", attempt), || async {
            upload(ctx, &host().await?, kubernetes, nodes, &intent).await
        })
        .await?;
    let run = Run {
        id: intent.id.clone(),
        image: image.digest.clone(),
        cwd: "/kubespray",
        env: inventory::environment(),
        binds: vec![
            format!("{}/in-{digest}:{}", intent.folder(), inventory::INPUTS),
            format!("{}/out:{}:rw", intent.folder(), inventory::OUTPUTS),
        ],
        argv: inventory::command(),
    };
    ctx.step(("start", attempt), || async {
        let host = host().await?;
        let runner = Runner {
            host: &host,
            path: &path,
        };
        start(ctx, &runner, &run).await
    })
    .await?;

    let log = Log {
        store: ctx.store(),
        prefix: log_prefix(ctx, &intent),
    };
    let ended = watch(ctx, bastion, &path, &run, &intent, &log, attempt).await?;
    ctx.step(("log", attempt), || async {
        let host = host().await?;
        let runner = Runner {
            host: &host,
            path: &path,
        };
        let Some(status) = runner.status(&run.id).await? else {
            return Ok(0);
        };
        let there = status.log;
        let mut carried = log.carried().await?;
        while carried < there.end {
            carried = log.carry(&runner, &run.id, carried, there, true).await?;
        }
        Ok::<_, JobError>(there.end)
    })
    .await?;
    ctx.step(("clean", attempt), || async {
        let folder = intent.folder();
        host().await?.run_ok(&["rm", "-rf", "--", &folder]).await?;
        Ok::<_, JobError>(())
    })
    .await?;
    Ok((intent, ended))
}

/// Looks at the run until it has ended. What it says on the way is carried off: its events into the
/// job's progress, its log into the bucket.
async fn watch(
    ctx: &Ctx,
    bastion: &NodeRecord,
    path: &str,
    run: &Run,
    intent: &Intent,
    log: &Log<'_>,
    attempt: u32,
) -> Result<Ended, JobError> {
    let patience = Patience {
        every: ctx.world().poll.unwrap_or(Duration::from_secs(15)),
        deadline: Duration::from_secs(6 * 60 * 60),
    };
    let events = format!("{}/out/{}", intent.folder(), inventory::EVENTS);
    // Only what saves reading twice in one turn: all of it can be had again.
    let seen: Mutex<(Progress, Option<u64>)> = Mutex::default();
    let watched = ctx
        .wait(("run", attempt), patience, || async {
            // Waiting may outlast the connection.
            let host = ctx.world().ssh(ctx, bastion).await?;
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

/// A cancelled recovery should not go on changing nodes. Nobody is there to try again.
async fn stop(ctx: &Ctx, bastion: &NodeRecord, path: &str, id: &str) {
    let stopped = async {
        let host = ctx.world().ssh(ctx, bastion).await?;
        host.run_ok(&[path, "stop", id]).await?;
        Ok::<_, JobError>(())
    };
    if let Err(error) = stopped.await {
        tracing::warn!(run = id, %error, "could not stop the run: end it with `rekindle-runner stop`");
    }
}

/// The bastion, and the nodes that get Kubernetes, in the order of the spec.
fn nodes_of(ctx: &Ctx) -> Result<(Node, Vec<Node>), JobError> {
    let (mut bastions, nodes): (Vec<Node>, Vec<Node>) = ctx
        .spec()
        .nodes()
        .into_iter()
        .partition(|node| node.role == Role::Bastion);
    let missing = || JobError::fatal("the spec has no bastion to run Kubespray on");
    Ok((bastions.pop().ok_or_else(missing)?, nodes))
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
async fn upload(
    ctx: &Ctx,
    host: &Ssh,
    kubernetes: &Kubernetes,
    nodes: &[Node],
    intent: &Intent,
) -> Result<String, JobError> {
    let cluster = Cluster::of(ctx);
    let mut machines = Vec::new();
    for node in nodes {
        let record = cluster.provisioned(&node.name).await?;
        let node = node.clone();
        machines.push(Machine { node, record });
    }
    let files = inventory::render(kubernetes, &machines).map_err(JobError::fatal)?;
    let digest = inventory::digest(&files);
    let folder = format!("{}/in-{digest}", intent.folder());
    make_folder(host, &folder).await?;
    make_folder(host, &format!("{}/out", intent.folder())).await?;
    for (name, content) in &files {
        host.write_file(&format!("{folder}/{name}"), content, 0o600)
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
    let secrets = BTreeMap::from([(inventory::SSH_KEY, key.as_str())]);
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

/// What the Kubernetes API says of the nodes, asked through the first master that answers.
async fn look(ctx: &Ctx, kubernetes: &Kubernetes, nodes: &[Node]) -> Result<Proof, JobError> {
    let cluster = Cluster::of(ctx);
    let ask = [
        "kubectl",
        "--kubeconfig=/etc/kubernetes/admin.conf",
        "--request-timeout=20s",
        "get",
        "nodes",
        "--output=json",
    ];
    let mut last = JobError::fatal("the spec has no master");
    for master in nodes.iter().filter(|node| node.role == Role::Master) {
        let asked = async {
            let record = cluster.provisioned(&master.name).await?;
            let host = ctx.world().ssh(ctx, &record).await?;
            let answer = host.run_ok(&ask).await?;
            nodes::compare(kubernetes, nodes, &answer.stdout).map_err(JobError::retry)
        };
        match asked.await {
            Ok(proof) => return Ok(proof),
            // A master that may be somebody else is no reason to ask the next one.
            Err(error) if error.again == Again::NeedsApproval => return Err(error),
            Err(error) => last = error.while_doing(format!("ask the API on {}", master.name)),
        }
    }
    Err(last)
}

fn log_prefix(ctx: &Ctx, intent: &Intent) -> String {
    let logs = keys::logs(ctx.cluster(), ctx.recovery(), ctx.job());
    format!("{logs}{}/", intent.run)
}
