//! What the operator is told by the database's switch: while it restores, and ever after.

use jobs::spec::Database;
use serde_json::{Map, Value};

use super::choose::Chosen;
use crate::engine::JobError;
use crate::pgbackrest::{Location, Source, SourceError, Toleration, Values};

/// The values that restore what was chosen, with new backups at `generation`.
pub(super) fn restoring(
    database: &Database,
    chosen: &Chosen,
    generation: &str,
) -> Result<Map<String, Value>, JobError> {
    let (source, new) = places(database, chosen, generation)?;
    plain(Values::restoring(&source, &chosen.set, chosen.target, &new))
}

/// The values after it, with new backups at the same place.
pub(super) fn running(
    database: &Database,
    chosen: &Chosen,
    generation: &str,
) -> Result<Map<String, Value>, JobError> {
    let (source, new) = places(database, chosen, generation)?;
    plain(Values::running(&source, &new))
}

fn plain(values: Result<Values, SourceError>) -> Result<Map<String, Value>, JobError> {
    let values = values.map_err(JobError::fatal)?;
    match serde_json::to_value(values) {
        Ok(Value::Object(map)) => Ok(map),
        other => Err(JobError::fatal(format!("the values are no map: {other:?}"))),
    }
}

fn places(
    database: &Database,
    chosen: &Chosen,
    generation: &str,
) -> Result<(Source, Location), JobError> {
    let backups = &database.backups;
    let location = Location {
        bucket: backups.store.bucket.clone(),
        endpoint: backups.store.endpoint.clone(),
        region: backups.store.region.clone(),
        path: chosen.from.clone(),
    };
    let new = Location {
        path: generation.to_owned(),
        ..location.clone()
    };
    let tolerations = database.taints.iter().map(|taint| toleration(taint));
    let source = Source {
        location,
        stanza: backups.stanza.clone(),
        repo: backups.repo.clone(),
        secret: backups.secret.to_string(),
        path_style: backups.store.path_style,
        tolerations: tolerations.collect::<Result<_, _>>()?,
    };
    Ok((source, new))
}

/// What tolerates a taint, `key=value:Effect` or `key:Effect`.
fn toleration(taint: &str) -> Result<Toleration, JobError> {
    let wrong = || {
        JobError::fatal(format!(
            "database.taints: `{taint}` is not `key=value:Effect`"
        ))
    };
    let (rest, effect) = taint.rsplit_once(':').ok_or_else(wrong)?;
    let (key, value) = match rest.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (rest, None),
    };
    if key.is_empty() || effect.is_empty() {
        return Err(wrong());
    }
    Ok(Toleration {
        key: Some(key.into()),
        operator: Some(if value.is_some() { "Equal" } else { "Exists" }.into()),
        value: value.map(str::to_owned),
        effect: Some(effect.into()),
        toleration_seconds: None,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;
    use crate::jobs::restore::tests::{chosen, database};

    #[test]
    fn a_restore_reads_the_source_writes_elsewhere_and_leaves_only_that_place() {
        let (database, chosen) = (database(), chosen());
        let generation = "/pgbackrest/test/r-1";
        let restoring = Value::Object(restoring(&database, &chosen, generation).unwrap());
        let source = &restoring["dataSource"]["pgbackrest"];
        assert_eq!(source["global"], json!({"repo1-path": "/pgbackrest/repo1"}));
        assert_eq!(source["options"], json!([format!("--set={}", chosen.set)]));
        assert_eq!(
            source["tolerations"],
            json!([{"key": "postgresqltaint", "operator": "Equal", "value": "yestaint", "effect": "NoSchedule"}])
        );
        assert_eq!(
            source["configuration"],
            json!([{"secret": {"name": "clo-s3-secret"}}])
        );
        assert!(restoring["dataSource"].get("postgresCluster").is_none());
        let new = json!({"pgbackrest": {"global": {"repo1-path": generation}}});
        assert_eq!(restoring["backups"], new);
        let running = Value::Object(running(&database, &chosen, generation).unwrap());
        assert_eq!(running, json!({ "backups": new }));
    }

    #[test]
    fn new_backups_never_go_into_the_source() {
        for generation in ["/pgbackrest/repo1", "/pgbackrest/repo1/x", "/pgbackrest"] {
            let error = restoring(&database(), &chosen(), generation).unwrap_err();
            assert!(error.to_string().contains("source repository"), "{error}");
            running(&database(), &chosen(), generation).unwrap_err();
        }
    }

    #[test]
    fn taints_become_tolerations() {
        let of = |taint| serde_json::to_value(toleration(taint).unwrap()).unwrap();
        assert_eq!(
            of("a=b:NoExecute"),
            json!({"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute"})
        );
        assert_eq!(
            of("a:NoSchedule"),
            json!({"key": "a", "operator": "Exists", "effect": "NoSchedule"})
        );
        for wrong in ["a=b", ":NoSchedule", "a=b:"] {
            toleration(wrong).unwrap_err();
        }
    }
}
