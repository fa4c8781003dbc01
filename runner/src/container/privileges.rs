//! What process 1 gives up before it starts the program, for itself and all that follow.

use nix::sys::prctl::set_no_new_privs;

use super::error::{Failure, Reports, failed};
use super::seccomp;
use crate::sys::privilege::{
    KEPT, drop_capabilities, filter_system_calls, leave_abstract_sockets, leave_keyring,
};

/// Gives up capabilities, the way to new ones, and system calls: none of these has a fallback. The keyring and
/// the host's abstract sockets, if the host lets it.
pub(crate) fn drop_all(reports: &Reports) -> Result<(), Failure> {
    if let Err(errno) = leave_keyring() {
        reports.note(format!(
            "the session's keyring stays, out of reach ({errno})"
        ));
    }
    drop_capabilities(KEPT).map_err(failed("drop the capabilities of", "process 1"))?;
    set_no_new_privs().map_err(failed("forbid new privileges to", "process 1"))?;
    if let Err(errno) = leave_abstract_sockets() {
        reports.note(format!(
            "abstract Unix sockets of the host can be reached: Landlock is too old ({errno})"
        ));
    }
    filter_system_calls(&seccomp::filter())
        .map_err(failed("filter the system calls of", "process 1"))
}
