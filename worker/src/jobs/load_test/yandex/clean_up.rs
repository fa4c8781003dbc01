//! Deletes the temporary cluster and all that belongs to it: what carries this recovery's labels, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use jobs::keys;
use jobs::message::Job;
use jobs::record::{JobRecord, Temporary};

use super::{Begun, name, temporary};
use crate::cloud::yandex::{Everything, Kind, Owner, Removal, Yandex, plan};
use crate::engine::{Ctx, JobError, Poll};
use crate::jobs::provision::building;

/// The parts, in the order in which they are made, each with what must be on record before it is begun.
const PARTS: [(&str, Option<&str>); 5] = [
    ("network", None),
    ("subnet", Some("network-made")),
    ("cluster", Some("subnet-made")),
    ("system", Some("cluster-made")),
    ("runners", Some("system")),
];

/// Deletes everything that carries this recovery's labels; says what that was. Called by the job
/// `load-test-clean-up`.
pub(in crate::jobs) async fn clean_up(ctx: &Ctx) -> Result<Vec<Temporary>, JobError> {
    // Another worker may have what this one lacks.
    let yandex = ctx
        .world()
        .yandex()
        .map_err(|error| JobError::retry(error.to_string()))?;
    let round = ctx.generation();
    let owner = Owner::new(ctx.cluster(), ctx.recovery());
    // A wait and no step: a cloud that is away for an hour is no reason to leave things there.
    let found: Vec<Temporary> = ctx
        .wait(("found", round), building(ctx), || async {
            find(ctx, yandex, &owner).await.map(Poll::Ready)
        })
        .await?;
    let removal = Removal::default();
    // What shows later is deleted too.
    let seen: Mutex<BTreeSet<Temporary>> = Mutex::new(found.iter().cloned().collect());
    ctx.wait(("deleted", round), building(ctx), || async {
        let all = everything(yandex, &found).await?;
        let ours = plan(&all.resources, |it| owner.owns(&it.labels));
        let left = removal.go_on(yandex, ours).await?;
        let mut seen = seen.lock().expect("no panic while held");
        seen.extend(left.resources.iter().map(temporary));
        Ok::<_, JobError>(match left.is_empty() {
            true => Poll::Ready(seen.iter().cloned().collect()),
            false => Poll::Pending(left.text()),
        })
    })
    .await
}

/// What carries this recovery's labels now. What has come so late is begun to be deleted: the next look may find it
/// gone.
pub(in crate::jobs) async fn left(ctx: &Ctx) -> Result<Vec<Temporary>, JobError> {
    let owner = Owner::new(ctx.cluster(), ctx.recovery());
    let yandex = ctx.world().yandex()?;
    let all = yandex.everything().await?;
    let left = of(&all, &owner);
    if !left.is_empty() {
        let ours = plan(&all.resources, |it| owner.owns(&it.labels));
        Removal::default().go_on(yandex, ours).await?;
    }
    Ok(left)
}

/// This worker looks into another folder than the one that things were made in: there it would find nothing, and
/// take that for a proof. Another worker may have the right one.
pub(super) fn elsewhere(folder: &str, yandex: &Yandex) -> JobError {
    JobError::retry(format!(
        "the load test's things are in folder {folder} of Yandex Cloud, and this worker works in {}: set YC_FOLDER_ID",
        yandex.folder()
    ))
}

fn of(all: &Everything, owner: &Owner) -> Vec<Temporary> {
    let ours = all.resources.iter();
    let ours = ours.filter(|resource| owner.owns(&resource.labels));
    ours.map(temporary).collect()
}

/// All that is in the folder, with what is known by its id.
async fn everything(yandex: &Yandex, known: &[Temporary]) -> Result<Everything, JobError> {
    let known = known.iter();
    let known = known.filter_map(|it| Some((Kind::named(&it.kind)?, it.id.clone())));
    let known = known.collect();
    Ok(yandex.everything().await?.with(yandex, known).await?)
}

/// Finds what was made. What may have been made and is not on record is looked for over some time: lists may lag
/// behind a create whose answer was lost.
async fn find(ctx: &Ctx, yandex: &Yandex, owner: &Owner) -> Result<Vec<Temporary>, JobError> {
    let made = Made::of(ctx).await?;
    if let Some(other) = made
        .folders
        .iter()
        .find(|folder| *folder != yandex.folder())
    {
        return Err(elsewhere(other, yandex));
    }
    let settle = ctx.world().settle;
    let mut looks = 0;
    loop {
        let all = everything(yandex, &made.known).await?;
        let found = of(&all, owner);
        let is_there = |name: &String| found.iter().any(|it| it.name == *name);
        looks += 1;
        if made.lost.iter().all(is_there) || looks > settle.looks_after {
            return Ok(found);
        }
        tokio::time::sleep(settle.every).await;
    }
}

/// What the load test made, by its record.
#[derive(Debug, Default, PartialEq, Eq)]
struct Made {
    /// Where it was made.
    folders: BTreeSet<String>,
    known: Vec<Temporary>,
    /// Names of what may have been made.
    lost: Vec<String>,
}

impl Made {
    async fn of(ctx: &Ctx) -> Result<Self, JobError> {
        let mut made = Self::default();
        let jobs = ctx.plan().jobs().iter();
        for job in jobs.filter(|job| matches!(job.payload, Job::LoadTest(_))) {
            let series = keys::job(ctx.cluster(), ctx.recovery(), &job.name);
            if let Some(stored) = ctx.store().read_job(&series).await? {
                made.add(&stored.record, |generation, part| {
                    name(ctx.cluster(), ctx.recovery(), generation, part)
                });
            }
        }
        Ok(made)
    }

    fn add(&mut self, record: &JobRecord, name: impl Fn(u32, &str) -> String) {
        let outputs: BTreeMap<&str, _> = record
            .steps
            .iter()
            .map(|(key, step)| (key.as_str(), &step.output))
            .collect();
        let decided = outputs.keys().filter_map(|key| key.strip_prefix("key/"));
        for generation in decided.filter_map(|generation| generation.parse::<u32>().ok()) {
            let folder = outputs[format!("key/{generation}").as_str()]["folder"].as_str();
            self.folders.extend(folder.map(str::to_owned));
            let recorded = |part: &str| outputs.get(format!("{part}/{generation}").as_str());
            for (part, before) in PARTS {
                let begun = recorded(part).map(|output| serde_json::from_value((*output).clone()));
                match begun {
                    Some(Ok(Begun { made, .. })) => {
                        // What was answered and not yet seen may show as late as what was not answered.
                        if recorded(&format!("{part}-made")).is_none() {
                            self.lost.push(made.name.clone());
                        }
                        self.known.push(made);
                    }
                    // What an older build wrote is found by its labels.
                    Some(Err(_)) => {}
                    None if before.is_none_or(|before| recorded(before).is_some()) => {
                        self.lost.push(name(generation, part));
                    }
                    None => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::{Value, json};

    use super::*;

    fn made(steps: Value) -> Made {
        let mut all = serde_json::Map::new();
        for (n, (key, output)) in steps.as_object().unwrap().iter().enumerate() {
            let step = json!({"n": n + 1, "output": output, "at": "2026-01-01T00:00:00Z", "ms": 1, "epoch": 1});
            all.insert(key.clone(), step);
        }
        let record: JobRecord = serde_json::from_value(json!({
            "job": "load-test", "payload": {"kind": "load-test"}, "status": "running", "epoch": 1,
            "owner": null, "turn": 1, "generation": 0, "attempts": 0, "steps": all,
        }))
        .unwrap();
        let mut made = Made::default();
        made.add(&record, |generation, part| format!("{part}-{generation}"));
        made
    }

    fn begun(kind: &str, id: &str) -> Value {
        json!({"made": {"kind": kind, "name": "n", "id": id}, "operation": "op"})
    }

    #[test]
    fn what_may_have_been_made_is_told_from_what_was() {
        let ids = |made: &Made| {
            made.known
                .iter()
                .map(|it| it.id.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(made(json!({})), Made::default());
        // The keys are decided: the network may have been asked for, and nothing else.
        assert_eq!(made(json!({"key/0": {}})).lost, ["network-0"]);
        let network = made(json!({"key/0": {}, "network/0": begun("network", "enp")}));
        // Its making was answered and is not done: it may show late.
        assert_eq!(
            (ids(&network), &network.lost),
            (vec!["enp".to_owned()], &vec!["n".to_owned()])
        );
        let subnet = made(json!({
            "key/0": {}, "network/0": begun("network", "enp"), "network-made/0": null,
        }));
        assert_eq!(subnet.lost, ["subnet-0"]);
        let groups = made(json!({
            "key/0": {}, "network/0": begun("network", "enp"), "network-made/0": null,
            "subnet/0": begun("subnet", "e9b"), "subnet-made/0": null,
            "cluster/0": begun("cluster", "cat"), "cluster-made/0": null,
            "system/0": begun("node-group", "catg"), "system-made/0": null, "key/1": {},
        }));
        assert_eq!(ids(&groups), ["enp", "e9b", "cat", "catg"]);
        assert_eq!(groups.lost, ["runners-0", "network-1"]);
    }
}
