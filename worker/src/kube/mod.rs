//! The Kubernetes API of the cluster: how we come to it, and what we do there.
//!
//! The reference project opens a listening port for a tunnel and switches TLS verification off.
//! Here a connection to the API is a channel of the SSH connection to a master, whose host key is
//! pinned ([`tunnel`]); nobody listens anywhere, and inside that channel TLS is verified against the
//! cluster's own authority ([`connect`]). Who we are comes from the master's `admin.conf`
//! ([`kubeconfig`]), from one that was given to the worker, or from the one that lies sealed in the bucket ([`kept`]). Nothing here retries or waits: an error says whether to try again ([`error`]),
//! and the engine does.

pub(crate) mod access;
pub mod apply;
pub mod client;
pub mod connect;
pub mod edit;
pub mod error;
pub mod kept;
pub mod kinds;
pub mod kubeconfig;
pub mod manifest;
pub mod pods;
pub mod tunnel;
pub mod wait;

pub use apply::{Force, Objects};
pub use client::{administrator, direct, through_masters};
pub use connect::ConnectError;
pub use error::KubeError;
pub use kept::{Kept, KeptError};
pub use kubeconfig::{Kubeconfig, KubeconfigError};
pub use manifest::{Manifest, ManifestError, Object};
pub use tunnel::Masters;
pub use wait::Look;
