//! What types alone cannot say about a spec: sizes, names that collide, ports that are taken.

use std::collections::BTreeMap;
use std::fmt;

use super::{ClusterSpec, DataDisk, Group, Instance, Role, Storage};
use crate::cut::cut;
use crate::ids::NodeName;

/// One thing wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Path of the field, for example `groups[2].ram_gb`.
    pub path: String,
    /// What is wrong, and how it would be right.
    pub reason: String,
}

impl Problem {
    /// A problem at a path. Long texts are cut.
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            path: cut(path.into(), LONGEST_PATH),
            reason: cut(reason.into(), LONGEST_REASON),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

impl std::error::Error for Problem {}

/// Problems quote the document and do not repeat it; in bytes.
const LONGEST_PATH: usize = 300;
const LONGEST_REASON: usize = 1000;
/// More GB than any server has; below it, nobody means MB.
const MOST_RAM_GB: u32 = 512;
/// The provider's smallest network volume, in GB.
const LEAST_NETWORK_GB: u32 = 10;

/// Where the system lives: nothing of ours is mounted there or below.
const SYSTEM_AND_BELOW: [&str; 14] = [
    "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/boot", "/proc",
    "/sys", "/dev", "/root", "/run",
];
/// Nothing is mounted over these; below them there may be.
const SYSTEM: [&str; 2] = ["/var", "/tmp"];

pub(super) fn check(spec: &ClusterSpec) -> Vec<Problem> {
    let mut found = Vec::new();
    if spec.version != 1 {
        found.push(Problem::new(
            "version",
            format!("{} is not known; this build reads version 1", spec.version),
        ));
    }
    if spec.servers.keypair.trim().is_empty() {
        found.push(Problem::new(
            "servers.keypair",
            "it is empty; name the SSH key pair of the cloud project",
        ));
    }
    if let Some(lb) = &spec.load_balancer {
        let health = &lb.health;
        let mut at_least = |name: &str, value: u32, least: u32| {
            if value < least {
                found.push(Problem::new(
                    format!("load_balancer.health.{name}"),
                    format!("{value} is less than the provider's least, {least}"),
                ));
            }
        };
        at_least("delay", health.delay, 80);
        at_least("timeout", health.timeout, 15);
        if !(1..=10).contains(&health.retries) {
            found.push(Problem::new(
                "load_balancer.health.retries",
                "it is not between 1 and 10",
            ));
        }
    }
    for (i, group) in spec.groups.iter().enumerate() {
        check_group(spec, group, &format!("groups[{i}]"), &mut found);
    }
    check_names(spec, &mut found);
    check_ports(spec, &mut found);
    if !spec.groups.iter().any(|g| enabled(g) > 0) {
        found.push(Problem::new("groups", "no node is switched on"));
    }
    let bastions: usize = spec
        .groups
        .iter()
        .filter(|g| g.role == Role::Bastion)
        .map(enabled)
        .sum();
    if bastions > 1 {
        found.push(Problem::new(
            "groups",
            format!("{bastions} bastions are switched on; a cluster has one at most"),
        ));
    }
    super::kubernetes::check(spec, &mut found);
    super::flux::check(spec, &mut found);
    super::database::check(spec, &mut found);
    super::application::check(spec, &mut found);
    super::load_test::check(spec, &mut found);
    found
}

fn enabled(group: &Group) -> usize {
    let on = |i: &&Instance| match i {
        Instance::Enabled(on) => *on,
        Instance::With(extra) => extra.enabled,
    };
    group.instances.values().filter(on).count()
}

fn check_group(spec: &ClusterSpec, group: &Group, at: &str, found: &mut Vec<Problem>) {
    let mut bad =
        |field: &str, reason: String| found.push(Problem::new(format!("{at}.{field}"), reason));
    let longest = group.instances.keys().max().copied().unwrap_or(1);
    if let Err(e) = NodeName::new(format!("{}-{}-{longest}", spec.cluster, group.prefix)) {
        bad("prefix", format!("{e}"));
    } else if NodeName::new(group.prefix.clone()).is_err() {
        bad(
            "prefix",
            format!(
                "`{}` is not a DNS label: lower-case letters, digits and `-`",
                group.prefix
            ),
        );
    }
    if group.vcpus == 0 || group.vcpus > 256 {
        bad("vcpus", format!("{} is not between 1 and 256", group.vcpus));
    }
    if group.ram_gb == 0 {
        bad("ram_gb", "it is 0".into());
    } else if group.ram_gb > MOST_RAM_GB {
        let hint = if group.ram_gb.is_multiple_of(1024) {
            format!(
                "; write {} if you mean {} MB",
                group.ram_gb / 1024,
                group.ram_gb
            )
        } else {
            String::new()
        };
        bad(
            "ram_gb",
            format!(
                "{} is more than {MOST_RAM_GB}: memory is given in GB, not in MB{hint}",
                group.ram_gb
            ),
        );
    }
    if group.boot_disk.size_gb == 0 || group.boot_disk.size_gb > 10_000 {
        bad(
            "boot_disk.size_gb",
            format!("{} is not between 1 and 10000 GB", group.boot_disk.size_gb),
        );
    }
    if group.role == Role::Bastion && !group.taints.is_empty() {
        bad(
            "taints",
            "a bastion is not part of Kubernetes and has no taints".into(),
        );
    }
    let bad_taint = |taint: &str| {
        format!("`{taint}` is not `key=value:NoSchedule`, `:PreferNoSchedule` or `:NoExecute`")
    };
    let twice = |taint: &str, other: &str| {
        format!("`{taint}` has the key and the effect of `{other}`, and a node can have only one")
    };
    for (i, taint) in group.taints.iter().enumerate() {
        if !taint_is_fine(taint) {
            bad(&format!("taints[{i}]"), bad_taint(taint));
        } else if let Some(other) = same_taint(taint, &group.taints[..i]) {
            bad(&format!("taints[{i}]"), twice(taint, other));
        }
    }
    for (key, value) in &group.labels {
        if !label_is_fine(key, value) {
            bad(
                &format!("labels.{key}"),
                format!("`{key}={value}` is not a Kubernetes label"),
            );
        }
    }
    for (n, instance) in &group.instances {
        if *n == 0 {
            bad("instances", "instances count from 1".into());
        }
        if let Instance::With(extra) = instance {
            if group.role == Role::Bastion && !extra.taints.is_empty() {
                let reason = "a bastion is not part of Kubernetes and has no taints";
                bad(&format!("instances.{n}.taints"), reason.into());
            }
            for (i, taint) in extra.taints.iter().enumerate() {
                if !taint_is_fine(taint) {
                    bad(&format!("instances.{n}.taints[{i}]"), bad_taint(taint));
                } else if let Some(other) = same_taint(taint, &extra.taints[..i])
                    // Word for word the group's is no harm: a node has it once.
                    .or_else(|| same_taint(taint, &group.taints).filter(|other| *other != taint))
                {
                    bad(&format!("instances.{n}.taints[{i}]"), twice(taint, other));
                }
            }
            for (key, value) in extra.labels.iter().filter(|(k, v)| !label_is_fine(k, v)) {
                bad(
                    &format!("instances.{n}.labels.{key}"),
                    format!("`{key}={value}` is not a Kubernetes label"),
                );
            }
        }
    }
    for (i, disk) in group.data_disks.iter().enumerate() {
        check_disk(disk, &format!("{at}.data_disks[{i}]"), found);
        for (j, other) in group.data_disks[..i].iter().enumerate() {
            let path = |field: &str| format!("{at}.data_disks[{i}].{field}");
            if other.name == disk.name {
                found.push(Problem::new(
                    path("name"),
                    format!("`{}` is also the name of data_disks[{j}]", disk.name),
                ));
            }
            if other.mount.trim_end_matches('/') == disk.mount.trim_end_matches('/') {
                found.push(Problem::new(
                    path("mount"),
                    format!(
                        "`{}` is also the mount point of data_disks[{j}]",
                        disk.mount
                    ),
                ));
            }
        }
    }
    if !group.forward.is_empty() && spec.load_balancer.is_none() {
        found.push(Problem::new(
            format!("{at}.forward"),
            "the spec has no `load_balancer` to forward from",
        ));
    }
}

fn check_disk(disk: &DataDisk, at: &str, found: &mut Vec<Problem>) {
    let mut bad =
        |field: &str, reason: String| found.push(Problem::new(format!("{at}.{field}"), reason));
    if NodeName::new(disk.name.clone()).is_err() || disk.name.len() > 20 {
        bad(
            "name",
            format!(
                "`{}` is not a DNS label of at most 20 characters",
                disk.name
            ),
        );
    }
    if disk.storage == Storage::Network && disk.size_gb < LEAST_NETWORK_GB {
        bad(
            "size_gb",
            format!(
                "{} is less than {LEAST_NETWORK_GB} GB, the provider's smallest network volume",
                disk.size_gb
            ),
        );
    }
    if disk.size_gb == 0 || disk.size_gb > 10_000 {
        bad(
            "size_gb",
            format!("{} is not between 1 and 10000 GB", disk.size_gb),
        );
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let path = disk.mount.as_str();
    if !path.starts_with('/')
        || path.trim_end_matches('/').is_empty()
        || !path.chars().all(plain)
        || path.split('/').any(|p| p == "." || p == "..")
    {
        bad(
            "mount",
            format!("`{path}` is not an absolute path of letters, digits, `.`, `_` and `-`"),
        );
    } else if path.ends_with('/') || path.contains("//") {
        // The kernel's mount table has it without them, and would never show it.
        bad("mount", format!("`{path}` has a `/` too many"));
    } else if SYSTEM.contains(&path)
        || SYSTEM_AND_BELOW
            .iter()
            .any(|p| path == *p || path.starts_with(&format!("{p}/")))
    {
        bad("mount", format!("`{path}` belongs to the system"));
    }
    if let Some(mode) = &disk.mode {
        let octal = (3..=4).contains(&mode.len()) && mode.chars().all(|c| ('0'..='7').contains(&c));
        if !octal {
            bad(
                "mode",
                format!("`{mode}` is not three or four octal digits in quotes, such as \"0750\""),
            );
        }
    }
}

fn check_names(spec: &ClusterSpec, found: &mut Vec<Problem>) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (i, group) in spec.groups.iter().enumerate() {
        for n in group.instances.keys() {
            let name = format!("{}-{}-{n}", spec.cluster, group.prefix);
            if let Some(first) = seen.insert(name.clone(), i) {
                found.push(Problem::new(
                    format!("groups[{i}].prefix"),
                    format!("node `{name}` is also made by groups[{first}]"),
                ));
            }
        }
    }
    // A volume is called <node>-<disk>: it must not look like another node or another node's volume.
    let mut volumes: BTreeMap<String, usize> = BTreeMap::new();
    for (i, group) in spec.groups.iter().enumerate() {
        for (n, disk) in group
            .instances
            .keys()
            .flat_map(|n| group.data_disks.iter().map(move |d| (n, d)))
        {
            let name = format!("{}-{}-{n}-{}", spec.cluster, group.prefix, disk.name);
            let twice = volumes
                .insert(name.clone(), i)
                .is_some_and(|first| first != i);
            if twice || seen.contains_key(&name) {
                found.push(Problem::new(
                    format!("groups[{i}].data_disks"),
                    format!("the volume name `{name}` is taken twice"),
                ));
            }
        }
    }
}

fn check_ports(spec: &ClusterSpec, found: &mut Vec<Problem>) {
    let mut seen: BTreeMap<u16, usize> = BTreeMap::new();
    for (i, group) in spec.groups.iter().enumerate() {
        for (j, forward) in group.forward.iter().enumerate() {
            let at = format!("groups[{i}].forward[{j}]");
            if forward.port == 0 || forward.to == 0 {
                found.push(Problem::new(at.clone(), "port 0 does not exist"));
            }
            if let Some(first) = seen.insert(forward.port, i) {
                found.push(Problem::new(
                    format!("{at}.port"),
                    format!("port {} is also forwarded by groups[{first}]", forward.port),
                ));
            }
        }
    }
}

/// `key=value:Effect`, with the effects Kubernetes knows.
fn taint_is_fine(taint: &str) -> bool {
    let Some((pair, effect)) = taint.rsplit_once(':') else {
        return false;
    };
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) && label_is_fine(key, value)
}

/// The one of `others` that has the key and the effect of this taint. Kubespray gives all taints of a
/// node to one `kubectl taint`, which refuses two of a kind.
fn same_taint<'a>(taint: &str, others: &'a [String]) -> Option<&'a String> {
    fn kind(taint: &str) -> Option<(&str, &str)> {
        let (pair, effect) = taint.rsplit_once(':')?;
        let key = pair.split_once('=').map_or(pair, |(key, _)| key);
        Some((key, effect))
    }
    let wanted = kind(taint)?;
    others.iter().find(|other| kind(other) == Some(wanted))
}

/// Label syntax of Kubernetes: `[prefix/]name`. The name is at most 63 characters of `[A-Za-z0-9._-]`
/// that begin and end with a letter or digit; so is the value, which may also be empty. The prefix
/// is a DNS name in lower case.
fn label_is_fine(key: &str, value: &str) -> bool {
    let word = |s: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        s.len() <= 63
            && edge(s.chars().next())
            && edge(s.chars().last())
            && s.chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let dns_label = |s: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !s.is_empty() && s.bytes().all(plain) && !s.starts_with('-') && !s.ends_with('-')
    };
    let name = match key.split_once('/') {
        Some((prefix, name)) if prefix.len() <= 253 && prefix.split('.').all(dns_label) => name,
        Some(_) => return false,
        None => key,
    };
    word(name) && (value.is_empty() || word(value))
}
