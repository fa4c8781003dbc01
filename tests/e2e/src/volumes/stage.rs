//! Puts a scene into a lab, and writes down what may be done to each volume.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use jobs::ids::{ClusterName, NodeName, RecoveryId};
use jobs::keys;
use jobs::record::{Origin, VolumeRecord};
use jobs::spec::Storage;
use jobs::store::Appended;
use sandbox::clo::{Fault, Foreign, Operation, VolumeStatus};
use sandbox::hosts::simulated::{CommandFault, DiskView, Seed};
use uuid::Uuid;

use super::scene::{Call, Content, Disk, List, Past, Scene, Trouble};
use crate::lab::Lab;

/// All volumes are of this size: size says nothing about whose they are.
const SIZE_GB: u64 = 10;
/// A server of strangers, to which some volumes are attached.
const STRANGER: &str = "somebody-1";

/// A volume that is there before, and what may be done to it.
#[derive(Debug, Clone)]
pub struct Part {
    /// The cloud's id.
    pub id: String,
    /// Why it is there, for messages.
    pub role: String,
    /// The nodes (cluster and name) that may plug it in; none for a stranger's.
    pub nodes: BTreeSet<(usize, String)>,
    /// A file system may be made on it.
    pub may_format: bool,
    /// What was on it.
    pub before: DiskView,
}

/// The stage as it was set.
#[derive(Debug)]
pub struct Stage {
    /// Every volume that is there before.
    pub parts: Vec<Part>,
    /// Calls to the cloud that were made before.
    pub calls: usize,
    /// Commands that hosts ran before.
    pub commands: usize,
}

/// What a volume needs to come into being.
struct Wanted<'a> {
    name: String,
    bootable: bool,
    content: Content,
    /// UUID of the ext4, if it has one.
    uuid: String,
    role: String,
    nodes: BTreeSet<(usize, String)>,
    may_format: bool,
    record: Option<(&'a Disk, Known)>,
}

/// What a record says.
#[derive(Debug, Clone, Default)]
struct Known {
    fs_uuid: Option<String>,
    formatted: bool,
    protected: bool,
}

/// Sets the stage.
pub async fn set(lab: &Lab, scene: &Scene) -> anyhow::Result<Stage> {
    let servers = vec![
        STRANGER.to_owned(),
        "shop-master-1".to_owned(),
        "web".to_owned(),
    ];
    let strangers = Foreign {
        servers,
        addresses: 2,
        ..Foreign::default()
    };
    lab.sandbox.clo.foreign(strangers).await?;
    let mut parts = Vec::new();
    for (n, name) in scene.strangers.iter().enumerate() {
        let content = [Content::Blank, Content::Ext4][n % 2];
        let wanted = Wanted {
            name: name.clone(),
            bootable: false,
            content,
            uuid: Uuid::new_v4().to_string(),
            role: format!("a stranger's `{name}`"),
            nodes: BTreeSet::new(),
            may_format: false,
            record: None,
        };
        parts.push(make(lab, scene, wanted).await?);
    }
    for disk in &scene.disks {
        parts.extend(with_past(lab, scene, disk).await?);
    }
    let calls = lab.sandbox.clo.log().len();
    for trouble in &scene.troubles {
        arm(lab, scene, *trouble);
    }
    Ok(Stage {
        parts,
        calls,
        commands: 0,
    })
}

/// The volumes that a disk's past left behind.
async fn with_past(lab: &Lab, scene: &Scene, disk: &Disk) -> anyhow::Result<Vec<Part>> {
    let uuid = Uuid::new_v4().to_string();
    let owner = BTreeSet::from([(disk.cluster, disk.node.clone())]);
    // What is not on record may be taken by any node whose disk has that name.
    let of_name = scene
        .disks
        .iter()
        .filter(|other| other.volume() == disk.volume());
    let any: BTreeSet<_> = of_name.map(|d| (d.cluster, d.node.clone())).collect();
    let in_use = Known {
        fs_uuid: Some(uuid.clone()),
        formatted: true,
        protected: false,
    };
    let wanted = |content: Content, known: Option<Known>| Wanted {
        name: disk.volume(),
        bootable: false,
        content,
        uuid: uuid.clone(),
        role: format!("`{}`, {:?}", disk.volume(), disk.past),
        nodes: match known {
            Some(_) => owner.clone(),
            None => any.clone(),
        },
        may_format: false,
        record: known.map(|known| (disk, known)),
    };
    let nobody = BTreeSet::new();
    let there = match disk.past {
        Past::New => vec![],
        Past::InUse { protected } => vec![wanted(
            Content::Ext4,
            Some(Known {
                protected,
                ..in_use
            }),
        )],
        Past::MadeBlank => vec![Wanted {
            may_format: true,
            ..wanted(Content::Blank, Some(Known::default()))
        }],
        Past::Intended { formatted } => {
            let known = Known {
                formatted: false,
                ..in_use
            };
            let content = [Content::Blank, Content::Ext4][usize::from(formatted)];
            vec![Wanted {
                may_format: !formatted,
                ..wanted(content, Some(known))
            }]
        }
        Past::UsedByOthers(content) => vec![wanted(content, Some(Known::default()))],
        Past::Replaced(content) => vec![Wanted {
            uuid: Uuid::new_v4().to_string(),
            ..wanted(content, Some(in_use))
        }],
        Past::Unrecorded(content) => vec![wanted(content, None)],
        Past::BootDisk => vec![Wanted {
            bootable: true,
            nodes: nobody,
            ..wanted(Content::Ext4, None)
        }],
        Past::Twice => {
            let one = |content| Wanted {
                nodes: BTreeSet::new(),
                ..wanted(content, None)
            };
            vec![one(Content::Ext4), one(Content::Blank)]
        }
        Past::Vanished => {
            remember(lab, scene, disk, &Uuid::new_v4().to_string(), in_use).await?;
            vec![]
        }
        Past::Restored(content) => {
            remember(lab, scene, disk, &Uuid::new_v4().to_string(), in_use).await?;
            vec![wanted(content, None)]
        }
        Past::Elsewhere { recorded } => vec![Wanted {
            nodes: nobody,
            ..wanted(Content::Ext4, recorded.then_some(in_use))
        }],
        Past::Unreadable { recorded } => vec![wanted(Content::Ext4, recorded.then_some(in_use))],
        Past::Renamed => vec![Wanted {
            name: format!("old-{}", disk.volume()),
            ..wanted(Content::Ext4, Some(in_use))
        }],
    };
    let mut parts = Vec::new();
    for wanted in there {
        let part = make(lab, scene, wanted).await?;
        match disk.past {
            Past::Elsewhere { .. } => plug_elsewhere(lab, &part.id).await?,
            Past::Unreadable { .. } => lab.hosts().break_disk(&part.id, true)?,
            _ => {}
        }
        parts.push(part);
    }
    Ok(parts)
}

async fn make(lab: &Lab, scene: &Scene, wanted: Wanted<'_>) -> anyhow::Result<Part> {
    let ids = || {
        let volumes = lab.sandbox.clo.snapshot().volumes.into_iter();
        volumes.map(|v| v.id).collect::<BTreeSet<_>>()
    };
    let before = ids();
    let one = vec![(wanted.name.clone(), SIZE_GB)];
    let foreign = match wanted.bootable {
        true => Foreign {
            boot_disks: one,
            ..Foreign::default()
        },
        false => Foreign {
            volumes: one,
            ..Foreign::default()
        },
    };
    lab.sandbox.clo.foreign(foreign).await?;
    let id = ids().difference(&before).next().cloned();
    let id = id.context("a volume was made")?;
    if let Some(seed) = seed(wanted.content, wanted.uuid) {
        lab.hosts().seed(&id, seed)?;
    }
    if let Some((disk, known)) = wanted.record {
        remember(lab, scene, disk, &id, known).await?;
    }
    let before = lab.hosts().disk(&id).context("it has a disk")?;
    Ok(Part {
        id,
        role: wanted.role,
        nodes: wanted.nodes,
        may_format: wanted.may_format,
        before,
    })
}

fn seed(content: Content, uuid: String) -> Option<Seed> {
    Some(match content {
        Content::Blank => return None,
        Content::Ext4 => Seed::Ext4 {
            uuid,
            label: String::new(),
            files: BTreeMap::from([("/PG_VERSION".to_owned(), b"16\n".to_vec())]),
        },
        Content::Luks => Seed::Luks,
        Content::PartitionTable => Seed::PartitionTable,
        Content::BytesAtStart => Seed::RawBytes(4096),
        Content::BytesAtEnd => Seed::RawBytes((SIZE_GB << 30) - 1),
    })
}

/// Writes a volume's record, as an earlier recovery would have.
async fn remember(
    lab: &Lab,
    scene: &Scene,
    disk: &Disk,
    id: &str,
    known: Known,
) -> anyhow::Result<()> {
    let cluster = ClusterName::new(scene.clusters[disk.cluster].name)?;
    let project = lab.sandbox.clo.project();
    for name in [&disk.node, &disk.volume()] {
        let claimed = lab.cluster(&cluster).claim(project, name).await;
        claimed.map_err(|e| anyhow::anyhow!("{e}"))?;
    }
    let record = VolumeRecord {
        id: id.to_owned(),
        name: disk.volume(),
        node: NodeName::new(disk.node.clone())?,
        disk: disk.disk.clone(),
        size_gb: u32::try_from(SIZE_GB)?,
        storage: Storage::Network,
        origin: Origin::CreatedBlank {
            recovery: RecoveryId::new("r-before")?,
        },
        fs_uuid: known.fs_uuid,
        formatted: known.formatted,
        mount: format!("/mnt/disks/{}", disk.disk),
        protected: known.protected,
    };
    let series = keys::volume(&cluster, id);
    let appended = lab.store.append(&series, 1, &record).await?;
    ensure!(appended == Appended::Won, "the record is new");
    Ok(())
}

async fn plug_elsewhere(lab: &Lab, volume: &str) -> anyhow::Result<()> {
    let snapshot = lab.sandbox.clo.snapshot();
    let server = snapshot.servers_named(STRANGER).next();
    let server = server.context("the stranger's server")?.id.clone();
    // Not the impatient client of the workers: nothing is to go wrong yet.
    let clo = lab.sandbox.world()?.clo.context("a lab has a cloud")?;
    clo.attach_volume(volume, &server).await?;
    let used = |v: &sandbox::clo::VolumeView| v.id == volume && v.status == VolumeStatus::InUse;
    lab.sandbox
        .clo
        .wait_until("a stranger's attach", |s| s.volumes.iter().any(used))
        .await;
    Ok(())
}

fn arm(lab: &Lab, scene: &Scene, trouble: Trouble) {
    let cloud = lab.sandbox.clo.faults();
    let hosts = lab.hosts().faults();
    let call = |call: Call| {
        Fault::on(match call {
            Call::CreateVolume => Operation::CreateVolume,
            Call::AttachVolume => Operation::AttachVolume,
            Call::CreateServer => Operation::CreateServer,
        })
    };
    let list = |list: List| {
        Fault::on(match list {
            List::Volumes => Operation::ListVolumes,
            List::Servers => Operation::ListServers,
            List::Addresses => Operation::ListAddresses,
        })
    };
    match trouble {
        Trouble::Refuses(what, times) => cloud.add(call(what).answer(500).times(times)),
        Trouble::AnswersWrong(what) => cloud.add(call(what).after().answer(500)),
        Trouble::Cuts(what) => cloud.add(call(what).after().cut()),
        Trouble::Lags(what, times) => cloud.add(list(what).hide_newest().times(times)),
        Trouble::ShowsNothing(what, times) => cloud.add(list(what).empty_page().times(times)),
        Trouble::Garbles(what) => cloud.add(list(what).malformed()),
        Trouble::BuildFails(cluster, times) => {
            let slots = scene.clusters[cluster].slots();
            cloud.build_error(&slots[0].0, times);
        }
        Trouble::SshCut(program) => hosts.add(CommandFault::on(program).after().cut()),
        Trouble::Fails(program) => hosts.add(CommandFault::on(program)),
        Trouble::Letters => {
            for (letter, disk) in ["vdf", "vdd", "vdc", "vde"].iter().zip(&scene.disks) {
                cloud.next_device(&disk.node, letter);
            }
        }
    }
}
