//! A cluster with Flux' operators in it, and the few things that tests do there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use kube::Client;
use sandbox::kube_api::KubeApi;
use sandbox::kube_sim::KubeSim;
use sandbox::operators::flux::{self, Files, Login, Settings, sealed};
use sandbox::operators::kubelet::Kubelet;
use sandbox::operators::{Cluster, Operators, Pace};
use serde_json::{Value, json};
use worker::kube::{Kubeconfig, Manifest, direct};
use worker::net::Dialer;

/// Longer than any wait that goes well.
const DEADLINE: Duration = Duration::from_secs(180);

pub(crate) const KUSTOMIZE: &str = "kustomize.toolkit.fluxcd.io/v1";
pub(crate) const HELM: &str = "helm.toolkit.fluxcd.io/v2";
pub(crate) const SOURCE: &str = "source.toolkit.fluxcd.io/v1";

/// What answers: the real thing, or the sandbox's own. Everything holds on both.
pub(crate) enum Api {
    Real(Box<KubeApi>),
    Small(Arc<KubeSim>),
}

impl Api {
    pub(crate) async fn real() -> Self {
        Self::Real(Box::new(KubeApi::start().await.unwrap()))
    }

    pub(crate) async fn small() -> Self {
        Self::Small(KubeSim::start().await.unwrap())
    }

    fn conf(&self) -> String {
        match self {
            Self::Real(api) => api.admin_conf().unwrap(),
            Self::Small(api) => api.direct_conf().unwrap(),
        }
    }

    /// Dies and comes back with all it knew.
    pub(crate) async fn restart(&mut self) {
        match self {
            Self::Real(api) => api.restart_api().await.unwrap(),
            Self::Small(api) => api.restart(Duration::from_millis(300)).await.unwrap(),
        }
    }

    async fn stop(self) {
        match self {
            Self::Real(api) => api.stop().await.unwrap(),
            Self::Small(api) => api.stop(),
        }
    }
}

/// A cluster on which Flux was bootstrapped.
pub(crate) struct World {
    pub(crate) api: Api,
    pub(crate) cluster: Cluster,
    pub(crate) operators: Operators,
    pub(crate) age: String,
}

impl World {
    /// A cluster with Flux' components, and operators that run; nothing of the tree is there yet.
    pub(crate) async fn start(api: Api) -> Self {
        Self::of(api, concat!(env!("CARGO_MANIFEST_DIR"), "/../..").as_ref()).await
    }

    /// The same, with another folder as the repository.
    pub(crate) async fn of(api: Api, repository: &Path) -> Self {
        let client = client(&api);
        let cluster = Cluster::new(client.clone());
        let (age, recipient) = sealed::age_key();
        let files: Files = sealed::payload(&recipient).unwrap();
        let contents = move |bucket: &str| (bucket == "rekindle-secrets").then(|| files.clone());
        let mut settings = Settings::new(
            Login::new("git", "token-1"),
            Login::new("AKIA", "store-secret"),
            Arc::new(contents),
        );
        settings.repository = repository.to_owned();
        let mut controllers = flux::controllers(&settings);
        controllers.push(Box::<Kubelet>::default());
        // Fast enough to wait for, slow enough for the API server of a busy machine.
        let pace = Pace {
            every: Duration::from_millis(50),
            stands_for: Duration::from_secs(10),
        };
        let world = Self {
            operators: Operators::start(client, pace, controllers),
            api,
            cluster,
            age,
        };
        world.apply_yaml(&flux::install_yaml("2.9.4")).await;
        world
    }

    /// Everything that Rekindle makes before the tree, then the tree's beginning.
    pub(crate) async fn bootstrap(&self) {
        let age = self.age.clone();
        self.secret(
            "flux-system",
            &[("username", "git"), ("password", "token-1")],
        )
        .await;
        self.secret(
            "s3-sops",
            &[("accesskey", "AKIA"), ("secretkey", "store-secret")],
        )
        .await;
        self.secret("sops-age", &[("age.agekey", &age)]).await;
        self.secret(
            "cert-manager-acme-email",
            &[("ACME_EMAIL", "ops@example.org")],
        )
        .await;
        self.secret("cluster-domain", &[("DOMAIN", "example.org")])
            .await;
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../flux/test");
        for file in ["settings", "source", "root", "infra"] {
            let text = std::fs::read_to_string(format!("{folder}/{file}.yaml")).unwrap();
            self.apply_yaml(&text).await;
        }
    }

    pub(crate) async fn secret(&self, name: &str, data: &[(&str, &str)]) {
        let data: serde_json::Map<_, _> = data
            .iter()
            .map(|(key, text)| ((*key).to_owned(), Value::from(BASE64.encode(text))))
            .collect();
        self.apply(&json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name, "namespace": "flux-system"}, "data": data}))
            .await;
    }

    /// Writes a switch as Rekindle does.
    pub(crate) async fn switch(&self, namespace: &str, name: &str, values: &Value) {
        self.apply(&json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace,
                "labels": {"reconcile.fluxcd.io/watch": "Enabled"}},
            "data": {"values-switch.yaml": values.to_string()}}))
            .await;
    }

    pub(crate) async fn apply_yaml(&self, text: &str) {
        let manifest = Manifest::parse(text, "a test").unwrap();
        for object in manifest.foundation.iter().chain(&manifest.rest) {
            self.apply(&object.body).await;
        }
    }

    /// Applies an object; a kind that was just defined may take a moment.
    pub(crate) async fn apply(&self, object: &Value) {
        let applied = tokio::time::timeout(DEADLINE, async {
            while let Err(error) = self.cluster.apply("rekindle", object).await {
                let later = matches!(&error, kube::Error::Api(status) if status.code == 404);
                assert!(later, "{error}: {object}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        applied.await.expect("it can never be applied");
    }

    pub(crate) async fn get(
        &self,
        api: &str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Option<Value> {
        let found = self.cluster.get(api, kind, namespace, name).await;
        found.unwrap()
    }

    pub(crate) async fn kustomization(&self, name: &str) -> Value {
        let found = self
            .get(KUSTOMIZE, "Kustomization", "flux-system", name)
            .await;
        found.unwrap_or_default()
    }

    pub(crate) async fn release(&self, namespace: &str, name: &str) -> Value {
        let found = self.get(HELM, "HelmRelease", namespace, name).await;
        found.unwrap_or_default()
    }

    /// Waits until an object looks as it should, and gives it.
    pub(crate) async fn until(
        &self,
        [api, kind, namespace, name]: [&str; 4],
        looks: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut last = Value::Null;
        let found = tokio::time::timeout(DEADLINE, async {
            loop {
                if let Ok(Some(found)) = self.cluster.get(api, kind, namespace, name).await {
                    if looks(&found) {
                        return found;
                    }
                    last = found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        found.unwrap_or_else(|_| {
            let (status, errors) = (&last["status"], self.operators.errors());
            panic!("{kind} {namespace}/{name} never looks so: {status:#}\n{errors}")
        })
    }

    pub(crate) async fn kustomization_is(&self, name: &str, reason: &str) -> Value {
        let which = [KUSTOMIZE, "Kustomization", "flux-system", name];
        self.until(which, |found| ready(found).1 == reason).await
    }

    pub(crate) async fn release_is(&self, namespace: &str, name: &str, reason: &str) -> Value {
        let which = [HELM, "HelmRelease", namespace, name];
        self.until(which, |found| ready(found).1 == reason).await
    }

    /// Nothing is written any more as long as nothing happens: what was wanted once is not wanted again each tick.
    pub(crate) async fn is_quiet(&self) {
        let versions = async || {
            let mut all = Vec::new();
            for (api, kind) in [
                ("v1", "Pod"),
                ("v1", "Secret"),
                ("apps/v1", "Deployment"),
                ("apps/v1", "StatefulSet"),
                (HELM, "HelmRelease"),
            ] {
                for object in self.cluster.list(api, kind).await.unwrap() {
                    let metadata = &object["metadata"];
                    let version = &metadata["resourceVersion"];
                    all.push(format!("{kind} {}: {version}", metadata["name"]));
                }
            }
            all
        };
        let (mut before, mut since) = (versions().await, self.operators.ticks());
        let quiet = tokio::time::timeout(DEADLINE, async {
            while self.operators.ticks() < since + 10 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let now = versions().await;
                if now != before {
                    (before, since) = (now, self.operators.ticks());
                }
            }
        });
        quiet.await.expect("something is written again and again");
    }

    /// Ends everything.
    pub(crate) async fn stop(self) {
        self.operators.stop().await;
        self.api.stop().await;
    }
}

/// The status, reason and message of an object's `Ready`; empty when it has none.
pub(crate) fn ready(object: &Value) -> (&str, &str, &str) {
    let conditions = object["status"]["conditions"].as_array();
    let mut all = conditions.into_iter().flatten();
    let found = all.find(|condition| condition["type"] == "Ready");
    let text = |field: &str| found.and_then(|c| c[field].as_str()).unwrap_or_default();
    (text("status"), text("reason"), text("message"))
}

/// Whether an object is Ready at its generation.
pub(crate) fn is_ready(object: &Value) -> bool {
    let generation = &object["metadata"]["generation"];
    ready(object).0 == "True" && object["status"]["observedGeneration"] == *generation
}

pub(crate) fn client(api: &Api) -> Client {
    let config = Kubeconfig::parse(&api.conf(), "admin.conf").unwrap();
    direct(&config, Dialer::direct()).unwrap()
}
