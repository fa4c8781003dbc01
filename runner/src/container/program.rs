//! Finding the program in the image, and looking at it before it is executed.
//!
//! Until execve is done, this process still is the engine, and `/proc/self/exe` is the engine's file on
//! the host. An image whose program has `#!/proc/self/exe`, or that as its ELF interpreter, would run
//! the engine inside, with libraries of the image, and could keep a descriptor of its file until it can
//! write to it (CVE-2019-5736). So what the kernel is about to open is opened here first, without the links
//! of /proc; and nothing but ELF of this machine and scripts is executed, as the host may have registered
//! other interpreters (binfmt_misc), whose path the image could be waiting for. The image cannot change
//! in between: nothing runs in it yet, and nothing else writes to it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag};

use super::error::Failure;
use crate::sys::open_in;

/// A program that can be executed.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its path, absolute.
    pub(crate) path: String,
}

/// Where programs are looked for when nobody says otherwise.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How deep scripts may be interpreted by scripts; the kernel's own limit.
const DEPTH: u32 = 5;

/// How much of a script the kernel looks at.
const HEAD: usize = 256;

/// Looks for the program as a shell would.
pub(crate) fn find(
    root: impl AsFd,
    command: &str,
    env: &BTreeMap<String, String>,
    cwd: &str,
) -> Result<Found, Failure> {
    let mut denied = None;
    for path in candidates(command, env.get("PATH").map_or(PATH, String::as_str), cwd) {
        match look(root.as_fd(), &path, Path::new(cwd), 0) {
            Ok(()) => {
                return Ok(Found {
                    path: path.to_string_lossy().into_owned(),
                });
            }
            Err(Problem::Absent) => {}
            Err(Problem::Bad(reason)) => denied = denied.or(Some(reason)),
        }
    }
    let command = command.to_owned();
    Err(match denied {
        Some(reason) => Failure::NotExecutable { command, reason },
        None => Failure::NotFound { command },
    })
}

fn candidates(command: &str, path: &str, cwd: &str) -> Vec<PathBuf> {
    let cwd = Path::new(cwd);
    if command.contains('/') {
        return vec![cwd.join(command)];
    }
    path.split(':')
        .map(|folder| cwd.join(folder).join(command))
        .collect()
}

enum Problem {
    Absent,
    Bad(String),
}

/// Whether the kernel may open all that executing this file makes it open.
fn look(root: impl AsFd, path: &Path, cwd: &Path, depth: u32) -> Result<(), Problem> {
    let bad = |reason: &str| Problem::Bad(format!("{}: {reason}", path.display()));
    // Not yet for reading: that would wait for the other end of a FIFO.
    let open = |flags| {
        open_in(root.as_fd(), path, flags, ResolveFlag::empty()).map_err(|errno| match errno {
            Errno::ENOENT | Errno::ENOTDIR => Problem::Absent,
            Errno::ELOOP => bad("a link leads through /proc, or in a circle"),
            errno => bad(errno.desc()),
        })
    };
    let file = File::from(open(OFlag::O_PATH)?);
    let metadata = file.metadata().map_err(|error| bad(&error.to_string()))?;
    if !metadata.is_file() || metadata.mode() & 0o111 == 0 {
        return Err(bad("it is no executable file"));
    }
    let file = File::from(open(OFlag::O_RDONLY | OFlag::O_NONBLOCK)?);
    let mut head = [0; HEAD];
    let length = read_at(&file, &mut head, 0);
    let interpreter = match kind(&head[..length]) {
        Kind::Script(interpreter) => Some(interpreter),
        Kind::Elf(segments) => elf_interpreter(&file, segments).map_err(bad)?,
        Kind::Other => return Err(bad("it is neither a program of this machine nor a script")),
    };
    let Some(interpreter) = interpreter else {
        return Ok(());
    };
    if depth == DEPTH {
        return Err(bad("scripts are nested too deep"));
    }
    look(root, &cwd.join(&interpreter), cwd, depth + 1).map_err(|problem| match problem {
        Problem::Absent => bad(&format!(
            "its interpreter {interpreter} is not in the image"
        )),
        problem => problem,
    })
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    // What cannot be read is treated as what is not there: no program then.
    file.read_at(buffer, offset).unwrap_or(0)
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Script(String),
    Elf(Segments),
    Other,
}

/// Where an ELF file says what belongs where in memory.
#[derive(Debug, PartialEq, Eq)]
struct Segments {
    offset: u64,
    size: u16,
    count: u16,
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

fn kind(head: &[u8]) -> Kind {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or(line);
        let mut words = line
            .split(|byte| matches!(byte, b' ' | b'\t' | b'\0'))
            .filter(|word| !word.is_empty());
        return match words.next().map(|word| String::from_utf8(word.to_vec())) {
            Some(Ok(interpreter)) => Kind::Script(interpreter),
            _ => Kind::Other,
        };
    }
    // Of 64 bits, little-endian, of this machine: elf(5).
    let native =
        head.starts_with(b"\x7fELF\x02\x01") && number::<2>(head, 18) == u64::from(MACHINE);
    if native && head.len() >= 64 {
        return Kind::Elf(Segments {
            offset: number::<8>(head, 32),
            size: number::<2>(head, 54) as u16,
            count: number::<2>(head, 56) as u16,
        });
    }
    Kind::Other
}

/// The program that loads this one: its dynamic linker.
fn elf_interpreter(file: &File, segments: Segments) -> Result<Option<String>, &'static str> {
    const SIZE: usize = 56;
    const INTERPRETER: u64 = 3;
    if usize::from(segments.size) != SIZE {
        return Err("its ELF header is damaged");
    }
    for index in 0..u64::from(segments.count) {
        let mut segment = [0; SIZE];
        let offset = index
            .checked_mul(SIZE as u64)
            .and_then(|offset| segments.offset.checked_add(offset))
            .ok_or("its ELF header is damaged")?;
        if read_at(file, &mut segment, offset) != SIZE {
            return Err("its ELF header is damaged");
        }
        if number::<4>(&segment, 0) != INTERPRETER {
            continue;
        }
        let mut path = vec![
            0;
            usize::try_from(number::<8>(&segment, 32))
                .unwrap_or(0)
                .min(4096)
        ];
        let length = read_at(file, &mut path, number::<8>(&segment, 8));
        let end = path[..length].iter().position(|byte| *byte == 0);
        let path = end.and_then(|end| String::from_utf8(path[..end].to_vec()).ok());
        // The kernel takes the first; a second one would be refused by nobody.
        return path.map(Some).ok_or("its ELF interpreter is no path");
    }
    Ok(None)
}

/// A little-endian number of so many bytes; 0 where there is none.
fn number<const BYTES: usize>(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at..at + BYTES).unwrap_or_default();
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_for_and_paths_are_not() {
        let check = |command: &str, path: &str, expected: &[&str]| {
            let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(candidates(command, path, "/job"), expected);
        };
        check("sh", "/usr/bin:/bin", &["/usr/bin/sh", "/bin/sh"]);
        check("sh", "bin::/bin", &["/job/bin/sh", "/job/sh", "/bin/sh"]);
        check("/bin/sh", "/usr/bin", &["/bin/sh"]);
        check("./sh", "/usr/bin", &["/job/./sh"]);
    }

    #[test]
    fn scripts_name_their_interpreter() {
        let check = |head: &[u8], interpreter: &str| {
            assert_eq!(kind(head), Kind::Script(interpreter.to_owned()), "{head:?}");
        };
        check(b"#!/bin/sh\n", "/bin/sh");
        check(b"#! \t/bin/sh -eu\nexit", "/bin/sh");
        check(b"#!/bin/sh", "/bin/sh");
        check(b"#!/proc/self/exe\0x", "/proc/self/exe");
        for head in [
            &b"#!"[..],
            b"#!\n/bin/sh",
            b"#!\xff\n",
            b"exit 0",
            b"",
            b"MZ",
        ] {
            assert_eq!(kind(head), Kind::Other, "{head:?}");
        }
    }

    #[test]
    fn only_programs_of_this_machine_are_programs() {
        let mut head = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        head.truncate(HEAD);
        assert!(matches!(kind(&head), Kind::Elf(_)));
        let mut other = head.clone();
        other[18] = 40;
        assert_eq!(kind(&other), Kind::Other);
        let mut small = head.clone();
        small[4] = 1;
        assert_eq!(kind(&small), Kind::Other);
        assert_eq!(kind(&head[..40]), Kind::Other);
    }

    #[test]
    fn a_dynamic_program_names_its_linker() {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, 0).unwrap();
        let Kind::Elf(segments) = kind(&head) else {
            panic!("we are no program");
        };
        let interpreter = elf_interpreter(&file, segments).unwrap().unwrap();
        assert!(interpreter.contains("/ld-linux"), "{interpreter}");
    }
}
