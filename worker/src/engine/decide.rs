//! What to do with a job that a message names: a pure decision from what the bucket says.

use jobs::plan::Readiness;
use jobs::record::{Flags, JobRecord, Owner, Status};

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Take it and run a turn.
    Claim,
    /// It is done: make sure that what follows is posted.
    Succeeded,
    /// It is settled otherwise, its needs are not met, or the recovery is paused: nothing to do.
    Nothing(&'static str),
    /// The recovery is cancelled and nobody runs the job: settle it as cancelled.
    Cancel,
    /// Somebody holds it; look again later.
    Held(Owner),
    /// Its worker died at the same step too often.
    Quarantine,
    /// It was begun by a build with other steps; these are not ours.
    Park(Vec<String>),
}

/// Crashes in a row at the same step that quarantine a job.
pub(crate) const MOST_CRASHES: u32 = 3;

/// Whether one more crash would quarantine a job that was just claimed.
pub(crate) fn is_last_chance(record: &JobRecord) -> bool {
    record.crashes.after_steps == record.steps.len() as u64
        && record.crashes.in_a_row + 1 >= MOST_CRASHES
}

/// Decides. `dead` says that the record's owner is known to be gone, `cleans_up` that the job takes away what
/// another one made: it is ready in a cancelled recovery when there is something to take away.
pub(crate) fn decide(
    record: Option<&JobRecord>,
    readiness: &Readiness,
    flags: &Flags,
    cleans_up: bool,
    dead: bool,
    me: &Owner,
    known_steps: &[&str],
) -> Decision {
    if let Some(record) = record {
        if record.status == Status::Succeeded {
            return Decision::Succeeded;
        }
        if record.status.is_settled() {
            return Decision::Nothing("it is settled");
        }
        if let Some(owner) = &record.owner
            && !dead
        {
            return Decision::Held(owner.clone());
        }
    }
    let last_duty = cleans_up && *readiness == Readiness::Ready;
    if flags.cancelled.is_some() && !last_duty {
        return Decision::Cancel;
    }
    if flags.paused.is_some() && flags.cancelled.is_none() {
        return Decision::Nothing("the recovery is paused");
    }
    match readiness {
        Readiness::Needs(_) => return Decision::Nothing("jobs that it needs are not done"),
        Readiness::Blocked(_) => return Decision::Nothing("jobs that it needs have failed"),
        Readiness::Done | Readiness::Failed | Readiness::Ready => {}
    }
    let Some(record) = record else {
        return Decision::Claim;
    };
    // The claim that follows would count one more crash; it is quarantined instead of begun again.
    if dead && record.owner.is_some() && record.crashes_with(me) >= MOST_CRASHES {
        return Decision::Quarantine;
    }
    let known = |key: &str| known_steps.contains(&key.split('/').next().unwrap_or_default());
    let strange: Vec<String> = record
        .steps
        .keys()
        .filter(|key| !known(key.as_str()))
        .map(ToString::to_string)
        .collect();
    if strange.is_empty() {
        Decision::Claim
    } else {
        Decision::Park(strange)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jobs::ids::StepKey;
    use jobs::message::{Demo, Job};
    use jobs::record::{Change, Event, StepRecord};
    use uuid::Uuid;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn someone() -> Owner {
        Owner {
            worker: Uuid::new_v4(),
            ..owner()
        }
    }

    fn owner() -> Owner {
        Owner {
            worker: Uuid::nil(),
            host: "h".into(),
            realm: "b".into(),
            pid: 1,
            started: 1,
        }
    }

    fn claimed() -> JobRecord {
        let payload = Job::Demo(Demo {
            steps: 3,
            step_ms: 0,
            abort_at: None,
            fail_at: None,
            child: false,
            node: None,
        });
        let mut record = JobRecord::new(payload.name(), payload);
        record.claim(owner(), NOW).expect("pending");
        record
    }

    fn ask(
        record: Option<&JobRecord>,
        readiness: &Readiness,
        flags: &Flags,
        dead: bool,
    ) -> Decision {
        decide(record, readiness, flags, false, dead, &someone(), &["s"])
    }

    #[test]
    fn a_live_owner_keeps_its_job_and_a_dead_one_loses_it() {
        let record = claimed();
        let flags = Flags::default();
        assert_eq!(
            ask(Some(&record), &Readiness::Ready, &flags, false),
            Decision::Held(owner())
        );
        assert_eq!(
            ask(Some(&record), &Readiness::Ready, &flags, true),
            Decision::Claim
        );
        assert_eq!(ask(None, &Readiness::Ready, &flags, false), Decision::Claim);
    }

    #[test]
    fn needs_pause_and_cancel_are_honoured() {
        let flags = Flags::default();
        let needs = Readiness::Needs(vec![]);
        assert!(matches!(
            ask(None, &needs, &flags, false),
            Decision::Nothing(_)
        ));
        let paused = Flags {
            paused: Some("lunch".into()),
            cancelled: None,
        };
        assert!(matches!(
            ask(None, &Readiness::Ready, &paused, false),
            Decision::Nothing(_)
        ));
        let cancelled = Flags {
            paused: None,
            cancelled: Some("no".into()),
        };
        assert_eq!(
            ask(None, &Readiness::Ready, &cancelled, false),
            Decision::Cancel
        );
        assert_eq!(
            ask(Some(&claimed()), &Readiness::Ready, &cancelled, false),
            Decision::Held(owner()),
            "the owner ends it itself"
        );
    }

    #[test]
    fn what_cleans_up_runs_in_a_cancelled_recovery_once_it_is_ready() {
        let cancelled = Flags {
            paused: Some("lunch".into()),
            cancelled: Some("no".into()),
        };
        let ask = |readiness: &Readiness| {
            decide(None, readiness, &cancelled, true, false, &owner(), &["s"])
        };
        assert_eq!(ask(&Readiness::Ready), Decision::Claim);
        assert_eq!(ask(&Readiness::Needs(vec![])), Decision::Cancel);
        let paused = Flags {
            cancelled: None,
            ..cancelled.clone()
        };
        let decision = decide(None, &Readiness::Ready, &paused, true, false, &owner(), &[]);
        assert!(matches!(decision, Decision::Nothing(_)), "{decision:?}");
    }

    #[test]
    fn the_third_crash_at_the_same_step_quarantines() {
        let mut record = claimed();
        let flags = Flags::default();
        for _ in 0..2 {
            assert_eq!(
                ask(Some(&record), &Readiness::Ready, &flags, true),
                Decision::Claim
            );
            record.claim(someone(), NOW).expect("owner died");
        }
        assert_eq!(
            ask(Some(&record), &Readiness::Ready, &flags, true),
            Decision::Quarantine
        );
        let step = StepRecord {
            n: 1,
            output: serde_json::Value::Null,
            at: NOW,
            ms: 0,
            epoch: 3,
        };
        record.apply(Change::Step {
            key: StepKey::of("s", 1),
            record: step,
        });
        assert_eq!(
            ask(Some(&record), &Readiness::Ready, &flags, true),
            Decision::Claim,
            "it got further"
        );
    }

    #[test]
    fn steps_of_another_build_park_the_job() {
        let mut record = claimed();
        let step = StepRecord {
            n: 1,
            output: serde_json::Value::Null,
            at: NOW,
            ms: 0,
            epoch: 1,
        };
        record.apply(Change::Step {
            key: StepKey::of("warp", 1),
            record: step,
        });
        record.release(Event::Yield, NOW).expect("running");
        assert_eq!(
            ask(Some(&record), &Readiness::Ready, &Flags::default(), false),
            Decision::Park(vec!["warp/1".into()])
        );
    }
}
