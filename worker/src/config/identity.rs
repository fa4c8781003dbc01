//! The age identity that a worker opens secrets with.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jobs::secrets::Identity;

use super::SettingError;

/// The largest identity file, in bytes: a key with some comments.
const LARGEST: u64 = 64 * 1024;
/// The systemd credential that is looked for (`LoadCredential=rekindle-age-identity:…`).
const CREDENTIAL: &str = "rekindle-age-identity";

/// What secrets are opened with.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Secrets")]
pub struct IdentityArgs {
    /// File with the age identity that secrets are sealed to, from `rekindle keygen`; the systemd
    /// credential `rekindle-age-identity` when absent
    #[arg(
        long,
        env = "REKINDLE_AGE_IDENTITY_FILE",
        value_name = "FILE",
        hide_short_help = true
    )]
    age_identity_file: Option<PathBuf>,
}

impl IdentityArgs {
    /// The identity, when one is set.
    pub fn identity(&self) -> Result<Option<Arc<Identity>>, SettingError> {
        let given = self.age_identity_file.clone();
        let given = given.filter(|path| !path.as_os_str().is_empty());
        let credential = || {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY")?;
            let path = PathBuf::from(folder).join(CREDENTIAL);
            path.exists().then_some(path)
        };
        let Some(path) = given.or_else(credential) else {
            return Ok(None);
        };
        let failed = |why: String| {
            let path = path.display();
            SettingError::new(format!("failed to read the age identity in {path}: {why}"))
        };
        let about = std::fs::metadata(&path).map_err(|e| failed(e.to_string()))?;
        if about.len() > LARGEST {
            let size = about.len();
            return Err(failed(format!("it has {size} bytes, {LARGEST} at most")));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| failed(e.to_string()))?;
        let identity = text.parse().map_err(|e| failed(format!("{e}")))?;
        Ok(Some(Arc::new(identity)))
    }
}
