//! The cluster's database itself: questions in SQL, to prove what a restore brought back.
//!
//! Nobody exposes the database: a connection is a channel of the SSH connection to a master, from there to
//! the Service's address (`way`). Inside it TLS is verified against the authority of the database's own
//! cluster, and every session can only read (`session`). Nothing here tries again: an error says whether that
//! can help.

mod error;
mod session;
mod way;

pub use error::PostgresError;
pub use session::{Answer, Server, Session};
