//! How the simulated cloud behaves when nothing is broken.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::kube_sim::KubeSim;

/// Called with an administrator's client, and the API itself, when a cluster gets RUNNING. What it gives back is dropped when
/// the cluster is deleted, or the simulator.
pub type OnRunning = Arc<dyn Fn(kube::Client, Arc<KubeSim>) -> Box<dyn Any + Send> + Send + Sync>;

/// Settings of one simulated folder. The defaults suit tests: small pages, short times.
#[derive(Clone)]
pub struct YandexOptions {
    /// How long it takes to make, change or delete a network or a subnet.
    pub network_time: Duration,
    /// How long it takes to make or delete a cluster.
    pub cluster_time: Duration,
    /// How long it takes to make or delete a node group.
    pub node_group_time: Duration,
    /// From a RUNNING node group to nodes that are Ready.
    pub node_time: Duration,
    /// All times are this much longer.
    pub pace: f64,
    /// Added to each answer.
    pub latency: Duration,
    /// Lists do not show what is younger than this.
    pub list_lag: Duration,
    /// How long an IAM token is good.
    pub token_lifetime: Duration,
    /// Page size when a list is asked for without `pageSize`.
    pub page_size: usize,
    /// The most a page holds, whatever `pageSize` says.
    pub max_page_size: usize,
    /// The service account that clusters and nodes may act as, beside the one that the key belongs to.
    pub account: String,
    /// Versions of Kubernetes that there are, oldest first; the last one is the default.
    pub versions: Vec<String>,
    /// Whether names of networks and subnets are unique in the folder. The documentation is not sure; a
    /// client must cope with both.
    pub unique_networks: bool,
    /// Whether a change of something that another operation still works on is refused. Otherwise a delete
    /// ends the other operation. The documentation does not say; a client must cope with both.
    pub busy_is_refused: bool,
    /// Whether a cluster makes its node groups one after the other, and refuses one while it makes another.
    pub groups_one_by_one: bool,
    /// Whether the holder of a token is an administrator of the clusters; otherwise the Kubernetes API
    /// knows them and lets them do nothing.
    pub administrator: bool,
    /// Quota of networks in the folder, strangers' included.
    pub max_networks: Option<usize>,
    /// Quota of clusters in the folder, strangers' included.
    pub max_clusters: Option<usize>,
    /// Quota of nodes in the folder, strangers' included. Who exceeds it learns it from the operation.
    pub max_nodes: Option<usize>,
    /// Whether other people's things are in the folder from the start.
    pub strangers: bool,
    /// What to start in clusters.
    pub on_running: Option<OnRunning>,
}

impl Default for YandexOptions {
    fn default() -> Self {
        Self {
            network_time: Duration::from_millis(50),
            cluster_time: Duration::from_millis(300),
            node_group_time: Duration::from_millis(200),
            node_time: Duration::from_millis(100),
            pace: 1.0,
            latency: Duration::ZERO,
            list_lag: Duration::ZERO,
            token_lifetime: Duration::from_hours(12),
            page_size: 3,
            max_page_size: 4,
            account: "aje00000000000000000".to_owned(),
            versions: ["1.31", "1.32", "1.33"].map(str::to_owned).to_vec(),
            unique_networks: false,
            busy_is_refused: true,
            groups_one_by_one: false,
            administrator: true,
            max_networks: None,
            max_clusters: None,
            max_nodes: None,
            strangers: true,
            on_running: None,
        }
    }
}

impl fmt::Debug for YandexOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("YandexOptions")
            .field("pace", &self.pace)
            .finish_non_exhaustive()
    }
}
