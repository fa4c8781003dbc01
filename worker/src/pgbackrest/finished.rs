//! Whether the restore of a new cluster is finished, from the objects alone.
//!
//! No object says it by itself. `ready` counts Pods and is true of an empty database; the restore object
//! mirrors a Job that only copies files and replays; there is no error state: a failed restore is
//! `initializing` for ever. So all of them are asked, and they must agree.

use super::seen::{
    self, Cluster, ClusterStatus, Condition, Container, Inner, Job, Malformed, Pod, Restore,
    RestoreStatus, Seen, bootstrap_id, condition,
};

/// The objects, each read just now.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// PerconaPGCluster `<cluster>`.
    pub cluster: Seen,
    /// PostgresCluster `<cluster>`: its conditions are fresh, those of the one above are not.
    pub inner: Seen,
    /// PerconaPGRestore `<cluster>-bootstrap`.
    pub restore: Seen,
    /// Job `<cluster>-pgbackrest-restore`.
    pub job: Seen,
    /// The Pods of that Job and of the database.
    pub pods: Vec<serde_json::Value>,
}

/// How a restore stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restoring {
    /// Not finished. `initializing` for ever looks like this: the caller has a deadline.
    Running {
        /// How far it is.
        progress: String,
        /// What keeps it from going on, if something does that may pass.
        trouble: Option<String>,
    },
    /// Everything agrees. That the data are the right ones is for the caller to prove.
    Finished,
    /// It will not finish by itself.
    Failed {
        /// Why.
        reason: String,
    },
    /// The objects say things that cannot be true together: above all, a ready database without a restore.
    Contradiction {
        /// Which.
        what: String,
    },
}

/// Restarts after which a container that keeps dying is not going to stop it.
const MOST_RESTARTS: u32 = 3;

/// Reasons for waiting that a registry or a node may get over.
const MAY_PASS: [&str; 5] = [
    "ImagePullBackOff",
    "ErrImagePull",
    "CreateContainerError",
    "CreateContainerConfigError",
    "RunContainerError",
];

/// Judges the restore of the cluster called `name`.
///
/// # Errors
/// When an object is not what it should be.
pub fn judge(name: &str, objects: &Objects) -> Result<Restoring, Malformed> {
    let cluster: Option<Cluster> = seen::read("PerconaPGCluster", &objects.cluster)?;
    let inner: Option<Inner> = seen::read("PostgresCluster", &objects.inner)?;
    let restore: Option<Restore> = seen::read("PerconaPGRestore", &objects.restore)?;
    let job: Option<Job> = seen::read("Job", &objects.job)?;
    let pods: Vec<Pod> = objects
        .pods
        .iter()
        .map(|pod| seen::read("Pod", &Some(pod.clone())).map(Option::unwrap_or_default))
        .collect::<Result<_, _>>()?;

    if let (Some(restore), Some(cluster)) = (&restore, &cluster)
        && restore.metadata.creation_timestamp < cluster.metadata.creation_timestamp
    {
        let what = format!(
            "PerconaPGRestore {name}-bootstrap is older than the cluster: it tells of an earlier one, and \
             the operator makes no other while it is there"
        );
        return Ok(Restoring::Contradiction { what });
    }
    let state = restore
        .map(|restore| restore.status.state)
        .unwrap_or_default();
    if let Some(reason) = failed(&state, inner.as_ref(), job.as_ref(), &pods) {
        return Ok(Restoring::Failed { reason });
    }
    let Some(cluster) = cluster else {
        return Ok(running("the cluster does not exist yet", &pods));
    };
    let id = bootstrap_id(name);
    let ready = is_ready(&cluster.status);
    let files = files_restored(&cluster.status, &id);
    if let Some(other) = other_restore(&cluster.status, &id) {
        let what = format!("the cluster's last restore is `{other}`, not `{id}`");
        return Ok(Restoring::Contradiction { what });
    }
    if ready && state != "Succeeded" && state != "Running" {
        let state = if state.is_empty() {
            "not begun"
        } else {
            &state
        };
        let what = format!(
            "the database is ready, and its restore is {state}: it may be a new, empty one"
        );
        return Ok(Restoring::Contradiction { what });
    }
    let initialized = inner
        .as_ref()
        .and_then(|inner| condition(&inner.status.conditions, "PostgresDataInitialized"));
    let missing = [
        (state == "Succeeded", restore_progress(&state, job.as_ref())),
        (files, "the operator has not recorded the restore".into()),
        (
            initialized.is_some_and(Condition::is_true),
            "the data are not initialized".into(),
        ),
        (ready, database_progress(&cluster.status)),
        // `ready` says nothing of it: a database whose repository could not be made archives nowhere, in silence.
        (
            inner
                .as_ref()
                .and_then(|inner| condition(&inner.status.conditions, "PGBackRestReplicaRepoReady"))
                .is_some_and(Condition::is_true),
            "the database is ready, and its new repository is not".into(),
        ),
    ];
    Ok(match missing.into_iter().find(|(there, _)| !there) {
        Some((_, progress)) => running(&progress, &pods),
        None => Restoring::Finished,
    })
}

/// A reason why it will not finish.
fn failed(state: &str, inner: Option<&Inner>, job: Option<&Job>, pods: &[Pod]) -> Option<String> {
    let died = || pods.iter().find_map(last_words);
    let with = |reason: String| match died() {
        Some(words) => format!("{reason}; {words}"),
        None => reason,
    };
    let conditions = inner.map(|inner| inner.status.conditions.as_slice());
    let initialized = condition(conditions.unwrap_or_default(), "PostgresDataInitialized");
    if let Some(gone) = initialized.filter(|c| c.reason == "PGBackRestRestoreFailed") {
        return Some(with(format!("the restore failed ({})", gone.why())));
    }
    let over = job.and_then(|job| condition(&job.status.conditions, "Failed"));
    if let Some(over) = over.filter(|over| over.is_true()) {
        return Some(with(format!("the restore's Job failed ({})", over.why())));
    }
    if state == "Failed" {
        return Some(with("the operator says that the restore failed".into()));
    }
    pods.iter()
        .find_map(|pod| crash_loop(pod).or_else(|| tainted_out(pod)))
}

/// A container that dies each time it is started.
fn crash_loop(pod: &Pod) -> Option<String> {
    let looping = |container: &&Container| {
        let waits = container.state.waiting.as_ref();
        waits.is_some_and(|w| w.reason == "CrashLoopBackOff")
            && container.restart_count >= MOST_RESTARTS
    };
    let container = containers(pod).find(looping)?;
    let words = last_words(pod).unwrap_or_else(|| "it left no message".into());
    Some(format!(
        "container {} of Pod {} was started {} times and dies each time; {words}",
        container.name, pod.metadata.name, container.restart_count
    ))
}

/// A Pod that no node takes because of a taint that somebody set. Those of Kubernetes itself, such as a node
/// that is not ready, come and go.
fn tainted_out(pod: &Pod) -> Option<String> {
    let scheduled = condition(&pod.status.conditions, "PodScheduled")?;
    let taints: Vec<&str> = scheduled
        .message
        .split("untolerated taint")
        .skip(1)
        .filter_map(|rest| rest.split_once('{')?.1.split_once('}'))
        .map(|(taint, _)| taint)
        .collect();
    let own = |taint: &&&str| {
        !taint.starts_with("node.kubernetes.io/")
            && !taint.starts_with("node-role.kubernetes.io/")
            && !taint.starts_with("node.cloudprovider.kubernetes.io/")
    };
    let taint = taints.iter().find(own)?;
    (scheduled.reason == "Unschedulable").then(|| {
        format!(
            "Pod {} tolerates no taint {{{taint}}}, and no other node takes it: {}",
            pod.metadata.name, scheduled.message
        )
    })
}

/// What a container that died has said last.
fn last_words(pod: &Pod) -> Option<String> {
    containers(pod).find_map(|container| {
        let states = [&container.state, &container.last_state];
        let mut ends = states
            .into_iter()
            .filter_map(|state| state.terminated.as_ref());
        let end = ends.find(|end| end.exit_code != 0)?;
        let said = match end.message.trim() {
            "" => end.reason.clone(),
            message => format!("{}: {}", end.reason, shorten(message)),
        };
        let (name, pod) = (&container.name, &pod.metadata.name);
        Some(format!(
            "container {name} of Pod {pod} ended with {} ({said})",
            end.exit_code
        ))
    })
}

/// The end of a long message, which is where the error is.
fn shorten(message: &str) -> String {
    const MOST: usize = 600;
    let length = message.chars().count();
    match length > MOST {
        true => format!(
            "…{}",
            message.chars().skip(length - MOST).collect::<String>()
        ),
        false => message.to_owned(),
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let status = &pod.status;
    status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
}

fn running(progress: &str, pods: &[Pod]) -> Restoring {
    Restoring::Running {
        progress: progress.to_owned(),
        trouble: pods.iter().find_map(trouble),
    }
}

/// What may pass, and a person may still want to know.
fn trouble(pod: &Pod) -> Option<String> {
    let unscheduled = condition(&pod.status.conditions, "PodScheduled").filter(|c| !c.is_true());
    if let Some(why) = unscheduled {
        return Some(format!(
            "Pod {} is on no node ({})",
            pod.metadata.name,
            why.why()
        ));
    }
    containers(pod).find_map(|container| {
        let waits = container.state.waiting.as_ref()?;
        let known = waits.reason == "CrashLoopBackOff" || MAY_PASS.contains(&waits.reason.as_str());
        known.then(|| {
            let said = format!("{} {}", waits.reason, waits.message);
            let (name, pod) = (&container.name, &pod.metadata.name);
            format!("container {name} of Pod {pod}: {}", said.trim())
        })
    })
}

fn is_ready(status: &ClusterStatus) -> bool {
    let postgres = &status.postgres;
    status.state == "ready" && postgres.size > 0 && postgres.ready == postgres.size
}

fn restore_status(status: &ClusterStatus) -> Option<&RestoreStatus> {
    status.pgbackrest.as_ref()?.restore.as_ref()
}

fn files_restored(status: &ClusterStatus, id: &str) -> bool {
    restore_status(status).is_some_and(|r| r.id == id && r.finished && r.succeeded >= 1)
}

fn other_restore<'a>(status: &'a ClusterStatus, id: &str) -> Option<&'a str> {
    let other = restore_status(status).map(|restore| restore.id.as_str());
    other.filter(|other| !other.is_empty() && *other != id)
}

fn restore_progress(state: &str, job: Option<&Job>) -> String {
    match (state, job.map(|job| &job.status)) {
        ("", _) => "the operator has not begun the restore".into(),
        (_, None) => "the restore's Job does not exist yet".into(),
        (_, Some(job)) if job.failed > 0 => {
            format!(
                "files are copied and WAL is replayed, attempt {}",
                job.failed + 1
            )
        }
        (_, Some(job)) if job.active > 0 => "files are copied and WAL is replayed".into(),
        (_, Some(_)) => "the restore's Job has no running Pod".into(),
    }
}

fn database_progress(status: &ClusterStatus) -> String {
    let seen::Ready { size, ready } = status.postgres;
    let state = if status.state.is_empty() {
        "new"
    } else {
        &status.state
    };
    format!("the data are there; {ready} of {size} databases are ready ({state})")
}
