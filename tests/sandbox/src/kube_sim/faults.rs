//! What goes wrong with the API, on purpose.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::refusal::Refusal;

/// What happens to a request that a fault meets.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Strike {
    Refuse(Refusal),
    Hang,
    Cut,
    Slow(Duration),
}

/// One rule: which requests, what happens, how often. Built up by its methods:
/// `KubeFault::on("PATCH", "/api/v1/namespaces/pg/configmaps/*").after().cut()`. Without further
/// words it is a 500 before the effect, once.
#[derive(Clone, Debug)]
pub struct KubeFault {
    method: String,
    path: String,
    after: bool,
    strike: Strike,
    skip: u64,
    times: u64,
}

impl KubeFault {
    /// Meets requests of this method (`*`: any) to this path, where `*` is one segment and `**` at the
    /// end any number of them.
    pub fn on(method: &str, path: &str) -> Self {
        let message = "Internal error occurred: the sandbox says no";
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            after: false,
            strike: Strike::Refuse(Refusal::new(500, "InternalError", message)),
            skip: 0,
            times: 1,
        }
    }

    /// The request has its effect first.
    pub fn after(mut self) -> Self {
        self.after = true;
        self
    }

    /// Too many requests: come back after so many seconds.
    pub fn busy(self, seconds: u64) -> Self {
        let message = "The sandbox is asked too much, please try again later.";
        self.refuses(Refusal::new(429, "TooManyRequests", message).after(seconds))
    }

    /// The server is not able to (503).
    pub fn unavailable(self) -> Self {
        let message = "the server is currently unable to handle the request";
        self.refuses(Refusal::new(503, "ServiceUnavailable", message))
    }

    /// Somebody else was faster (409).
    pub fn conflict(self) -> Self {
        let message = "Operation cannot be fulfilled: the object has been modified; please apply your changes to the latest version and try again";
        self.refuses(Refusal::new(409, "Conflict", message))
    }

    /// No answer, while the connection stays open.
    pub fn hang(mut self) -> Self {
        self.strike = Strike::Hang;
        self
    }

    /// The connection ends without an answer.
    pub fn cut(mut self) -> Self {
        self.strike = Strike::Cut;
        self
    }

    /// It takes so long.
    pub fn slow(mut self, for_so_long: Duration) -> Self {
        self.strike = Strike::Slow(for_so_long);
        self
    }

    /// Lets the first `n` matching requests pass.
    pub fn skip(mut self, n: u64) -> Self {
        self.skip = n;
        self
    }

    /// How many matching requests it meets. The default is one.
    pub fn times(mut self, n: u64) -> Self {
        self.times = n;
        self
    }

    fn refuses(mut self, refusal: Refusal) -> Self {
        self.strike = Strike::Refuse(refusal);
        self
    }

    fn matches(&self, method: &str, path: &str) -> bool {
        (self.method == "*" || self.method == method) && path_matches(&self.path, path)
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

/// The switchboard of one API. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct KubeFaults(Arc<Mutex<Vec<Armed>>>);

#[derive(Debug)]
struct Armed {
    fault: KubeFault,
    seen: u64,
    fired: u64,
}

impl KubeFaults {
    /// Adds a fault; the first one that fires for a request wins.
    pub fn add(&self, fault: KubeFault) {
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
        let unused = armed.iter().filter(|a| a.fired == 0);
        unused.map(|a| format!("{:?}", a.fault)).collect()
    }

    /// What strikes this request, and whether after its effect.
    pub(super) fn strike(&self, method: &str, path: &str) -> Option<(Strike, bool)> {
        let mut armed = self.lock();
        for armed in armed.iter_mut().filter(|a| a.fault.matches(method, path)) {
            armed.seen += 1;
            let fault = &armed.fault;
            if armed.seen > fault.skip && armed.seen <= fault.skip + fault.times {
                armed.fired += 1;
                return Some((fault.strike.clone(), fault.after));
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
        assert!(path_matches(
            "/api/v1/namespaces/*/configmaps/x",
            "/api/v1/namespaces/pg/configmaps/x"
        ));
        assert!(!path_matches(
            "/api/v1/namespaces/*",
            "/api/v1/namespaces/pg/configmaps/x"
        ));
        assert!(path_matches(
            "/api/v1/**",
            "/api/v1/namespaces/pg/configmaps/x"
        ));
        assert!(path_matches("/**", "/version"));
        assert!(!path_matches("/api/v1/nodes", "/api/v1"));
    }
}
