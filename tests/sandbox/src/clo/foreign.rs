//! Other people's things in the same project: what a recovery must never touch.

use jiff::{SignedDuration, Timestamp};

use super::sim::Inner;
use super::world::{
    Address, AddressStatus, Entity, Server, ServerStatus, Volume, VolumeStatus, new_id,
};

/// Strangers' things to seed; see [`super::CloSim::foreign`].
#[derive(Clone, Debug, Default)]
pub struct Foreign {
    /// ACTIVE servers (with a boot disk and an internal address, but no host behind them).
    pub servers: Vec<String>,
    /// AVAILABLE network volumes: name and size. Give them the sizes of ours.
    pub volumes: Vec<(String, u64)>,
    /// Detached boot disks: name and size.
    pub boot_disks: Vec<(String, u64)>,
    /// How many free (DOWN) external addresses.
    pub addresses: usize,
}

impl Foreign {
    pub(super) async fn seed(self, inner: &Inner) -> anyhow::Result<()> {
        for name in self.servers {
            add_server(inner, name)?;
        }
        let disks = self.volumes.into_iter().map(|v| (v, false));
        let boot_disks = self.boot_disks.into_iter().map(|v| (v, true));
        for ((name, size), bootable) in disks.chain(boot_disks) {
            let volume = Volume {
                bootable,
                on_hypervisor: true,
                ..volume(name, size)
            };
            inner.hosts.create_disk(&volume.id, size).await?;
            inner.world().volumes.push(volume);
        }
        for _ in 0..self.addresses {
            let mut world = inner.world();
            let ip = world
                .free_external_ip()
                .ok_or_else(|| anyhow::anyhow!("no free external address is left"))?;
            world.addresses.push(Address {
                ip,
                external: true,
                status: AddressStatus::Down,
                attached: None,
                ..address()
            });
        }
        Ok(())
    }
}

fn add_server(inner: &Inner, name: String) -> anyhow::Result<()> {
    let mut world = inner.world();
    let id = new_id();
    let ip = world
        .free_internal_ip()
        .ok_or_else(|| anyhow::anyhow!("no free internal address is left"))?;
    world.addresses.push(Address {
        ip,
        attached: Some(Entity::Server(id.clone())),
        ..address()
    });
    world.volumes.push(Volume {
        status: VolumeStatus::InUse,
        bootable: true,
        attached: Some((id.clone(), "vda".to_owned())),
        ..volume(format!("{name}-boot"), 20)
    });
    let image = world.images[0].id.clone();
    world.servers.push(Server {
        id,
        name,
        status: ServerStatus::Active,
        ram: 4,
        vcpus: 2,
        image,
        keypairs: Vec::new(),
        user_data: None,
        created: yesterday(),
        foreign: true,
        booted: false,
    });
    Ok(())
}

/// Strangers' things have been there for a while.
fn yesterday() -> Timestamp {
    Timestamp::now() - SignedDuration::from_hours(24)
}

fn volume(name: String, size: u64) -> Volume {
    Volume {
        id: new_id(),
        name,
        size,
        status: VolumeStatus::Available,
        bootable: false,
        local: false,
        attached: None,
        created: yesterday(),
        foreign: true,
        on_hypervisor: false,
    }
}

fn address() -> Address {
    Address {
        id: new_id(),
        ip: std::net::Ipv4Addr::UNSPECIFIED,
        status: AddressStatus::Active,
        external: false,
        attached: None,
        primary: false,
        ddos_protection: false,
        bandwidth: 100,
        created: yesterday(),
        foreign: true,
    }
}
