//! Restore: brings the database back from its backups, proves its data, and only then lets the applications run.
//!
//! ```text
//! choose ─→ guard ─→ generation ─→ freeze ─→ values ─→ restored ─→ data ─→ running ─→ settled ─→ thaw ─→ url
//! (S3, read)  (no living one)      (apps)    (switch)  (operator)  (SQL)   (switch)
//! ```
//!
//! The source is only read, and what the new database writes goes to a place of its own, which is on record before
//! anything is restored. A database that lives and was not made by this very recovery is never touched. Once the
//! applications are frozen, no failure thaws them: they wait for data that are proven.

mod choose;
mod generation;
mod guard;
mod link;
mod progress;
mod proof;
mod server;
mod thaw;
mod values;

use std::time::Duration;

use jiff::Timestamp;
use jobs::message::Restore;
use jobs::spec::{Application, Database};
use serde_json::json;

use crate::engine::{Again, Ctx, JobError, Patience, Poll, Proof, Proven};
use crate::pgbackrest::finished::{self, Restoring};
use crate::switch::{Handled, Switch, Values, namespace, values as values_of};

use choose::Chosen;
use proof::Data;

pub use choose::preview;
pub(super) use choose::{keys, repository, source};
pub(super) use link::{Kube, PERCONA, PGV2, database as cluster, get};

/// The step names.
pub const STEPS: &[&str] = &[
    "choose",
    "guard",
    "generation",
    "namespace",
    "freeze",
    "secret",
    "values",
    "asked",
    "ask",
    "restored",
    "data",
    "running",
    "settled",
    "proven",
    "thaw",
    "application",
    "url",
    "prove",
];

/// How long Flux may take until the namespaces and the Secrets are there.
const NAMESPACE: Duration = Duration::from_secs(30 * 60);
/// How long a restore may take beside its download: machines, images, WAL.
const RESTORE: Duration = Duration::from_secs(60 * 60);
/// Bytes in a second that a download surely reaches.
const SLOWEST: u64 = 4 << 20;
/// How long the database may take to answer, once it is ready.
const ANSWERS: Duration = Duration::from_secs(15 * 60);
/// How long the operator may take to go on without the source.
const SETTLE: Duration = Duration::from_secs(30 * 60);

/// Restores, and proves that the database and its applications are back.
pub async fn run(ctx: &Ctx, job: &Restore) -> Result<Proven, JobError> {
    let database = of_spec(ctx)?;
    let kube = Kube::new(ctx);

    let chosen: Chosen = ctx
        .step("choose", || choose::choose(ctx, database, job))
        .await?;
    // Before anything is on record: the record says which repository a living database writes.
    ctx.step("guard", || async {
        guard::check(kube.get().await?, database, None).await
    })
    .await?;
    let generation: String = ctx
        .step("generation", || generation::take(ctx, database, &chosen))
        .await?;

    let restored = bring_back(ctx, &kube, database, &chosen, &generation);
    let data = restored.await.map_err(|error| still_frozen(ctx, error))?;

    let thawed = thaw::all(ctx, &kube);
    thawed.await.map_err(|error| {
        while_doing(error, "bring the applications back to the proven database")
    })?;
    ctx.prove("restored", || async {
        let objects = kube.get().await?;
        let seen = progress::read(objects, database).await?;
        let state = finished::judge(database.cluster.as_str(), &seen).map_err(JobError::fatal)?;
        let record = crate::cluster::Cluster::of(ctx).database().await?;
        let proven = record.and_then(|record| record.restored);
        let proven = proven.filter(|restored| restored.proven);
        Ok::<_, JobError>(Proof {
            expected: json!({
                "database": "restored", "generation": generation, "system_id": chosen.system_id,
            }),
            observed: json!({
                "database": match &state {
                    Restoring::Finished => "restored".to_owned(),
                    other => format!("{other:?}"),
                },
                "generation": proven.as_ref().map(|restored| &restored.generation),
                "system_id": data.system_id,
                "set": chosen.set,
                "newest": data.newest,
                "rpo": data.rpo,
            }),
            holds: state == Restoring::Finished
                && proven.is_some_and(|restored| restored.generation == generation)
                && data.system_id == chosen.system_id,
        })
    })
    .await
}

/// Freezes the applications, restores, proves the data, and leaves the database running as it will run.
async fn bring_back(
    ctx: &Ctx,
    kube: &Kube<'_>,
    database: &Database,
    chosen: &Chosen,
    generation: &str,
) -> Result<Data, JobError> {
    for application in &ctx.spec().applications {
        freeze(ctx, kube, application).await?;
    }

    // A change starts a restore again, so the text is the same in each turn, and nothing is written twice.
    let restoring = values::restoring(database, chosen, generation)?;
    let patience = patience(ctx, NAMESPACE);
    let place = ("namespace", database.namespace.as_str());
    ctx.wait(place, patience, || async {
        namespace(kube.get().await?, &database.namespace).await
    })
    .await?;
    ctx.wait("secret", patience, || async {
        progress::keys_are_there(kube.get().await?, database).await
    })
    .await?;
    ctx.step("values", || async {
        let objects = kube.get().await?;
        guard::check(objects, database, Some(&restoring)).await?;
        link::write(objects, database, &restoring).await
    })
    .await?;
    ask(ctx, kube, database, "restoring").await?;
    wait_restored(ctx, kube, database, chosen).await?;

    let answers = self::patience(ctx, ANSWERS);
    let data: Data = ctx
        .wait("data", answers, || proof::look(ctx, kube, database, chosen))
        .await?;

    let running = values::running(database, chosen, generation)?;
    ctx.step("running", || async {
        let objects = kube.get().await?;
        link::write(objects, database, &running).await
    })
    .await?;
    let asked = ask(ctx, kube, database, "running").await?;
    wait_settled(ctx, kube, database, &asked).await?;
    ctx.step("proven", || generation::proven(ctx)).await?;
    Ok(data)
}

/// Stops an application: its switch, also before there is a release.
async fn freeze(ctx: &Ctx, kube: &Kube<'_>, application: &Application) -> Result<(), JobError> {
    let name = application.name.as_str();
    let key = ("namespace", format!("application/{name}"));
    ctx.wait(key, patience(ctx, NAMESPACE), || async {
        namespace(kube.get().await?, &application.namespace).await
    })
    .await?;
    ctx.step(("freeze", name), || async {
        let objects = kube.get().await?;
        let switch = Switch::of(objects, application);
        let frozen = |before: &Values| Ok(values_of::frozen(application, before));
        switch.write(frozen).await?;
        // Now, and not at its next interval. Nothing hangs on it: the pods only fail without a database.
        let release = link::release(objects, &application.namespace, &application.release);
        release.request(&Timestamp::now().to_string()).await
    })
    .await
    .map(|_: bool| ())
}

/// Asks the database's release to look at its switch now, if it is there; gives the text of the request. A job that
/// an operator puts back asks anew: the database may have been deleted since, and the release makes it again.
async fn ask(
    ctx: &Ctx,
    kube: &Kube<'_>,
    database: &Database,
    what: &str,
) -> Result<String, JobError> {
    let again = ctx.generation();
    let asked: String = ctx
        .step(("asked", format!("{what}/{again}")), || async {
            Ok::<_, JobError>(Timestamp::now().to_string())
        })
        .await?;
    ctx.step(("ask", format!("{what}/{again}")), || async {
        let objects = kube.get().await?;
        let release = link::release(objects, &database.namespace, &database.release);
        if again > 0 {
            link::force(objects, database, &asked).await?;
        }
        release.request(&asked).await
    })
    .await
    .map(|_: bool| asked.clone())
}

/// Waits until every object agrees that the database is restored. Fails early when it will not be.
async fn wait_restored(
    ctx: &Ctx,
    kube: &Kube<'_>,
    database: &Database,
    chosen: &Chosen,
) -> Result<(), JobError> {
    ctx.wait("restored", patience(ctx, deadline(chosen)), || async {
        let objects = kube.get().await?;
        let seen = progress::read(objects, database).await?;
        let state = finished::judge(database.cluster.as_str(), &seen).map_err(JobError::fatal)?;
        match state {
            Restoring::Finished => Ok(Poll::Ready(())),
            Restoring::Running { progress, trouble } => {
                let release = link::release(objects, &database.namespace, &database.release);
                let release = match release.look(None).await? {
                    Handled::Failed(why) => Some(format!("{release}: {why}")),
                    Handled::Absent => Some(format!("there is no {release} yet")),
                    Handled::NotYet(_) | Handled::Ready(_) => None,
                };
                Ok(Poll::Pending(progress::text(
                    chosen,
                    &progress,
                    trouble.or(release),
                )))
            }
            Restoring::Failed { reason } => {
                let log = progress::last_words(ctx, objects, database, &seen).await;
                Err(JobError::fatal(progress::failed(database, &reason, log)))
            }
            Restoring::Contradiction { what } => Err(JobError::fatal(format!(
                "{what}; look at {PERCONA} {}/{} before anything else is done",
                database.namespace, database.cluster
            ))),
        }
    })
    .await
}

/// Waits until the operator goes on without the source, and the database is what it was.
async fn wait_settled(
    ctx: &Ctx,
    kube: &Kube<'_>,
    database: &Database,
    asked: &str,
) -> Result<(), JobError> {
    ctx.wait("settled", patience(ctx, SETTLE), || async {
        let objects = kube.get().await?;
        let release = link::release(objects, &database.namespace, &database.release);
        let handled = match release.look(Some(asked)).await? {
            Handled::Ready(_) => None,
            Handled::Absent => Some(format!("there is no {release}")),
            Handled::NotYet(why) | Handled::Failed(why) => Some(format!("{release}: {why}")),
        };
        let seen = progress::read(objects, database).await?;
        let state = finished::judge(database.cluster.as_str(), &seen).map_err(JobError::fatal)?;
        progress::settled(handled, &seen, state)
    })
    .await
}

/// The section of the spec that says what is restored.
pub(super) fn of_spec(ctx: &Ctx) -> Result<&Database, JobError> {
    let missing = "the spec has no `database` section, which says what is restored and from where";
    let database = ctx.spec().database.as_ref();
    database.ok_or_else(|| JobError::fatal(missing))
}

/// How long is waited at most, and how often is looked.
pub(super) fn patience(ctx: &Ctx, deadline: Duration) -> Patience {
    Patience {
        every: ctx.world().poll.unwrap_or(Duration::from_secs(10)),
        deadline,
    }
}

/// How long the restore may take.
fn deadline(chosen: &Chosen) -> Duration {
    RESTORE + Duration::from_secs(chosen.download / SLOWEST)
}

/// Says what a failure leaves: applications that do not run.
fn still_frozen(ctx: &Ctx, error: JobError) -> JobError {
    let applications = &ctx.spec().applications;
    if applications.is_empty() {
        return error;
    }
    let names: Vec<&str> = applications.iter().map(|a| a.name.as_str()).collect();
    let doing = format!(
        "restore the database (until its data are proven the applications stay frozen: {})",
        names.join(", ")
    );
    while_doing(error, &doing)
}

/// What we were doing, unless nothing failed.
fn while_doing(error: JobError, doing: &str) -> JobError {
    match error.again {
        Again::Interrupted(_) => error,
        _ => error.while_doing(doing),
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use crate::pgbackrest::{Label, Loss, Target};
    use jobs::spec::SystemId;

    use super::*;

    pub(in crate::jobs) fn database() -> Database {
        serde_json::from_value(json!({
            "namespace": "pg", "cluster": "pg-db", "release": "pg-db", "switch": "pg-db-values-switch",
            "backups": {
                "store": {"bucket": "pgbak", "endpoint": "storage.example.org"},
                "path": "/pgbackrest/repo1", "secret": "clo-s3-secret",
            },
            "taints": ["postgresqltaint=yestaint:NoSchedule"],
            "proofs": [
                {"name": "orders", "database": "slr", "sql": "select count(*) from orders", "at_least": 10},
                {"name": "canary", "database": "slr", "sql": "select word from canary", "equals": "tweet"},
            ],
        }))
        .unwrap()
    }

    pub(in crate::jobs::restore) fn chosen() -> Chosen {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let failure = at("2026-11-23T02:00:00Z");
        let recovers_to = at("2026-11-23T01:59:00Z");
        Chosen {
            from: "/pgbackrest/repo1".into(),
            set: Label::parse("20261123-013502F").unwrap(),
            target: Target::End,
            system_id: SystemId(7_412_345_678_901_234_567),
            version: "17".into(),
            timeline: 3,
            wal: "0000000300000000000000A1".into(),
            download: 8 << 30,
            size: 20 << 30,
            loss: Loss {
                failure,
                recovers_to,
                rpo: failure.duration_since(recovers_to),
            },
            notes: vec![],
            at: at("2026-11-23T02:10:00Z"),
        }
    }

    #[test]
    fn a_large_set_has_more_time() {
        let mut chosen = chosen();
        assert_eq!(deadline(&chosen), RESTORE + Duration::from_secs(2048));
        chosen.download = 0;
        assert_eq!(deadline(&chosen), RESTORE);
    }

    #[test]
    fn what_was_chosen_comes_back_from_the_record_as_it_was() {
        let chosen = chosen();
        let text = serde_json::to_string(&chosen).unwrap();
        assert_eq!(serde_json::from_str::<Chosen>(&text).unwrap(), chosen);
        // A system id does not fit into the numbers of other programs.
        assert!(text.contains("\"7412345678901234567\""), "{text}");
        let forged = text.replace("20261123-013502F", "x; rm -rf /");
        serde_json::from_str::<Chosen>(&forged).unwrap_err();
    }
}
