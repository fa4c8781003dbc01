//! Network volumes, and the local disks that only look like them.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::lifecycle;
use super::super::sim::Inner;
use super::super::world::{ServerStatus, Volume, VolumeStatus, World, new_id};
use super::{Answer, Query, Refusal, Reply, page};

const SMALLEST_GB: u64 = 10;
const LARGEST_GB: u64 = 10_000;

#[derive(Deserialize)]
pub(super) struct Create {
    name: String,
    size: u64,
    #[serde(default)]
    autorename: bool,
}

#[derive(Deserialize)]
pub(super) struct Attach {
    server_id: String,
}

pub(super) fn list(inner: &Inner, query: &Query, local: bool) -> Answer {
    let world = inner.world();
    let of_kind = world.volumes.iter().filter(|v| v.local == local);
    Ok(page(
        inner,
        query,
        of_kind.map(|v| view(v, false)).collect(),
    ))
}

pub(super) fn detail(inner: &Inner, id: &str, local: bool) -> Answer {
    let world = inner.world();
    let volume = find(&world, id, local)?;
    Ok(Reply::one(view(volume, true)))
}

pub(super) fn create(inner: &Arc<Inner>, wanted: Create) -> Answer {
    if wanted.name.is_empty() {
        return Err(Refusal::bad("name: this field may not be blank"));
    }
    if !(SMALLEST_GB..=LARGEST_GB).contains(&wanted.size) {
        return Err(Refusal::bad(format!(
            "size: must be from {SMALLEST_GB} to {LARGEST_GB} GB"
        )));
    }
    let id = new_id();
    {
        let mut world = inner.world();
        let taken = world.volumes.iter().any(|v| v.name == wanted.name);
        let name = match wanted.autorename && taken {
            true => format!("{}-{}", wanted.name, &id[..4]),
            false => wanted.name,
        };
        world.volumes.push(Volume {
            id: id.clone(),
            name,
            size: wanted.size,
            status: VolumeStatus::Creating,
            bootable: false,
            local: false,
            attached: None,
            created: Timestamp::now(),
            foreign: false,
            on_hypervisor: false,
        });
    }
    let work = lifecycle::create_volume(inner.clone(), id.clone(), wanted.size);
    inner.spawn(work);
    Ok(Reply::created(200, &id))
}

pub(super) fn delete(inner: &Arc<Inner>, id: &str) -> Answer {
    {
        let mut world = inner.world();
        find(&world, id, false)?;
        expect_status(&mut world, id, VolumeStatus::Available)?.status = VolumeStatus::Deleting;
    }
    inner.spawn(lifecycle::delete_volume(inner.clone(), id.to_owned()));
    Ok(Reply::empty(202))
}

pub(super) fn attach(inner: &Arc<Inner>, id: &str, wanted: Attach) -> Answer {
    let server = wanted.server_id;
    {
        let mut world = inner.world();
        find(&world, id, false)?;
        let owner = world.server(&server).ok_or(Refusal::not_found("server"))?;
        if !matches!(owner.status, ServerStatus::Active | ServerStatus::Stopped) {
            return Err(Refusal::conflict("server must be in status: active"));
        }
        let name = owner.name.clone();
        expect_status(&mut world, id, VolumeStatus::Available)?;
        let free = world.free_device(&server);
        let wish = inner.faults.take_device(&name).filter(|device| {
            let taken = world.disks_of(&server);
            taken
                .iter()
                .all(|v| v.attached.as_ref().is_none_or(|(_, d)| d != device))
        });
        let device = wish
            .or(free)
            .ok_or_else(|| Refusal::conflict("server has too many disks"))?;
        let volume = expect_status(&mut world, id, VolumeStatus::Available)?;
        volume.status = VolumeStatus::Attaching;
        volume.attached = Some((server.clone(), device));
    }
    inner.spawn(lifecycle::attach_volume(
        inner.clone(),
        id.to_owned(),
        server,
    ));
    Ok(Reply::empty(202))
}

pub(super) fn detach(inner: &Arc<Inner>, id: &str) -> Answer {
    let server = {
        let mut world = inner.world();
        if find(&world, id, false)?.bootable {
            return Err(Refusal::conflict("a boot volume cannot be detached"));
        }
        let volume = expect_status(&mut world, id, VolumeStatus::InUse)?;
        volume.status = VolumeStatus::Detaching;
        volume.attached.clone().map(|(server, _)| server)
    };
    let server = server.ok_or_else(|| Refusal::conflict("volume is not attached"))?;
    inner.spawn(lifecycle::detach_volume(
        inner.clone(),
        id.to_owned(),
        server,
    ));
    Ok(Reply::empty(202))
}

fn find<'a>(world: &'a World, id: &str, local: bool) -> Result<&'a Volume, Refusal> {
    world
        .volume(id)
        .filter(|v| v.local == local)
        .ok_or(Refusal::not_found("volume"))
}

fn expect_status<'a>(
    world: &'a mut World,
    id: &str,
    status: VolumeStatus,
) -> Result<&'a mut Volume, Refusal> {
    let volume = world.volume_mut(id).ok_or(Refusal::not_found("volume"))?;
    if volume.status != status {
        return Err(Refusal::conflict(format!(
            "volume must be in status: {}",
            lower(status)
        )));
    }
    Ok(volume)
}

/// Lists say `IN_USE`, details say `in-use`: the words differ between versions of the API.
fn view(volume: &Volume, detail: bool) -> Value {
    let mut view = json!({
        "id": volume.id,
        "name": volume.name,
        "status": if detail { lower(volume.status) } else { volume.status.as_str().to_owned() },
        "size": volume.size,
        "bootable": volume.bootable,
        "created_in": volume.created.to_string(),
        "x_sandbox": null,
    });
    if detail {
        view["description"] = json!("");
        view["undetachable"] = json!(volume.bootable || volume.local);
    }
    if let Some((server, device)) = &volume.attached {
        // The device is known once the hypervisor has plugged the disk in.
        view["attached_to_server"] = match volume.status {
            VolumeStatus::InUse | VolumeStatus::Detaching => {
                json!({ "id": server, "device": format!("/dev/{device}") })
            }
            _ => json!({ "id": server }),
        };
    } else if detail {
        view["attached_to_server"] = Value::Null;
    }
    view
}

fn lower(status: VolumeStatus) -> String {
    status.as_str().to_lowercase().replace('_', "-")
}
