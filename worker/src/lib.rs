//! The worker: it turns queue messages into a recovered cluster.
pub mod cloud;
pub mod net;
pub mod ssh;
