//! What Flux finds outside of the cluster.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::artifacts::Files;
use super::charts::Charts;

/// Gives the objects of a bucket by key; `None` when there is no such bucket.
pub type Contents = Arc<dyn Fn(&str) -> Option<Files> + Send + Sync>;

/// A name and what proves it.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// User name or access key.
    pub name: String,
    /// Token, password or secret key.
    pub secret: String,
}

impl Login {
    /// A login.
    pub fn new(name: &str, secret: &str) -> Self {
        Self {
            name: name.to_owned(),
            secret: secret.to_owned(),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.name)
    }
}

/// What Flux finds outside of the cluster.
#[derive(Clone)]
pub struct Settings {
    /// The working tree that stands for every Git repository, as it is at each look.
    pub repository: PathBuf,
    /// Who may read it.
    pub git: Login,
    /// The store's objects.
    pub contents: Contents,
    /// Whose keys the store takes.
    pub store: Login,
    /// What charts become.
    pub charts: Charts,
}

impl Settings {
    /// This repository, and a store with these objects in each of its buckets.
    pub fn new(git: Login, store: Login, contents: Contents) -> Self {
        Self {
            repository: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")),
            git,
            contents,
            store,
            charts: Charts::default(),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("repository", &self.repository)
            .field("git", &self.git)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
