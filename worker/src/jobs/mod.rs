//! The jobs: one file a kind, read from top to bottom.
//!
//! A new kind is a variant of [`Job`], a file here, and its lines in [`run`] and [`steps`]; the
//! compiler lists the places.

pub mod demo;

use jobs::message::Job;

use crate::engine::{Ctx, JobError, Proven};

/// Runs a job's function: straight-line code that is run again from the top in every turn.
pub async fn run(ctx: &Ctx, job: &Job) -> Result<Proven, JobError> {
    match job {
        Job::Demo(demo) => demo::run(ctx, demo).await,
        _ => Err(JobError::fatal("not yet")),
    }
}

/// The step names a kind knows: the part of a step's key before the first `/`. Stored in records
/// and never renamed; a record with other ones is parked.
pub fn steps(job: &Job) -> &'static [&'static str] {
    match job {
        Job::Demo(_) => demo::STEPS,
        _ => &[],
    }
}
