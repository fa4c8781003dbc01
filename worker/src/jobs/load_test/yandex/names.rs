//! The names of what a load test makes: unique in the folder, and valid for the API.

use jobs::ids::{ClusterName, RecoveryId};

/// The longest part of a name that comes from a cluster or recovery. All parts together have at most 63 characters,
/// whatever the generation is.
const LONGEST: usize = 16;

/// `rekindle-<cluster>-<recovery>-<generation>-<part>`, with the names shortened.
pub(super) fn name(
    cluster: &ClusterName,
    recovery: &RecoveryId,
    generation: u32,
    part: &str,
) -> String {
    format!(
        "rekindle-{}-{}-{generation}-{part}",
        short(cluster.as_str()),
        short(recovery.as_str())
    )
}

/// A text that is not too long: its beginning and some digits of its digest. Names that begin alike stay different.
fn short(text: &str) -> String {
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    let digest = jobs::digest(text.as_bytes());
    format!(
        "{}-{}",
        text[..LONGEST - 7].trim_end_matches('-'),
        &digest[..6]
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn of(cluster: &str, recovery: &str, generation: u32) -> String {
        let (cluster, recovery) = (cluster.parse().unwrap(), recovery.parse().unwrap());
        name(&cluster, &recovery, generation, "network")
    }

    #[test]
    fn names_are_valid_and_differ() {
        assert_eq!(
            of("test", "r-0123456789ab", 0),
            "rekindle-test-r-0123456789ab-0-network"
        );
        let (long, longer) = ("x".repeat(17), "x".repeat(18));
        assert_ne!(of(&long, "r-1", 0), of(&longer, "r-1", 0));
        assert_ne!(of("test", &long, 0), of("test", &longer, 0));
        for generation in [0, 7, u32::MAX] {
            for (cluster, recovery) in [(long.as_str(), longer.as_str()), ("a-b", "0")] {
                let name = of(cluster, recovery, generation);
                assert!(name.len() <= 63, "{name}");
                assert!(name.starts_with(|c: char| c.is_ascii_lowercase()));
                let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                assert!(name.chars().all(fits), "{name}");
            }
        }
        assert!(!short("abcdefgh--ijklmnopq").contains("--"));
    }
}
