//! `rekindle kubeconfig`: a cluster's kubeconfig for a person who holds the workers' age identity.

use std::fs::OpenOptions;
use std::io::{ErrorKind, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jobs::secrets::SecretsError;
use jobs::store::Secret;
use serde_json::json;
use worker::kube::{Kept, KeptError, kept};

use crate::cli::Kubeconfig;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;

/// Opens it, and writes it where only its owner reads it, or into a pipe.
pub(crate) async fn run(args: &Kubeconfig, out: &mut Out) -> Result<ExitCode, CliError> {
    let dash = args.file.as_deref() == Some(Path::new("-"));
    let file = args.file.as_deref().filter(|_| !dash);
    if file.is_none() && !dash && std::io::stdout().is_terminal() {
        return Err(
            CliError::usage("a kubeconfig is a secret, and this is a terminal")
                .hint("name the file it goes to, or `-` to see it all the same"),
        );
    }
    let cluster = &args.cluster.name;
    let identity = args.identity.identity()?.ok_or_else(|| {
        CliError::usage("it is sealed, and there is no key to open it with")
            .hint("give the workers' age identity: --age-identity-file FILE")
    })?;
    let store = args.store.connect().await?;
    let kept = kept::open(&store, cluster, Some(&identity)).await;
    let Kept { record, config } = kept.map_err(|error| why_not(error, cluster.as_str()))?;
    let Some(path) = file else {
        out.raw(config.text().reveal());
        return Ok(ExitCode::Done);
    };
    write(path, config.text())?;
    let server = config.server().to_string();
    let view = json!({
        "file": path, "server": server, "fetched": record.at, "recovery": record.recovery,
    });
    out.show(&view, || {
        format!(
            "{}: the administrator of {server}, as recovery {} found it at {}",
            path.display(),
            record.recovery,
            record.at
        )
    });
    Ok(ExitCode::Done)
}

fn why_not(error: KeptError, cluster: &str) -> CliError {
    let hint = match &error {
        KeptError::Nothing => {
            format!(
                "`rekindle flux-bootstrap --cluster {cluster}` fetches it from a master and keeps it"
            )
        }
        KeptError::NoIdentity(_) | KeptError::Sealed(SecretsError::OtherKey(_)) => {
            "give the identity of the workers that ran the recovery: --age-identity-file FILE"
                .to_owned()
        }
        KeptError::Sealed(_) | KeptError::Unusable(_) => format!(
            "`rekindle flux-bootstrap --cluster {cluster}` fetches it from a master and seals it anew"
        ),
        KeptError::Store(_) => "`rekindle doctor` checks the connections one by one".to_owned(),
    };
    CliError::failed(format!(
        "failed to find the kubeconfig of `{cluster}`: {error}"
    ))
    .hint(hint)
}

/// Into a new file: one that is there may hold other clusters, too.
fn write(path: &Path, text: &Secret) -> Result<(), CliError> {
    let failed = |e: std::io::Error| {
        let error = CliError::failed(format!("failed to write {}: {e}", path.display()));
        match e.kind() {
            ErrorKind::AlreadyExists => error.hint("take another name: no file is overwritten"),
            _ => error,
        }
    };
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(text.reveal().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)
}
