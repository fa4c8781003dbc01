//! `k6-stand-in`: what the sandbox's load nodes run in place of k6. It takes k6's arguments and environment, sends real
//! requests, and prints and exits as k6 would.
//!
//! It runs no script: it does what `deploy/loadtest/test.js` has k6 do, with the settings that this script reads from the
//! environment (`test`). Of a script's text only this counts: whether it throws at its top level, whether it prints a
//! summary between our two marker lines, and which statistics it wants in it (`script`).
//!
//! Its standard input is the container around it. The first line is the files there, as JSON; `start` is what the
//! starter sends to k6's port 6565; and with its end this process ends at once, so that none outlives the sandbox.
//! Variables that begin with `SANDBOX_` are not for k6 either: the network of the node (`network`) and what goes
//! wrong (`runner`).

#![allow(clippy::print_stdout, reason = "the summary is what it is for")]

mod arguments;
mod client;
mod network;
mod runner;
mod samples;
mod say;
mod script;
mod segment;
mod summary;
mod test;

use std::collections::BTreeMap;
use std::process::ExitCode;

use arguments::{Arguments, Command};
use runner::Ended;
use script::Script;
use test::Test;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

/// k6's exit codes.
mod code {
    pub(crate) const THRESHOLDS: u8 = 99;
    pub(crate) const INVALID: u8 = 104;
    pub(crate) const ABORTED: u8 = 105;
    pub(crate) const EXCEPTION: u8 = 107;
    /// What a process that was killed ends with.
    pub(crate) const KILLED: u8 = 137;
    pub(crate) const USAGE: u8 = 255;
}

/// What the container around it wants to be told when k6 would listen on its port; it is not in the log.
const READY: &str = "sandbox: ready";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    // Left to its parts, the runtime would wait for the thread that reads the standard input.
    std::process::exit(i32::from(run().await))
}

async fn run() -> u8 {
    let arguments = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(why) => {
            say::error(&why);
            return code::USAGE;
        }
    };
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    let files = input.next_line().await.ok().flatten().unwrap_or_default();
    let files: BTreeMap<String, String> = serde_json::from_str(&files).unwrap_or_default();
    let environment = environment(&arguments);
    let started = script(&arguments, &files, &environment);
    let (script, test) = match started {
        Ok(started) => started,
        Err((why, code)) => {
            say::error(&why);
            return code;
        }
    };
    if arguments.command == Command::Inspect {
        println!("{:#}", test.requirements());
        return 0;
    }
    match play(&arguments, &script, &test, &environment, input).await {
        Ok(code) => code,
        Err(why) => {
            say::error(&why);
            code::INVALID
        }
    }
}

/// What a script sees as `__ENV`: `k6 inspect` does not give it the environment of the process.
fn environment(arguments: &Arguments) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    if arguments.command == Command::Run {
        all.extend(std::env::vars());
    }
    all.extend(arguments.environment.iter().cloned());
    all
}

/// Begins the script, or says why that cannot be done and what k6 exits with.
fn script(
    arguments: &Arguments,
    files: &BTreeMap<String, String>,
    environment: &BTreeMap<String, String>,
) -> Result<(Script, Test), (String, u8)> {
    let name = &arguments.script;
    let missing = || {
        let why = format!(
            "The moduleSpecifier \"{name}\" couldn't be found on local disk. Make sure that you've specified the right path to the file."
        );
        (why, code::USAGE)
    };
    let script = Script::read(files.get(name).ok_or_else(missing)?);
    let exception = |why: String| {
        let at = format!("\tat file://{name}:1:1(1)");
        (format!("{why}\n{at}\n"), code::EXCEPTION)
    };
    if let Some(why) = script.throws(environment) {
        return Err(exception(why));
    }
    let test = Test::read(environment).map_err(exception)?;
    Ok((script, test))
}

async fn play(
    arguments: &Arguments,
    script: &Script,
    test: &Test,
    environment: &BTreeMap<String, String>,
    mut input: Lines<BufReader<Stdin>>,
) -> Result<u8, String> {
    let network = network::Network::read(environment)?;
    let users = arguments.segment.share(test.virtual_users);
    println!("{READY}");
    if arguments.paused {
        wait_for_start(&mut input).await;
    }
    tokio::spawn(async move {
        while let Ok(Some(_)) = input.next_line().await {}
        gone();
    });
    let played = runner::play(test, users, network, runner::Trouble::read(environment)?).await;
    let crossed = test.crossed(&played.samples);
    if script.prints_summary && !played.silent {
        let summary = summary::of(test, script, &played);
        println!("\n{}\n{summary}\n{}", script::BEGIN, script::END);
    }
    if played.ended == Ended::Aborted {
        say::error("test run was aborted because k6 received a 'terminated' signal");
        return Ok(code::ABORTED);
    }
    if crossed.is_empty() {
        return Ok(0);
    }
    let names: Vec<String> = crossed.iter().map(|name| format!("'{name}'")).collect();
    let names = names.join(", ");
    say::error(&format!("thresholds on metrics {names} have been crossed"));
    Ok(code::THRESHOLDS)
}

async fn wait_for_start(input: &mut Lines<BufReader<Stdin>>) {
    loop {
        match input.next_line().await {
            Ok(Some(line)) if line == "start" => return,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => gone(),
        }
    }
}

/// The container is gone.
fn gone() -> ! {
    std::process::exit(i32::from(code::KILLED))
}
