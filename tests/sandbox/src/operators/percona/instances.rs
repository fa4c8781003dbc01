//! The cluster once its data are there, or need not be: instances, repository host, pgBouncer, archive.

use anyhow::anyhow;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cluster::Inner;
use super::job::{self, phase};
use super::json::{now, number, owner, text};
use super::repository::Repository;
use super::source::own;
use super::{Fault, MANAGER, Percona, pgbackrest};
use crate::operators::Tick;
use crate::postgres::{Content, Data};

impl Percona {
    /// Brings the instances on, and what belongs to them.
    pub(super) async fn instances(&mut self, tick: &Tick, inner: &mut Inner) -> anyhow::Result<()> {
        let sets: Vec<(String, u64)> = sets(&inner.object);
        let size: u64 = sets.iter().map(|(_, replicas)| replicas).sum();
        let bouncers = match &inner.object["spec"]["proxy"]["pgBouncer"] {
            Value::Null => 0,
            of => of["replicas"].as_u64().unwrap_or(1),
        };
        let before = |path: &str| number(&inner.status, path);
        let mut ready: u64 = (0..sets.len())
            .map(|at| before(&format!("/instances/{at}/readyReplicas")))
            .sum();
        let mut bouncing = before("/proxy/pgBouncer/readyReplicas");
        repositories(inner);

        let disk = inner.disk();
        let mut outcome = Ok(());
        match self.settings.disks.get(&disk) {
            at if at.running => {
                let primary = at.data().cloned().unwrap_or_else(Data::initdb);
                inner.status["patroni"] =
                    json!({ "systemIdentifier": primary.system_id.to_string() });
                self.access(tick, inner).await?;
                outcome = self.archives(tick, inner).await;
                if ready == 0 {
                    ready = 1;
                } else if ready < size && self.begins(tick, inner, ready).await? {
                    ready += 1;
                } else if ready >= size
                    && bouncing < bouncers
                    && !self.faults.has(&Fault::StuckInitializing)
                {
                    bouncing += u64::from(self.over(format!("{disk} pgbouncer"), tick));
                }
            }
            at => {
                ready = 0;
                match at.content {
                    Content::Half => self.crash_loop(tick, inner).await?,
                    content => {
                        if self.begins(tick, inner, 0).await? {
                            // Patroni boots what lies there, and makes a new database where nothing does.
                            let data = match content {
                                Content::Data(data) => data,
                                _ => Box::new(Data::initdb()),
                            };
                            self.settings.disks.with(&disk, |disk| {
                                disk.content = Content::Data(data);
                                disk.running = true;
                            });
                        }
                    }
                }
            }
        }
        let mut rest = ready;
        let instances = sets.iter().map(|(name, replicas)| {
            let here = rest.min(*replicas);
            rest -= here;
            json!({ "name": name, "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": here })
        });
        inner.status["instances"] = instances.collect();
        inner.status["proxy"] =
            json!({ "pgBouncer": { "replicas": bouncers, "readyReplicas": bouncing } });
        outcome
    }

    /// Whether the Pod of an instance has come up.
    async fn begins(&mut self, tick: &Tick, inner: &Inner, at: u64) -> anyhow::Result<bool> {
        let pod = self.pod(tick, inner, at).await?;
        if let Some(pending) = self.pending(tick, &pod, &[]).await? {
            tick.cluster.set_status(MANAGER, &pod, &pending).await?;
            return Ok(false);
        }
        if !self.over(format!("{} instance {at}", inner.disk()), tick) {
            return Ok(false);
        }
        let running = json!({ "running": { "startedAt": now() } });
        tick.cluster
            .set_status(MANAGER, &pod, &phase("Running", &pod, &running, 0, None))
            .await?;
        Ok(true)
    }

    /// What is left of a restore that did not end does not start.
    async fn crash_loop(&mut self, tick: &Tick, inner: &Inner) -> anyhow::Result<()> {
        let pod = self.pod(tick, inner, 0).await?;
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff",
            "message": "back-off 5m0s restarting failed container=database" } });
        let last =
            json!({ "terminated": { "exitCode": 2, "reason": "Error", "finishedAt": now() } });
        if text(&pod, "/status/phase") != "Running" {
            tick.cluster
                .set_status(
                    MANAGER,
                    &pod,
                    &phase("Running", &pod, &waiting, 5, Some(&last)),
                )
                .await?;
        }
        Ok(())
    }

    async fn pod(&self, tick: &Tick, inner: &Inner, at: u64) -> anyhow::Result<Value> {
        let mut sets = sets(&inner.object).into_iter();
        let mut left = at;
        let set = sets.find(|(_, replicas)| {
            let here = left < *replicas;
            left -= (*replicas).min(left);
            here
        });
        let set = set
            .map(|(name, _)| name)
            .ok_or_else(|| anyhow!("no set has instance {at}"))?;
        let name = format!("{}-{set}-{:04x}-0", inner.name, 0xb7c4 + at * 0x111);
        if let Some(pod) = tick
            .cluster
            .get("v1", "Pod", &inner.namespace, &name)
            .await?
        {
            return Ok(pod);
        }
        let of = inner.object["spec"]["instances"]
            .as_array()
            .into_iter()
            .flatten();
        let of = of.into_iter().find(|of| text(of, "/name") == set);
        let role = if at == 0 { "master" } else { "replica" };
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "namespace": inner.namespace, "ownerReferences": owner(&inner.object),
                "labels": { format!("{}cluster", job::LABELS): inner.name, format!("{}data", job::LABELS): "postgres",
                    format!("{}instance-set", job::LABELS): set, format!("{}role", job::LABELS): role } },
            "spec": { "tolerations": of.map(|of| of["tolerations"].clone()),
                "containers": [{ "name": "database", "image": "percona/percona-distribution-postgresql:17.6-1" }] },
        });
        Ok(tick.cluster.apply(MANAGER, &pod).await?)
    }

    /// The stanza, the first backup, and the WAL.
    async fn archives(&mut self, tick: &Tick, inner: &mut Inner) -> anyhow::Result<()> {
        let first = text(&inner.object, "/spec/backups/pgbackrest/repos/0/name").to_owned();
        let Some(located) = own(&inner.object, &first) else {
            return Ok(());
        };
        let version = inner.object["spec"]["postgresVersion"].to_string();
        let disk = inner.disk();
        let Some(mut data) = self.settings.disks.get(&disk).data().cloned() else {
            return Ok(());
        };
        let repository = Repository {
            store: self.settings.bucket.as_ref(),
            keys: self.keys(tick, &inner.namespace, &located).await?,
            bucket: located.bucket,
            path: located.path,
            stanza: "db".to_owned(),
        };
        if inner.status["pgbackrest"]["repos"][0]["stanzaCreated"] != true {
            if let Err(failed) = pgbackrest::stanza(&repository, &data, &version).await {
                let words = format!(
                    "command terminated with exit code {}: {}",
                    failed.code, failed.words
                );
                job::event(tick, &inner.object, "UnableToCreateStanzas", &words).await?;
                return Err(anyhow!(words));
            }
            inner.status["pgbackrest"]["repos"][0]["stanzaCreated"] = json!(true);
            repositories(inner);
        }
        let place = repository.place(data.system_id);
        let archived = self
            .settings
            .archives
            .newest(&place)
            .map(|(archived, _)| archived.rows());
        if archived != Some(data.rows()) {
            let to = Timestamp::now();
            pgbackrest::archive(&repository, &mut data, &version)
                .await
                .map_err(|failed| anyhow!(failed.words))?;
            self.settings.archives.archive(&place, &data, to);
            self.segment(&disk, data.segment);
        }
        self.first_backup(tick, inner, &first).await
    }

    /// Only the segment is ours to change: rows may have come meanwhile.
    pub(super) fn segment(&self, disk: &str, segment: u32) {
        self.settings.disks.with(disk, |disk| {
            if let Content::Data(data) = &mut disk.content {
                data.segment = segment;
            }
        });
    }
}

impl Inner {
    /// Deletes the Pods of all instances.
    pub(super) async fn remove_instances(&self, tick: &Tick) -> anyhow::Result<()> {
        for pod in tick.cluster.list("v1", "Pod").await? {
            let labels = &pod["metadata"]["labels"];
            let of_this = labels[format!("{}cluster", job::LABELS)] == self.name.as_str()
                && labels[format!("{}data", job::LABELS)] == "postgres"
                && pod["metadata"]["namespace"] == self.namespace.as_str();
            if of_this {
                tick.cluster.delete(&pod).await?;
            }
        }
        Ok(())
    }
}

/// The instance sets with their sizes.
fn sets(object: &Value) -> Vec<(String, u64)> {
    let sets = object["spec"]["instances"].as_array().into_iter().flatten();
    let named = sets.enumerate().map(|(at, set)| {
        let name = match text(set, "/name") {
            "" => format!("{at:02}"),
            name => name.to_owned(),
        };
        (name, set["replicas"].as_u64().unwrap_or(1))
    });
    named.collect()
}

/// The repositories in the status, and what conditions say of them.
fn repositories(inner: &mut Inner) {
    let names = inner.object["spec"]["backups"]["pgbackrest"]["repos"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let old = inner.status["pgbackrest"]["repos"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let repos = names.iter().map(|repo| {
        let same = old.iter().find(|old| old["name"] == repo["name"]);
        same.cloned()
            .unwrap_or_else(|| json!({ "name": repo["name"], "repoOptionsHash": "5d6cf7b8" }))
    });
    let repos: Vec<Value> = repos.collect();
    inner.status["pgbackrest"]["repoHost"] =
        json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "ready": true });
    inner.condition(
        "PGBackRestRepoHostReady",
        "True",
        "RepoHostReady",
        "pgBackRest dedicated repository host is ready",
    );
    if let Some(first) = repos.first() {
        match first["stanzaCreated"] == true {
            true => inner.condition(
                "PGBackRestReplicaRepoReady",
                "True",
                "StanzaCreated",
                "pgBackRest replica create repo is ready for backups",
            ),
            false => inner.condition(
                "PGBackRestReplicaRepoReady",
                "False",
                "StanzaNotCreated",
                "pgBackRest replica create repo is not ready for backups",
            ),
        }
        match first["replicaCreateBackupComplete"] == true {
            true => inner.condition(
                "PGBackRestReplicaCreate",
                "True",
                "RepoBackupComplete",
                "pgBackRest replica creation is now possible",
            ),
            false => inner.condition(
                "PGBackRestReplicaCreate",
                "False",
                "RepoBackupNotComplete",
                "pgBackRest replica creation is not currently possible",
            ),
        }
    }
    inner.status["pgbackrest"]["repos"] = repos.into();
}
