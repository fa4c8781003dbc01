//! What is read from the script's text.

use std::collections::BTreeMap;

/// The line before the summary.
pub(crate) const BEGIN: &str = "---rekindle-summary-begin---";
/// The line after it.
pub(crate) const END: &str = "---rekindle-summary-end---";

/// What k6 shows of a trend when nobody says otherwise.
const USUAL: [&str; 6] = ["avg", "min", "med", "max", "p(90)", "p(95)"];

#[derive(Debug, PartialEq)]
pub(crate) struct Script {
    /// It hands its summary over between the marker lines.
    pub(crate) prints_summary: bool,
    /// Which statistics of trends it wants.
    pub(crate) statistics: Vec<String>,
    /// The first line that throws at the top level.
    throws: Option<String>,
    /// It stops without this variable.
    needs: Vec<String>,
}

impl Script {
    pub(crate) fn read(text: &str) -> Self {
        let is_there = |what: &str| text.contains(what);
        let throws = text.lines().find(|line| line.starts_with("throw "));
        Self {
            prints_summary: is_there("handleSummary") && is_there(BEGIN) && is_there(END),
            statistics: statistics(text)
                .unwrap_or_else(|| USUAL.iter().map(|name| (*name).to_owned()).collect()),
            throws: throws.map(str::to_owned),
            needs: needs(text),
        }
    }

    /// Why it ends before it begins, if it does.
    pub(crate) fn throws(&self, environment: &BTreeMap<String, String>) -> Option<String> {
        if let Some(line) = &self.throws {
            return Some(format!("Error: {line}"));
        }
        if environment.get("SANDBOX_TROUBLE").map(String::as_str) == Some("throw") {
            return Some("Error: the sandbox says no".to_owned());
        }
        let is_missing = |name: &&String| environment.get(*name).is_none_or(String::is_empty);
        let missing = self.needs.iter().find(is_missing)?;
        Some(format!(
            "Error: the environment variable {missing} is not set"
        ))
    }
}

/// The list behind `summaryTrendStats:`.
fn statistics(text: &str) -> Option<Vec<String>> {
    let (_, rest) = text.split_once("summaryTrendStats")?;
    let (before, rest) = rest.split_once('[')?;
    if before.trim() != ":" {
        return None;
    }
    let (list, _) = rest.split_once(']')?;
    let names = list
        .split(',')
        .map(|name| name.trim().trim_matches(['"', '\'', '`']));
    Some(
        names
            .filter(|n| !n.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

/// Names of variables that it throws without: those in `text("TARGET")` and `number("VUS")`, as our script reads them.
fn needs(text: &str) -> Vec<String> {
    let of = |call: &'static str| text.split(call).skip(1);
    let calls = of("text(\"").chain(of("number(\""));
    let names = calls.filter_map(|rest| rest.split_once("\")"));
    names.map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_says_what_it_prints_and_when_it_throws() {
        let text = format!(
            "import http from 'k6/http';\nfunction text(name) {{\n  throw new Error('no');\n}}\nconst TARGET = text(\"TARGET\");\nexport const options = {{\n  summaryTrendStats: ['avg', \"p(95)\",\n 'count'],\n}};\nexport function handleSummary(d) {{ return {{ stdout: '{BEGIN}' + '{END}' }}; }}"
        );
        let script = Script::read(&text);
        assert!(script.prints_summary);
        assert_eq!(script.statistics, ["avg", "p(95)", "count"]);
        let set = |value: &str| BTreeMap::from([("TARGET".to_owned(), value.to_owned())]);
        assert_eq!(script.throws(&set("http://a/")), None);
        assert_eq!(
            script.throws(&set("")).as_deref(),
            Some("Error: the environment variable TARGET is not set")
        );
    }

    #[test]
    fn a_script_without_a_summary_has_k6s_own_statistics() {
        let script = Script::read("throw new Error('x');\nexport default function () {}");
        assert!(!script.prints_summary);
        assert_eq!(script.statistics, USUAL);
        assert_eq!(
            script.throws(&BTreeMap::new()).as_deref(),
            Some("Error: throw new Error('x');")
        );
    }
}
