//! Simulated hosts: servers that speak real SSH inside this process and keep a small state of
//! files, devices, file systems and mounts. They need no root and boot in no time, and what is
//! on a volume is still there after its server was destroyed.
//!
//! [`SimulatedHosts`] is the hypervisor. Below it, `machine` is one server, `disk` one volume,
//! `tree` what a file system holds; `shell` runs a command (`files`, `blocks`, `mounts`, `system`,
//! short `script`s), `ssh`
//! and `service` are what listens, `faults` what goes wrong.

mod blocks;
mod cloud_init;
mod connect;
mod disk;
mod faults;
mod files;
mod kubernetes;
mod kubespray;
mod machine;
mod mounts;
mod playbooks;
mod runner;
mod script;
mod service;
mod shell;
mod ssh;
mod system;
mod tap;
#[cfg(test)]
mod tests;
mod tree;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use russh::keys::{PrivateKey, PublicKey};

pub use self::disk::{DiskView, Seed};
pub use self::faults::{CommandFault, HostFaults, Sshd};
pub use self::kubespray::Play;
pub use self::service::Service;
pub use self::shell::Output;
pub use self::tap::{Cut, Tap};

use self::cloud_init::UserData;
use self::disk::Disk;
use self::machine::{Machine, World};
use super::{Boot, Hosts, Stream};
use crate::kube_sim::KubeSim;

/// The command log is for assertions; a runaway test must not eat the machine.
const LONGEST_LOG: usize = 200_000;

/// A command as a hook sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Server id.
    pub server: String,
    /// Server name.
    pub name: String,
    /// The command's words.
    pub argv: Vec<String>,
    /// Standard input, if the hook wanted it.
    pub stdin: Vec<u8>,
}

type Hook = Arc<dyn Fn(&Invocation) -> Output + Send + Sync>;

/// The hypervisor. Cheap to clone; all clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct SimulatedHosts {
    inner: Arc<Inner>,
}

impl SimulatedHosts {
    /// An empty rack.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same machines and disks once more, in a rack of their own: what listens and what programs
    /// do is the same, nobody is connected, and no fault is set.
    pub fn copy(&self) -> Self {
        let world = self.inner.world();
        let machines = world.machines.iter().map(|(id, m)| (id.clone(), m.copy()));
        let world = World {
            machines: machines.collect(),
            disks: world.disks.clone(),
            kubernetes: world.kubernetes.copy(),
        };
        let inner = Inner {
            world: Mutex::new(world),
            services: Mutex::new(self.inner.lock(&self.inner.services).clone()),
            programs: Mutex::new(self.inner.lock(&self.inner.programs).clone()),
            kubespray: Mutex::new(self.inner.lock(&self.inner.kubespray).clone()),
            ..Inner::default()
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Puts a tap on all SSH servers, or takes it off.
    pub fn tap(&self, tap: Option<Arc<dyn Tap>>) {
        *self.inner.lock(&self.inner.tap) = tap;
    }

    /// Everything on the root disk of a server (by id or name): path → kind, owner, mode and
    /// content. What is mounted is not followed.
    pub fn root_disk(&self, server: &str) -> BTreeMap<String, String> {
        let world = self.inner.world();
        let Some(machine) = world.find(server) else {
            return BTreeMap::new();
        };
        let entries = machine.root.entries();
        entries
            .map(|(path, entry)| (path.to_owned(), entry.describe()))
            .collect()
    }

    /// The switchboard of faults.
    pub fn faults(&self) -> &HostFaults {
        &self.inner.faults
    }

    /// What is on a volume, and how often it was formatted.
    pub fn disk(&self, volume: &str) -> Option<DiskView> {
        self.inner.world().disks.get(volume).map(Disk::view)
    }

    /// Puts something on a volume, as if somebody had used it before.
    pub fn seed(&self, volume: &str, seed: Seed) -> anyhow::Result<()> {
        let mut world = self.inner.world();
        let disk = world.disks.get_mut(volume).context("no such volume")?;
        disk.seed(seed);
        Ok(())
    }

    /// Makes reads of a volume fail, or work again.
    pub fn break_disk(&self, volume: &str, broken: bool) -> anyhow::Result<()> {
        let mut world = self.inner.world();
        let disk = world.disks.get_mut(volume).context("no such volume")?;
        disk.broken = broken;
        Ok(())
    }

    /// Reads a file of a server (by id or name), mounts included.
    pub fn file(&self, server: &str, path: &str) -> Option<Vec<u8>> {
        self.inner.world().machine(server)?.read(path).ok()
    }

    /// Writes a file of a server (by id or name); its directory must exist.
    pub fn put_file(&self, server: &str, path: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let mut world = self.inner.world();
        let mut machine = world.machine(server).context("no such server")?;
        Ok(machine.write(path, bytes.to_vec())?)
    }

    /// What a server (by id or name) has mounted: target → volume.
    pub fn mounts(&self, server: &str) -> BTreeMap<String, String> {
        let mut world = self.inner.world();
        let Some(machine) = world.machine(server) else {
            return BTreeMap::new();
        };
        let mounts = machine.machine.mounts.iter();
        mounts
            .map(|m| (m.target.clone(), m.volume.clone()))
            .collect()
    }

    /// The SSH host key of a server (by id or name).
    pub fn host_key(&self, server: &str) -> Option<PublicKey> {
        let world = self.inner.world();
        Some(world.find(server)?.host_key.public_key().clone())
    }

    /// Whether the last boot stopped before sshd because of a line in fstab.
    pub fn in_emergency(&self, server: &str) -> bool {
        self.inner.world().find(server).is_some_and(|m| m.emergency)
    }

    /// Runs a command as root without SSH; faults do not strike it.
    pub async fn run(&self, server: &str, argv: &[&str], stdin: &[u8]) -> Output {
        let argv: Vec<String> = argv.iter().map(|a| (*a).to_owned()).collect();
        self.inner.execute(server, &argv, stdin.to_vec()).await
    }

    /// All commands so far: server name and words.
    pub fn commands(&self) -> Vec<(String, Vec<String>)> {
        self.inner.lock(&self.inner.log).clone()
    }

    /// Lets something listen on a port of all servers of this name, now and when re-created.
    pub fn listen(&self, server_name: &str, port: u16, service: Service) {
        let mut services = self.inner.lock(&self.inner.services);
        services.insert((server_name.to_owned(), port), service);
    }

    /// Closes such a port.
    pub fn close(&self, server_name: &str, port: u16) {
        let mut services = self.inner.lock(&self.inner.services);
        services.remove(&(server_name.to_owned(), port));
    }

    /// Teaches all hosts a program. It is asked before the built-in ones.
    pub fn program(
        &self,
        name: &str,
        reads_stdin: bool,
        run: impl Fn(&Invocation) -> Output + Send + Sync + 'static,
    ) {
        let mut programs = self.inner.lock(&self.inner.programs);
        programs.insert(name.to_owned(), (reads_stdin, Arc::new(run)));
    }

    /// What runs of Kubespray come to from now on.
    pub fn kubespray(&self, play: Play) {
        kubernetes::show_nodes(&self.inner.world(), &play);
        *self.inner.lock(&self.inner.kubespray) = play;
    }

    /// Installs Kubernetes without a run of Kubespray: what is on the machines is the same, without
    /// labels and taints.
    ///
    /// # Errors
    /// If one of the servers (names) is not there.
    pub fn install_kubernetes(
        &self,
        masters: &[&str],
        workers: &[&str],
        version: &str,
    ) -> anyhow::Result<Arc<KubeSim>> {
        let play = self.inner.lock(&self.inner.kubespray).clone();
        let planted = {
            let mut world = self.inner.world();
            kubespray::plant(&mut world, masters, workers, version, &play)
        };
        planted.map_err(|(_, why)| anyhow::anyhow!(why))?;
        let first = masters.first().context("a cluster has a master")?;
        self.kube(first).context("the cluster has no API")
    }

    /// The Kubernetes API of the cluster that a server (by id or name) is of.
    pub fn kube(&self, server: &str) -> Option<Arc<KubeSim>> {
        let world = self.inner.world();
        let machine = world.find(server)?;
        world.kubernetes.of(&machine.id).cloned()
    }

    /// The Kubernetes APIs of all clusters.
    pub fn kubes(&self) -> Vec<Arc<KubeSim>> {
        self.inner.world().kubernetes.all()
    }

    /// Puts a tap on the Kubernetes APIs of all clusters, those to come too, or takes it off.
    pub fn tap_kubes(&self, tap: Option<Arc<dyn Tap>>) {
        self.inner.world().kubernetes.tap(tap);
    }

    /// Leads an address inside the clusters (of a Service, say), which only nodes reach, to a loopback
    /// address of this machine.
    pub fn route(&self, from: SocketAddr, to: SocketAddr) {
        self.inner.world().kubernetes.route(from, to);
    }

    /// Breaks all connections to one server (by id or name).
    pub fn cut_connections(&self, server: &str) {
        let mut world = self.inner.world();
        if let Some(view) = world.machine(server) {
            let life = std::mem::take(&mut view.machine.life);
            life.cancel();
        }
    }
}

#[async_trait]
impl Hosts for SimulatedHosts {
    fn kind(&self) -> &'static str {
        "in-process"
    }

    async fn boot(&self, boot: Boot) -> anyhow::Result<()> {
        let user_data = UserData::read(boot.user_data.as_deref())?;
        let mut boot = boot;
        boot.authorized_keys.extend(user_data.authorized_keys);
        let mut world = self.inner.world();
        let id = boot.server.clone();
        ensure!(!world.machines.contains_key(&id), "server {id} exists");
        let taken = |m: &Machine| m.address == boot.address;
        ensure!(
            !world.machines.values().any(taken),
            "address {} is taken",
            boot.address
        );
        for volume in boot.disks.values() {
            let disk = world.disks.get(volume);
            let disk = disk.with_context(|| format!("no volume {volume}"))?;
            ensure!(disk.plugged.is_none(), "volume {volume} is plugged in");
        }
        for (device, volume) in &boot.disks {
            if let Some(disk) = world.disks.get_mut(volume) {
                disk.plugged = Some((id.clone(), device.clone()));
                disk.plugging += 1;
            }
        }
        let nth = world.machines.values().map(|m| m.booted_nth + 1).max();
        let machine = Machine::new(boot, user_data.host_key, nth.unwrap_or(0));
        world.machines.insert(id, machine);
        Ok(())
    }

    async fn destroy(&self, server: &str) -> anyhow::Result<()> {
        let mut world = self.inner.world();
        let machine = world.machines.remove(server);
        let machine = machine.with_context(|| format!("no server {server}"))?;
        machine.life.cancel();
        world.kubernetes.lost(&machine);
        for disk in world.disks.values_mut() {
            disk.plugged.take_if(|(on, _)| on == server);
        }
        Ok(())
    }

    async fn reboot(&self, server: &str) -> anyhow::Result<()> {
        let mut world = self.inner.world();
        ensure!(world.machines.contains_key(server), "no server {server}");
        let mut view = world.machine(server).context("no such server")?;
        let life = std::mem::take(&mut view.machine.life);
        life.cancel();
        view.machine.mounts.clear();
        view.machine.boot_id = disk::new_uuid();
        let mounted = mounts::mount_all(&mut view);
        view.machine.emergency = mounted.status != 0;
        Ok(())
    }

    async fn create_disk(&self, volume: &str, size_gb: u64) -> anyhow::Result<()> {
        let mut world = self.inner.world();
        ensure!(!world.disks.contains_key(volume), "volume {volume} exists");
        world
            .disks
            .insert(volume.to_owned(), Disk::blank(size_gb << 30));
        Ok(())
    }

    async fn delete_disk(&self, volume: &str) -> anyhow::Result<()> {
        let mut world = self.inner.world();
        let disk = world.disks.get(volume);
        let disk = disk.with_context(|| format!("no volume {volume}"))?;
        ensure!(disk.plugged.is_none(), "volume {volume} is plugged in");
        world.disks.remove(volume);
        Ok(())
    }

    async fn attach(&self, server: &str, volume: &str, device: &str) -> anyhow::Result<()> {
        let mut world = self.inner.world();
        let World {
            machines, disks, ..
        } = &mut *world;
        let machine = machines.get_mut(server);
        let machine = machine.with_context(|| format!("no server {server}"))?;
        let disk = disks.get_mut(volume);
        let disk = disk.with_context(|| format!("no volume {volume}"))?;
        ensure!(disk.plugged.is_none(), "volume {volume} is plugged in");
        if device == "vda" || machine.devices.contains_key(device) {
            bail!("device {device} is taken on {server}");
        }
        disk.plugged = Some((server.to_owned(), device.to_owned()));
        disk.plugging += 1;
        machine.devices.insert(device.to_owned(), volume.to_owned());
        Ok(())
    }

    async fn detach(&self, server: &str, volume: &str) -> anyhow::Result<()> {
        let mut world = self.inner.world();
        let World {
            machines, disks, ..
        } = &mut *world;
        let machine = machines.get_mut(server);
        let machine = machine.with_context(|| format!("no server {server}"))?;
        let disk = disks.get_mut(volume);
        let disk = disk.with_context(|| format!("no volume {volume}"))?;
        let plugged = disk.plugged.take_if(|(on, _)| on == server);
        ensure!(plugged.is_some(), "volume {volume} is not in {server}");
        // A mount of it stays, and every access to it is an I/O error from now on.
        machine.devices.retain(|_, v| v != volume);
        Ok(())
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<Box<dyn Stream>> {
        self.inner.open(to).await
    }

    async fn shutdown(&self) -> anyhow::Result<()> {
        let mut world = self.inner.world();
        for machine in world.machines.values() {
            machine.life.cancel();
        }
        *world = World::default();
        Ok(())
    }
}

#[derive(Default)]
struct Inner {
    world: Mutex<World>,
    faults: HostFaults,
    tap: Mutex<Option<Arc<dyn Tap>>>,
    services: Mutex<BTreeMap<(String, u16), Service>>,
    programs: Mutex<BTreeMap<String, (bool, Hook)>>,
    kubespray: Mutex<Play>,
    log: Mutex<Vec<(String, Vec<String>)>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

impl Inner {
    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.lock(&self.world)
    }

    fn host_key(&self, server: &str) -> Option<PrivateKey> {
        Some(self.world().find(server)?.host_key.clone())
    }

    fn name_of(&self, server: &str) -> Option<String> {
        Some(self.world().find(server)?.name.clone())
    }

    fn authorized_keys(&self, server: &str, user: &str) -> String {
        let path = match user {
            "root" => "/root/.ssh/authorized_keys".to_owned(),
            user => format!("/home/{user}/.ssh/authorized_keys"),
        };
        let mut world = self.world();
        let keys = world.machine(server).and_then(|m| m.read(&path).ok());
        String::from_utf8_lossy(&keys.unwrap_or_default()).into_owned()
    }

    /// What a host means by a host name: itself, an address, or another server's name.
    fn resolve(&self, server: &str, host: &str) -> Option<Ipv4Addr> {
        let world = self.world();
        if host == "localhost" || host == "127.0.0.1" {
            return Some(world.find(server)?.address);
        }
        let address = host.parse().ok();
        address.or_else(|| Some(world.find(host)?.address))
    }

    fn reads_stdin(&self, argv: &[String]) -> bool {
        let program = shell::unwrap(argv).first();
        let programs = self.lock(&self.programs);
        let hook = program.and_then(|p| programs.get(tree::file_name(p)));
        let built_in = || shell::reads_stdin(argv) || runner::reads_stdin(shell::unwrap(argv));
        hook.map_or_else(built_in, |(reads, _)| *reads)
    }

    async fn execute(&self, server: &str, argv: &[String], stdin: Vec<u8>) -> Output {
        let found = {
            let world = self.world();
            world.find(server).map(|m| (m.id.clone(), m.name.clone()))
        };
        let Some((id, name)) = found else {
            return Output::fail(255, "no such server");
        };
        {
            let mut log = self.lock(&self.log);
            if log.len() < LONGEST_LOG {
                log.push((name.clone(), argv.to_vec()));
            }
        }
        let words = shell::unwrap(argv);
        let hook = words.first().and_then(|program| {
            let programs = self.lock(&self.programs);
            let (_, hook) = programs.get(tree::file_name(program))?;
            Some(hook.clone())
        });
        if let Some(hook) = hook {
            let invocation = Invocation {
                server: id,
                name,
                argv: words.to_vec(),
                stdin,
            };
            return hook(&invocation);
        }
        if let Some(output) = runner::run(self, &id, words, &stdin).await {
            return output;
        }
        match self.world().machine(&id) {
            Some(mut view) => shell::run(&mut view, argv, &stdin),
            None => Output::fail(255, "the server is gone"),
        }
    }
}
