//! What the commands around the load test take.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jobs::spec::Driver;

use super::Single;

/// Loads the application.
#[derive(Debug, Args)]
pub(crate) struct LoadJob {
    /// Where the load comes from; as the spec has it when absent, as all of these
    #[arg(long, value_enum)]
    pub(crate) driver: Option<From>,
    /// The URL that is loaded; `${DOMAIN}` in it is the secret of that name
    #[arg(long, value_name = "URL")]
    pub(crate) target: Option<String>,
    /// Virtual users, all runners together
    #[arg(long, value_name = "N")]
    pub(crate) virtual_users: Option<NonZeroU32>,
    /// How often each of them goes through the script
    #[arg(long, value_name = "N")]
    pub(crate) iterations: Option<NonZeroU32>,
    /// Runners that share the virtual users
    #[arg(long, value_name = "N")]
    pub(crate) parallelism: Option<NonZeroU32>,
    /// A k6 script; ours when absent
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) single: Single,
}

/// Where load comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    /// The worker itself: a smoke test
    Local,
    /// k6 on the cluster of the secret LOAD_KUBECONFIG
    Kubeconfig,
    /// k6 on a temporary cluster at Yandex Cloud
    Yandex,
}

impl std::convert::From<From> for Driver {
    fn from(from: From) -> Self {
        match from {
            From::Local => Self::Local,
            From::Kubeconfig => Self::Kubeconfig,
            From::Yandex => Self::Yandex,
        }
    }
}
