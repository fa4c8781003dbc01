//! Where the cloud is, and what opens it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::secret::{Hidden, one_of};
use super::{SettingError, half};
use crate::cloud::clo::{Clo, CloConfig, Token};

/// The cloud that servers come from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cloud")]
pub struct CloudArgs {
    /// URL of the cloud's API
    #[arg(long, env = "CLO_URL", value_name = "URL", hide_short_help = true)]
    clo_url: Option<String>,
    /// Token of the cloud's API
    #[arg(
        long,
        env = "CLO_AUTH_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        hide_short_help = true
    )]
    clo_auth_token: Option<Hidden>,
    /// File with the token
    #[arg(
        long,
        env = "CLO_AUTH_TOKEN_FILE",
        value_name = "FILE",
        hide_short_help = true
    )]
    clo_auth_token_file: Option<PathBuf>,
    /// The cloud project (object) that servers live in
    #[arg(long, env = "CLO_OBJECT_ID", value_name = "ID", hide_short_help = true)]
    clo_object_id: Option<String>,
}

impl CloudArgs {
    /// The cloud, or nothing when it is not set at all. Sends nothing yet.
    pub fn connect(&self) -> Result<Option<Clo>, SettingError> {
        let token = one_of(
            self.clo_auth_token.as_ref(),
            self.clo_auth_token_file.as_ref(),
            "CLO_AUTH_TOKEN",
        )?;
        let project = self.clo_object_id.as_ref().filter(|id| !id.is_empty());
        let (token, project) = match (token, project) {
            (Some(token), Some(project)) => (token, project),
            (None, None) => return Ok(None),
            (Some(_), None) => {
                return Err(half("CLO_AUTH_TOKEN", "CLO_OBJECT_ID", "--clo-object-id"));
            }
            (None, Some(_)) => {
                return Err(half("CLO_OBJECT_ID", "CLO_AUTH_TOKEN", "--clo-auth-token"));
            }
        };
        let mut config = CloConfig::new(Token::new(&token.0), project);
        // A turn is short; what takes longer is for the next one.
        config.patience.timeout = Duration::from_secs(15);
        config.patience.attempts = 3;
        if let Some(url) = self.clo_url.as_ref().filter(|url| !url.is_empty()) {
            config.url.clone_from(url);
        }
        let clo =
            Clo::new(config).map_err(|error| SettingError::new(format!("failed to {error}")))?;
        Ok(Some(clo))
    }
}
