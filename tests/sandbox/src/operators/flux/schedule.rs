//! When an object is looked at again: at once when something about it changed, else when its time has come.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use super::status::requested;
use crate::operators::api::{name, namespace};
use crate::operators::{Fault, Tick};

/// The controllers' `--min-retry-delay` and `--max-retry-delay`.
const SHORTEST: Duration = Duration::from_millis(750);
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// `--requeue-dependency`.
pub(super) const DEPENDENCY: Duration = Duration::from_secs(30);

/// All objects of a kind that a controller remembers, with what it knows of each besides.
#[derive(Debug)]
pub(super) struct Schedule<T>(HashMap<(String, String), (Item, T)>);

impl<T: Default> Schedule<T> {
    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    /// What is remembered of an object. One that is new, or was made anew, starts from nothing.
    pub(super) fn of(&mut self, object: &Value) -> &mut (Item, T) {
        let key = (namespace(object).to_owned(), name(object).to_owned());
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        let known = self.0.entry(key).or_default();
        if known.0.uid != uid {
            *known = <(Item, T)>::default();
            known.0.uid = uid.to_owned();
        }
        known
    }

    /// Forgets objects that are gone.
    pub(super) fn keep(&mut self, objects: &[Value]) {
        self.0.retain(|(space, own), _| {
            objects
                .iter()
                .any(|object| name(object) == own && namespace(object) == space)
        });
    }
}

/// When an object is due.
#[derive(Debug, Default)]
pub(super) struct Item {
    uid: String,
    seen: Option<String>,
    due: u64,
    begins: Option<u64>,
    failures: u32,
}

impl Item {
    /// Whether to reconcile in this tick. `around` is everything beside the object itself that makes its controller
    /// look at once: revisions of sources, watched ConfigMaps.
    pub(super) fn is_due(&mut self, object: &Value, around: &str, tick: &Tick) -> bool {
        let generation = &object["metadata"]["generation"];
        let seen = format!("{generation}/{:?}/{around}", requested(object));
        if self.seen.as_ref() == Some(&seen) && tick.number < self.due {
            self.begins = None;
            return false;
        }
        let slow = tick.faults.find(|fault| match fault {
            Fault::Slow(ticks) => Some(*ticks),
            _ => None,
        });
        let begins = *self
            .begins
            .get_or_insert(tick.number + slow.unwrap_or_default());
        if tick.number < begins {
            return false;
        }
        self.begins = None;
        self.seen = Some(seen);
        // Whoever forgets to say when to come back comes back at once.
        self.due = tick.number + 1;
        true
    }

    /// To be looked at again after a time, and all went well as far as that.
    pub(super) fn again(&mut self, tick: &Tick, after: Duration) {
        self.failures = 0;
        self.due = tick.after(after);
    }

    /// To be looked at again, each time after twice as long, up to 15 minutes.
    pub(super) fn back_off(&mut self, tick: &Tick) {
        let wait = SHORTEST.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        self.due = tick.after(wait.min(LONGEST));
    }

    /// Only to be looked at again when something changes.
    pub(super) fn never(&mut self) {
        self.due = u64::MAX;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(generation: i64) -> Value {
        json!({"metadata": {"name": "a", "namespace": "b", "uid": "c", "generation": generation}})
    }

    /// The ticks from 1 to 400 in which an object that always fails is tried.
    fn tries(faults: &[Fault], mut changed: impl FnMut(u64) -> bool) -> Vec<u64> {
        let (mut item, mut generation) = (Item::default(), 1);
        let mut tried = Vec::new();
        for number in 1..=400 {
            let tick = Tick::of(number);
            faults
                .iter()
                .for_each(|fault| tick.faults.set(fault.clone()));
            generation += i64::from(changed(number));
            if item.is_due(&object(generation), "", &tick) {
                tried.push(number);
                item.back_off(&tick);
            }
        }
        tried
    }

    #[tokio::test]
    async fn a_failure_is_tried_again_ever_later_up_to_fifteen_minutes() {
        // A tick is ten seconds here.
        let tried = tries(&[], |_| false);
        let waits: Vec<_> = tried.windows(2).map(|two| two[1] - two[0]).collect();
        assert_eq!(&waits[..9], [1, 1, 1, 1, 2, 3, 5, 10, 20]);
        assert_eq!(waits.last(), Some(&90));
    }

    #[tokio::test]
    async fn a_change_is_acted_on_at_once_or_as_late_as_a_slow_controller_is() {
        let tried = tries(&[], |number| number == 300);
        assert!(tried.contains(&300), "{tried:?}");
        let tried = tries(&[Fault::Slow(7)], |number| number == 300);
        assert_eq!(tried.first(), Some(&8));
        assert!(!tried.contains(&300) && tried.contains(&307), "{tried:?}");
    }
}
