//! Load balancers and their rules.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::lifecycle;
use super::super::sim::Inner;
use super::super::world::{
    AddressStatus, Balancer, BalancerStatus, Entity, Rule, RuleStatus, World, new_id,
};
use super::addresses::add_external;
use super::{Answer, Query, Refusal, Reply, new_name, page};

#[derive(Deserialize)]
pub(super) struct Create {
    name: String,
    healthmonitor: HealthMonitor,
    algorithm: Option<String>,
    #[serde(default)]
    session_persistence: bool,
    address: Option<WantedAddress>,
    /// `null` and a missing key are errors in the real API.
    rules: Vec<CreateRule>,
}

#[derive(Deserialize, serde::Serialize)]
struct HealthMonitor {
    r#type: String,
    delay: u64,
    timeout: u64,
    max_retries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    url_path: Option<String>,
}

#[derive(Deserialize)]
struct WantedAddress {
    id: Option<String>,
    ddos_protection: Option<bool>,
}

#[derive(Deserialize)]
pub(super) struct CreateRule {
    address_id: String,
    external_protocol_port: u16,
    internal_protocol_port: u16,
}

pub(super) fn list(inner: &Inner, query: &Query) -> Answer {
    let world = inner.world();
    let items = world.balancers.iter().map(|b| view(inner, &world, b));
    Ok(page(inner, query, items.collect()))
}

pub(super) fn detail(inner: &Inner, id: &str) -> Answer {
    let world = inner.world();
    let balancer = world.balancer(id).ok_or_else(not_found)?;
    Ok(Reply::one(view(inner, &world, balancer)))
}

pub(super) fn create(inner: &Arc<Inner>, wanted: Create) -> Answer {
    check(&wanted)?;
    let id = new_id();
    {
        let mut world = inner.world();
        let rules = wanted.rules.iter();
        let rules: Vec<Rule> = rules
            .map(|rule| new_rule(&world, &id, rule))
            .collect::<Result<_, _>>()?;
        let owner = Entity::Balancer(id.clone());
        let address = wanted.address.as_ref();
        match address.and_then(|a| a.id.as_deref()) {
            Some(known) => {
                let address = world
                    .address_mut(known)
                    .ok_or_else(|| Refusal::bad("address: no such address"))?;
                if !address.external || address.status != AddressStatus::Down {
                    return Err(Refusal::conflict("address must be in status: down"));
                }
                address.attached = Some(owner);
                address.status = AddressStatus::Processing;
            }
            None => {
                let ddos = address.and_then(|a| a.ddos_protection).unwrap_or(false);
                add_external(&mut world, ddos, Some(owner))?;
            }
        }
        world.rules.extend(rules);
        world.balancers.push(Balancer {
            id: id.clone(),
            name: wanted.name,
            status: BalancerStatus::Creating,
            algorithm: wanted.algorithm.unwrap_or_else(|| "ROUND_ROBIN".to_owned()),
            session_persistence: wanted.session_persistence,
            healthmonitor: json!(wanted.healthmonitor),
            created: Timestamp::now(),
            foreign: false,
        });
    }
    inner.spawn(lifecycle::create_balancer(inner.clone(), id.clone()));
    Ok(Reply::created(201, &id))
}

fn check(wanted: &Create) -> Result<(), Refusal> {
    if wanted.name.is_empty() {
        return Err(Refusal::bad("name: this field may not be blank"));
    }
    let monitor = &wanted.healthmonitor;
    if !["PING", "TCP", "HTTP"].contains(&monitor.r#type.as_str()) {
        return Err(Refusal::bad("healthmonitor.type: PING, TCP or HTTP"));
    }
    if monitor.delay < 80 || monitor.timeout < 15 || !(1..=10).contains(&monitor.max_retries) {
        return Err(Refusal::bad(
            "healthmonitor: delay from 80, timeout from 15, max_retries 1 to 10",
        ));
    }
    let algorithm = wanted.algorithm.as_deref().unwrap_or("ROUND_ROBIN");
    if !["ROUND_ROBIN", "LEAST_CONNECTIONS"].contains(&algorithm) {
        return Err(Refusal::bad("algorithm: ROUND_ROBIN or LEAST_CONNECTIONS"));
    }
    match &wanted.address {
        Some(a) if a.id.is_some() && a.ddos_protection.is_some() => Err(Refusal::bad(
            "address: ddos_protection does not go with an id",
        )),
        _ => Ok(()),
    }
}

pub(super) fn rename(inner: &Inner, id: &str, body: &Value) -> Answer {
    let name = new_name(body)?;
    let mut world = inner.world();
    world.balancer_mut(id).ok_or_else(not_found)?.name = name;
    Ok(Reply::empty(200))
}

pub(super) fn delete(inner: &Arc<Inner>, id: &str) -> Answer {
    {
        let mut world = inner.world();
        let balancer = world.balancer_mut(id).ok_or_else(not_found)?;
        if balancer.status == BalancerStatus::Deleting {
            return Err(Refusal::conflict("loadbalancer is being deleted"));
        }
        balancer.status = BalancerStatus::Deleting;
    }
    inner.spawn(lifecycle::delete_balancer(inner.clone(), id.to_owned()));
    Ok(Reply::empty(202))
}

pub(super) fn rules_of(inner: &Inner, query: &Query, id: &str) -> Answer {
    let world = inner.world();
    world.balancer(id).ok_or_else(not_found)?;
    let rules = world.rules.iter().filter(|r| r.balancer == id);
    Ok(page(inner, query, rules.map(rule_view).collect()))
}

pub(super) fn all_rules(inner: &Inner, query: &Query) -> Answer {
    let world = inner.world();
    Ok(page(
        inner,
        query,
        world.rules.iter().map(rule_view).collect(),
    ))
}

pub(super) fn rule(inner: &Inner, id: &str) -> Answer {
    let world = inner.world();
    let rule = world.rules.iter().find(|r| r.id == id);
    Ok(Reply::one(rule_view(
        rule.ok_or(Refusal::not_found("rule"))?,
    )))
}

pub(super) fn create_rule(inner: &Arc<Inner>, balancer: &str, wanted: CreateRule) -> Answer {
    let id = {
        let mut world = inner.world();
        let status = world.balancer(balancer).ok_or_else(not_found)?.status;
        if status != BalancerStatus::Active {
            return Err(Refusal::conflict("loadbalancer must be in status: active"));
        }
        let rule = new_rule(&world, balancer, &wanted)?;
        let id = rule.id.clone();
        world.rules.push(rule);
        id
    };
    inner.spawn(lifecycle::create_rule(inner.clone(), id.clone()));
    Ok(Reply::created(201, &id))
}

/// A rule wants the id of a server's internal address. The same rule twice is allowed.
fn new_rule(world: &World, balancer: &str, wanted: &CreateRule) -> Result<Rule, Refusal> {
    let address = world
        .address(&wanted.address_id)
        .filter(|a| !a.external)
        .ok_or_else(|| Refusal::bad("address_id: no such internal address"))?;
    let Some(Entity::Server(server)) = &address.attached else {
        return Err(Refusal::bad("address_id: not attached to a server"));
    };
    if wanted.external_protocol_port == 0 || wanted.internal_protocol_port == 0 {
        return Err(Refusal::bad("ports: from 1 to 65535"));
    }
    Ok(Rule {
        id: new_id(),
        balancer: balancer.to_owned(),
        server: server.clone(),
        address: address.id.clone(),
        status: RuleStatus::Creating,
        external_port: wanted.external_protocol_port,
        internal_port: wanted.internal_protocol_port,
    })
}

pub(super) fn delete_rule(inner: &Inner, id: &str) -> Answer {
    let mut world = inner.world();
    let before = world.rules.len();
    world.rules.retain(|r| r.id != id);
    if world.rules.len() == before {
        return Err(Refusal::not_found("rule"));
    }
    Ok(Reply::empty(204))
}

fn not_found() -> Refusal {
    Refusal::not_found("loadbalancer")
}

fn view(inner: &Inner, world: &World, balancer: &Balancer) -> Value {
    let addresses = world.addresses_of(&Entity::Balancer(balancer.id.clone()));
    let ids: Vec<&str> = addresses.iter().map(|a| a.id.as_str()).collect();
    let rules = world.rules.iter().filter(|r| r.balancer == balancer.id);
    json!({
        "id": balancer.id,
        "name": balancer.name,
        "project": inner.project,
        "status": balancer.status.as_str(),
        "switch_status": "ON",
        "algorithm": balancer.algorithm,
        "session_persistence": balancer.session_persistence,
        "addresses": ids,
        "rules_count": rules.count(),
        "healthmonitor": balancer.healthmonitor,
        "created_in": balancer.created.to_string(),
        "updated_in": balancer.created.to_string(),
        "x_sandbox": [],
    })
}

fn rule_view(rule: &Rule) -> Value {
    json!({
        "id": rule.id,
        "loadbalancer": rule.balancer,
        "server": rule.server,
        "address": rule.address,
        "status": rule.status.as_str(),
        "external_protocol_port": rule.external_port,
        "internal_protocol_port": rule.internal_port,
    })
}
