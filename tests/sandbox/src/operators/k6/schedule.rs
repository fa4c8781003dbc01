//! The scheduler: whether a Pod may go to a node, and why not. Pure.

use serde_json::Value;

use crate::operators::api::name;
use crate::operators::percona::json::text;

/// Finds a node for a Pod: the one with the fewest of the Pods that are there. Else it says why there is none, in the
/// scheduler's words.
pub(super) fn node_for(pod: &Value, nodes: &[Value], pods: &[Value]) -> Result<String, String> {
    let mut refused: Vec<String> = Vec::new();
    let mut fitting: Vec<(usize, &str)> = Vec::new();
    for node in nodes {
        match refusal(pod, node, pods) {
            Some(why) => refused.push(why),
            None => fitting.push((on(node, pods).count(), name(node))),
        }
    }
    if let Some((_, node)) = fitting.into_iter().min() {
        return Ok(node.to_owned());
    }
    refused.sort();
    let mut reasons: Vec<String> = Vec::new();
    for same in refused.chunk_by(|a, b| a == b) {
        reasons.push(format!("{} {}", same.len(), same[0]));
    }
    let (all, reasons) = (nodes.len(), reasons.join(", "));
    Err(match all {
        0 => "no nodes available to schedule pods".to_owned(),
        _ => format!(
            "0/{all} nodes are available: {reasons}. preemption: 0/{all} nodes are available: {all} Preemption is not helpful for scheduling."
        ),
    })
}

/// Why a Pod may not go to a node.
fn refusal(pod: &Value, node: &Value, pods: &[Value]) -> Option<String> {
    let spec = &pod["spec"];
    if node["spec"]["unschedulable"] == true {
        return Some("node(s) were unschedulable".to_owned());
    }
    if let Some(taint) = items(&node["spec"]["taints"]).find(|taint| !tolerates(spec, taint)) {
        let taint = match text(taint, "/value") {
            "" => format!("{}: ", text(taint, "/key")),
            value => format!("{}: {value}", text(taint, "/key")),
        };
        return Some(format!("node(s) had untolerated taint {{{taint}}}"));
    }
    let labels = &node["metadata"]["labels"];
    let wanted = spec["nodeSelector"].as_object().into_iter().flatten();
    let mut missing = wanted.filter(|(key, value)| labels[key.as_str()] != **value);
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = &spec["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"];
    let of_term = |term: &Value| items(&term["matchExpressions"]).all(|of| expression(of, labels));
    let suits = terms.is_null() || items(terms).any(of_term);
    if missing.next().is_some() || !suits {
        return Some("node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    let apart = &spec["affinity"]["podAntiAffinity"][required];
    let mut together = items(apart).filter(|term| {
        let selector = &term["labelSelector"];
        on(node, pods).any(|pod| selects(selector, &pod["metadata"]["labels"]))
    });
    together
        .next()
        .map(|_| "node(s) didn't match pod anti-affinity rules".to_owned())
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The Pods on a node that are not over.
fn on<'a>(node: &'a Value, pods: &'a [Value]) -> impl Iterator<Item = &'a Value> {
    pods.iter().filter(|pod| {
        let over = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
        !over && text(pod, "/spec/nodeName") == name(node)
    })
}

fn tolerates(spec: &Value, taint: &Value) -> bool {
    let effect = text(taint, "/effect");
    effect == "PreferNoSchedule"
        || items(&spec["tolerations"]).any(|toleration| {
            let given = |field: &str| text(toleration, field);
            let key = match given("/key") {
                // Without a key it has to be for every taint.
                "" => given("/operator") == "Exists",
                key => key == text(taint, "/key"),
            };
            let value = given("/operator") == "Exists" || given("/value") == text(taint, "/value");
            key && value && ["", effect].contains(&given("/effect"))
        })
}

fn selects(selector: &Value, labels: &Value) -> bool {
    let mut same = selector["matchLabels"].as_object().into_iter().flatten();
    same.all(|(key, value)| labels[key.as_str()] == *value)
        && items(&selector["matchExpressions"]).all(|of| expression(of, labels))
}

fn expression(of: &Value, labels: &Value) -> bool {
    let label = labels.get(text(of, "/key"));
    let listed = label.is_some_and(|label| items(&of["values"]).any(|value| value == label));
    match text(of, "/operator") {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nodes() -> Vec<Value> {
        let load = |name: &str| {
            json!({ "metadata": { "name": name, "labels": { "role": "load-generator" } },
                "spec": { "taints": [{ "key": "dedicated", "value": "k6", "effect": "NoSchedule" }] } })
        };
        let system = json!({ "metadata": { "name": "system-1", "labels": {} }, "spec": {} });
        vec![load("load-1"), load("load-2"), system]
    }

    fn pod(spec: Value) -> Value {
        json!({ "metadata": { "labels": { "app": "k6", "runner": "true" } }, "spec": spec })
    }

    fn toleration() -> Value {
        json!([{ "key": "dedicated", "operator": "Equal", "value": "k6", "effect": "NoSchedule" }])
    }

    #[test]
    fn a_pod_goes_where_taints_and_labels_let_it() {
        let check = |spec: Value, expected: Result<&str, &str>| {
            let found = node_for(&pod(spec.clone()), &nodes(), &[]);
            match (found, expected) {
                (Ok(node), Ok(expected)) => assert_eq!(node, expected, "{spec}"),
                (Err(why), Err(expected)) => assert!(why.contains(expected), "{spec}: {why}"),
                (found, _) => panic!("{spec}: {found:?}"),
            }
        };
        let selector = json!({ "role": "load-generator" });
        check(json!({}), Ok("system-1"));
        check(
            json!({ "tolerations": toleration(), "nodeSelector": selector }),
            Ok("load-1"),
        );
        check(
            json!({ "nodeSelector": selector }),
            Err(
                "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 2 node(s) had untolerated taint {dedicated: k6}.",
            ),
        );
        check(
            json!({ "tolerations": [{ "key": "dedicated", "operator": "Equal", "value": "other" }], "nodeSelector": selector }),
            Err("untolerated taint"),
        );
        check(
            json!({ "tolerations": [{ "operator": "Exists" }], "affinity": { "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                    { "matchExpressions": [{ "key": "role", "operator": "In", "values": ["load-generator"] }] }] } } } }),
            Ok("load-1"),
        );
        let none = node_for(&pod(json!({})), &[], &[]);
        assert_eq!(none, Err("no nodes available to schedule pods".to_owned()));
    }

    #[test]
    fn runners_that_are_to_be_apart_are_apart() {
        let spec = json!({ "tolerations": toleration(), "nodeSelector": { "role": "load-generator" },
            "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
                { "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchExpressions": [
                    { "key": "runner", "operator": "In", "values": ["true"] }] } }] } } });
        let mut there: Vec<Value> = Vec::new();
        for expected in ["load-1", "load-2"] {
            let mut pod = pod(spec.clone());
            let node = node_for(&pod, &nodes(), &there).expect(expected);
            assert_eq!(node, expected);
            pod["spec"]["nodeName"] = node.into();
            there.push(pod);
        }
        let third = node_for(&pod(spec.clone()), &nodes(), &there).expect_err("two nodes");
        assert!(third.contains("2 node(s) didn't match pod anti-affinity rules"));
        there[0]["status"]["phase"] = "Failed".into();
        assert_eq!(node_for(&pod(spec), &nodes(), &there), Ok("load-1".into()));
    }
}
