//! What goes wrong with one operator, for as long as it is set.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What goes wrong. Clones share it.
#[derive(Debug)]
pub struct Troubles<F>(Arc<Mutex<Vec<F>>>);

impl<F> Default for Troubles<F> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<F> Clone for Troubles<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F: PartialEq> Troubles<F> {
    /// From now on this goes wrong.
    pub fn set(&self, fault: F) {
        self.lock().push(fault);
    }

    /// Everything goes well again.
    pub fn clear(&self) {
        self.lock().clear();
    }

    pub(crate) fn has(&self, fault: &F) -> bool {
        self.lock().contains(fault)
    }

    /// The first fault that `look` finds something in.
    pub(crate) fn find<T>(&self, look: impl FnMut(&F) -> Option<T>) -> Option<T> {
        self.lock().iter().find_map(look)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<F>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
