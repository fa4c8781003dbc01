//! What the Kubernetes API says of the nodes: how they are, and the proof against what the spec says.

use std::collections::BTreeMap;

use jobs::spec::{Kubernetes, Node};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::engine::Proof;

/// `kubectl get nodes -o json`, as much of it as we look at.
#[derive(Debug, Deserialize)]
struct List {
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
struct Spec {
    #[serde(default)]
    unschedulable: bool,
    #[serde(default)]
    taints: Vec<Taint>,
}

#[derive(Debug, Deserialize)]
struct Taint {
    key: String,
    #[serde(default)]
    value: String,
    effect: String,
}

#[derive(Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
    #[serde(rename = "nodeInfo", default)]
    info: Info,
}

#[derive(Debug, Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

#[derive(Debug, Default, Deserialize)]
struct Info {
    #[serde(rename = "kubeletVersion", default)]
    kubelet: String,
}

/// How a node is, whatever the spec says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::jobs) struct State {
    pub(in crate::jobs) ready: bool,
    /// Nothing new is put on it.
    pub(in crate::jobs) cordoned: bool,
    #[serde(skip)]
    pub(in crate::jobs) annotations: BTreeMap<String, String>,
}

/// Every node that the API knows.
///
/// # Errors
/// When the answer is no list of nodes.
pub(in crate::jobs) fn states(answer: &[u8]) -> Result<BTreeMap<String, State>, serde_json::Error> {
    let list: List = serde_json::from_slice(answer)?;
    let state = |item: Item| {
        let state = State {
            ready: item.ready(),
            cordoned: item.spec.unschedulable,
            annotations: item.metadata.annotations,
        };
        (item.metadata.name, state)
    };
    Ok(list.items.into_iter().map(state).collect())
}

/// One node: as it should be, or as much as the API shows of what should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Seen {
    ready: bool,
    kubelet: String,
    labels: BTreeMap<String, String>,
    taints: Vec<String>,
}

/// Compares. Labels and taints that nobody asked for are none of our business, and a node that
/// the spec does not know is told, not judged.
///
/// # Errors
/// When the answer is no list of nodes.
pub(in crate::jobs) fn compare(
    kubernetes: &Kubernetes,
    wanted: &[Node],
    answer: &[u8],
    server: &str,
) -> Result<Proof, serde_json::Error> {
    let list: List = serde_json::from_slice(answer)?;
    let (mut expected, mut observed) = (BTreeMap::new(), BTreeMap::new());
    // Kubespray brings kubelets to another version and leaves the API server at its own, unless it is told.
    let version = format!("v{}", kubernetes.version);
    for node in wanted {
        let should = Seen {
            ready: true,
            kubelet: version.clone(),
            labels: node.labels.clone(),
            taints: node.taints.iter().map(|taint| normal(taint)).collect(),
        };
        let name = node.name.as_str();
        let found = list.items.iter().find(|item| item.metadata.name == name);
        observed.insert(name, found.map(|item| item.seen(&should)));
        expected.insert(name, Some(should));
    }
    let others: Vec<&str> = list
        .items
        .iter()
        .map(|item| item.metadata.name.as_str())
        .collect();
    let unknown: Vec<&str> = others
        .into_iter()
        .filter(|name| !expected.contains_key(name))
        .collect();
    Ok(Proof {
        holds: !expected.is_empty() && expected == observed && server == version,
        expected: json!({"nodes": expected, "api_server": version}),
        observed: json!({"nodes": observed, "api_server": server, "not_in_the_spec": unknown}),
    })
}

/// Reads the answer to `kubectl version`.
///
/// # Errors
/// When it does not have the server's: kubectl alone knows its own.
pub(in crate::jobs) fn server_version(answer: &[u8]) -> Result<String, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Versions {
        server_version: Version,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        git_version: String,
    }
    let versions: Versions = serde_json::from_slice(answer)?;
    Ok(versions.server_version.git_version)
}

/// What of a proof does not hold, in a few words.
pub(in crate::jobs) fn missing(proof: &Proof) -> String {
    let nodes = |value: &serde_json::Value| value["nodes"].as_object().cloned().unwrap_or_default();
    let [is, should] = [&proof.observed, &proof.expected].map(|side| &side["api_server"]);
    let server = (is != should).then(|| format!("the API server: {is} instead of {should}"));
    let observed = nodes(&proof.observed);
    let wrong = nodes(&proof.expected)
        .into_iter()
        .filter_map(|(name, should)| {
            let there = observed.get(&name)?;
            if there.is_null() {
                return Some(format!("{name} is not there"));
            }
            let fields = ["ready", "kubelet", "labels", "taints"];
            let field = fields
                .into_iter()
                .find(|field| there[*field] != should[*field])?;
            Some(format!(
                "{name}: {field} {} instead of {}",
                there[field], should[field]
            ))
        });
    let wrong: Vec<String> = server.into_iter().chain(wrong).take(3).collect();
    wrong.join("; ")
}

impl Item {
    fn ready(&self) -> bool {
        let ready = |c: &Condition| c.r#type == "Ready" && c.status == "True";
        self.status.conditions.iter().any(ready)
    }

    fn seen(&self, should: &Seen) -> Seen {
        let labels = self.metadata.labels.iter();
        let taints: Vec<String> = self.spec.taints.iter().map(Taint::text).collect();
        Seen {
            ready: self.ready(),
            kubelet: self.status.info.kubelet.clone(),
            labels: labels
                .filter(|(key, _)| should.labels.contains_key(*key))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            taints: should
                .taints
                .iter()
                .filter(|t| taints.contains(t))
                .cloned()
                .collect(),
        }
    }
}

impl Taint {
    fn text(&self) -> String {
        format!("{}={}:{}", self.key, self.value, self.effect)
    }
}

/// A taint without a value may be written without `=`.
fn normal(taint: &str) -> String {
    match taint.rsplit_once(':') {
        Some((key, effect)) if !key.contains('=') => format!("{key}=:{effect}"),
        _ => taint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use jobs::spec::{ClusterSpec, Role};
    use serde_json::Value;

    use super::*;

    const SPEC: &str = include_str!("../../../../deploy/examples/cluster-with-kubernetes.yaml");

    fn wanted() -> (Kubernetes, Vec<Node>) {
        let spec = ClusterSpec::parse(SPEC).unwrap();
        let mut nodes = spec.nodes();
        nodes.retain(|node| node.role != Role::Bastion);
        (spec.kubernetes.unwrap(), nodes)
    }

    /// What the API answers when all is well.
    fn answer() -> Value {
        let item = |node: &Node| {
            let mut labels = json!({"kubernetes.io/hostname": node.name});
            for (key, value) in &node.labels {
                labels[key] = json!(value);
            }
            let taint = |taint: &String| {
                let (pair, effect) = taint.split_once(':').unwrap();
                let (key, value) = pair.split_once('=').unwrap();
                json!({"key": key, "value": value, "effect": effect})
            };
            let mut taints: Vec<Value> = node.taints.iter().map(taint).collect();
            if node.role == Role::Master {
                taints.push(
                    json!({"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}),
                );
            }
            json!({
                "metadata": {"name": node.name, "labels": labels},
                "spec": {"podCIDR": "10.42.1.0/24", "taints": taints},
                "status": {
                    "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
                    "nodeInfo": {"kubeletVersion": "v1.33.7", "osImage": "Ubuntu"},
                },
            })
        };
        json!({"kind": "List", "items": wanted().1.iter().map(item).collect::<Vec<_>>()})
    }

    fn proof(answer: &Value) -> Proof {
        let (kubernetes, nodes) = wanted();
        compare(
            &kubernetes,
            &nodes,
            answer.to_string().as_bytes(),
            "v1.33.7",
        )
        .unwrap()
    }

    #[test]
    fn an_api_server_of_another_version_is_no_proof() {
        let (kubernetes, nodes) = wanted();
        let answer = answer().to_string();
        let proof = compare(&kubernetes, &nodes, answer.as_bytes(), "v1.32.9").unwrap();
        assert!(!proof.holds);
        assert_eq!(
            missing(&proof),
            r#"the API server: "v1.32.9" instead of "v1.33.7""#
        );
        let said = br#"{"clientVersion": {"gitVersion": "v1.33.7"}, "serverVersion": {"gitVersion": "v1.32.9", "major": "1"}}"#;
        assert_eq!(server_version(said).unwrap(), "v1.32.9");
        server_version(br#"{"clientVersion": {"gitVersion": "v1.33.7"}}"#).unwrap_err();
    }

    #[test]
    fn a_cluster_as_it_should_be_is_proven() {
        let proof = proof(&answer());
        assert!(proof.holds, "{proof:?}");
        assert_eq!(missing(&proof), "");
    }

    #[test]
    fn whatever_is_wrong_with_a_node_is_seen() {
        let check = |change: &dyn Fn(&mut Value), want: &str| {
            let mut answer = answer();
            change(&mut answer["items"]);
            let proof = proof(&answer);
            assert!(!proof.holds, "{want}");
            assert!(missing(&proof).contains(want), "{}", missing(&proof));
        };
        let ready = |items: &mut Value, word: &str| {
            items[4]["status"]["conditions"][1]["status"] = json!(word);
        };
        check(
            &|items| drop(items.as_array_mut().unwrap().remove(4)),
            "small-app-2 is not there",
        );
        check(&|items| ready(items, "False"), "small-app-2: ready false");
        check(&|items| ready(items, "Unknown"), "small-app-2: ready false");
        check(
            &|items| items[0]["status"] = json!({}),
            "small-master-1: ready false",
        );
        check(
            &|items| items[0]["status"]["nodeInfo"]["kubeletVersion"] = json!("v1.32.9"),
            "small-master-1: kubelet \"v1.32.9\"",
        );
        check(
            &|items| items[3]["metadata"]["labels"]["appinstance"] = json!("num9"),
            "labels",
        );
        check(
            &|items| items[3]["metadata"]["labels"] = json!({}),
            "labels",
        );
        check(
            &|items| items[3]["spec"] = json!({}),
            "taints [] instead of",
        );
        check(
            &|items| items[3]["spec"]["taints"][0]["effect"] = json!("NoExecute"),
            "taints []",
        );
        check(&|items| *items = json!([]), "is not there");
    }

    #[test]
    fn nodes_are_ready_and_cordoned_as_the_api_says() {
        let answer = json!({"items": [
            {
                "metadata": {"name": "a", "annotations": {"k": "v"}},
                "spec": {"unschedulable": true},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            },
            {"metadata": {"name": "b"}},
        ]});
        let states = states(answer.to_string().as_bytes()).unwrap();
        let seen = |name: &str| (states[name].ready, states[name].cordoned);
        assert_eq!((seen("a"), seen("b")), ((true, true), (false, false)));
        assert_eq!(states["a"].annotations["k"], "v");
        super::states(b"The connection to the server was refused").unwrap_err();
    }

    #[test]
    fn a_node_that_nobody_asked_for_is_told() {
        let mut answer = answer();
        let mut more = answer["items"][0].clone();
        more["metadata"]["name"] = json!("stranger");
        answer["items"].as_array_mut().unwrap().push(more);
        let proof = proof(&answer);
        assert!(proof.holds);
        assert_eq!(proof.observed["not_in_the_spec"], json!(["stranger"]));
    }

    #[test]
    fn what_is_no_list_is_an_error_and_no_nodes_prove_nothing() {
        let (kubernetes, nodes) = wanted();
        for answer in ["", "{}", "[]", "error: no such host"] {
            compare(&kubernetes, &nodes, answer.as_bytes(), "v1.33.7").expect_err(answer);
        }
        let nothing = compare(&kubernetes, &[], b"{\"items\": []}", "v1.33.7").unwrap();
        assert!(!nothing.holds);
    }

    #[test]
    fn a_taint_without_a_value_is_the_same_with_and_without_the_sign() {
        assert_eq!(normal("key:NoSchedule"), "key=:NoSchedule");
        assert_eq!(normal("key=:NoSchedule"), "key=:NoSchedule");
        assert_eq!(normal("key=a:NoExecute"), "key=a:NoExecute");
    }
}
