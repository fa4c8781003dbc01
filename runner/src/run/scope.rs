//! Leaving the login session.
//!
//! systemd-logind may kill everything in the cgroup of a session when the session ends
//! (KillUserProcesses=, logind.conf(5)), and a new session id does not help against that. So a
//! supervisor that was started in a session's scope gets a scope of its own from systemd, or moves to a
//! cgroup of ours where there is no systemd to ask. On other hosts it stays where it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

const CGROUP: &str = "rekindle-runner";

/// The cgroups of this process, as /proc has them.
pub(crate) fn cgroups_of_this_process() -> String {
    fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

/// Whether logind would find a process of these cgroups (/proc/PID/cgroup) when it ends a session: it
/// looks in the hierarchy that systemd uses.
pub(crate) fn in_session(cgroups: &str) -> bool {
    systemd_paths(cgroups).any(|(_, path)| path.split('/').any(is_session))
}

/// The systemd hierarchies, version 2 and `name=systemd` of version 1: controllers and path.
fn systemd_paths(cgroups: &str) -> impl Iterator<Item = (&str, &str)> {
    cgroups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        matches!(controllers, "" | "name=systemd").then_some((controllers, path))
    })
}

fn is_session(part: &str) -> bool {
    part.starts_with("session-") && part.ends_with(".scope")
}

/// The command that has systemd make a scope, if this is a session and there is a systemd. What
/// follows is the program and its arguments.
pub(crate) fn systemd_run(cgroups: &str, unit: &str) -> Option<Command> {
    if !in_session(cgroups) || !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let mut command = Command::new("systemd-run");
    command
        .args(["--scope", "--quiet", "--collect", "--slice=system.slice"])
        .arg(format!("--unit={unit}"))
        .arg("--");
    Some(command)
}

/// Moves this process out of the session's cgroups. `Ok(false)` when it is in none.
pub(crate) fn leave_session(cgroups: &str, mounts: &Path, pid: u32) -> io::Result<bool> {
    let mut left = false;
    for (controllers, path) in systemd_paths(cgroups) {
        if path.split('/').any(is_session) {
            let folder = hierarchy(mounts, controllers).join(CGROUP);
            match fs::create_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => result?,
            }
            fs::write(folder.join("cgroup.procs"), pid.to_string())?;
            left = true;
        }
    }
    Ok(left)
}

/// Where a hierarchy is mounted: version 2 alone, or beside version 1.
fn hierarchy(mounts: &Path, controllers: &str) -> PathBuf {
    let beside = mounts.join("unified");
    match controllers {
        "" if beside.is_dir() => beside,
        "" => mounts.to_owned(),
        _ => mounts.join("systemd"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_known_in_the_hierarchies_of_systemd_only() {
        for session in [
            "0::/user.slice/user-0.slice/session-3.scope\n",
            "12:pids:/\n1:name=systemd:/user.slice/user-0.slice/session-c1.scope\n0::/\n",
            "0::/user.slice/user-0.slice/session-3.scope/below\n",
        ] {
            assert!(in_session(session), "{session}");
        }
        for other in [
            "",
            "0::/\n",
            "0::/system.slice/ssh.service\n",
            "5:memory:/user.slice/session-3.scope\n0::/\n",
            "0::/system.slice/my-session-3.scopes\n",
        ] {
            assert!(!in_session(other), "{other}");
            let folder = tempfile::tempdir().unwrap();
            assert!(!leave_session(other, folder.path(), 7).unwrap());
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_process_moves_in_each_hierarchy_that_has_it_in_a_session() {
        let mounts = tempfile::tempdir().unwrap();
        for name in ["unified", "systemd"] {
            fs::create_dir(mounts.path().join(name)).unwrap();
        }
        let moved = |name: &str| {
            fs::read_to_string(mounts.path().join(name).join(CGROUP).join("cgroup.procs")).ok()
        };
        let session = "1:name=systemd:/a/session-1.scope\n0::/\n";
        assert!(leave_session(session, mounts.path(), 7).unwrap());
        assert_eq!(
            (moved("systemd"), moved("unified")),
            (Some("7".to_owned()), None)
        );
        // The cgroup is there by now.
        assert!(leave_session("0::/session-1.scope\n", mounts.path(), 8).unwrap());
        assert!(leave_session("0::/session-1.scope\n", mounts.path(), 9).unwrap());
        assert_eq!(moved("unified"), Some("9".to_owned()));
    }
}
