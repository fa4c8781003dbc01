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

    /// Whether a program reads what we print.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// For what a program wrote, byte by byte.
    pub(crate) fn bytes(&mut self) -> impl Write + use<> {
        io::stdout().lock()
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
            self.note(&format!("error: failed to write to stdout: {error}"));
        }
    }

    /// A line beside the result. The terminal may be gone, which is nobody's error.
    pub(crate) fn note(&self, line: &str) {
        let _ = writeln!(io::stderr(), "{line}");
    }

    /// An error: on stderr for people, and as the one document for programs.
    pub(crate) fn error(&mut self, error: &CommandError) {
        self.note(&format!("error: {}", error.message));
        if let Some(hint) = &error.hint {
            self.note(&format!("hint: {hint}"));
        }
        if self.format == Format::Json {
            let value = json!({
                "error": error.message,
                "hint": error.hint,
                "kind": error.kind,
                "exit_code": error.exit_code().number(),
            });
            self.show(&value, String::new);
        }
    }
}
