//! What goes wrong, for as long as it is set.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// The faults of an operator. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<Fault>>>);

impl Faults {
    /// From now on this goes wrong.
    pub fn set(&self, fault: Fault) {
        self.lock().push(fault);
    }

    /// Everything goes well again.
    pub fn clear(&self) {
        self.lock().clear();
    }

    pub(super) fn has(&self, fault: &Fault) -> bool {
        self.lock().contains(fault)
    }

    pub(super) fn find<T>(&self, look: impl FnMut(&Fault) -> Option<T>) -> Option<T> {
        self.lock().iter().find_map(look)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
