//! What real workers put on a real bastion: the image with Ansible and a stand-in for Kubespray, and
//! the runner that runs it.

use std::time::Duration;

use anyhow::{Context, ensure};
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
        let made = Command::new(script)
            .arg(&runner)
            .kill_on_drop(true)
            .output();
        let made = made.await.context("run tests/kubespray-image")?;
        let words = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "tests/kubespray-image: {words}");
        let image = std::fs::read(String::from_utf8(made.stdout)?.trim())?;
        // What would be uploaded is mostly for debuggers.
        let folder = tempfile::tempdir()?;
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(folder.path().join("rekindle-runner"));
        ensure!(strip.arg(&runner).status().await?.success(), "strip failed");
        Ok(Self { image, folder })
    }

    /// A site of real hosts whose bucket has the image.
    pub async fn site(&self) -> anyhow::Result<Site> {
        let site = Site::real(Duration::from_millis(200)).await?;
        let image = self.image.clone();
        site.sandbox.s3.put_object("artifacts/kubespray", image);
        Ok(site)
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
