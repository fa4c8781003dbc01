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
pub(crate) fn behind(object: &Value) -> Option<String> {
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

/// A condition of an object, by its type.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
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

/// A condition is about the object as it is now. Controllers of Flux bring the status' own generation up to date only
/// when all went well, so of what did not the condition itself has to say it.
pub(crate) fn is_current(object: &Value, condition: &Value) -> bool {
    match condition.get("observedGeneration") {
        Some(seen) => Some(seen) == object.pointer("/metadata/generation"),
        None => behind(object).is_none(),
    }
}

/// `reason: message` of a condition.
pub(crate) fn said(condition: &Value, silent: &str) -> String {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn not_yet(text: &str) -> Look {
        Look::NotYet(text.to_owned())
    }

    fn stuck(text: &str) -> Look {
        Look::Stuck(text.to_owned())
    }

    #[test]
    fn a_definition_is_ready_when_it_is_established() {
        let check = |conditions: Value, expected: Look| {
            let object =
                json!({"metadata": {"generation": 1}, "status": {"conditions": conditions}});
            assert_eq!(definition(&object), expected, "{object}");
        };
        check(
            json!([{"type": "Established", "status": "True"}]),
            Look::Ready,
        );
        check(
            json!([{"type": "NamesAccepted", "status": "True"},
                   {"type": "Established", "status": "False", "reason": "Installing", "message": "soon"}]),
            not_yet("Established is False: Installing: soon"),
        );
        check(
            json!([{"type": "NamesAccepted", "status": "False", "reason": "PluralConflict", "message": "boxes is in use"},
                   {"type": "Established", "status": "False"}]),
            stuck("PluralConflict: boxes is in use"),
        );
        check(json!([]), not_yet("it has no condition Established"));
        let fresh = json!({"metadata": {"generation": 1}});
        assert_eq!(
            definition(&fresh),
            not_yet("it has no condition Established")
        );
        let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"conditions": [{"type": "Established", "status": "True"}]}});
        assert_eq!(definition(&going), stuck("it is being deleted"));
    }

    #[test]
    fn a_deployment_is_ready_when_its_own_generation_runs_in_full() {
        let check = |spec: Value, status: Value, expected: Look| {
            let object = json!({"metadata": {"generation": 2}, "spec": spec, "status": status});
            assert_eq!(deployment(&object), expected, "{object}");
        };
        let two = json!({"replicas": 2});
        let status = |seen: i64, all: i64, updated: i64, available: i64| {
            json!({"observedGeneration": seen, "replicas": all, "updatedReplicas": updated,
                "availableReplicas": available})
        };
        check(two.clone(), status(2, 2, 2, 2), Look::Ready);
        check(json!({}), status(2, 1, 1, 1), Look::Ready);
        // None are wanted, and the server leaves out what is zero.
        check(
            json!({"replicas": 0}),
            json!({"observedGeneration": 2}),
            Look::Ready,
        );
        check(
            two.clone(),
            json!({}),
            not_yet("its controller has not seen it yet"),
        );
        check(
            two.clone(),
            status(1, 2, 2, 2),
            not_yet("its controller has seen generation 1 of 2"),
        );
        check(
            two.clone(),
            status(2, 2, 1, 2),
            not_yet("1 of 2 pods are of the new version"),
        );
        check(
            two.clone(),
            status(2, 3, 2, 3),
            not_yet("1 pods of the old version are left"),
        );
        check(
            two.clone(),
            status(2, 2, 2, 1),
            not_yet("1 of 2 pods are available"),
        );
        let late = json!([{"type": "Progressing", "status": "False",
            "reason": "ProgressDeadlineExceeded", "message": "no image"}]);
        let mut status = status(2, 2, 2, 0);
        status["conditions"] = late;
        check(
            two.clone(),
            status.clone(),
            stuck("ProgressDeadlineExceeded: no image"),
        );
        // That was the version before.
        status["observedGeneration"] = json!(1);
        check(
            two,
            status,
            not_yet("its controller has seen generation 1 of 2"),
        );
    }

    #[test]
    fn an_object_of_flux_is_ready_by_its_own_generation_and_our_request() {
        let ready = |status: &str| json!({"type": "Ready", "status": status, "reason": "Because", "message": "of it"});
        let check = |suspend: bool, status: Value, asked: Option<&str>, expected: Look| {
            let object = json!({"metadata": {"generation": 3}, "spec": {"suspend": suspend}, "status": status});
            assert_eq!(flux(&object, asked), expected, "{object} asked {asked:?}");
        };
        let now = |conditions: Value| json!({"observedGeneration": 3, "conditions": conditions});
        check(false, now(json!([ready("True")])), None, Look::Ready);
        check(
            false,
            now(json!([ready("False")])),
            None,
            not_yet("Ready is False: Because: of it"),
        );
        check(
            false,
            now(json!([ready("Unknown")])),
            None,
            not_yet("Ready is Unknown: Because: of it"),
        );
        check(
            false,
            now(json!([])),
            None,
            not_yet("it has no condition Ready"),
        );
        check(
            true,
            now(json!([ready("True")])),
            None,
            stuck("it is suspended"),
        );
        check(
            false,
            json!({"observedGeneration": 2, "conditions": [ready("True")]}),
            None,
            not_yet("its controller has seen generation 2 of 3; Ready is True: Because: of it"),
        );
        // What Flux writes before its first success.
        check(
            false,
            json!({"observedGeneration": -1, "conditions": [ready("False")]}),
            None,
            not_yet("its controller has not seen it yet; Ready is False: Because: of it"),
        );
        check(
            false,
            json!({}),
            None,
            not_yet("its controller has not seen it yet; it has no condition Ready"),
        );
        // A condition may be older than the status that it stands in.
        let mut old = ready("True");
        old["observedGeneration"] = json!(2);
        check(
            false,
            now(json!([old])),
            None,
            not_yet("Ready is True: Because: of it"),
        );

        let mut handled = now(json!([ready("True")]));
        let waiting = not_yet("it has not yet handled our request; Ready is True: Because: of it");
        check(false, handled.clone(), Some("t2"), waiting.clone());
        handled["lastHandledReconcileAt"] = json!("t1");
        check(false, handled.clone(), Some("t2"), waiting);
        handled["lastHandledReconcileAt"] = json!("t2");
        check(false, handled, Some("t2"), Look::Ready);

        let stalled = json!({"type": "Stalled", "status": "True", "reason": "RetriesExhausted", "message": "no more"});
        let mut given_up = now(json!([stalled, ready("False")]));
        check(
            false,
            given_up.clone(),
            None,
            stuck("it is stalled: RetriesExhausted: no more; Ready is False: Because: of it"),
        );
        // It may have been stalled before we asked it to try again.
        check(
            false,
            given_up.clone(),
            Some("t1"),
            not_yet("it has not yet handled our request; Ready is False: Because: of it"),
        );
        given_up["observedGeneration"] = json!(2);
        check(
            false,
            given_up,
            None,
            not_yet("its controller has seen generation 2 of 3; Ready is False: Because: of it"),
        );
    }
}
