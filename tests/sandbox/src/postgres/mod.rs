//! A small PostgreSQL: its wire protocol with TLS and SCRAM over data directories that are plain state in memory.
//!
//! What it answers is what lies in a [`Disk`], and that is what an operator put there: `initdb`, or a restore of some
//! set to some target. It never says yes by itself. Whether the answers are PostgreSQL's own, a heavy test asks a real
//! one.
//!
//! Simplified: a table is a list of moments, one a row, in one column; nothing is written through SQL. It knows the
//! queries by which people look what a restore brought back: what is no SQL, or names what does not exist,
//! gets PostgreSQL's error, and SQL that is not played here gets one that says so (`0A000`). Every commit is
//! durable and has a timestamp, if the data directory says that it keeps them.

mod auth;
mod connection;
mod data;
mod query;
mod reply;
mod server;
mod sql;
mod value;

pub use data::{Content, Data, Disk, Disks, Role, Table};
pub use server::{Server, Tls};
