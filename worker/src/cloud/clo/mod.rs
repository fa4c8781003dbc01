//! The CLO.ru API v2, as far as a recovery needs it.
//!
//! Three habits of this client keep a recovery from doing harm: a read that failed is an error
//! and never "nothing there" ([`list`]), a POST whose effect is unknown is never sent again
//! blindly (`call`, [`adopt`]), and the API's words are read leniently, because its schemas
//! and its answers do not always agree ([`model`]).

pub mod adopt;
pub mod client;
pub mod error;
pub mod list;
pub mod model;

mod addresses;
mod call;
mod load_balancers;
mod project;
mod servers;
mod volumes;

pub use super::patience::Patience;
pub use adopt::{Made, Settle, adopt_or_create, look_for};
pub use client::{Clo, CloConfig, Token};
pub use error::CloError;
pub use model::*;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
