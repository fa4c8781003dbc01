//! Logs: one line an event on stderr, as text or (with `REKINDLE_LOG_FORMAT=json`) as JSON.

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging. `RUST_LOG` chooses what is shown; the default is `info` of ours and `warn` of
/// libraries. Begins before the command line is read, so it reads the environment itself.
pub fn init(crate_name: &str) {
    let quiet = format!("warn,{crate_name}=info,worker=info,jobs=info,enqueue=info,lapin=off");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let discreet = filter_fn(|event| !tells_secrets(event.target(), *event.level()));
    let json = std::env::var("REKINDLE_LOG_FORMAT")
        .is_ok_and(|format| format.eq_ignore_ascii_case("json"));
    // A second call (in tests) keeps the first one's choice.
    let _ = if json {
        let json = builder.json().flatten_event(true).finish();
        json.with(discreet).try_init()
    } else {
        builder.finish().with(discreet).try_init()
    };
}

/// Whether a library shows secrets at this level; then it is not heard, whatever `RUST_LOG` says.
fn tells_secrets(target: &str, level: Level) -> bool {
    // lapin traces each frame byte by byte, also the one with the broker's password.
    level == Level::TRACE && (target == "lapin" || target.starts_with("lapin::"))
}

/// Errors only, for benchmarks: a log line costs more than a step.
pub fn init_quiet() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("error,s3s=off,lapin=off"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}
