//! k6 on a cluster: its operator, a TestRun, and what all of its runners say.

use jobs::record::Runner;

use super::{Test, yandex};
use crate::engine::{Ctx, JobError};

/// The cluster that k6 runs on.
#[derive(Debug)]
pub(in crate::jobs) enum Place {
    /// That of the secret LOAD_KUBECONFIG.
    Given,
    /// Our own temporary one.
    Yandex(yandex::Cluster),
}

/// Runs the test there, and collects what every runner did.
pub(super) async fn run(_ctx: &Ctx, _test: &Test, place: &Place) -> Result<Vec<Runner>, JobError> {
    match place {
        Place::Given => {}
        Place::Yandex(cluster) => tracing::debug!(?cluster, "k6 on a temporary cluster"),
    }
    Err(JobError::fatal("SEAM: not built yet"))
}

/// Takes away what `run` made on a given cluster, in this recovery; says what that was. A temporary cluster goes as
/// a whole. Called by the job `load-test-clean-up`.
pub(in crate::jobs) async fn clean_up(
    _ctx: &Ctx,
) -> Result<Vec<jobs::record::Temporary>, JobError> {
    Err(JobError::fatal("SEAM: not built yet"))
}

/// What of it is there now.
pub(in crate::jobs) async fn left(_ctx: &Ctx) -> Result<Vec<jobs::record::Temporary>, JobError> {
    Err(JobError::fatal("SEAM: not built yet"))
}
