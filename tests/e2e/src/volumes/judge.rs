//! What was done to the volumes, compared with what was allowed.
//!
//! Nothing here trusts what a job says of itself: the simulated cloud logs every call, the simulated
//! hosts log every command and count every `mkfs`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

use jobs::ids::ClusterName;
use jobs::record::{Origin, Status};
use sandbox::clo::{Operation, VolumeView};
use sandbox::hosts::simulated::DiskView;

use super::scene::Scene;
use super::stage::{Part, Stage};
use crate::lab::Lab;
use crate::recovery::Begun;

/// What happened, to see that something did: a property of worlds in which nothing happens is worth
/// nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub struct Tally {
    pub volumes_made: usize,
    pub attached: usize,
    pub formatted: usize,
    pub adopted: usize,
    pub jobs_done: usize,
    pub asked_for_approval: usize,
    pub unsettled: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.volumes_made += other.volumes_made;
        self.attached += other.attached;
        self.formatted += other.formatted;
        self.adopted += other.adopted;
        self.jobs_done += other.jobs_done;
        self.asked_for_approval += other.asked_for_approval;
        self.unsettled += other.unsettled;
    }
}

/// A node of one of the two clusters.
type Place = (usize, String);

/// What the judge knows.
struct Case<'a> {
    lab: &'a Lab,
    scene: &'a Scene,
    stage: &'a Stage,
    /// Whose each server is, by the records of nodes and jobs.
    servers: BTreeMap<String, BTreeSet<Place>>,
    /// Whose each volume is, by the records of the volumes.
    volumes: BTreeMap<String, BTreeSet<(Place, String)>>,
    found: Vec<String>,
}

/// Everything that must not have happened, and what did happen.
pub async fn judge(
    lab: &Lab,
    scene: &Scene,
    stage: &Stage,
    recoveries: &[(usize, Begun)],
) -> anyhow::Result<(Vec<String>, Tally)> {
    let mut tally = Tally {
        volumes_made: lab.sandbox.clo.effects(Operation::CreateVolume),
        attached: lab.sandbox.clo.effects(Operation::AttachVolume),
        ..Tally::default()
    };
    let mut case = Case {
        lab,
        scene,
        stage,
        servers: BTreeMap::new(),
        volumes: BTreeMap::new(),
        found: Vec::new(),
    };
    for (index, begun) in recoveries {
        for (name, record) in begun.records().await? {
            let Some(record) = record else { continue };
            tally.jobs_done += usize::from(record.status == Status::Succeeded);
            tally.asked_for_approval += usize::from(record.status == Status::NeedsApproval);
            let Some(node) = record.payload.node() else {
                continue;
            };
            let steps = record.steps.iter();
            for (key, step) in steps.filter(|_| name.as_str().starts_with("provision/")) {
                let of_step = match key.as_str().split('/').next() {
                    Some("server") => step.output.as_str(),
                    Some("server-intent") => step.output["id"].as_str(),
                    _ => None,
                };
                if let Some(id) = of_step {
                    let places = case.servers.entry(id.to_owned()).or_default();
                    places.insert((*index, node.to_string()));
                }
            }
        }
    }
    for (index, cluster) in scene.clusters.iter().enumerate() {
        let name = ClusterName::new(cluster.name)?;
        let records = lab.cluster(&name);
        for node in records.nodes().await? {
            let places = case.servers.entry(node.server).or_default();
            places.insert((index, node.node.to_string()));
        }
        for volume in records.volumes().await? {
            tally.adopted += usize::from(matches!(volume.origin, Origin::Adopted { .. }));
            let place = ((index, volume.node.to_string()), volume.disk);
            case.volumes.entry(volume.id).or_default().insert(place);
        }
    }
    case.nothing_is_deleted_or_unplugged();
    case.only_ours_are_plugged_in();
    case.nothing_is_shared();
    case.no_data_is_overwritten();
    let disks = lab.sandbox.clo.snapshot().volumes.into_iter();
    let disks = disks.filter_map(|volume| lab.hosts().disk(&volume.id));
    tally.formatted = disks.map(|disk| disk.formatted as usize).sum();
    case.only_blank_volumes_of_ours_are_written_to();
    Ok((case.found, tally))
}

impl Case<'_> {
    fn bad(&mut self, rule: &str, what: String) {
        self.found.push(format!("{rule}: {what}"));
    }

    /// The data volumes that were made during the recoveries.
    fn made(&self) -> Vec<VolumeView> {
        let volumes = self.lab.sandbox.clo.snapshot().volumes.into_iter();
        let ours = |v: &VolumeView| !v.foreign && !v.bootable && !v.local;
        volumes.filter(ours).collect()
    }

    fn part(&self, id: &str) -> Option<&Part> {
        self.stage.parts.iter().find(|part| part.id == id)
    }

    /// The nodes that may have a volume of this name that was made during the recoveries.
    fn by_name(&self, name: &str) -> BTreeSet<Place> {
        let disks = self.scene.disks.iter().filter(|d| d.volume() == name);
        disks.map(|d| (d.cluster, d.node.clone())).collect()
    }

    fn nothing_is_deleted_or_unplugged(&mut self) {
        let clo = &self.lab.sandbox.clo;
        for call in clo.log().into_iter().skip(self.stage.calls) {
            if matches!(
                call.operation,
                Operation::DeleteVolume | Operation::DetachVolume
            ) {
                self.bad("nothing is deleted or unplugged", format!("{call:?}"));
            }
        }
        let there: BTreeSet<String> = clo.snapshot().volumes.into_iter().map(|v| v.id).collect();
        let made = clo.log().into_iter().filter_map(|call| {
            let made = call.operation == Operation::CreateVolume && call.had_effect();
            call.id.filter(|_| made)
        });
        let known = self.stage.parts.iter().map(|part| part.id.clone());
        for id in known.chain(made).filter(|id| !there.contains(id)) {
            self.bad(
                "nothing is deleted or unplugged",
                format!("volume {id} is gone"),
            );
        }
    }

    fn only_ours_are_plugged_in(&mut self) {
        let rule = "only volumes of a node are plugged into it";
        let snapshot = self.lab.sandbox.clo.snapshot();
        let made = self.made();
        let calls = self
            .lab
            .sandbox
            .clo
            .log()
            .into_iter()
            .skip(self.stage.calls);
        for call in calls.filter(|call| call.operation == Operation::AttachVolume) {
            let id = call.id.clone().unwrap_or_default();
            let (role, nodes) = match self.part(&id) {
                Some(part) => (part.role.clone(), part.nodes.clone()),
                None => {
                    let name = made.iter().find(|v| v.id == id).map(|v| v.name.clone());
                    let name = name.unwrap_or_default();
                    (format!("the new `{name}`"), self.by_name(&name))
                }
            };
            // Whether it worked or not: it must not even be asked for.
            if !nodes.iter().any(|(_, node)| call.names.contains(node)) {
                self.bad(rule, format!("{role}: {call:?}"));
            }
        }
        for volume in snapshot.volumes.iter().filter(|v| !v.bootable && !v.local) {
            let Some(server) = &volume.attached_to else {
                continue;
            };
            let Some(places) = self.servers.get(server).cloned() else {
                continue;
            };
            let allowed = match self.part(&volume.id) {
                Some(part) => part.nodes.clone(),
                None => self.by_name(&volume.name),
            };
            if !places.iter().all(|place| allowed.contains(place)) {
                let text = format!("{volume:?} is in a server of {places:?}, not of {allowed:?}");
                self.bad(rule, text);
            }
            let owners: BTreeSet<Place> = self
                .volumes
                .get(&volume.id)
                .into_iter()
                .flatten()
                .map(|(place, _)| place.clone())
                .collect();
            if owners != places {
                let text =
                    format!("{volume:?} is in a server of {places:?}, on record for {owners:?}");
                self.bad(rule, text);
            }
        }
    }

    fn nothing_is_shared(&mut self) {
        let rule = "no two nodes share a volume or a server";
        let shared: Vec<String> = self
            .volumes
            .iter()
            .filter(|(_, owners)| owners.len() > 1)
            .map(|(id, owners)| format!("volume {id} is on record for {owners:?}"))
            .chain(
                self.servers
                    .iter()
                    .filter(|(_, places)| places.len() > 1)
                    .map(|(id, places)| format!("server {id} is taken by {places:?}")),
            )
            .collect();
        for text in shared {
            self.bad(rule, text);
        }
        let mut mounted: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for server in self.lab.sandbox.clo.snapshot().servers {
            for (target, volume) in self.lab.hosts().mounts(&server.id) {
                let places = mounted.entry(volume).or_default();
                places.push(format!("{target} of {}", server.name));
            }
        }
        for (volume, places) in mounted.into_iter().filter(|(_, p)| p.len() > 1) {
            self.bad(rule, format!("volume {volume} is mounted at {places:?}"));
        }
    }

    fn no_data_is_overwritten(&mut self) {
        let rule = "no data is overwritten";
        let content = |disk: &DiskView| DiskView {
            plugged: None,
            ..disk.clone()
        };
        for part in &self.stage.parts {
            // One that is gone was reported before.
            let Some(now) = self.lab.hosts().disk(&part.id) else {
                continue;
            };
            let once = part.may_format
                && now.overwritten == 0
                && now.formatted <= part.before.formatted + 1;
            if content(&now) != content(&part.before) && !once {
                let text = format!("{}: {:?} became {now:?}", part.role, part.before);
                self.found.push(format!("{rule}: {text}"));
            }
        }
        for volume in self.made() {
            let Some(now) = self.lab.hosts().disk(&volume.id) else {
                continue;
            };
            if now.overwritten > 0 || now.formatted > 1 {
                self.bad(rule, format!("the new {volume:?} is {now:?}"));
            }
        }
    }

    /// Every command that names a device is one that only reads, or a `mkfs` on a volume that may be
    /// formatted. Devices are named by their serial, never by a letter.
    fn only_blank_volumes_of_ours_are_written_to(&mut self) {
        let rule = "only blank volumes of ours are written to";
        let made: BTreeSet<String> = self.made().into_iter().map(|v| v.id).collect();
        let allowed: Vec<String> = self
            .stage
            .parts
            .iter()
            .filter(|part| part.may_format)
            .map(|part| part.id.clone())
            .chain(made)
            .map(|id| format!("/dev/disk/by-id/virtio-{}", &id[..20]))
            .collect();
        for (server, argv) in self
            .lab
            .hosts()
            .commands()
            .into_iter()
            .skip(self.stage.commands)
        {
            let words: Vec<&str> = argv.iter().map(String::as_str).collect();
            let words = match words.as_slice() {
                ["timeout", "-s", "KILL", _, command @ ..] => command,
                words => words,
            };
            let Some(device) = words.iter().find(|word| word.starts_with("/dev/")) else {
                continue;
            };
            let reads = matches!(
                words,
                ["test", "-b", _]
                    | ["blkid", "-p", "-o", "export", _]
                    | ["wipefs", "--no-act", "--parsable", _]
                    | ["blockdev", "--getsize64", _]
                    | ["cmp", "-n", _, "-i", _, _, "/dev/zero"]
                    | ["e2fsck", "-f", "-n", _]
            );
            let mkfs = words.first() == Some(&"mkfs.ext4") && !words.contains(&"-F");
            let may_write = mkfs && allowed.iter().any(|link| link == device);
            if !reads && !may_write {
                self.bad(rule, format!("{words:?} on {server}"));
            }
        }
    }
}
