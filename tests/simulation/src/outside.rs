//! The cloud of the simulation: things with names, made by calls that take a while, that fail before
//! or after their effect, and that go on when their caller is dead. It lets two things have the same
//! name, as real ones do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::stage::{Stage, lock};

/// The longest time until a call takes effect, in milliseconds.
pub(crate) const LATE: u64 = 800;

/// A call failed; whether it took effect is not known.
#[derive(Debug, thiserror::Error)]
#[error("the cloud did not answer")]
pub(crate) struct Trouble;

/// Everything there is outside.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    things: Mutex<Vec<Thing>>,
    taken: Mutex<BTreeSet<String>>,
    counts: Mutex<BTreeMap<String, u32>>,
}

/// A thing.
#[derive(Debug, Clone)]
pub(crate) struct Thing {
    /// What for: the program's place that wanted it.
    pub(crate) slot: String,
    /// Its name, chosen by the program.
    pub(crate) name: String,
    made: Instant,
}

impl Outside {
    /// The things of a slot, in the order in which they were made.
    pub(crate) fn of(&self, slot: &str) -> Vec<Thing> {
        let things = lock(&self.things);
        things.iter().filter(|t| t.slot == slot).cloned().collect()
    }

    /// Whether the thing of a slot was taken away.
    pub(crate) fn was_taken(&self, slot: &str) -> bool {
        lock(&self.taken).contains(slot)
    }

    /// All slots that have things.
    pub(crate) fn slots(&self) -> Vec<String> {
        lock(&self.things).iter().map(|t| t.slot.clone()).collect()
    }

    /// Counts one more of something; gives how many there were before.
    pub(crate) fn count(&self, what: &str) -> u32 {
        let mut counts = lock(&self.counts);
        let count = counts.entry(what.to_owned()).or_default();
        *count += 1;
        *count - 1
    }
}

impl Stage {
    /// Whether there is a thing of this name. A failed look is an error.
    pub(crate) async fn look(self: &Arc<Self>, name: &str) -> Result<bool, Trouble> {
        tokio::time::sleep(self.between(1, 20)).await;
        if self.chance(self.weather().store) {
            return Err(Trouble);
        }
        let there = lock(&self.outside.things).iter().any(|t| t.name == name);
        tokio::time::sleep(self.between(1, 20)).await;
        Ok(there)
    }

    /// For how long a thing has been there; `None` when it is not.
    pub(crate) async fn age(self: &Arc<Self>, name: &str) -> Result<Option<Duration>, Trouble> {
        tokio::time::sleep(self.between(1, 20)).await;
        if self.chance(self.weather().store) {
            return Err(Trouble);
        }
        let things = lock(&self.outside.things);
        Ok(things
            .iter()
            .find(|t| t.name == name)
            .map(|t| t.made.elapsed()))
    }

    /// Takes the things of some slots away.
    pub(crate) async fn take(self: &Arc<Self>, slots: Vec<String>) -> Result<(), Trouble> {
        tokio::time::sleep(self.between(1, 20)).await;
        if self.chance(self.weather().store) {
            return Err(Trouble);
        }
        let mut things = lock(&self.outside.things);
        let mut taken = lock(&self.outside.taken);
        taken.extend(
            things
                .iter()
                .filter(|t| slots.contains(&t.slot))
                .map(|t| t.slot.clone()),
        );
        things.retain(|thing| !slots.contains(&thing.slot));
        Ok(())
    }

    /// Makes a thing. The call is on its way from here on, whatever becomes of the caller.
    pub(crate) async fn make(self: &Arc<Self>, slot: &str, name: &str) -> Result<(), Trouble> {
        let (answered, answer) = oneshot::channel();
        let (stage, slot, name) = (Arc::clone(self), slot.to_owned(), name.to_owned());
        tokio::spawn(async move {
            let wrong = stage.chance(stage.weather().store);
            let most = if wrong { LATE } else { 50 };
            tokio::time::sleep(stage.between(1, most)).await;
            if wrong && stage.chance(50) {
                return answered.send(Err(Trouble));
            }
            stage.note(format_args!("outside: {name} is made for {slot}"));
            if !stage.outside.of(&slot).is_empty() {
                stage.object(format!("`{slot}` was created twice"));
            }
            let made = Instant::now();
            lock(&stage.outside.things).push(Thing { slot, name, made });
            tokio::time::sleep(stage.between(1, 20)).await;
            answered.send(if wrong { Err(Trouble) } else { Ok(()) })
        });
        answer.await.unwrap_or(Err(Trouble))
    }
}
