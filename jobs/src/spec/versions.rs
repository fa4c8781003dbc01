//! Which Kubespray installs which Kubernetes, and with which Ansible.
//!
//! Kubespray stops at a wrong combination by itself, but only on the hosts and after minutes. The
//! table says so before anything starts. Where its numbers come from: in the release's tree,
//! `roles/kubespray_defaults/vars/main/checksums.yml` (the first version of Kubernetes listed is the
//! newest it installs; about three minors are listed), and `playbooks/ansible_version.yml` (the
//! versions of ansible-core it asserts).

use std::fmt;
use std::str::FromStr;

/// `1.33.7`: three numbers and nothing else. Kubespray wants no `v` in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            let canonical = part == "0" || !part.starts_with('0');
            (plain && canonical).then(|| part.parse().ok()).flatten()
        };
        let parts: Option<Vec<u32>> = text.split('.').map(number).collect();
        match parts.as_deref() {
            Some([major, minor, patch]) => Ok(Self(*major, *minor, *patch)),
            _ => Err(format!(
                "`{text}` is not a version of three numbers such as 1.33.7, without `v`"
            )),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What one minor release of Kubespray goes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// The newest patch release that this line was read from.
    pub kubespray: Version,
    /// The newest Kubernetes it installs.
    pub newest: Version,
    /// The oldest minor of Kubernetes it installs.
    pub oldest_minor: u32,
    /// ansible-core: from this version on.
    pub ansible_from: Version,
    /// ansible-core: below this version.
    pub ansible_below: Version,
}

/// The releases that this build knows, oldest first.
pub const RELEASES: [Release; 3] = [
    Release {
        kubespray: Version(2, 29, 1),
        newest: Version(1, 33, 7),
        oldest_minor: 31,
        ansible_from: Version(2, 17, 3),
        ansible_below: Version(2, 18, 0),
    },
    Release {
        kubespray: Version(2, 30, 0),
        newest: Version(1, 34, 3),
        oldest_minor: 32,
        ansible_from: Version(2, 17, 3),
        ansible_below: Version(2, 18, 0),
    },
    Release {
        kubespray: Version(2, 31, 0),
        newest: Version(1, 35, 4),
        oldest_minor: 33,
        ansible_from: Version(2, 18, 0),
        ansible_below: Version(2, 19, 0),
    },
];

/// A version that does not go with the others: which one, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// `kubespray`, `version` or `ansible_core`, as in the spec.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// Checks the versions against each other. A patch release of Kubespray that is newer than the one
/// we know may install newer patches of its newest Kubernetes.
pub fn check(kubespray: &str, kubernetes: &str, ansible_core: Option<&str>) -> Vec<Misfit> {
    let mut found = Vec::new();
    let mut read = |field: &'static str, text: &str| match text.parse::<Version>() {
        Ok(version) => Some(version),
        Err(reason) => {
            found.push(Misfit { field, reason });
            None
        }
    };
    let tool = read("kubespray", kubespray);
    let wanted = read("version", kubernetes);
    let ansible = ansible_core.and_then(|text| read("ansible_core", text));
    let Some(tool) = tool else { return found };
    let known = RELEASES
        .iter()
        .find(|r| (r.kubespray.0, r.kubespray.1) == (tool.0, tool.1));
    let Some(release) = known else {
        let lines: Vec<String> = RELEASES
            .iter()
            .map(|r| format!("{}.{}", r.kubespray.0, r.kubespray.1))
            .collect();
        found.push(Misfit {
            field: "kubespray",
            reason: format!(
                "{tool} is not of a release line that this build knows: {}",
                lines.join(", ")
            ),
        });
        return found;
    };
    let newest = release.newest;
    if let Some(wanted) = wanted {
        let minor = wanted.0 == newest.0 && (release.oldest_minor..=newest.1).contains(&wanted.1);
        let too_new = wanted > newest && tool <= release.kubespray;
        if !minor || too_new {
            found.push(Misfit {
                field: "version",
                reason: format!(
                    "Kubespray {tool} does not install Kubernetes {wanted}, but {}.{} to {newest}",
                    newest.0, release.oldest_minor
                ),
            });
        }
    }
    let (from, below) = (release.ansible_from, release.ansible_below);
    if let Some(ansible) = ansible
        && !(from..below).contains(&ansible)
    {
        found.push(Misfit {
            field: "ansible_core",
            reason: format!(
                "Kubespray {tool} refuses ansible-core {ansible}: it wants {from} or newer, and older than {below}"
            ),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_is_in_order_and_each_line_fits_itself() {
        assert!(RELEASES.is_sorted_by(|a, b| a.kubespray < b.kubespray && a.newest < b.newest));
        for r in RELEASES {
            let (tool, newest) = (r.kubespray.to_string(), r.newest.to_string());
            let ansible = r.ansible_from.to_string();
            assert_eq!(check(&tool, &newest, Some(&ansible)), []);
            let oldest = format!("{}.{}.0", r.newest.0, r.oldest_minor);
            assert_eq!(check(&tool, &oldest, None), []);
            let below = r.ansible_below.to_string();
            assert_eq!(check(&tool, &newest, Some(&below)).len(), 1);
        }
    }

    #[test]
    fn what_does_not_go_together_names_the_field() {
        let check = |tool: &str, kubernetes: &str, ansible: Option<&str>, want: &[(&str, &str)]| {
            let found = super::check(tool, kubernetes, ansible);
            let fields: Vec<&str> = found.iter().map(|m| m.field).collect();
            let wanted: Vec<&str> = want.iter().map(|(field, _)| *field).collect();
            assert_eq!(fields, wanted, "{found:?}");
            for (misfit, (_, text)) in found.iter().zip(want) {
                assert!(misfit.reason.contains(text), "{misfit:?}");
            }
        };
        check("2.29.1", "1.33.7", Some("2.17.14"), &[]);
        check("2.29.1", "v1.33.7", None, &[("version", "without `v`")]);
        check("2.29.1", "1.34.0", None, &[("version", "1.31 to 1.33.7")]);
        check("2.29.1", "1.30.9", None, &[("version", "1.31 to 1.33.7")]);
        check("2.29.1", "2.33.0", None, &[("version", "1.31 to 1.33.7")]);
        check("2.29.1", "1.33.8", None, &[("version", "1.31 to 1.33.7")]);
        // A newer patch of Kubespray may know newer patches of Kubernetes.
        check("2.29.2", "1.33.8", None, &[]);
        check(
            "2.28.0",
            "1.32.0",
            None,
            &[("kubespray", "2.29, 2.30, 2.31")],
        );
        check(
            "latest",
            "1.33",
            None,
            &[("kubespray", "`latest`"), ("version", "`1.33`")],
        );
        check(
            "2.31.0",
            "1.35.4",
            Some("2.17.14"),
            &[("ansible_core", "2.18.0 or newer")],
        );
        check(
            "2.30.0",
            "1.34.3",
            Some("2.18.0"),
            &[("ansible_core", "older than 2.18.0")],
        );
    }

    proptest! {
        #[test]
        fn a_version_reads_back_as_it_was_written(a in 0u32..1000, b in 0u32..1000, c in 0u32..1000) {
            let version = Version(a, b, c);
            prop_assert_eq!(version.to_string().parse::<Version>(), Ok(version));
        }

        #[test]
        fn no_text_breaks_the_check(tool in ".{0,12}", kubernetes in ".{0,12}", ansible in ".{0,12}") {
            check(&tool, &kubernetes, Some(&ansible));
        }

        /// Within a minor that a release knows, older patches are as good as newer ones.
        #[test]
        fn older_patches_are_fine(line in 0usize..RELEASES.len(), back in 0u32..3, patch in 0u32..99) {
            let release = RELEASES[line];
            let minor = release.newest.1 - back;
            let patch = if back == 0 { patch.min(release.newest.2) } else { patch };
            let version = Version(release.newest.0, minor, patch).to_string();
            prop_assert_eq!(check(&release.kubespray.to_string(), &version, None), vec![]);
        }
    }
}
