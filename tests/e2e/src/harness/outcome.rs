//! What a run leaves behind, as lines of text that are the same for two runs that did the same.
//!
//! Ids, keys, times, nonces and epochs differ from run to run and are blotted out; everything else
//! is here: the cloud, what was done to it and how often, every file of every host, every disk, every
//! record, and which keys the bucket has.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use jobs::record::{JobRecord, JobVersion, Versioned};
use sandbox::clo::{Entity, Snapshot};
use serde_json::Value;

use super::kinds::steps_that_count;
use super::place::Place;

/// A run's outcome: one line a fact. The same line several times is several facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome(Vec<String>);

impl Outcome {
    /// Looks at everything.
    pub fn of(place: &Place) -> anyhow::Result<Self> {
        let mut lines = Vec::new();
        let snapshot = place.clo.snapshot();
        cloud(place, &snapshot, &mut lines);
        hosts(place, &snapshot, &mut lines);
        kubernetes(place, &mut lines);
        bucket(place, &mut lines)?;
        let mut lines: Vec<String> = lines.iter().map(|line| blot(line)).collect();
        lines.sort();
        Ok(Self(lines))
    }

    /// What the other has and we have not, and the other way round; nothing when they are equal.
    pub fn difference(&self, expected: &Self) -> Vec<String> {
        let count = |lines: &[String]| {
            let mut counts: BTreeMap<String, i64> = BTreeMap::new();
            for line in lines {
                *counts.entry(line.clone()).or_default() += 1;
            }
            counts
        };
        let (ours, theirs) = (count(&self.0), count(&expected.0));
        let all: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        all.into_iter()
            .flat_map(|line| {
                let of = |counts: &BTreeMap<String, i64>| counts.get(line).copied().unwrap_or(0);
                let more = of(&ours) - of(&theirs);
                let sign = if more > 0 { '+' } else { '-' };
                std::iter::repeat_n(format!("{sign} {line}"), more.unsigned_abs() as usize)
            })
            .collect()
    }
}

fn cloud(place: &Place, snapshot: &Snapshot, lines: &mut Vec<String>) {
    let server = |id: &Option<String>| {
        let found = id
            .as_ref()
            .map(|id| snapshot.servers.iter().find(|s| s.id == *id));
        found.map(|found| found.map_or("a server that is gone", |s| s.name.as_str()))
    };
    let pair = |id: &String| {
        let found = snapshot.keypairs.iter().find(|k| k.id == *id);
        found.map_or("a key pair that is gone", |k| k.name.as_str())
    };
    for s in &snapshot.servers {
        let pairs: Vec<&str> = s.keypairs.iter().map(pair).collect();
        let (name, status, ip) = (&s.name, s.status, s.internal_ip);
        lines.push(format!(
            "cloud: server {name}: {status:?}, {ip:?}, key pairs {pairs:?}"
        ));
    }
    for v in &snapshot.volumes {
        let name = match (v.bootable, v.local) {
            (true, _) => "(boot)",
            (_, true) => "(local)",
            _ => v.name.as_str(),
        };
        let (size, status, on) = (v.size, v.status, server(&v.attached_to));
        let (local, device) = (v.local, &v.device);
        lines.push(format!(
            "cloud: volume {name}: {size} GB, {status:?}, local {local}, on {on:?} as {device:?}"
        ));
    }
    for a in &snapshot.addresses {
        let on = match &a.attached_to {
            Some(Entity::Server(id)) => server(&Some(id.clone())).unwrap_or("nothing").to_owned(),
            Some(Entity::Balancer(_)) => "the load balancer".to_owned(),
            None => "nothing".to_owned(),
        };
        let (ip, status, external) = (a.ip, a.status, a.external);
        lines.push(format!(
            "cloud: address {ip}: {status:?}, external {external}, of {on}"
        ));
    }
    for b in &snapshot.balancers {
        let (name, status, ips) = (&b.name, b.status, &b.ips);
        lines.push(format!("cloud: load balancer {name}: {status:?}, {ips:?}"));
        for r in &b.rules {
            let (to, status) = (server(&Some(r.server.clone())), r.status);
            let (from, port) = (r.external_port, r.internal_port);
            lines.push(format!(
                "cloud: rule of {name}: {from} to {to:?} port {port}, {status:?}"
            ));
        }
    }
    for k in &snapshot.keypairs {
        lines.push(format!("cloud: key pair {}", k.name));
    }
    // Nothing twice: what was done is counted, not only what is there.
    for call in place.clo.log().iter().filter(|call| call.had_effect()) {
        lines.push(format!("effect: {:?}", call.operation));
    }
    for trouble in place.clo.troubles() {
        lines.push(format!("the hypervisor refused: {trouble}"));
    }
}

fn hosts(place: &Place, snapshot: &Snapshot, lines: &mut Vec<String>) {
    let volume = |id: &str| {
        let found = snapshot.volumes.iter().find(|v| v.id == id);
        found
            .map_or("(unknown)", |v| {
                if v.local { "(local)" } else { v.name.as_str() }
            })
            .to_owned()
    };
    for server in &snapshot.servers {
        for (path, entry) in place.hosts.root_disk(&server.id) {
            lines.push(format!("host {}: {path}: {entry}", server.name));
        }
        for (target, id) in place.hosts.mounts(&server.id) {
            lines.push(format!(
                "host {}: {} is mounted at {target}",
                server.name,
                volume(&id)
            ));
        }
    }
    for v in snapshot.volumes.iter().filter(|v| !v.bootable) {
        let name = volume(&v.id);
        let Some(disk) = place.hosts.disk(&v.id) else {
            lines.push(format!("disk {name}: none"));
            continue;
        };
        let (signature, label) = (&disk.signature, &disk.label);
        let (formatted, over, files) = (disk.formatted, disk.overwritten, &disk.files);
        lines.push(format!("disk {name}: {signature:?} {label:?}, formatted {formatted} times, {over} times over something, {files:?}"));
    }
}

/// Every object of every cluster and who manages what of it, and how often anything was made or
/// deleted.
fn kubernetes(place: &Place, lines: &mut Vec<String>) {
    for api in place.hosts.kubes() {
        for mut object in api.objects() {
            let text = |at: &str| {
                object
                    .pointer(at)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let (kind, namespace) = (text("/kind"), text("/metadata/namespace"));
            let name = format!("{kind} {namespace}/{}", text("/metadata/name"));
            if let Some(metadata) = object["metadata"].as_object_mut() {
                for fleeting in [
                    "uid",
                    "resourceVersion",
                    "creationTimestamp",
                    "deletionTimestamp",
                ] {
                    metadata.remove(fleeting);
                }
                let managers = metadata
                    .get_mut("managedFields")
                    .and_then(Value::as_array_mut);
                for manager in managers
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_object_mut)
                {
                    manager.remove("time");
                }
            }
            lines.extend(
                flat(&object)
                    .iter()
                    .map(|line| format!("kube: {name}: {line}")),
            );
        }
        let made = api.log().into_iter().filter(|asked| {
            let made = asked.code == 201 || (asked.method == "DELETE" && asked.code == 200);
            // What operators do may be done in another order and another number of times.
            made && asked.arrived && !asked.by_port
        });
        lines.extend(made.map(|asked| format!("effect: kube {} {}", asked.method, asked.path)));
    }
}

fn bucket(place: &Place, lines: &mut Vec<String>) -> anyhow::Result<()> {
    let objects = versions(place, "");
    let keys: BTreeSet<String> = objects.iter().map(|(key, _)| blot(key)).collect();
    lines.extend(keys.into_iter().map(|key| format!("key {key}")));

    let mut series: BTreeMap<String, Vec<(String, bytes::Bytes)>> = BTreeMap::new();
    // The page says what the report beside it says.
    let data = objects
        .into_iter()
        .filter(|(key, _)| !key.ends_with(".html"));
    for (key, body) in data {
        let (folder, _) = key.rsplit_once('/').unwrap_or(("", &key));
        series
            .entry(folder.to_owned())
            .or_default()
            .push((key, body));
    }
    for (folder, objects) in series {
        if folder.contains("/jobs/") {
            job(&folder, &objects, lines)?;
            continue;
        }
        if folder == "artifacts" || folder.contains("/logs/") {
            // Bytes, each object for itself.
            let digest = |body: &[u8]| jobs::digest(body)[..16].to_owned();
            lines.extend(
                objects
                    .iter()
                    .map(|(key, body)| format!("{}: {}", blot(key), digest(body))),
            );
            continue;
        }
        // Records: the last version. Everything else stands by itself.
        let Some((key, body)) = objects.last() else {
            continue;
        };
        if folder == "inputs" || body.is_empty() {
            continue;
        }
        if folder.starts_with("names/") {
            lines.push(format!("{}: {}", blot(key), String::from_utf8_lossy(body)));
            continue;
        }
        let value: Value = serde_json::from_slice(body).with_context(|| key.clone())?;
        let value = value.get("body").cloned().unwrap_or(value);
        for line in flat(&value) {
            lines.push(format!("record {folder}: {line}"));
        }
    }
    Ok(())
}

fn job(
    folder: &str,
    versions: &[(String, bytes::Bytes)],
    lines: &mut Vec<String>,
) -> anyhow::Result<()> {
    let record = state(versions)?.context("a folder has objects")?;
    let (_, name) = folder.split_once("/jobs/").unwrap_or_default();
    lines.push(format!(
        "job {name}: {}, held {}",
        record.status,
        record.owner.is_some()
    ));
    for (key, step) in steps_that_count(&record) {
        for line in flat(&step.output) {
            lines.push(format!("job {name}: step {key}: {line}"));
        }
    }
    Ok(())
}

/// The objects of a prefix. Versions are listed from the newest to the oldest: here the oldest comes first.
pub fn versions(place: &Place, prefix: &str) -> Vec<(String, bytes::Bytes)> {
    let mut objects = place.s3.objects(prefix);
    objects.reverse();
    objects
}

/// The state of a job, from all its versions.
pub fn state(versions: &[(String, bytes::Bytes)]) -> anyhow::Result<Option<JobRecord>> {
    let mut state: Option<JobRecord> = None;
    for (key, body) in versions {
        let version: Versioned<JobVersion> =
            serde_json::from_slice(body).with_context(|| key.clone())?;
        match (version.body, &mut state) {
            (JobVersion::Full(record), _) => state = Some(*record),
            (JobVersion::Delta { changes, .. }, Some(record)) => {
                changes.into_iter().for_each(|change| record.apply(change));
            }
            (JobVersion::Delta { .. }, None) => anyhow::bail!("{key}: a delta on nothing"),
        }
    }
    Ok(state)
}

/// What tells when or how fast something was done, and not what.
const FLEETING: [&str; 18] = [
    "actual_seconds",
    "at",
    "created",
    "declared",
    "due",
    "ended",
    "epoch",
    "failure",
    "finished_at",
    "ms",
    "rto_seconds",
    "seconds",
    "since",
    "started",
    "touched",
    "turn",
    "turns",
    "written",
];

/// A value as lines: `path = leaf`.
fn flat(value: &Value) -> Vec<String> {
    fn walk(path: &str, value: &Value, lines: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields
                    .iter()
                    .filter(|(n, _)| !FLEETING.contains(&n.as_str()))
                {
                    walk(&format!("{path}.{name}"), value, lines);
                }
            }
            // Keys that we may have given a server: how many there are depends on lost answers.
            Value::Array(_) if path.ends_with(".host_keys") => {
                lines.push(format!("{path} = (keys)"))
            }
            Value::Array(items) => {
                for (n, value) in items.iter().enumerate() {
                    walk(&format!("{path}.{n}"), value, lines);
                }
            }
            leaf => lines.push(format!("{path} = {leaf}")),
        }
    }
    let mut lines = Vec::new();
    walk("", value, &mut lines);
    lines
}

/// Blots out what is random or a time.
fn blot(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let length = random(rest);
        match length {
            0 => {
                let next = rest.chars().next().expect("not at the end");
                out.push(next);
                at += next.len_utf8();
            }
            length => {
                out.push('*');
                at += length;
            }
        }
    }
    out
}

/// How long the random text is that this begins with: a UUID or the first 20 characters of one (a
/// disk's serial), a digest, a key, a time, a version number.
fn random(text: &str) -> usize {
    let run = |of: &dyn Fn(char) -> bool| text.find(|c| !of(c)).unwrap_or(text.len());
    let hex = run(&|c| c.is_ascii_hexdigit());
    let dashed = run(&|c| c.is_ascii_hexdigit() || c == '-');
    let is_uuid = |length: usize| {
        dashed >= length
            && text
                .bytes()
                .take(length)
                .enumerate()
                .all(|(n, b)| (b == b'-') == [8, 13, 18, 23].contains(&n))
    };
    if is_uuid(36) {
        return 36;
    }
    if is_uuid(20) {
        return 20;
    }
    if hex >= 20 {
        return hex + version(&text[hex..]);
    }
    // Looked at only there: it is as long as a kubeconfig's certificates.
    if text.starts_with("AAAA") {
        let key = run(&|c| c.is_ascii_alphanumeric() || "+/=".contains(c));
        if key > 40 {
            return key;
        }
    }
    let time = run(&|c| c.is_ascii_digit() || "-:.TZ".contains(c));
    if time >= 20 && text.as_bytes()[4] == b'-' && text.as_bytes()[10] == b'T' {
        return time;
    }
    0
}

/// The length of `-7`, as it stands before `.json` in the key of a seventh version.
fn version(text: &str) -> usize {
    let digits = text.strip_prefix('-').and_then(|t| t.strip_suffix(".json"));
    match digits {
        Some(n) if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => n.len() + 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_random_is_blotted_out_and_nothing_else() {
        for (text, want) in [
            ("demo-cache-1-data", "demo-cache-1-data"),
            ("UUID=2c1c0f1e-4a7b-4a53-9a0c-6f5b7a2b9d01 /", "UUID=* /"),
            ("virtio-2c1c0f1e-4a7b-4a53-9", "virtio-*"),
            ("x/99999999999999999992-7.json", "x/*.json"),
            ("\"2026-01-02T03:04:05.678Z\"", "\"*\""),
            ("10.77.1.10", "10.77.1.10"),
        ] {
            assert_eq!(blot(text), want);
        }
    }

    #[test]
    fn what_is_there_twice_is_not_the_same_as_once() {
        let outcome = |lines: &[&str]| Outcome(lines.iter().map(ToString::to_string).collect());
        let (one, two) = (outcome(&["a"]), outcome(&["a", "a", "b"]));
        assert_eq!(two.difference(&one), ["+ a", "+ b"]);
        assert_eq!(one.difference(&two), ["- a", "- b"]);
        assert!(one.difference(&one).is_empty());
    }
}
