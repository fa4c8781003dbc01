//! What goes wrong, on purpose and the same way each time.
//!
//! A [`YandexFault`] says which calls it meets, what happens to them or to the operation that they begin,
//! and how often. "Before" means that the call had no effect; "after" that it had, and only the answer is
//! lost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::refusal::{Code, Refusal};

/// What happens to a call that a fault meets.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Refuse(Refusal),
    Hang,
    Cut,
    Malformed,
    EmptyPage,
    HideNewest,
    Delay(Duration),
}

/// How the operation goes that a call begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Ending {
    /// Well.
    #[default]
    Well,
    /// It fails at its end, and what it made is gone, or what it was to delete stays.
    Fails(Code, String),
    /// It shows its error and goes on, taking back what it made; only then it is done.
    RollsBack(Code, String),
    /// It fails, and what it made stays behind.
    Leaves(Code, String),
    /// It is never done.
    Stuck,
}

#[derive(Clone, Debug)]
enum Effect {
    Call(Action),
    Operation(Ending),
}

/// One rule: which calls, what happens, how often. Built up by its methods:
/// `YandexFault::on("POST", "/vpc/v1/networks").after().cut()`. Without further words it is a 500 before
/// the effect, once.
#[derive(Clone, Debug)]
pub struct YandexFault {
    method: String,
    path: String,
    after: bool,
    effect: Effect,
    skip: u64,
    times: u64,
}

impl YandexFault {
    /// Meets calls of this method (`*`: any) to this path, where `*` is one segment and `**` at the end any
    /// number of them.
    pub fn on(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            after: false,
            effect: Effect::Call(Action::Refuse(told(500))),
            skip: 0,
            times: 1,
        }
    }

    /// The call has its effect first; only its answer is spoilt.
    pub fn after(mut self) -> Self {
        self.after = true;
        self
    }

    /// Answers this status, with the code of google.rpc that goes with it.
    pub fn answer(self, status: u16) -> Self {
        self.does(Action::Refuse(told(status)))
    }

    /// Answers 429 with `Retry-After`, in seconds.
    pub fn too_many(self, retry_after: u64) -> Self {
        let retry_after = Some(retry_after);
        self.does(Action::Refuse(Refusal {
            retry_after,
            ..told(429)
        }))
    }

    /// Never answers.
    pub fn hang(self) -> Self {
        self.does(Action::Hang)
    }

    /// Cuts the connection.
    pub fn cut(self) -> Self {
        self.does(Action::Cut)
    }

    /// Answers broken JSON; the call has its effect.
    pub fn malformed(self) -> Self {
        self.does(Action::Malformed).after()
    }

    /// A list's page holds nothing and leads on to the one that it should have been, which is legal.
    pub fn empty_page(self) -> Self {
        self.does(Action::EmptyPage).after()
    }

    /// A list does not show its newest entry: it lags behind a create.
    pub fn hide_newest(self) -> Self {
        self.does(Action::HideNewest).after()
    }

    /// Answers truly, and later.
    pub fn delay(self, by: Duration) -> Self {
        self.does(Action::Delay(by))
    }

    /// The operation that the call begins fails at its end. What it made is gone then; what it was to delete
    /// stays.
    pub fn fails(self, code: Code, message: &str) -> Self {
        self.ends(Ending::Fails(code, message.to_owned()))
    }

    /// The operation shows its error while it is not done, and is done when what it made is gone.
    pub fn rolls_back(self, code: Code, message: &str) -> Self {
        self.ends(Ending::RollsBack(code, message.to_owned()))
    }

    /// The operation fails, and what it made stays behind, PROVISIONING for ever.
    pub fn leaves(self, code: Code, message: &str) -> Self {
        self.ends(Ending::Leaves(code, message.to_owned()))
    }

    /// The operation is never done.
    pub fn stuck(self) -> Self {
        self.ends(Ending::Stuck)
    }

    /// Lets the first `n` matching calls pass.
    pub fn skip(mut self, n: u64) -> Self {
        self.skip = n;
        self
    }

    /// How many matching calls it meets. The default is one.
    pub fn times(mut self, n: u64) -> Self {
        self.times = n;
        self
    }

    /// Meets all matching calls, until [`YandexFaults::clear`].
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    fn does(mut self, action: Action) -> Self {
        self.effect = Effect::Call(action);
        self
    }

    fn ends(mut self, ending: Ending) -> Self {
        self.effect = Effect::Operation(ending);
        self
    }

    fn matches(&self, method: &str, path: &str) -> bool {
        (self.method == "*" || self.method == method) && path_matches(&self.path, path)
    }
}

fn told(status: u16) -> Refusal {
    let code = Code::of_status(status);
    Refusal {
        status,
        ..Refusal::new(code, "The sandbox was told to fail here")
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    let mut pattern = pattern.trim_matches('/').split('/');
    let mut path = path.trim_matches('/').split('/');
    loop {
        match (pattern.next(), path.next()) {
            (None, None) | (Some("**"), _) => return true,
            (Some(p), Some(s)) if p == "*" || p == s => {}
            _ => return false,
        }
    }
}

/// A fault that meets a call now.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    pub(super) action: Action,
    pub(super) after: bool,
}

/// The switchboard: add faults while the simulator runs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct YandexFaults(Arc<Mutex<Vec<Armed>>>);

#[derive(Debug)]
struct Armed {
    fault: YandexFault,
    seen: u64,
    fired: u64,
}

impl YandexFaults {
    /// Adds a fault. For a call the first one that fires wins, and so for the operation that it begins.
    pub fn add(&self, fault: YandexFault) {
        let (seen, fired) = (0, 0);
        self.lock().push(Armed { fault, seen, fired });
    }

    /// Takes all faults away.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Faults that never fired. A test asserts that this is empty, else it tested nothing.
    pub fn unused(&self) -> Vec<String> {
        let armed = self.lock();
        let unused = armed.iter().filter(|armed| armed.fired == 0);
        unused.map(|armed| format!("{:?}", armed.fault)).collect()
    }

    /// What meets this call.
    pub(super) fn hit(&self, method: &str, path: &str) -> Option<Hit> {
        self.first(method, path, |fault| match &fault.effect {
            Effect::Call(action) => Some(Hit {
                action: action.clone(),
                after: fault.after,
            }),
            Effect::Operation(_) => None,
        })
    }

    /// How the operation goes that this call begins.
    pub(super) fn ending(&self, method: &str, path: &str) -> Ending {
        let found = self.first(method, path, |fault| match &fault.effect {
            Effect::Operation(ending) => Some(ending.clone()),
            Effect::Call(_) => None,
        });
        found.unwrap_or_default()
    }

    fn first<T>(
        &self,
        method: &str,
        path: &str,
        of: impl Fn(&YandexFault) -> Option<T>,
    ) -> Option<T> {
        for armed in self.lock().iter_mut() {
            if !armed.fault.matches(method, path) {
                continue;
            }
            let Some(effect) = of(&armed.fault) else {
                continue;
            };
            armed.seen += 1;
            if armed.seen > armed.fault.skip && armed.seen - armed.fault.skip <= armed.fault.times {
                armed.fired += 1;
                return Some(effect);
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Armed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::path_matches;

    #[test]
    fn a_star_is_one_segment_and_two_are_the_rest() {
        for (pattern, path, matches) in [
            ("/vpc/v1/networks", "/vpc/v1/networks", true),
            ("/vpc/v1/networks/*", "/vpc/v1/networks/enp1", true),
            ("/vpc/v1/networks/*", "/vpc/v1/networks", false),
            ("/vpc/v1/networks", "/vpc/v1/networks/enp1", false),
            (
                "/managed-kubernetes/**",
                "/managed-kubernetes/v1/clusters",
                true,
            ),
            ("/**", "/operations/x", true),
        ] {
            assert_eq!(path_matches(pattern, path), matches, "{pattern} {path}");
        }
    }
}
