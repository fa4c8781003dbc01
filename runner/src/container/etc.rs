//! The few files of /etc that belong to the host, as the network does: names, and whom to trust.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag, open, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::error::{Failure, Reports, errno, failed};
use super::mounts::bind_to;
use super::root::Root;
use super::target;
use crate::sys::mount::{NO_DEV, NO_EXEC, NO_SUID, READ_ONLY, attach, copy};
use crate::sys::{open_in, open_without_links};

/// Where systems keep all certificate authorities in one file.
const AUTHORITIES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Puts them into the image.
pub(crate) fn write(root: &Root, hostname: &str, reports: &Reports) -> Result<(), Failure> {
    match std::fs::read("/etc/resolv.conf") {
        Ok(text) => put(root, "resolv.conf", &text, reports)?,
        Err(error) => reports.note(format!("no /etc/resolv.conf: the host has none ({error})")),
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    put(
        root,
        "hosts",
        hosts_with(&hosts, hostname).as_bytes(),
        reports,
    )?;
    put(
        root,
        "hostname",
        format!("{hostname}\n").as_bytes(),
        reports,
    )?;
    authorities(root, reports)
}

/// The host's names, and those that the program has a right to expect.
fn hosts_with(hosts: &str, hostname: &str) -> String {
    let mut text = hosts.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for (address, name) in [("127.0.0.1", "localhost"), ("127.0.1.1", hostname)] {
        if !knows(hosts, name) {
            text.push_str(&format!("{address}\t{name}\n"));
        }
    }
    text
}

fn knows(hosts: &str, name: &str) -> bool {
    let lines = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let mut names = lines.flat_map(|line| line.split_whitespace().skip(1));
    names.any(|known| known == name)
}

/// Writes a file of /etc. What the image has there is removed, never followed: links to somewhere are
/// usual for resolv.conf.
fn put(root: &Root, name: &str, text: &[u8], reports: &Reports) -> Result<(), Failure> {
    let path = Path::new("/etc").join(name);
    if !root.writable() {
        return put_over(root, name, &path, text, reports);
    }
    let etc = target::directory(root, "/etc".as_ref())?;
    let put = match unlinkat(&etc, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => create(&etc, name, text).map(drop),
        Err(errno) => Err(errno),
    };
    match put {
        Err(Errno::EISDIR) => Err(Failure::refused(&path, "it is a directory")),
        // A user's container, and the image is another user's.
        Err(Errno::EACCES | Errno::EPERM) => put_over(root, name, &path, text, reports),
        put => put.map_err(failed("write in the image", &path)),
    }
}

/// The same where the image cannot be changed: a file in memory is mounted over the image's.
fn put_over(
    root: &Root,
    name: &str,
    path: &Path,
    text: &[u8],
    reports: &Reports,
) -> Result<(), Failure> {
    let there = open_without_links(root.fd(), path, OFlag::O_PATH);
    let target = match there {
        Ok(target) => target,
        Err(errno) => {
            reports.note(format!("{} is the image's: {errno}", path.display()));
            return Ok(());
        }
    };
    create(root.memory(), name, text)
        .and_then(|file| copy(file, false))
        .and_then(|mount| attach(mount, target))
        .map_err(failed("mount", path))
}

fn create(directory: impl AsFd, name: &str, text: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let mut file: File = openat(directory, name, flags, Mode::from_bits_truncate(0o644))?.into();
    file.write_all(text).map_err(|error| errno(&error))?;
    Ok(file.into())
}

/// Mounts the host's authorities over the image's, wherever it keeps them. Links are followed here, below
/// the image's root only: systems have them, and a mount changes nothing of the file under it.
fn authorities(root: &Root, reports: &Reports) -> Result<(), Failure> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let ours = AUTHORITIES
        .iter()
        .find_map(|path| open(*path, flags, Mode::empty()).ok());
    let Some(ours) = ours else {
        reports.note("the authorities are the image's: the host has none");
        return Ok(());
    };
    let mut found = false;
    for path in AUTHORITIES {
        let theirs = open_in(
            root.fd(),
            path.as_ref(),
            OFlag::O_PATH,
            ResolveFlag::empty(),
        );
        if let Ok(theirs) = theirs
            && target::is_file(&theirs)
        {
            found = true;
            show(&ours, theirs, path)?;
        }
    }
    if !found {
        match target::file(root, AUTHORITIES[0].as_ref()) {
            Ok(theirs) => show(&ours, theirs, AUTHORITIES[0])?,
            Err(_) => reports.note("no authorities: the image has no place for them"),
        }
    }
    Ok(())
}

fn show(ours: &OwnedFd, theirs: OwnedFd, path: &str) -> Result<(), Failure> {
    bind_to(ours, theirs, READ_ONLY | NO_SUID | NO_DEV | NO_EXEC).map_err(failed("mount", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_gain_what_they_lack_and_lose_nothing() {
        assert_eq!(
            hosts_with("", "box"),
            "127.0.0.1\tlocalhost\n127.0.1.1\tbox\n"
        );
        let hosts = "::1 localhost\n10.0.0.1 a b # box";
        assert_eq!(
            hosts_with(hosts, "box"),
            format!("{hosts}\n127.0.1.1\tbox\n")
        );
        assert_eq!(
            hosts_with("10.0.0.1 box localhost\n", "box"),
            "10.0.0.1 box localhost\n"
        );
    }
}
