//! What happens in the cloud after a call was answered: building, plugging, tearing down.
//!
//! Handlers change the world at once and spawn one of these; each looks again at the world under
//! the server's lock before it acts, because a delete may have come in between.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::time::sleep;

use super::faults::BuildFault;
use super::sim::Inner;
use super::world::{
    AddressStatus, BalancerStatus, Entity, RuleStatus, Server, ServerStatus, VolumeStatus, World,
};
use crate::hosts::Boot;

/// BUILDING → ACTIVE, or whatever a fault wants.
pub(super) async fn build_server(inner: Arc<Inner>, id: String) {
    let Some(name) = inner.world().server(&id).map(|s| s.name.clone()) else {
        return;
    };
    let fault = inner.faults.take_build(&name);
    if fault == Some(BuildFault::Stuck) {
        return;
    }
    // Closed never: the semaphore lives as long as the simulator.
    let Ok(_permit) = inner.building.acquire().await else {
        return;
    };
    sleep(inner.options.boot_time).await;
    let _alone = inner.exclusively(&id).await;
    let Some(plan) = BootPlan::of(&inner.world(), &id) else {
        return;
    };
    let failed = if fault == Some(BuildFault::Error) {
        true
    } else {
        boot(&inner, &id, plan).await
    };
    let mut world = inner.world();
    let Some(server) = world.server_mut(&id) else {
        return;
    };
    // A delete that came in the meantime has the word.
    if server.status == ServerStatus::Building {
        server.status = if failed {
            ServerStatus::Error
        } else {
            ServerStatus::Active
        };
    }
    if !failed {
        for address in &mut world.addresses {
            if address.attached.as_ref() == Some(&Entity::Server(id.clone())) {
                address.status = AddressStatus::Active;
            }
        }
        for volume in &mut world.volumes {
            if volume
                .attached
                .as_ref()
                .is_some_and(|(server, _)| *server == id)
            {
                volume.status = VolumeStatus::InUse;
            }
        }
    }
}

/// Makes the disks and boots; says whether that failed.
async fn boot(inner: &Inner, id: &str, plan: BootPlan) -> bool {
    for (volume, size) in plan.new_disks {
        if let Err(error) = inner.hosts.create_disk(&volume, size).await {
            inner.trouble("create a disk", &error);
            return true;
        }
        if let Some(volume) = inner.world().volume_mut(&volume) {
            volume.on_hypervisor = true;
        }
    }
    if let Err(error) = inner.hosts.boot(plan.boot).await {
        inner.trouble("boot a server", &error);
        return true;
    }
    if let Some(server) = inner.world().server_mut(id) {
        server.booted = true;
    }
    false
}

struct BootPlan {
    boot: Boot,
    new_disks: Vec<(String, u64)>,
}

impl BootPlan {
    fn of(world: &World, id: &str) -> Option<Self> {
        let server = world.server(id)?;
        let mut disks = BTreeMap::new();
        let mut new_disks = Vec::new();
        // The boot disk is the host's own root and no disk of the hypervisor.
        for volume in world.disks_of(id).into_iter().filter(|v| !v.bootable) {
            let (_, device) = volume.attached.clone()?;
            disks.insert(device, volume.id.clone());
            if !volume.on_hypervisor {
                new_disks.push((volume.id.clone(), volume.size));
            }
        }
        let boot = Boot {
            server: server.id.clone(),
            name: server.name.clone(),
            address: world.internal_ip(id).unwrap_or(Ipv4Addr::UNSPECIFIED),
            user_data: server.user_data.clone(),
            authorized_keys: authorized_keys(world, server),
            disks,
        };
        Some(Self { boot, new_disks })
    }
}

fn authorized_keys(world: &World, server: &Server) -> Vec<String> {
    let wanted = |id: &&String| world.keypairs.iter().find(|k| k.id == **id);
    let keys = server.keypairs.iter();
    keys.filter_map(|id| wanted(&id))
        .map(|k| k.public_key.clone())
        .collect()
}

/// DELETING → gone. The named volumes and addresses go too, and all that cannot outlive it.
pub(super) async fn delete_server(
    inner: Arc<Inner>,
    id: String,
    volumes: Vec<String>,
    addresses: Vec<String>,
) {
    sleep(inner.options.settle_time).await;
    let _alone = inner.exclusively(&id).await;
    let Some(booted) = inner.world().server(&id).map(|s| s.booted) else {
        return;
    };
    if booted && let Err(error) = inner.hosts.destroy(&id).await {
        inner.trouble("destroy a server", &error);
    }
    let doomed = take_apart(&inner, &id, &volumes, &addresses);
    for volume in doomed {
        if let Err(error) = inner.hosts.delete_disk(&volume).await {
            inner.trouble("delete a disk", &error);
        }
    }
}

/// Removes the server from the world; returns the disks the hypervisor must drop.
fn take_apart(inner: &Inner, id: &str, volumes: &[String], addresses: &[String]) -> Vec<String> {
    let mut world = inner.world();
    let mut doomed = Vec::new();
    world.volumes.retain_mut(|v| {
        if v.attached.as_ref().is_none_or(|(server, _)| server != id) {
            return true;
        }
        let dies_with_server = v.local || (v.bootable && !inner.options.boot_disks_survive);
        if dies_with_server || volumes.contains(&v.id) {
            if v.on_hypervisor {
                doomed.push(v.id.clone());
            }
            return false;
        }
        v.attached = None;
        v.status = VolumeStatus::Available;
        true
    });
    let attached = Some(Entity::Server(id.to_owned()));
    world.addresses.retain_mut(|a| {
        if a.attached != attached {
            return true;
        }
        a.attached = None;
        a.primary = false;
        a.status = AddressStatus::Down;
        a.external && !addresses.contains(&a.id)
    });
    for rule in world.rules.iter_mut().filter(|r| r.server == id) {
        rule.status = RuleStatus::Error;
    }
    world.servers.retain(|s| s.id != id);
    doomed
}

/// REBOOTING or STARTING → ACTIVE.
pub(super) async fn reboot_server(inner: Arc<Inner>, id: String) {
    sleep(inner.options.settle_time).await;
    let _alone = inner.exclusively(&id).await;
    let Some((name, booted)) = inner
        .world()
        .server(&id)
        .map(|s| (s.name.clone(), s.booted))
    else {
        return;
    };
    if booted {
        if inner.faults.take_shuffle(&name) {
            shuffle(&inner, &id).await;
        }
        if let Err(error) = inner.hosts.reboot(&id).await {
            inner.trouble("reboot a server", &error);
        }
    }
    set_server(&inner, &id, ServerStatus::Active);
}

/// STOPPING → STOPPED. The host goes on inside; the network no longer leads there.
pub(super) async fn stop_server(inner: Arc<Inner>, id: String) {
    sleep(inner.options.settle_time).await;
    set_server(&inner, &id, ServerStatus::Stopped);
}

fn set_server(inner: &Inner, id: &str, status: ServerStatus) {
    if let Some(server) = inner.world().server_mut(id)
        && server.status != ServerStatus::Deleting
    {
        server.status = status;
    }
}

/// Gives the data disks each other's device names; a single one moves to the next letter.
async fn shuffle(inner: &Inner, server: &str) {
    let before: Vec<(String, String)> = {
        let world = inner.world();
        let disks = world.disks_of(server).into_iter();
        disks
            .filter(|v| v.on_hypervisor)
            .filter_map(|v| Some((v.id.clone(), v.attached.clone()?.1)))
            .collect()
    };
    let mut devices: Vec<String> = before.iter().map(|(_, device)| device.clone()).collect();
    match devices.len() {
        0 => return,
        1 => devices = inner.world().free_device(server).into_iter().collect(),
        _ => devices.rotate_left(1),
    }
    for (volume, _) in &before {
        if let Err(error) = inner.hosts.detach(server, volume).await {
            inner.trouble("detach a disk", &error);
        }
    }
    for ((volume, _), device) in before.iter().zip(devices) {
        if let Err(error) = inner.hosts.attach(server, volume, &device).await {
            inner.trouble("attach a disk", &error);
        }
        if let Some(volume) = inner.world().volume_mut(volume) {
            volume.attached = Some((server.to_owned(), device));
        }
    }
}

/// CREATING → AVAILABLE.
pub(super) async fn create_volume(inner: Arc<Inner>, id: String, size: u64) {
    sleep(inner.options.settle_time).await;
    if let Err(error) = inner.hosts.create_disk(&id, size).await {
        inner.trouble("create a disk", &error);
        return;
    }
    if let Some(volume) = inner.world().volume_mut(&id) {
        volume.on_hypervisor = true;
        volume.status = VolumeStatus::Available;
    }
}

/// DELETING → gone.
pub(super) async fn delete_volume(inner: Arc<Inner>, id: String) {
    sleep(inner.options.settle_time).await;
    let known = inner.world().volume(&id).is_some_and(|v| v.on_hypervisor);
    if known && let Err(error) = inner.hosts.delete_disk(&id).await {
        inner.trouble("delete a disk", &error);
    }
    inner.world().volumes.retain(|v| v.id != id);
}

/// ATTACHING → IN_USE.
pub(super) async fn attach_volume(inner: Arc<Inner>, volume: String, server: String) {
    sleep(inner.options.settle_time).await;
    let _alone = inner.exclusively(&server).await;
    let (device, plug, missing) = {
        let world = inner.world();
        let Some(v) = world.volume(&volume) else {
            return;
        };
        let Some((to, device)) = v.attached.clone() else {
            return;
        };
        if to != server || v.status != VolumeStatus::Attaching {
            return;
        }
        let plug = world.server(&server).is_some_and(|s| s.booted);
        // A disk whose server never came up, or a boot disk that outlived its server.
        let missing = (!v.on_hypervisor).then_some(v.size);
        (device, plug, missing)
    };
    let plugged = match (plug, missing) {
        (false, _) => Ok(()),
        (true, None) => inner.hosts.attach(&server, &volume, &device).await,
        (true, Some(size)) => match inner.hosts.create_disk(&volume, size).await {
            Ok(()) => inner.hosts.attach(&server, &volume, &device).await,
            Err(error) => Err(error),
        },
    };
    if let Err(error) = &plugged {
        inner.trouble("attach a disk", error);
    }
    if let Some(v) = inner.world().volume_mut(&volume) {
        if plugged.is_ok() {
            v.status = VolumeStatus::InUse;
            v.on_hypervisor |= plug;
        } else {
            v.status = VolumeStatus::Available;
            v.attached = None;
        }
    }
}

/// DETACHING → AVAILABLE.
pub(super) async fn detach_volume(inner: Arc<Inner>, volume: String, server: String) {
    sleep(inner.options.settle_time).await;
    let _alone = inner.exclusively(&server).await;
    let plugged = {
        let world = inner.world();
        let attached = |v: &&super::world::Volume| {
            v.status == VolumeStatus::Detaching
                && v.attached.as_ref().is_some_and(|(to, _)| *to == server)
        };
        let Some(v) = world.volume(&volume).filter(attached) else {
            return;
        };
        v.on_hypervisor && world.server(&server).is_some_and(|s| s.booted)
    };
    if plugged && let Err(error) = inner.hosts.detach(&server, &volume).await {
        inner.trouble("detach a disk", &error);
    }
    if let Some(v) = inner.world().volume_mut(&volume) {
        v.status = VolumeStatus::Available;
        v.attached = None;
    }
}

/// PROCESSING → DOWN or ACTIVE, depending on what it is attached to by then.
pub(super) async fn settle_address(inner: Arc<Inner>, id: String) {
    sleep(inner.options.settle_time).await;
    if let Some(address) = inner.world().address_mut(&id)
        && address.status == AddressStatus::Processing
    {
        address.status = match address.attached {
            Some(_) => AddressStatus::Active,
            None => AddressStatus::Down,
        };
    }
}

/// CREATING → ACTIVE, with its addresses and first rules.
pub(super) async fn create_balancer(inner: Arc<Inner>, id: String) {
    sleep(inner.options.settle_time).await;
    let mut world = inner.world();
    let Some(balancer) = world.balancer_mut(&id) else {
        return;
    };
    if balancer.status != BalancerStatus::Creating {
        return;
    }
    balancer.status = BalancerStatus::Active;
    let attached = Some(Entity::Balancer(id.clone()));
    for address in world
        .addresses
        .iter_mut()
        .filter(|a| a.attached == attached)
    {
        address.status = AddressStatus::Active;
    }
    let fresh = |r: &&mut super::world::Rule| r.balancer == id && r.status == RuleStatus::Creating;
    for rule in world.rules.iter_mut().filter(fresh) {
        rule.status = RuleStatus::Active;
    }
}

/// DELETING → gone. Its addresses stay behind as free ones.
pub(super) async fn delete_balancer(inner: Arc<Inner>, id: String) {
    sleep(inner.options.settle_time).await;
    let mut world = inner.world();
    let attached = Some(Entity::Balancer(id.clone()));
    for address in world
        .addresses
        .iter_mut()
        .filter(|a| a.attached == attached)
    {
        address.attached = None;
        address.status = AddressStatus::Down;
    }
    world.rules.retain(|r| r.balancer != id);
    world.balancers.retain(|b| b.id != id);
}

/// CREATING → ACTIVE.
pub(super) async fn create_rule(inner: Arc<Inner>, id: String) {
    sleep(inner.options.settle_time).await;
    if let Some(rule) = inner.world().rules.iter_mut().find(|r| r.id == id)
        && rule.status == RuleStatus::Creating
    {
        rule.status = RuleStatus::Active;
    }
}
