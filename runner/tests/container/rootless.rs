//! Containers of a user without any right, in a user namespace.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_dumpable;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use runner::container::Exit;

use crate::world::World;

/// Somebody with an account.
const USER: u32 = 1000;
/// Whom the kernel shows for all who are not in a namespace.
const NOBODY: u32 = 65534;

/// Becomes a user, and the image is theirs, as the store makes it.
fn become_the_owner(dir: &Path) {
    give_the_image(dir, USER);
    become_user(dir, USER);
}

fn become_nobody(dir: &Path) {
    give_the_image(dir, NOBODY);
    become_user(dir, NOBODY);
}

fn become_a_stranger(dir: &Path) {
    become_user(dir, USER);
}

fn give_the_image(dir: &Path, id: u32) {
    let chown = Command::new("chown")
        .args(["-R", &format!("{id}:{id}")])
        .arg(dir.join("image"))
        .status();
    assert!(chown.unwrap().success());
}

/// Becomes a user who can get at the world: its folder's parents may be closed.
fn become_user(dir: &Path, id: u32) {
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap();
    assert_ne!(
        limit.trim(),
        "0",
        "this host has no user namespaces: rootless containers cannot be tested"
    );
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some(dir), "/mnt", none, MsFlags::MS_BIND, none).unwrap();
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    std::os::unix::fs::chown("/mnt", Some(id), Some(id)).unwrap();
    setgroups(&[]).unwrap();
    setresgid(group, group, group).unwrap();
    setresuid(user, user, user).unwrap();
    // As after an exec.
    set_dumpable(true).unwrap();
}

fn world() -> World {
    let mut world = World::new();
    world.before = become_the_owner;
    world
}

#[test]
fn a_user_runs_a_program_and_is_root_inside() {
    let mut world = world();
    assert_eq!(world.run(&["true"]).exit, Ok(Exit::Code(0)));
    assert_eq!(
        world.sh("id -u; id -g; cat /etc/hostname; cat /proc/self/uid_map"),
        "0\n0\nbox\n         0       1000          1\n"
    );
    // Also when the image is another user's.
    world.before = become_a_stranger;
    let output = world.run(&["sh", "-c", "exit 9"]);
    assert_eq!(output.exit, Ok(Exit::Code(9)));
    // What a user cannot have is said.
    assert!(
        output.notes.iter().any(|note| note.contains("/sys")),
        "{:?}",
        output.notes
    );
}

#[test]
fn nobody_is_a_user_too() {
    let mut world = World::new();
    world.before = become_nobody;
    assert_eq!(
        world.sh("id -u; cat /proc/self/uid_map"),
        "0\n         0      65534          1\n"
    );
}

#[test]
fn a_users_root_takes_changes_or_says_that_it_does_not() {
    let mut world = world();
    let output = world.run(&["sh", "-c", "echo x >/etc/new && cat /etc/new"]);
    if output
        .notes
        .iter()
        .all(|note| !note.starts_with("no overlay"))
    {
        assert_eq!(output.success(), "x\n");
    } else {
        assert_eq!(world.sh("echo x >/tmp/new && cat /tmp/new"), "x\n");
    }
    assert!(!world.image("/etc/new").exists());
}

#[test]
fn a_users_program_has_as_few_rights() {
    let mut world = world();
    let status = world.sh("cat /proc/self/status");
    for line in [
        "CapBnd:\t00000000000400fb",
        "CapEff:\t00000000000400fb",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line} in {status}");
    }
    world.secret("key", b"x");
    assert_eq!(
        world.sh(
            "cat /run/secrets/key; (echo x >/proc/sys/kernel/core_pattern) 2>/dev/null || echo no"
        ),
        "xno\n"
    );
    assert_eq!(
        world.perl("print defined readlink('/proc/1/exe') ? 'read' : 'no'"),
        "no"
    );
}
