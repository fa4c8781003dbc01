//! A small API with two load nodes and one for the system, the operator, and what is loaded.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use sandbox::kube_sim::KubeSim;
use sandbox::operators::k6::{DEPLOYMENT, Faults, K6, K6Settings, NAMESPACE};
use sandbox::operators::{Cluster, Operators, Pace};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use worker::kube::{Kubeconfig, Manifest, direct};
use worker::net::Dialer;

const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const API: &str = "k6.io/v1alpha1";
pub(crate) const SPACE: &str = "load";
pub(crate) const BEGIN: &str = "---rekindle-summary-begin---";
pub(crate) const END: &str = "---rekindle-summary-end---";

/// As much of a script as the stand-in looks at.
pub(crate) const SCRIPT: &str = r#"
const BEGIN = "---rekindle-summary-begin---";
const END = "---rekindle-summary-end---";
const TARGET = text("TARGET");
export const options = {
  scenarios: { load: { executor: "per-vu-iterations", vus: number("VUS"), iterations: number("ITERATIONS") } },
  summaryTrendStats: ["min", "avg", "med", "p(90)", "p(95)", "max", "count"],
};
export function handleSummary(data) {
  return { stdout: `\n${BEGIN}\n${JSON.stringify(data)}\n${END}\n` };
}
"#;

pub(crate) struct Lab {
    pub(crate) sim: Arc<KubeSim>,
    pub(crate) cluster: Cluster,
    pub(crate) operators: Option<Operators>,
    pub(crate) faults: Faults,
    pub(crate) shop: Shop,
    /// The name of the test, which no other one has.
    pub(crate) name: String,
}

/// What is loaded.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) url: String,
    pub(crate) asked: Arc<AtomicU64>,
    pub(crate) answers: Arc<AtomicU16>,
}

impl Shop {
    pub(crate) fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    /// One that nobody comes to yet.
    pub(crate) fn closed() -> Self {
        Self {
            url: String::new(),
            asked: Arc::default(),
            answers: Arc::new(AtomicU16::new(200)),
        }
    }

    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut shop = Self::closed();
        shop.url = format!("http://{}/", listener.local_addr().unwrap());
        let router = shop.router();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        shop
    }

    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn answer(State(shop): State<Shop>) -> (StatusCode, &'static str) {
    shop.asked.fetch_add(1, Ordering::SeqCst);
    let code = shop.answers.load(Ordering::SeqCst);
    (StatusCode::from_u16(code).unwrap(), "<html>shop</html>")
}

impl Lab {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut K6Settings)) -> Self {
        worker::install_crypto();
        let sim = KubeSim::start().await.unwrap();
        let config = Kubeconfig::parse(&sim.direct_conf().unwrap(), "test").unwrap();
        let client = direct(&config, Dialer::direct()).unwrap();
        let program = env!("CARGO_BIN_EXE_k6-stand-in");
        let mut settings = K6Settings::new(program, Arc::clone(&sim));
        settings.pace = Pace {
            every: Duration::from_millis(20),
            stands_for: Duration::from_secs(10),
        };
        change(&mut settings);
        let faults = settings.faults.clone();
        let uid = uuid::Uuid::new_v4().simple().to_string();
        let lab = Self {
            sim,
            cluster: Cluster::new(client.clone()),
            operators: Some(K6::start(client, settings)),
            faults,
            shop: Shop::open().await,
            name: format!("load-{}", &uid[..12]),
        };
        for (node, load) in [("load-1", true), ("load-2", true), ("system-1", false)] {
            let mut node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node }, "spec": {} });
            if load {
                node["metadata"]["labels"] = json!({ "role": "load-generator" });
                node["spec"]["taints"] =
                    json!([{ "key": "dedicated", "value": "k6", "effect": "NoSchedule" }]);
            }
            lab.apply(&node).await;
        }
        let bundle = Manifest::parse(&K6::bundle("1.6.0").unwrap(), "bundle.yaml").unwrap();
        for object in bundle.foundation.iter().chain(&bundle.rest) {
            lab.apply(&object.body).await;
        }
        let space =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": SPACE } });
        lab.apply(&space).await;
        let target = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "target", "namespace": SPACE },
            "stringData": { "TARGET": lab.shop.url } });
        lab.apply(&target).await;
        lab.script(SCRIPT).await;
        lab
    }

    pub(crate) async fn apply(&self, object: &Value) {
        let deadline = Instant::now() + DEADLINE;
        // A kind is served some moments after it is defined.
        while let Err(error) = self.cluster.apply("test", object).await {
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn script(&self, text: &str) {
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "script", "namespace": SPACE },
            "data": { "test.js": text } });
        self.apply(&map).await;
    }

    /// The spec of a test with two runners that go where load nodes are.
    pub(crate) fn spec(users: u32, iterations: u32) -> Value {
        let value = |name: &str, value: &str| json!({ "name": name, "value": value });
        let target = json!({ "secretKeyRef": { "name": "target", "key": "TARGET" } });
        json!({
            "parallelism": 2,
            "script": { "configMap": { "name": "script", "file": "test.js" } },
            "runner": {
                "image": "grafana/k6:2.2.0",
                "env": [
                    { "name": "TARGET", "valueFrom": target },
                    value("VUS", &users.to_string()), value("ITERATIONS", &iterations.to_string()),
                    value("MAX_DURATION", "600s"), value("P95_MS", "60000"), value("ERROR_RATE", "0.01"),
                    value("CHECKS", "1"),
                ],
                "tolerations": [{ "key": "dedicated", "operator": "Equal", "value": "k6", "effect": "NoSchedule" }],
                "nodeSelector": { "role": "load-generator" },
            },
        })
    }

    /// Sets a variable of the runners.
    pub(crate) fn set(spec: &mut Value, name: &str, value: &str) {
        let all = spec["runner"]["env"].as_array_mut().unwrap();
        all.retain(|variable| variable["name"] != name);
        all.push(json!({ "name": name, "value": value }));
    }

    pub(crate) async fn begin(&self, spec: &Value) {
        let run = json!({ "apiVersion": API, "kind": "TestRun",
            "metadata": { "name": self.name, "namespace": SPACE }, "spec": spec });
        self.apply(&run).await;
    }

    pub(crate) async fn run(&self) -> Value {
        let found = self.cluster.get(API, "TestRun", SPACE, &self.name).await;
        found.unwrap().unwrap_or_default()
    }

    pub(crate) async fn stage(&self) -> String {
        let run = self.run().await;
        run["status"]["stage"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub(crate) async fn until(&self, what: &str, look: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !look().await {
            if Instant::now() >= deadline {
                let errors = self.operators.as_ref().map(Operators::errors);
                panic!(
                    "never: {what}; {errors:?} {:#} {:#?}",
                    self.run().await,
                    self.pods("app=k6").await
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn until_stage(&self, stage: &str) {
        self.until(stage, async || self.stage().await == stage)
            .await;
    }

    /// So many ticks in which something could have happened.
    pub(crate) async fn ticks(&self, ticks: u64) {
        let now = || self.operators.as_ref().unwrap().ticks();
        let until = now() + ticks;
        self.until("ticks go by", async || now() >= until).await;
    }

    pub(crate) async fn pods(&self, labels: &str) -> Vec<Value> {
        self.cluster.list_with("v1", "Pod", labels).await.unwrap()
    }

    pub(crate) async fn runners(&self) -> Vec<Value> {
        self.pods(&format!("k6_cr={},runner=true", self.name)).await
    }

    /// The Pod of a Job: `1`, `starter`.
    pub(crate) async fn pod(&self, of: &str) -> Value {
        let job = format!("job-name={}-{of}", self.name);
        self.pods(&job).await.into_iter().next().unwrap_or_default()
    }

    pub(crate) async fn job(&self, of: &str) -> Value {
        let name = format!("{}-{of}", self.name);
        let found = self.cluster.get("batch/v1", "Job", SPACE, &name).await;
        found.unwrap().unwrap_or_default()
    }

    pub(crate) async fn phase(&self, of: &str) -> String {
        let pod = self.pod(of).await;
        pod["status"]["phase"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The exit code of a Pod's container, and the reason.
    pub(crate) async fn ended(&self, of: &str) -> (i64, String) {
        let pod = self.pod(of).await;
        let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        let reason = ended["reason"].as_str().unwrap_or_default();
        (ended["exitCode"].as_i64().unwrap_or(-1), reason.to_owned())
    }

    /// Why a Pod's container waits.
    pub(crate) async fn waits(&self, of: &str) -> String {
        let pod = self.pod(of).await;
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        format!(
            "{}: {}",
            waiting["reason"].as_str().unwrap_or_default(),
            waiting["message"].as_str().unwrap_or_default()
        )
    }

    pub(crate) async fn log(&self, of: &str) -> String {
        let pod = self.pod(of).await;
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("/api/v1/namespaces/{SPACE}/pods/{name}/log");
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        self.cluster.client().request_text(request).await.unwrap()
    }

    /// What a runner counted.
    pub(crate) async fn summary(&self, of: &str) -> Value {
        let log = self.log(of).await;
        let (_, rest) = log.split_once(&format!("{BEGIN}\n")).expect(&log);
        let (line, _) = rest.split_once(&format!("\n{END}")).expect(&log);
        assert!(!line.contains('\n'), "{line}");
        serde_json::from_str(line).unwrap()
    }

    pub(crate) fn count(summary: &Value, metric: &str, value: &str) -> u64 {
        summary["metrics"][metric]["values"][value]
            .as_u64()
            .unwrap_or_default()
    }

    pub(crate) fn operator() -> String {
        format!("{NAMESPACE}/{DEPLOYMENT}")
    }

    /// The processes of this test's runners.
    pub(crate) fn processes(&self) -> BTreeSet<i32> {
        let tag = format!("testrun_name={}", self.name);
        let all = std::fs::read_dir("/proc").unwrap();
        let all = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        all.filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&tag)
        })
        .collect()
    }

    pub(crate) async fn until_no_process(&self) {
        self.until("no process is left", async || self.processes().is_empty())
            .await;
    }
}
