//! What a recovery is measured by: how long it may take, and how much it may lose.

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The recovery time and recovery point objectives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// From the declaration of the disaster to the proven application, for example `4h`.
    #[serde(default, with = "friendly", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub rto: Option<SignedDuration>,
    /// From the newest change that came back to the failure, for example `15m`.
    #[serde(default, with = "friendly", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub rpo: Option<SignedDuration>,
}

/// Durations as people write them, that may be absent.
mod friendly {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        of: &Option<SignedDuration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        of.map(|of| format!("{of:#}")).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SignedDuration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| read(&text)).transpose()
    }
}

/// Durations as people write them.
pub(super) mod duration {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        of: &SignedDuration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        format!("{of:#}").serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SignedDuration, D::Error> {
        read(&String::deserialize(deserializer)?)
    }
}

fn read<E: serde::de::Error>(text: &str) -> Result<SignedDuration, E> {
    match text.parse::<SignedDuration>() {
        Ok(of) if of.is_positive() => Ok(of),
        _ => Err(E::custom(format!(
            "`{text:.40}` is not a time such as 4h or 15m"
        ))),
    }
}
