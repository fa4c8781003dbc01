//! The proof that the data are back: the database is asked, in SQL.
//!
//! That it is the same database says its system identifier; that it came from a backup its timeline, which rises by
//! recovery alone; that its content is there the queries of the spec; how much is lost the newest change in it. A
//! connection that fails is made again. A wrong answer is final.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use jobs::spec::{DataProof, Database, SystemId};
use serde::{Deserialize, Serialize};

use super::choose::Chosen;
use super::link::Kube;
use super::server;
use crate::engine::{Ctx, JobError, Poll};
use crate::postgres::{Answer, Server, Session};

/// A database that every server has.
const ANY: &str = "postgres";
/// Which database it is, and whether it still recovers. No right is needed for it.
const SYSTEM: &str = "select system_identifier from pg_control_system()";
const RECOVERS: &str = "select pg_is_in_recovery()";
/// What it writes now: the control file has the timeline of its last checkpoint only.
const TIMELINE: &str = "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
/// The newest commit that the server remembers.
const NEWEST: &str = "select timestamp from pg_last_committed_xact()";

/// What the database has answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Data {
    pub(super) system_id: SystemId,
    pub(super) timeline: u32,
    /// Each query, and what came of it.
    pub(super) proofs: Vec<Checked>,
    /// When the newest change was made that is in it, if it can say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) newest: Option<Timestamp>,
    /// How far that lies before the failure: the recovery point that was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rpo: Option<SignedDuration>,
}

/// A question, and whether its answer is the right one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checked {
    pub(super) name: String,
    pub(super) query: String,
    pub(super) expected: String,
    pub(super) observed: Answer,
    pub(super) holds: bool,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            query,
            expected,
            observed,
            ..
        } = self;
        write!(
            f,
            "{name}: `{query}` should give {expected}, and gave {observed}"
        )
    }
}

/// Asks everything.
pub(super) async fn look(
    ctx: &Ctx,
    kube: &Kube<'_>,
    database: &Database,
    chosen: &Chosen,
) -> Result<Poll<Data>, JobError> {
    let server = match server::find(ctx, kube.get().await?, database).await? {
        Poll::Ready(server) => server,
        Poll::Pending(what) => return Ok(Poll::Pending(what)),
    };
    let mut sessions = Sessions::new(&server);
    if sessions.ask(ANY, RECOVERS).await? == Answer::Value(Some("t".into())) {
        return Ok(Poll::Pending("the database still recovers".into()));
    }
    let system = sessions.ask(ANY, SYSTEM).await?;
    let timeline = sessions.ask(ANY, TIMELINE).await?;
    let mut proofs = vec![
        same_system(chosen, system),
        later_timeline(chosen, timeline.clone()),
    ];
    for proof in &database.proofs {
        let answer = sessions.ask(&proof.database, &proof.sql).await?;
        proofs.push(judge(proof, answer));
    }
    let newest = match &database.newest {
        Some(query) => {
            let answer = sessions.ask(&query.database, &query.sql).await?;
            let (checked, newest) = newest(&query.sql, answer);
            proofs.push(checked);
            newest
        }
        None => remembered(sessions.ask(ANY, NEWEST).await?, chosen.at),
    };
    if let Some(why) = wrong(&proofs) {
        return Err(JobError::fatal(why));
    }
    Ok(Poll::Ready(Data {
        system_id: chosen.system_id,
        timeline: timeline_of(&timeline).unwrap_or_default(),
        proofs,
        newest,
        rpo: newest.map(|at| rpo(chosen.loss.failure, at)),
    }))
}

/// Open sessions: a connection leads to one database.
struct Sessions<'a> {
    server: &'a Server,
    open: BTreeMap<String, Session>,
}

impl<'a> Sessions<'a> {
    fn new(server: &'a Server) -> Self {
        let open = BTreeMap::new();
        Self { server, open }
    }

    async fn ask(&mut self, database: &str, sql: &str) -> Result<Answer, JobError> {
        if !self.open.contains_key(database) {
            let session = self.server.log_in(database).await?;
            self.open.insert(database.to_owned(), session);
        }
        Ok(self.open[database].ask(sql).await?)
    }
}

/// All that is wrong, with what to do about it.
fn wrong(proofs: &[Checked]) -> Option<String> {
    let wrong: Vec<String> = proofs
        .iter()
        .filter(|checked| !checked.holds)
        .map(Checked::to_string)
        .collect();
    (!wrong.is_empty()).then(|| {
        format!(
            "the data are not proven: {}; look at the database. If these are not the data that should come back, \
             restore another set (`rekindle restore --set`); if a query is wrong, mend it in database.proofs of the \
             spec",
            wrong.join("; ")
        )
    })
}

fn same_system(chosen: &Chosen, observed: Answer) -> Checked {
    let expected = chosen.system_id;
    // A signed number in SQL.
    let found = value(&observed).and_then(|text| text.parse::<i64>().ok());
    Checked {
        name: "system-id".into(),
        query: SYSTEM.into(),
        expected: format!("`{expected}`, the backup's"),
        holds: found.is_some_and(|found| found.cast_unsigned() == expected.0),
        observed,
    }
}

fn later_timeline(chosen: &Chosen, observed: Answer) -> Checked {
    Checked {
        name: "timeline".into(),
        query: TIMELINE.into(),
        expected: format!("more than `{:08X}`, the backup's", chosen.timeline),
        holds: timeline_of(&observed).is_some_and(|found| found > chosen.timeline),
        observed,
    }
}

fn timeline_of(answer: &Answer) -> Option<u32> {
    u32::from_str_radix(value(answer)?, 16).ok()
}

fn value(answer: &Answer) -> Option<&str> {
    match answer {
        Answer::Value(Some(text)) => Some(text),
        _ => None,
    }
}

/// Compares an answer with what the spec says of it.
fn judge(proof: &DataProof, observed: Answer) -> Checked {
    let (expected, holds) = match (&proof.at_least, &proof.equals) {
        (Some(least), _) => (
            format!("at least {least}"),
            value(&observed).is_some_and(|text| is_at_least(text, *least)),
        ),
        (None, Some(text)) => (format!("`{text}`"), value(&observed) == Some(text)),
        (None, None) => ("nothing that the spec says".into(), false),
    };
    Checked {
        name: proof.name.to_string(),
        query: proof.sql.clone(),
        expected,
        observed,
        holds,
    }
}

fn is_at_least(text: &str, least: i64) -> bool {
    match text.parse::<i64>() {
        Ok(number) => number >= least,
        // Sums and averages come with a fraction.
        Err(_) => text
            .parse::<f64>()
            .is_ok_and(|number| number >= least as f64),
    }
}

/// The answer of the spec's query for the newest change. Without one the data are not there.
fn newest(query: &str, observed: Answer) -> (Checked, Option<Timestamp>) {
    let at = value(&observed).and_then(moment);
    let checked = Checked {
        name: "newest".into(),
        query: query.to_owned(),
        expected: "a time".into(),
        holds: at.is_some(),
        observed,
    };
    (checked, at)
}

/// A time as PostgreSQL writes it with `datestyle` ISO in UTC: `2026-11-23 01:35:02.25+00`.
fn moment(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// What the server remembers of its newest commit. It lives in memory: after a clean restart it knows none, and then
/// those that were made since, which say nothing of what came back.
fn remembered(answer: Answer, decided: Timestamp) -> Option<Timestamp> {
    let at = value(&answer).and_then(moment)?;
    (at < decided).then_some(at)
}

fn rpo(failure: Timestamp, newest: Timestamp) -> SignedDuration {
    failure.duration_since(newest).max(SignedDuration::ZERO)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::jobs::restore::tests::{chosen, database};

    fn says(text: &str) -> Answer {
        Answer::Value(Some(text.into()))
    }

    fn nothing() -> [Answer; 4] {
        [
            Answer::Value(None),
            Answer::Shape("0 rows".into()),
            Answer::Refused("relation \"orders\" does not exist (42P01)".into()),
            says(""),
        ]
    }

    #[test]
    fn only_the_backups_own_system_id_is_the_same_database() {
        let mut chosen = chosen();
        assert!(same_system(&chosen, says("7412345678901234567")).holds);
        assert!(!same_system(&chosen, says("7412345678901234568")).holds);
        for answer in nothing() {
            assert!(!same_system(&chosen, answer).holds);
        }
        // SQL has no unsigned numbers.
        chosen.system_id = SystemId(u64::MAX);
        assert!(same_system(&chosen, says("-1")).holds);
    }

    #[test]
    fn a_timeline_that_did_not_rise_is_no_restore() {
        let chosen = chosen();
        assert!(later_timeline(&chosen, says("00000004")).holds);
        assert!(later_timeline(&chosen, says("0000001F")).holds);
        assert!(!later_timeline(&chosen, says("00000003")).holds);
        assert!(!later_timeline(&chosen, says("00000001")).holds);
        for answer in nothing() {
            assert!(!later_timeline(&chosen, answer).holds);
        }
    }

    #[test]
    fn answers_are_compared_as_numbers_or_as_texts() {
        let proofs = database().proofs;
        let (orders, canary) = (&proofs[0], &proofs[1]);
        for (answer, holds) in [
            ("10", true),
            ("11", true),
            ("9", false),
            ("10.5", true),
            ("9.9", false),
            ("many", false),
            ("NaN", false),
        ] {
            assert_eq!(judge(orders, says(answer)).holds, holds, "{answer}");
        }
        assert!(judge(canary, says("tweet")).holds);
        assert!(!judge(canary, says("tweet ")).holds);
        for answer in nothing() {
            assert!(!judge(orders, answer.clone()).holds, "{answer}");
            assert!(!judge(canary, answer.clone()).holds, "{answer}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_query_and_answer() {
        let proofs = database().proofs;
        let good = judge(&proofs[1], says("tweet"));
        assert_eq!(wrong(std::slice::from_ref(&good)), None);
        let bad = judge(&proofs[0], says("0"));
        let told = wrong(&[good, bad]).unwrap();
        assert!(
            told.contains(
                "orders: `select count(*) from orders` should give at least 10, and gave `0`"
            ),
            "{told}"
        );
        assert!(!told.contains("canary"), "{told}");
    }

    #[test]
    fn times_are_read_as_postgresql_writes_them() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let whole = at("2026-11-23T01:35:02Z");
        assert_eq!(moment("2026-11-23 01:35:02+00"), Some(whole));
        assert_eq!(
            moment("2026-11-23 01:35:02.25+00"),
            Some(at("2026-11-23T01:35:02.25Z"))
        );
        assert_eq!(moment("2026-11-23 04:35:02+03"), Some(whole));
        assert_eq!(moment("2026-11-23 07:05:02+05:30"), Some(whole));
        for wrong in ["", "2026-11-23", "infinity", "2026-11-23 01:35:02"] {
            assert_eq!(moment(wrong), None, "{wrong}");
        }
        let (checked, at) = newest("select max(ts) from beat", Answer::Value(None));
        assert!(!checked.holds && at.is_none());
    }

    #[test]
    fn a_commit_after_the_restore_says_nothing_of_what_came_back() {
        let decided = chosen().at;
        assert_eq!(
            remembered(says("2026-11-23 01:59:30+00"), decided),
            Some("2026-11-23T01:59:30Z".parse().unwrap())
        );
        assert_eq!(remembered(says("2026-11-23 02:20:00+00"), decided), None);
        for answer in nothing() {
            assert_eq!(remembered(answer, decided), None);
        }
    }

    #[test]
    fn the_recovery_point_is_what_lies_before_the_failure() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let failure = at("2026-11-23T02:00:00Z");
        let minute = SignedDuration::from_secs(60);
        assert_eq!(rpo(failure, at("2026-11-23T01:59:00Z")), minute);
        assert_eq!(
            rpo(failure, at("2026-11-23T02:01:00Z")),
            SignedDuration::ZERO
        );
    }
}
