//! The settings that worker and command line share: flags, then the environment, then defaults.
//!
//! Empty values count as absent, since CI systems set variables that have none. An error names the
//! variable and the flag; secrets show in no `Debug` output and in no error.

mod cloud;
mod hosts;
mod identity;
mod kube;
mod queue;
mod registries;
mod secret;
mod store;
mod world;
mod yandex;

pub use cloud::CloudArgs;
pub use hosts::HostArgs;
pub use identity::IdentityArgs;
pub use kube::KubeArgs;
pub use queue::QueueArgs;
pub use registries::RegistryArgs;
pub use store::StoreArgs;
pub use world::WorldArgs;
pub use yandex::YandexArgs;

/// A setting that is missing or makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct SettingError {
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl SettingError {
    fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            hint: None,
        }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

/// A text that is set and not empty.
fn given(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

fn half(there: &str, missing: &str, flag: &str) -> SettingError {
    SettingError::new(format!("{there} is set, {missing} is not"))
        .hint(format!("set {missing} (or {flag}) too, or neither of them"))
}
