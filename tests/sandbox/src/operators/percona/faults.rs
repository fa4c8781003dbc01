//! What goes wrong with databases.

use crate::operators::troubles::Troubles;

/// Something that goes wrong in all clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// pgBouncer never gets ready, so the cluster stays `initializing` although its data are there.
    StuckInitializing,
    /// Every Pod of the restore's Job dies with these words.
    RestoreJobFails(String),
    /// The data source is not looked at: the cluster becomes ready with a new database.
    EmptyDatabaseThatIsReady,
    /// The restore goes well by all signs, and no row comes back.
    ReadyWithoutData,
    /// The restore goes well by all signs, and brings back another database.
    WrongSystemId,
    /// The PerconaPGRestore is never looked at after it was begun.
    RestoreObjectStaysStarting,
    /// No node has room for any Pod.
    PodsPending,
    /// No image can be pulled.
    ImagePullBackOff,
    /// Backups fail. The operator says why only if it did not begin; else this is empty.
    BackupFails(String),
    /// What takes some time takes so many ticks more.
    SlowTicks(u64),
}

/// The faults of an operator.
pub type Faults = Troubles<Fault>;
