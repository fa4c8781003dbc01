//! Who wrote what: every version in the bucket carries the random id of the process that wrote it.

use anyhow::{Context, ensure};
use jobs::ids::JobName;
use jobs::keys;
use jobs::record::{JobVersion, Versioned};
use sandbox::world::Sandbox;
use serde_json::Value;
use uuid::Uuid;

use crate::recovery::Begun;

/// The writers of a job's versions, in order; one that wrote several in a row stands once. A change
/// must be the claim of a new epoch.
pub fn of_job(sandbox: &Sandbox, begun: &Begun, job: &str) -> anyhow::Result<Vec<Uuid>> {
    let series = keys::job(&begun.cluster, &begun.id, &JobName::new(job)?);
    let mut writers: Vec<Uuid> = Vec::new();
    let mut epoch = 0;
    let mut objects = sandbox.s3.objects(series.prefix());
    objects.sort_by_key(|(key, _)| series.number(key));
    for (key, body) in objects {
        let version: Versioned<JobVersion> =
            serde_json::from_slice(&body).with_context(|| key.clone())?;
        let now = match &version.body {
            JobVersion::Full(record) => record.epoch,
            JobVersion::Delta { epoch, .. } => *epoch,
        };
        if writers.last() != Some(&version.writer) {
            ensure!(now == epoch + 1, "{key}: a new writer in epoch {now}");
            writers.push(version.writer);
        }
        epoch = now;
    }
    Ok(writers)
}

/// How many objects of the bucket a process wrote.
pub fn objects_by(sandbox: &Sandbox, writer: Uuid) -> usize {
    let writer = Value::String(writer.to_string());
    let all = sandbox.s3.objects("").into_iter();
    let bodies = all.filter_map(|(_, body)| serde_json::from_slice::<Value>(&body).ok());
    bodies
        .filter(|body| body.get("writer") == Some(&writer))
        .count()
}
