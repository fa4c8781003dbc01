//! Who asks: for the recovery record and for the history of a job.

use std::env;

use jobs::record::Requester;
use nix::unistd::{User, getuid};

/// The user, the host and, in GitHub Actions, the run.
pub(crate) fn requester() -> Requester {
    let var = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let host = nix::unistd::gethostname().ok();
    let ci_run = (|| {
        let (server, repository) = (var("GITHUB_SERVER_URL")?, var("GITHUB_REPOSITORY")?);
        let run = var("GITHUB_RUN_ID")?;
        Some(format!("{server}/{repository}/actions/runs/{run}"))
    })();
    Requester {
        user: var("USER")
            .or_else(|| var("LOGNAME"))
            .or_else(|| Some(User::from_uid(getuid()).ok()??.name))
            .unwrap_or_else(|| "unknown".into()),
        host: host
            .and_then(|name| name.into_string().ok())
            .unwrap_or_else(|| "unknown".into()),
        ci_run,
    }
}

/// `user@host`, as it stands in a job's history.
pub(crate) fn signature() -> String {
    let Requester { user, host, .. } = requester();
    format!("{user}@{host}")
}
