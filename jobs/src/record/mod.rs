//! Records: what is stored about recoveries, jobs, nodes and volumes, and how it may change.
//!
//! Pure data and pure functions. A record is a series of versions in S3 (docs/decisions/0001);
//! this module knows what a version says, the store knows how it gets there.

mod cluster;
mod job;
mod load;
mod recovery;
mod status;
mod why;

pub use cluster::{
    ActiveRecord, Address, DatabaseRecord, KubeconfigRecord, LbRule, LoadBalancerRecord,
    NodeRecord, Origin, ReleaseRecord, RestoredDatabase, SpecRecord, VolumeRecord,
};
pub use job::{
    Change, Crashes, Failure, JobRecord, JobVersion, LeftBehind, Owner, Retry, StepRecord,
    WaitRecord,
};
pub use load::{Latency, LoadResult, Runner, Summary, Temporary, Threshold};
pub use recovery::{Finished, Flags, Inputs, Outcome, RecoveryRecord, Requester, Sealed};
pub use status::{Event, IllegalTransition, Status};
pub use why::{JobView, Why, why};

use serde::{Deserialize, Serialize};

/// The record schema this build writes. A reader refuses newer ones.
pub const SCHEMA: u32 = 1;

/// One version of a record as it lies in the bucket. Writer and nonce make every version's bytes
/// unique, so that after an ambiguous answer a writer can tell its own version from another's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned<T> {
    /// Version of the record format.
    pub schema: u32,
    /// Random id of the writing process.
    pub writer: uuid::Uuid,
    /// Fresh for every version.
    pub nonce: uuid::Uuid,
    /// What the record says.
    pub body: T,
}
