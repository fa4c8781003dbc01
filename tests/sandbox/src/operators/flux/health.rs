//! Whether an object is what it should be, by the rules that Flux takes from kstatus, and by `healthCheckExprs`.

use serde_json::Value;

/// What kstatus says of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Current,
    InProgress,
    Failed,
    NotFound,
    Terminating,
}

impl Health {
    /// As it stands in messages.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Current => "Current",
            Self::InProgress => "InProgress",
            Self::Failed => "Failed",
            Self::NotFound => "NotFound",
            Self::Terminating => "Terminating",
        }
    }
}

/// What an object is now.
pub(super) fn health(object: Option<&Value>) -> Health {
    let Some(object) = object else {
        return Health::NotFound;
    };
    if object["metadata"]["deletionTimestamp"].is_string() {
        return Health::Terminating;
    }
    let status = &object["status"];
    let observed = &status["observedGeneration"];
    if !observed.is_null() && *observed != object["metadata"]["generation"] {
        return Health::InProgress;
    }
    if condition(object, "Stalled") == Some("True") {
        return Health::Failed;
    }
    if condition(object, "Reconciling") == Some("True") {
        return Health::InProgress;
    }
    let replicas = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let done = match object["kind"].as_str().unwrap_or_default() {
        "Deployment" => {
            let progress = status["conditions"].as_array().into_iter().flatten();
            let mut progress = progress.filter(|c| c["type"] == "Progressing");
            if progress.any(|c| c["reason"] == "ProgressDeadlineExceeded") {
                return Health::Failed;
            }
            observed.is_i64()
                && count("updatedReplicas") >= replicas
                && count("replicas") <= count("updatedReplicas")
                && count("availableReplicas") >= replicas
                && condition(object, "Available") == Some("True")
        }
        "StatefulSet" => observed.is_i64() && count("readyReplicas") >= replicas,
        "CustomResourceDefinition" => condition(object, "Established") == Some("True"),
        "Job" => condition(object, "Complete") == Some("True"),
        "PersistentVolumeClaim" => status["phase"] == "Bound",
        _ => matches!(condition(object, "Ready"), None | Some("True")),
    };
    match done {
        true => Health::Current,
        false => Health::InProgress,
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let mut all = object["status"]["conditions"].as_array()?.iter();
    all.find(|condition| condition["type"] == kind)?["status"].as_str()
}

/// Whether an expression holds for an object; an error names what is not understood.
pub(super) fn holds(expression: &str, object: &Value) -> Result<bool, String> {
    let mut all = true;
    for part in expression.split("&&").map(str::trim) {
        all &= match part.split_once("==") {
            Some((path, text)) => {
                let text = text.trim();
                let text = text.strip_prefix(['\'', '"']);
                let text = text.and_then(|text| text.strip_suffix(['\'', '"']));
                let text = text.ok_or_else(|| format!("`{part}` is not simulated"))?;
                at(object, path.trim())? == text
            }
            None => {
                let path = part.strip_prefix("has(");
                let path = path.and_then(|path| path.strip_suffix(')'));
                let path = path.ok_or_else(|| format!("`{part}` is not simulated"))?;
                !at(object, path)?.is_null()
            }
        };
    }
    Ok(all)
}

fn at<'a>(object: &'a Value, path: &str) -> Result<&'a Value, String> {
    let plain = |c: char| c == '.' || c == '_' || c.is_ascii_alphanumeric();
    if path.is_empty() || !path.chars().all(plain) {
        return Err(format!("`{path}` is not simulated"));
    }
    Ok(path.split('.').fold(object, |value, field| &value[field]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(object: Value, expected: Health) {
        assert_eq!(health(Some(&object)), expected, "{object}");
    }

    #[test]
    fn health_is_what_kstatus_says() {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let meta = json!({"generation": 2});
        check(
            json!({"kind": "ConfigMap", "metadata": {}}),
            Health::Current,
        );
        let release = |observed: i64, conditions: &Value| {
            json!({"kind": "HelmRelease", "metadata": meta,
                "status": {"observedGeneration": observed, "conditions": conditions}})
        };
        check(release(-1, &json!([])), Health::InProgress);
        check(release(1, &ready), Health::InProgress);
        check(release(2, &ready), Health::Current);
        let not = json!([{"type": "Ready", "status": "False"}]);
        check(release(2, &not), Health::InProgress);
        let stalled =
            json!([{"type": "Ready", "status": "False"}, {"type": "Stalled", "status": "True"}]);
        check(release(2, &stalled), Health::Failed);
        check(
            json!({"kind": "Deployment", "metadata": meta, "spec": {"replicas": 2},
                "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}}),
            Health::InProgress,
        );
        check(
            json!({"kind": "Deployment", "metadata": meta, "spec": {}}),
            Health::InProgress,
        );
        assert_eq!(health(None), Health::NotFound);
    }

    #[test]
    fn an_expression_of_the_tree_is_understood_and_others_are_named() {
        let expression = "has(status.state) && status.state == 'ready'";
        let of = |state: Value| holds(expression, &json!({"status": {"state": state}}));
        assert_eq!(of(json!("ready")), Ok(true));
        assert_eq!(of(json!("initializing")), Ok(false));
        assert_eq!(of(json!(null)), Ok(false));
        let wrong = holds("status.size > 3", &json!({}));
        assert_eq!(wrong, Err("`status.size > 3` is not simulated".to_owned()));
    }
}
