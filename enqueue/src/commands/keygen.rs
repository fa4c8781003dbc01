//! `rekindle keygen`: the pair of keys that secrets are sealed with.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;

use jobs::secrets::Identity;
use serde_json::json;

use crate::cli::Keygen;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;

/// Writes the private half into a new file that only its owner can read; prints the public half.
pub(crate) fn run(args: &Keygen, out: &mut Out) -> Result<ExitCode, CliError> {
    let path = &args.file;
    let failed = |e: std::io::Error| {
        let error = CliError::failed(format!("failed to write {}: {e}", path.display()));
        match e.kind() {
            // Whatever was sealed to the key in it could never be opened again.
            ErrorKind::AlreadyExists => error.hint("take another name: a key is never overwritten"),
            _ => error,
        }
    };
    let identity = Identity::generate();
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.write_all(identity.to_file().reveal().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    let recipient = identity.recipient().to_string();
    out.show(&json!({"recipient": recipient, "file": path}), || {
        format!(
            "{recipient}\nset it as REKINDLE_RECIPIENT where `rekindle` runs, and give {} to the workers (--age-identity-file)",
            path.display()
        )
    });
    Ok(ExitCode::Done)
}
