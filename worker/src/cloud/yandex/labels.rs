//! The labels of whatever we make: whose it is, and how long it may live. By them alone it is ever deleted.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jobs::ids::{ClusterName, RecoveryId};

/// The label with the cluster that is recovered.
pub const CLUSTER: &str = "rekindle";
/// The label with the recovery. Its ids are unique within a cluster only.
pub const RECOVERY: &str = "rekindle-recovery";
/// The label with the second, by Unix time, after which it may be deleted by anybody.
pub const UNTIL: &str = "rekindle-until";

/// The longest value of a label.
const LONGEST: usize = 63;

/// The recovery that something was made for, as labels say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    cluster: String,
    recovery: String,
}

impl Owner {
    /// A recovery of a cluster.
    pub fn new(cluster: &ClusterName, recovery: &RecoveryId) -> Self {
        Self {
            cluster: clean(cluster.as_str()),
            recovery: clean(recovery.as_str()),
        }
    }

    /// The labels of what is made for it and may live until then.
    pub fn labels(&self, until: Timestamp) -> BTreeMap<String, String> {
        let labels = [
            (CLUSTER, self.cluster.clone()),
            (RECOVERY, self.recovery.clone()),
            (UNTIL, until.as_second().to_string()),
        ];
        labels.map(|(key, value)| (key.to_owned(), value)).into()
    }

    /// Whether labels say that it was made for this recovery of this cluster.
    pub fn owns(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(CLUSTER) == Some(&self.cluster) && labels.get(RECOVERY) == Some(&self.recovery)
    }
}

/// A text in the alphabet of labels: small letters, digits, `-` and `_`.
fn clean(text: &str) -> String {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    let clean = |c: char| match c.to_ascii_lowercase() {
        c if fits(c) => c,
        _ => '-',
    };
    text.chars().map(clean).take(LONGEST).collect()
}

/// What is to become of something with these labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is none of ours.
    Strange,
    /// Its time has not come.
    Lives,
    /// Its time is over.
    Expired,
    /// It is ours, and does not say how long it may live: for people to look at.
    Unreadable,
}

/// Decides by labels and the present time.
pub fn fate(labels: &BTreeMap<String, String>, now: Timestamp) -> Fate {
    if !labels.contains_key(CLUSTER) {
        return Fate::Strange;
    }
    let digits = |text: &&String| text.bytes().all(|b| b.is_ascii_digit());
    let until = labels.get(UNTIL).filter(digits);
    let until = until.and_then(|text| text.parse().ok());
    match until.and_then(|second| Timestamp::from_second(second).ok()) {
        Some(until) if until < now => Fate::Expired,
        Some(_) => Fate::Lives,
        None => Fate::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn only_what_is_ours_and_past_its_time_is_expired() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        for (pairs, want) in [
            (&[][..], Fate::Strange),
            (&[("rekindle-until", "1")], Fate::Strange),
            (
                &[("rekindle-recovery", "r-1"), ("rekindle-until", "1")],
                Fate::Strange,
            ),
            (
                &[("Rekindle", "test"), ("rekindle-until", "1")],
                Fate::Strange,
            ),
            (
                &[("rekindle", "test"), ("rekindle-until", "1699999999")],
                Fate::Expired,
            ),
            (&[("rekindle", ""), ("rekindle-until", "0")], Fate::Expired),
            (
                &[("rekindle", "test"), ("rekindle-until", "1700000000")],
                Fate::Lives,
            ),
            (
                &[("rekindle", "test"), ("rekindle-until", "1700000001")],
                Fate::Lives,
            ),
            (&[("rekindle", "test")], Fate::Unreadable),
            (
                &[("rekindle", "test"), ("rekindle-until", "")],
                Fate::Unreadable,
            ),
            (
                &[("rekindle", "test"), ("rekindle-until", "-1")],
                Fate::Unreadable,
            ),
            (
                &[("rekindle", "test"), ("rekindle-until", "+1")],
                Fate::Unreadable,
            ),
            (
                &[("rekindle", "test"), ("rekindle-until", "1e3")],
                Fate::Unreadable,
            ),
            (
                &[("rekindle", "test"), ("rekindle-until", "2026-01-01")],
                Fate::Unreadable,
            ),
            (
                &[
                    ("rekindle", "test"),
                    ("rekindle-until", "99999999999999999999"),
                ],
                Fate::Unreadable,
            ),
            (
                &[("rekindle", "test"), ("rekindle-until", "9999999999999")],
                Fate::Unreadable,
            ),
        ] {
            assert_eq!(fate(&labels(pairs), now), want, "{pairs:?}");
        }
    }

    #[test]
    fn a_recovery_owns_what_names_it_and_its_cluster() {
        let owner = |cluster: &str, recovery: &str| {
            Owner::new(&cluster.parse().unwrap(), &recovery.parse().unwrap())
        };
        let ours = owner("test", "r-1");
        let made = ours.labels(Timestamp::from_second(7).unwrap());
        let all = [
            ("rekindle", "test"),
            ("rekindle-recovery", "r-1"),
            ("rekindle-until", "7"),
        ];
        assert_eq!(made, labels(&all));
        assert!(ours.owns(&made));
        assert!(!ours.owns(&owner("other", "r-1").labels(Timestamp::now())));
        assert!(!ours.owns(&owner("test", "r-10").labels(Timestamp::now())));
        assert!(!ours.owns(&labels(&all[..1])));
        assert!(!ours.owns(&labels(&all[1..])));
    }

    #[test]
    fn values_have_the_alphabet_of_labels() {
        assert_eq!(clean("Test.A b_c-1я"), "test-a-b_c-1-");
        assert_eq!(clean(&"x".repeat(100)).len(), 63);
    }
}
