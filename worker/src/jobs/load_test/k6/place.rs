//! The cluster that k6 runs on, and how we come to it.

use super::super::yandex;
use crate::engine::{Ctx, JobError};
use crate::kube::{Kubeconfig, Objects, direct};
use crate::net::Dialer;
use crate::sealed;

/// The secret with the kubeconfig of a given cluster.
const KUBECONFIG: &str = "LOAD_KUBECONFIG";

/// The cluster that k6 runs on.
#[derive(Debug)]
pub(in crate::jobs) enum Place {
    /// That of the secret LOAD_KUBECONFIG.
    Given,
    /// Our own temporary one.
    Yandex(yandex::Cluster),
}

impl Place {
    /// Its objects. The way there is a direct one: it is not in the network of the cluster that was recovered.
    pub(super) async fn objects(&self, ctx: &Ctx) -> Result<Objects, JobError> {
        match self {
            Self::Yandex(cluster) => cluster.objects(ctx).await,
            Self::Given => {
                let secrets = sealed::secrets(ctx).await?;
                let text = sealed::need(&secrets, KUBECONFIG)?;
                let origin = format!("the secret {KUBECONFIG}");
                let config = Kubeconfig::parse(text.reveal(), &origin)?;
                Ok(Objects::new(direct(&config, Dialer::direct())?))
            }
        }
    }
}
