//! Secrets that CI gives to a recovery: from the environment or files, never from the command line,
//! sealed before anything is sent.

use std::io::Read;
use std::path::Path;

use jobs::ids::ClusterName;
use jobs::record::Sealed;
use jobs::secrets::{LARGEST, Recipient, Secrets};
use jobs::store::{Secret, Store};

use crate::cli::SecretArgs;
use crate::error::CliError;

/// Sealed whenever they are set, as CI systems have them.
const WELL_KNOWN: [&str; 6] = [
    "SOPS_AGE_KEY",
    "CLUSTER_S3_ACCESS_KEY",
    "CLUSTER_S3_SECRET_KEY",
    "GITHUB_TOKEN",
    "ACME_EMAIL",
    "DOMAIN",
];

/// Secrets and whom they are sealed to.
#[derive(Debug, Default)]
pub(crate) struct ToSeal {
    secrets: Secrets,
    recipient: Option<Recipient>,
}

impl ToSeal {
    /// Reads what is asked for.
    pub(crate) fn new(args: &SecretArgs) -> Result<Self, CliError> {
        let recipient = args.recipient.as_deref().filter(|text| !text.is_empty());
        let Some(recipient) = recipient else {
            if args.secret.is_empty() {
                return Ok(Self::default());
            }
            let message = "--secret is given, and no --recipient to seal it to";
            return Err(CliError::usage(message)
                .hint("give the workers' public key, or set REKINDLE_RECIPIENT; `rekindle keygen` makes one"));
        };
        let recipient = recipient
            .parse()
            .map_err(|e| CliError::usage(format!("--recipient: {e}")))?;
        let mut secrets = Secrets::default();
        let mut add = |name: &str, secret: Secret| {
            let added = secrets.add(name, secret);
            added.map_err(|e| CliError::usage(format!("--secret: {e}")))
        };
        for asked in &args.secret {
            match asked.split_once('=') {
                None => add(asked, variable(asked).ok_or_else(|| unset(asked))?)?,
                Some((name, value)) => match value.strip_prefix('@') {
                    Some(path) => add(name, file(name, Path::new(path))?)?,
                    None => return Err(on_the_command_line(name)),
                },
            }
        }
        for name in WELL_KNOWN {
            let asked = |asked: &String| asked.split('=').next() == Some(name);
            if let Some(secret) = variable(name).filter(|_| !args.secret.iter().any(asked)) {
                add(name, secret)?;
            }
        }
        Ok(Self {
            secrets,
            recipient: Some(recipient),
        })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.secrets.names()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// Seals them and puts the ciphertext among the inputs.
    pub(crate) async fn seal(
        &self,
        store: &Store,
        cluster: &ClusterName,
    ) -> Result<Option<Sealed>, CliError> {
        let Some(recipient) = self.recipient.as_ref().filter(|_| !self.is_empty()) else {
            return Ok(None);
        };
        let sealed = self.secrets.seal(cluster, recipient);
        let sealed = sealed.map_err(|e| CliError::failed(e.to_string()))?;
        Ok(Some(Sealed {
            input: store.put_input(sealed.into()).await?,
            names: self.names(),
            recipient: recipient.to_string(),
        }))
    }
}

fn variable(name: &str) -> Option<Secret> {
    let value = std::env::var(name).ok();
    value.filter(|value| !value.is_empty()).map(Secret::new)
}

/// The content of a file, as it is but for the line end that editors put at the end of one line.
fn file(name: &str, path: &Path) -> Result<Secret, CliError> {
    let failed = |why: String| {
        let path = path.display();
        CliError::usage(format!("--secret {name}: failed to read {path}: {why}"))
    };
    let open = std::fs::File::open(path).map_err(|e| failed(e.to_string()))?;
    let mut text = String::new();
    let most = LARGEST as u64 + 2;
    open.take(most)
        .read_to_string(&mut text)
        .map_err(|e| failed(e.to_string()))?;
    if text.lines().count() == 1 {
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
    }
    Ok(Secret::new(text))
}

fn unset(name: &str) -> CliError {
    // A secret itself, put where its name belongs, is not repeated.
    let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    let name = if name.bytes().all(plain) {
        name
    } else {
        "NAME"
    };
    CliError::usage(format!(
        "--secret {name}: there is no such environment variable, or it is empty"
    ))
    .hint(format!("set it, or give a file: --secret {name}=@FILE"))
}

fn on_the_command_line(name: &str) -> CliError {
    let message = "--secret NAME=VALUE: a command line can be read by everybody on the machine";
    let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    let name = if name.bytes().all(plain) {
        name
    } else {
        "NAME"
    };
    CliError::usage(message).hint(format!(
        "take it for known, change it, and give it by file or variable: --secret {name}=@FILE, or --secret {name}"
    ))
}
