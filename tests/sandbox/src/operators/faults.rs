//! What goes wrong, for as long as it is set.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something that goes wrong. It goes on until it is cleared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The Git server refuses every token.
    GitAuth,
    /// The Git server cannot be reached.
    GitDown,
    /// The store refuses the keys of every Bucket.
    BucketAuth,
    /// The store of Buckets cannot be reached.
    BucketDown,
    /// No chart repository can be reached.
    ChartsDown,
    /// A release (`namespace/name`) never sees its values, although they are there.
    ValuesStuck(String),
    /// Every try to install or upgrade a release (`namespace/name`) fails.
    ReleaseFails(String),
    /// A Kustomization of this name never becomes Ready: what it applies is never healthy.
    KustomizationStuck(String),
    /// A validating webhook for this kind does not answer: no object of the kind can be applied.
    WebhookDown(String),
    /// Pods of a Deployment or StatefulSet (`namespace/name`) never become ready.
    NeverAvailable(String),
    /// The image with this tag cannot be pulled.
    BrokenTag(String),
    /// Each reconciliation of Flux waits so many ticks first.
    Slow(u64),
}

/// The faults of one world. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<Fault>>>);

impl Faults {
    /// From now on this goes wrong.
    pub fn set(&self, fault: Fault) {
        let mut all = self.lock();
        if !all.contains(&fault) {
            all.push(fault);
        }
    }

    /// From now on this goes well again.
    pub fn clear(&self, fault: &Fault) {
        self.lock().retain(|other| other != fault);
    }

    /// Everything goes well again.
    pub fn clear_all(&self) {
        self.lock().clear();
    }

    /// Whether this goes wrong now.
    pub fn has(&self, fault: &Fault) -> bool {
        self.lock().contains(fault)
    }

    /// The first fault that `look` finds something in.
    pub fn find<T>(&self, look: impl FnMut(&Fault) -> Option<T>) -> Option<T> {
        self.lock().iter().find_map(look)
    }

    /// What the API server says of an object of this kind, if a webhook that is down stands before it.
    pub fn webhook(&self, kind: &str) -> Option<String> {
        let down = self.has(&Fault::WebhookDown(kind.to_owned()));
        let name = kind.to_lowercase();
        down.then(|| format!(
            "Internal error occurred: failed calling webhook \"v{name}.kb.io\": failed to call webhook: Post \"https://webhook-service.default.svc:443/validate-{name}?timeout=10s\": dial tcp 10.96.17.4:443: connect: connection refused"
        ))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
