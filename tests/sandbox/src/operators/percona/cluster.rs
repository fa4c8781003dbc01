//! A `PerconaPGCluster`: the `PostgresCluster` that is made of it, and what its status says.

use serde_json::{Value, json};

use super::json::{condition, difference, is_true, now, number, owner, set_condition, text};
use super::source::Source;
use super::{CRUNCHY, Fault, MANAGER, Percona, job};
use crate::operators::Tick;

/// What is copied from one spec to the other.
const COPIED: [&str; 8] = [
    "postgresVersion",
    "instances",
    "backups",
    "dataSource",
    "users",
    "proxy",
    "port",
    "image",
];

/// A PostgresCluster in the course of a tick.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) object: Value,
    /// What its status will be.
    pub(super) status: Value,
}

impl Inner {
    /// The name of its disk.
    pub(super) fn disk(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl Percona {
    pub(super) async fn cluster(&mut self, tick: &Tick, cluster: &Value) -> anyhow::Result<()> {
        if cluster["metadata"]["deletionTimestamp"].is_string() {
            return Ok(());
        }
        self.bootstrap_restore(tick, cluster).await?;
        let (namespace, name) = (
            text(cluster, "/metadata/namespace"),
            text(cluster, "/metadata/name"),
        );
        let copied = COPIED
            .iter()
            .filter(|field| cluster["spec"].get(**field).is_some());
        let spec: Value = copied
            .map(|field| (*field, cluster["spec"][*field].clone()))
            .collect();
        let there = tick
            .cluster
            .get(CRUNCHY, "PostgresCluster", namespace, name)
            .await?;
        let created = there.is_none();
        let object = match there {
            Some(there) if there["spec"] == spec => there,
            _ => {
                let wanted = json!({ "apiVersion": CRUNCHY, "kind": "PostgresCluster", "spec": spec,
                    "metadata": { "name": name, "namespace": namespace, "ownerReferences": owner(cluster) } });
                tick.cluster.apply(MANAGER, &wanted).await?
            }
        };
        if created {
            // It comes to it the next time it looks.
            return Ok(());
        }
        // What is told of it is what it was: the inner operator is another, and slower.
        let told = status(cluster, &object);
        set_status(tick, cluster, &told).await?;

        let status = match &object["status"] {
            Value::Null => json!({}),
            status => status.clone(),
        };
        let mut inner = Inner {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            object,
            status,
        };
        let outcome = self.inner(tick, &mut inner).await;
        inner.status["observedGeneration"] = inner.object["metadata"]["generation"].clone();
        set_status(tick, &inner.object, &inner.status).await?;
        outcome
    }

    async fn inner(&mut self, tick: &Tick, inner: &mut Inner) -> anyhow::Result<()> {
        if let Some(source) = Source::of(&inner.object)
            && !self.faults.has(&Fault::EmptyDatabaseThatIsReady)
            && !self.data_source(tick, inner, &source).await?
        {
            return Ok(());
        }
        self.instances(tick, inner).await
    }

    /// What a deleted cluster leaves: the disk, the Secrets of its users and the PerconaPGRestore stay.
    pub(super) async fn forget_gone(
        &mut self,
        tick: &Tick,
        clusters: &[Value],
    ) -> anyhow::Result<()> {
        for object in tick.cluster.list(CRUNCHY, "PostgresCluster").await? {
            let of = &object["metadata"]["ownerReferences"][0]["uid"];
            if clusters
                .iter()
                .any(|cluster| cluster["metadata"]["uid"] == *of)
            {
                continue;
            }
            let text = |path| text(&object, path).to_owned();
            let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
            let inner = Inner {
                namespace,
                name,
                object: object.clone(),
                status: json!({}),
            };
            self.settings
                .disks
                .with(&inner.disk(), |disk| disk.running = false);
            inner.remove_instances(tick).await?;
            self.close(tick, &inner).await?;
            for job in tick.cluster.list("batch/v1", "Job").await? {
                if job["metadata"]["ownerReferences"][0]["uid"] == object["metadata"]["uid"] {
                    job::delete(tick, &job).await?;
                }
            }
            tick.cluster.delete(&object).await?;
        }
        Ok(())
    }
}

pub(super) async fn set_status(tick: &Tick, of: &Value, status: &Value) -> anyhow::Result<()> {
    let patch = difference(&of["status"], status);
    tick.cluster.set_status(MANAGER, of, &patch).await?;
    Ok(())
}

/// The status of a PerconaPGCluster, from that of the cluster inside.
fn status(cluster: &Value, inner: &Value) -> Value {
    let mut status = match &cluster["status"] {
        Value::Null => json!({}),
        status => status.clone(),
    };
    let of = &inner["status"];
    let sets: Vec<&Value> = of["instances"].as_array().into_iter().flatten().collect();
    let total = |path: &str| sets.iter().map(|set| number(set, path)).sum::<u64>();
    let (size, ready) = (total("/replicas"), total("/readyReplicas"));
    let instances = sets.iter().map(|set| {
        json!({ "name": set["name"], "size": number(set, "/replicas"), "ready": number(set, "/readyReplicas") })
    });
    status["postgres"] = json!({ "size": size, "ready": ready, "instances": instances.collect::<Vec<_>>(),
        "version": cluster["spec"]["postgresVersion"] });
    let (bouncers, bouncing) = (
        number(of, "/proxy/pgBouncer/replicas"),
        number(of, "/proxy/pgBouncer/readyReplicas"),
    );
    status["pgbouncer"] = json!({ "size": bouncers, "ready": bouncing });
    let (namespace, name) = (
        text(cluster, "/metadata/namespace"),
        text(cluster, "/metadata/name"),
    );
    status["host"] = json!(format!("{name}-pgbouncer.{namespace}.svc"));
    let host = &of["pgbackrest"]["repoHost"];
    let ready = (host.is_null() || host["ready"] == true)
        && bouncing == bouncers
        && ready == size
        && total("/updatedReplicas") == size
        && size > 0;
    status["state"] = json!(if ready { "ready" } else { "initializing" });
    status["observedGeneration"] = cluster["metadata"]["generation"].clone();
    if of["pgbackrest"].is_object() {
        status["pgbackrest"] = of["pgbackrest"].clone();
    }
    let system = text(of, "/patroni/systemIdentifier");
    if !system.is_empty() {
        status["patroni"] = json!({ "status": { "systemIdentifier": system }, "version": "4.1.0" });
    }
    // Only those that are not there yet, and never again: version 2.8.
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    for new in of["conditions"].as_array().into_iter().flatten() {
        if !conditions.iter().any(|old| old["type"] == new["type"]) {
            conditions.push(new.clone());
        }
    }
    status["conditions"] = conditions.into();
    let missing = ["PGBackRestRepoHostReady", "PGBackRestReplicaCreate"]
        .into_iter()
        .find(|kind| !is_true(of, kind));
    let (is, reason) = match missing {
        Some(missing) => ("False", missing),
        None => ("True", "AllConditionsAreTrue"),
    };
    if condition(&status, "ReadyForBackup")
        .is_none_or(|old| old["status"] != is || old["reason"] != reason)
    {
        set_condition(&mut status, 0, "ReadyForBackup", is, reason, "");
        if let Some(all) = status["conditions"].as_array_mut() {
            for one in all.iter_mut().filter(|one| one["type"] == "ReadyForBackup") {
                one["lastTransitionTime"] = json!(now());
            }
        }
    }
    status
}
