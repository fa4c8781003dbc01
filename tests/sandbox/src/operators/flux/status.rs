//! What Flux' objects say of themselves: conditions, and the few words all of them share.

use std::time::Duration;

use serde_json::{Value, json};

use crate::operators::time::now;

/// The conditions of an object, to be changed and written back as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Conditions {
    generation: Value,
    list: Vec<Value>,
}

impl Conditions {
    /// Those that an object has.
    pub(crate) fn of(object: &Value) -> Self {
        let list = object["status"]["conditions"].as_array();
        Self {
            generation: object["metadata"]["generation"].clone(),
            list: list.cloned().unwrap_or_default(),
        }
    }

    /// Sets one: `status` is `True`, `False` or `Unknown`. The time of the transition only moves with the status.
    pub(crate) fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let was = self.list.iter().find(|c| c["type"] == kind);
        let since = was
            .filter(|c| c["status"] == status)
            .map(|c| c["lastTransitionTime"].clone())
            .unwrap_or_else(|| now().into());
        let condition = json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since, "observedGeneration": self.generation,
        });
        self.remove(kind);
        self.list.push(condition);
    }

    /// Takes one away.
    pub(crate) fn remove(&mut self, kind: &str) {
        self.list.retain(|c| c["type"] != kind);
    }

    /// Whether one has this status.
    pub(crate) fn is(&self, kind: &str, status: &str) -> bool {
        let found = self.list.iter().find(|c| c["type"] == kind);
        found.is_some_and(|c| c["status"] == status)
    }

    /// The list as it is written.
    pub(crate) fn value(mut self) -> Value {
        self.list.sort_by_key(|c| {
            let kind = c["type"].as_str().unwrap_or_default();
            // As Flux sorts them: the summary first.
            (kind != "Ready", kind.to_owned())
        });
        self.list.into()
    }
}

/// Whether the object is Ready at its generation, as a `dependsOn` understands it.
pub(crate) fn is_ready(object: &Value) -> bool {
    let generation = &object["metadata"]["generation"];
    object["status"]["observedGeneration"] == *generation
        && Conditions::of(object).is("Ready", "True")
}

/// The value of an annotation.
pub(crate) fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][name].as_str()
}

/// What was asked by `reconcile.fluxcd.io/requestedAt`.
pub(crate) fn requested(object: &Value) -> Option<&str> {
    annotation(object, "reconcile.fluxcd.io/requestedAt")
}

/// A duration of Go: `1m30s`, `500ms`, `1h`. Nothing else is one.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit = tail.find(|c: char| c.is_ascii_digit());
        let (unit, tail) = tail.split_at(unit.unwrap_or(tail.len()));
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = tail;
    }
    (!text.is_empty()).then(|| Duration::from_secs_f64(total))
}

/// A field of the spec that is a duration, or a default.
pub(crate) fn spec_duration(object: &Value, pointer: &str, default: Duration) -> Duration {
    let text = object["spec"].pointer(pointer).and_then(Value::as_str);
    text.and_then(duration).unwrap_or(default)
}

/// A duration as Go writes it, for messages.
pub(crate) fn words(time: Duration) -> String {
    let all = time.as_secs();
    let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        let check = |text: &str, seconds: f64, again: &str| {
            let time = duration(text);
            assert_eq!(time, Some(Duration::from_secs_f64(seconds)), "{text}");
            assert_eq!(time.map(words).as_deref(), Some(again), "{text}");
        };
        check("1m", 60.0, "1m0s");
        check("1m30s", 90.0, "1m30s");
        check("500ms", 0.5, "0s");
        check("1h", 3600.0, "1h0m0s");
        for wrong in ["", "1", "1d", "m", "-1m"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_time_of_a_transition_moves_with_the_status_only() {
        let object = json!({"metadata": {"generation": 2}, "status": {"conditions": [
            {"type": "Ready", "status": "False", "reason": "A", "lastTransitionTime": "2020-01-01T00:00:00Z"}]}});
        let mut conditions = Conditions::of(&object);
        conditions.set("Ready", "False", "B", "still not");
        let still = conditions.clone().value();
        assert_eq!(still[0]["lastTransitionTime"], "2020-01-01T00:00:00Z");
        assert_eq!(still[0]["reason"], "B");
        assert_eq!(still[0]["observedGeneration"], 2);
        conditions.set("Ready", "True", "C", "now");
        assert_ne!(
            conditions.value()[0]["lastTransitionTime"],
            "2020-01-01T00:00:00Z"
        );
    }
}
