//! `rekindle add-user`: a person's access to the nodes.

use std::path::Path;

use jobs::message::{Access, AddUser as Payload, Job};
use jobs::user::PublicKey;
use worker::ssh::keys::parse_public_key;

use super::single;
use crate::cli::AddUser;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::files;
use crate::out::Out;

pub(crate) async fn run(args: &AddUser, out: &mut Out) -> Result<ExitCode, CliError> {
    let access = match &args.key_file {
        Some(file) => Access::Grant {
            key: key_of(file)?,
            sudo: args.sudo,
        },
        None => Access::Revoke,
    };
    let payload = |spec: &_| {
        Ok(Job::AddUser(Payload {
            name: args.user.clone(),
            access,
            nodes: single::choose(&args.select, spec)?,
        }))
    };
    single::on_the_bastion(&args.single, out, payload).await
}

/// The public key in a file. No error repeats what is in it: it could be the private one.
fn key_of(file: &Path) -> Result<PublicKey, CliError> {
    let wrong = |why: &dyn std::fmt::Display| CliError::usage(format!("{}: {why}", file.display()));
    let key = PublicKey::parse(&files::read(file)?).map_err(|e| wrong(&e))?;
    parse_public_key(key.as_str()).map_err(|_| wrong(&"this is not one public SSH key"))?;
    Ok(key)
}
