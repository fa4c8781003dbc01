//! What a report says of the load test: the verdict, and what was made for it, taken away, and left.

use jobs::message::Job;
use jobs::record::{JobRecord, LoadResult, Temporary};
use serde::Serialize;
use serde_json::Value;

use super::document::Recorded;

/// The load test of a recovery.
#[derive(Debug, Serialize)]
pub(super) struct Load {
    /// Whether the application bore it, as far as that can be trusted.
    pub(super) passed: bool,
    /// Requests in a second, all runners together.
    pub(super) requests_per_second: Option<f64>,
    #[serde(flatten)]
    pub(super) result: LoadResult,
}

/// What a load test made for a while.
#[derive(Debug, Default, Serialize)]
pub(super) struct Temporaries {
    pub(super) created: Vec<Temporary>,
    pub(super) deleted: Vec<Temporary>,
    /// Found after the clean-up. Nothing is known while there was none.
    pub(super) left: Option<Vec<Temporary>>,
}

/// The result of the load test, if one came to a result.
pub(super) fn load(records: &[Recorded]) -> Option<Load> {
    let record = begun(records, |job| matches!(job, Job::LoadTest(_)))?;
    let result = LoadResult::of(record)?;
    Some(Load {
        passed: result.passed(),
        requests_per_second: result.total.as_ref().and_then(|total| total.rate()),
        result,
    })
}

/// What it made, and what became of that, if it made anything or cleaned up.
pub(super) fn temporaries(records: &[Recorded]) -> Option<Temporaries> {
    let mut found = Temporaries::default();
    if let Some(test) = begun(records, |job| matches!(job, Job::LoadTest(_))) {
        let mut steps: Vec<_> = test.steps.values().collect();
        steps.sort_by_key(|step| step.n);
        for step in steps {
            collect(&step.output, &mut found.created);
        }
    }
    let clean_up = begun(records, |job| *job == Job::LoadTestCleanUp);
    if let Some(proof) = clean_up.and_then(|record| record.steps.get("prove/clean")) {
        let observed = &proof.output["observed"];
        collect(&observed["deleted"], &mut found.deleted);
        collect(&observed["left"], found.left.get_or_insert_default());
    }
    let any = !found.created.is_empty() || !found.deleted.is_empty() || found.left.is_some();
    any.then_some(found)
}

/// Every temporary thing that a step's output names, wherever it stands in it.
fn collect(value: &Value, found: &mut Vec<Temporary>) {
    match value {
        Value::Object(fields) => match serde_json::from_value::<Temporary>(value.clone()) {
            Ok(temporary) if !found.contains(&temporary) => found.push(temporary),
            Ok(_) => {}
            Err(_) => fields.values().for_each(|value| collect(value, found)),
        },
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

fn begun(records: &[Recorded], is: impl Fn(&Job) -> bool) -> Option<&JobRecord> {
    let begun = records.iter().filter_map(|(_, record)| record.as_ref());
    begun.rev().find(|record| is(&record.payload))
}
