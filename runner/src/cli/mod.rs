//! The command line as clap sees it. What the commands do stands in `commands`.

mod image;
mod run;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use image::{Build, Fetch, Gc, ImageCommand, List, Pull, Unpack, Verify};
pub(crate) use run::{Attach, ListRuns, Logs, OneRun, Run, RunGc, Stop, variable};

/// Runs programs from images on a host that has nothing but a Linux kernel
#[derive(Debug, Parser)]
#[command(name = "rekindle-runner", version, after_help = crate::exit::HELP)]
pub(crate) struct Cli {
    /// How results are printed; progress and errors go to stderr
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        display_order = 900
    )]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON document
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fetch, make, check and remove images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Bring files into a folder, or find them there: their names, digests, lengths and URLs on stdin
    #[command(long_about = image::FETCH_HELP)]
    Fetch(Fetch),
    /// Run a program in a container, under a name that starts it once
    #[command(long_about = run::RUN_HELP)]
    Run(Run),
    /// Say how a run is, or how it ended
    Status(OneRun),
    /// Print what a run wrote, by byte offsets that stay the same for ever
    Logs(Logs),
    /// Follow a run to its end, and exit as it did
    #[command(long_about = run::ATTACH_HELP)]
    Attach(Attach),
    /// End a run: TERM, and KILL if that does not help
    Stop(Stop),
    /// List the runs of this host
    List(ListRuns),
    /// Remove runs that ended, or were lost, some time ago; never one that lives
    Gc(RunGc),
    /// What stays with a run; started by `run`
    #[command(hide = true)]
    Supervise {
        /// For people who look at the list of processes; the order comes on stdin
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Where the images and runs of this host are kept
    #[arg(
        long,
        value_name = "DIR",
        env = "REKINDLE_RUNNER_STORE",
        default_value = "/var/lib/rekindle/runner"
    )]
    pub(crate) store: PathBuf,
}

fn age(text: &str) -> Result<Duration, String> {
    let unit = text.chars().last().and_then(|unit| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(86_400),
        _ => None,
    });
    let number = unit.and_then(|_| text[..text.len() - 1].parse::<u64>().ok());
    number
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .map(Duration::from_secs)
        .ok_or_else(|| "a time is a number and s, m, h or d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ages() {
        assert_eq!(age("30d"), Ok(Duration::from_secs(2_592_000)));
        assert_eq!(age("0d"), Ok(Duration::ZERO));
        for text in ["", "d", "5", "5x", "-1d", "1é", "18446744073709551615d"] {
            assert!(age(text).is_err(), "{text}");
        }
    }
}
