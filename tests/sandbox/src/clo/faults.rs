//! What goes wrong, on purpose and the same way each time.
//!
//! A [`Fault`] says which calls it meets, what happens to them, and how often. "Before" means
//! that the call had no effect; "after" that it had, and only the answer is lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::operation::Operation;

/// What happens to a call that a fault meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Another status than the true one, with an error body.
    Answer {
        /// The HTTP status.
        status: u16,
        /// Seconds for the `Retry-After` header.
        retry_after: Option<u64>,
    },
    /// No answer until the client gives up.
    Hang,
    /// The connection ends without an answer.
    Cut,
    /// The true answer, cut in the middle of its JSON.
    Malformed,
    /// A list answers its `count` but no `result` (on odd hits) or an empty one (on even hits).
    EmptyPage,
    /// A list does not show its newest entry, and counts one less.
    HideNewest,
    /// The true answer, later.
    Delay(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Before,
    After,
}

#[derive(Clone, Copy, Debug)]
enum When {
    Times(u64),
    Every(u64),
    Always,
}

/// One rule: which calls, what happens, how often. Built up by its methods:
/// `Fault::on(Operation::CreateServer).named("test-web-1").after().cut().times(1)`.
#[derive(Clone, Debug)]
pub struct Fault {
    operation: Option<Operation>,
    method: Option<String>,
    path: Option<String>,
    name: Option<String>,
    skip: u64,
    when: When,
    phase: Phase,
    action: Action,
}

impl Fault {
    /// Meets calls of one operation. Without further words: a 500 before the effect, once.
    pub fn on(operation: Operation) -> Self {
        Self {
            operation: Some(operation),
            ..Self::anywhere()
        }
    }

    /// Meets all calls.
    pub fn anywhere() -> Self {
        Self {
            operation: None,
            method: None,
            path: None,
            name: None,
            skip: 0,
            when: When::Times(1),
            phase: Phase::Before,
            action: Action::Answer {
                status: 500,
                retry_after: None,
            },
        }
    }

    /// Only calls with this HTTP method.
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_ascii_uppercase());
        self
    }

    /// Only calls whose path matches; `*` stands for one segment.
    pub fn path(mut self, pattern: &str) -> Self {
        self.path = Some(pattern.to_owned());
        self
    }

    /// Only calls about the server (or volume, load balancer, …) of this name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// The call has its effect first; only its answer is spoilt.
    pub fn after(mut self) -> Self {
        self.phase = Phase::After;
        self
    }

    /// Answers this status.
    pub fn answer(mut self, status: u16) -> Self {
        self.action = Action::Answer {
            status,
            retry_after: None,
        };
        self
    }

    /// Answers 429 with `Retry-After`.
    pub fn too_many(mut self, retry_after: u64) -> Self {
        self.action = Action::Answer {
            status: 429,
            retry_after: Some(retry_after),
        };
        self
    }

    /// Never answers.
    pub fn hang(mut self) -> Self {
        self.action = Action::Hang;
        self
    }

    /// Cuts the connection.
    pub fn cut(mut self) -> Self {
        self.action = Action::Cut;
        self
    }

    /// Answers broken JSON; the call has its effect.
    pub fn malformed(mut self) -> Self {
        self.action = Action::Malformed;
        self.phase = Phase::After;
        self
    }

    /// A list page without entries although `count` says otherwise.
    pub fn empty_page(mut self) -> Self {
        self.action = Action::EmptyPage;
        self.phase = Phase::After;
        self
    }

    /// A list without its newest entry (eventual consistency).
    pub fn hide_newest(mut self) -> Self {
        self.action = Action::HideNewest;
        self.phase = Phase::After;
        self
    }

    /// Answers later.
    pub fn delay(mut self, by: Duration) -> Self {
        self.action = Action::Delay(by);
        self
    }

    /// The first `n` matching calls. The default is one.
    pub fn times(mut self, n: u64) -> Self {
        self.when = When::Times(n);
        self
    }

    /// Every `n`th matching call.
    pub fn every(mut self, n: u64) -> Self {
        self.when = When::Every(n.max(1));
        self
    }

    /// All matching calls, until [`CloFaults::clear`].
    pub fn always(mut self) -> Self {
        self.when = When::Always;
        self
    }

    /// Lets the first `n` matching calls pass.
    pub fn skip(mut self, n: u64) -> Self {
        self.skip = n;
        self
    }

    fn matches(&self, call: &Target<'_>) -> bool {
        self.operation.is_none_or(|o| o == call.operation)
            && self.method.as_deref().is_none_or(|m| m == call.method)
            && self
                .path
                .as_deref()
                .is_none_or(|p| path_matches(p, call.path))
            && self.name.as_ref().is_none_or(|n| call.names.contains(n))
    }

    /// `seen` counts the matching calls, this one included.
    fn fires(&self, seen: u64) -> bool {
        let Some(n) = seen.checked_sub(self.skip).filter(|n| *n > 0) else {
            return false;
        };
        match self.when {
            When::Times(times) => n <= times,
            When::Every(every) => n.is_multiple_of(every),
            When::Always => true,
        }
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    let mut pattern = pattern.trim_matches('/').split('/');
    let mut path = path.trim_matches('/').split('/');
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(p), Some(s)) if p == "*" || p == s => {}
            _ => return false,
        }
    }
}

/// What a fault is matched against.
pub(super) struct Target<'a> {
    pub(super) operation: Operation,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// The thing's own name and that of the server it is about.
    pub(super) names: &'a [String],
}

/// A fault that fires now.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    pub(super) action: Action,
    pub(super) before: bool,
    /// How often this fault fired, this time included.
    pub(super) nth: u64,
}

/// How the build of one server goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BuildFault {
    Stuck,
    Error,
}

/// The switchboard: add faults while the simulator runs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct CloFaults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    rules: Vec<Armed>,
    builds: BTreeMap<String, (BuildFault, u64)>,
    devices: BTreeMap<String, Vec<String>>,
    shuffles: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    seen: u64,
    fired: u64,
}

impl CloFaults {
    /// Adds a fault; the first one that fires for a call wins.
    pub fn add(&self, fault: Fault) {
        self.lock().rules.push(Armed {
            fault,
            seen: 0,
            fired: 0,
        });
    }

    /// Takes all faults away.
    pub fn clear(&self) {
        *self.lock() = State::default();
    }

    /// Faults that never fired. A test asserts that this is empty, else it tested nothing.
    pub fn unused(&self) -> Vec<String> {
        let state = self.lock();
        let mut unused: Vec<String> = state
            .rules
            .iter()
            .filter(|armed| armed.fired == 0)
            .map(|armed| format!("{:?}", armed.fault))
            .collect();
        unused.extend(state.builds.keys().map(|name| format!("build of {name}")));
        unused.extend(state.devices.keys().map(|name| format!("device on {name}")));
        unused.extend(
            state
                .shuffles
                .keys()
                .map(|name| format!("reboot of {name}")),
        );
        unused
    }

    /// The next `times` servers created under this name stay in BUILDING for ever.
    pub fn stuck_building(&self, name: &str, times: u64) {
        let fault = (BuildFault::Stuck, times);
        self.lock().builds.insert(name.to_owned(), fault);
    }

    /// The next `times` servers created under this name end in ERROR.
    pub fn build_error(&self, name: &str, times: u64) {
        let fault = (BuildFault::Error, times);
        self.lock().builds.insert(name.to_owned(), fault);
    }

    /// The next volume attached to this server gets this device name (if it is free).
    pub fn next_device(&self, server_name: &str, device: &str) {
        let mut state = self.lock();
        let queue = state.devices.entry(server_name.to_owned()).or_default();
        queue.push(device.to_owned());
    }

    /// At the next reboot of this server its data disks come back under each other's names.
    pub fn shuffle_on_reboot(&self, server_name: &str) {
        *self
            .lock()
            .shuffles
            .entry(server_name.to_owned())
            .or_default() += 1;
    }

    pub(super) fn hit(&self, call: &Target<'_>) -> Option<Hit> {
        let mut state = self.lock();
        let matching = state.rules.iter_mut().filter(|a| a.fault.matches(call));
        for armed in matching {
            armed.seen += 1;
            if armed.fault.fires(armed.seen) {
                armed.fired += 1;
                return Some(Hit {
                    action: armed.fault.action.clone(),
                    before: armed.fault.phase == Phase::Before,
                    nth: armed.fired,
                });
            }
        }
        None
    }

    pub(super) fn take_build(&self, name: &str) -> Option<BuildFault> {
        let mut state = self.lock();
        let (fault, left) = state.builds.get_mut(name)?;
        let fault = *fault;
        *left = left.saturating_sub(1);
        if *left == 0 {
            state.builds.remove(name);
        }
        Some(fault)
    }

    pub(super) fn take_device(&self, name: &str) -> Option<String> {
        let mut state = self.lock();
        let queue = state.devices.get_mut(name)?;
        let device = queue.remove(0);
        if queue.is_empty() {
            state.devices.remove(name);
        }
        Some(device)
    }

    pub(super) fn take_shuffle(&self, name: &str) -> bool {
        let mut state = self.lock();
        let Some(left) = state.shuffles.get_mut(name) else {
            return false;
        };
        *left -= 1;
        if *left == 0 {
            state.shuffles.remove(name);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
