//! Starting a recovery so that a crash of this process at any point does no harm.
//!
//! The order is: inputs, recovery record, the cluster's `active` record, posts. Whatever is
//! missing after a crash, the same command with the same key completes; a worker's sweep or
//! `rekindle retry` posts what was not posted. A recovery without a key that did not get the
//! cluster is ended at once, so that none lies around half-made.

use jiff::Timestamp;
use jobs::ids::{ClusterName, RecoveryId};
use jobs::keys;
use jobs::plan::Plan;
use jobs::record::{
    ActiveRecord, Finished, Flags, Inputs, Outcome, RecoveryRecord, Requester, SpecRecord,
};
use jobs::store::{Appended, Store, StoreError};

use crate::error::CliError;
use crate::finish;
use crate::render;
use crate::secrets::ToSeal;
use crate::view::Snapshot;

/// What is to be started.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) cluster: ClusterName,
    /// `recover`, or the kind of a single job.
    pub(crate) purpose: String,
    pub(crate) key: Option<String>,
    /// The spec as written.
    pub(crate) spec: String,
    /// Whether the spec becomes the cluster's applied one.
    pub(crate) applies_spec: bool,
    pub(crate) plan: Plan,
    pub(crate) requester: Requester,
    /// What it is given that nobody else may see.
    pub(crate) secrets: ToSeal,
    /// The objects that bootstrap Flux, if it does that.
    pub(crate) flux: Option<String>,
}

impl Request {
    /// The id it gets: the key's, or a fresh one.
    pub(crate) fn id(&self) -> RecoveryId {
        match &self.key {
            Some(key) => RecoveryId::from_key(&self.cluster, key),
            None => RecoveryId::random(),
        }
    }

    fn plan_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.plan).expect("a plan is plain data")
    }

    /// Whether a recovery that has our key is the one we mean.
    fn is(&self, there: &RecoveryRecord) -> Result<(), CliError> {
        let id = &there.id;
        let mut differs = Vec::new();
        if there.purpose != self.purpose {
            differs.push(format!(
                "it is for `{}`, not for `{}`",
                there.purpose, self.purpose
            ));
        }
        if there.inputs.spec != jobs::digest(self.spec.as_bytes()) {
            differs.push("its spec is another one".to_owned());
        }
        if there.inputs.plan != jobs::digest(&self.plan_json()) {
            differs.push("its plan is another one".to_owned());
        }
        let flux = self.flux.as_ref().map(|text| jobs::digest(text.as_bytes()));
        if there.inputs.flux != flux {
            differs.push("what bootstraps Flux is another".to_owned());
        }
        // What is in them cannot be compared: nobody here can open what was sealed.
        let sealed = there.inputs.secrets.as_ref();
        let names = sealed.map_or_else(Vec::new, |sealed| sealed.names.clone());
        if names != self.secrets.names() {
            let names = if names.is_empty() {
                "none".into()
            } else {
                names.join(", ")
            };
            differs.push(format!("its secrets are others: {names}"));
        }
        if differs.is_empty() {
            return Ok(());
        }
        let key = self.key.as_deref().unwrap_or_default();
        Err(CliError::usage(format!(
            "key `{key}` belongs to recovery {id} already: {}",
            differs.join(", and ")
        ))
        .hint("a key means one recovery for ever; take another key for another one"))
    }
}

/// The recovery that our key belongs to, if it was started before.
pub(crate) async fn existing(
    store: &Store,
    request: &Request,
    id: &RecoveryId,
) -> Result<Option<RecoveryRecord>, CliError> {
    if request.key.is_none() {
        return Ok(None);
    }
    let there = store.recovery_record(&request.cluster, id).await?;
    if let Some(record) = &there {
        request.is(record)?;
    }
    Ok(there)
}

/// Makes the recovery and takes the cluster for it. With a key it may be there already, even
/// ended; see the record that comes back.
pub(crate) async fn start(
    store: &Store,
    request: &Request,
    id: &RecoveryId,
) -> Result<RecoveryRecord, CliError> {
    let cluster = &request.cluster;
    // Looked at first, so that a command that cannot win leaves nothing behind.
    if let Some(holder) = holder(store, cluster).await?.filter(|holder| holder != id) {
        return Err(held(store, cluster, &holder).await);
    }
    let inputs = Inputs {
        spec: store.put_input(request.spec.clone().into()).await?,
        plan: store.put_input(request.plan_json().into()).await?,
        secrets: request.secrets.seal(store, cluster).await?,
        flux: match &request.flux {
            Some(objects) => Some(store.put_input(objects.clone().into()).await?),
            None => None,
        },
    };
    let record = RecoveryRecord {
        id: id.clone(),
        cluster: cluster.clone(),
        purpose: request.purpose.clone(),
        key: request.key.clone(),
        inputs,
        requester: request.requester.clone(),
        created: Timestamp::now(),
        flags: Flags::default(),
        finished: None,
    };
    let ours = record.inputs.clone();
    let series = keys::recovery(cluster, id);
    let record = match store.append(&series, 1, &record).await? {
        Appended::Won => record,
        Appended::Lost => {
            let there = must_read(store, cluster, id).await?;
            // Whoever was first sealed them too; ours are for nobody.
            if there.inputs.secrets != ours.secrets {
                store.delete_sealed(&ours).await?;
            }
            request.is(&there)?;
            there
        }
    };
    if record.finished.is_some() {
        return Ok(record);
    }
    if let Err(error) = take(store, cluster, id).await {
        if request.key.is_none() {
            give_up(store, &record).await;
        }
        return Err(error);
    }
    // A worker may have ended it between our look and our taking the cluster.
    let record = must_read(store, cluster, id).await?;
    if record.finished.is_some() {
        finish::free(store, cluster, id).await?;
        return Ok(record);
    }
    if request.applies_spec {
        apply_spec(store, &record).await?;
    }
    Ok(record)
}

/// Who holds the cluster. A holder that has ended (its worker died before it let go) is let go here.
async fn holder(store: &Store, cluster: &ClusterName) -> Result<Option<RecoveryId>, CliError> {
    let Some(holder) = store.active(cluster).await? else {
        return Ok(None);
    };
    let record = store.recovery_record(cluster, &holder).await?;
    if record.is_some_and(|record| record.finished.is_some()) {
        finish::free(store, cluster, &holder).await?;
        return Ok(store.active(cluster).await?);
    }
    Ok(Some(holder))
}

async fn take(store: &Store, cluster: &ClusterName, id: &RecoveryId) -> Result<(), CliError> {
    let mut other = None;
    store
        .update(&keys::active(cluster), |there: Option<ActiveRecord>| {
            other = there.and_then(|record| record.recovery);
            Ok::<_, StoreError>(other.is_none().then(|| ActiveRecord {
                recovery: Some(id.clone()),
                since: Timestamp::now(),
            }))
        })
        .await?;
    match other {
        Some(other) if other != *id => Err(held(store, cluster, &other).await),
        _ => Ok(()),
    }
}

/// The cluster is somebody else's: whose, how far that is, and what to do.
async fn held(store: &Store, cluster: &ClusterName, holder: &RecoveryId) -> CliError {
    let mut message = format!("cluster `{cluster}` is held by recovery {holder}");
    match Snapshot::load(store, cluster, holder).await {
        Ok(Some(snapshot)) => {
            let view = snapshot.view();
            let asked = &view.recovery.requester;
            message += &format!(
                " ({}, asked for by {}@{}): {}; {}",
                view.recovery.purpose,
                asked.user,
                asked.host,
                view.state.words(),
                render::progress(&view.progress)
            );
        }
        Ok(None) => message += ", which has no record",
        Err(error) => message += &format!("; its state cannot be read: {error}"),
    }
    CliError::failed(message).hint(format!(
        "follow it with `rekindle watch --cluster {cluster}`, put failed jobs back with \
         `rekindle retry --cluster {cluster} --reason …`, or end it with \
         `rekindle cancel --cluster {cluster} --reason …`"
    ))
}

/// Ends our own recovery that came too late. Only tidies up, so that a failure is of no matter.
async fn give_up(store: &Store, record: &RecoveryRecord) {
    let ended = RecoveryRecord {
        flags: Flags {
            cancelled: Some("another recovery took the cluster first".into()),
            ..record.flags.clone()
        },
        finished: Some(Finished {
            outcome: Outcome::Cancelled,
            at: Timestamp::now(),
        }),
        ..record.clone()
    };
    let series = keys::recovery(&record.cluster, &record.id);
    let ended = async {
        store.append(&series, 2, &ended).await?;
        store.destroy_secrets(&record.cluster, &record.id).await
    };
    if let Err(error) = ended.await {
        tracing::debug!(%error, "a recovery that never began stays open");
    }
}

async fn apply_spec(store: &Store, record: &RecoveryRecord) -> Result<(), CliError> {
    let applied = SpecRecord {
        digest: record.inputs.spec.clone(),
        recovery: record.id.clone(),
    };
    store
        .update(&keys::spec(&record.cluster), |there: Option<SpecRecord>| {
            Ok::<_, StoreError>((there.as_ref() != Some(&applied)).then(|| applied.clone()))
        })
        .await?;
    Ok(())
}

async fn must_read(
    store: &Store,
    cluster: &ClusterName,
    id: &RecoveryId,
) -> Result<RecoveryRecord, CliError> {
    store
        .recovery_record(cluster, id)
        .await?
        .ok_or_else(|| CliError::failed(format!("recovery {id} vanished from the bucket")))
}
