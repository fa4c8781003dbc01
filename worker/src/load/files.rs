//! Open files for many connections.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What this process has open beside connections of virtual users: the store's, the queue's, those to hosts.
const OTHERS: u64 = 256;

/// Too few files may be open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{users} virtual users need {needed} open files, and the hard limit of this process is {limit}: raise it (LimitNOFILE of \
     its unit, `ulimit -n`), then `rekindle retry`"
)]
pub struct TooFewFiles {
    users: u32,
    needed: u64,
    limit: u64,
}

/// Raises our soft limit to the hard one, as Go's runtime does for k6, and says whether that is enough: a connection
/// that fails for want of a file would count against the application.
pub(super) fn allow(users: u32) -> Result<(), TooFewFiles> {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Ok(());
    };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() {
        tracing::warn!(soft, hard, "the limit of open files cannot be raised");
        return enough(users, soft);
    }
    enough(users, hard)
}

fn enough(users: u32, limit: u64) -> Result<(), TooFewFiles> {
    let needed = u64::from(users) + OTHERS;
    match needed <= limit {
        true => Ok(()),
        false => Err(TooFewFiles {
            users,
            needed,
            limit,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_users_than_files_are_refused_with_both_numbers() {
        assert_eq!(enough(768, 1024), Ok(()));
        let text = enough(769, 1024).expect_err("too many").to_string();
        assert!(text.contains("need 1025 open files"), "{text}");
        assert!(text.contains("is 1024"), "{text}");
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        allow(1).expect("two files");
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        assert_eq!(soft, hard);
    }
}
