//! The arguments of k6, as far as k6-operator and those who write a TestRun give them.

use crate::segment::Segment;

/// What it is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// `k6 run`.
    Run,
    /// `k6 inspect --execution-requirements`.
    Inspect,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Arguments {
    pub(crate) command: Command,
    /// The path of the script.
    pub(crate) script: String,
    /// This runner's part of the virtual users.
    pub(crate) segment: Segment,
    /// It waits for the starter.
    pub(crate) paused: bool,
    /// Variables of `-e`.
    pub(crate) environment: Vec<(String, String)>,
}

/// Options that are on or off.
const SWITCHES: [&str; 6] = [
    "quiet",
    "execution-requirements",
    "no-color",
    "no-usage-report",
    "no-thresholds",
    "verbose",
];
/// Options with a value that changes nothing here.
const WITH_VALUE: [&str; 7] = [
    "execution-segment-sequence",
    "address",
    "tag",
    "log-output",
    "log-format",
    "summary-mode",
    "include-system-env-vars",
];

impl Arguments {
    /// Reads them; what k6 does not know it refuses.
    pub(crate) fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut rest = arguments.into_iter();
        let command = match rest.next().as_deref() {
            Some("run") => Command::Run,
            Some("inspect") => Command::Inspect,
            other => return Err(format!("unknown command {other:?} for \"k6\"")),
        };
        let mut read = Self {
            command,
            script: String::new(),
            segment: Segment::default(),
            paused: false,
            environment: Vec::new(),
        };
        while let Some(word) = rest.next() {
            let Some(option) = word.strip_prefix('-') else {
                if !read.script.is_empty() {
                    return Err(format!("accepts 1 arg, and received {word:?} too"));
                }
                read.script = word;
                continue;
            };
            let option = option.strip_prefix('-').unwrap_or(option);
            let (name, given) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (option, None),
            };
            if SWITCHES.contains(&name) {
                continue;
            }
            if name == "paused" {
                read.paused = true;
                continue;
            }
            let mut value = || {
                let value = given.clone().or_else(|| rest.next());
                value.ok_or_else(|| format!("flag needs an argument: --{name}"))
            };
            match name {
                "execution-segment" => read.segment = value()?.parse()?,
                "e" | "env" => {
                    let pair = value()?;
                    let (key, value) = pair.split_once('=').unwrap_or((&pair, ""));
                    read.environment.push((key.to_owned(), value.to_owned()));
                }
                // k6 v2 has no such option any more.
                "no-summary" => return Err(format!("unknown flag: --{name}")),
                name if WITH_VALUE.contains(&name) => drop(value()?),
                name => return Err(format!("unknown flag: --{name}")),
            }
        }
        match read.script.is_empty() {
            true => Err("accepts 1 arg, received 0: the script is missing".to_owned()),
            false => Ok(read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Arguments, String> {
        Arguments::read(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn what_the_operator_gives_is_understood() {
        let read = read(
            "run --quiet --execution-segment=1/2:1 --execution-segment-sequence=0,1/2,1 -e A=b=c /test/test.js --address=0.0.0.0:6565 --paused --tag instance_id=2",
        );
        let expected = Arguments {
            command: Command::Run,
            script: "/test/test.js".to_owned(),
            segment: "1/2:1".parse().expect("a segment"),
            paused: true,
            environment: vec![("A".to_owned(), "b=c".to_owned())],
        };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn what_k6_does_not_know_is_refused() {
        for (line, why) in [
            ("run /test/test.js --no-summary", "--no-summary"),
            ("run /test/test.js --paralellism=2", "--paralellism"),
            ("run --quiet", "script"),
            ("run a.js b.js", "b.js"),
            ("stats", "stats"),
            ("run a.js --tag", "--tag"),
        ] {
            let refused = read(line).expect_err(line);
            assert!(refused.contains(why), "{line}: {refused}");
        }
    }
}
