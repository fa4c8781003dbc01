//! What the sandbox says to people.

use std::io::Write;

use tracing_subscriber::EnvFilter;

/// A line on stdout. A closed pipe is nobody's error.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Logs on stderr; `RUST_LOG` shows more. s3s reports every refused request as an error, also the
/// lost races that are daily bread here.
pub fn logs() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,s3s=off,sandbox=info"));
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color)
        .with_target(false)
        .try_init();
}
