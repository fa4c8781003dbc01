//! As whom a job comes to the API of its cluster: with the kubeconfig that the worker was given, else with the one
//! of a master, else with the one that is kept sealed.

use ::kube::Client;
use jobs::record::KubeconfigRecord;

use super::client::{direct, through_masters, tunnelled};
use super::kept::{self, KeptError};
use super::kubeconfig::Kubeconfig;
use super::tunnel::{self, NoKubeconfig};
use crate::engine::{Ctx, JobError};
use crate::world::World;

/// None of the ways leads to the API, and what each one said.
#[derive(Debug, thiserror::Error)]
#[error(
    "find the administrator's kubeconfig: none was given to this worker (--kubeconfig); the masters: {masters}; the one that is kept: {kept}"
)]
struct NoWay {
    masters: NoKubeconfig,
    kept: KeptError,
}

/// A client of the job's cluster, with the administrator's rights.
///
/// # Errors
/// The masters may be asked again. A kubeconfig that was given and is another cluster's is for a person.
pub(crate) async fn client(ctx: &Ctx, world: &World) -> Result<Client, JobError> {
    if let Some(given) = world.kubeconfigs.get(ctx.cluster()) {
        let known = kept::record(ctx.store(), ctx.cluster()).await?;
        is_of(given, known.as_ref())?;
        return Ok(direct(given, world.dialer.clone())?);
    }
    let masters = world.masters_of(ctx).await?;
    let missing = match tunnel::fetch(masters.as_ref()).await? {
        Ok((config, first)) => return Ok(tunnelled(&config, masters, first)?),
        // Whoever lets nobody in leads to no API either.
        Err(missing) if !missing.answered => return Err(JobError::retry(missing)),
        Err(missing) => missing,
    };
    let kept = kept::open(ctx.store(), ctx.cluster(), world.identity.as_deref());
    match Box::pin(kept).await {
        Ok(kept) => {
            tracing::warn!("{missing}; the one that is kept sealed is used");
            Ok(through_masters(&kept.config, masters)?)
        }
        Err(kept) => {
            let masters = missing;
            Err(JobError::retry(NoWay { masters, kept }))
        }
    }
}

/// Whether a kubeconfig that was given is of the cluster that we know. Of a cluster without a record the person who named it
/// is believed.
fn is_of(given: &Kubeconfig, known: Option<&KubeconfigRecord>) -> Result<(), JobError> {
    let other = known.filter(|known| known.authorities.is_disjoint(given.authorities()));
    let Some(known) = other else {
        return Ok(());
    };
    Err(JobError::needs_approval(format!(
        "the kubeconfig that was given to this worker is another cluster's: its certificate authority is none of those that recovery {} saw. Give the right one, or none: then the masters are asked",
        known.recovery
    )))
}
