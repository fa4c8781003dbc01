//! Not built yet.

use jobs::message::Restore;

use crate::engine::{Ctx, JobError, Proven};

/// The step names.
pub const STEPS: &[&str] = &[];

/// Not built yet.
pub async fn run(_ctx: &Ctx, _job: &Restore) -> Result<Proven, JobError> {
    Err(JobError::fatal("not built yet"))
}
