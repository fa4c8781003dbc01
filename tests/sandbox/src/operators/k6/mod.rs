//! k6-operator 1.6, as a cluster sees it, with load that is real: `TestRun`, its Jobs, Services and Pods.
//!
//! Written from the operator's own code, so it has its traps: a test is `finished` when no runner is active, however they
//! ended; it starts when all runners run at one time, so that one which dies early leaves it `created` for ever, and a
//! starter that fails leaves it `started`; a Job that is left of a run of the same name blocks the next one; the starter
//! takes nothing from the runners' block, and the initializer's script sees `env` but not `envFrom`; the bundle names the
//! image of the version before.
//!
//! A runner is a process of this machine: the program `k6-stand-in`, with the Pod's environment and k6's arguments. Its
//! output is the Pod's log, its exit code the container's, and it lives no longer than its Pod or this operator.
//!
//! Simplified: the Job controller, the scheduler and the kubelet are played here too; the scheduler knows taints, labels
//! and anti-affinity, but no resources; scripts are in ConfigMaps; a runner's port 6565 is its standard input; init
//! containers, probes, Grafana Cloud and PrivateLoadZones are not played.

mod definitions;
mod environment;
mod faults;
mod jobs;
mod pods;
mod process;
mod run;
mod schedule;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use kube::Client;
use serde_json::Value;

use self::process::Process;
use super::kubelet::Kubelet;
use super::{Controller, Operators, Pace, Tick};
use crate::kube_sim::KubeSim;

pub use faults::{Fault, Faults};

/// Who manages the fields that it writes.
const MANAGER: &str = "k6-operator";

const API: &str = "k6.io/v1alpha1";

/// The operator's namespace.
pub const NAMESPACE: &str = "k6-operator-system";

/// The operator's Deployment. It does nothing while that is not available.
pub const DEPLOYMENT: &str = "k6-operator-controller-manager";

/// What the operator finds around it.
#[derive(Debug, Clone)]
pub struct K6Settings {
    /// The program that runs in place of k6: our `k6-stand-in`.
    pub program: PathBuf,
    /// The API that it works on: logs go there by a back door, as those of kubelets do.
    pub api: Arc<KubeSim>,
    /// How load comes from the nodes to where it goes.
    pub network: LoadNetwork,
    /// After so many bytes a log begins anew and its beginning is lost; kubelets do so after 10 MiB.
    pub log_limit: Option<usize>,
    /// How fast time goes, for [`K6::start`].
    pub pace: Pace,
    /// What goes wrong, to be changed at any time.
    pub faults: Faults,
}

impl K6Settings {
    /// With this program on this API, where all goes well.
    pub fn new(program: impl Into<PathBuf>, api: Arc<KubeSim>) -> Self {
        Self {
            program: program.into(),
            api,
            network: LoadNetwork::default(),
            log_limit: None,
            pace: Pace::default(),
            faults: Faults::default(),
        }
    }
}

/// The network of the load nodes.
#[derive(Debug, Clone, Default)]
pub struct LoadNetwork {
    /// A SOCKS5 proxy that all goes through: `socks5h://127.0.0.1:1080`.
    pub proxy: Option<String>,
    /// What host names lead to: an address, with a port if it is to be another one. What is not here is asked of the
    /// proxy, or of this machine.
    pub hosts: BTreeMap<String, String>,
    /// Certificates of the authorities that are trusted, as PEM; those of this machine when there are none.
    pub authorities: Option<String>,
}

impl LoadNetwork {
    /// The stand-in's variables.
    fn variables(&self) -> impl Iterator<Item = (String, String)> {
        let hosts: Vec<String> = self
            .hosts
            .iter()
            .map(|(name, to)| format!("{name}={to}"))
            .collect();
        let all = [
            ("SANDBOX_PROXY", self.proxy.clone()),
            ("SANDBOX_HOSTS", Some(hosts.join(","))),
            ("SANDBOX_CA", self.authorities.clone()),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    }
}

/// The operator.
#[derive(Debug)]
pub struct K6 {
    settings: K6Settings,
    /// The processes of containers, by the uid of their Pods. They die with this.
    running: HashMap<String, Process>,
}

impl K6 {
    /// An operator in these surroundings, to be run with others.
    pub fn new(settings: K6Settings) -> Self {
        let running = HashMap::new();
        Self { settings, running }
    }

    /// Runs one, and beside it the kubelet that plays its own Deployment.
    pub fn start(client: Client, settings: K6Settings) -> Operators {
        let pace = settings.pace;
        let controllers: Vec<Box<dyn Controller>> =
            vec![Box::<Kubelet>::default(), Box::new(Self::new(settings))];
        Operators::start(client, pace, controllers)
    }

    /// The definitions of its kinds.
    pub fn definitions() -> Vec<Value> {
        definitions::definitions()
    }

    /// The `bundle.yaml` of a release, for example `1.6.0`. Its controller is that of the release before, which is a trap
    /// of the real ones.
    ///
    /// # Errors
    /// When it cannot be written as YAML.
    pub fn bundle(version: &str) -> anyhow::Result<String> {
        let objects = definitions::objects(version);
        let documents = objects.iter().map(serde_saphyr::to_string);
        let documents: Result<Vec<String>, _> = documents.collect();
        Ok(documents?.join("---\n"))
    }
}

#[async_trait]
impl Controller for K6 {
    fn name(&self) -> &'static str {
        "k6"
    }

    async fn reconcile(&mut self, tick: &Tick) -> anyhow::Result<()> {
        self.jobs(tick).await?;
        let own = tick
            .cluster
            .get("apps/v1", "Deployment", NAMESPACE, DEPLOYMENT)
            .await?;
        if own.is_none_or(|own| own["status"]["availableReplicas"].as_u64() < Some(1)) {
            return Ok(());
        }
        let mut failed = Ok(());
        for run in tick.cluster.list(API, "TestRun").await? {
            // One that cannot go on keeps no other from it.
            failed = failed.and(self.run(tick, &run).await);
        }
        failed
    }
}
