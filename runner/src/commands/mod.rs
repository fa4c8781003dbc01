//! What the commands do: call the library, print, and say what to do about an error.

mod fetch;
mod image;
mod logs;
mod run;
mod runs;

use std::error::Error;
use std::time::Duration;

use crate::chain::chain;
use crate::cli::Command;
use crate::exit::ExitCode;
use crate::out::Out;

/// Why a command could not do what it was asked to.
#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) kind: ExitCode,
    /// The command exits as a program did, so its own failures must not look like a program's.
    follows: bool,
}

impl CommandError {
    /// How the command ends.
    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.follows {
            ExitCode::NotRun
        } else {
            self.kind
        }
    }
}

pub(crate) fn run(command: Command, out: &mut Out) -> Result<ExitCode, CommandError> {
    let done = match command {
        Command::Run(args) if args.detach => run::start(&args, out),
        Command::Run(args) => return run::start_and_follow(&args, out).map_err(following),
        Command::Attach(args) => return run::attach(&args, out).map_err(following),
        Command::Image(command) => image::run(command, out),
        Command::Fetch(args) => fetch::fetch(&args, out),
        Command::Status(args) => runs::status(&args, out),
        Command::Logs(args) => logs::logs(&args, out),
        Command::Stop(args) => runs::stop(&args, out),
        Command::List(args) => runs::list(&args, out),
        Command::Gc(args) => runs::collect(&args, out),
        Command::Supervise { .. } => return Ok(crate::run::supervise()),
    };
    done.map(|()| ExitCode::Done)
}

fn following(error: CommandError) -> CommandError {
    CommandError {
        follows: true,
        ..error
    }
}

fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes >= 10 * MIB {
        format!("{} MiB", bytes / MIB)
    } else {
        format!("{} KiB", bytes.div_ceil(1024))
    }
}

fn age(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

fn usage(message: &str) -> CommandError {
    CommandError {
        message: message.to_owned(),
        hint: None,
        kind: ExitCode::Usage,
        follows: false,
    }
}

impl CommandError {
    fn new(error: &dyn Error, kind: ExitCode, hint: Option<&str>) -> Self {
        Self {
            message: format!("failed to {}", chain(error)),
            hint: hint.map(str::to_owned),
            kind,
            follows: false,
        }
    }
}
