//! Yandex Cloud, as far as the temporary cluster of a load test needs it.
//!
//! The habits of the CLO client hold here too: a read that failed is never "nothing there" (`list`), and a change
//! whose effect is unknown is said to be so. What differs: every change carries an idempotency key that its caller
//! has on record, so it may be sent again with the same key (`call`); a change is an operation that is polled to
//! its end (`operation`); and whatever we make carries labels that say whose it is and how long it may live
//! (`labels`), by which alone it is ever deleted (`removal`).

pub mod client;
pub mod error;
pub mod labels;
pub mod model;
pub mod new;
pub mod operation;
pub mod removal;
pub mod token;

mod call;
mod list;

pub use client::{Endpoints, Yandex, YandexConfig};
pub use error::YandexError;
pub use labels::{Fate, Owner, fate};
pub use list::Everything;
pub use model::{Cluster, Kind, Resource, Status};
pub use new::{New, NewCluster, NewNodeGroup};
pub use operation::{Operation, Progress};
pub use removal::{Left, Plan, Removal, plan};
pub use token::{AuthorizedKey, Credentials, KeyError};

#[cfg(test)]
mod fake;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
