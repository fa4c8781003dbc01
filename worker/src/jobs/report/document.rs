//! What a report says, from records alone: pure, so that the same records give the same report.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use jobs::ids::{JobName, RecoveryId};
use jobs::message::Job;
use jobs::record::{
    Inputs, JobRecord, LoadBalancerRecord, NodeRecord, RecoveryRecord, Requester, Status,
    VolumeRecord,
};
use jobs::spec::{ClusterSpec, Targets};
use serde::Serialize;
use serde_json::{Value, json};

use super::load::{self, Load, Temporaries};

/// The record of a job, if it was ever begun, under its name in the plan.
pub(super) type Recorded = (JobName, Option<JobRecord>);

/// What a report is made of.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    pub(super) recovery: &'a RecoveryRecord,
    pub(super) spec: &'a ClusterSpec,
    pub(super) records: &'a [Recorded],
    pub(super) nodes: Vec<NodeRecord>,
    pub(super) volumes: Vec<VolumeRecord>,
    pub(super) load_balancer: Option<LoadBalancerRecord>,
    /// The recovery that writes it.
    pub(super) writer: RecoveryId,
    /// When it is written.
    pub(super) now: Timestamp,
}

/// A recovery, as an auditor wants to see it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Version of this format.
    pub(super) report: u32,
    pub(super) cluster: String,
    pub(super) recovery: RecoveryId,
    pub(super) written_by: RecoveryId,
    pub(super) purpose: String,
    pub(super) requester: Requester,
    pub(super) tool: &'static str,
    pub(super) versions: BTreeMap<&'static str, String>,
    pub(super) inputs: Inputs,
    pub(super) declared: Timestamp,
    pub(super) written: Timestamp,
    pub(super) verdict: Verdict,
    /// Why the verdict is not a plain `passed`.
    pub(super) conditions: Vec<String>,
    pub(super) not_succeeded: Vec<JobName>,
    /// From the declaration to the last proof of the recovered application, in seconds; to now while something is
    /// missing. A load test comes after that.
    pub(super) rto_seconds: i64,
    pub(super) rto: Objective,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rpo: Option<Objective>,
    /// What the database was restored from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backup: Option<Value>,
    /// What the application bore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) load: Option<Load>,
    /// What was made for the load test only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) temporary: Option<Temporaries>,
    pub(super) phases: Vec<Phase>,
    pub(super) jobs: Vec<Value>,
    pub(super) proofs: Vec<Evidence>,
    pub(super) nodes: Vec<NodeRecord>,
    pub(super) volumes: Vec<VolumeRecord>,
    pub(super) load_balancer: Option<LoadBalancerRecord>,
}

/// How a recovery is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// Every job succeeded, and no target was missed.
    Passed,
    /// Every job succeeded, and a target was missed.
    PassedWithConditions,
    /// A job did not succeed.
    Failed,
}

/// A time that was aimed at, and the one that came of it; both in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Objective {
    /// What the spec says, if it says anything.
    pub(super) target_seconds: Option<i64>,
    /// What was reached; nothing while it is not.
    pub(super) actual_seconds: Option<i64>,
    /// Whether that is good enough; nothing without a target or an end.
    pub(super) met: Option<bool>,
}

/// All jobs of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Phase {
    pub(super) kind: String,
    pub(super) jobs: usize,
    pub(super) succeeded: usize,
    /// Begin of the first one and end of the last one.
    pub(super) started: Option<Timestamp>,
    pub(super) ended: Option<Timestamp>,
    pub(super) seconds: Option<i64>,
}

/// A proof, with what was expected and what was observed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Evidence {
    pub(super) job: JobName,
    pub(super) proof: String,
    pub(super) at: Timestamp,
    pub(super) result: Value,
}

impl Evidence {
    pub(super) fn holds(&self) -> bool {
        self.result["holds"] == true
    }
}

impl Report {
    pub(super) fn of(sources: Sources<'_>) -> Self {
        let Sources {
            recovery,
            spec,
            records,
            now,
            ..
        } = sources;
        let not_succeeded: Vec<JobName> = records
            .iter()
            .filter(|(_, record)| !succeeded(record.as_ref()))
            .map(|(name, _)| name.clone())
            .collect();
        let reached = last_end(records);
        let targets = spec.targets.as_ref();
        let lasted = reached.map(|at| at.duration_since(recovery.created));
        let rto = Objective::of(targets.and_then(|t: &Targets| t.rto), lasted);
        let mut begun = records.iter().filter_map(|(_, record)| record.as_ref());
        let restore = begun.rfind(|record| matches!(record.payload, Job::Restore(_)));
        let lost = restore.and_then(lost);
        let rpo = restore.map(|_| Objective::of(targets.and_then(|t| t.rpo), lost));
        let mut conditions = Vec::new();
        conditions.extend(rto.missed("recovery took"));
        conditions.extend(rpo.as_ref().and_then(|rpo| rpo.missed("data were lost of")));
        let verdict = match (not_succeeded.is_empty(), conditions.is_empty()) {
            (false, _) => Verdict::Failed,
            (true, false) => Verdict::PassedWithConditions,
            (true, true) => Verdict::Passed,
        };
        let until = reached.unwrap_or_else(|| recovery.finished.as_ref().map_or(now, |end| end.at));
        Self {
            report: 2,
            cluster: recovery.cluster.to_string(),
            recovery: recovery.id.clone(),
            written_by: sources.writer,
            purpose: recovery.purpose.clone(),
            requester: recovery.requester.clone(),
            tool: concat!("rekindle ", env!("CARGO_PKG_VERSION")),
            versions: versions(spec, records),
            inputs: recovery.inputs.clone(),
            declared: recovery.created,
            written: now,
            verdict,
            conditions,
            not_succeeded,
            rto_seconds: until.duration_since(recovery.created).as_secs(),
            rto,
            rpo,
            backup: restore.and_then(restored_from),
            load: load::load(records),
            temporary: load::temporaries(records),
            phases: phases(records),
            jobs: records.iter().map(job_of).collect(),
            proofs: records.iter().flat_map(proofs_of).collect(),
            nodes: sources.nodes,
            volumes: sources.volumes,
            load_balancer: sources.load_balancer,
        }
    }
}

impl Objective {
    fn of(target: Option<SignedDuration>, actual: Option<SignedDuration>) -> Self {
        Self {
            target_seconds: target.map(|target| target.as_secs()),
            actual_seconds: actual.map(|actual| actual.as_secs()),
            met: target.zip(actual).map(|(target, actual)| actual <= target),
        }
    }

    fn missed(&self, what: &str) -> Option<String> {
        let missed = self.met == Some(false);
        let (target, actual) = self.target_seconds.zip(self.actual_seconds)?;
        missed.then(|| format!("{what} {}, the target is {}", span(actual), span(target)))
    }
}

fn succeeded(record: Option<&JobRecord>) -> bool {
    record.is_some_and(|record| record.status == Status::Succeeded)
}

/// When the last job ended that the recovery consists of; nothing while one of them has not succeeded.
fn last_end(records: &[Recorded]) -> Option<Timestamp> {
    let comes_after = |name: &JobName| name.as_str().starts_with("load-test");
    let others = records.iter().filter(|(name, _)| !comes_after(name));
    let ends: Option<Vec<Timestamp>> = others
        .map(|(_, record)| {
            record
                .as_ref()
                .filter(|_| succeeded(record.as_ref()))?
                .ended
        })
        .collect();
    ends?.into_iter().max()
}

/// What the versions are of everything that was installed: as the spec pins them, and the digest of Flux' manifest as
/// it was applied.
fn versions(spec: &ClusterSpec, records: &[Recorded]) -> BTreeMap<&'static str, String> {
    let mut versions = BTreeMap::new();
    if let Some(kubernetes) = &spec.kubernetes {
        versions.insert("kubernetes", kubernetes.version.clone());
        versions.insert("kubespray", kubernetes.kubespray.clone());
        versions.insert("kubespray_image", kubernetes.image.digest.clone());
        if let Some(images) = &kubernetes.images {
            versions.insert("image_bundle", images.digest.clone());
        }
    }
    if let Some(k6) = spec.load_test.as_ref().and_then(|test| test.k6.as_ref()) {
        versions.insert("k6_operator", k6.operator.clone());
        versions.insert("k6", k6.image.to_string());
    }
    if let Some(flux) = &spec.flux {
        versions.insert("flux", flux.version.clone());
    }
    let mut begun = records.iter().filter_map(|(_, record)| record.as_ref());
    let bootstrap = begun.rfind(|record| record.payload == Job::FluxBootstrap);
    let components = bootstrap.and_then(|record| record.steps.get("components"));
    if let Some(digest) = components.and_then(|step| step.output["digest"].as_str()) {
        versions.insert("flux_manifest", format!("sha256:{digest}"));
    }
    versions
}

/// One phase a kind, in the plan's order.
fn phases(records: &[Recorded]) -> Vec<Phase> {
    let mut phases: Vec<Phase> = Vec::new();
    for (name, record) in records {
        let kind = name.as_str().split('/').next().unwrap_or_default();
        let known = phases.iter().position(|phase| phase.kind == kind);
        let at = known.unwrap_or_else(|| {
            phases.push(Phase {
                kind: kind.to_owned(),
                jobs: 0,
                succeeded: 0,
                started: None,
                ended: None,
                seconds: None,
            });
            phases.len() - 1
        });
        let phase = &mut phases[at];
        phase.jobs += 1;
        phase.succeeded += usize::from(succeeded(record.as_ref()));
        let started = record.as_ref().and_then(|record| record.started);
        let ended = record.as_ref().and_then(|record| record.ended);
        phase.started = [phase.started, started].into_iter().flatten().min();
        phase.ended = [phase.ended, ended].into_iter().flatten().max();
        let both = phase.started.zip(phase.ended);
        phase.seconds = both.map(|(from, to)| to.duration_since(from).as_secs());
    }
    phases
}

fn job_of((name, record): &Recorded) -> Value {
    let Some(record) = record else {
        return json!({"job": name, "status": "not-begun"});
    };
    let mut steps: Vec<_> = record.steps.iter().collect();
    steps.sort_by_key(|(_, step)| step.n);
    let seconds = record
        .started
        .zip(record.ended)
        .map(|(from, to)| to.duration_since(from).as_millis() as f64 / 1000.0);
    json!({
        "job": name,
        "status": record.status,
        "started": record.started,
        "ended": record.ended,
        "seconds": seconds,
        "turns": record.turn,
        "operator_retries": record.retries,
        "failure": record.failure,
        "steps": steps.iter().map(|(key, step)| json!({"step": key, "at": step.at, "ms": step.ms})).collect::<Vec<_>>(),
    })
}

/// The proofs of a job, those of the restored data one by one.
fn proofs_of((name, record): &Recorded) -> Vec<Evidence> {
    let steps = record.iter().flat_map(|record| &record.steps);
    let evidence = |proof: String, at: Timestamp, result: Value| Evidence {
        job: name.clone(),
        proof,
        at,
        result,
    };
    let proofs = steps.flat_map(|(key, step)| {
        if let Some(proof) = key.as_str().strip_prefix("prove/") {
            return vec![evidence(proof.to_owned(), step.at, step.output.clone())];
        }
        let queries = step.output["proofs"].as_array().into_iter().flatten();
        let queries = queries.filter_map(|query| {
            let proof = format!("{key}/{}", query["name"].as_str()?);
            Some(evidence(proof, step.at, query.clone()))
        });
        queries.collect()
    });
    proofs.collect()
}

/// What the restored database itself says was lost.
fn lost(restore: &JobRecord) -> Option<SignedDuration> {
    let data = restore.steps.get("data")?;
    serde_json::from_value(data.output["rpo"].clone()).ok()
}

/// What it was restored from.
fn restored_from(restore: &JobRecord) -> Option<Value> {
    let chosen = restore.steps.get("choose")?;
    Some(chosen.output.clone())
}

/// Seconds for people.
pub(super) fn span(seconds: i64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest} s"),
        (0, _) => format!("{minutes} min {rest:02} s"),
        _ => format!("{hours} h {minutes:02} min"),
    }
}
