//! Detached runs: programs in containers that outlive whoever started them. `docs/runs.md` has the
//! folder, the states and what survives what.
//!
//! A command (`launch`) hands an order and the run's lock to a process of its own (`supervisor`), which
//! makes the container and stays with it. All others only look (`view`, `log`) or ask (`control`).

mod collect;
mod control;
mod error;
mod folder;
mod follow;
mod id;
mod launch;
mod log;
mod message;
mod process;
mod record;
mod request;
mod scope;
pub mod secrets;
mod status;
mod supervisor;
mod view;

pub use collect::Gone;
pub use error::RunError;
pub use folder::Runs;
pub use follow::Followed;
pub use id::{BadRunId, RunId};
pub use launch::Launched;
pub use log::{Chunk, Reader};
pub use process::Process;
pub use request::{Request, Rootfs};
pub use status::{State, Status};
pub(crate) use supervisor::supervise;
pub use view::{Listed, Range, View};
