//! Servers.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::lifecycle;
use super::super::sim::Inner;
use super::super::world::{
    Address, AddressStatus, Entity, Server, ServerStatus, Volume, VolumeStatus, World, new_id,
};
use super::{Answer, Query, Refusal, Reply, new_name, page};

#[derive(Deserialize)]
pub(super) struct Create {
    name: String,
    flavor: Flavor,
    image: Option<String>,
    volume: Option<String>,
    recipe: Option<String>,
    #[serde(default)]
    storages: Option<Vec<Storage>>,
    #[serde(default)]
    addresses: Option<Vec<WantedAddress>>,
    #[serde(default)]
    keypairs: Option<Vec<String>>,
    user_data: Option<String>,
}

#[derive(Deserialize)]
struct Flavor {
    ram: u64,
    vcpus: u64,
}

#[derive(Deserialize)]
struct Storage {
    size: u64,
    #[serde(default)]
    bootable: bool,
    storage_type: Option<String>,
}

#[derive(Deserialize)]
struct WantedAddress {
    address_id: Option<String>,
    #[serde(default)]
    external: bool,
    #[serde(default)]
    ddos_protection: bool,
    bandwidth_max_mbps: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct Delete {
    #[serde(default)]
    delete_volumes: Option<Vec<String>>,
    #[serde(default)]
    delete_addresses: Option<Vec<String>>,
}

pub(super) fn list(inner: &Inner, query: &Query) -> Answer {
    let world = inner.world();
    let items = world.servers.iter().map(|s| view(inner, &world, s));
    Ok(page(inner, query, items.collect()))
}

pub(super) fn detail(inner: &Inner, id: &str) -> Answer {
    let world = inner.world();
    let server = world.server(id).ok_or(Refusal::not_found("server"))?;
    Ok(Reply::one(view(inner, &world, server)))
}

pub(super) fn create(inner: &Arc<Inner>, wanted: Create) -> Answer {
    let id = new_id();
    {
        let mut world = inner.world();
        let boot_image = check(inner, &world, &wanted)?;
        add_addresses(&mut world, &id, wanted.addresses.unwrap_or_default())?;
        add_disks(
            &mut world,
            &id,
            &wanted.name,
            wanted.storages.unwrap_or_default(),
        )?;
        world.servers.push(Server {
            id: id.clone(),
            name: wanted.name,
            status: ServerStatus::Building,
            ram: wanted.flavor.ram,
            vcpus: wanted.flavor.vcpus,
            image: boot_image,
            keypairs: wanted.keypairs.unwrap_or_default(),
            user_data: wanted.user_data,
            created: Timestamp::now(),
            foreign: false,
            booted: false,
        });
    }
    inner.spawn(lifecycle::build_server(inner.clone(), id.clone()));
    Ok(Reply::created(201, &id))
}

/// All refusals of a create, before anything is changed; returns the image.
fn check(inner: &Inner, world: &World, wanted: &Create) -> Result<String, Refusal> {
    if wanted.name.is_empty() {
        return Err(Refusal::bad("name: this field may not be blank"));
    }
    if !(1..=512).contains(&wanted.flavor.ram) || wanted.flavor.vcpus == 0 {
        return Err(Refusal::bad("flavor: ram is in GB, vcpus at least 1"));
    }
    if wanted.volume.is_some() || wanted.recipe.is_some() {
        return Err(Refusal::bad("the sandbox boots from images only"));
    }
    let image = wanted
        .image
        .as_ref()
        .and_then(|id| world.images.iter().find(|i| i.id == *id))
        .ok_or_else(|| Refusal::bad("image: no such image"))?;
    for keypair in wanted.keypairs.iter().flatten() {
        if world.keypairs.iter().all(|k| k.id != *keypair) {
            return Err(Refusal::bad("keypairs: no such keypair"));
        }
    }
    let storages = wanted.storages.as_deref().unwrap_or_default();
    if storages.iter().filter(|s| s.bootable).count() > 1 {
        return Err(Refusal::bad("storages: only one can be bootable"));
    }
    if storages.iter().any(|s| s.size == 0) || storages.len() > 16 {
        return Err(Refusal::bad("storages: size is in GB, at most 16"));
    }
    for address in wanted.addresses.iter().flatten() {
        if let Some(mbps) = address.bandwidth_max_mbps
            && mbps != 100
            && mbps != 1024
        {
            return Err(Refusal::bad("bandwidth_max_mbps: 100 or 1024"));
        }
        let Some(id) = &address.address_id else {
            continue;
        };
        match world.address(id) {
            None => return Err(Refusal::bad("addresses: no such address")),
            Some(a) if a.attached.is_some() || a.status != AddressStatus::Down => {
                return Err(Refusal::conflict("address must be in status: down"));
            }
            Some(_) => {}
        }
    }
    if inner
        .options
        .max_servers
        .is_some_and(|most| world.servers.len() >= most)
    {
        return Err(Refusal::new(
            403,
            "quota_exceeded",
            "The project's limit of servers is reached",
        ));
    }
    Ok(image.id.clone())
}

fn add_addresses(
    world: &mut World,
    server: &str,
    wanted: Vec<WantedAddress>,
) -> Result<(), Refusal> {
    let owner = Entity::Server(server.to_owned());
    let exhausted = || Refusal::new(503, "no_addresses", "No free address is left");
    let internal = world.free_internal_ip().ok_or_else(exhausted)?;
    let address = |ip, external| Address {
        id: new_id(),
        ip,
        status: AddressStatus::Processing,
        external,
        attached: Some(owner.clone()),
        primary: false,
        ddos_protection: false,
        bandwidth: 100,
        created: Timestamp::now(),
        foreign: false,
    };
    world.addresses.push(address(internal, false));
    for wanted in wanted {
        if let Some(id) = &wanted.address_id {
            if let Some(known) = world.address_mut(id) {
                known.attached = Some(owner.clone());
                known.status = AddressStatus::Processing;
                known.primary = true;
            }
        } else if wanted.external {
            let ip = world.free_external_ip().ok_or_else(exhausted)?;
            world.addresses.push(Address {
                primary: true,
                ddos_protection: wanted.ddos_protection,
                bandwidth: wanted.bandwidth_max_mbps.unwrap_or(100),
                ..address(ip, true)
            });
        }
    }
    Ok(())
}

/// Storages become disks: the bootable one is vda, the others follow in their order.
fn add_disks(
    world: &mut World,
    server: &str,
    name: &str,
    mut storages: Vec<Storage>,
) -> Result<(), Refusal> {
    if !storages.iter().any(|s| s.bootable) {
        storages.push(Storage {
            size: 10,
            bootable: true,
            storage_type: None,
        });
    }
    for storage in storages {
        let id = new_id();
        let device = if storage.bootable {
            Some("vda".to_owned())
        } else {
            world.free_device(server)
        };
        let device = device.ok_or_else(|| Refusal::bad("storages: too many"))?;
        let local = storage
            .storage_type
            .is_some_and(|t| t.eq_ignore_ascii_case("local"));
        world.volumes.push(Volume {
            name: format!("{name}-{}", &id[..8]),
            id,
            size: storage.size,
            status: VolumeStatus::Creating,
            bootable: storage.bootable,
            local,
            attached: Some((server.to_owned(), device)),
            created: Timestamp::now(),
            foreign: false,
            on_hypervisor: false,
        });
    }
    Ok(())
}

pub(super) fn rename(inner: &Inner, id: &str, body: &Value) -> Answer {
    let name = new_name(body)?;
    let mut world = inner.world();
    let server = world.server_mut(id).ok_or(Refusal::not_found("server"))?;
    server.name = name;
    Ok(Reply::empty(200))
}

pub(super) fn delete(inner: &Arc<Inner>, id: &str, wanted: Delete) -> Answer {
    let volumes = wanted.delete_volumes.unwrap_or_default();
    let addresses = wanted.delete_addresses.unwrap_or_default();
    {
        let mut world = inner.world();
        world.server(id).ok_or(Refusal::not_found("server"))?;
        let disks: Vec<String> = world.disks_of(id).iter().map(|v| v.id.clone()).collect();
        if volumes.iter().any(|v| !disks.contains(v)) {
            return Err(Refusal::bad("delete_volumes: not a disk of this server"));
        }
        let server = world.server_mut(id).ok_or(Refusal::not_found("server"))?;
        if server.status == ServerStatus::Deleting {
            return Err(Refusal::conflict("server is being deleted"));
        }
        server.status = ServerStatus::Deleting;
    }
    let work = lifecycle::delete_server(inner.clone(), id.to_owned(), volumes, addresses);
    inner.spawn(work);
    Ok(Reply::empty(204))
}

pub(super) fn reboot(inner: &Arc<Inner>, id: &str) -> Answer {
    change(inner, id, ServerStatus::Active, ServerStatus::Rebooting)?;
    inner.spawn(lifecycle::reboot_server(inner.clone(), id.to_owned()));
    Ok(Reply::empty(202))
}

pub(super) fn start(inner: &Arc<Inner>, id: &str) -> Answer {
    change(inner, id, ServerStatus::Stopped, ServerStatus::Starting)?;
    inner.spawn(lifecycle::reboot_server(inner.clone(), id.to_owned()));
    Ok(Reply::empty(202))
}

pub(super) fn stop(inner: &Arc<Inner>, id: &str) -> Answer {
    change(inner, id, ServerStatus::Active, ServerStatus::Stopping)?;
    inner.spawn(lifecycle::stop_server(inner.clone(), id.to_owned()));
    Ok(Reply::empty(202))
}

pub(super) fn password(inner: &Inner, id: &str, body: &Value) -> Answer {
    let world = inner.world();
    world.server(id).ok_or(Refusal::not_found("server"))?;
    match body["password"].as_str() {
        Some(_) => Ok(Reply::empty(202)),
        None => Err(Refusal::bad("password: this field is required")),
    }
}

fn change(inner: &Inner, id: &str, from: ServerStatus, to: ServerStatus) -> Result<(), Refusal> {
    let mut world = inner.world();
    let server = world.server_mut(id).ok_or(Refusal::not_found("server"))?;
    if server.status != from {
        let needed = from.as_str().to_lowercase();
        return Err(Refusal::conflict(format!(
            "server must be in status: {needed}"
        )));
    }
    server.status = to;
    Ok(())
}

/// While it is built, a server has no disks, addresses or image to show.
fn view(inner: &Inner, world: &World, server: &Server) -> Value {
    let mut view = json!({
        "id": server.id,
        "name": server.name,
        "project": inner.project,
        "status": server.status.as_str(),
        "switch_status": if server.status == ServerStatus::Active { "ON" } else { "OFF" },
        "created_in": server.created.to_string(),
        "datacenter": "sandbox-1",
        "flavor": { "ram": server.ram, "vcpus": server.vcpus, "cpu_type": "SHARED" },
        "guest_agent": false,
        "rescue_mode": "OFF",
        "admin_key_status": "NONE",
        "x_sandbox": { "not": ["in", "the", "schema"] },
    });
    if server.status == ServerStatus::Building {
        return view;
    }
    let disks = world.disks_of(&server.id);
    view["disk_data"] = disks
        .iter()
        .map(|v| json!({ "id": v.id, "storage_type": if v.local { "local" } else { "volume" } }))
        .collect();
    let addresses = world.addresses_of(&Entity::Server(server.id.clone()));
    view["addresses"] = addresses.iter().map(|a| json!(a.id)).collect();
    if let Some(primary) = addresses.iter().find(|a| a.primary) {
        view["primary_address"] = json!(primary.id);
    }
    if let Some(image) = world.images.iter().find(|i| i.id == server.image) {
        view["image"] = json!({
            "min_disk": 5,
            "min_ram": 1,
            "operation_system": image.operation_system(),
        });
    }
    view
}
