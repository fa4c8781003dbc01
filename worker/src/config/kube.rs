//! Kubeconfigs that a worker is given.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use jobs::ids::ClusterName;

use super::SettingError;
use crate::kube::Kubeconfig;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 256 * 1024;

/// How workers come to the Kubernetes API when they are not to ask the masters.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub struct KubeArgs {
    /// A cluster's kubeconfig, `CLUSTER=FILE`: its server is asked straight, and no master is asked for
    /// one; may be repeated, with commas between in the variable
    #[arg(
        long = "kubeconfig",
        env = "REKINDLE_KUBECONFIG",
        value_name = "CLUSTER=FILE",
        value_delimiter = ',',
        hide_short_help = true
    )]
    kubeconfigs: Vec<String>,
}

impl KubeArgs {
    pub(super) fn kubeconfigs(&self) -> Result<BTreeMap<ClusterName, Kubeconfig>, SettingError> {
        let mut found = BTreeMap::new();
        for given in self.kubeconfigs.iter().filter(|given| !given.is_empty()) {
            let (cluster, path) = given.split_once('=').ok_or_else(|| {
                SettingError::new(format!(
                    "--kubeconfig: `{given}` does not say which cluster it is for"
                ))
                .hint(format!(
                    "give it as CLUSTER={given}: a worker may serve several"
                ))
            })?;
            let cluster = ClusterName::new(cluster)
                .map_err(|error| SettingError::new(format!("--kubeconfig: {error}")))?;
            let config = read(Path::new(path))?;
            if found.insert(cluster.clone(), config).is_some() {
                let text = format!("--kubeconfig: cluster `{cluster}` is given twice");
                return Err(SettingError::new(text));
            }
        }
        Ok(found)
    }
}

fn read(path: &Path) -> Result<Kubeconfig, SettingError> {
    let shown = path.display();
    let failed =
        |why: String| SettingError::new(format!("failed to read the kubeconfig {shown}: {why}"));
    let about = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?;
    if about.len() > LARGEST {
        let size = about.len();
        return Err(failed(format!("it has {size} bytes, {LARGEST} at most")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    Kubeconfig::parse(&text, &shown.to_string())
        .map_err(|error| SettingError::new(format!("failed to {error}")))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn wrong(given: &[&str]) -> String {
        let kubeconfigs = given.iter().map(|&it| it.to_owned()).collect();
        let error = KubeArgs { kubeconfigs }.kubeconfigs().unwrap_err();
        format!("{error} ({})", error.hint.as_deref().unwrap_or_default())
    }

    #[test]
    fn which_cluster_it_is_for_must_be_said() {
        let said = wrong(&["admin.conf"]);
        assert!(said.contains("which cluster"), "{said}");
        assert!(said.contains("CLUSTER=admin.conf"), "{said}");
        assert!(wrong(&["A B=admin.conf"]).contains("--kubeconfig: "));
        let said = wrong(&["test=/nowhere/admin.conf"]);
        assert!(said.contains("/nowhere/admin.conf"), "{said}");
    }

    #[test]
    fn an_empty_variable_is_none() {
        let kubeconfigs = vec![String::new()];
        let found = KubeArgs { kubeconfigs }.kubeconfigs().unwrap();
        assert!(found.is_empty());
    }
}
