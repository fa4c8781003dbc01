//! `kustomize build`, as far as our tree goes: `resources` (files and folders), `namespace`, and `configMapGenerator`
//! from files and literals with names that stay. Whatever else a `kustomization.yaml` says is an error that names it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use crate::operators::api::{name, namespace};
use crate::operators::flux::artifacts::Files;

/// Why there is nothing to apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The folder is not there.
    #[error(
        "kustomization path not found: stat /tmp/kustomization-1/{0}: no such file or directory"
    )]
    NoPath(String),
    /// Kustomize would refuse it, or it is more than is simulated.
    #[error("kustomize build failed: {0}")]
    Failed(String),
    /// Something before or after kustomize's part.
    #[error("{0}")]
    Plain(String),
    /// A SOPS file does not open.
    #[error("decryption failed for '{object}': {reason}")]
    Decryption {
        /// Which object.
        object: String,
        /// Why not.
        reason: String,
    },
}

/// Opens the text of a SOPS file.
pub type Open<'a> = &'a (dyn Fn(&str) -> Result<Value, String> + Sync);

/// The objects of a folder, in kustomize's order of appearance. Without a `kustomization.yaml` these are all objects of
/// all YAML files below it, as Flux takes them. `target` is a Kustomization's `targetNamespace`.
pub fn build(
    files: &Files,
    path: &str,
    target: Option<&str>,
    open: Option<Open<'_>>,
) -> Result<Vec<Value>, BuildError> {
    let path = join("", path)?;
    let mut objects = if files.contains_key(&index(&path)) {
        folder(files, &path, open)?
    } else {
        let inside = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        if !files.keys().any(|file| file.starts_with(&inside)) {
            return Err(BuildError::NoPath(path));
        }
        let mut all = Vec::new();
        for file in files.keys().filter(|file| file.starts_with(&inside)) {
            if file.ends_with(".yaml") || file.ends_with(".yml") {
                all.extend(documents(files, file, open)?);
            }
        }
        all
    };
    if let Some(target) = target {
        place(&mut objects, target);
    }
    let mut seen = BTreeMap::new();
    for object in &objects {
        let id = id(object);
        if seen.insert(id.clone(), ()).is_some() {
            return Err(BuildError::Failed(format!(
                "may not add resource with an already registered id: {id}"
            )));
        }
    }
    Ok(objects)
}

/// An object as kustomize calls it: `HelmRelease.v2.helm.toolkit.fluxcd.io/pg-db.pg`.
pub(super) fn id(object: &Value) -> String {
    let space = namespace(object);
    let space = if space.is_empty() { "[noNs]" } else { space };
    format!("{}/{}.{space}", gvk(object), name(object))
}

/// `HelmRelease.v2.helm.toolkit.fluxcd.io`, `Secret.v1.[noGrp]`.
pub(super) fn gvk(object: &Value) -> String {
    let api = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = api.split_once('/').unwrap_or(("[noGrp]", api));
    let kind = object["kind"].as_str().unwrap_or_default();
    format!("{kind}.{version}.{group}")
}

fn folder(files: &Files, path: &str, open: Option<Open<'_>>) -> Result<Vec<Value>, BuildError> {
    let failed = |why: String| Err(BuildError::Failed(why));
    let file = index(path);
    let kustomization = match &documents_of(&files[&file], &file)?[..] {
        [one] => one.clone(),
        _ => return failed(format!("{file}: one document is wanted")),
    };
    let fields = kustomization.as_object().cloned().unwrap_or_default();
    let mut objects = Vec::new();
    for resource in kustomization["resources"].as_array().into_iter().flatten() {
        let at = join(path, resource.as_str().unwrap_or_default())?;
        if files.contains_key(&at) {
            objects.extend(documents(files, &at, open)?);
        } else if files.contains_key(&index(&at)) {
            objects.extend(folder(files, &at, open)?);
        } else {
            return failed(format!(
                "accumulating resources: accumulation err='accumulating resources from '{}': open /tmp/kustomization-1/{at}: no such file or directory'",
                resource.as_str().unwrap_or_default()
            ));
        }
    }
    for field in fields.keys() {
        match field.as_str() {
            "apiVersion" | "kind" | "resources" | "namespace" | "generatorOptions" => {}
            "configMapGenerator" => {}
            other => return failed(format!("{file}: `{other}` is not simulated")),
        }
    }
    for generator in kustomization["configMapGenerator"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let options = &kustomization["generatorOptions"];
        objects.push(config_map(files, path, generator, options)?);
    }
    if let Some(target) = kustomization["namespace"].as_str() {
        place(&mut objects, target);
    }
    Ok(objects)
}

fn config_map(
    files: &Files,
    folder: &str,
    generator: &Value,
    options: &Value,
) -> Result<Value, BuildError> {
    let failed = |why: String| Err(BuildError::Failed(why));
    let own = generator["name"].as_str().unwrap_or_default();
    for field in generator.as_object().into_iter().flat_map(Map::keys) {
        if !["name", "namespace", "files", "literals"].contains(&field.as_str()) {
            return failed(format!(
                "configMapGenerator {own}: `{field}` is not simulated"
            ));
        }
    }
    for field in options.as_object().into_iter().flat_map(Map::keys) {
        if !["disableNameSuffixHash", "labels", "annotations"].contains(&field.as_str()) {
            return failed(format!("generatorOptions: `{field}` is not simulated"));
        }
    }
    if options["disableNameSuffixHash"] != true {
        return failed(format!(
            "configMapGenerator {own}: a name with a hash is not simulated"
        ));
    }
    let texts = |field: &str| {
        let all = generator[field].as_array().cloned().unwrap_or_default();
        all.into_iter()
            .map(|text| text.as_str().unwrap_or_default().to_owned())
    };
    let (mut data, mut binary) = (Map::new(), Map::new());
    for entry in texts("files") {
        let (key, file) = match entry.split_once('=') {
            Some((key, file)) => (key, file),
            None => (entry.rsplit('/').next().unwrap_or(&entry), &entry[..]),
        };
        let at = join(folder, file)?;
        let Some(bytes) = files.get(&at) else {
            return failed(format!(
                "loading KV pairs: file sources: [{entry}]: open /tmp/kustomization-1/{at}: no such file or directory"
            ));
        };
        match String::from_utf8(bytes.clone()) {
            Ok(text) => data.insert(key.to_owned(), text.into()),
            Err(_) => binary.insert(key.to_owned(), BASE64.encode(bytes).into()),
        };
    }
    for entry in texts("literals") {
        let Some((key, value)) = entry.split_once('=') else {
            return failed(format!(
                "invalid literal source {entry}, expected key=value"
            ));
        };
        data.insert(key.to_owned(), value.trim_matches(['\'', '"']).into());
    }
    let mut metadata = json!({ "name": own });
    for field in ["labels", "annotations"] {
        if let Some(all) = options.get(field) {
            metadata[field] = all.clone();
        }
    }
    if let Some(space) = generator.get("namespace") {
        metadata["namespace"] = space.clone();
    }
    let mut object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata });
    for (field, all) in [("data", data), ("binaryData", binary)] {
        if !all.is_empty() {
            object[field] = all.into();
        }
    }
    Ok(object)
}

/// The objects of a file, opened where they are sealed and `open` is given.
fn documents(files: &Files, file: &str, open: Option<Open<'_>>) -> Result<Vec<Value>, BuildError> {
    let bytes = &files[file];
    let mut all = documents_of(bytes, file)?;
    for object in &all {
        if name(object).is_empty() || object["kind"].as_str().is_none() {
            return Err(BuildError::Failed(format!(
                "{file}: missing metadata.name or kind in object"
            )));
        }
    }
    if let Some(open) = open
        && all.iter().any(is_sealed)
    {
        let failed = |object: &Value, reason: String| BuildError::Decryption {
            object: format!("{}/{}", gvk(object), name(object)),
            reason,
        };
        let [object] = &mut all[..] else {
            let reason = "a sealed file of several documents is not simulated".to_owned();
            return Err(failed(&all[0], reason));
        };
        let text = String::from_utf8_lossy(bytes);
        *object = open(&text).map_err(|reason| failed(object, reason))?;
    }
    Ok(all)
}

/// Whether an object is a SOPS file that nobody opened.
pub(super) fn is_sealed(object: &Value) -> bool {
    object["sops"]["mac"].is_string()
}

fn documents_of(bytes: &[u8], file: &str) -> Result<Vec<Value>, BuildError> {
    let text = String::from_utf8_lossy(bytes);
    let all: Result<Vec<Value>, _> = serde_saphyr::from_multiple(&text);
    let all = all.map_err(|error| {
        // The text around the error may be a secret.
        let line = error.location().map_or(0, |at| at.line());
        BuildError::Failed(format!(
            "accumulating resources: MalformedYAMLError: yaml: line {line} in File: {file}"
        ))
    })?;
    Ok(all.into_iter().filter(|object| !object.is_null()).collect())
}

fn place(objects: &mut [Value], target: &str) {
    for object in objects {
        if !is_of_cluster(object) {
            object["metadata"]["namespace"] = target.into();
        }
    }
}

/// The kinds that kustomize knows to belong to no namespace. All others it takes for those that do.
fn is_of_cluster(object: &Value) -> bool {
    let kind = object["kind"].as_str().unwrap_or_default();
    [
        "APIService",
        "CSIDriver",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "IngressClass",
        "MutatingWebhookConfiguration",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PriorityClass",
        "RuntimeClass",
        "StorageClass",
        "ValidatingWebhookConfiguration",
    ]
    .contains(&kind)
}

fn index(folder: &str) -> String {
    match folder {
        "" => "kustomization.yaml".to_owned(),
        _ => format!("{folder}/kustomization.yaml"),
    }
}

/// A path from a folder, without dots. One that leads out of the root is an error.
fn join(folder: &str, path: &str) -> Result<String, BuildError> {
    let mut parts: Vec<_> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(|| {
                    BuildError::Failed(format!(
                        "security; file '{path}' is not in or below the root"
                    ))
                })?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}
