//! Backups: the one that a new cluster makes by itself, and those that are asked for.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::cluster::Inner;
use super::job::{self, Ended, Stage};
use super::json::{condition, is_true, text, texts};
use super::pgbackrest::{self, Failed, Made};
use super::repository::Repository;
use super::source::own;
use super::{CRUNCHY, Fault, MANAGER, PERCONA, Percona};
use crate::operators::Tick;

const IN_PROGRESS: &str = "pgv2.percona.com/backup-in-progress";
const OF_JOB: &str = "pgv2.percona.com/pgbackrest-backup-job-name";

/// How long a backup waits for a cluster that is not ready for it.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

impl Percona {
    /// The backup without which no replica can be made anew.
    pub(super) async fn first_backup(
        &mut self,
        tick: &Tick,
        inner: &mut Inner,
        repo: &str,
    ) -> anyhow::Result<()> {
        if inner.status["pgbackrest"]["repos"][0]["replicaCreateBackupComplete"] == true {
            return Ok(());
        }
        // Of each cluster its own: what an earlier one of the same name left is not taken for it.
        let id = text(&inner.object, "/metadata/uid");
        let name = format!("{}-backup-{:.4}", inner.name, id);
        let job = self
            .backup_job(tick, &inner.object, &name, repo, "replica-create")
            .await?;
        let of_backup = format!("{name}-{}", id.get(4..8).unwrap_or_default());
        if tick
            .cluster
            .get(PERCONA, "PerconaPGBackup", &inner.namespace, &of_backup)
            .await?
            .is_none()
        {
            let backup = json!({ "apiVersion": PERCONA, "kind": "PerconaPGBackup",
                "metadata": { "name": of_backup, "namespace": inner.namespace, "annotations": { OF_JOB: name } },
                "spec": { "pgCluster": inner.name, "repoName": repo } });
            tick.cluster.apply(MANAGER, &backup).await?;
        }
        if is_true(&job["status"], "Complete") {
            inner.status["pgbackrest"]["repos"][0]["replicaCreateBackupComplete"] = json!(true);
        } else if is_true(&job["status"], "Failed") {
            job::delete(tick, &job).await?;
        }
        Ok(())
    }

    async fn backup_job(
        &self,
        tick: &Tick,
        cluster: &Value,
        name: &str,
        repo: &str,
        kind: &str,
    ) -> anyhow::Result<Value> {
        let namespace = text(cluster, "/metadata/namespace");
        if let Some(job) = tick.cluster.get("batch/v1", "Job", namespace, name).await? {
            return Ok(job);
        }
        let labels = json!({ format!("{}cluster", job::LABELS): cluster["metadata"]["name"],
            format!("{}pgbackrest", job::LABELS): "", format!("{}pgbackrest-backup", job::LABELS): kind,
            format!("{}pgbackrest-repo", job::LABELS): repo });
        let tolerations = &cluster["spec"]["backups"]["pgbackrest"]["jobs"]["tolerations"];
        let job = job::job(
            cluster,
            name,
            "pgbackrest",
            &labels,
            &json!({}),
            tolerations,
        );
        Ok(tick.cluster.apply(MANAGER, &job).await?)
    }

    /// Brings a `PerconaPGBackup` on.
    pub(super) async fn backup(
        &mut self,
        tick: &Tick,
        backup: &Value,
        cluster: Option<&Value>,
    ) -> anyhow::Result<()> {
        let Some(cluster) = cluster else {
            return Ok(());
        };
        let (namespace, cluster_name) = (
            text(cluster, "/metadata/namespace"),
            text(cluster, "/metadata/name"),
        );
        let (name, repo) = (
            text(backup, "/metadata/name"),
            text(backup, "/spec/repoName"),
        );
        let Some(inner) = tick
            .cluster
            .get(CRUNCHY, "PostgresCluster", namespace, cluster_name)
            .await?
        else {
            return Ok(());
        };
        let Some(located) = own(&inner, repo) else {
            anyhow::bail!("{repo} repo not defined");
        };
        let of_job = text(
            &backup["metadata"]["annotations"],
            "/pgv2.percona.com~1pgbackrest-backup-job-name",
        );
        let by_itself = !of_job.is_empty();
        let job_name = match of_job {
            "" => format!("{cluster_name}-backup-{:.8}", text(backup, "/metadata/uid")),
            name => name.to_owned(),
        };
        let running = text(
            &cluster["metadata"]["annotations"],
            "/pgv2.percona.com~1backup-in-progress",
        );
        match text(backup, "/status/state") {
            "" => {
                if !by_itself {
                    // One at a time.
                    if !running.is_empty() && running != name {
                        return Ok(());
                    }
                    let mark = json!({ "metadata": { "annotations": { IN_PROGRESS: name } } });
                    tick.cluster.patch(MANAGER, cluster, &mark).await?;
                }
                let destination = format!("s3://{}{}", located.bucket, located.path);
                let status = json!({ "state": "Starting", "destination": destination, "storageType": "s3",
                    "crVersion": "2.8.0", "image": "percona/percona-pgbackrest:2.56.0-1",
                    "repo": { "name": repo, "s3": { "bucket": located.bucket } } });
                tick.cluster.set_status(MANAGER, backup, &status).await?;
            }
            "Starting" => {
                let ready = is_true(&cluster["status"], "ReadyForBackup");
                if !by_itself && !ready {
                    let known = condition(&cluster["status"], "ReadyForBackup").is_some();
                    let waits = format!("{namespace}/{name} waits");
                    if known && self.timers.over(waits, tick.number, tick.ticks(PATIENCE)) {
                        self.finished(tick, cluster, name).await?;
                        // The operator says no more than this.
                        tick.cluster
                            .set_status(MANAGER, backup, &json!({ "state": "Failed" }))
                            .await?;
                    }
                    return Ok(());
                }
                let kind = if by_itself {
                    "replica-create"
                } else {
                    "manual"
                };
                self.backup_job(tick, &inner, &job_name, repo, kind).await?;
                let status = json!({ "state": "Running", "jobName": job_name });
                tick.cluster.set_status(MANAGER, backup, &status).await?;
            }
            "Running" => {
                let Some(job) = tick
                    .cluster
                    .get("batch/v1", "Job", namespace, &job_name)
                    .await?
                else {
                    tick.cluster
                        .set_status(MANAGER, backup, &json!({ "state": "Failed" }))
                        .await?;
                    return Ok(());
                };
                let secrets = located.secrets.clone();
                match self.play(tick, &job, &secrets).await? {
                    Stage::Waits | Stage::Began(_) => {}
                    Stage::Over => {
                        if !by_itself {
                            self.finished(tick, cluster, name).await?;
                        }
                        let state = if is_true(&job["status"], "Complete") {
                            "Succeeded"
                        } else {
                            "Failed"
                        };
                        let status =
                            json!({ "state": state, "completed": job["status"]["completionTime"] });
                        tick.cluster.set_status(MANAGER, backup, &status).await?;
                    }
                    Stage::Ends(pod) => {
                        let repository = Repository {
                            store: self.settings.bucket.as_ref(),
                            keys: self.keys(tick, namespace, &located).await?,
                            bucket: located.bucket,
                            path: located.path,
                            stanza: "db".to_owned(),
                        };
                        let annotations = match by_itself {
                            true => vec![
                                ("percona.com/backup-job-name", job_name.as_str()),
                                ("percona.com/backup-job-type", "replica-create"),
                            ],
                            false => vec![
                                ("percona.com/backup-job-name", job_name.as_str()),
                                ("percona.com/backup-name", name),
                            ],
                        };
                        let disk = format!("{namespace}/{cluster_name}");
                        let version = inner["spec"]["postgresVersion"].to_string();
                        let outcome = self
                            .run_backup(
                                &repository,
                                &disk,
                                &version,
                                &texts(&backup["spec"]["options"]),
                                &annotations,
                            )
                            .await;
                        let (ended, status) = match outcome {
                            Ok(made) => (
                                Ended {
                                    code: 0,
                                    log: format!("INFO: new backup label = {}", made.label),
                                },
                                json!({ "backupName": made.label, "backupType": made.kind }),
                            ),
                            Err(failed) => (
                                Ended {
                                    code: failed.code,
                                    log: failed.words,
                                },
                                json!({}),
                            ),
                        };
                        tick.cluster.set_status(MANAGER, backup, &status).await?;
                        self.end(tick, &job, &pod, &ended).await?;
                    }
                }
            }
            "Succeeded" => {
                self.restorable(tick, backup, &format!("{namespace}/{cluster_name}"))
                    .await?
            }
            _ => {}
        }
        Ok(())
    }

    async fn run_backup(
        &self,
        repository: &Repository<'_>,
        disk: &str,
        version: &str,
        options: &[String],
        annotations: &[(&str, &str)],
    ) -> Result<Made, Failed> {
        let fault = self.faults.find(|fault| match fault {
            Fault::BackupFails(words) => Some(words.clone()),
            _ => None,
        });
        if let Some(words) = fault {
            return Err(Failed { code: 1, words });
        }
        let Some(mut data) = self.settings.disks.get(disk).data().cloned() else {
            let words = "ERROR: [056]: unable to find primary cluster - cannot proceed".to_owned();
            return Err(Failed { code: 56, words });
        };
        let archives = &self.settings.archives;
        let made = pgbackrest::backup(
            repository,
            archives,
            &mut data,
            version,
            options,
            annotations,
        )
        .await;
        self.segment(disk, data.segment);
        made
    }

    /// Another one may begin.
    async fn finished(&self, tick: &Tick, cluster: &Value, name: &str) -> anyhow::Result<()> {
        if text(
            &cluster["metadata"]["annotations"],
            "/pgv2.percona.com~1backup-in-progress",
        ) == name
        {
            let unmark = json!({ "metadata": { "annotations": { IN_PROGRESS: null } } });
            tick.cluster.patch(MANAGER, cluster, &unmark).await?;
        }
        Ok(())
    }

    /// Up to when a restore would come, in the form that only the operator has.
    async fn restorable(&self, tick: &Tick, backup: &Value, disk: &str) -> anyhow::Result<()> {
        let newest = self
            .settings
            .disks
            .with(disk, |disk| disk.data().and_then(|data| data.last_commit));
        if let Some(at) = newest {
            let at: Timestamp = at;
            let utc = at.to_zoned(TimeZone::UTC);
            let micros = utc.subsec_nanosecond() / 1000;
            let at = format!("{}.{micros:06}+0000", utc.strftime("%Y-%m-%d %H:%M:%S"));
            tick.cluster
                .set_status(MANAGER, backup, &json!({ "latestRestorableTime": at }))
                .await?;
        }
        Ok(())
    }
}
