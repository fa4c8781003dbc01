//! The temporary cluster at Yandex Cloud that load comes from.

use jobs::record::Temporary;
use serde::{Deserialize, Serialize};

use super::Test;
use crate::engine::{Ctx, JobError};
use crate::kube::Objects;

/// A cluster that is there, with nodes that are ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::jobs) struct Cluster {
    /// Its id.
    pub(in crate::jobs) id: String,
}

impl Cluster {
    /// Its objects, with the rights of our service account and a token that is fresh.
    pub(in crate::jobs) async fn objects(&self, _ctx: &Ctx) -> Result<Objects, JobError> {
        Err(JobError::fatal("SEAM: not built yet"))
    }
}

/// Makes network, subnet, cluster and node groups, and waits until all nodes are ready.
pub(super) async fn build(_ctx: &Ctx, _test: &Test) -> Result<Cluster, JobError> {
    Err(JobError::fatal("SEAM: not built yet"))
}

/// Deletes everything that carries this recovery's label; says what that was. Called by the job
/// `load-test-clean-up`.
pub(in crate::jobs) async fn clean_up(_ctx: &Ctx) -> Result<Vec<Temporary>, JobError> {
    Err(JobError::fatal("SEAM: not built yet"))
}

/// What carries this recovery's label now.
pub(in crate::jobs) async fn left(_ctx: &Ctx) -> Result<Vec<Temporary>, JobError> {
    Err(JobError::fatal("SEAM: not built yet"))
}
