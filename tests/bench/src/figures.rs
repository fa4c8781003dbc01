//! What was measured, and how it is printed: as the table of docs/benchmarks.md, or as JSON.

use std::collections::BTreeMap;

use comfy_table::{ContentArrangement, Table, presets};
use e2e::cost::Cost;
use serde::Serialize;

/// One line of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) what: String,
    /// Its unit; short.
    pub(crate) unit: &'static str,
    /// The middle of the rounds.
    pub(crate) median: f64,
    /// The lowest of them.
    pub(crate) least: f64,
    /// The highest of them.
    pub(crate) most: f64,
    /// How many rounds.
    pub(crate) rounds: usize,
    /// What we want.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) aim: &'static str,
    /// What others do.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) peers: &'static str,
}

/// How the figures are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For a terminal
    Table,
    /// The table of docs/benchmarks.md
    Markdown,
    /// For programs: every figure with its median, least and most
    Json,
}

/// What one of many costs at the store.
#[derive(Debug, Serialize)]
struct Price {
    /// One of what.
    of: String,
    /// Its share.
    #[serde(flatten)]
    cost: Cost,
}

/// Everything that was measured, in the order in which it was first asked for. Rounds of several
/// series may be taken in turn, so that a noisy minute does not hit only one of them.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    prices: Vec<Price>,
    series: Vec<Series>,
    places: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Series {
    what: String,
    unit: &'static str,
    aim: &'static str,
    peers: &'static str,
    rounds: Vec<f64>,
}

impl Figures {
    /// Adds what one of many costs.
    pub(crate) fn price(&mut self, of: String, cost: Cost) {
        self.prices.push(Price { of, cost });
    }

    /// Adds a round to a series.
    pub(crate) fn add(&mut self, what: &str, unit: &'static str, figure: f64) -> &mut Self {
        let next = self.series.len();
        let place = *self.places.entry(what.to_owned()).or_insert(next);
        if place == next {
            self.series.push(Series {
                what: what.to_owned(),
                unit,
                aim: "",
                peers: "",
                rounds: Vec::new(),
            });
        }
        self.series[place].rounds.push(figure);
        self
    }

    /// What we want of a series, and what others do.
    pub(crate) fn against(&mut self, what: &str, aim: &'static str, peers: &'static str) {
        if let Some(place) = self.places.get(what) {
            (self.series[*place].aim, self.series[*place].peers) = (aim, peers);
        }
    }

    /// The median of a series so far.
    pub(crate) fn median(&self, what: &str) -> Option<f64> {
        let place = self.places.get(what)?;
        percentile(&self.series[*place].rounds, 0.5)
    }

    /// As text.
    pub(crate) fn print(&self, output: Output) -> anyhow::Result<String> {
        let figures: Vec<Figure> = self.series.iter().filter_map(Series::figure).collect();
        if output == Output::Json {
            let all = serde_json::json!({ "costs": self.prices, "figures": figures });
            return Ok(serde_json::to_string_pretty(&all)?);
        }
        let mut tables = Vec::new();
        if !self.prices.is_empty() {
            tables.push(self.prices(output).to_string());
        }
        if !figures.is_empty() {
            tables.push(times(&figures, output).to_string());
        }
        Ok(tables.join("\n\n"))
    }

    fn prices(&self, output: Output) -> Table {
        let mut table = table(output);
        let parts = self.prices.iter().flat_map(|price| price.cost.parts());
        let names = parts.take(5).map(|(name, _)| name.to_owned());
        table.set_header(std::iter::once("the share of".to_owned()).chain(names));
        for price in &self.prices {
            let parts = price.cost.parts().map(|(_, figure)| short(figure));
            table.add_row(std::iter::once(price.of.clone()).chain(parts));
        }
        table
    }
}

fn times(figures: &[Figure], output: Output) -> Table {
    let mut table = table(output);
    table.set_header(["what", "median", "least to most", "aim", "peers"]);
    for figure in figures {
        let median = format!("{} {}", short(figure.median), figure.unit);
        let range = match figure.rounds {
            1 => String::new(),
            _ => format!("{} to {}", short(figure.least), short(figure.most)),
        };
        table.add_row([
            &figure.what,
            median.trim(),
            &range,
            figure.aim,
            figure.peers,
        ]);
    }
    table
}

fn table(output: Output) -> Table {
    let mut table = Table::new();
    if output == Output::Markdown {
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_content_arrangement(ContentArrangement::Disabled);
    } else {
        table.load_style(presets::UTF8_BORDERS_ONLY);
    }
    table
}

impl Series {
    fn figure(&self) -> Option<Figure> {
        Some(Figure {
            what: self.what.clone(),
            unit: self.unit,
            median: percentile(&self.rounds, 0.5)?,
            least: percentile(&self.rounds, 0.0)?,
            most: percentile(&self.rounds, 1.0)?,
            rounds: self.rounds.len(),
            aim: self.aim,
            peers: self.peers,
        })
    }
}

/// The value below which this part of all lies; `None` of nothing.
pub(crate) fn percentile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (part * (sorted.len().checked_sub(1)? as f64)).round() as usize;
    sorted.get(place).copied()
}

/// As many digits as say something, thousands apart.
fn short(figure: f64) -> String {
    let digits = match figure.abs() {
        f if f >= 100.0 => 0,
        f if f >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{figure:.digits$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut out = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) && digit.is_ascii_digit() {
            out.push(',');
        }
        out.push(digit);
    }
    match fraction.is_empty() {
        true => out,
        false => format!("{out}.{fraction}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_their_middle_is_taken() {
        for (figure, text) in [
            (0.126, "0.13"),
            (12.34, "12.3"),
            (999.6, "1,000"),
            (12_771.2, "12,771"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(short(figure), text);
        }
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(percentile(&[3.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(percentile(&[3.0, 1.0, 2.0], 1.0), Some(3.0));
    }

    #[test]
    fn rounds_of_a_series_are_one_line() {
        let mut figures = Figures::default();
        for round in [1.0, 3.0, 2.0] {
            figures.add("a", "s", round).add("b", "", round * 1000.0);
        }
        figures.against("a", "< 5 s", "none");
        let text = figures.print(Output::Markdown).expect("plain text");
        assert!(text.contains("| a    | 2.00 s | 1.00 to 3.00"), "{text}");
        assert!(text.contains("| b    | 2,000  | 1,000 to 3,000"), "{text}");
    }
}
