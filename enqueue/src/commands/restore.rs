//! `rekindle restore` and `rekindle backup`: the database.

use jobs::message::{Backup, Job};
use jobs::spec::ClusterSpec;

use super::single;
use crate::cli::{BackupJob, RestoreJob};
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;

pub(crate) async fn run(args: &RestoreJob, out: &mut Out) -> Result<ExitCode, CliError> {
    let job = Job::Restore(args.wish.payload());
    single::of_payload(&args.single, out, |spec| with_database(spec, job)).await
}

pub(crate) async fn backup(args: &BackupJob, out: &mut Out) -> Result<ExitCode, CliError> {
    let job = Job::Backup(Backup {
        kind: args.kind.into(),
    });
    single::of_payload(&args.single, out, |spec| with_database(spec, job)).await
}

/// A job on the spec's database.
pub(super) fn with_database(spec: &ClusterSpec, job: Job) -> Result<Job, CliError> {
    match &spec.database {
        Some(_) => Ok(job),
        None => Err(no_database(job.kind())),
    }
}

pub(super) fn no_database(kind: &str) -> CliError {
    let message = format!("the spec has no `database` section: `{kind}` has nothing to work on");
    CliError::usage(message)
}
