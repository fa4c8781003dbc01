//! What an object must be to be let in: its name, what it cannot be without and what may not change, and
//! what it has though nobody said so.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::definitions;
use super::kinds::Kind;
use super::refusal::{Cause, Refusal};
use super::store::State;

/// Makes of what was sent what is kept of it: types, `stringData`, the schema.
pub(super) fn prepare(kind: &Kind, body: &mut Value) -> Result<(), Refusal> {
    for field in ["labels", "annotations"] {
        let why = |why: String| Refusal::bad_request(format!("metadata.{why}"));
        strings(&body["metadata"], field).map_err(why)?;
    }
    if let Some(schema) = &kind.schema {
        definitions::prune(schema, body);
        return Ok(());
    }
    let of = |why: String| {
        let (name, version) = (&kind.kind, kind.api_version());
        let text = format!("{name} in version {version:?} cannot be handled as a {name}: {why}");
        Refusal::bad_request(text)
    };
    match kind.kind.as_str() {
        "ConfigMap" => strings(body, "data").map_err(of)?,
        "Secret" => {
            strings(body, "data").map_err(of)?;
            strings(body, "stringData").map_err(of)?;
            for value in body["data"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(_, v)| v)
            {
                let bytes = BASE64.decode(value.as_str().unwrap_or_default());
                bytes.map_err(|_| of("illegal base64 data".to_owned()))?;
            }
            let plain = body
                .as_object_mut()
                .and_then(|fields| fields.remove("stringData"));
            for (name, value) in plain
                .as_ref()
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                let text = value.as_str().unwrap_or_default();
                body["data"][name] = BASE64.encode(text).into();
            }
        }
        "CustomResourceDefinition" => definitions::fill(body),
        _ => {}
    }
    // A map without anything in it is none.
    for (at, field) in [
        ("", "data"),
        ("/metadata", "labels"),
        ("/metadata", "annotations"),
    ] {
        let fields = body.pointer_mut(at).and_then(Value::as_object_mut);
        if let Some(fields) = fields
            && fields
                .get(field)
                .and_then(Value::as_object)
                .is_some_and(|map| map.is_empty())
        {
            fields.remove(field);
        }
    }
    Ok(())
}

/// What is wrong with an object, for the whole of it and as the next version of `live`.
pub(super) fn valid(
    kind: &Kind,
    name: &str,
    body: &Value,
    live: Option<&Value>,
) -> Result<(), Refusal> {
    let mut causes = Vec::new();
    if live.is_none() {
        causes.extend(name_is_bad(kind, name));
    }
    if let Some(live) = live {
        for at in immutable(kind, live) {
            let (before, after) = (live.pointer(at), body.pointer(at));
            if before != after {
                let field = at.trim_start_matches('/').replace('/', ".");
                let value = after.cloned().unwrap_or_default();
                causes.push(Cause::invalid(&field, &value, "field is immutable"));
            }
        }
        let finalizers = |body: &Value| {
            let all = body["metadata"]["finalizers"].as_array();
            all.cloned().unwrap_or_default()
        };
        let before = finalizers(live);
        let more = finalizers(body).iter().any(|one| !before.contains(one));
        if more && live["metadata"].get("deletionTimestamp").is_some() {
            let why = "no new finalizers can be added if the object is being deleted";
            causes.push(Cause::forbidden("metadata.finalizers", why));
        }
        if live["immutable"] == true && live.get("data") != body.get("data") {
            let why = "field is immutable when `immutable` is set";
            causes.push(Cause::forbidden("data", why));
        }
    }
    match &kind.schema {
        Some(schema) => causes.extend(definitions::validate(schema, body)),
        None if kind.kind == "CustomResourceDefinition" => {
            causes.extend(definitions::check(body));
        }
        None => causes.extend(lacking(kind, body)),
    }
    match causes.is_empty() {
        true => Ok(()),
        false => Err(Refusal::invalid(kind, name, &causes)),
    }
}

fn strings(body: &Value, field: &str) -> Result<(), String> {
    match body.get(field) {
        None => Ok(()),
        Some(Value::Object(fields)) => match fields.iter().find(|(_, v)| !v.is_string()) {
            None => Ok(()),
            Some((name, _)) => Err(format!("{field}.{name} is not a string")),
        },
        Some(_) => Err(format!("{field} is not a map")),
    }
}

/// With what is there though nobody said so.
pub(super) fn completed(kind: &Kind, mut body: Value) -> Value {
    match &kind.schema {
        Some(schema) => definitions::default(schema, &mut body),
        None => default(kind, &mut body),
    }
    body
}

/// What every object of a kind has though nobody said so. Only what somebody reads is here.
fn default(kind: &Kind, body: &mut Value) {
    let is_new = body["metadata"].get("uid").is_none();
    let Some(fields) = body.as_object_mut() else {
        return;
    };
    let mut put = |path: &[&str], value: Value| {
        let mut here = &mut *fields;
        for step in &path[..path.len() - 1] {
            let below = here.entry(*step).or_insert_with(|| json!({}));
            let Some(below) = below.as_object_mut() else {
                return;
            };
            here = below;
        }
        here.entry(path[path.len() - 1]).or_insert(value);
    };
    match kind.kind.as_str() {
        "Secret" => put(&["type"], json!("Opaque")),
        "Namespace" => {
            put(&["spec", "finalizers"], json!(["kubernetes"]));
            if is_new {
                put(&["status", "phase"], json!("Active"));
            }
            let name = fields["metadata"]["name"].clone();
            fields["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
        }
        "Deployment" | "StatefulSet" | "ReplicaSet" => put(&["spec", "replicas"], json!(1)),
        "Pod" if is_new => put(&["status", "phase"], json!("Pending")),
        "PersistentVolume" if is_new => put(&["status", "phase"], json!("Available")),
        "PersistentVolumeClaim" if is_new => put(&["status", "phase"], json!("Pending")),
        "Service" => {
            put(&["spec", "type"], json!("ClusterIP"));
            put(&["spec", "sessionAffinity"], json!("None"));
            put(&["status", "loadBalancer"], json!({}));
            let spec = fields.get_mut("spec");
            let ports = spec.and_then(|spec| spec.get_mut("ports")?.as_array_mut());
            for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
                port.entry("protocol").or_insert_with(|| json!("TCP"));
                let target = port.get("port").cloned().unwrap_or_default();
                port.entry("targetPort").or_insert(target);
            }
        }
        _ => {}
    }
}

/// Gives a new Service its address.
pub(super) fn allot(state: &mut State, kind: &Kind, body: &mut Value) {
    if kind.kind != "Service"
        || body["spec"]["type"] == "ExternalName"
        || body["spec"].get("clusterIP").is_some()
    {
        return;
    }
    state.addresses += 1;
    // Kubespray's range is 10.233.0.0/18; the API itself and DNS have the first ones.
    let number = state.addresses + 9;
    let address = format!("10.233.{}.{}", number / 250, number % 250 + 1);
    body["spec"]["clusterIP"] = address.clone().into();
    body["spec"]["clusterIPs"] = json!([address]);
}

/// What of an object may not change.
fn immutable(kind: &Kind, live: &Value) -> &'static [&'static str] {
    let bound = live["status"]["phase"] == "Bound";
    match kind.kind.as_str() {
        "Deployment" | "DaemonSet" | "ReplicaSet" => &["/spec/selector"],
        "StatefulSet" => &[
            "/spec/selector",
            "/spec/serviceName",
            "/spec/podManagementPolicy",
            "/spec/volumeClaimTemplates",
        ],
        "Job" => &["/spec/selector", "/spec/template", "/spec/completions"],
        "Secret" => &["/type"],
        "RoleBinding" | "ClusterRoleBinding" => &["/roleRef"],
        "StorageClass" => &["/provisioner", "/parameters", "/reclaimPolicy"],
        "PersistentVolumeClaim" if bound => &["/spec/volumeName", "/spec/storageClassName"],
        _ => &[],
    }
}

/// What an object of a built-in kind cannot be without. Only the first questions are asked.
fn lacking(kind: &Kind, body: &Value) -> Vec<Cause> {
    let needed: &[(&str, &str)] = match kind.kind.as_str() {
        "Deployment" | "StatefulSet" | "DaemonSet" => &[
            ("/spec/selector", "spec.selector"),
            (
                "/spec/template/spec/containers",
                "spec.template.spec.containers",
            ),
        ],
        "Job" => &[(
            "/spec/template/spec/containers",
            "spec.template.spec.containers",
        )],
        "Pod" => &[("/spec/containers", "spec.containers")],
        "PersistentVolume" => &[
            ("/spec/capacity", "spec.capacity"),
            ("/spec/accessModes", "spec.accessModes"),
        ],
        "PersistentVolumeClaim" => &[("/spec/accessModes", "spec.accessModes")],
        "StorageClass" => &[("/provisioner", "provisioner")],
        "RoleBinding" | "ClusterRoleBinding" => &[("/roleRef/name", "roleRef.name")],
        _ => &[],
    };
    let is_empty = |value: &Value| match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    let missing = needed
        .iter()
        .filter(|(at, _)| body.pointer(at).is_none_or(is_empty));
    missing
        .map(|(_, field)| Cause::required(field, ""))
        .collect()
}

/// A name that objects of this kind cannot have.
fn name_is_bad(kind: &Kind, name: &str) -> Option<Cause> {
    if name.is_empty() {
        return Some(Cause::required(
            "metadata.name",
            "name or generateName is required",
        ));
    }
    let field = "metadata.name";
    if kind.group == "rbac.authorization.k8s.io" {
        let bad = name.contains(['/', '%']) || name == "." || name == "..";
        return bad.then(|| Cause::invalid(field, &json!(name), "may not contain '/' or '%'"));
    }
    let label = matches!(kind.kind.as_str(), "Namespace" | "Service");
    let part_is_good = |part: &str| {
        let edge =
            |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        part.chars().all(fine) && edge(part.chars().next()) && edge(part.chars().next_back())
    };
    let (good, why) = match label {
        true => (
            name.len() <= 63 && part_is_good(name),
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
        ),
        false => (
            name.len() <= 253 && name.split('.').all(part_is_good),
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
        ),
    };
    (!good).then(|| Cause::invalid(field, &json!(name), why))
}
