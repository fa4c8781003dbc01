//! Locks of files that a look does not get in the way of. flock(2)

use std::fs::{File, TryLockError};
use std::io;
use std::thread::sleep;
use std::time::Duration;

/// How often a lock is asked for.
const TRIES: u32 = 5;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(2);

/// Takes the lock, unless somebody has it. Who only looks whether there is somebody has it for a moment,
/// because there is no other way to look; that is waited for.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    patiently(|| match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    })
}

fn patiently(mut ask: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
    for _ in 1..TRIES {
        if ask()? {
            return Ok(true);
        }
        sleep(PAUSE);
    }
    ask()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_for_a_moment_is_nobody_and_who_stays_is_somebody() {
        for (free_after, got) in [(0, true), (1, true), (4, true), (5, false), (1000, false)] {
            let mut asked = 0;
            let answer = patiently(|| {
                asked += 1;
                Ok(asked > free_after)
            });
            assert_eq!(answer.ok(), Some(got), "free after {free_after}");
        }
        let file = tempfile::tempfile().expect("a file");
        assert_eq!(try_lock(&file).ok(), Some(true));
    }
}
