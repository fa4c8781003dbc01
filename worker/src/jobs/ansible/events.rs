//! What the callback in the container writes (`rekindle_events.py`), read back: how far a run of
//! Ansible is, and how it ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Troubles that are kept: the first ones say why, the others mostly follow from them.
const MOST_TROUBLES: usize = 20;
/// Hosts that a progress text names.
const MOST_NAMED: usize = 3;
/// Characters of a task's name in it.
const LONGEST_NAME: usize = 120;

/// One line.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event {
    Start,
    Play {
        hosts: Option<u64>,
    },
    Task {
        n: u64,
        of: Option<u64>,
        name: String,
    },
    Failed {
        #[serde(flatten)]
        trouble: Trouble,
        ignored: bool,
    },
    Unreachable(Trouble),
    Recap {
        hosts: BTreeMap<String, Counts>,
    },
    /// Of a newer callback.
    #[serde(other)]
    Other,
}

/// What went wrong on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trouble {
    pub(super) host: String,
    pub(super) task: String,
    pub(super) message: String,
}

/// What Ansible says of one host in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    #[serde(default)]
    pub(super) failures: u64,
    #[serde(default)]
    pub(super) unreachable: u64,
}

/// The recap by host.
pub(super) type Recap = BTreeMap<String, Counts>;

/// How far a run is, as far as its events were read.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// How many bytes have been read: whole lines only.
    pub(super) offset: u64,
    hosts: Option<u64>,
    task: Option<(u64, Option<u64>, String)>,
    pub(super) troubles: Vec<Trouble>,
    pub(super) recap: Option<Recap>,
}

impl Progress {
    /// Takes the bytes from `offset` on. The end of a line that is still being written is left for
    /// the next time; a line that is no event is passed over.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !line.ends_with(b"\n") {
                return;
            }
            self.offset += line.len() as u64;
            if let Ok(event) = serde_json::from_slice(line) {
                self.take(event);
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            // A lost run was started again: what the one before it said is over.
            Event::Start => {
                *self = Self {
                    offset: self.offset,
                    ..Self::default()
                };
            }
            Event::Play { hosts } => self.hosts = hosts,
            Event::Task { n, of, name } => self.task = Some((n, of, name)),
            Event::Failed { ignored: true, .. } | Event::Other => {}
            Event::Failed { trouble, .. } | Event::Unreachable(trouble) => {
                if self.troubles.len() < MOST_TROUBLES {
                    self.troubles.push(trouble);
                }
            }
            Event::Recap { hosts } => self.recap = Some(hosts),
        }
    }

    /// For `rekindle status`.
    pub(super) fn text(&self) -> String {
        let Some((n, of, name)) = &self.task else {
            return "Ansible begins".into();
        };
        let of = of.map_or_else(String::new, |of| format!(" of {of}"));
        let hosts = self
            .hosts
            .map_or_else(String::new, |hosts| format!(" on {hosts} hosts"));
        let name: String = name.chars().take(LONGEST_NAME).collect();
        let mut text = format!("task {n}{of}: {name}{hosts}");
        let mut failed: Vec<&str> = self.troubles.iter().map(|t| t.host.as_str()).collect();
        failed.sort_unstable();
        failed.dedup();
        if !failed.is_empty() {
            let more = failed.len().saturating_sub(MOST_NAMED);
            failed.truncate(MOST_NAMED);
            text.push_str(&format!(", failed: {}", failed.join(", ")));
            if more > 0 {
                text.push_str(&format!(" and {more} more"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    const RUN: &str = concat!(
        r#"{"event":"start","ansible":"2.17.14"}"#,
        "\n",
        r#"{"event":"play","name":"Prepare","hosts":17}"#,
        "\n",
        r#"{"event":"task","n":3,"of":940,"name":"download : runc"}"#,
        "\n",
        r#"{"event":"failed","host":"b","task":"x","message":"no","ignored":true}"#,
        "\n",
        r#"{"event":"unreachable","host":"c","task":"download : runc","message":"timed out"}"#,
        "\n",
        r#"{"event":"failed","host":"a","task":"download : runc","message":"404","ignored":false}"#,
        "\n",
        r#"{"event":"of the future","x":1}"#,
        "\nwhat is this\n",
        r#"{"event":"recap","hosts":{"a":{"ok":2,"failures":1,"unreachable":0,"changed":0},"c":{"unreachable":1}}}"#,
        "\n",
    );

    fn whole() -> Progress {
        let mut progress = Progress::default();
        progress.read(RUN.as_bytes());
        progress
    }

    #[test]
    fn a_run_is_read_back() {
        let progress = whole();
        assert_eq!(
            progress.text(),
            "task 3 of 940: download : runc on 17 hosts, failed: a, c"
        );
        let messages: Vec<&str> = progress
            .troubles
            .iter()
            .map(|t| t.message.as_str())
            .collect();
        assert_eq!(
            messages,
            ["timed out", "404"],
            "what was ignored is no trouble"
        );
        let recap = progress.recap.unwrap();
        assert_eq!((recap["a"].failures, recap["c"].unreachable), (1, 1));
        assert_eq!(progress.offset, RUN.len() as u64);
    }

    #[test]
    fn a_run_that_was_started_again_begins_at_nothing() {
        let mut progress = whole();
        progress.read(b"{\"event\":\"start\"}\n");
        assert_eq!(progress.text(), "Ansible begins");
        assert!(progress.troubles.is_empty() && progress.recap.is_none());
    }

    #[test]
    fn many_failed_hosts_are_counted() {
        let mut progress = Progress::default();
        progress.read(b"{\"event\":\"task\",\"n\":1,\"of\":null,\"name\":\"t\"}\n");
        for host in ["d", "b", "a", "c", "e", "a"] {
            let line = format!(
                "{{\"event\":\"failed\",\"host\":\"{host}\",\"task\":\"t\",\"message\":\"m\",\"ignored\":false}}\n"
            );
            progress.read(line.as_bytes());
        }
        assert_eq!(progress.text(), "task 1: t, failed: a, b, c and 2 more");
    }

    proptest! {
        /// However the bytes arrive, and also when a line comes in pieces.
        #[test]
        fn it_does_not_matter_where_the_reads_end(cuts in prop::collection::vec(0..RUN.len(), 0..8)) {
            let mut progress = Progress::default();
            let mut ends = cuts;
            ends.sort_unstable();
            ends.push(RUN.len());
            for end in ends {
                let from = usize::try_from(progress.offset).unwrap();
                progress.read(&RUN.as_bytes()[from..end.max(from)]);
            }
            let whole = whole();
            prop_assert_eq!(progress.text(), whole.text());
            prop_assert_eq!(progress.troubles, whole.troubles);
            prop_assert_eq!(progress.recap, whole.recap);
            prop_assert_eq!(progress.offset, whole.offset);
        }
    }
}
