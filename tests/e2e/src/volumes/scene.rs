//! What a random project looks like before the recoveries, and what goes wrong during them.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// A project with two clusters of ours among strangers.
#[derive(Debug, Clone)]
pub struct Scene {
    /// What it was made from.
    pub seed: u64,
    /// The clusters.
    pub clusters: [Cluster; 2],
    /// What became of each disk of the specs before.
    pub disks: Vec<Disk>,
    /// Free volumes of strangers, by name.
    pub strangers: Vec<String>,
    /// What goes wrong.
    pub troubles: Vec<Trouble>,
    /// After so many milliseconds a worker is killed and another one starts.
    pub kills: Vec<u64>,
    /// What comes after both recoveries have settled.
    pub sequel: Sequel,
}

/// One cluster: a bastion, and a group of nodes with data disks.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its name.
    pub name: &'static str,
    /// Prefix of the group with the data disks.
    pub prefix: &'static str,
    /// How many nodes the group has.
    pub nodes: u32,
    /// The data disks of each node.
    pub disks: &'static [&'static str],
    /// Whether its spec protects them.
    pub protected: bool,
}

/// A disk of a spec, and its past.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Which of the two clusters.
    pub cluster: usize,
    /// The node's name.
    pub node: String,
    /// The disk's name in the spec.
    pub disk: String,
    /// What happened to it before.
    pub past: Past,
}

/// What happened to a disk before the recovery began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// Nothing: it was never made.
    New,
    /// Made, formatted, in use.
    InUse {
        /// Its record protects it.
        protected: bool,
    },
    /// Made, and the recovery broke off before it was looked at.
    MadeBlank,
    /// Made, its UUID chosen, and the recovery broke off before or after `mkfs`.
    Intended {
        /// `mkfs` ran.
        formatted: bool,
    },
    /// Made blank by us, says the record; but somebody has put something else on it.
    UsedByOthers(Content),
    /// In use, says the record; but it shows something else.
    Replaced(Content),
    /// It bears our name and nobody knows where it came from.
    Unrecorded(Content),
    /// It bears our name, is not on record, and a system starts from it.
    BootDisk,
    /// Two volumes bear our name and none is on record.
    Twice,
    /// The volume on record is gone.
    Vanished,
    /// The volume on record is gone, and another one bears its name.
    Restored(Content),
    /// In use, but plugged into a stranger's server.
    Elsewhere {
        /// It is on record.
        recorded: bool,
    },
    /// In use, and it cannot be read just now.
    Unreadable {
        /// It is on record as ours.
        recorded: bool,
    },
    /// In use, and somebody has given it another name.
    Renamed,
}

/// What is on a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Zeroes.
    Blank,
    /// An ext4 with files.
    Ext4,
    /// An encrypted volume.
    Luks,
    /// A partition table.
    PartitionTable,
    /// Bytes without a signature at the beginning.
    BytesAtStart,
    /// Bytes without a signature at the very end.
    BytesAtEnd,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// A call to the cloud is answered 500 without an effect, so many times.
    Refuses(Call, u64),
    /// The call has its effect and is answered 500.
    AnswersWrong(Call),
    /// The call has its effect and the connection breaks.
    Cuts(Call),
    /// A list lacks its newest entry, so many times.
    Lags(List, u64),
    /// A list says how much there is and shows nothing.
    ShowsNothing(List, u64),
    /// A list is broken JSON.
    Garbles(List),
    /// The servers of this node of a cluster cannot be built, so many times.
    BuildFails(usize, u64),
    /// SSH breaks when this program has run.
    SshCut(&'static str),
    /// This program fails.
    Fails(&'static str),
    /// The disks of all nodes come under unusual letters.
    Letters,
}

/// Calls that change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Call {
    CreateVolume,
    AttachVolume,
    CreateServer,
}

/// Lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum List {
    Volumes,
    Servers,
    Addresses,
}

/// What comes after the recoveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequel {
    /// Nothing.
    End,
    /// All servers of ours die, and both clusters recover again.
    Disaster,
    /// All servers die while the file systems are in use, and an operator repeats the jobs of the
    /// same recovery from the step that made the file system.
    RetryFromFormat,
}

/// Names of two clusters that are easily taken for each other. In the third pair, every node of one
/// has the name of a node of the other.
const PAIRS: [[(&str, &str); 2]; 5] = [
    [("test", "cache"), ("test2", "cache")],
    [("test", "cache"), ("test-a", "cache")],
    [("test", "a-cache"), ("test-a", "cache")],
    [("test", "cache"), ("test-cache", "data")],
    [("shop", "cache"), ("test", "cache")],
];

const CONTENTS: [Content; 6] = [
    Content::Blank,
    Content::Ext4,
    Content::Luks,
    Content::PartitionTable,
    Content::BytesAtStart,
    Content::BytesAtEnd,
];

impl Scene {
    /// The scene of a seed: always the same one.
    pub fn of(seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let [mut one, mut other] = pick(&mut dice, &PAIRS);
        if dice.random_bool(0.5) {
            std::mem::swap(&mut one, &mut other);
        }
        let clusters = [cluster(&mut dice, one), cluster(&mut dice, other)];
        let mut disks: Vec<Disk> = Vec::new();
        for (index, cluster) in clusters.iter().enumerate() {
            for (node, disk) in cluster.slots() {
                let name = format!("{node}-{disk}");
                // Of two disks of one name, only one can have a past that explains the volume.
                let taken = disks.iter().any(|d| d.volume() == name);
                let past = match taken {
                    true => Past::New,
                    false => past(&mut dice),
                };
                disks.push(Disk {
                    cluster: index,
                    node,
                    disk,
                    past,
                });
            }
        }
        let strangers = strangers(&mut dice, &clusters);
        let troubles = (0..dice.random_range(0..5))
            .map(|_| trouble(&mut dice))
            .collect();
        let kills = (0..dice.random_range(0..3))
            .map(|_| dice.random_range(100..3000))
            .collect();
        let sequel = pick(
            &mut dice,
            &[
                Sequel::End,
                Sequel::End,
                Sequel::Disaster,
                Sequel::RetryFromFormat,
            ],
        );
        Self {
            seed,
            clusters,
            disks,
            strangers,
            troubles,
            kills,
            sequel,
        }
    }
}

impl Scene {
    /// Two clusters whose nodes have one disk each, with these pasts; nothing goes wrong.
    pub fn plain(
        clusters: [(&'static str, &'static str); 2],
        pasts: [&[Past]; 2],
        sequel: Sequel,
    ) -> Self {
        let mut disks = Vec::new();
        let clusters = [0, 1].map(|index| {
            let (name, prefix) = clusters[index];
            let cluster = Cluster {
                name,
                prefix,
                nodes: u32::try_from(pasts[index].len()).expect("a handful"),
                disks: &["data"],
                protected: false,
            };
            let slots = cluster.slots().into_iter().zip(pasts[index]);
            disks.extend(slots.map(|((node, disk), past)| Disk {
                cluster: index,
                node,
                disk,
                past: *past,
            }));
            cluster
        });
        Self {
            seed: 0,
            disks,
            clusters,
            strangers: Vec::new(),
            troubles: Vec::new(),
            kills: Vec::new(),
            sequel,
        }
    }
}

impl Cluster {
    /// Node and disk name of each data disk.
    pub fn slots(&self) -> Vec<(String, String)> {
        let node = |n: u32| format!("{}-{}-{n}", self.name, self.prefix);
        (1..=self.nodes)
            .flat_map(|n| {
                self.disks
                    .iter()
                    .map(move |disk| (node(n), (*disk).to_owned()))
            })
            .collect()
    }

    /// Its `cluster.yaml`.
    pub fn spec(&self) -> String {
        let instances: Vec<String> = (1..=self.nodes).map(|n| format!("{n}: true")).collect();
        let protected = self.protected;
        let disks: String = self
            .disks
            .iter()
            .map(|disk| {
                format!(
                    "      - {{ name: {disk}, size_gb: 10, mount: /mnt/disks/{disk}, protected: {protected} }}\n"
                )
            })
            .collect();
        format!(
            "version: 1
cluster: {name}
servers:
  image: {{ distribution: ubuntu, version: \"22.04\" }}
  keypair: rekindle-{name}
load_balancer: {{}}
groups:
  - prefix: {prefix}
    role: worker
    instances: {{ {instances} }}
    vcpus: 2
    ram_gb: 2
    boot_disk: {{ size_gb: 10 }}
    data_disks:
{disks}  - prefix: bastion
    role: bastion
    instances: {{ 1: true }}
    vcpus: 2
    ram_gb: 2
    boot_disk: {{ size_gb: 10 }}
    forward: [{{ port: 2205, to: 22 }}]
",
            name = self.name,
            prefix = self.prefix,
            instances = instances.join(", "),
        )
    }
}

impl Disk {
    /// The name of its volume.
    pub fn volume(&self) -> String {
        format!("{}-{}", self.node, self.disk)
    }
}

fn pick<T: Clone>(dice: &mut StdRng, all: &[T]) -> T {
    let chosen = all.choose(dice).expect("there is something to choose from");
    chosen.clone()
}

fn cluster(dice: &mut StdRng, (name, prefix): (&'static str, &'static str)) -> Cluster {
    Cluster {
        name,
        prefix,
        nodes: dice.random_range(1..=2),
        disks: pick(
            dice,
            &[
                &["data"] as &'static [&'static str],
                &["data"],
                &["data", "wal"],
            ],
        ),
        protected: dice.random_bool(0.3),
    }
}

fn past(dice: &mut StdRng) -> Past {
    let content = pick(dice, &CONTENTS);
    let strange = pick(dice, &CONTENTS[1..]);
    let coin = dice.random_bool(0.5);
    match dice.random_range(0..24) {
        0..=5 => Past::New,
        6..=8 => Past::InUse { protected: coin },
        9 | 10 => Past::MadeBlank,
        11 | 12 => Past::Intended { formatted: coin },
        13 => Past::UsedByOthers(strange),
        14 => Past::Replaced(content),
        15 | 16 => Past::Unrecorded(content),
        17 => Past::Twice,
        18 => Past::Vanished,
        19 => Past::Renamed,
        20 => Past::Restored(content),
        21 => Past::Elsewhere { recorded: coin },
        22 => Past::Unreadable { recorded: coin },
        _ => Past::BootDisk,
    }
}

/// Names that are near ours; their volumes have the size of ours.
fn strangers(dice: &mut StdRng, clusters: &[Cluster; 2]) -> Vec<String> {
    let mut names = Vec::new();
    for cluster in clusters {
        for (node, disk) in cluster.slots() {
            let near = [
                format!("{node}-{disk}-old"),
                format!("x{node}-{disk}"),
                format!("{node}{disk}"),
                format!("{node}-{disk}2"),
                format!("{node}-{disk}").to_uppercase(),
                format!("{node} {disk}"),
                format!("{node}-{disk} "),
                node.clone(),
                disk.clone(),
            ];
            names.push(pick(dice, &near));
        }
        names.push(format!("{}-{}-9-data", cluster.name, cluster.prefix));
    }
    // A name that is near one of ours can still be another one of ours.
    let ours: Vec<String> = clusters
        .iter()
        .flat_map(Cluster::slots)
        .map(|(node, disk)| format!("{node}-{disk}"))
        .collect();
    names.retain(|name| !ours.contains(name));
    names
}

fn trouble(dice: &mut StdRng) -> Trouble {
    let call = pick(
        dice,
        &[Call::CreateVolume, Call::AttachVolume, Call::CreateServer],
    );
    let list = pick(dice, &[List::Volumes, List::Servers, List::Addresses]);
    let times = dice.random_range(1..4);
    match dice.random_range(0..10) {
        0 => Trouble::Refuses(call, times),
        1 => Trouble::AnswersWrong(call),
        2 => Trouble::Cuts(call),
        3 => Trouble::Lags(list, times),
        4 => Trouble::ShowsNothing(list, times),
        5 => Trouble::Garbles(list),
        6 => Trouble::BuildFails(dice.random_range(0..2), times.min(2)),
        7 => Trouble::SshCut(pick(dice, &["mkfs.ext4", "blkid", "mount", "wipefs"])),
        8 => Trouble::Fails(pick(
            dice,
            &["mkfs.ext4", "blkid", "e2fsck", "cmp", "wipefs"],
        )),
        _ => Trouble::Letters,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jobs::spec::ClusterSpec;

    #[test]
    fn every_scene_has_two_valid_specs_and_a_seed_is_one_scene() {
        for seed in 0..300 {
            let scene = Scene::of(seed);
            assert_eq!(format!("{scene:?}"), format!("{:?}", Scene::of(seed)));
            for cluster in &scene.clusters {
                let spec = ClusterSpec::parse(&cluster.spec());
                assert!(spec.is_ok(), "{seed}: {spec:?}");
            }
        }
    }
}
