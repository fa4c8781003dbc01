//! Who we are as an owner of leases, and whether another owner on this host is gone.

use std::fs;

use jobs::record::Owner;
use uuid::Uuid;

/// This process. `worker` is the random id of this start; ids are never used again, since a reused
/// one would let a new process pass for a dead one.
pub fn here(worker: Uuid) -> Owner {
    let pid = std::process::id();
    Owner {
        worker,
        host: nix::unistd::gethostname().map_or_else(
            |_| "unknown".into(),
            |name| name.to_string_lossy().into_owned(),
        ),
        realm: realm(),
        pid,
        started: start_ticks(pid).unwrap_or(0),
    }
}

/// Whether an owner is certainly gone: it was a process of this same boot and pid namespace, and
/// there is no such process any more. Of other hosts we know nothing.
pub fn is_gone(owner: &Owner, me: &Owner) -> bool {
    if owner.worker == me.worker
        || owner.realm != me.realm
        || owner.realm.is_empty()
        || owner.started == 0
    {
        return false;
    }
    match start_ticks(owner.pid) {
        Some(started) => started != owner.started,
        // Only a missing entry means gone; any other trouble means that we do not know.
        None => {
            matches!(fs::metadata(format!("/proc/{}", owner.pid)), Err(e) if e.kind() == std::io::ErrorKind::NotFound)
        }
    }
}

/// Boot id and pid namespace. Two containers of one host share the boot id but not the namespace.
fn realm() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let pids = fs::read_link("/proc/self/ns/pid");
    match (boot, pids) {
        (Ok(boot), Ok(pids)) => format!("{}/{}", boot.trim(), pids.display()),
        _ => String::new(),
    }
}

/// Field 22 of `/proc/<pid>/stat` (proc_pid_stat(5)). A zombie has ended: it counts as no process.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in brackets and may itself contain brackets and spaces.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some(if state == "Z" || state == "X" {
        u64::MAX
    } else {
        started
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_is_gone_and_one_that_runs_is_not() {
        let me = here(Uuid::new_v4());
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .expect("sleep is everywhere");
        let other = Owner {
            worker: Uuid::new_v4(),
            pid: child.id(),
            started: start_ticks(child.id()).expect("it runs"),
            ..me.clone()
        };
        assert!(!is_gone(&other, &me));
        let recycled = Owner {
            started: other.started + 1,
            ..other.clone()
        };
        assert!(
            is_gone(&recycled, &me),
            "another process has its number now"
        );
        let elsewhere = Owner {
            realm: "another boot".into(),
            ..recycled
        };
        assert!(!is_gone(&elsewhere, &me), "of other hosts we know nothing");
        child.kill().expect("ours");
        child.wait().expect("ours");
        assert!(is_gone(&other, &me));
        assert!(!is_gone(&me, &me));
    }
}
