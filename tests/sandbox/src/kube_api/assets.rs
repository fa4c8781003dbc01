//! The programs: what `KUBEBUILDER_ASSETS` names, else what `tests/kube-apiserver` makes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;

/// Building the API server takes ten minutes on a busy machine.
const INSTALL: Duration = Duration::from_secs(1800);

/// The folder that holds etcd and kube-apiserver.
#[derive(Debug, Clone)]
pub struct Assets(PathBuf);

impl Assets {
    /// Finds them, or makes them, which takes minutes.
    pub async fn find() -> anyhow::Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../kube-apiserver");
        let mut install = Command::new(script);
        install
            .arg("install")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let ended = tokio::time::timeout(INSTALL, install.output()).await;
        let out = ended.context("tests/kube-apiserver install does not end")??;
        let words = String::from_utf8_lossy(&out.stderr);
        ensure!(
            out.status.success(),
            "tests/kube-apiserver install: {words}"
        );
        let folder = String::from_utf8(out.stdout)?;
        Ok(Self(Path::new(folder.trim_end()).to_owned()))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
