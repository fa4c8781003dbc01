//! How a run ended, and whether that is good. Exit code 0 alone is not: Ansible ends with it also when
//! it found no host to work on.

use serde::{Deserialize, Serialize};

use super::events::{Recap, Trouble};
use super::runner::Exit;

/// How a run ended, as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    /// How its program ended; nothing when it was lost for good.
    pub(super) exit: Option<Exit>,
    /// Why it was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lost: Option<String>,
    /// Ansible's own count, if it came so far.
    pub(super) recap: Option<Recap>,
    /// What went wrong on the hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) troubles: Vec<Trouble>,
    /// How many bytes its log has.
    pub(super) log_end: u64,
    /// The job's generation then: a retry that comes later begins another run.
    pub(super) generation: u32,
}

impl Ended {
    /// The end of a run of which nothing else is known.
    pub(super) fn unknown(why: &str, generation: u32) -> Self {
        Self {
            exit: None,
            lost: Some(why.to_owned()),
            recap: None,
            troubles: Vec::new(),
            log_end: 0,
            generation,
        }
    }
}

/// Whether every host of the inventory was brought to the end.
///
/// # Errors
/// With the host, the task and the message that say why not.
pub(super) fn judge(ended: &Ended, hosts: &[&str]) -> Result<(), String> {
    let Some(exit) = ended.exit else {
        let why = ended.lost.as_deref().unwrap_or("nobody knows why");
        return Err(format!("the run was lost: {why}"));
    };
    // A failure that a later task made good (`rescue`) is in the troubles and not in the recap.
    let failed = |host: &str| {
        let counts = ended.recap.as_ref().and_then(|recap| recap.get(host));
        counts.is_none_or(|counts| counts.failures + counts.unreachable > 0)
    };
    if exit.code != Some(0) {
        return Err(format!(
            "Ansible ended with {exit}: {}",
            reason(ended, failed)
        ));
    }
    let Some(recap) = &ended.recap else {
        return Err("Ansible ended with exit code 0, but without a recap".into());
    };
    let bad: Vec<&str> = recap
        .keys()
        .map(String::as_str)
        .filter(|host| failed(host))
        .collect();
    if !bad.is_empty() {
        let (bad, why) = (bad.join(", "), reason(ended, failed));
        return Err(format!(
            "Ansible ended with exit code 0, but failed on {bad}: {why}"
        ));
    }
    let missing: Vec<&str> = hosts
        .iter()
        .copied()
        .filter(|host| !recap.contains_key(*host))
        .collect();
    if !missing.is_empty() {
        return Err(format!(
            "Ansible ended with exit code 0, but did nothing on {} of {} hosts: {}",
            missing.len(),
            hosts.len(),
            missing.join(", ")
        ));
    }
    Ok(())
}

fn reason(ended: &Ended, failed: impl Fn(&str) -> bool) -> String {
    let mut troubles = ended
        .troubles
        .iter()
        .filter(|trouble| failed(&trouble.host));
    let Some(first) = troubles.next() else {
        return "it names no host; the log says more".into();
    };
    let more = match troubles.count() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    format!(
        "{}: task `{}`: {}{more}",
        first.host, first.task, first.message
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::super::events::Counts;
    use super::*;

    fn counts(failures: u64, unreachable: u64) -> Counts {
        Counts {
            failures,
            unreachable,
        }
    }

    fn trouble(host: &str, message: &str) -> Trouble {
        Trouble {
            host: host.into(),
            task: "download".into(),
            message: message.into(),
        }
    }

    fn good() -> Ended {
        let recap = [
            ("a", counts(0, 0)),
            ("b", counts(0, 0)),
            ("localhost", counts(0, 0)),
        ];
        Ended {
            exit: Some(Exit {
                code: Some(0),
                signal: None,
            }),
            lost: None,
            recap: Some(recap.map(|(host, counts)| (host.to_owned(), counts)).into()),
            troubles: Vec::new(),
            log_end: 0,
            generation: 0,
        }
    }

    #[test]
    fn all_hosts_to_the_end_is_good() {
        judge(&good(), &["a", "b"]).unwrap();
        // Something that was rescued.
        let mut ended = good();
        ended.troubles.push(trouble("a", "404"));
        judge(&ended, &["a", "b"]).unwrap();
    }

    #[test]
    fn everything_else_says_what_went_wrong() {
        let check = |change: &dyn Fn(&mut Ended), want: &str| {
            let mut ended = good();
            change(&mut ended);
            let said = judge(&ended, &["a", "b"]).expect_err(want);
            assert_eq!(said, want);
        };
        let exit = |code, signal| Some(Exit { code, signal });
        check(
            &|e| {
                e.exit = exit(Some(2), None);
                e.troubles = vec![
                    trouble("a", "made good"),
                    trouble("b", "404"),
                    trouble("b", "then"),
                ];
                e.recap.as_mut().unwrap().insert("b".into(), counts(1, 0));
            },
            "Ansible ended with exit code 2: b: task `download`: 404 (and 1 more)",
        );
        check(
            &|e| {
                e.exit = exit(None, Some(9));
                (e.recap, e.troubles) = (None, vec![trouble("a", "404")]);
            },
            "Ansible ended with signal 9: a: task `download`: 404",
        );
        check(
            &|e| (e.exit, e.recap) = (exit(Some(1), None), None),
            "Ansible ended with exit code 1: it names no host; the log says more",
        );
        check(
            &|e| e.recap = None,
            "Ansible ended with exit code 0, but without a recap",
        );
        check(
            &|e| {
                e.recap.as_mut().unwrap().remove("b");
            },
            "Ansible ended with exit code 0, but did nothing on 1 of 2 hosts: b",
        );
        check(
            &|e| e.recap = Some(Recap::new()),
            "Ansible ended with exit code 0, but did nothing on 2 of 2 hosts: a, b",
        );
        check(
            &|e| {
                e.recap.as_mut().unwrap().insert("a".into(), counts(0, 1));
            },
            "Ansible ended with exit code 0, but failed on a: it names no host; the log says more",
        );
        check(
            &|e| (e.exit, e.lost) = (None, Some("the host was started anew".into())),
            "the run was lost: the host was started anew",
        );
    }
}
