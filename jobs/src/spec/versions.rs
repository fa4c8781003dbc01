//! Which Kubespray installs which Kubernetes, and with which Ansible.
//!
//! Kubespray stops at a wrong combination by itself, but only on the hosts and after minutes. The
//! table says so before anything starts. Where its numbers come from: in the release's tree,
//! `roles/kubespray_defaults/vars/main/checksums.yml` (it installs what stands under
//! `kubelet_checksums`: of three minors each patch from 0 to the newest, without a gap so far), and
//! `playbooks/ansible_version.yml` (the versions of ansible-core it asserts). Older releases than
//! these want an ansible-core that `deploy/rootfs` has no list for.

use std::fmt;
use std::str::FromStr;

/// `1.33.7`: three numbers and nothing else. Kubespray wants no `v` in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Its first two numbers.
    fn minor(self) -> (u32, u32) {
        (self.0, self.1)
    }
}

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

/// What one release of Kubespray goes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// The release.
    pub kubespray: Version,
    /// The newest patch of each minor of Kubernetes it installs, oldest first.
    pub newest: [Version; 3],
    /// ansible-core: from this version on.
    pub ansible_from: Version,
    /// ansible-core: below this version.
    pub ansible_below: Version,
}

/// The releases that this build knows, oldest first.
pub const RELEASES: [Release; 4] = [
    Release {
        kubespray: Version(2, 29, 0),
        newest: [Version(1, 31, 13), Version(1, 32, 9), Version(1, 33, 5)],
        ansible_from: Version(2, 17, 3),
        ansible_below: Version(2, 18, 0),
    },
    Release {
        kubespray: Version(2, 29, 1),
        newest: [Version(1, 31, 14), Version(1, 32, 10), Version(1, 33, 7)],
        ansible_from: Version(2, 17, 3),
        ansible_below: Version(2, 18, 0),
    },
    Release {
        kubespray: Version(2, 30, 0),
        newest: [Version(1, 32, 11), Version(1, 33, 7), Version(1, 34, 3)],
        ansible_from: Version(2, 17, 3),
        ansible_below: Version(2, 18, 0),
    },
    Release {
        kubespray: Version(2, 31, 0),
        newest: [Version(1, 33, 11), Version(1, 34, 7), Version(1, 35, 4)],
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

/// Checks the versions against each other. A patch release of Kubespray that is newer than the ones
/// we know may install newer patches of the minors that the newest of those installs.
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
        .rfind(|r| r.kubespray.minor() == tool.minor() && r.kubespray <= tool);
    let Some(release) = known else {
        let all: Vec<String> = RELEASES.iter().map(|r| r.kubespray.to_string()).collect();
        found.push(Misfit {
            field: "kubespray",
            reason: format!(
                "{tool} is no release that this build knows: {}, and newer patches of these",
                all.join(", ")
            ),
        });
        return found;
    };
    if let Some(wanted) = wanted {
        let newest = release.newest.iter().find(|n| n.minor() == wanted.minor());
        if newest.is_none_or(|newest| wanted > *newest && tool == release.kubespray) {
            let [old, middle, new] = release.newest.map(|newest| {
                let (major, minor) = newest.minor();
                format!("{major}.{minor}.0 to {newest}")
            });
            let or_newer = if tool == release.kubespray {
                ""
            } else {
                ", or newer patches"
            };
            found.push(Misfit {
                field: "version",
                reason: format!(
                    "Kubespray {tool} does not install Kubernetes {wanted}, but {old}, {middle} and {new}{or_newer}"
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
            assert!(r.newest.is_sorted_by(|a, b| a.0 == b.0 && a.1 + 1 == b.1));
            let tool = r.kubespray.to_string();
            let ansible = r.ansible_from.to_string();
            let below = r.ansible_below.to_string();
            for newest in r.newest.map(|newest| newest.to_string()) {
                assert_eq!(check(&tool, &newest, Some(&ansible)), []);
                assert_eq!(check(&tool, &newest, Some(&below)).len(), 1);
            }
            let [oldest, .., newest] = r.newest;
            for beyond in [(oldest.0, oldest.1 - 1), (newest.0, newest.1 + 1)] {
                let beyond = Version(beyond.0, beyond.1, 0).to_string();
                assert_eq!(check(&tool, &beyond, None).len(), 1, "{tool} {beyond}");
            }
        }
    }

    /// Read from `kubelet_checksums` of each release, once more and by hand.
    #[test]
    fn each_release_ends_at_the_patches_that_its_checksums_end_at() {
        for (tool, newest) in [
            ("2.29.0", [(33, 5), (32, 9), (31, 13)]),
            ("2.29.1", [(33, 7), (32, 10), (31, 14)]),
            ("2.30.0", [(34, 3), (33, 7), (32, 11)]),
            ("2.31.0", [(35, 4), (34, 7), (33, 11)]),
        ] {
            for (minor, patch) in newest {
                let last = format!("1.{minor}.{patch}");
                assert_eq!(check(tool, &last, None), [], "{tool} {last}");
                let next = format!("1.{minor}.{}", patch + 1);
                assert_eq!(check(tool, &next, None).len(), 1, "{tool} {next}");
            }
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
        let all = "but 1.31.0 to 1.31.14, 1.32.0 to 1.32.10 and 1.33.0 to 1.33.7";
        check("2.29.1", "1.34.0", None, &[("version", all)]);
        check("2.29.1", "1.30.9", None, &[("version", all)]);
        check("2.29.1", "2.33.0", None, &[("version", all)]);
        check("2.29.1", "1.33.8", None, &[("version", all)]);
        check("2.29.1", "1.32.11", None, &[("version", all)]);
        // An older patch of Kubespray does not know what a newer one does.
        check("2.29.0", "1.33.6", None, &[("version", "to 1.33.5")]);
        // A newer patch of Kubespray may know newer patches of Kubernetes, but has no newer minor.
        check("2.29.2", "1.33.8", None, &[]);
        check("2.29.2", "1.31.15", None, &[]);
        check("2.29.2", "1.34.0", None, &[("version", "or newer patches")]);
        check(
            "2.28.1",
            "1.32.0",
            None,
            &[("kubespray", "2.29.0, 2.29.1, 2.30.0, 2.31.0, and newer")],
        );
        check("2.32.0", "1.35.0", None, &[("kubespray", "2.31.0")]);
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
        fn older_patches_are_fine(line in 0usize..RELEASES.len(), minor in 0usize..3, back in 0u32..99) {
            let release = RELEASES[line];
            let Version(major, minor, patch) = release.newest[minor];
            let version = Version(major, minor, patch.saturating_sub(back)).to_string();
            prop_assert_eq!(check(&release.kubespray.to_string(), &version, None), vec![]);
        }
    }
}
