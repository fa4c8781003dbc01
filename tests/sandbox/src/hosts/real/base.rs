//! The root file system every host starts from: a small Debian made once by debootstrap.
//!
//! It is kept in the cache under a name made of everything that goes into it, built beside its
//! place and renamed into it. A killed build leaves nothing that looks finished.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::keeper::Keeper;
use super::lock::lock;
use super::tool;

/// What a host can do: serve ssh, make and mount file systems, be driven by Ansible, hold container images.
const PACKAGES: &[&str] = &[
    "ca-certificates",
    "containerd",
    "curl",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "mount",
    "openssh-client",
    "openssh-server",
    "procps",
    "psmisc",
    "python3",
    "rsync",
    "sudo",
    "util-linux",
    "xfsprogs",
    "zstd",
];

/// Keys only, no PAM, no name lookups, and room for a whole cluster's sessions at one time.
const SSHD_CONFIG: &str = "\
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
AllowTcpForwarding yes
MaxStartups 500:30:1000
MaxSessions 500
LoginGraceTime 60
PidFile none
PrintMotd no
PrintLastLog no
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
";

/// Counts changes of [`finish`], which the digest cannot see.
const RECIPE: u32 = 1;

const BUILD_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// The base file system, building it first if this machine has none yet.
pub(super) async fn ensure(cache: &Path) -> anyhow::Result<PathBuf> {
    let source = Source::of_this_machine().await?;
    let base = cache.join("base").join(source.digest());
    if base.is_dir() {
        return Ok(base);
    }
    let parent = base.parent().expect("just joined");
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let what = "builds the base file system";
    let _lock = lock(&parent.join("lock"), BUILD_DEADLINE, what).await?;
    if base.is_dir() {
        return Ok(base);
    }
    let partial = base.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).context("remove the rest of a killed build")?;
    }
    tracing::info!(
        suite = source.suite,
        "building the hosts' base file system, about a minute"
    );
    debootstrap(&source, &partial).await?;
    finish(&partial)?;
    fs::rename(&partial, &base).context("put the base file system into its place")?;
    tracing::info!(base = %base.display(), "base file system is ready");
    Ok(base)
}

/// Where packages come from: what the machine's own apt uses.
struct Source {
    mirror: String,
    suite: String,
    architecture: String,
}

impl Source {
    async fn of_this_machine() -> anyhow::Result<Source> {
        let os = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
        let suite = os
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .map(|name| name.trim_matches('"').to_owned())
            .context("find the release's code name in /etc/os-release")?;
        let format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
        let targets = tool::run("apt-get", ["indextargets", "--format", format]).await?;
        let mirror = mirror(&targets, &suite)
            .with_context(|| format!("find a mirror of {suite} in apt's sources"))?;
        let architecture = tool::run("dpkg", ["--print-architecture"]).await?;
        Ok(Source {
            mirror,
            suite,
            architecture: architecture.trim().to_owned(),
        })
    }

    fn digest(&self) -> String {
        let recipe = format!(
            "{RECIPE}\n{}\n{}\n{}\n{SSHD_CONFIG}",
            self.suite,
            self.architecture,
            PACKAGES.join(" ")
        );
        format!(
            "{}-{}",
            self.suite,
            &hex::encode(Sha256::digest(recipe))[..16]
        )
    }
}

/// The first mirror debootstrap can read that carries the suite's main component.
fn mirror(targets: &str, suite: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (uri, release, component) = (words.next()?, words.next()?, words.next()?);
        let readable = ["http://", "https://", "file:/"]
            .iter()
            .any(|s| uri.starts_with(s));
        (readable && release == suite && component == "main").then(|| uri.to_owned())
    })
}

/// debootstrap mounts /proc below its target; namespaces of its own take that mount and every
/// process of the build with them when this process dies.
async fn debootstrap(source: &Source, target: &Path) -> anyhow::Result<()> {
    let keeper = Keeper::start("rk-base", false).context("start the build's keeper")?;
    let mut command = tool::bound_to_us();
    command
        .args([
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--",
        ])
        .args(["debootstrap", "--variant=minbase"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg(&source.suite)
        .arg(target)
        .arg(&source.mirror)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    // debootstrap asks apt itself for a proxy; the usual variables count too.
    for name in ["http_proxy", "https_proxy", "no_proxy"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let mut build = keeper.spawn(command).await.context("start debootstrap")?;
    let output = build.stdout.take().expect("stdout is piped");
    let mut last = VecDeque::new();
    let result = tokio::time::timeout(BUILD_DEADLINE, async {
        let mut lines = BufReader::new(output).lines();
        while let Some(line) = lines.next_line().await? {
            tell(&line);
            last.push_back(line);
            if last.len() > 10 {
                last.pop_front();
            }
        }
        build.wait().await
    })
    .await;
    let status = result
        .context("wait for debootstrap")?
        .context("read debootstrap's output")?;
    let last: Vec<_> = last.into();
    ensure!(
        status.success(),
        "debootstrap ended with {status}: {}",
        last.join("; ")
    );
    Ok(())
}

/// The phases of a build are news, its hundreds of packages are not.
fn tell(line: &str) {
    let text = line.trim_start_matches("I: ");
    let package = [
        "Retrieving",
        "Validating",
        "Extracting",
        "Unpacking",
        "Configuring",
    ];
    if package.iter().any(|verb| text.starts_with(verb)) {
        tracing::debug!("{text}");
    } else {
        tracing::info!("{text}");
    }
}

/// Makes a cloud image of a fresh Debian: our sshd settings, nobody's keys, nothing left over.
fn finish(root: &Path) -> anyhow::Result<()> {
    let write = |path: &str, text: &str, mode: u32| -> anyhow::Result<()> {
        let path = root.join(path);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("write {}", path.display()))
    };
    let sshd = root.join("usr/sbin/sshd");
    if !sshd.is_file() {
        bail!("debootstrap left no sshd in {}", root.display());
    }
    write("etc/ssh/sshd_config", SSHD_CONFIG, 0o644)?;
    // The build copied the machine's.
    write("etc/resolv.conf", "", 0o644)?;
    write("etc/fstab", "", 0o644)?;
    write("etc/machine-id", "", 0o644)?;
    for entry in fs::read_dir(root.join("etc/ssh")).context("read etc/ssh")? {
        let path = entry.context("read etc/ssh")?.path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("ssh_host_"))
        {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    for litter in ["var/cache/apt/archives", "var/lib/apt/lists", "debootstrap"] {
        let path = root.join(litter);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::mirror;

    #[test]
    fn the_mirror_is_the_first_one_debootstrap_can_read() {
        let targets = "mirror+file:/etc/list bookworm main\n\
                       http://a.test/security bookworm-security main\n\
                       http://a.test/extra bookworm contrib\n\
                       http://a.test/debian bookworm main\n";
        assert_eq!(
            mirror(targets, "bookworm").as_deref(),
            Some("http://a.test/debian")
        );
        assert_eq!(mirror(targets, "trixie"), None);
    }
}
