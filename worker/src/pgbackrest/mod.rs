//! PostgreSQL's backups as pgBackRest keeps them in S3, and what the Percona operator makes of them:
//! everything that `restore` and `backup` decide, without Kubernetes and without a clock.
//!
//! Read first, decide then: [`Repository`] is the edge to the bucket, [`Stanza::choose`] decides what is
//! restored, [`RestorePlan`] says what that means and loses, [`Values`] is what the operator is told.
//! [`Danger`] guards a living cluster from it, and [`finished`] judges the objects while it runs. The source
//! repository is never written.

mod archive;
mod backup;
mod choose;
mod danger;
pub mod finished;
mod info;
mod ini;
mod plan;
mod refusal;
mod repository;
mod seen;
mod sets;
mod source;
mod wal;

#[cfg(test)]
mod tests;

pub use archive::{Archive, Archived, Name, NoWay, Reach, Stop};
pub use backup::{BackingUp, Backup, NotThere};
pub use choose::{Choice, ChooseError, Stanza, Target, Wish};
pub use danger::Danger;
pub use info::{ArchiveInfo, BackupInfo, Database, Entry, Kind, Label};
pub use ini::InfoError;
pub(crate) use plan::size;
pub use plan::{Loss, Replay, RestorePlan};
pub use refusal::{Known, Refusal};
pub use repository::{Loaded, Repository, RepositoryError, Unusable};
pub use seen::{Malformed, Seen};
pub use sets::{Flaw, Set, WalRange, sets};
pub use source::{Location, Source, SourceError, Toleration, Values, generation_path};
pub use wal::{Fork, Lsn, NotWal, Segment, parse_history};
