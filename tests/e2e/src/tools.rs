//! What real workers put on a real bastion: the image with Ansible and a stand-in for Kubespray, and
//! the runner that runs it.

use std::time::Duration;

use anyhow::{Context, ensure};
use sandbox::kube_api::Assets;
use tempfile::TempDir;
use tokio::process::Command;

use crate::processes::{Workers, program};
use crate::site::Site;

/// The image, and the runner's program.
#[derive(Debug)]
pub struct Tools {
    image: Vec<u8>,
    folder: TempDir,
}

impl Tools {
    /// Made on first use, which takes minutes; found ever after.
    pub async fn made() -> anyhow::Result<Self> {
        let runner = program("rekindle-runner")?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../kubespray-image");
        let made = output(Command::new(script).arg(&runner)).await?;
        let image = std::fs::read(made.trim())?;
        // What would be uploaded is mostly for debuggers.
        let folder = tempfile::tempdir()?;
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(folder.path().join("rekindle-runner"));
        output(strip.arg(&runner)).await?;
        Ok(Self { image, folder })
    }

    /// A site of real hosts whose bucket has the image.
    pub async fn site(&self) -> anyhow::Result<Site> {
        let site = Site::real(Duration::from_millis(200)).await?;
        let image = self.image.clone();
        site.sandbox.s3.put_object("artifacts/kubespray", image);
        Ok(site)
    }

    /// Puts a real etcd, kube-apiserver and kubectl into the site's bucket; gives the playbook's variable that says
    /// where they are, for `extra_vars`.
    pub async fn real_api(&self, site: &Site) -> anyhow::Result<String> {
        let assets = Assets::find().await?;
        let kubectl = concat!(env!("CARGO_MANIFEST_DIR"), "/../kubectl");
        let kubectl = output(Command::new(kubectl).arg("install")).await?;
        let archive = self.folder.path().join("programs");
        let mut pack = Command::new("tar");
        pack.args(["--use-compress-program=zstd -1 -T0", "-cf"])
            .arg(&archive);
        pack.arg("-C").arg(assets.folder());
        pack.args(["etcd", "kube-apiserver", "-C", kubectl.trim(), "kubectl"]);
        output(&mut pack).await?;
        // Ours would take seconds: it is a debug build.
        let said = output(Command::new("sha256sum").arg(&archive)).await?;
        let digits = said.split_whitespace().next().context("a digest")?;
        let bytes = tokio::fs::read(&archive).await?;
        site.sandbox.s3.put_object("programs", bytes);
        let store = site.sandbox.store().await?;
        let url = store.lend("programs", Duration::from_secs(3600)).await?;
        let url = url.reveal();
        Ok(format!(
            "standin_programs: {{ url: \"{url}\", sha256: \"{digits}\" }}"
        ))
    }

    /// Workers that have the runner; not yet started.
    pub fn workers(&self, site: &Site) -> anyhow::Result<Workers> {
        let mut workers = site.workers(&[])?;
        let runner = self.folder.path().join("rekindle-runner");
        workers.set("REKINDLE_RUNNER", runner.to_str());
        Ok(workers)
    }

    /// A spec with Kubernetes on it; `more` are further lines of that section.
    pub fn spec(&self, spec: &str, more: &str) -> String {
        let digest = jobs::digest(&self.image);
        let section = format!(
            "kubernetes:
  version: \"1.33.7\"
  kubespray: \"2.29.1\"
  image: {{ digest: \"sha256:{digest}\", key: kubespray, ansible_core: \"2.17.14\" }}
{more}load_balancer:"
        );
        spec.replacen("load_balancer:", &section, 1)
    }
}

/// What a program prints that has to succeed.
async fn output(command: &mut Command) -> anyhow::Result<String> {
    let said = command.kill_on_drop(true).output().await;
    let said = said.with_context(|| format!("run {command:?}"))?;
    let error = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success(), "{command:?}: {error}");
    Ok(String::from_utf8(said.stdout)?)
}
