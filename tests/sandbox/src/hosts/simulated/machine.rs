//! One simulated server: its root disk, what is plugged in and mounted, and the walk through
//! both that every file operation makes.

use std::collections::BTreeMap;

use russh::keys::PrivateKey;
use tokio_util::sync::CancellationToken;

use super::disk::{Disk, new_uuid};
use super::kubernetes::Kubernetes;
use super::tree::{Entry, FsError, Node, Tree, parent};
use crate::hosts::Boot;

/// The root file system: part of the image, so the same on all machines.
pub(super) const ROOT_UUID: &str = "2c1c0f1e-4a7b-4a53-9a0c-6f5b7a2b9d01";

/// All machines and disks; one lock guards both.
#[derive(Debug, Default)]
pub(super) struct World {
    /// By server id.
    pub(super) machines: BTreeMap<String, Machine>,
    /// By volume id.
    pub(super) disks: BTreeMap<String, Disk>,
    pub(super) kubernetes: Kubernetes,
}

impl World {
    /// The machine of this id or name; of several with one name, the one booted last.
    pub(super) fn find(&self, server: &str) -> Option<&Machine> {
        self.machines.get(server).or_else(|| {
            let named = self.machines.values().filter(|m| m.name == server);
            named.max_by_key(|m| m.booted_nth)
        })
    }

    pub(super) fn machine(&mut self, server: &str) -> Option<View<'_>> {
        let id = self.find(server)?.id.clone();
        Some(View {
            machine: self.machines.get_mut(&id)?,
            disks: &mut self.disks,
            umask: 0o022,
        })
    }
}

#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) address: std::net::Ipv4Addr,
    pub(super) booted_nth: u64,
    pub(super) host_key: PrivateKey,
    pub(super) boot_id: String,
    pub(super) root: Tree,
    /// Device name → volume id.
    pub(super) devices: BTreeMap<String, String>,
    pub(super) mounts: Vec<Mount>,
    /// The boot stopped before sshd: a line of fstab could not be mounted.
    pub(super) emergency: bool,
    /// Ends with this boot; open connections end with it.
    pub(super) life: CancellationToken,
}

#[derive(Clone, Debug)]
pub(super) struct Mount {
    pub(super) id: u32,
    pub(super) volume: String,
    pub(super) plugging: u64,
    pub(super) device: String,
    pub(super) target: String,
    pub(super) kind: &'static str,
    pub(super) options: Vec<String>,
}

impl Mount {
    pub(super) fn read_only(&self) -> bool {
        self.options.iter().any(|o| o == "ro")
    }
}

impl Machine {
    /// The same machine in another rack: nobody is connected to it.
    pub(super) fn copy(&self) -> Self {
        Self {
            life: CancellationToken::new(),
            ..self.clone()
        }
    }

    pub(super) fn new(boot: Boot, host_key: PrivateKey, booted_nth: u64) -> Self {
        let mut root = Tree::default();
        for directory in [
            "/dev/disk/by-id",
            "/etc",
            "/home",
            "/mnt",
            "/opt",
            "/proc",
            "/root/.ssh",
            "/run",
            "/sys",
            "/tmp",
            "/usr/local/bin",
            "/var/lib",
            "/var/log",
        ] {
            root.make_directories(directory)
                .expect("a fresh tree takes directories");
        }
        let fstab = format!(
            "# /etc/fstab: static file system information.\n\
             UUID={ROOT_UUID} / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1\n"
        );
        let keys: String = boot
            .authorized_keys
            .iter()
            .map(|key| format!("{key}\n"))
            .collect();
        for (path, text) in [
            ("/etc/fstab", fstab),
            ("/etc/hostname", format!("{}\n", boot.name)),
            ("/root/.ssh/authorized_keys", keys),
        ] {
            root.write(path, text.into_bytes())
                .expect("its directory was made above");
        }
        Self {
            id: boot.server,
            name: boot.name,
            address: boot.address,
            booted_nth,
            host_key,
            boot_id: new_uuid(),
            root,
            devices: boot.disks,
            mounts: Vec::new(),
            emergency: false,
            life: CancellationToken::new(),
        }
    }
}

/// A machine together with the disks it may have mounted: where all commands work.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) machine: &'a mut Machine,
    pub(super) disks: &'a mut BTreeMap<String, Disk>,
    /// Of the process that runs here.
    pub(super) umask: u32,
}

impl View<'_> {
    /// Follows all links; the last part need not exist.
    pub(super) fn real_path(&self, path: &str) -> Result<String, FsError> {
        self.walk(path, true)
    }

    /// Follows the links on the way, but not a link at the end.
    pub(super) fn link_path(&self, path: &str) -> Result<String, FsError> {
        self.walk(path, false)
    }

    fn walk(&self, path: &str, follow_last: bool) -> Result<String, FsError> {
        let absolute = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/root/{path}"),
        };
        let mut todo: Vec<String> = parts(&absolute);
        todo.reverse();
        let mut done = String::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                done.truncate(done.rfind('/').unwrap_or(0));
                continue;
            }
            let next = format!("{done}/{part}");
            let last = todo.is_empty();
            match self.at(&next)?.map(|e| e.node) {
                Some(Node::Link(target)) if follow_last || !last => {
                    links += 1;
                    if links > 40 {
                        return Err(FsError::Loop);
                    }
                    if target.starts_with('/') {
                        done.clear();
                    }
                    todo.extend(parts(&target).into_iter().rev());
                }
                Some(Node::Directory) => done = next,
                Some(_) if !last => return Err(FsError::NotDirectory),
                None if !last => return Err(FsError::NotFound),
                _ => done = next,
            }
        }
        Ok(if done.is_empty() {
            "/".to_owned()
        } else {
            done
        })
    }

    /// What is at a path, links followed.
    pub(super) fn entry(&self, path: &str) -> Result<Entry, FsError> {
        self.at(&self.real_path(path)?)?.ok_or(FsError::NotFound)
    }

    /// What is at a path, a link itself if it is one.
    pub(super) fn link_entry(&self, path: &str) -> Result<Entry, FsError> {
        self.at(&self.link_path(path)?)?.ok_or(FsError::NotFound)
    }

    /// What is at a path without links.
    fn at(&self, path: &str) -> Result<Option<Entry>, FsError> {
        if let Some(entry) = self.synthetic(path) {
            return Ok(Some(entry));
        }
        let (place, inner) = self.place(path)?;
        match self.tree(&place) {
            Ok(tree) => Ok(tree.get(&inner).cloned()),
            // The root of a dead mount is still known to the kernel; what is below is not.
            Err(_) if inner == "/" => Ok(Some(Entry::new(Node::Directory))),
            Err(error) => Err(error),
        }
    }

    /// Devices and the few files of /proc, which no tree holds.
    fn synthetic(&self, path: &str) -> Option<Entry> {
        let node = match path {
            "/dev/null" | "/dev/zero" => Node::Character,
            "/dev/vda" | "/dev/vda1" => Node::Block(path["/dev/".len()..].to_owned()),
            "/proc/mounts" | "/proc/self/mounts" => Node::File(self.proc_mounts().into_bytes()),
            "/proc/self/mountinfo" => Node::File(self.mountinfo().into_bytes()),
            "/proc/sys/kernel/random/boot_id" => {
                Node::File(format!("{}\n", self.machine.boot_id).into_bytes())
            }
            "/proc/self" | "/proc/sys" | "/proc/sys/kernel" | "/proc/sys/kernel/random" => {
                Node::Directory
            }
            _ => {
                if let Some(id) = path.strip_prefix("/dev/disk/by-id/virtio-") {
                    let plugged = self.machine.devices.iter();
                    let (device, _) = plugged.clone().find(|(_, v)| serial(v) == id)?;
                    Node::Link(format!("../../{device}"))
                } else {
                    let device = path.strip_prefix("/dev/")?;
                    let (device, _) = self.machine.devices.get_key_value(device)?;
                    Node::Block(device.clone())
                }
            }
        };
        let mut entry = Entry::new(node);
        if let Node::Block(_) = entry.node {
            entry.gid = 6;
        }
        Some(entry)
    }

    /// Names in a directory, sorted.
    pub(super) fn list(&self, path: &str) -> Result<Vec<String>, FsError> {
        let path = self.real_path(path)?;
        match self.at(&path)?.ok_or(FsError::NotFound)?.node {
            Node::Directory => {}
            _ => return Err(FsError::NotDirectory),
        }
        let (place, inner) = self.place(&path)?;
        let children = self.tree(&place)?.children(&inner).map(str::to_owned);
        let mut names: Vec<String> = children.collect();
        match path.as_str() {
            "/dev" => {
                names.extend(["null", "vda", "vda1", "zero"].map(str::to_owned));
                names.extend(self.machine.devices.keys().cloned());
            }
            "/dev/disk/by-id" => {
                let volumes = self.machine.devices.values();
                names.extend(volumes.map(|v| format!("virtio-{}", serial(v))));
            }
            _ => {}
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    pub(super) fn read(&self, path: &str) -> Result<Vec<u8>, FsError> {
        match self.entry(path)?.node {
            Node::File(bytes) => Ok(bytes),
            Node::Directory => Err(FsError::IsDirectory),
            Node::Character => Ok(Vec::new()),
            Node::Block(_) | Node::Link(_) => Err(FsError::Invalid),
        }
    }

    pub(super) fn write(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), FsError> {
        let path = self.real_path(path)?;
        if let Some(entry) = self.synthetic(&path) {
            return match entry.node {
                Node::Character => Ok(()),
                _ => Err(FsError::NotPermitted),
            };
        }
        let mode = 0o666 & !self.umask;
        let (tree, inner) = self.writable(&path)?;
        let new = tree.get(&inner).is_none();
        tree.write(&inner, bytes)?;
        if new && let Some(entry) = tree.get_mut(&inner) {
            entry.mode = mode;
        }
        Ok(())
    }

    /// Changes owner, mode or attributes.
    pub(super) fn change(
        &mut self,
        path: &str,
        follow: bool,
        change: impl FnOnce(&mut Entry),
    ) -> Result<(), FsError> {
        let path = self.walk(path, follow)?;
        if self.synthetic(&path).is_some() {
            return Err(FsError::NotPermitted);
        }
        let (tree, inner) = self.writable(&path)?;
        change(tree.get_mut(&inner).ok_or(FsError::NotFound)?);
        Ok(())
    }

    /// The tree a path lies in, for changing it, and the path within.
    pub(super) fn writable(&mut self, path: &str) -> Result<(&mut Tree, String), FsError> {
        let (place, inner) = self.place(path)?;
        self.tree(&place)?;
        match place {
            Place::Root => Ok((&mut self.machine.root, inner)),
            Place::Mount {
                read_only: true, ..
            } => Err(FsError::ReadOnly),
            Place::Mount { volume, .. } => {
                let disk = self.disks.get_mut(&volume).ok_or(FsError::Io)?;
                let fs = disk.file_system_mut().ok_or(FsError::Io)?;
                Ok((&mut fs.tree, inner))
            }
        }
    }

    pub(super) fn is_mount_point(&self, path: &str) -> bool {
        path == "/" || self.machine.mounts.iter().any(|m| m.target == path)
    }

    /// The mount a path lies below; `None` for the root disk.
    pub(super) fn mount_of(&self, path: &str) -> Option<&Mount> {
        let inside = |m: &&Mount| m.target == path || path.starts_with(&format!("{}/", m.target));
        let mounts = self.machine.mounts.iter().filter(inside);
        // The longest target; of equal ones the last, which hides the others.
        mounts.max_by_key(|m| (m.target.len(), m.id))
    }

    fn place(&self, path: &str) -> Result<(Place, String), FsError> {
        let Some(mount) = self.mount_of(path) else {
            return Ok((Place::Root, path.to_owned()));
        };
        let inner = match &path[mount.target.len()..] {
            "" => "/".to_owned(),
            inner => inner.to_owned(),
        };
        let place = Place::Mount {
            volume: mount.volume.clone(),
            plugging: mount.plugging,
            read_only: mount.read_only(),
        };
        Ok((place, inner))
    }

    fn tree(&self, place: &Place) -> Result<&Tree, FsError> {
        let Place::Mount {
            volume, plugging, ..
        } = place
        else {
            return Ok(&self.machine.root);
        };
        let disk = self.disks.get(volume).ok_or(FsError::Io)?;
        let here = |(server, _): &(String, String)| *server == self.machine.id;
        let alive = disk.plugging == *plugging && disk.plugged.as_ref().is_some_and(here);
        if !alive || disk.broken {
            return Err(FsError::Io);
        }
        Ok(&disk.file_system().ok_or(FsError::Io)?.tree)
    }

    /// The disk behind `/dev/vdX` (or a link to it); `None` for the boot disk and its partition.
    pub(super) fn block_device(&self, path: &str) -> Result<(String, Option<&Disk>), FsError> {
        match self.entry(path)?.node {
            Node::Block(device) => {
                let disk = self.machine.devices.get(&device);
                let disk = disk.and_then(|volume| self.disks.get(volume));
                Ok((device, disk))
            }
            _ => Err(FsError::Invalid),
        }
    }

    fn proc_mounts(&self) -> String {
        let mut text = String::from(
            "sysfs /sys sysfs rw,nosuid,nodev,noexec,relatime 0 0\n\
             proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0\n\
             udev /dev devtmpfs rw,nosuid,relatime,size=1996320k,mode=755 0 0\n\
             /dev/vda1 / ext4 rw,relatime,discard,errors=remount-ro 0 0\n",
        );
        for mount in &self.machine.mounts {
            text.push_str(&format!(
                "/dev/{} {} {} {} 0 0\n",
                mount.device,
                escape(&mount.target),
                mount.kind,
                shown_options(mount)
            ));
        }
        text
    }

    fn mountinfo(&self) -> String {
        let mut text = String::from(
            "21 26 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw\n\
             22 26 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw\n\
             23 26 0:5 / /dev rw,nosuid,relatime shared:2 - devtmpfs udev rw,size=1996320k,mode=755\n\
             26 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,discard,errors=remount-ro\n",
        );
        for mount in &self.machine.mounts {
            let letter = mount.device.bytes().last().unwrap_or(b'a');
            text.push_str(&format!(
                "{} 26 254:{} / {} {} shared:{} - {} /dev/{} {}\n",
                mount.id,
                16 * u32::from(letter.saturating_sub(b'a')),
                escape(&mount.target),
                shown_options(mount),
                mount.id,
                mount.kind,
                mount.device,
                if mount.read_only() { "ro" } else { "rw" },
            ));
        }
        text
    }
}

enum Place {
    Root,
    Mount {
        volume: String,
        plugging: u64,
        read_only: bool,
    },
}

fn parts(path: &str) -> Vec<String> {
    let parts = path.split('/').filter(|p| !p.is_empty() && *p != ".");
    parts.map(str::to_owned).collect()
}

/// virtio cuts a disk's serial to 20 bytes.
pub(super) fn serial(volume: &str) -> &str {
    volume.get(..20).unwrap_or(volume)
}

fn shown_options(mount: &Mount) -> String {
    let has = |option: &str| mount.options.iter().any(|o| o == option);
    let mut shown = vec![if mount.read_only() { "ro" } else { "rw" }];
    shown.extend(["nosuid", "nodev", "noexec"].into_iter().filter(|o| has(o)));
    shown.push(if has("noatime") {
        "noatime"
    } else {
        "relatime"
    });
    shown.join(",")
}

/// As the kernel escapes mount points.
fn escape(path: &str) -> String {
    let path = path.replace('\\', "\\134");
    path.replace(' ', "\\040").replace('\t', "\\011")
}

/// Whether the directory of a path exists and is one.
pub(super) fn check_parent(view: &View<'_>, path: &str) -> Result<(), FsError> {
    match view.entry(parent(path))?.node {
        Node::Directory => Ok(()),
        _ => Err(FsError::NotDirectory),
    }
}
