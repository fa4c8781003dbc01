//! Where the load of a load test may come from: a folder at Yandex Cloud, and what opens it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jobs::store::Secret;

use super::secret::{Hidden, one_of};
use super::{SettingError, given};
use crate::cloud::yandex::{AuthorizedKey, Credentials, Endpoints, Yandex, YandexConfig};

/// The largest key file, in bytes: two keys of RSA as text.
const LARGEST: u64 = 64 * 1024;

/// The cloud that the temporary clusters of load tests are made in.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Load test")]
pub struct YandexArgs {
    /// URL of all services of Yandex Cloud: a simulated one
    #[arg(long, env = "YC_URL", value_name = "URL", hide = true)]
    yc_url: Option<String>,
    /// The folder at Yandex Cloud that temporary clusters are made in
    #[arg(long, env = "YC_FOLDER_ID", value_name = "ID", hide_short_help = true)]
    yc_folder_id: Option<String>,
    /// File with the authorized key of the service account, as `yc iam key create` writes it
    #[arg(
        long,
        env = "YC_SERVICE_ACCOUNT_KEY_FILE",
        value_name = "FILE",
        hide_short_help = true
    )]
    yc_service_account_key_file: Option<PathBuf>,
    /// An IAM token instead; it ends within 12 hours and is not renewed
    #[arg(
        long,
        env = "YC_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        hide_short_help = true
    )]
    yc_token: Option<Hidden>,
    /// File with the IAM token
    #[arg(
        long,
        env = "YC_TOKEN_FILE",
        value_name = "FILE",
        hide_short_help = true
    )]
    yc_token_file: Option<PathBuf>,
}

impl YandexArgs {
    /// The cloud, or nothing when it is not set at all. Sends nothing yet.
    pub fn connect(&self) -> Result<Option<Yandex>, SettingError> {
        let credentials = self.credentials()?;
        let (folder, credentials) = match (given(&self.yc_folder_id), credentials) {
            (Some(folder), Some(credentials)) => (folder, credentials),
            (None, None) => return Ok(None),
            (Some(_), None) => {
                let reason = "YC_FOLDER_ID is set, and nothing that opens it";
                let hint = "set YC_SERVICE_ACCOUNT_KEY_FILE (or --yc-service-account-key-file) too";
                return Err(SettingError::new(reason).hint(hint));
            }
            (None, Some(_)) => {
                let reason = "there are credentials for Yandex Cloud, and YC_FOLDER_ID is not set";
                return Err(SettingError::new(reason).hint("set it (or --yc-folder-id) too"));
            }
        };
        let mut config = YandexConfig::new(folder, credentials);
        // A turn is short; what takes longer is for the next one.
        config.patience.timeout = Duration::from_secs(15);
        config.patience.attempts = 3;
        if let Some(url) = given(&self.yc_url) {
            config.endpoints = Endpoints::at(&url);
        }
        let yandex =
            Yandex::new(config).map_err(|error| SettingError::new(format!("failed to {error}")))?;
        Ok(Some(yandex))
    }

    fn credentials(&self) -> Result<Option<Credentials>, SettingError> {
        let token = one_of(
            self.yc_token.as_ref(),
            self.yc_token_file.as_ref(),
            "YC_TOKEN",
        )?;
        let file = self.yc_service_account_key_file.as_ref();
        let file = file.filter(|path| !path.as_os_str().is_empty());
        match (token, file) {
            (Some(_), Some(_)) => Err(SettingError::new(
                "YC_TOKEN and YC_SERVICE_ACCOUNT_KEY_FILE are both set",
            )
            .hint("set one of them: the key, unless it is for a trial")),
            (Some(token), None) => Ok(Some(Credentials::Token(Secret::new(token.0)))),
            (None, Some(path)) => key(path).map(Credentials::Key).map(Some),
            (None, None) => Ok(None),
        }
    }
}

fn key(path: &std::path::Path) -> Result<AuthorizedKey, SettingError> {
    let wrong = |why: String| {
        let path = path.display();
        SettingError::new(format!(
            "failed to read YC_SERVICE_ACCOUNT_KEY_FILE, {path}: {why}"
        ))
    };
    let about = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?;
    if about.len() > LARGEST {
        let size = about.len();
        return Err(wrong(format!("it has {size} bytes, {LARGEST} at most")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    AuthorizedKey::parse(&text).map_err(|e| wrong(e.to_string()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        yandex: YandexArgs,
    }

    fn connect(flags: &[&str]) -> Result<Option<Yandex>, SettingError> {
        let line = Line::try_parse_from(std::iter::once("x").chain(flags.iter().copied()));
        line.unwrap().yandex.connect()
    }

    #[test]
    fn nothing_is_asked_for_and_half_of_it_is_told() {
        assert!(connect(&[]).unwrap().is_none());
        assert!(
            connect(&["--yc-url=http://127.0.0.1:1", "--yc-token="])
                .unwrap()
                .is_none()
        );
        let folder = "--yc-folder-id=b1g";
        let token = "--yc-token=t1.hunter2";
        assert!(connect(&[folder, token]).unwrap().is_some());
        let folder_of_keys = tempfile::tempdir().unwrap();
        let path = folder_of_keys.path().join("key.json");
        std::fs::write(&path, r#"{"id": "a", "private_key": "hunter2"}"#).unwrap();
        let file = format!("--yc-service-account-key-file={}", path.display());
        for (flags, want) in [
            (&[folder][..], "YC_SERVICE_ACCOUNT_KEY_FILE"),
            (&[token], "YC_FOLDER_ID"),
            (&[folder, token, &file], "both set"),
            (&[folder, &file], "no authorized key"),
            (
                &[folder, "--yc-service-account-key-file=/none.json"],
                "/none.json",
            ),
            (&[folder, token, "--yc-url=http://api.example"], "YC_URL"),
            (&["--yc-folder-id=../b1g", token], "../b1g"),
        ] {
            let SettingError { reason, hint } = connect(flags).unwrap_err();
            let text = format!("{reason}; {}", hint.unwrap_or_default());
            assert!(text.contains(want), "no `{want}` in `{text}`");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
