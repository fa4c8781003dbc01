//! A container: one program and its children in an image, apart from the rest of the host.
//!
//! [`start`] makes it from a [`Spec`] and gives a [`Container`] to watch. Three processes take part:
//! the caller stays on the host; `init` is the container's process 1, makes the surroundings, reaps and
//! forwards signals; `payload` becomes the program. How each part is made, and what happens where the
//! host refuses one, is in `docs/runner.md`.

mod spec;

mod error;
mod start;

mod cgroup;
mod etc;
mod init;
mod mounts;
mod payload;
mod privileges;
mod program;
mod root;
mod seccomp;
mod target;

pub use error::StartError;
pub use nix::sys::signal::Signal;
pub(crate) use program::PATH;
pub use spec::{Bind, Limits, Secrets, Spec};
pub(crate) use spec::{is_host_name, is_secret_name};
pub use start::{Container, Exit, Stdio, start};
