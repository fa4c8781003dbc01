//! `run`, `status`, `logs`, `attach`, `stop`, `list`, `gc`

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::{StoreArgs, age};
use crate::container::{Bind, is_host_name};
use crate::digest::Digest;
use crate::run::RunId;

pub(crate) const RUN_HELP: &str = "\
Run a program in a container, under a name that starts it once.

The run belongs to nobody's terminal, session or process: it goes on when this command, its SSH session or \
the worker ends. The same command again finds the run, also one that has ended, and never starts it a \
second time; with another image, program or environment it is refused. Only a run that was lost (the \
machine was rebooted, its supervisor killed) is started again, as its next attempt.

Without --detach, prints what the program writes and exits as it did: with its code, or 128 and the number \
of the signal that killed it. 125 is everything else: not started, lost, or this command was interrupted \
while the run goes on; then `attach` follows it again. With --detach, returns when the program runs, or ran.";

pub(crate) const ATTACH_HELP: &str = "\
Follow a run to its end, and exit as it did.

Prints what the program wrote and writes, and exits with its code, or 128 and the number of the signal that \
killed it. 125 is everything else: there is no such run, it was lost, or this command was interrupted. \
Interrupting it (Ctrl-C) leaves the run as it is; `stop` ends it.";

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The name of the run: letters, digits, `.`, `_` and `-`
    #[arg(long, value_name = "ID")]
    pub(crate) id: RunId,
    /// Return as soon as the program runs
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// The image to run it on, as `image list` prints it
    #[arg(long, value_name = "DIGEST", required_unless_present = "root")]
    pub(crate) image: Option<Digest>,
    /// A directory to run it on instead; it is not written to
    #[arg(long, value_name = "DIR", conflicts_with = "image", value_hint = ValueHint::DirPath)]
    pub(crate) root: Option<PathBuf>,
    /// A variable that the program sees. It sees no other but PATH, HOME and LANG. Others can read
    /// arguments, and variables are kept in the run's folder: secrets go with --secret
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// A file of NAME=VALUE lines; empty lines and those with # are skipped. --env counts more
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// The directory that the program starts in
    #[arg(long, value_name = "DIR", default_value = "/", value_parser = inside)]
    pub(crate) cwd: String,
    /// The host name that the program sees
    #[arg(long, value_name = "NAME", default_value = "rekindle", value_parser = hostname)]
    pub(crate) hostname: String,
    /// A file or directory of this host that the program sees; read-only without `:rw`
    #[arg(long, value_name = "FROM:TO[:rw]", value_parser = bind)]
    pub(crate) bind: Vec<Bind>,
    /// A secret, from a file that only its owner can read. It is kept in memory only
    #[arg(long, value_name = "NAME=FILE", value_parser = secret)]
    pub(crate) secret: Vec<(String, PathBuf)>,
    /// More secrets: a JSON object of names and texts on stdin
    #[arg(long)]
    pub(crate) secrets_stdin: bool,
    /// The most memory, for example `2G`
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) memory: Option<u64>,
    /// The most processes
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) pids: Option<u64>,
    /// The most that the program may write to its root; it is in memory, and gone afterwards
    #[arg(long, value_name = "BYTES", default_value = "1G", value_parser = bytes)]
    pub(crate) tmpfs_size: u64,
    /// The most files that the program may make there
    #[arg(long, value_name = "NUMBER", default_value_t = 262_144, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) tmpfs_inodes: u64,
    /// How much of the log is kept; the oldest goes first
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = bytes)]
    pub(crate) log_limit: u64,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// The program, by its path in the image, and its arguments
    #[arg(value_name = "PROGRAM", required = true, last = true)]
    pub(crate) argv: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct OneRun {
    /// The run
    #[arg(value_name = "ID")]
    pub(crate) id: RunId,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The run
    #[arg(value_name = "ID")]
    pub(crate) id: RunId,
    /// Go on until the run ends
    #[arg(long, short, conflicts_with = "limit")]
    pub(crate) follow: bool,
    /// The first byte. An offset names the same byte for ever; what is not kept any more is skipped
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    pub(crate) from: u64,
    /// Fail when that byte is not kept any more, instead of beginning later
    #[arg(long, conflicts_with = "follow")]
    pub(crate) exact: bool,
    /// The most bytes to print
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) limit: Option<u64>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// The run
    #[arg(value_name = "ID")]
    pub(crate) id: RunId,
    /// The first byte; by default where the newest attempt begins
    #[arg(long, value_name = "OFFSET")]
    pub(crate) from: Option<u64>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// The run
    #[arg(value_name = "ID")]
    pub(crate) id: RunId,
    /// How long the program may take after TERM, before KILL
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = age)]
    pub(crate) grace: Duration,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListRuns {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RunGc {
    /// Remove what ended this time ago, for example `12h` or `30d`; `0d` for all
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = age)]
    pub(crate) older_than: Duration,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// One variable. An error does not repeat the value, which somebody may think is a secret.
pub(crate) fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a variable is NAME=VALUE")?;
    let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let rest = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !begins || !rest {
        return Err(
            "the name of a variable is letters, digits and `_`, not a digit first".to_owned(),
        );
    }
    if value.contains('\0') {
        return Err("a variable cannot hold a zero byte".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// A path inside of the container.
fn inside(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err("a path inside begins with /".to_owned());
    }
    if text.split('/').any(|part| part == "..") {
        return Err("a path inside has no ..".to_owned());
    }
    Ok(text.to_owned())
}

fn hostname(text: &str) -> Result<String, String> {
    is_host_name(text)
        .then(|| text.to_owned())
        .ok_or_else(|| "a host name is letters, digits, `.` and `-`, at most 64".to_owned())
}

fn bind(text: &str) -> Result<Bind, String> {
    let mut parts = text.split(':');
    let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
        return Err("a bind is FROM:TO, and :rw to write".to_owned());
    };
    let read_only = match (parts.next(), parts.next()) {
        (None | Some("ro"), None) => true,
        (Some("rw"), None) => false,
        _ => return Err("after FROM:TO there may be :rw or :ro, nothing else".to_owned()),
    };
    if !source.starts_with('/') {
        return Err("FROM begins with /".to_owned());
    }
    let target = inside(target)?;
    if target.split('/').all(|part| matches!(part, "" | ".")) {
        return Err("TO cannot be the root".to_owned());
    }
    Ok(Bind {
        source: PathBuf::from(source),
        target,
        read_only,
    })
}

fn secret(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(file)))
        }
        _ => Err("a secret is NAME=FILE; its contents never stand here".to_owned()),
    }
}

/// A number of bytes, with K, M, G or T for powers of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        Some(b'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    number
        .parse::<u64>()
        .ok()
        .filter(|&number| number > 0)
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "bytes are a number, and K, M, G or T if you like".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert_eq!(variable("_a1="), Ok(("_a1".to_owned(), String::new())));
        for bad in ["", "A", "=x", "1A=x", "a b=x", "é=x", "A=\0"] {
            assert!(variable(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn binds() {
        let parsed = bind("/a b:/c:rw").unwrap();
        assert_eq!((parsed.target.as_str(), parsed.read_only), ("/c", false));
        assert!(bind("/a:/c").unwrap().read_only);
        assert!(bind("/a:/c:ro").unwrap().read_only);
        for bad in [
            "",
            "/a",
            "a:/b",
            "/a:b",
            "/a:/../b",
            "/a:/",
            "/a:/.",
            "/a:/b:x",
            "/a:/b:rw:",
        ] {
            assert!(bind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_host_names_and_secrets() {
        assert_eq!(bytes("5"), Ok(5));
        assert_eq!(bytes("2G"), Ok(2 << 30));
        for bad in ["", "0", "G", "-1", "2g", "1.5G", "99999999999T", "é"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert!(hostname("a-1.b").is_ok());
        for bad in ["", "-a", "a b", "a/b", &"x".repeat(65)] {
            assert!(hostname(bad).is_err(), "{bad}");
        }
        assert!(secret("a=/k=1").is_ok());
        for bad in ["", "a", "=x", "a="] {
            assert!(secret(bad).is_err(), "{bad}");
        }
    }
}
