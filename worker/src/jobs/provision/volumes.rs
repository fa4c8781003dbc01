//! Data volumes: which one belongs to a disk of a node is decided by records and names, never by
//! size, and never by what happens to be free.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jobs::record::{Origin, VolumeRecord};
use jobs::spec::{DataDisk, Node, Storage};
use serde::{Deserialize, Serialize};

use super::building;
use super::server::NodeServer;
use crate::cloud::clo::{Clo, Made, VolumeStatus, adopt_or_create};
use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError, Poll};

/// What was decided before the volume was touched.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "decided", rename_all = "kebab-case")]
enum Intent {
    /// It is on record as this disk's.
    Use { id: String },
    /// It has our name but no record: ours from before our records, never to be formatted.
    Adopt { id: String },
    /// There was none at this time of the cloud's clock; it will be made, blank.
    Create {
        #[serde(default)]
        after: Option<Timestamp>,
    },
}

/// A volume that was made, or that showed up when it was to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Stored")]
struct Found {
    id: String,
    /// It was made for this intent, and is blank.
    ours: bool,
}

/// How [`Found`] may stand in a record.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Found {
        id: String,
        ours: bool,
    },
    /// From before it was written down whose it is.
    Id(String),
}

impl From<Stored> for Found {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Found { id, ours } => Self { id, ours },
            Stored::Id(id) => Self { id, ours: false },
        }
    }
}

/// Finds or makes the volume of one disk and gives its id.
pub(super) async fn ensure(
    ctx: &Ctx,
    clo: &Clo,
    node: &Node,
    disk: &DataDisk,
) -> Result<String, JobError> {
    let name = node.volume_name(disk);
    let intent: Intent = ctx
        .step(("volume-intent", &disk.name), || {
            decide(ctx, clo, node, disk)
        })
        .await?;
    let recovery = ctx.recovery().clone();
    let (id, origin) = match intent {
        Intent::Use { id } | Intent::Adopt { id } => (id, Origin::Adopted { recovery }),
        Intent::Create { after } => {
            let make = || make(ctx, clo, &name, disk, after);
            let found: Found = ctx.step(("volume", &disk.name), make).await?;
            let origin = match found.ours {
                true => Origin::CreatedBlank { recovery },
                false => Origin::Adopted { recovery },
            };
            (found.id, origin)
        }
    };
    let record = VolumeRecord {
        id: id.clone(),
        name,
        node: node.name.clone(),
        disk: disk.name.clone(),
        size_gb: disk.size_gb,
        storage: disk.storage,
        // Kept from the record where there is one.
        origin,
        fs_uuid: None,
        formatted: false,
        mount: disk.mount.clone(),
        protected: disk.protected,
    };
    ctx.step(("volume-record", &disk.name), || async {
        Cluster::of(ctx).put_volume(&record).await
    })
    .await?;
    ctx.wait(("volume-ready", &disk.name), building(ctx), || {
        ready(clo, &id)
    })
    .await?;
    Ok(id)
}

/// By the record, else by our name, else it must be made.
async fn decide(ctx: &Ctx, clo: &Clo, node: &Node, disk: &DataDisk) -> Result<Intent, JobError> {
    let records = Cluster::of(ctx).volumes().await?;
    let of_disk = records
        .iter()
        .filter(|r| r.node == node.name && r.disk == disk.name && r.storage == Storage::Network);
    let mut there = Vec::new();
    for record in of_disk {
        // Gone for certain, or an error: nothing in between.
        if clo
            .volume(&record.id)
            .await?
            .is_some_and(|v| v.status != VolumeStatus::Deleting)
        {
            there.push(record.id.clone());
        } else {
            tracing::warn!(
                volume = record.id,
                disk = disk.name,
                "a volume on record does not exist any more"
            );
        }
    }
    let name = node.volume_name(disk);
    if there.is_empty() {
        let named = clo.volumes_named(&name).await?;
        let mut named = named
            .into_iter()
            .filter(|v| v.status != VolumeStatus::Deleting);
        return match (named.next(), named.next()) {
            (None, _) => Ok(Intent::Create {
                after: clo.clock().await?,
            }),
            (Some(one), None) if one.bootable => Err(JobError::needs_approval(format!(
                "volume {} is called `{name}`, and a system starts from it: it is no data volume of ours; rename it",
                one.id
            ))),
            (Some(one), None) => Ok(Intent::Adopt { id: one.id }),
            (Some(a), Some(b)) => Err(JobError::needs_approval(format!(
                "the cloud has several volumes called `{name}` ({}, {}, …) and none is on record: rename those that are not it",
                a.id, b.id
            ))),
        };
    }
    match there.as_slice() {
        [one] => Ok(Intent::Use { id: one.clone() }),
        many => Err(JobError::needs_approval(format!(
            "several volumes are on record for disk `{}` of `{}`: {}",
            disk.name,
            node.name,
            many.join(", ")
        ))),
    }
}

/// Makes the volume, or finds the one that a create of ours without an answer made.
async fn make(
    ctx: &Ctx,
    clo: &Clo,
    name: &str,
    disk: &DataDisk,
    after: Option<Timestamp>,
) -> Result<Found, JobError> {
    let named = || clo.volumes_named(name);
    let create = || clo.create_volume(name, disk.size_gb.into());
    let made = adopt_or_create(&format!("volume {name}"), named, create, ctx.settle()).await?;
    Ok(match made {
        Made::Created(id) => Found { id, ours: true },
        Made::Adopted(volume) => {
            let ours = is_younger(volume.created_in.as_deref(), after);
            if !ours {
                tracing::warn!(
                    volume = volume.id,
                    "a volume of our name showed up that we may not have made: it is adopted"
                );
            }
            Found {
                id: volume.id,
                ours,
            }
        }
    })
}

/// Made after the intent, under a name that only we may use, so by us. Both times are the cloud's. A
/// list that lags can hide an older volume from the intent; that one is somebody's, with data or not.
fn is_younger(created: Option<&str>, intent: Option<Timestamp>) -> bool {
    let created = created.and_then(|text| text.parse::<Timestamp>().ok());
    matches!((created, intent), (Some(created), Some(intent)) if created >= intent)
}

async fn ready(clo: &Clo, id: &str) -> Result<Poll<()>, JobError> {
    Ok(match clo.volume(id).await? {
        None => Poll::Pending(format!("the cloud does not show volume {id}")),
        Some(volume) => match volume.status {
            VolumeStatus::Available | VolumeStatus::InUse | VolumeStatus::Attaching => {
                Poll::Ready(())
            }
            VolumeStatus::Error => {
                return Err(JobError::needs_approval(format!("volume {id} is in ERROR")));
            }
            other => Poll::Pending(format!("volume {id} is {other}")),
        },
    })
}

/// Plugs a volume into the server and waits until it is in use there. One that another server uses
/// is left alone.
pub(super) async fn attach(
    ctx: &Ctx,
    clo: &Clo,
    disk: &str,
    volume: &str,
    server: &str,
) -> Result<(), JobError> {
    let look = || async {
        let Some(found) = clo.volume(volume).await? else {
            return Err(JobError::fatal(format!(
                "volume {volume} has vanished from the cloud"
            )));
        };
        let holder = found
            .attached_to_server
            .as_ref()
            .map(|at| at.id.as_str())
            .filter(|id| !id.is_empty());
        match (&found.status, holder) {
            (VolumeStatus::InUse, Some(id)) if id == server => Ok(Poll::Ready(())),
            (VolumeStatus::InUse | VolumeStatus::Attaching, Some(id)) if id != server => {
                // It may be the server that died a moment ago, so give the cloud time to notice.
                match clo.server(id).await? {
                    None => Ok(Poll::Pending(format!(
                        "volume {volume} is still held by the deleted server {id}"
                    ))),
                    Some(other) => Err(JobError::needs_approval(format!(
                        "volume {volume} is attached to server {id} (`{}`), not to {server}: detach it there if it may move",
                        other.name
                    ))),
                }
            }
            (VolumeStatus::Available, None) => {
                clo.attach_volume(volume, server).await?;
                Ok(Poll::Pending(format!("volume {volume} is being attached")))
            }
            (status, _) => Ok(Poll::Pending(format!("volume {volume} is {status}"))),
        }
    };
    ctx.wait(("attach", disk), building(ctx), look).await
}

/// The server's local data disks by disk name. They have no names of their own: those of a server
/// that we have just made are dealt out by size, in the order of their ids, and recorded at once.
pub(super) async fn local_disks(
    ctx: &Ctx,
    clo: &Clo,
    node: &Node,
    server: &NodeServer,
) -> Result<BTreeMap<String, String>, JobError> {
    let wanted: Vec<&DataDisk> = node
        .data_disks
        .iter()
        .filter(|disk| disk.storage == Storage::Local)
        .collect();
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    ctx.step("local-disks", || async {
        let cluster = Cluster::of(ctx);
        let of_server = |disk: &crate::cloud::clo::LocalDisk| {
            disk.attached_to_server
                .as_ref()
                .is_some_and(|at| at.id == server.id)
        };
        let mut found: Vec<_> = clo
            .list_local_disks()
            .await?
            .into_iter()
            .filter(|d| !d.bootable && of_server(d))
            .collect();
        let records = cluster.volumes().await?;
        let mut dealt = BTreeMap::new();
        for disk in wanted {
            let known = records.iter().find(|r| {
                r.node == node.name && r.disk == disk.name && found.iter().any(|f| f.id == r.id)
            });
            let at = match known {
                Some(record) => found.iter().position(|f| f.id == record.id),
                None if server.fresh => {
                    found.iter().position(|f| f.size == u64::from(disk.size_gb))
                }
                None => None,
            };
            let Some(at) = at else {
                return Err(JobError::fatal(format!(
                    "server {} has no local disk on record for `{}` of `{}`",
                    server.id, disk.name, node.name
                )));
            };
            let id = found.remove(at).id;
            let record = VolumeRecord {
                id: id.clone(),
                name: node.volume_name(disk),
                node: node.name.clone(),
                disk: disk.name.clone(),
                size_gb: disk.size_gb,
                storage: Storage::Local,
                origin: Origin::CreatedBlank {
                    recovery: ctx.recovery().clone(),
                },
                fs_uuid: None,
                formatted: false,
                mount: disk.mount.clone(),
                protected: disk.protected,
            };
            cluster.put_volume(&record).await?;
            dealt.insert(disk.name.clone(), id);
        }
        Ok(dealt)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_younger_than_the_intent_is_ours() {
        let intent = "2026-11-22T10:00:05Z".parse().ok();
        for (created, intent, ours) in [
            (Some("2026-11-22T10:00:05.3Z"), intent, true),
            (Some("2026-11-22T13:00:05+03:00"), intent, true),
            (Some("2026-11-22T10:00:04.9Z"), intent, false),
            (Some("2026-11-22T10:00:06"), intent, false),
            (None, intent, false),
            (Some("2026-11-22T10:00:06Z"), None, false),
        ] {
            assert_eq!(is_younger(created, intent), ours, "{created:?}, {intent:?}");
        }
    }

    #[test]
    fn a_volume_recorded_by_its_id_alone_is_not_known_to_be_ours() {
        let of = |text: &str| serde_json::from_str::<Found>(text).expect(text).ours;
        assert!(!of("\"v-1\""));
        assert!(of("{\"id\":\"v-1\",\"ours\":true}"));
        let intent = serde_json::from_str("{\"decided\":\"create\"}").expect("an old intent");
        assert!(matches!(intent, Intent::Create { after: None }));
    }
}
