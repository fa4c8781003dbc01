//! Log lines as k6 writes them where nobody looks on: logfmt on the standard error.

use std::io::Write;

/// Something that ends the run.
pub(crate) fn error(message: &str) {
    line("error", message, "");
}

/// A request that failed.
pub(crate) fn request_failed(url: &str, why: &str) {
    let why = quoted(&format!("Get {url:?}: {why}"));
    line("warning", "Request Failed", &format!(" error={why}"));
}

fn line(level: &str, message: &str, more: &str) {
    let now = jiff::Timestamp::now();
    let now = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now);
    let text = format!(
        "time=\"{now}\" level={level} msg={}{more}\n",
        quoted(message)
    );
    // Nobody is left to be told.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
