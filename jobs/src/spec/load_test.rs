//! The `load_test` section of a spec: how the recovered application is loaded from outside, and what it must bear.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Problem;
use super::{Cidr, ClusterSpec, versions};
use crate::ids::ObjectName;
use crate::images::{Reference, is_sha256};

/// The load test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadTest {
    /// What every virtual user asks for: a URL that must answer with 200. `${DOMAIN}` is the secret of that name.
    pub target: String,
    /// Where the load comes from.
    #[serde(default)]
    pub driver: Driver,
    /// How many virtual users there are, all runners together.
    pub virtual_users: NonZeroU32,
    /// How often each of them goes through the script.
    pub iterations: NonZeroU32,
    /// How many runners share the virtual users; for the drivers with Kubernetes.
    #[serde(default = "one")]
    pub parallelism: NonZeroU32,
    /// How long the load may last, for example `30m`; `1h` when absent. What is not done by then makes the result
    /// invalid.
    #[serde(default = "an_hour", with = "super::targets::duration")]
    #[schemars(with = "Option<String>")]
    pub max_duration: SignedDuration,
    /// What the application must bear.
    pub thresholds: Thresholds,
    /// k6 and its operator; for the drivers with Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k6: Option<K6>,
    /// The temporary cluster; for the driver `yandex`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yandex: Option<YandexCluster>,
}

/// Where load comes from.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// The worker itself: a smoke test, no script.
    #[default]
    Local,
    /// k6 on a cluster whose kubeconfig is the secret LOAD_KUBECONFIG.
    Kubeconfig,
    /// k6 on a temporary cluster at Yandex Cloud.
    Yandex,
}

/// What the application must bear. They hold over all runners; that there are iterations at all is always asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// The 95th percentile of the time a request takes, in milliseconds, at most. With several runners it is that of
    /// the slowest one: percentiles cannot be merged.
    pub p95_ms: u64,
    /// Failed requests, as a share from 0 to 1, at most.
    #[serde(default)]
    pub error_rate: Share,
    /// Checks of the script that held, as a share from 0 to 1, at least.
    #[serde(default = "Share::all")]
    pub checks: Share,
}

/// A share, from 0 to 1.
#[derive(
    Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "f64", into = "f64")]
#[schemars(with = "f64")]
pub struct Share(f64);

// It is never NaN.
impl Eq for Share {}

impl Share {
    /// Everything: 1.
    pub fn all() -> Self {
        Self(1.0)
    }
}

impl TryFrom<f64> for Share {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        match (0.0..=1.0).contains(&value) {
            true => Ok(Self(value)),
            false => Err(format!("{value} is not a share from 0 to 1")),
        }
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> f64 {
        share.0
    }
}

/// k6 and its operator, all of it pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct K6 {
    /// Version of k6-operator, for example `1.6.0`; without `v`. Its images are pinned by it.
    pub operator: String,
    /// `sha256:` and 64 digits of its `bundle.yaml`. Without it the digest of the first use is recorded, and a file
    /// that differs is refused ever after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The image that runners and initializer are made from, for example `docker.io/grafana/k6:2.2.0`.
    #[schemars(with = "String")]
    pub image: Reference,
    /// The image of the starter; `ghcr.io/grafana/k6-operator:starter-v<operator>` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub starter: Option<Reference>,
    /// The image of the operator; `ghcr.io/grafana/k6-operator:controller-v<operator>` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub controller: Option<Reference>,
    /// Labels of the nodes that runners go to; any node when there are none. The driver `yandex` has its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that runners tolerate, `key=value:Effect`. The driver `yandex` has its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<String>,
    /// Memory of one runner, as Kubernetes writes it; `2Gi` when absent. Requested, and the limit.
    #[serde(default = "two_gi")]
    pub memory: String,
}

/// A temporary cluster of Managed Service for Kubernetes. Whatever is made carries our labels and a time to live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct YandexCluster {
    /// The zone of everything, for example `ru-central1-d`.
    pub zone: ObjectName,
    /// Version of Kubernetes, for example `1.33`.
    pub version: String,
    /// The release channel.
    #[serde(default)]
    pub channel: Channel,
    /// Id of the service account that the cluster and its nodes act as.
    pub service_account: String,
    /// Addresses of the subnet, for example `192.168.0.0/16`.
    pub subnet: String,
    /// Addresses of Pods, for example `172.16.0.0/16`.
    pub pods: String,
    /// Addresses of Services, for example `10.96.0.0/16`.
    pub services: String,
    /// The nodes that k6's operator and starter run on.
    pub system: NodePool,
    /// The nodes that runners run on: one for each runner is usual.
    pub runners: NodePool,
    /// After this time whatever is left is deleted by `rekindle reap` and the workers' sweep; `6h` when absent.
    #[serde(default = "six_hours", with = "super::targets::duration")]
    #[schemars(with = "Option<String>")]
    pub ttl: SignedDuration,
}

/// A release channel of Managed Service for Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Channel {
    /// The newest versions.
    Rapid,
    /// Versions that have been in `RAPID` for a while.
    #[default]
    Regular,
    /// The oldest ones.
    Stable,
}

/// Nodes of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodePool {
    /// How many.
    pub nodes: NonZeroU32,
    /// Cores of each.
    pub cores: NonZeroU32,
    /// Memory of each, in GB.
    pub ram_gb: NonZeroU32,
    /// Boot disk of each, in GB.
    pub disk_gb: NonZeroU32,
}

impl LoadTest {
    /// The test with what a job was told instead; every problem that this brings.
    pub fn told(&self, job: &crate::message::LoadTest) -> Result<Self, Vec<Problem>> {
        let told = Self {
            driver: job.driver.unwrap_or(self.driver),
            target: job.target.clone().unwrap_or_else(|| self.target.clone()),
            virtual_users: job.virtual_users.unwrap_or(self.virtual_users),
            iterations: job.iterations.unwrap_or(self.iterations),
            parallelism: job.parallelism.unwrap_or(self.parallelism),
            ..self.clone()
        };
        let mut found = Vec::new();
        told.check(&mut found);
        if found.is_empty() {
            Ok(told)
        } else {
            Err(found)
        }
    }
}

/// What is wrong with the section.
pub(super) fn check(spec: &ClusterSpec, found: &mut Vec<Problem>) {
    if let Some(test) = &spec.load_test {
        test.check(found);
    }
}

impl LoadTest {
    /// The section with everything that its driver needs.
    fn check(&self, found: &mut Vec<Problem>) {
        let test = self;
        let mut bad = |field: &str, reason: String| {
            found.push(Problem::new(format!("load_test.{field}"), reason));
        };
        if let Err(reason) = check_target(&test.target) {
            bad("target", reason);
        }
        if test.thresholds.p95_ms == 0 {
            bad("thresholds.p95_ms", "no request takes no time".into());
        }
        if test.parallelism > test.virtual_users {
            bad(
                "parallelism",
                format!(
                    "{} runners share {} virtual users: k6 refuses to run without one for each",
                    test.parallelism, test.virtual_users
                ),
            );
        }
        if test.driver != Driver::Local && test.k6.is_none() {
            bad(
                "k6",
                "the driver runs k6 and there is no such section".into(),
            );
        }
        if test.driver == Driver::Yandex && test.yandex.is_none() {
            bad(
                "yandex",
                "the driver is `yandex` and there is no such section".into(),
            );
        }
        if let Some(k6) = &test.k6 {
            if let Err(reason) = k6.operator.parse::<versions::Version>() {
                bad("k6.operator", reason);
            }
            let sound = |digest: &str| digest.strip_prefix("sha256:").is_some_and(is_sha256);
            if k6.digest.as_deref().is_some_and(|digest| !sound(digest)) {
                bad(
                    "k6.digest",
                    "it is not `sha256:` and 64 lower-case digits".into(),
                );
            }
            for (field, image) in [
                ("image", Some(&k6.image)),
                ("starter", k6.starter.as_ref()),
                ("controller", k6.controller.as_ref()),
            ] {
                if image.is_some_and(|image| image.to_string().ends_with("latest")) {
                    bad(
                        &format!("k6.{field}"),
                        "`latest` is another image tomorrow; name a version".into(),
                    );
                }
            }
        }
        if let Some(yandex) = &test.yandex {
            check_yandex(yandex, test.max_duration, &mut bad);
        }
    }
}

/// What making a cluster, bringing k6 there and collecting its results may take beside the load.
const AROUND: SignedDuration = SignedDuration::from_hours(2);

fn check_yandex(
    yandex: &YandexCluster,
    max_duration: SignedDuration,
    bad: &mut impl FnMut(&str, String),
) {
    if yandex.ttl < max_duration.saturating_add(AROUND) {
        let reason = "it is not two hours longer than `max_duration`: making the cluster takes its time, too, and \
                      other workers would delete it under the test";
        bad("yandex.ttl", reason.into());
    }
    if yandex.service_account.trim().is_empty() {
        bad("yandex.service_account", "it is empty".into());
    }
    let ranges = [
        ("subnet", &yandex.subnet),
        ("pods", &yandex.pods),
        ("services", &yandex.services),
    ];
    let mut seen: Vec<(&str, Cidr)> = Vec::new();
    for (field, text) in ranges {
        match text.parse::<Cidr>() {
            Err(reason) => bad(&format!("yandex.{field}"), reason),
            Ok(range) => {
                if let Some((other, _)) = seen.iter().find(|(_, other)| other.overlaps(&range)) {
                    bad(
                        &format!("yandex.{field}"),
                        format!("it has addresses of `{other}`"),
                    );
                }
                seen.push((field, range));
            }
        }
    }
}

/// What is wrong with a target, if anything is.
pub fn check_target(target: &str) -> Result<(), String> {
    match target.starts_with("https://") || target.starts_with("http://") {
        true => Ok(()),
        false => Err("it does not begin with https:// or http://".into()),
    }
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

fn an_hour() -> SignedDuration {
    SignedDuration::from_hours(1)
}

fn six_hours() -> SignedDuration {
    SignedDuration::from_hours(6)
}

fn two_gi() -> String {
    "2Gi".into()
}
