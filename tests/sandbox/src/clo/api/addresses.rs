//! Addresses: internal ones come and go with their server, external ones stay.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::lifecycle;
use super::super::sim::Inner;
use super::super::world::{Address, AddressStatus, Entity, World, new_id};
use super::{Answer, Query, Refusal, Reply, page};

#[derive(Deserialize)]
pub(super) struct Create {
    #[serde(default)]
    ddos_protection: bool,
}

#[derive(Deserialize)]
pub(super) struct Attach {
    id: String,
    entity: String,
}

pub(super) fn list(inner: &Inner, query: &Query) -> Answer {
    let world = inner.world();
    Ok(page(
        inner,
        query,
        world.addresses.iter().map(view).collect(),
    ))
}

pub(super) fn detail(inner: &Inner, id: &str) -> Answer {
    let world = inner.world();
    let address = world.address(id).ok_or(Refusal::not_found("address"))?;
    Ok(Reply::one(view(address)))
}

pub(super) fn create(inner: &Arc<Inner>, wanted: Create) -> Answer {
    let id = add_external(&mut inner.world(), wanted.ddos_protection, None)?;
    inner.spawn(lifecycle::settle_address(inner.clone(), id.clone()));
    Ok(Reply::created(201, &id))
}

/// A new external address, PROCESSING.
pub(super) fn add_external(
    world: &mut World,
    ddos_protection: bool,
    attached: Option<Entity>,
) -> Result<String, Refusal> {
    let ip = world
        .free_external_ip()
        .ok_or_else(|| Refusal::new(503, "no_addresses", "No free address is left"))?;
    let id = new_id();
    world.addresses.push(Address {
        id: id.clone(),
        ip,
        status: AddressStatus::Processing,
        external: true,
        attached,
        primary: false,
        ddos_protection,
        bandwidth: 100,
        created: Timestamp::now(),
        foreign: false,
    });
    Ok(id)
}

pub(super) fn delete(inner: &Inner, id: &str) -> Answer {
    let mut world = inner.world();
    let address = world.address(id).ok_or(Refusal::not_found("address"))?;
    if address.attached.is_some() {
        return Err(Refusal::conflict("address must be in status: down"));
    }
    world.addresses.retain(|a| a.id != id);
    Ok(Reply::empty(204))
}

pub(super) fn attach(inner: &Arc<Inner>, id: &str, wanted: Attach) -> Answer {
    {
        let mut world = inner.world();
        let entity = match wanted.entity.as_str() {
            "server" if world.server(&wanted.id).is_some() => Entity::Server(wanted.id),
            "loadbalancer" if world.balancer(&wanted.id).is_some() => Entity::Balancer(wanted.id),
            "server" | "loadbalancer" => return Err(Refusal::not_found("entity")),
            _ => return Err(Refusal::bad("entity: server or loadbalancer")),
        };
        let address = world.address_mut(id).ok_or(Refusal::not_found("address"))?;
        if !address.external || address.status != AddressStatus::Down {
            return Err(Refusal::conflict("address must be in status: down"));
        }
        address.attached = Some(entity);
        address.status = AddressStatus::Processing;
    }
    inner.spawn(lifecycle::settle_address(inner.clone(), id.to_owned()));
    Ok(Reply::empty(200))
}

pub(super) fn detach(inner: &Arc<Inner>, id: &str) -> Answer {
    {
        let mut world = inner.world();
        let address = world.address_mut(id).ok_or(Refusal::not_found("address"))?;
        if !address.external || address.status != AddressStatus::Active {
            return Err(Refusal::conflict("address must be in status: active"));
        }
        address.attached = None;
        address.primary = false;
        address.status = AddressStatus::Processing;
    }
    inner.spawn(lifecycle::settle_address(inner.clone(), id.to_owned()));
    Ok(Reply::empty(200))
}

/// The address itself is not told while it is PROCESSING.
fn view(address: &Address) -> Value {
    let mut view = json!({
        "id": address.id,
        "status": address.status.as_str(),
        "type": if address.external { "FLOATING" } else { "FIXED" },
        "external": address.external,
        "is_primary": address.primary,
        "ddos_protection": address.ddos_protection,
        "bandwidth_max_mbps": address.bandwidth,
        "created_in": address.created.to_string(),
        "updated_in": address.created.to_string(),
        "x_sandbox": true,
    });
    if address.status != AddressStatus::Processing {
        view["address"] = json!(address.ip.to_string());
        view["version"] = json!(4);
    }
    match &address.attached {
        Some(Entity::Server(id)) => view["attached_to"] = json!({ "entity": "server", "id": id }),
        Some(Entity::Balancer(id)) => {
            view["attached_to"] = json!({ "entity": "loadbalancer", "id": id });
        }
        None => {}
    }
    view
}
