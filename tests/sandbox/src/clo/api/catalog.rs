//! The project itself, keypairs and images.

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::sim::Inner;
use super::super::world::{Image, Keypair, new_id};
use super::{Answer, Query, Refusal, Reply, page};

#[derive(Deserialize)]
pub(super) struct CreateKeypair {
    name: String,
    public_key: String,
}

pub(super) fn list_projects(inner: &Inner, query: &Query) -> Answer {
    Ok(page(inner, query, vec![project_view(inner)]))
}

pub(super) fn project(inner: &Inner) -> Answer {
    Ok(Reply::one(project_view(inner)))
}

pub(super) fn list_keypairs(inner: &Inner, query: &Query) -> Answer {
    let world = inner.world();
    let items = world.keypairs.iter().map(keypair_view).collect();
    Ok(page(inner, query, items))
}

pub(super) fn keypair(inner: &Inner, id: &str) -> Answer {
    let world = inner.world();
    let keypair = world.keypairs.iter().find(|k| k.id == id);
    let keypair = keypair.ok_or(Refusal::not_found("keypair"))?;
    Ok(Reply::one(keypair_view(keypair)))
}

/// Names need not be unique.
pub(super) fn create_keypair(inner: &Inner, wanted: CreateKeypair) -> Answer {
    if wanted.name.is_empty() {
        return Err(Refusal::bad("name: this field may not be blank"));
    }
    if russh::keys::PublicKey::from_openssh(&wanted.public_key).is_err() {
        return Err(Refusal::bad("public_key: not an OpenSSH public key"));
    }
    let id = new_id();
    inner.world().keypairs.push(Keypair {
        id: id.clone(),
        name: wanted.name,
        public_key: wanted.public_key,
    });
    Ok(Reply::created(201, &id))
}

pub(super) fn delete_keypair(inner: &Inner, id: &str) -> Answer {
    let mut world = inner.world();
    let before = world.keypairs.len();
    world.keypairs.retain(|k| k.id != id);
    if world.keypairs.len() == before {
        return Err(Refusal::not_found("keypair"));
    }
    Ok(Reply::empty(204))
}

pub(super) fn list_images(inner: &Inner, query: &Query) -> Answer {
    let world = inner.world();
    let items = world.images.iter().map(|image| {
        json!({
            "id": image.id,
            "name": image.name,
            "operation_system": image.operation_system(),
        })
    });
    Ok(page(inner, query, items.collect()))
}

impl Image {
    pub(super) fn operation_system(&self) -> Value {
        json!({
            "distribution": self.distribution,
            "os_family": "linux",
            "version": self.version,
        })
    }
}

fn project_view(inner: &Inner) -> Value {
    json!({
        "id": inner.project,
        "name": "sandbox",
        "status": "ACTIVE",
        "switch_status": "ON",
        "created": "2026-01-01T00:00:00Z",
    })
}

fn keypair_view(keypair: &Keypair) -> Value {
    json!({ "id": keypair.id, "name": keypair.name, "public_key": keypair.public_key })
}
