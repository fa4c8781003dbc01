//! Faults on demand: what a network and a busy store do to a client, but on schedule.
//!
//! A [`Rule`] says which requests ([`Rule::op`], [`Rule::key`]), which of those ([`When`]) and what
//! becomes of them ([`What`]). Everything is counted, nothing is random: the same requests in the
//! same order meet the same faults. [`When::Chance`] draws from a seed and the rule's own count.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Uri;
use s3s::{S3Error, S3ErrorCode};
use tokio::sync::watch;

use super::request::{self, Op};

/// Which requests are disturbed, and how.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Only this operation; `None` is all of them.
    pub op: Option<Op>,
    /// Only keys that contain this text; `None` is all of them.
    pub key: Option<String>,
    /// Which of the requests that match.
    pub when: When,
    /// What happens to them.
    pub what: What,
}

/// Which of the matching requests a rule picks; counting begins when the rule is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// All of them.
    Always,
    /// The `n`th, `2n`th, `3n`th and so on. 0 is never.
    Every(u64),
    /// The next `k`, and none after those.
    Next(u64),
    /// Only the `n`th, counted from 1.
    Nth(u64),
    /// So many of 1000, drawn from the seed and the number of the request.
    Chance {
        /// How many of 1000.
        per_mille: u64,
        /// The same seed picks the same requests.
        seed: u64,
    },
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum What {
    /// Answers a failure; the store is not touched.
    Fail(Failure),
    /// Does what was asked, then answers a failure.
    FailAfterEffect(Failure),
    /// Cuts the connection; the store is not touched.
    LoseRequest,
    /// Does what was asked, then cuts the connection instead of answering.
    LoseAnswer,
    /// Waits, then does what was asked, even if the client has gone by then.
    DelayRequest(Duration),
    /// Does what was asked, then waits before it answers.
    DelayAnswer(Duration),
    /// Does what was asked once the gate opens, even if the client has gone by then.
    HoldRequest(Gate),
    /// Does what was asked, and answers once the gate opens.
    HoldAnswer(Gate),
    /// Cuts the connection after so many bytes of the request's body: the store gets no more.
    CutRequest(u64),
    /// Takes so many bytes of the request's body, and then nothing more for ever.
    StallRequest(u64),
    /// Does what was asked, and cuts the connection after so many bytes of the answer's body.
    CutAnswer(u64),
    /// Does what was asked, and after so many bytes of the answer's body says nothing more for ever.
    StallAnswer(u64),
    /// Lets so many bytes in a second pass, either way.
    Throttle(u64),
}

/// The failures a store answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// 500 InternalError.
    Internal,
    /// 503 SlowDown.
    SlowDown,
    /// 409 ConditionalRequestConflict.
    Conflict,
    /// 412 PreconditionFailed.
    Precondition,
    /// 403 AccessDenied.
    Denied,
    /// 400 RequestTimeout: the request stood still for too long.
    Stalled,
    /// 400 AuthorizationHeaderMalformed: signed for another region.
    WrongRegion,
    /// 403 SignatureDoesNotMatch.
    WrongSignature,
    /// 403 RequestTimeTooSkewed: the client's clock is wrong.
    Skewed,
    /// 301 PermanentRedirect: the bucket is at another endpoint.
    Elsewhere,
}

/// Names a rule, to remove it or to ask how often it fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleId(u64);

/// The faults of one server; clones share them. May be changed while the server runs.
#[derive(Debug, Clone, Default)]
pub struct S3Faults {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    rules: Mutex<Vec<Active>>,
    // Lets a request without any rule pass without taking the lock.
    count: AtomicUsize,
    next_id: AtomicU64,
    fired: AtomicU64,
    down: AtomicBool,
    latency_micros: AtomicU64,
}

#[derive(Debug)]
struct Active {
    id: RuleId,
    rule: Rule,
    seen: u64,
    fired: u64,
}

impl S3Faults {
    /// Adds a rule. Of several rules that pick the same request the first added acts.
    pub fn add(&self, rule: Rule) -> RuleId {
        let id = RuleId(self.shared.next_id.fetch_add(1, Ordering::Relaxed));
        let mut rules = self.rules();
        rules.push(Active {
            id,
            rule,
            seen: 0,
            fired: 0,
        });
        self.shared.count.store(rules.len(), Ordering::Release);
        id
    }

    /// Short for [`S3Faults::add`] of a rule for one operation and all keys.
    pub fn on(&self, op: Op, when: When, what: What) -> RuleId {
        self.add(Rule {
            op: Some(op),
            key: None,
            when,
            what,
        })
    }

    /// Removes a rule; one that is gone already is no error.
    pub fn remove(&self, id: RuleId) {
        let mut rules = self.rules();
        rules.retain(|active| active.id != id);
        self.shared.count.store(rules.len(), Ordering::Release);
    }

    /// Removes all rules, the latency and the outage. Requests held at a gate stay held.
    pub fn clear(&self) {
        self.rules().clear();
        self.shared.count.store(0, Ordering::Release);
        self.set_down(false);
        self.set_latency(Duration::ZERO);
    }

    /// While down, every connection is cut as soon as it is used.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::Release);
    }

    /// Lets every request wait this long before it is looked at. Not counted as a fault.
    pub fn set_latency(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.shared.latency_micros.store(micros, Ordering::Release);
    }

    /// How many requests were disturbed since the server started, those cut by an outage included.
    pub fn fired(&self) -> u64 {
        self.shared.fired.load(Ordering::Acquire)
    }

    /// How often one rule fired; 0 after it was removed.
    pub fn fired_by(&self, id: RuleId) -> u64 {
        self.rules()
            .iter()
            .find(|active| active.id == id)
            .map_or(0, |active| active.fired)
    }

    pub(super) fn down(&self) -> bool {
        self.shared.down.load(Ordering::Acquire)
    }

    pub(super) fn latency(&self) -> Option<Duration> {
        let micros = self.shared.latency_micros.load(Ordering::Acquire);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// What happens to this request. Counts it.
    pub(super) fn pick(&self, op: Op, uri: &Uri) -> Option<What> {
        if self.down() {
            self.shared.fired.fetch_add(1, Ordering::AcqRel);
            return Some(What::LoseRequest);
        }
        if self.shared.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let key = request::key(uri).unwrap_or_default();
        let mut picked = None;
        for active in self
            .rules()
            .iter_mut()
            .filter(|active| active.matches(op, &key))
        {
            active.seen += 1;
            if picked.is_none() && active.due() {
                active.fired += 1;
                picked = Some(active.rule.what.clone());
            }
        }
        if picked.is_some() {
            self.shared.fired.fetch_add(1, Ordering::AcqRel);
        }
        picked
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Active>> {
        self.shared
            .rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Active {
    fn matches(&self, op: Op, key: &str) -> bool {
        self.rule.op.is_none_or(|wanted| wanted == op)
            && self
                .rule
                .key
                .as_ref()
                .is_none_or(|part| key.contains(part.as_str()))
    }

    fn due(&self) -> bool {
        match self.rule.when {
            When::Always => true,
            When::Every(n) => n > 0 && self.seen.is_multiple_of(n),
            When::Next(k) => self.fired < k,
            When::Nth(n) => self.seen == n,
            When::Chance { per_mille, seed } => mix(seed, self.seen) % 1000 < per_mille,
        }
    }
}

impl Failure {
    pub(super) fn to_error(self) -> S3Error {
        let code = match self {
            Failure::Internal => S3ErrorCode::InternalError,
            Failure::SlowDown => S3ErrorCode::SlowDown,
            Failure::Conflict => S3ErrorCode::ConditionalRequestConflict,
            Failure::Precondition => S3ErrorCode::PreconditionFailed,
            Failure::Denied => S3ErrorCode::AccessDenied,
            Failure::Stalled => S3ErrorCode::RequestTimeout,
            Failure::WrongRegion => S3ErrorCode::AuthorizationHeaderMalformed,
            Failure::WrongSignature => S3ErrorCode::SignatureDoesNotMatch,
            Failure::Skewed => S3ErrorCode::RequestTimeTooSkewed,
            Failure::Elsewhere => S3ErrorCode::PermanentRedirect,
        };
        S3Error::with_message(code, "a fault of the sandbox")
    }
}

/// Holds requests until a test lets them go: for "the answer came after the lease had expired".
#[derive(Debug, Clone)]
pub struct Gate {
    arrived: Arc<watch::Sender<u64>>,
    open: Arc<watch::Sender<bool>>,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Gate {
        Gate {
            arrived: Arc::new(watch::Sender::new(0)),
            open: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Lets everything pass, now and later.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until `n` requests have come to the gate; give it a deadline.
    pub async fn reached(&self, n: u64) {
        let mut arrived = self.arrived.subscribe();
        // The sender lives in self, so that waiting cannot fail.
        let _ = arrived.wait_for(|count| *count >= n).await;
    }

    pub(super) async fn pass(&self) {
        self.arrived.send_modify(|count| *count += 1);
        let mut open = self.open.subscribe();
        let _ = open.wait_for(|open| *open).await;
    }
}

impl Default for Gate {
    fn default() -> Self {
        Gate::new()
    }
}

/// splitmix64 of seed and count.
fn mix(seed: u64, count: u64) -> u64 {
    let mut z = seed.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    /// Which of the first `n` PUTs are picked.
    fn picked(when: When, n: u64) -> Vec<u64> {
        let faults = S3Faults::default();
        faults.on(Op::Put, when, What::LoseAnswer);
        let uri: Uri = "/b/k".parse().unwrap();
        (1..=n)
            .filter(|_| faults.pick(Op::Put, &uri).is_some())
            .collect()
    }

    #[test]
    fn schedules_count_from_one() {
        assert_eq!(picked(When::Every(3), 9), [3, 6, 9]);
        assert!(picked(When::Every(0), 9).is_empty());
        assert_eq!(picked(When::Next(2), 9), [1, 2]);
        assert_eq!(picked(When::Nth(4), 9), [4]);
        assert_eq!(picked(When::Always, 3), [1, 2, 3]);
    }

    #[test]
    fn chance_is_repeatable_and_about_right() {
        let draw = |seed| {
            picked(
                When::Chance {
                    per_mille: 200,
                    seed,
                },
                10_000,
            )
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!((1_800..2_200).contains(&draw(7).len()), "{}", draw(7).len());
    }

    #[test]
    fn a_rule_sees_only_its_operation_and_key() {
        let faults = S3Faults::default();
        let id = faults.add(Rule {
            op: Some(Op::Put),
            key: Some("jobs/a b".into()),
            when: When::Always,
            what: What::LoseRequest,
        });
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        assert!(faults.pick(Op::Put, &uri("/b/x/jobs/a%20b/1")).is_some());
        assert!(faults.pick(Op::Put, &uri("/b/jobs/c")).is_none());
        assert!(faults.pick(Op::Get, &uri("/b/jobs/a%20b")).is_none());
        assert_eq!((faults.fired(), faults.fired_by(id)), (1, 1));
        faults.remove(id);
        assert!(faults.pick(Op::Put, &uri("/b/jobs/a%20b")).is_none());
    }
}
