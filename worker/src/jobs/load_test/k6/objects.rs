//! The objects of a run: its namespace, what its Pods read, and the TestRun.

use jobs::spec::K6;
use jobs::store::Secret;
use serde_json::{Value, json};

use super::super::Test;
use super::{Place, bundle};
use crate::engine::{Ctx, JobError};
use crate::kube::{Object, apply};

/// Our script.
const SCRIPT: &str = include_str!("../../../../../deploy/loadtest/test.js");
/// No ConfigMap holds more, in bytes.
const LARGEST: usize = 1 << 20;
/// The script's file, and the key of the ConfigMap.
const FILE: &str = "test.js";
/// The ConfigMap with the script.
const CONFIG_MAP: &str = "script";
/// The Secret with the target.
const SECRET: &str = "target";
/// Its key, and the variable that the script reads it from.
const TARGET: &str = "TARGET";
/// The group and version of a TestRun.
pub(super) const K6_IO: &str = "k6.io/v1alpha1";
/// What the initializer needs to read a script.
const INITIALIZER: &str = "64Mi";

/// The part of a test that an object belongs to, as its label has it.
const PART: &str = "rekindle-part";
/// What belongs to one run.
pub(super) const TEST: &str = "test";
/// What belongs to the operator.
pub(super) const OPERATOR: &str = "operator";

/// The labels that all carry which a test made on a cluster that it shares with others: by them it is found and
/// taken away, and without them nothing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marks {
    cluster: String,
    recovery: String,
}

impl Marks {
    /// Those of a job's recovery.
    pub(super) fn of(ctx: &Ctx) -> Self {
        Self::new(ctx.cluster().as_str(), ctx.recovery().as_str())
    }

    /// Both are DNS labels, so they are values of labels too.
    pub(super) fn new(cluster: &str, recovery: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            recovery: recovery.to_owned(),
        }
    }

    fn labels<'a>(&'a self, part: &'a str) -> [(&'static str, &'a str); 3] {
        [
            ("rekindle", &self.cluster),
            ("rekindle-recovery", &self.recovery),
            (PART, part),
        ]
    }

    /// Puts them on an object.
    pub(super) fn put_on(&self, object: &mut Value, part: &str) {
        for (key, value) in self.labels(part) {
            object["metadata"]["labels"][key] = value.into();
        }
    }

    /// Whether an object that is there carries them, and by our own hand.
    pub(super) fn are_on(&self, seen: &Value, part: &str) -> bool {
        let metadata = &seen["metadata"];
        let mut managers = metadata["managedFields"].as_array().into_iter().flatten();
        let labels = &metadata["labels"];
        managers.any(|it| it["manager"] == apply::MANAGER)
            && self
                .labels(part)
                .iter()
                .all(|(key, value)| labels[*key] == **value)
    }

    /// What selects the objects that carry them.
    pub(super) fn selector(&self, part: &str) -> String {
        self.labels(part)
            .map(|(key, value)| format!("{key}={value}"))
            .join(",")
    }
}

/// The script of a test: the one that it was given, or ours.
pub(super) async fn script(ctx: &Ctx, test: &Test) -> Result<String, JobError> {
    let Some(digest) = &test.script else {
        return Ok(SCRIPT.to_owned());
    };
    let bytes = ctx.store().get_input(digest).await?;
    if bytes.len() + FILE.len() > LARGEST {
        return Err(JobError::fatal(format!(
            "the script has {} bytes, and it travels in a ConfigMap, which holds {LARGEST}: leave out what it does \
             not need",
            bytes.len()
        )));
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| JobError::fatal("the script is not text"))
}

/// The namespace of a run. Its Pods need nothing special, but say nothing about users and privileges either, which
/// `restricted` would want.
pub(super) fn namespace(test: &Test, marks: &Marks) -> Result<Object, JobError> {
    let mut body = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": test.run, "labels": {"pod-security.kubernetes.io/enforce": "baseline"}},
    });
    marks.put_on(&mut body, TEST);
    object(body)
}

pub(super) fn config_map(test: &Test, script: &str) -> Result<Object, JobError> {
    object(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP, "namespace": test.run},
        "data": {FILE: script},
    }))
}

/// The target is a secret, since the domain is.
pub(super) fn secret(test: &Test, target: &Secret) -> Result<Object, JobError> {
    object(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": test.run},
        "type": "Opaque",
        "stringData": {TARGET: target.reveal()},
    }))
}

/// Where the TestRun is.
pub(super) fn run_of(test: &Test) -> Object {
    Object::at(K6_IO, "TestRun", Some(&test.run), &test.run)
}

/// The TestRun. It has no `cleanup`: that would take the logs away with the Pods, before anybody has read them.
pub(super) fn test_run(
    test: &Test,
    k6: &K6,
    place: &Place,
    marks: &Marks,
) -> Result<Object, JobError> {
    let spread = Spread::of(k6, place)?;
    let settings = variables(test);
    let pod = |image: &str, resources: Value, selector: &Value, tolerations: &Value| {
        json!({
            "image": image,
            "env": settings,
            "resources": resources,
            "nodeSelector": selector,
            "tolerations": tolerations,
            // Nothing of it asks the API server for anything. The operator wants a text here.
            "automountServiceAccountToken": "false",
        })
    };
    let image = k6.image.to_string();
    let memory =
        |asked: &str| json!({"requests": {"memory": asked}, "limits": {"memory": k6.memory}});
    let mut starter = json!({
        "image": bundle::starter(k6),
        "nodeSelector": spread.others.0,
        "tolerations": spread.others.1,
        "automountServiceAccountToken": "false",
    });
    let mut runner = pod(
        &image,
        memory(&k6.memory),
        &spread.runners.0,
        &spread.runners.1,
    );
    let mut initializer = pod(
        &image,
        memory(INITIALIZER),
        &spread.others.0,
        &spread.others.1,
    );
    for part in [&mut runner, &mut initializer, &mut starter] {
        without_empty(part);
    }
    let mut body = json!({
        "apiVersion": K6_IO,
        "kind": "TestRun",
        "metadata": {"name": test.run, "namespace": test.run},
        "spec": {
            "parallelism": test.parallelism,
            "script": {"configMap": {"name": CONFIG_MAP, "file": FILE}},
            "separate": spread.apart && test.parallelism.get() > 1,
            "runner": runner,
            "initializer": initializer,
            "starter": starter,
        },
    });
    marks.put_on(&mut body, TEST);
    object(body)
}

/// What the script is told. The target comes from the Secret, by its key: the initializer reads the script too, and
/// the operator does not give it `envFrom`.
fn variables(test: &Test) -> Value {
    let key = json!({"secretKeyRef": {"name": SECRET, "key": TARGET}});
    let target = json!({"name": TARGET, "valueFrom": key});
    let plain = settings(test).map(|(name, value)| json!({"name": name, "value": value}));
    plain.into_iter().chain([target]).collect()
}

fn settings(test: &Test) -> [(&'static str, String); 7] {
    let thresholds = &test.section.thresholds;
    [
        ("VUS", test.virtual_users.to_string()),
        ("ITERATIONS", test.iterations.to_string()),
        ("MAX_DURATION", format!("{}s", test.max_duration.as_secs())),
        ("P95_MS", thresholds.p95_ms.to_string()),
        ("ERROR_RATE", f64::from(thresholds.error_rate).to_string()),
        ("CHECKS", f64::from(thresholds.checks).to_string()),
        ("K6_NO_USAGE_REPORT", "true".to_owned()),
    ]
}

/// Which nodes Pods go to: labels and tolerations.
struct Spread {
    runners: (Value, Value),
    /// Initializer and starter. The operator gives the starter nothing of what the runners have.
    others: (Value, Value),
    /// One runner a node, at most.
    apart: bool,
}

impl Spread {
    fn of(k6: &K6, place: &Place) -> Result<Self, JobError> {
        Ok(match place {
            // We know nothing of that cluster but what the spec says, so it is said of all Pods.
            Place::Given => {
                let tolerations = k6.tolerations.iter().map(|text| toleration(text));
                let tolerations = tolerations.collect::<Result<Vec<Value>, _>>()?;
                let nodes = (json!(k6.node_selector), json!(tolerations));
                Self {
                    runners: nodes.clone(),
                    others: nodes,
                    apart: false,
                }
            }
            Place::Yandex(_) => Self {
                runners: (
                    json!({"role": "load-generator"}),
                    json!([toleration("dedicated=k6:NoSchedule")?]),
                ),
                others: (json!({}), json!([])),
                apart: true,
            },
        })
    }
}

/// `key=value:Effect`, or `key:Effect` for any value.
fn toleration(text: &str) -> Result<Value, JobError> {
    let wrong = || {
        JobError::fatal(format!(
            "`load_test.k6.tolerations` of the spec: `{text}` is not `key=value:NoSchedule` (or PreferNoSchedule, or NoExecute)"
        ))
    };
    let (taint, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) || taint.is_empty() {
        return Err(wrong());
    }
    Ok(match taint.split_once('=') {
        Some((key, value)) => {
            json!({"key": key, "operator": "Equal", "value": value, "effect": effect})
        }
        None => json!({"key": taint, "operator": "Exists", "effect": effect}),
    })
}

/// What is empty is better not there.
fn without_empty(pod: &mut Value) {
    if let Some(fields) = pod.as_object_mut() {
        fields.retain(|_, value| {
            value.as_array().is_none_or(|it| !it.is_empty())
                && value.as_object().is_none_or(|it| !it.is_empty())
        });
    }
}

fn object(body: Value) -> Result<Object, JobError> {
    Object::new(body)
        .map_err(|field| JobError::fatal(format!("an object of the test has no usable `{field}`")))
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
