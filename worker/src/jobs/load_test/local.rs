//! The driver `local`: the worker itself makes the load.

use jobs::record::Runner;

use super::Test;
use crate::engine::{Ctx, JobError};

/// Loads the target from this process.
pub(super) async fn run(_ctx: &Ctx, _test: &Test) -> Result<Vec<Runner>, JobError> {
    Err(JobError::fatal("SEAM: not built yet"))
}
