//! How the restore stands: the objects that tell, and what they come to in words.

use jobs::spec::Database;
use serde_json::Value;

use super::choose::{self, Chosen};
use super::link::{self, PERCONA, PGV2, get};
use crate::engine::{Ctx, JobError, Poll};
use crate::kube::Objects;
use crate::pgbackrest::finished::{self, Restoring};
use crate::pgbackrest::size;
use crate::sealed;

/// The groups of the operator's inner kinds: that of 3.0.0, and the one before.
const INNER: [&str; 2] = [
    "upstream.pgv2.percona.com/v1beta1",
    "postgres-operator.crunchydata.com/v1beta1",
];
/// The container that restores.
const CONTAINER: &str = "pgbackrest-restore";
/// Lines of a log that are asked for.
const LINES: usize = 30;
/// Most characters of a log in an error.
const MOST: usize = 900;

/// Reads everything that tells how the restore stands.
pub(super) async fn read(
    objects: &Objects,
    database: &Database,
) -> Result<finished::Objects, JobError> {
    let (namespace, name) = (&database.namespace, database.cluster.as_str());
    let mut inner = None;
    for version in INNER {
        inner = match inner {
            None => get(objects, (version, "PostgresCluster"), namespace, name).await?,
            found => found,
        };
    }
    let restore = format!("{name}-bootstrap");
    let pods = objects
        .list("v1", "Pod", Some(namespace.as_str()), "")
        .await?;
    Ok(finished::Objects {
        cluster: link::database(objects, database).await?,
        inner,
        restore: get(objects, (PGV2, "PerconaPGRestore"), namespace, &restore).await?,
        job: get(objects, ("batch/v1", "Job"), namespace, &job(name)).await?,
        pods: pods.into_iter().filter(|pod| is_ours(pod, name)).collect(),
    })
}

/// Whether the Secret with the bucket's keys is there: without it the restore's Pod would wait for ever.
pub(super) async fn keys_are_there(
    objects: &Objects,
    database: &Database,
) -> Result<Poll<()>, JobError> {
    let (namespace, name) = (&database.namespace, &database.backups.secret);
    let found = get(objects, ("v1", "Secret"), namespace, name.as_str()).await?;
    Ok(match found {
        Some(_) => Poll::Ready(()),
        None => Poll::Pending(format!(
            "there is no Secret {namespace}/{name} with the keys of the backups: Flux decrypts it, or \
             `rekindle secret` makes it"
        )),
    })
}

fn job(cluster: &str) -> String {
    format!("{cluster}-pgbackrest-restore")
}

/// The Pods of the restore's Job and of the database. The prefix of the operator's labels is not the same in all of
/// its versions.
fn is_ours(pod: &Value, cluster: &str) -> bool {
    let empty = serde_json::Map::new();
    let labels = pod["metadata"]["labels"].as_object().unwrap_or(&empty);
    let label = |suffix: &str, value: &str| {
        labels
            .iter()
            .any(|(key, there)| key.ends_with(suffix) && there == value)
    };
    is_of_job(pod, cluster) || (label("/cluster", cluster) && label("/data", "postgres"))
}

fn is_of_job(pod: &Value, cluster: &str) -> bool {
    pod["metadata"]["labels"]["job-name"] == job(cluster)
}

/// One line for people who wait.
pub(super) fn text(chosen: &Chosen, progress: &str, trouble: Option<String>) -> String {
    let what = format!(
        "{progress} (set {}, {} for {} on disk)",
        chosen.set,
        size(chosen.download),
        size(chosen.size)
    );
    match trouble {
        Some(trouble) => format!("{what}; {trouble}"),
        None => what,
    }
}

/// Whether the database goes on without its source, as it was restored. What stands in its way then, such as an agent
/// that does not find its server, may be mended while we wait.
pub(super) fn settled(
    release: Option<String>,
    seen: &finished::Objects,
    state: Restoring,
) -> Result<Poll<()>, JobError> {
    let wait = |text: String| Ok(Poll::Pending(text));
    match state {
        Restoring::Contradiction { what } => Err(JobError::fatal(format!(
            "after its restore the database did not stay what it was: {what}"
        ))),
        Restoring::Failed { reason } => wait(reason),
        _ if release.is_some() => wait(release.unwrap_or_default()),
        _ if has_source(seen) => wait(format!("the {PERCONA} still has its source")),
        Restoring::Running { progress, trouble } => wait(match trouble {
            Some(trouble) => format!("{progress}; {trouble}"),
            None => progress,
        }),
        Restoring::Finished => Ok(Poll::Ready(())),
    }
}

fn has_source(seen: &finished::Objects) -> bool {
    let source = seen.cluster.as_ref().map(|it| &it["spec"]["dataSource"]);
    source.is_some_and(|source| !source.is_null())
}

/// What the container that restores has said last, without the bucket's keys. That it cannot be read is no reason
/// to fail otherwise.
pub(super) async fn last_words(
    ctx: &Ctx,
    objects: &Objects,
    database: &Database,
    seen: &finished::Objects,
) -> Option<String> {
    let cluster = database.cluster.as_str();
    let created = |pod: &&Value| {
        pod["metadata"]["creationTimestamp"]
            .as_str()
            .map(str::to_owned)
    };
    let of_job = seen.pods.iter().filter(|pod| is_of_job(pod, cluster));
    let pod = of_job.max_by_key(created)?["metadata"]["name"].as_str()?;
    let path = format!(
        "/api/v1/namespaces/{}/pods/{pod}/log?container={CONTAINER}&tailLines={LINES}",
        database.namespace
    );
    let request = http::Request::get(path).body(Vec::new()).ok()?;
    let log = objects.client().request_text(request).await.ok()?;
    let secrets = sealed::secrets(ctx).await.ok()?;
    let keys = choose::keys(&secrets).ok()?;
    presentable(&log, &choose::texts(&keys))
}

/// The end of a log: from its first error on if it has one, and no secret.
fn presentable(log: &str, secrets: &[&str]) -> Option<String> {
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    let first = lines.iter().position(|line| line.contains("ERROR"));
    let from = first.unwrap_or(lines.len().saturating_sub(5));
    let mut text = lines[from..].join(" | ");
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "…");
    }
    if let Some((at, _)) = text.char_indices().nth(MOST) {
        text = format!("{}…", &text[..at]);
    }
    (!text.is_empty()).then_some(text)
}

/// What is said when the restore has failed.
pub(super) fn failed(database: &Database, reason: &str, log: Option<String>) -> String {
    let log = log.map_or_else(String::new, |log| format!("; its log: {log}"));
    let (namespace, cluster) = (&database.namespace, &database.cluster);
    // The operator makes no other PerconaPGRestore while one is there, of whichever cluster it tells.
    format!(
        "{reason}{log}; when its cause is gone, delete {PERCONA} {namespace}/{cluster}, which holds no data of its own \
         yet, with its claims, and PerconaPGRestore {namespace}/{cluster}-bootstrap, then `rekindle retry`"
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;
    use crate::jobs::restore::tests::chosen;

    #[test]
    fn pods_of_the_job_and_of_the_database_count_and_others_not() {
        let check = |labels: Value, ours: bool| {
            let pod = json!({"metadata": {"labels": labels}});
            assert_eq!(is_ours(&pod, "pg-db"), ours, "{pod}");
        };
        check(json!({"job-name": "pg-db-pgbackrest-restore"}), true);
        for prefix in [
            "postgres-operator.crunchydata.com",
            "upstream.pgv2.percona.com",
        ] {
            let label = |name: &str| format!("{prefix}/{name}");
            check(
                json!({label("cluster"): "pg-db", label("data"): "postgres"}),
                true,
            );
            check(
                json!({label("cluster"): "pg-db", label("role"): "pgbouncer"}),
                false,
            );
            check(
                json!({label("cluster"): "other", label("data"): "postgres"}),
                false,
            );
        }
        check(json!({"job-name": "pg-db-backup-x"}), false);
        check(Value::Null, false);
    }

    #[test]
    fn the_end_of_a_log_has_the_error_and_no_key() {
        let log = "P00   INFO: restore command begin\nP00  ERROR: [055]: unable to load info, key AKIAX\n\nP00   INFO: end\n";
        let text = presentable(log, &["AKIAX", "", "hunter2"]).unwrap();
        assert_eq!(
            text,
            "P00  ERROR: [055]: unable to load info, key … | P00   INFO: end"
        );
        assert_eq!(presentable("a\nb", &[]).unwrap(), "a | b");
        assert_eq!(presentable("\n", &[]), None);
        let long = presentable(&format!("ERROR {}", "ü".repeat(2 * MOST)), &[]).unwrap();
        assert_eq!(long.chars().count(), MOST + 1);
    }

    #[test]
    fn it_is_settled_when_the_source_is_gone_and_nothing_else_changed() {
        let seen = |source: Value| finished::Objects {
            cluster: Some(json!({"spec": {"dataSource": source}})),
            ..finished::Objects::default()
        };
        let running = || Restoring::Running {
            progress: "2 of 3".into(),
            trouble: Some("a Pod".into()),
        };
        let check =
            |release: Option<&str>, source: Value, state: Restoring, expected: Option<&str>| {
                let release = release.map(str::to_owned);
                match settled(release, &seen(source), state).unwrap() {
                    Poll::Ready(()) => assert_eq!(expected, None),
                    Poll::Pending(text) => assert!(text.contains(expected.unwrap()), "{text}"),
                }
            };
        check(None, Value::Null, Restoring::Finished, None);
        check(
            Some("not yet"),
            Value::Null,
            Restoring::Finished,
            Some("not yet"),
        );
        check(
            None,
            json!({"pgbackrest": {}}),
            Restoring::Finished,
            Some("source"),
        );
        check(None, Value::Null, running(), Some("2 of 3; a Pod"));
        let agent = Restoring::Failed {
            reason: "container pmm-client dies".into(),
        };
        check(None, Value::Null, agent, Some("pmm-client"));
        let other = Restoring::Contradiction { what: "x".into() };
        settled(None, &seen(Value::Null), other).unwrap_err();
    }

    #[test]
    fn who_waits_is_told_how_far_it_is() {
        let told = text(&chosen(), "files are copied", Some("image".into()));
        assert_eq!(
            told,
            "files are copied (set 20261123-013502F, 8.0 GiB for 20.0 GiB on disk); image"
        );
    }
}
