//! The kubelets, and what would have told them to run something: Deployments and StatefulSets get their pods, pods get
//! on, and the statuses of all of them say so.
//!
//! Simplified: there are no ReplicaSets, so that a Deployment owns its pods itself; nothing is scheduled, and no pod
//! has a node; an upgrade makes all new pods at once and takes the old ones away when all new ones are ready (`Recreate`
//! takes them away first); a StatefulSet is upgraded at once. DaemonSets and Jobs are left alone.

use std::collections::HashMap;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;

use super::api::{code, name, namespace};
use super::time::now;
use super::{Controller, Fault, Tick};

const MANAGER: &str = "kubelet";
const OURS: &str = "kube-controller-manager";

/// Plays them. Pods run `starts_after` ticks after they were made.
#[derive(Debug)]
pub struct Kubelet {
    starts_after: u64,
    /// When a pod was first seen, by its uid.
    pods: HashMap<String, u64>,
    /// Which template a workload rolls out, and since when, by its uid.
    rollouts: HashMap<String, (String, u64)>,
}

impl Default for Kubelet {
    fn default() -> Self {
        Self {
            starts_after: 1,
            pods: HashMap::new(),
            rollouts: HashMap::new(),
        }
    }
}

/// What a pod is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Creating,
    NoImage,
    NotReady,
    Ready,
}

impl Kubelet {
    /// One workload and its pods.
    async fn workload(
        &mut self,
        object: &Value,
        pods: &[Value],
        tick: &Tick,
    ) -> anyhow::Result<()> {
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        let deployment = object["kind"] == "Deployment";
        let wanted = object["spec"]["replicas"].as_u64().unwrap_or(1);
        let hash = template_hash(object);
        let rollout = self.rollouts.entry(uid.to_owned()).or_default();
        if rollout.0 != hash {
            *rollout = (hash.clone(), tick.number);
        }
        let since = rollout.1;
        let own: Vec<_> = pods.iter().filter(|pod| owner(pod) == Some(uid)).collect();
        let of_hash =
            |pod: &&&Value| pod["metadata"]["labels"]["pod-template-hash"] == hash.as_str();
        let (new, old): (Vec<&Value>, Vec<&Value>) =
            own.iter().copied().partition(|pod| of_hash(&pod));
        let is_ready = |pod: &&&Value| self.stage(pod, object, tick) == Stage::Ready;
        let ready_new = new.iter().filter(is_ready).count() as u64;
        let ready_old = old.iter().filter(is_ready).count() as u64;
        let recreate = object["spec"]["strategy"]["type"] == "Recreate" || !deployment;

        for at in 0..wanted {
            let pod = pod(object, &hash, at);
            let there = new.iter().any(|found| name(found) == name(&pod));
            let in_the_way = recreate && !old.is_empty();
            if !there && !in_the_way {
                tick.cluster.apply(OURS, &pod).await?;
            }
        }
        let surplus = new
            .iter()
            .filter(|found| !(0..wanted).any(|at| name(&pod(object, &hash, at)) == name(found)));
        let replaced = ready_new >= wanted || recreate;
        let gone = old.iter().filter(|_| replaced).chain(surplus);
        for pod in gone {
            delete_pod(tick, pod).await?;
        }
        let counts = Counts {
            wanted,
            all: own.len() as u64,
            new: new.len() as u64,
            ready: ready_new + ready_old,
            ready_new,
        };
        let status = match deployment {
            true => deployment_status(object, counts, since, tick),
            false => stateful_status(object, counts, &hash),
        };
        tick.cluster.set_status(OURS, object, &status).await?;
        Ok(())
    }

    fn stage(&self, pod: &Value, owner: &Value, tick: &Tick) -> Stage {
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        let made = self.pods.get(uid).copied().unwrap_or(tick.number);
        if broken_image(pod, tick).is_some() {
            return Stage::NoImage;
        }
        if tick.number < made + self.starts_after {
            return Stage::Creating;
        }
        let at = format!("{}/{}", namespace(owner), name(owner));
        match tick.faults.has(&Fault::NeverAvailable(at)) {
            true => Stage::NotReady,
            false => Stage::Ready,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Counts {
    wanted: u64,
    all: u64,
    new: u64,
    ready: u64,
    ready_new: u64,
}

fn deployment_status(object: &Value, counts: Counts, since: u64, tick: &Tick) -> Value {
    let Counts {
        wanted,
        all,
        new,
        ready,
        ready_new,
    } = counts;
    let may_miss = match &object["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] {
        Value::Number(number) => number.as_u64().unwrap_or(0),
        // A quarter, rounded down.
        _ => wanted / 4,
    };
    let mut conditions = Conditions::of(object);
    match ready + may_miss >= wanted {
        true => conditions.set(
            "Available",
            true,
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        ),
        false => conditions.set(
            "Available",
            false,
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        ),
    }
    let seconds = object["spec"]["progressDeadlineSeconds"]
        .as_u64()
        .unwrap_or(600);
    let deadline = since + tick.ticks(Duration::from_secs(seconds));
    let own = name(object);
    if ready_new >= wanted && all <= wanted {
        let done = format!("ReplicaSet \"{own}\" has successfully progressed.");
        conditions.set("Progressing", true, "NewReplicaSetAvailable", &done);
    } else if tick.number >= deadline {
        let late = format!("ReplicaSet \"{own}\" has timed out progressing.");
        conditions.set("Progressing", false, "ProgressDeadlineExceeded", &late);
    } else {
        let doing = format!("ReplicaSet \"{own}\" is progressing.");
        conditions.set("Progressing", true, "ReplicaSetUpdated", &doing);
    }
    let count = |count: u64| {
        if count == 0 {
            Value::Null
        } else {
            count.into()
        }
    };
    json!({
        "observedGeneration": object["metadata"]["generation"],
        "replicas": count(all),
        "updatedReplicas": count(new),
        "readyReplicas": count(ready),
        "availableReplicas": count(ready),
        "unavailableReplicas": count(wanted.max(all).saturating_sub(ready)),
        "conditions": conditions.list,
    })
}

fn stateful_status(object: &Value, counts: Counts, hash: &str) -> Value {
    let revision = format!("{}-{hash}", name(object));
    json!({
        "observedGeneration": object["metadata"]["generation"],
        "replicas": counts.all,
        "readyReplicas": counts.ready,
        "availableReplicas": counts.ready,
        "currentReplicas": counts.new,
        "updatedReplicas": counts.new,
        "currentRevision": revision,
        "updateRevision": revision,
        "collisionCount": 0,
    })
}

/// Conditions as workloads have them.
struct Conditions {
    list: Vec<Value>,
}

impl Conditions {
    fn of(object: &Value) -> Self {
        let list = object["status"]["conditions"].as_array();
        Self {
            list: list.cloned().unwrap_or_default(),
        }
    }

    fn set(&mut self, kind: &str, yes: bool, reason: &str, message: &str) {
        let status = if yes { "True" } else { "False" };
        let same = |c: &&mut Value| c["type"] == kind;
        let time = now();
        let Some(was) = self.list.iter_mut().find(same) else {
            self.list.push(json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": time, "lastUpdateTime": time,
            }));
            return;
        };
        if was["status"] != status {
            was["lastTransitionTime"] = time.clone().into();
        }
        if was["reason"] != reason || was["status"] != status {
            was["lastUpdateTime"] = time.into();
        }
        (was["status"], was["reason"], was["message"]) =
            (status.into(), reason.into(), message.into());
    }
}

fn template_hash(object: &Value) -> String {
    let template = object["spec"]["template"].to_string();
    hex::encode(&Sha256::digest(template)[..5])
}

/// The pod of a workload with this number.
fn pod(object: &Value, hash: &str, at: u64) -> Value {
    let own = name(object);
    let name = match object["kind"] == "Deployment" {
        // Letters that do not change with each look.
        true => {
            let tail = Sha256::digest(format!("{own}/{hash}/{at}"));
            let tail = BASE64.encode(tail).to_lowercase();
            let tail: String = tail
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .take(5)
                .collect();
            format!("{own}-{hash}-{tail}")
        }
        false => format!("{own}-{at}"),
    };
    let template = &object["spec"]["template"];
    let mut metadata = template["metadata"].clone();
    metadata["name"] = name.into();
    metadata["namespace"] = namespace(object).into();
    metadata["labels"]["pod-template-hash"] = hash.into();
    metadata["ownerReferences"] = json!([{
        "apiVersion": object["apiVersion"], "kind": object["kind"], "name": own,
        "uid": object["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    }]);
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.retain(|_, value| !value.is_null());
    }
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] })
}

fn owner(pod: &Value) -> Option<&str> {
    pod["metadata"]["ownerReferences"][0]["uid"].as_str()
}

/// The image of a pod that cannot be pulled.
fn broken_image<'a>(pod: &'a Value, tick: &Tick) -> Option<&'a str> {
    let containers = pod["spec"]["containers"].as_array()?;
    let images = containers
        .iter()
        .filter_map(|container| container["image"].as_str());
    let mut broken = images.filter(|image| {
        let tag = tag(image).to_owned();
        tick.faults.has(&Fault::BrokenTag(tag))
    });
    broken.next()
}

/// The tag of an image; empty when it has none.
pub(super) fn tag(image: &str) -> &str {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').map_or("", |(_, tag)| tag)
}

fn pod_status(pod: &Value, stage: Stage, tick: &Tick) -> Value {
    let was = &pod["status"];
    let ready = stage == Stage::Ready;
    let started = was["startTime"].as_str().map_or_else(now, str::to_owned);
    let runs = matches!(stage, Stage::Ready | Stage::NotReady);
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let containers = containers.map(|container| {
        let image = container["image"].as_str().unwrap_or_default();
        let state = match stage {
            Stage::Creating => json!({ "waiting": { "reason": "ContainerCreating" } }),
            Stage::NoImage => {
                let image = broken_image(pod, tick).unwrap_or(image);
                json!({ "waiting": {
                    "reason": "ImagePullBackOff",
                    "message": format!("Back-off pulling image \"{image}\": ErrImagePull: failed to resolve reference \"{image}\": not found"),
                } })
            }
            _ => json!({ "running": { "startedAt": started } }),
        };
        let digest = hex::encode(Sha256::digest(image));
        json!({
            "name": container["name"], "image": image, "state": state, "ready": ready,
            "started": runs, "restartCount": 0, "lastState": {},
            "imageID": if runs { format!("{image}@sha256:{digest}") } else { String::new() },
        })
    });
    let containers: Vec<_> = containers.collect();
    let of = |kind: &str, yes: bool| {
        let status = if yes { "True" } else { "False" };
        let mut all = was["conditions"].as_array().into_iter().flatten();
        let before = all.rfind(|c| c["type"] == kind && c["status"] == status);
        let since = before.map(|c| c["lastTransitionTime"].clone());
        let mut condition = json!({
            "type": kind, "status": status,
            "lastTransitionTime": since.unwrap_or_else(|| now().into()),
        });
        if !yes {
            condition["reason"] = "ContainersNotReady".into();
        }
        condition
    };
    json!({
        "phase": if runs { "Running" } else { "Pending" },
        "startTime": started,
        "qosClass": was["qosClass"].as_str().unwrap_or("BestEffort"),
        "containerStatuses": containers,
        "conditions": [
            of("PodScheduled", true), of("Initialized", true),
            of("ContainersReady", ready), of("Ready", ready),
        ],
    })
}

/// Without a grace period: nobody would end it otherwise.
async fn delete_pod(tick: &Tick, pod: &Value) -> kube::Result<()> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
    let client = tick.cluster.client().clone();
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace(pod), &kind);
    match api
        .delete(name(pod), &DeleteParams::default().grace_period(0))
        .await
    {
        Err(error) if code(&error) != Some(404) => Err(error),
        _ => Ok(()),
    }
}

#[async_trait]
impl Controller for Kubelet {
    fn name(&self) -> &'static str {
        MANAGER
    }

    async fn reconcile(&mut self, tick: &Tick) -> anyhow::Result<()> {
        let pods = tick.cluster.list("v1", "Pod").await?;
        let uid = |object: &Value| {
            object["metadata"]["uid"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        self.pods
            .retain(|known, _| pods.iter().any(|pod| uid(pod) == *known));
        for pod in &pods {
            self.pods.entry(uid(pod)).or_insert(tick.number);
        }
        let mut workloads = tick.cluster.list("apps/v1", "Deployment").await?;
        workloads.extend(tick.cluster.list("apps/v1", "StatefulSet").await?);
        workloads.retain(|object| !object["metadata"]["deletionTimestamp"].is_string());
        self.rollouts
            .retain(|known, _| workloads.iter().any(|object| uid(object) == *known));
        for object in &workloads {
            self.workload(object, &pods, tick).await?;
        }
        for pod in &pods {
            let reference = &pod["metadata"]["ownerReferences"][0];
            if !["Deployment", "StatefulSet"]
                .iter()
                .any(|kind| reference["kind"] == *kind)
            {
                continue;
            }
            match workloads
                .iter()
                .find(|object| Some(&uid(object)[..]) == owner(pod))
            {
                None => delete_pod(tick, pod).await?,
                Some(object) => {
                    let stage = self.stage(pod, object, tick);
                    let status = pod_status(pod, stage, tick);
                    tick.cluster.set_status(MANAGER, pod, &status).await?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_of_an_image_is_behind_its_last_name() {
        assert_eq!(
            tag("harbor.example.org:5000/library/storefront:123.1"),
            "123.1"
        );
        assert_eq!(tag("harbor.example.org:5000/library/storefront"), "");
    }
}
