//! One server: its processes in fresh namespaces, its root an overlay on the base.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout};

use super::lab::{self, Lab};
use super::loan::Loan;
use super::{cgroup, disk, tool, user_data};
use crate::hosts::Boot;

const BOOT_DEADLINE: Duration = Duration::from_secs(60);
const KILL_DEADLINE: Duration = Duration::from_secs(30);
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// A volume as a host sees it.
#[derive(Debug, Clone)]
pub(super) struct Plug {
    pub(super) device: String,
    pub(super) minor: u32,
    pub(super) link: String,
}

#[derive(Debug)]
pub(super) struct Host {
    name: String,
    address: Ipv4Addr,
    /// Number in the lab; names the folder, the cgroup and the cable.
    number: u32,
    folder: PathBuf,
    cgroup: Option<PathBuf>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    /// `unshare`, which waits for the host's PID 1 and takes it along when it is killed.
    child: Child,
    /// The host's PID 1 as the machine counts.
    pid: Pid,
    /// What leads from the host's loopback to the machine's.
    lent: Vec<Loan>,
}

/// How far a boot came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Booted {
    /// sshd answers.
    Sshd,
    /// A file system of fstab is missing: the host runs, nobody can log in.
    Emergency,
}

impl Host {
    /// Prepares the root disk of a new server.
    pub(super) fn create(lab: &Lab, number: u32, boot: &Boot) -> anyhow::Result<Host> {
        let folder = lab.folder.join("hosts").join(number.to_string());
        for sub in ["upper", "work", "root"] {
            fs::create_dir_all(folder.join(sub)).context("create the host's folder")?;
        }
        let cgroup = lab
            .cgroup
            .as_ref()
            .map(|group| group.join(number.to_string()));
        write_identity(&folder.join("upper"), boot)?;
        let (name, address) = (boot.name.clone(), boot.address);
        Ok(Host {
            name,
            address,
            number,
            folder,
            cgroup,
            running: None,
        })
    }

    /// Starts the host's processes and waits until sshd answers.
    pub(super) async fn power_on(
        &mut self,
        lab: &Lab,
        base: &Path,
        disks: &[Plug],
    ) -> anyhow::Result<Booted> {
        ensure!(self.running.is_none(), "{} runs already", self.name);
        if let Some(group) = &self.cgroup {
            cgroup::create(group, disks.iter().map(|plug| plug.minor))?;
        }
        let booted = tokio::time::timeout(BOOT_DEADLINE, self.start(lab, base, disks)).await;
        match booted
            .map_err(|_| anyhow!("no sshd within {BOOT_DEADLINE:?}"))
            .flatten()
        {
            Ok(booted) => Ok(booted),
            Err(error) => {
                let console = self.console_tail();
                self.power_off(lab).await?;
                Err(error.context(format!("boot {}; its console says: {console}", self.name)))
            }
        }
    }

    async fn start(&mut self, lab: &Lab, base: &Path, disks: &[Plug]) -> anyhow::Result<Booted> {
        let mut child = lab.keeper.spawn(self.command(lab, base, disks)?).await?;
        let output = child.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(output).lines();
        let pid = loop {
            let line = next(&mut lines).await?;
            if let Some(pid) = line.strip_prefix("pivoted ") {
                break pid.parse().context("read the id of the host's PID 1")?;
            }
        };
        self.running = Some(Running {
            child,
            pid: Pid::from_raw(pid),
            lent: Vec::new(),
        });
        if next(&mut lines).await? == "emergency" {
            return Ok(Booted::Emergency);
        }
        self.wait_for_sshd(lab).await?;
        let running = self.running.as_mut().expect("started above");
        for port in lab.lent_ports() {
            running.lent.push(Loan::start(running.pid, port).await?);
        }
        Ok(Booted::Sshd)
    }

    fn command(
        &self,
        lab: &Lab,
        base: &Path,
        disks: &[Plug],
    ) -> anyhow::Result<tokio::process::Command> {
        let console = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.console())
            .context("open the host's console log")?;
        let disks = disks
            .iter()
            .map(|p| format!("{}:{}:{}", p.device, p.minor, p.link));
        let mut command = tool::bound_to_us();
        command
            .args([
                "unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--cgroup",
            ])
            .args([
                "--propagation",
                "private",
                "--fork",
                "--kill-child",
                "--",
                "sh",
            ])
            .arg(lab.folder.join("init.sh"))
            .env("LAB_NET", lab.keeper.net())
            .env("BASE", base)
            .env("DIR", &self.folder)
            .env("HOST", &self.name)
            .env("ADDRESS", self.address.to_string())
            .env("MASK", lab::MASK.to_string())
            .env("MAC", lab::mac(self.address))
            .env("PORT", self.port())
            .env(
                "CGROUPS",
                self.cgroup
                    .as_ref()
                    .map_or(OsString::new(), |group| group.into()),
            )
            .env("DISKS", disks.collect::<Vec<_>>().join(" "))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(console);
        Ok(command)
    }

    /// There is nothing to wait on: sshd says nowhere that it listens, so we ask it.
    async fn wait_for_sshd(&mut self, lab: &Lab) -> anyhow::Result<()> {
        let address = SocketAddr::from((self.address, 22));
        loop {
            if banner(lab, address)
                .await
                .is_ok_and(|start| &start == b"SSH-")
            {
                return Ok(());
            }
            if let Some(running) = &mut self.running
                && let Some(status) = running.child.try_wait()?
            {
                bail!("the host ended with {status}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Kills PID 1 and with it every process and mount. A host that is off stays off.
    pub(super) async fn power_off(&mut self, lab: &Lab) -> anyhow::Result<()> {
        if let Some(mut running) = self.running.take() {
            // While `unshare` runs, PID 1 is its unreaped child and the id is nobody else's.
            if running.child.try_wait()?.is_none() {
                // It may be a zombie by now.
                let _ = kill(running.pid, Signal::SIGKILL);
            }
            tokio::time::timeout(KILL_DEADLINE, running.child.wait())
                .await
                .with_context(|| format!("wait for the end of {}", self.name))??;
        }
        if let Some(group) = &self.cgroup {
            cgroup::remove(group).await?;
        }
        // The kernel takes a dead network namespace down some time later; until then it would
        // answer in the place of the next host with this address.
        lab.pull_cable(&self.port()).await
    }

    /// The far end of the host's network cable, at most 15 characters.
    fn port(&self) -> String {
        format!("port{}", self.number)
    }

    /// Throws the root disk away.
    pub(super) fn discard(&self) -> anyhow::Result<()> {
        fs::remove_dir_all(&self.folder)
            .with_context(|| format!("remove the root disk of {}", self.name))
    }

    /// Makes a disk appear in the running host.
    pub(super) fn plug(&mut self, plug: &Plug) -> anyhow::Result<()> {
        let pid = self.pid()?;
        if let Some(group) = &self.cgroup {
            cgroup::allow(group, plug.minor)?;
        }
        disk::plug(pid, plug.minor, &plug.device, &plug.link)
    }

    /// Makes a disk disappear.
    pub(super) fn unplug(&mut self, plug: &Plug) -> anyhow::Result<()> {
        let Ok(pid) = self.pid() else {
            // A host that is off has no device nodes; it will find the disk gone.
            return Ok(());
        };
        disk::unplug(pid, &plug.device, &plug.link)?;
        self.cgroup
            .as_ref()
            .map_or(Ok(()), |group| cgroup::deny(group, plug.minor))
    }

    /// PID 1, if the host runs: a host can end itself by `poweroff`.
    fn pid(&mut self) -> anyhow::Result<Pid> {
        let name = &self.name;
        let running = self
            .running
            .as_mut()
            .with_context(|| format!("find {name} running"))?;
        match running.child.try_wait()? {
            None => Ok(running.pid),
            Some(status) => bail!("{name} ended with {status}"),
        }
    }

    fn console(&self) -> PathBuf {
        self.folder.join("console")
    }

    fn console_tail(&self) -> String {
        let console = fs::read_to_string(self.console()).unwrap_or_default();
        let lines: Vec<_> = console.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("; ")
    }
}

/// What a cloud puts into a fresh server: its name, the user data's host key, root's keys.
fn write_identity(root: &Path, boot: &Boot) -> anyhow::Result<()> {
    let key = match &boot.user_data {
        Some(text) => user_data::host_key(text)?,
        None => user_data::HostKey::default(),
    };
    for (folder, mode) in [("etc/ssh", 0o755), ("root/.ssh", 0o700), ("root", 0o700)] {
        let path = root.join(folder);
        fs::create_dir_all(&path)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)))
            .with_context(|| format!("create {folder}"))?;
    }
    for folder in ["", "etc"] {
        fs::set_permissions(root.join(folder), Permissions::from_mode(0o755))
            .context("open the root folder to its users")?;
    }
    let name = &boot.name;
    let keys = boot
        .authorized_keys
        .iter()
        .map(|key| format!("{}\n", key.trim()));
    write(root, "etc/hostname", 0o644, &format!("{name}\n"))?;
    let hosts = format!(
        "127.0.0.1 localhost\n::1 localhost\n{} {name}\n",
        boot.address
    );
    write(root, "etc/hosts", 0o644, &hosts)?;
    write(
        root,
        "root/.ssh/authorized_keys",
        0o600,
        &keys.collect::<String>(),
    )?;
    if let Some(private) = key.private {
        let private = format!("{}\n", private.trim_end());
        write(root, "etc/ssh/ssh_host_ed25519_key", 0o600, &private)?;
        if let Some(public) = key.public {
            let public = format!("{}\n", public.trim_end());
            write(root, "etc/ssh/ssh_host_ed25519_key.pub", 0o644, &public)?;
        }
    }
    Ok(())
}

fn write(root: &Path, file: &str, mode: u32, text: &str) -> anyhow::Result<()> {
    let open = |path: &Path| -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
    };
    open(&root.join(file))
        .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        .with_context(|| format!("write {file}"))
}

async fn next(lines: &mut tokio::io::Lines<BufReader<ChildStdout>>) -> anyhow::Result<String> {
    lines
        .next_line()
        .await
        .context("read the host's progress")?
        .context("see the host start")
}

async fn banner(lab: &Lab, address: SocketAddr) -> io::Result<[u8; 4]> {
    let mut start = [0; 4];
    let mut stream = connect(lab, address).await?;
    tokio::time::timeout(CONNECT_DEADLINE, stream.read_exact(&mut start)).await??;
    Ok(start)
}

/// A connection inside the lab.
pub(super) async fn connect(lab: &Lab, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = lab.socket().await?;
    tokio::time::timeout(CONNECT_DEADLINE, socket.connect(to)).await?
}
