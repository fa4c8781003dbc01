//! The only owner of stdout, so that `--output json` can promise that there is nothing else on it.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::json;

use crate::cli::Format;
use crate::error::CliError;

/// Prints results. Falls silent when the reader goes away (`rekindle status | head`): the command
/// still runs to its end and keeps its exit code.
#[derive(Debug)]
pub(crate) struct Out {
    format: Format,
    gone: bool,
}

impl Out {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            gone: false,
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether somebody watches on a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        !self.is_json() && io::stdout().is_terminal() && io::stderr().is_terminal()
    }

    /// A result: `text` for people, `value` for programs.
    pub(crate) fn show(&mut self, value: &impl Serialize, text: impl FnOnce() -> String) {
        let text = if self.is_json() {
            serde_json::to_string_pretty(value).expect("views are plain data with text keys")
        } else {
            text()
        };
        self.write(&text);
    }

    /// One line of many: `text` for people, `value` on a line of its own for programs.
    pub(crate) fn line(&mut self, value: &impl Serialize, text: impl FnOnce() -> String) {
        let text = if self.is_json() {
            serde_json::to_string(value).expect("views are plain data with text keys")
        } else {
            text()
        };
        self.write(&text);
    }

    /// Text that has one form only, such as a schema or a completion script.
    pub(crate) fn raw(&mut self, text: &str) {
        self.write(text);
    }

    /// An error: on stderr for people, and as the one document for programs.
    pub(crate) fn error(&mut self, error: &CliError) {
        eprintln!("error: {}", error.message());
        if let Some(next) = error.next() {
            eprintln!("hint: {next}");
        }
        if self.is_json() {
            let problems = match error {
                CliError::Problems { problems, .. } => problems.as_slice(),
                _ => &[],
            };
            let value = json!({
                "error": error.to_string(),
                "hint": error.next(),
                "problems": problems,
                "exit_code": error.exit_code() as u8,
            });
            self.line(&value, String::new);
        }
    }

    fn write(&mut self, text: &str) {
        if self.gone {
            return;
        }
        let mut stdout = io::stdout().lock();
        let ended = if text.ends_with('\n') { "" } else { "\n" };
        let written = write!(stdout, "{text}{ended}").and_then(|()| stdout.flush());
        if let Err(error) = written {
            self.gone = true;
            if error.kind() != io::ErrorKind::BrokenPipe {
                eprintln!("error: failed to write to stdout: {error}");
            }
        }
    }
}
