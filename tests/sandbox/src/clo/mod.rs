//! A simulator of the CLO.ru REST API v2 for one project.
//!
//! It exists so that every trap of the real service can be met on purpose: lists are cut into
//! pages, creates answer with nothing but an id, things take time to become ready, names are not
//! unique, device names move, and the project holds other people's servers and disks. What a
//! client breaks here stays broken: volumes keep their bytes (see [`crate::hosts`]) and
//! [`CloSim::snapshot`] shows every duplicate and every leftover.
//!
//! Reading order: [`sim`](CloSim) is what tests hold, [`operation`](Operation) names the calls,
//! [`faults`](CloFaults) breaks them; `api` holds one file per resource, `lifecycle` what happens
//! after a call was answered, `world` the state and `http` the wire.

mod api;
mod faults;
mod foreign;
mod http;
mod lifecycle;
mod operation;
mod options;
mod sim;
mod snapshot;
#[cfg(test)]
mod tests;
mod world;

pub use self::faults::{Action, CloFaults, Fault};
pub use self::foreign::Foreign;
pub use self::operation::Operation;
pub use self::options::CloOptions;
pub use self::sim::{Call, CloSim, StartError};
pub use self::snapshot::{
    AddressView, BalancerView, KeypairView, RuleView, ServerView, Snapshot, VolumeView,
};
pub use self::world::{
    AddressStatus, BalancerStatus, Entity, RuleStatus, ServerStatus, VolumeStatus,
};
