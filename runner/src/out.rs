//! The only owner of stdout, so that `--output json` can promise that there is nothing else on it.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;

use crate::cli::Format;
use crate::commands::CommandError;

/// Prints results. Falls silent when the reader goes away: the command keeps its exit code.
#[derive(Debug)]
pub(crate) struct Out {
    format: Format,
}

impl Out {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// A result: `text` for people, `value` for programs.
    pub(crate) fn show(&mut self, value: &impl Serialize, text: impl FnOnce() -> String) {
        let text = match self.format {
            Format::Json => {
                serde_json::to_string_pretty(value).expect("results are plain data with text keys")
            }
            Format::Text => text(),
        };
        let mut stdout = io::stdout().lock();
        let written = writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush());
        if let Err(error) = written
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            eprintln!("error: failed to write to stdout: {error}");
        }
    }

    /// An error: on stderr for people, and as the one document for programs.
    pub(crate) fn error(&mut self, error: &CommandError) {
        eprintln!("error: {}", error.message);
        if let Some(hint) = &error.hint {
            eprintln!("hint: {hint}");
        }
        if self.format == Format::Json {
            let value = json!({
                "error": error.message,
                "hint": error.hint,
                "exit_code": error.exit_code as u8,
            });
            self.show(&value, String::new);
        }
    }
}
