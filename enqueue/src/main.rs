//! `rekindle`: wiring only, see the library `enqueue`.

use std::process::ExitCode;

fn main() -> ExitCode {
    enqueue::run(std::env::args_os()).into()
}
