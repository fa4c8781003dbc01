//! Whether this machine can run real hosts, found out by doing in small what they need.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use super::{Options, fit_for_mount, tool};

/// Tools and the Debian packages they come from.
const TOOLS: &[(&str, &str)] = &[
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("pivot_root", "util-linux"),
    ("losetup", "mount"),
    ("mount", "mount"),
    ("ip", "iproute2"),
    ("debootstrap", "debootstrap"),
    ("apt-get", "apt"),
    ("dpkg", "dpkg"),
];

/// Everything a host's start does, but sshd: namespaces, a cable on a bridge, an overlay, a
/// fresh /proc. Names the step it is at, so that the last one said is the one that failed.
const TRIAL: &str = "
    set -e
    cd \"$1\"
    echo a network bridge; ip link add br0 type bridge
    echo a virtual cable; ip link add eth0 type veth peer name eth1
    echo an overlay mount; mkdir lower upper work root
    mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work root
    echo a fresh proc mount; mkdir root/proc; mount -t proc proc root/proc
    echo a device node; mknod root/null c 1 3; : >root/null
    echo a loop device; losetup --find >/dev/null
    echo done
";

pub(super) fn probe(options: &Options) -> anyhow::Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "real hosts need root");
    for (program, package) in TOOLS {
        if tool::find(program).is_none() {
            bail!("{program} is not installed (Debian package {package})");
        }
    }
    for path in [&options.cache, &options.labs] {
        ensure!(
            fit_for_mount(path),
            "{} cannot be named in mount options",
            path.display()
        );
    }
    fs::create_dir_all(&options.labs)
        .with_context(|| format!("create {}", options.labs.display()))?;
    let folder = tempfile::Builder::new()
        .prefix(".probe-")
        .tempdir_in(&options.labs)
        .with_context(|| format!("write to {}", options.labs.display()))?;
    let mut trial = Command::new("timeout")
        .args([
            "-s", "KILL", "20", "unshare", "--net", "--mount", "--uts", "--ipc", "--pid",
        ])
        .args([
            "--cgroup",
            "--fork",
            "--kill-child",
            "--",
            "sh",
            "-c",
            TRIAL,
            "sh",
        ])
        .arg(folder.path())
        .env("PATH", tool::PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("start a trial of namespaces")?;
    let output = trial.stdout.take().expect("stdout is piped");
    let last = BufReader::new(output).lines().map_while(Result::ok).last();
    let status = trial.wait().context("wait for the trial of namespaces")?;
    match last.as_deref() {
        Some("done") if status.success() => Ok(()),
        Some(step) => bail!("the kernel (or this container) refuses {step}"),
        None => bail!("the kernel (or this container) refuses new namespaces"),
    }
}
