//! `rekindle secret`: keys of a Kubernetes Secret, with values that nobody sees on the way.

use std::collections::BTreeMap;

use jobs::message::{Job, PutSecret as Payload};

use super::{begin, single};
use crate::cli::{self, PutSecret};
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;

pub(crate) async fn run(args: &PutSecret, out: &mut Out) -> Result<ExitCode, CliError> {
    let mut keys = BTreeMap::new();
    for text in &args.keys {
        let (key, name) = cli::key(text).map_err(|e| CliError::usage(format!("--data: {e}")))?;
        if keys.insert(key.clone(), name).is_some() {
            return Err(CliError::usage(format!("--data {key} stands twice")));
        }
    }
    let store = args.single.begin.follow.store.connect().await?;
    let (spec, given) = single::spec(&store, &args.single).await?;
    let wanted: Vec<String> = keys.values().cloned().collect();
    let secret = args.object.clone();
    let plan = single::alone(vec![Job::Secret(Payload { secret, keys })])?;
    let request = single::request("secret", &args.single, spec, given, plan)?;
    let sealed = request.secrets.names();
    if let Some(name) = wanted.iter().find(|name| !sealed.contains(name)) {
        return Err(CliError::usage(format!(
            "--data names the secret {name}, which is not given"
        ))
        .hint(format!(
            "add --secret {name}=@FILE, or --secret {name} for the variable, and --recipient"
        )));
    }
    begin::run(&store, &request, &args.single.begin, out).await
}
