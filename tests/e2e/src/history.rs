//! What the versions of job records say about how a recovery went. The bucket keeps every one of
//! them, so that what must never happen can be looked for afterwards, whoever was killed when.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use bytes::Bytes;
use jobs::ids::{ClusterName, RecoveryId, StepKey};
use jobs::keys::Series;
use jobs::record::{Change, JobRecord, JobVersion, StepRecord, Versioned};
use sandbox::s3::S3Server;
use sandbox::world::Sandbox;

/// What became of a recovery's jobs, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    /// Jobs.
    pub jobs: usize,
    /// Steps, each recorded once.
    pub steps: usize,
    /// Claims of a job whose owner had died.
    pub takeovers: usize,
    /// Turns begun.
    pub turns: u64,
}

/// Reads every version of every job of a recovery and checks what has to hold for each of them:
/// numbers without a gap; an epoch that never falls and grows with each claim; a step recorded once,
/// by the epoch of that time, and never changed, dropped or recorded again.
///
/// Recoveries that an operator put back with `--from` drop steps in earnest; they do not belong here.
pub fn check(
    sandbox: &Sandbox,
    cluster: &ClusterName,
    recovery: &RecoveryId,
) -> anyhow::Result<History> {
    check_in(&sandbox.s3, cluster, recovery)
}

/// The same, in a store without a sandbox around it.
pub fn check_in(
    s3: &S3Server,
    cluster: &ClusterName,
    recovery: &RecoveryId,
) -> anyhow::Result<History> {
    let prefix = format!("clusters/{cluster}/recoveries/{recovery}/jobs/");
    let mut jobs: BTreeMap<String, Vec<(u64, Bytes)>> = BTreeMap::new();
    for (key, body) in s3.objects(&prefix) {
        let (job, version) = Series::split(&key).context("a version's key")?;
        let job = job.prefix().to_owned();
        jobs.entry(job).or_default().push((version, body));
    }
    let mut all = History::default();
    for (job, mut versions) in jobs {
        versions.sort_by_key(|(number, _)| *number);
        let one = check_job(&versions).with_context(|| job.clone())?;
        all.jobs += 1;
        all.steps += one.steps;
        all.takeovers += one.takeovers;
        all.turns += one.turns;
    }
    Ok(all)
}

fn check_job(versions: &[(u64, Bytes)]) -> anyhow::Result<History> {
    let mut now: Option<JobRecord> = None;
    let mut takeovers = 0;
    for (place, (number, body)) in versions.iter().enumerate() {
        let at = || format!("version {number}");
        ensure!(
            *number == place as u64 + 1,
            "there is a gap before {}",
            at()
        );
        let version: Versioned<JobVersion> = serde_json::from_slice(body).with_context(at)?;
        let next = match (version.body, now.clone()) {
            (JobVersion::Full(full), before) => {
                if let Some(before) = &before {
                    let claimed = full.turn > before.turn;
                    ensure!(
                        full.epoch == before.epoch + u64::from(claimed),
                        "{}: epoch {} after {}",
                        at(),
                        full.epoch,
                        before.epoch
                    );
                    takeovers += usize::from(claimed && before.owner.is_some());
                    keeps(&before.steps, &full).with_context(at)?;
                }
                *full
            }
            (JobVersion::Delta { epoch, changes, .. }, Some(mut before)) => {
                ensure!(epoch == before.epoch, "{}: a delta of epoch {epoch}", at());
                ensure!(before.owner.is_some(), "{}: a delta without an owner", at());
                for change in changes {
                    if let Change::Step { key, record } = &change {
                        ensure!(
                            !before.steps.contains_key(key),
                            "{}: step `{key}` is recorded again",
                            at()
                        );
                        ensure!(record.epoch == epoch, "{}: step of another epoch", at());
                    }
                    before.apply(change);
                }
                before
            }
            (JobVersion::Delta { .. }, None) => anyhow::bail!("it begins with a delta"),
        };
        now = Some(next);
    }
    let last = now.context("it has no version")?;
    Ok(History {
        jobs: 1,
        steps: last.steps.len(),
        takeovers,
        turns: last.turn,
    })
}

/// A full version repeats every step as it was; new ones are of its own epoch.
fn keeps(before: &BTreeMap<StepKey, StepRecord>, full: &JobRecord) -> anyhow::Result<()> {
    for (key, step) in before {
        let kept = full.steps.get(key);
        ensure!(
            kept == Some(step),
            "step `{key}` was {step:?} and is {kept:?}"
        );
    }
    for (key, step) in &full.steps {
        let known = before.contains_key(key) || step.epoch == full.epoch;
        ensure!(known, "step `{key}` comes from epoch {}", step.epoch);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use jiff::Timestamp;
    use jobs::message::{Demo, Job};
    use jobs::record::Owner;
    use uuid::Uuid;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn claimed(record: &JobRecord) -> JobRecord {
        let mut record = record.clone();
        let owner = Owner {
            worker: Uuid::nil(),
            host: "h".into(),
            realm: "b".into(),
            pid: 1,
            started: 1,
        };
        record.claim(owner, NOW).unwrap();
        record
    }

    fn fresh() -> JobRecord {
        let payload = Job::Demo(Demo {
            steps: 3,
            step_ms: 0,
            abort_at: None,
            fail_at: None,
            child: false,
            node: None,
        });
        JobRecord::new(payload.name(), payload)
    }

    fn step(epoch: u64, output: u64) -> JobVersion {
        let record = StepRecord {
            n: 1,
            output: output.into(),
            at: NOW,
            ms: 0,
            epoch,
        };
        let key = StepKey::of("step", 0);
        JobVersion::Delta {
            base: 1,
            epoch,
            changes: vec![Change::Step { key, record }],
        }
    }

    fn judge(bodies: &[JobVersion]) -> Result<History, String> {
        let versions: Vec<(u64, Bytes)> = (1..)
            .zip(bodies)
            .map(|(number, body)| {
                let version = Versioned {
                    schema: 1,
                    writer: Uuid::nil(),
                    nonce: Uuid::nil(),
                    body,
                };
                (number, serde_json::to_vec(&version).unwrap().into())
            })
            .collect();
        check_job(&versions).map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn what_must_never_happen_is_found() {
        let full = |record: &JobRecord| JobVersion::Full(Box::new(record.clone()));
        let first = claimed(&fresh());
        let mut second = claimed(&first);
        let forgetful = full(&second);
        let JobVersion::Delta { changes, .. } = step(1, 7) else {
            unreachable!("made above")
        };
        second.apply(changes[0].clone());
        let good = [full(&first), step(1, 7), full(&second)];
        let history = judge(&good).unwrap();
        assert_eq!((history.steps, history.takeovers, history.turns), (1, 1, 2));

        let mut changed = second.clone();
        changed.steps.values_mut().next().unwrap().output = 8.into();
        let mut late = second.clone();
        late.epoch = 1;
        for (bad, found) in [
            (vec![full(&first), step(1, 7), step(1, 7)], "recorded again"),
            (
                vec![full(&first), step(1, 7), forgetful],
                "step `step/0` was",
            ),
            (
                vec![full(&first), step(1, 7), full(&changed)],
                "step `step/0` was",
            ),
            (vec![full(&first), step(2, 7)], "a delta of epoch 2"),
            (
                vec![full(&first), step(1, 7), full(&late)],
                "epoch 1 after 1",
            ),
            (
                vec![full(&first), step(1, 7), full(&second), step(1, 7)],
                "a delta of epoch 1",
            ),
            (vec![step(1, 7)], "begins with a delta"),
        ] {
            let said = judge(&bad).unwrap_err();
            assert!(said.contains(found), "no `{found}` in {said}");
        }
    }
}
