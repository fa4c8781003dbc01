//! The environment of a container: `env` and `envFrom` with what their ConfigMaps and Secrets hold.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::operators::percona::json::text;
use crate::operators::{Cluster, api};

/// The variables of a container.
pub(super) type Variables = BTreeMap<String, String>;

/// Why a container cannot have its environment: what the kubelet says with `CreateContainerConfigError`.
pub(super) type Missing = String;

/// `envFrom` first, then `env`, which may refer to what came before it by `$(NAME)`.
pub(super) async fn of(
    cluster: &Cluster,
    pod: &Value,
    container: &Value,
) -> kube::Result<Result<Variables, Missing>> {
    let mut all = Variables::new();
    let namespace = api::namespace(pod);
    for from in container["envFrom"].as_array().into_iter().flatten() {
        let (kind, source) = match from.get("secretRef") {
            Some(source) => ("Secret", source),
            None => ("ConfigMap", &from["configMapRef"]),
        };
        let name = text(source, "/name");
        match data(cluster, kind, namespace, name).await? {
            Some(data) => {
                let prefix = text(from, "/prefix");
                let named = data.into_iter().map(|(k, v)| (format!("{prefix}{k}"), v));
                all.extend(named);
            }
            None if source["optional"] == true => {}
            None => return Ok(Err(not_found(kind, name))),
        }
    }
    for variable in container["env"].as_array().into_iter().flatten() {
        let value = match variable.get("valueFrom") {
            None => Some(expanded(text(variable, "/value"), &all)),
            Some(from) => match referred(cluster, pod, from).await? {
                Ok(value) => value,
                Err(why) => return Ok(Err(why)),
            },
        };
        if let Some(value) = value {
            all.insert(text(variable, "/name").to_owned(), value);
        }
    }
    Ok(Ok(all))
}

/// What `valueFrom` leads to; nothing when it is not there and need not be.
async fn referred(
    cluster: &Cluster,
    pod: &Value,
    from: &Value,
) -> kube::Result<Result<Option<String>, Missing>> {
    let namespace = api::namespace(pod);
    if let Some(field) = from.pointer("/fieldRef/fieldPath").and_then(Value::as_str) {
        let path = format!("/{}", field.replace('.', "/"));
        return Ok(Ok(Some(text(pod, &path).to_owned())));
    }
    let (kind, source) = match from.get("secretKeyRef") {
        Some(source) => ("Secret", source),
        None => ("ConfigMap", &from["configMapKeyRef"]),
    };
    let (name, key) = (text(source, "/name"), text(source, "/key"));
    let optional = source["optional"] == true;
    let Some(mut data) = data(cluster, kind, namespace, name).await? else {
        return Ok(match optional {
            true => Ok(None),
            false => Err(not_found(kind, name)),
        });
    };
    Ok(match data.remove(key) {
        None if !optional => Err(format!("couldn't find key {key} in {kind} {namespace}/{name}")),
        value => Ok(value),
    })
}

/// The texts in a ConfigMap or Secret; nothing when it does not exist.
pub(super) async fn data(
    cluster: &Cluster,
    kind: &str,
    namespace: &str,
    name: &str,
) -> kube::Result<Option<Variables>> {
    let Some(object) = cluster.get("v1", kind, namespace, name).await? else {
        return Ok(None);
    };
    let fields = object["data"].as_object().into_iter().flatten();
    let decoded = fields.filter_map(|(key, value)| {
        let value = value.as_str()?;
        let value = match kind {
            "Secret" => String::from_utf8(BASE64.decode(value).ok()?).ok()?,
            _ => value.to_owned(),
        };
        Some((key.clone(), value))
    });
    Ok(Some(decoded.collect()))
}

fn not_found(kind: &str, name: &str) -> Missing {
    format!("{} \"{name}\" not found", kind.to_lowercase())
}

/// With what `$(NAME)` stands for; a name that nobody knows stays as it is.
fn expanded(text: &str, known: &Variables) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("$(") {
        out.push_str(before);
        let known = after
            .split_once(')')
            .and_then(|(name, after)| Some((known.get(name)?, after)));
        match known {
            Some((value, after)) => {
                out.push_str(value);
                rest = after;
            }
            None => {
                out.push_str("$(");
                rest = after;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_values_stand_for_what_came_before() {
        let known = Variables::from([("DOMAIN".to_owned(), "example.org".to_owned())]);
        for (text, expected) in [
            ("https://$(DOMAIN)/", "https://example.org/"),
            ("$(OTHER)/$(DOMAIN)", "$(OTHER)/example.org"),
            ("$(DOMAIN", "$(DOMAIN"),
            ("plain", "plain"),
        ] {
            assert_eq!(expanded(text, &known), expected);
        }
    }
}
