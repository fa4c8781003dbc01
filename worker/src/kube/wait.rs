//! One look at an object: is it ready, not yet, or stuck?
//!
//! Pure functions of the object as the API server shows it; the engine looks again. An object
//! whose status is about an older version of itself is never ready and never stuck.

use serde_json::Value;

/// What a look says. The texts are for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// It is what it should be.
    Ready,
    /// It may become ready by itself.
    NotYet(String),
    /// It does not become ready without somebody doing something.
    Stuck(String),
}

/// A definition of a kind is established: its objects can be written.
pub fn definition(object: &Value) -> Look {
    if let Some(gone) = going(object) {
        return gone;
    }
    if is_true(object, "Established") {
        return Look::Ready;
    }
    match condition(object, "NamesAccepted") {
        Some(names) if status(names) == Some("False") => {
            Look::Stuck(said(names, "its names are taken"))
        }
        _ => Look::NotYet(describe(object, "Established")),
    }
}

/// A Deployment runs in its current version and with all of its pods.
pub fn deployment(object: &Value) -> Look {
    if let Some(gone) = going(object) {
        return gone;
    }
    if let Some(behind) = behind(object) {
        return Look::NotYet(behind);
    }
    let number = |at: &str| object.pointer(at).and_then(Value::as_i64);
    let wanted = number("/spec/replicas").unwrap_or(1);
    let count = |field: &str| number(&format!("/status/{field}")).unwrap_or(0);
    if let Some(progress) = condition(object, "Progressing")
        && progress["reason"] == "ProgressDeadlineExceeded"
    {
        return Look::Stuck(said(progress, "it makes no progress"));
    }
    let (all, updated) = (count("replicas"), count("updatedReplicas"));
    let available = count("availableReplicas");
    if updated < wanted {
        Look::NotYet(format!("{updated} of {wanted} pods are of the new version"))
    } else if all > updated {
        Look::NotYet(format!(
            "{} pods of the old version are left",
            all - updated
        ))
    } else if available < wanted {
        Look::NotYet(format!("{available} of {wanted} pods are available"))
    } else {
        Look::Ready
    }
}

/// An object of Flux is reconciled at its generation and, if `asked`, since we asked for it: that is
/// the value that we gave the annotation `reconcile.fluxcd.io/requestedAt`.
pub fn flux(object: &Value, asked: Option<&str>) -> Look {
    if let Some(gone) = going(object) {
        return gone;
    }
    // It keeps the Ready that it had when it was suspended.
    if object.pointer("/spec/suspend") == Some(&Value::Bool(true)) {
        return Look::Stuck("it is suspended".to_owned());
    }
    let ready = describe(object, "Ready");
    if let Some(behind) = behind(object) {
        return Look::NotYet(format!("{behind}; {ready}"));
    }
    let handled = object.pointer("/status/lastHandledReconcileAt");
    if let Some(asked) = asked
        && handled.and_then(Value::as_str) != Some(asked)
    {
        return Look::NotYet(format!("it has not yet handled our request; {ready}"));
    }
    if let Some(stalled) = condition(object, "Stalled")
        && status(stalled) == Some("True")
    {
        return Look::Stuck(format!(
            "it is stalled: {}; {ready}",
            said(stalled, "it does not say why")
        ));
    }
    if is_true(object, "Ready") {
        return Look::Ready;
    }
    Look::NotYet(ready)
}

/// It is being deleted, so nothing else about it counts.
fn going(object: &Value) -> Option<Look> {
    let going = object.pointer("/metadata/deletionTimestamp")?;
    (!going.is_null()).then(|| Look::Stuck("it is being deleted".to_owned()))
}

/// The status is about another generation than the one that the object has.
fn behind(object: &Value) -> Option<String> {
    let generation = object
        .pointer("/metadata/generation")
        .and_then(Value::as_i64);
    let observed = object
        .pointer("/status/observedGeneration")
        .and_then(Value::as_i64);
    match (generation, observed) {
        (Some(now), Some(seen)) if now == seen => None,
        (Some(now), Some(seen)) if seen >= 0 => Some(format!(
            "its controller has seen generation {seen} of {now}"
        )),
        _ => Some("its controller has not seen it yet".to_owned()),
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    conditions
        .iter()
        .find(|condition| condition["type"] == kind)
}

fn status(condition: &Value) -> Option<&str> {
    condition["status"].as_str()
}

/// The condition is true, and not about an older generation.
fn is_true(object: &Value, kind: &str) -> bool {
    let Some(condition) = condition(object, kind) else {
        return false;
    };
    let generation = object.pointer("/metadata/generation");
    let seen = condition.get("observedGeneration");
    let current = seen.is_none() || generation.is_none() || seen == generation;
    current && status(condition) == Some("True")
}

/// `reason: message` of a condition.
fn said(condition: &Value, silent: &str) -> String {
    let text = |field: &str| {
        condition[field]
            .as_str()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    match (text("reason"), text("message")) {
        (reason, message) if reason.is_empty() && message.is_empty() => silent.to_owned(),
        (reason, message) if message.is_empty() => reason,
        (reason, message) if reason.is_empty() => message,
        (reason, message) => format!("{reason}: {message}"),
    }
}

fn describe(object: &Value, kind: &str) -> String {
    match condition(object, kind) {
        None => format!("it has no condition {kind}"),
        Some(condition) => {
            let status = status(condition).unwrap_or("unknown");
            format!(
                "{kind} is {status}: {}",
                said(condition, "it does not say why")
            )
        }
    }
}
