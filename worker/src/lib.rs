//! The worker: the engine that runs jobs, the jobs, and the clients they work with.

pub mod engine;
pub mod jobs;
pub mod world;
