//! The sandbox: the world Rekindle works in, on one machine. Fakes keep state and can fail.

pub mod ca;
pub mod clo;
pub mod hosts;
pub mod kube_api;
pub mod kube_sim;
pub mod net;
pub mod operators;
pub mod payload;
pub mod postgres;
pub mod registry;
pub mod s3;
pub mod say;
pub mod world;
pub mod yandex;
