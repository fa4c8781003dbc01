//! The expanded plan: a graph of jobs without cycles, and what follows from what is done.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::JobName;
use crate::message::Job;
use crate::spec::Problem;

/// One job of a recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedJob {
    /// Its name, unique within the recovery.
    pub name: JobName,
    /// What it is to do.
    pub payload: Job,
    /// Jobs that must have succeeded before.
    pub needs: Vec<JobName>,
    /// Runs even when a need failed, once all needs are settled.
    #[serde(default)]
    pub always: bool,
}

/// The jobs of a recovery, in an order in which they could run one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Plan(Vec<PlannedJob>);

impl Plan {
    /// Orders the jobs; a job that needs itself or something that is not there is a problem.
    pub fn new(jobs: Vec<PlannedJob>) -> Result<Self, Problem> {
        let names: BTreeSet<&JobName> = jobs.iter().map(|j| &j.name).collect();
        for job in &jobs {
            if let Some(missing) = job.needs.iter().find(|need| !names.contains(need)) {
                return Err(Problem::new(
                    job.name.as_str(),
                    format!("needs `{missing}`, which is not in the plan"),
                ));
            }
        }
        if names.len() < jobs.len() {
            return Err(Problem::new("jobs", "two jobs have the same name"));
        }
        // Kahn's algorithm, level by level and stable within a level.
        let mut left = jobs;
        let mut ordered: Vec<PlannedJob> = Vec::with_capacity(left.len());
        let mut placed: BTreeSet<JobName> = BTreeSet::new();
        while !left.is_empty() {
            let (ready, rest): (Vec<_>, Vec<_>) = left
                .into_iter()
                .partition(|job| job.needs.iter().all(|need| placed.contains(need)));
            if ready.is_empty() {
                let names = rest
                    .iter()
                    .take(5)
                    .map(|j| j.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ");
                return Err(Problem::new(
                    "jobs",
                    format!("a job needs itself, by way of {names}"),
                ));
            }
            placed.extend(ready.iter().map(|job| job.name.clone()));
            ordered.extend(ready);
            left = rest;
        }
        Ok(Self(ordered))
    }

    /// Every job, needs before those that need them.
    pub fn jobs(&self) -> &[PlannedJob] {
        &self.0
    }

    /// One job by name.
    pub fn job(&self, name: &JobName) -> Option<&PlannedJob> {
        self.0.iter().find(|job| job.name == *name)
    }

    /// The jobs that need `name` directly.
    pub fn successors<'a>(&'a self, name: &'a JobName) -> impl Iterator<Item = &'a PlannedJob> {
        self.0.iter().filter(move |job| job.needs.contains(name))
    }

    /// What stands in the way of each job, given what is done and what has failed.
    pub fn readiness(&self, settled: &Settled) -> BTreeMap<&JobName, Readiness> {
        let mut out: BTreeMap<&JobName, Readiness> = BTreeMap::new();
        for job in &self.0 {
            let state = if settled.done.contains(&job.name) {
                Readiness::Done
            } else if settled.failed.contains(&job.name) {
                Readiness::Failed
            } else {
                let mut open = Vec::new();
                let mut blocked = Vec::new();
                for need in &job.needs {
                    match out.get(need) {
                        Some(Readiness::Done) => {}
                        Some(Readiness::Failed | Readiness::Blocked(_)) => {
                            blocked.push(need.clone())
                        }
                        _ => open.push(need.clone()),
                    }
                }
                match (open.is_empty(), blocked.is_empty(), job.always) {
                    (true, true, _) | (true, false, true) => Readiness::Ready,
                    (_, false, false) => Readiness::Blocked(blocked),
                    (false, _, _) => Readiness::Needs(open),
                }
            };
            out.insert(&job.name, state);
        }
        out
    }

    /// Whether one job may run now.
    pub fn is_ready(&self, name: &JobName, settled: &Settled) -> bool {
        matches!(self.readiness(settled).get(name), Some(Readiness::Ready))
    }
}

/// The jobs that are settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Succeeded.
    pub done: BTreeSet<JobName>,
    /// Failed for now: a retry takes them out again.
    pub failed: BTreeSet<JobName>,
}

/// What stands in the way of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It succeeded.
    Done,
    /// It failed.
    Failed,
    /// Nothing: it may run.
    Ready,
    /// These jobs must succeed first.
    Needs(Vec<JobName>),
    /// These jobs failed or are blocked themselves; without a retry it never runs.
    Blocked(Vec<JobName>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Demo;

    fn job(name: &str, needs: &[&str], always: bool) -> PlannedJob {
        PlannedJob {
            name: JobName::new(name).expect("valid"),
            payload: Job::Demo(Demo {
                steps: 1,
                step_ms: 0,
                abort_at: None,
                fail_at: None,
                child: false,
                node: None,
            }),
            needs: needs
                .iter()
                .map(|n| JobName::new(*n).expect("valid"))
                .collect(),
            always,
        }
    }

    fn settled(done: &[&str], failed: &[&str]) -> Settled {
        let set = |names: &[&str]| {
            names
                .iter()
                .map(|n| JobName::new(*n).expect("valid"))
                .collect()
        };
        Settled {
            done: set(done),
            failed: set(failed),
        }
    }

    #[test]
    fn readiness_follows_from_what_is_settled() {
        let plan = Plan::new(vec![
            job("d", &["c"], true),
            job("c", &["a", "b"], false),
            job("a", &[], false),
            job("b", &[], false),
        ])
        .expect("no cycle");
        let check = |done: &[&str], failed: &[&str], name: &str, want: &str| {
            let name = JobName::new(name).expect("valid");
            let all = settled(done, failed);
            let got = format!("{:?}", plan.readiness(&all)[&name]);
            assert_eq!(got, want, "{name} with done {done:?} failed {failed:?}");
        };
        check(&[], &[], "a", "Ready");
        check(&[], &[], "c", r#"Needs(["a", "b"])"#);
        check(&["a"], &[], "c", r#"Needs(["b"])"#);
        check(&["a", "b"], &[], "c", "Ready");
        check(&["a"], &["b"], "c", r#"Blocked(["b"])"#);
        check(&["a", "b", "c"], &[], "d", "Ready");
        // An `always` job waits until all it needs is settled, then runs in spite of the failure.
        check(&[], &["b"], "d", "Ready");
        check(&["a", "b"], &[], "d", r#"Needs(["c"])"#);
        check(&["a", "b"], &["c"], "d", "Ready");
    }

    #[test]
    fn jobs_are_ordered_and_cycles_are_refused() {
        let plan =
            Plan::new(vec![job("b", &["a"], false), job("a", &[], false)]).expect("no cycle");
        assert_eq!(
            plan.jobs()
                .iter()
                .map(|j| j.name.as_str())
                .collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert!(Plan::new(vec![job("a", &["b"], false), job("b", &["a"], false)]).is_err());
        assert!(Plan::new(vec![job("a", &["x"], false)]).is_err());
    }
}
