//! The restore of a cluster from its data source, and the `PerconaPGRestore` that tells of it.

use serde_json::{Value, json};

use super::cluster::Inner;
use super::job::{self, Ended, Stage};
use super::json::{condition, is_true, number, remove_condition, set_condition, text};
use super::pgbackrest::{self, Failed};
use super::repository::Repository;
use super::source::Source;
use super::{CRUNCHY, Fault, MANAGER, PERCONA, Percona};
use crate::operators::Tick;
use crate::postgres::{Content, Data};

const INITIALIZED: &str = "PostgresDataInitialized";
const PROGRESSING: &str = "PGBackRestoreProgressing";
const HASH: &str = "postgres-operator.crunchydata.com/pgbackrest-hash";
const BOOTSTRAP: &str = "pgv2.percona.com/cluster-bootstrap-restore";

impl Percona {
    /// Makes the object that tells of the restore of a new cluster. One that is there stays, also of an earlier cluster.
    pub(super) async fn bootstrap_restore(
        &self,
        tick: &Tick,
        cluster: &Value,
    ) -> anyhow::Result<()> {
        let Some(source) = Source::of(cluster) else {
            return Ok(());
        };
        let (namespace, name) = (
            text(cluster, "/metadata/namespace"),
            text(cluster, "/metadata/name"),
        );
        let of = format!("{name}-bootstrap");
        if tick
            .cluster
            .get(PERCONA, "PerconaPGRestore", namespace, &of)
            .await?
            .is_none()
        {
            let restore = json!({ "apiVersion": PERCONA, "kind": "PerconaPGRestore",
                "metadata": { "name": of, "namespace": namespace, "annotations": { BOOTSTRAP: "true" } },
                "spec": { "pgCluster": name, "repoName": source.repo } });
            tick.cluster.apply(MANAGER, &restore).await?;
        }
        Ok(())
    }

    /// Brings a `PerconaPGRestore` on: it mirrors the Job, and nothing else.
    pub(super) async fn restore(
        &mut self,
        tick: &Tick,
        restore: &Value,
        cluster: Option<&Value>,
    ) -> anyhow::Result<()> {
        let bootstrap = text(
            &restore["metadata"]["annotations"],
            "/pgv2.percona.com~1cluster-bootstrap-restore",
        ) == "true";
        let (Some(cluster), true) = (cluster, bootstrap) else {
            return Ok(());
        };
        let namespace = text(cluster, "/metadata/namespace");
        let name = format!("{}-pgbackrest-restore", text(cluster, "/metadata/name"));
        let job = tick
            .cluster
            .get("batch/v1", "Job", namespace, &name)
            .await?;
        let status = match (text(restore, "/status/state"), job) {
            ("", _) => json!({ "state": "Starting" }),
            ("Starting", Some(_)) if !self.faults.has(&Fault::RestoreObjectStaysStarting) => {
                json!({ "state": "Running" })
            }
            ("Running", Some(job)) if is_true(&job["status"], "Failed") => {
                json!({ "state": "Failed", "jobName": name })
            }
            ("Running", Some(job)) if is_true(&job["status"], "Complete") => {
                json!({ "state": "Succeeded", "jobName": name, "completed": job["status"]["completionTime"] })
            }
            // Not begun; not finished; or vanished, which it never gets over.
            _ => return Ok(()),
        };
        tick.cluster.set_status(MANAGER, restore, &status).await?;
        Ok(())
    }

    /// Initializes the data of a cluster from its source; whether the rest of the cluster may go on.
    pub(super) async fn data_source(
        &mut self,
        tick: &Tick,
        inner: &mut Inner,
        source: &Source,
    ) -> anyhow::Result<bool> {
        let job = tick
            .cluster
            .get(
                "batch/v1",
                "Job",
                &inner.namespace,
                &format!("{}-pgbackrest-restore", inner.name),
            )
            .await?;
        observe(inner, job.as_ref());
        let id = format!("~pgo-bootstrap-{}", inner.name);
        let status = &inner.status;
        let other_id = text(status, "/pgbackrest/restore/id") != id;
        let in_place = is_true(status, PROGRESSING);
        let prepared =
            condition(status, PROGRESSING).is_some_and(|c| c["reason"] == "ReadyForRestore");
        let changed = job
            .as_ref()
            .is_some_and(|job| job["metadata"]["annotations"][HASH] != source.hash().as_str());
        if (in_place && (!prepared || changed)) || other_id {
            self.prepare(tick, inner, job.as_ref(), &id).await?;
            return Ok(false);
        }
        if is_true(status, INITIALIZED) {
            return Ok(true);
        }
        if !text(status, "/patroni/systemIdentifier").is_empty() {
            inner.condition(
                INITIALIZED,
                "True",
                "ClusterAlreadyBootstrapped",
                "The cluster is already bootstrapped",
            );
            return Ok(false);
        }
        if let Some(why) = self.invalid(tick, inner, source).await? {
            job::event(tick, &inner.object, "InvalidDataSource", &why).await?;
            return Ok(false);
        }
        let Some(job) = job else {
            let labels = json!({ format!("{}cluster", job::LABELS): inner.name, format!("{}pgbackrest", job::LABELS): "",
                format!("{}pgbackrest-restore", job::LABELS): "" });
            let annotations = json!({ HASH: source.hash() });
            let name = format!("{}-pgbackrest-restore", inner.name);
            let job = job::job(
                &inner.object,
                &name,
                "pgbackrest-restore",
                &labels,
                &annotations,
                &source.tolerations,
            );
            tick.cluster.apply(MANAGER, &job).await?;
            return Ok(false);
        };
        self.play_restore(tick, inner, source, &job).await?;
        Ok(false)
    }

    /// Why a source is not one, in the words of the event.
    async fn invalid(
        &self,
        tick: &Tick,
        inner: &Inner,
        source: &Source,
    ) -> anyhow::Result<Option<String>> {
        if let Some((namespace, name)) = &source.cluster {
            let of = match (namespace, name) == (&inner.namespace, &inner.name) {
                true => Some(inner.object.clone()),
                false => {
                    tick.cluster
                        .get(CRUNCHY, "PostgresCluster", namespace, name)
                        .await?
                }
            };
            let Some(of) = of else {
                return Ok(Some(format!("PostgresCluster \"{name}\" does not exist")));
            };
            if super::source::own(&of, &source.repo).is_none() {
                let words = format!(
                    "PostgresCluster \"{name}\" does not have a repo named \"{}\" defined",
                    source.repo
                );
                return Ok(Some(words));
            }
        }
        Ok(source.forbidden().map(str::to_owned))
    }

    /// Stops what runs and takes away what stands in the way, a thing a tick. Nobody asks whether the data are in use.
    async fn prepare(
        &mut self,
        tick: &Tick,
        inner: &mut Inner,
        job: Option<&Value>,
        id: &str,
    ) -> anyhow::Result<()> {
        inner.status["pgbackrest"] = json!({ "restore": { "id": id } });
        let preparing = |inner: &mut Inner, what: &str| {
            let words = format!("Preparing cluster to restore in-place: {what}");
            inner.condition(PROGRESSING, "True", "RestoreInPlaceRequested", &words);
        };
        if let Some(job) = job {
            preparing(inner, "removing restore job");
            return job::delete(tick, job).await;
        }
        let disk = inner.disk();
        if self
            .settings
            .disks
            .with(&disk, |disk| std::mem::take(&mut disk.running))
        {
            preparing(inner, "removing runners");
            return inner.remove_instances(tick).await;
        }
        if !text(&inner.status, "/patroni/systemIdentifier").is_empty() {
            preparing(inner, "removing DCS");
            inner.status["patroni"] = json!({});
            return Ok(());
        }
        remove_condition(&mut inner.status, INITIALIZED);
        inner.condition(
            PROGRESSING,
            "True",
            "ReadyForRestore",
            "Restoring cluster in-place",
        );
        Ok(())
    }

    async fn play_restore(
        &mut self,
        tick: &Tick,
        inner: &Inner,
        source: &Source,
        job: &Value,
    ) -> anyhow::Result<()> {
        let of = match &source.cluster {
            Some((namespace, name)) if (namespace, name) != (&inner.namespace, &inner.name) => {
                let found = tick
                    .cluster
                    .get(CRUNCHY, "PostgresCluster", namespace, name)
                    .await?;
                found.unwrap_or_default()
            }
            _ => inner.object.clone(),
        };
        let located = source.located(&of);
        let secrets = located
            .as_ref()
            .map(|located| located.secrets.clone())
            .unwrap_or_default();
        let disk = inner.disk();
        match self.play(tick, job, &secrets).await? {
            Stage::Over | Stage::Waits => Ok(()),
            Stage::Began(_) => {
                self.settings.disks.with(&disk, |disk| {
                    disk.destroyed += u32::from(matches!(disk.content, Content::Data(_)));
                    disk.content = Content::Half;
                });
                Ok(())
            }
            Stage::Ends(pod) => {
                let words = self.faults.find(|fault| match fault {
                    Fault::RestoreJobFails(words) => Some(words.clone()),
                    _ => None,
                });
                let outcome = match (words, located) {
                    (Some(words), _) => {
                        let code = words
                            .split(['[', ']'])
                            .nth(1)
                            .and_then(|code| code.parse().ok())
                            .unwrap_or(1);
                        Err(Failed { code, words })
                    }
                    (None, None) => Err(Failed {
                        code: 37,
                        words: "ERROR: [037]: restore command requires option: repo1-s3-bucket"
                            .into(),
                    }),
                    (None, Some(located)) => {
                        let repository = Repository {
                            store: self.settings.bucket.as_ref(),
                            keys: self.keys(tick, &inner.namespace, &located).await?,
                            bucket: located.bucket,
                            path: located.path,
                            stanza: source.stanza.clone(),
                        };
                        pgbackrest::restore(&repository, &self.settings.archives, &source.options)
                            .await
                    }
                };
                let ended = match outcome {
                    Ok(data) => {
                        let data = self.spoiled(data);
                        self.settings
                            .disks
                            .with(&disk, |disk| disk.content = Content::Data(Box::new(data)));
                        Ended {
                            code: 0,
                            log: "INFO: restore command end: completed successfully".to_owned(),
                        }
                    }
                    Err(failed) => Ended {
                        code: failed.code,
                        log: failed.words,
                    },
                };
                self.end(tick, job, &pod, &ended).await
            }
        }
    }

    /// What comes back when all signs are good and the data are not.
    fn spoiled(&self, mut data: Data) -> Data {
        if self.faults.has(&Fault::ReadyWithoutData) {
            for table in data
                .databases
                .values_mut()
                .flat_map(|tables| tables.values_mut())
            {
                table.rows.clear();
            }
        }
        if self.faults.has(&Fault::WrongSystemId) {
            data.system_id ^= 0xFFFF;
        }
        data
    }
}

/// Copies what the Job says of itself into the status.
fn observe(inner: &mut Inner, job: Option<&Value>) {
    let Some(job) = job else {
        return;
    };
    let of_job = &job["status"];
    let (complete, failed) = (is_true(of_job, "Complete"), is_true(of_job, "Failed"));
    if inner.status["pgbackrest"]["restore"].is_object() {
        let restore = &mut inner.status["pgbackrest"]["restore"];
        for moment in ["startTime", "completionTime"] {
            if of_job[moment].is_string() {
                restore[moment] = of_job[moment].clone();
            }
        }
        for count in ["succeeded", "failed", "active"] {
            // Zero is left out.
            match number(of_job, &format!("/{count}")) {
                0 => drop(
                    restore
                        .as_object_mut()
                        .and_then(|restore| restore.remove(count)),
                ),
                some => restore[count] = json!(some),
            }
        }
        if complete || failed {
            restore["finished"] = json!(true);
        }
    }
    if complete {
        inner.condition(
            INITIALIZED,
            "True",
            "PGBackRestRestoreComplete",
            "pgBackRest restore completed successfully",
        );
        remove_condition(&mut inner.status, PROGRESSING);
    } else if failed {
        inner.condition(
            INITIALIZED,
            "False",
            "PGBackRestRestoreFailed",
            "pgBackRest restore failed",
        );
    }
}

impl Inner {
    pub(super) fn condition(&mut self, kind: &str, is: &str, reason: &str, message: &str) {
        let generation = number(&self.object, "/metadata/generation");
        set_condition(&mut self.status, generation, kind, is, reason, message);
    }
}
