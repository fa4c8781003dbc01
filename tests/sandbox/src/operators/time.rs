//! The time, as objects say it.

/// The time now, as Kubernetes writes it: whole seconds.
pub(crate) fn now() -> String {
    let now = jiff::Timestamp::now();
    let seconds = jiff::Timestamp::from_second(now.as_second());
    seconds.unwrap_or(now).to_string()
}
