//! The administrator's kubeconfig, kept: sealed to the workers' age key, as ciphertext among the inputs, with a record
//! of the cluster. It outlives the recovery, and is there when no master gives its own away.

use jiff::Timestamp;
use jobs::ids::ClusterName;
use jobs::keys;
use jobs::record::KubeconfigRecord;
use jobs::secrets::{Identity, Secrets, SecretsError};
use jobs::store::{Store, StoreError};
use serde::{Deserialize, Serialize};

use super::kubeconfig::{Kubeconfig, KubeconfigError};
use super::tunnel;
use crate::engine::{Ctx, JobError};

/// What it is called among the sealed.
const NAME: &str = "KUBECONFIG";

/// One that was opened.
#[derive(Debug)]
pub struct Kept {
    /// What is known of it.
    pub record: KubeconfigRecord,
    /// Itself.
    pub config: Kubeconfig,
}

/// Why there is none to be had.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// Nobody kept one yet.
    #[error("there is none on record yet")]
    Nothing,
    /// Who wants to open it has no key at all.
    #[error("it is sealed to {0}, and there is no age identity here (--age-identity-file)")]
    NoIdentity(String),
    /// It does not open.
    #[error("open it: {0}")]
    Sealed(#[from] SecretsError),
    /// It is none.
    #[error(transparent)]
    Unusable(#[from] KubeconfigError),
    /// The bucket does not give it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What came of keeping it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kept", rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// This one is on record.
    Sealed {
        /// The digest of the ciphertext.
        input: String,
        /// Who can open it.
        recipient: String,
    },
    /// There is none of ours on record, and why.
    No {
        /// Why.
        because: String,
    },
}

/// The record of a cluster's kubeconfig, if one is kept.
pub async fn record(
    store: &Store,
    cluster: &ClusterName,
) -> Result<Option<KubeconfigRecord>, StoreError> {
    let stored = store.read(&keys::kubeconfig(cluster)).await?;
    Ok(stored.map(|stored| stored.body))
}

/// Opens the one that is kept.
///
/// # Errors
/// When there is none, when it is somebody else's to open, or when it cannot be read.
pub async fn open(
    store: &Store,
    cluster: &ClusterName,
    identity: Option<&Identity>,
) -> Result<Kept, KeptError> {
    let mut known = record(store, cluster).await?.ok_or(KeptError::Nothing)?;
    let identity = identity.ok_or_else(|| KeptError::NoIdentity(known.recipient.clone()))?;
    loop {
        let sealed = store.get_input(&known.input).await;
        if sealed.is_err() {
            // Whoever keeps a newer one takes the older one away.
            let now = record(store, cluster).await?.ok_or(KeptError::Nothing)?;
            if now != known {
                known = now;
                continue;
            }
        }
        let config = unseal(&sealed?, cluster, identity)?;
        return Ok(Kept {
            record: known,
            config,
        });
    }
}

fn unseal(
    sealed: &[u8],
    cluster: &ClusterName,
    identity: &Identity,
) -> Result<Kubeconfig, KeptError> {
    let secrets = Secrets::open(sealed, cluster, identity)?;
    let nothing = SecretsError::Damaged("there is no kubeconfig inside");
    let text = secrets.get(NAME).ok_or(nothing)?;
    let origin = format!("the sealed file of cluster {cluster}");
    Ok(Kubeconfig::parse(text.reveal(), &origin)?)
}

/// Fetches the kubeconfig from a master, and keeps it unless the same one is kept.
pub(crate) async fn keep(ctx: &Ctx) -> Result<Outcome, JobError> {
    let no = |because: &str| {
        tracing::warn!("the cluster's kubeconfig is not kept: {because}");
        let because = because.to_owned();
        Ok(Outcome::No { because })
    };
    let world = ctx.world();
    if world.kubeconfigs.contains_key(ctx.cluster()) {
        return no("this worker was given one, and asks no master for it");
    }
    let Some(identity) = world.identity.as_deref() else {
        return no("this worker has no age identity to seal it to (--age-identity-file)");
    };
    let masters = world.masters_of(ctx).await?;
    let (config, _) = match tunnel::fetch(masters.as_ref()).await? {
        Ok(fetched) => fetched,
        // The one that is kept is good enough to go on with, if it opens.
        Err(missing) => match open(ctx.store(), ctx.cluster(), Some(identity)).await {
            Ok(_) => return no(&missing.to_string()),
            Err(_) => return Err(JobError::retry(missing)),
        },
    };
    let (input, recipient) = seal(ctx, &config, identity).await?;
    Ok(Outcome::Sealed { input, recipient })
}

/// Seals it and writes the record; the one that was kept before is taken away. Gives digest and recipient of the one
/// that is kept now.
async fn seal(
    ctx: &Ctx,
    config: &Kubeconfig,
    identity: &Identity,
) -> Result<(String, String), JobError> {
    let (store, cluster) = (ctx.store(), ctx.cluster());
    match open(store, cluster, Some(identity)).await {
        Ok(kept) if kept.config.text() == config.text() => {
            return Ok((kept.record.input, kept.record.recipient));
        }
        Err(KeptError::Store(error)) if error.is_transient() => return Err(error.into()),
        // Another one, none, or one that nobody here can open.
        Ok(_) | Err(_) => {}
    }
    let mut secrets = Secrets::default();
    let added = secrets.add(NAME, config.text().clone());
    added.map_err(JobError::fatal)?;
    let recipient = identity.recipient();
    let sealed = secrets.seal(cluster, &recipient).map_err(JobError::fatal)?;
    let new = KubeconfigRecord {
        input: store.put_input(sealed.into()).await?,
        recipient: recipient.to_string(),
        authorities: config.authorities().clone(),
        at: Timestamp::now(),
        recovery: ctx.recovery().clone(),
    };
    let mut former = None;
    store
        .update(
            &keys::kubeconfig(cluster),
            |old: Option<KubeconfigRecord>| {
                former = old;
                Ok::<_, JobError>(Some(new.clone()))
            },
        )
        .await?;
    if let Some(former) = former {
        store.delete(&keys::input(&former.input)).await?;
    }
    Ok((new.input, new.recipient))
}
