//! Where things lie in the bucket, below an optional prefix. The only place that knows.

use crate::ids::{ClusterName, JobName, NodeName, ObjectName, RecoveryId};

/// A series of versions: the part of the key before the version number. Ends with `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series(String);

/// The largest number with as many digits as the longest u64 has.
const NINES: u128 = 99_999_999_999_999_999_999;

impl Series {
    /// The key of one version, `99999999999999999992-7.json` for the seventh. What counts down comes
    /// first, so that the newest version is the first key of a listing: finding it costs one request
    /// for one key, however long the history. The number itself follows for people.
    pub fn version(&self, n: u64) -> String {
        format!("{}{:020}-{n}.json", self.0, NINES - u128::from(n))
    }

    /// The common beginning of all its keys.
    pub fn prefix(&self) -> &str {
        &self.0
    }

    /// The version number in a key of this series; `None` for anything else.
    pub fn number(&self, key: &str) -> Option<u64> {
        let (series, n) = Self::split(key)?;
        (series == *self).then_some(n)
    }

    /// Series and number of a version's key; `None` for a key of anything else.
    pub fn split(key: &str) -> Option<(Self, u64)> {
        let (prefix, name) = key.split_at(key.rfind('/')? + 1);
        let (_, number) = name.strip_suffix(".json")?.split_once('-')?;
        let (series, n) = (Self(prefix.to_owned()), number.parse().ok()?);
        (series.version(n) == key).then_some((series, n))
    }
}

/// `clusters/<cluster>/active/`
pub fn active(cluster: &ClusterName) -> Series {
    Series(format!("clusters/{cluster}/active/"))
}

/// `clusters/<cluster>/spec/`
pub fn spec(cluster: &ClusterName) -> Series {
    Series(format!("clusters/{cluster}/spec/"))
}

/// `clusters/<cluster>/nodes/<node>/`
pub fn node(cluster: &ClusterName, node: &NodeName) -> Series {
    Series(format!("clusters/{cluster}/nodes/{node}/"))
}

/// `clusters/<cluster>/nodes/`
pub fn nodes(cluster: &ClusterName) -> String {
    format!("clusters/{cluster}/nodes/")
}

/// `clusters/<cluster>/volumes/<volume-id>/`
pub fn volume(cluster: &ClusterName, id: &str) -> Series {
    Series(format!("clusters/{cluster}/volumes/{id}/"))
}

/// `clusters/<cluster>/volumes/`
pub fn volumes(cluster: &ClusterName) -> String {
    format!("clusters/{cluster}/volumes/")
}

/// `clusters/<cluster>/load-balancer/`
pub fn load_balancer(cluster: &ClusterName) -> Series {
    Series(format!("clusters/{cluster}/load-balancer/"))
}

/// `clusters/<cluster>/database/`
pub fn database(cluster: &ClusterName) -> Series {
    Series(format!("clusters/{cluster}/database/"))
}

/// `clusters/<cluster>/kubeconfig/`
pub fn kubeconfig(cluster: &ClusterName) -> Series {
    Series(format!("clusters/{cluster}/kubeconfig/"))
}

/// `clusters/<cluster>/releases/<application>/`
pub fn release(cluster: &ClusterName, application: &ObjectName) -> Series {
    Series(format!("clusters/{cluster}/releases/{application}/"))
}

/// `clusters/`
pub fn clusters() -> &'static str {
    "clusters/"
}

/// `clusters/<cluster>/recoveries/`
pub fn recoveries(cluster: &ClusterName) -> String {
    format!("clusters/{cluster}/recoveries/")
}

/// `clusters/<cluster>/recoveries/<id>/recovery/`
pub fn recovery(cluster: &ClusterName, id: &RecoveryId) -> Series {
    Series(format!("clusters/{cluster}/recoveries/{id}/recovery/"))
}

/// `clusters/<cluster>/recoveries/<id>/jobs/<job>/`
pub fn job(cluster: &ClusterName, id: &RecoveryId, job: &JobName) -> Series {
    Series(format!("clusters/{cluster}/recoveries/{id}/jobs/{job}/"))
}

/// `clusters/<cluster>/recoveries/<id>/done/`
pub fn done(cluster: &ClusterName, id: &RecoveryId) -> String {
    format!("clusters/{cluster}/recoveries/{id}/done/")
}

/// `clusters/<cluster>/recoveries/<id>/failed/`. Below it, `<job>/<generation>`: an empty marker
/// of a job that is settled but not done. It counts while the job is still of that generation; a
/// retry begins the next one.
pub fn failed(cluster: &ClusterName, id: &RecoveryId) -> String {
    format!("clusters/{cluster}/recoveries/{id}/failed/")
}

/// `clusters/<cluster>/recoveries/<id>/report.json`; one more for each time it is written.
pub fn report(cluster: &ClusterName, id: &RecoveryId) -> String {
    format!("clusters/{cluster}/recoveries/{id}/report.json")
}

/// `clusters/<cluster>/recoveries/<id>/report.html`: the same for people.
pub fn report_page(cluster: &ClusterName, id: &RecoveryId) -> String {
    format!("clusters/{cluster}/recoveries/{id}/report.html")
}

/// `names/<project>/<name>`: the cluster that a server's or volume's name of a cloud project belongs
/// to. Written once.
pub fn name(project: &str, name: &str) -> String {
    format!("names/{project}/{name}")
}

/// `clusters/<cluster>/recoveries/<id>/logs/<job>/`. Below it the log of a program that ran detached, in
/// chunks, each under the zero-padded number of bytes before it.
pub fn logs(cluster: &ClusterName, id: &RecoveryId, job: &JobName) -> String {
    format!("clusters/{cluster}/recoveries/{id}/logs/{job}/")
}

/// `clusters/<cluster>/recoveries/<id>/load-test/<run>/<runner>.json`: the summary of one runner, as it wrote it.
pub fn load_summary(cluster: &ClusterName, id: &RecoveryId, run: &str, runner: &str) -> String {
    format!("clusters/{cluster}/recoveries/{id}/load-test/{run}/{runner}.json")
}

/// `artifacts/<key>`: images and bundles, put there by people.
pub fn artifact(key: &str) -> String {
    format!("artifacts/{key}")
}

/// `artifacts/bundles/blobs/sha256/<digits>`: a manifest, configuration or layer of a mirrored image, shared by all
/// bundles.
pub fn image_blob(digits: &str) -> String {
    format!("artifacts/bundles/blobs/sha256/{digits}")
}

/// `artifacts/bundles/<digits>/<file>`: `index.json` and `oci-layout` of one bundle, which make an OCI image layout
/// together with the blobs.
pub fn image_bundle(digits: &str, file: &str) -> String {
    format!("artifacts/bundles/{digits}/{file}")
}

/// `inputs/<sha256>`
pub fn input(digest: &str) -> String {
    format!("inputs/{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_comes_first() {
        let series = active(&ClusterName::new("test").expect("valid"));
        assert_eq!(
            series.version(7),
            "clusters/test/active/99999999999999999992-7.json"
        );
        for (older, newer) in [(0, 1), (9, 10), (99, 100), (u64::MAX - 1, u64::MAX)] {
            assert!(series.version(newer) < series.version(older), "{newer}");
            assert_eq!(series.number(&series.version(newer)), Some(newer));
        }
        assert_eq!(Series::split(&series.version(3)), Some((series.clone(), 3)));
        for other in [
            "clusters/test/active/7.json",
            "clusters/test/active/x",
            "clusters/test/active/99999999999999999992-8.json",
            "clusters/test/active/99999999999999999992-07.json",
            "clusters/other/active/99999999999999999992-7.json",
        ] {
            assert_eq!(series.number(other), None, "{other}");
        }
    }
}
