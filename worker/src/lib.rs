//! The worker: the engine that runs jobs, the jobs, and the clients they work with.

pub mod cloud;
pub mod cluster;
pub mod engine;
pub mod jobs;
pub mod net;
pub mod ssh;
pub mod world;
