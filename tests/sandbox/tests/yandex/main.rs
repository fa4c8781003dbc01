//! The simulated Yandex Cloud, asked over real HTTP: each rule, each fault.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod clusters;
mod faults;
mod kubernetes;
mod lists;
mod networks;
mod node_groups;
mod operations;
mod strangers;
mod tokens;
mod world;
