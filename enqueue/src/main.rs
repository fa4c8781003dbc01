//! `rekindle`: wiring only, see the library `enqueue`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // With `--here` it runs jobs itself.
    if let Some(ended) = worker::child::supervise_if_asked() {
        return ended;
    }
    enqueue::run(std::env::args_os()).into()
}
