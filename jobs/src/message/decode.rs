//! Reading a message, in stages: each kind of bad input has an error of its own that names the field.

use serde_json::Value;

use super::{
    AddUser, Backup, Demo, JobMessage, KINDS, LoadTest, MirrorImages, OnNode, OsUpdate, PutSecret,
    Release, RemoveNode, Restore, SCHEMA, Switch, WaitCertificates,
};
use crate::cut::cut;

/// Why a delivery is not a job message we can act on. The worker dead-letters it with this text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or not a JSON object.
    #[error("the message is not a JSON object: {0}")]
    NotJson(String),
    /// Written by a newer Rekindle.
    #[error(
        "the message has schema {found}, this worker knows up to {SCHEMA}: update the worker, then `rekindle retry`"
    )]
    NewerSchema {
        /// The schema it claims.
        found: u64,
    },
    /// A kind this build does not have.
    #[error("the message is of unknown kind `{found}`; known kinds: {}", KINDS.join(", "))]
    UnknownKind {
        /// The kind it claims.
        found: String,
    },
    /// A field is missing or wrong.
    #[error("field `{field}`: {reason}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

/// Errors quote the message and do not repeat it; in bytes.
const LONGEST_REASON: usize = 500;

impl DecodeError {
    fn field(field: String, reason: String) -> Self {
        Self::Field {
            field: cut(field, LONGEST_REASON),
            reason: cut(reason, LONGEST_REASON),
        }
    }
}

impl JobMessage {
    /// Reads a message; see [`DecodeError`] for what can be wrong.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let value: Value =
            serde_json::from_slice(body).map_err(|e| DecodeError::NotJson(e.to_string()))?;
        let Some(object) = value.as_object() else {
            return Err(DecodeError::NotJson(format!("it is {}", kind_of(&value))));
        };
        let field = |name: &str, reason: String| DecodeError::field(name.to_owned(), reason);
        match object.get("schema") {
            None => return Err(field("schema", "it is missing".into())),
            Some(schema) => match schema.as_u64() {
                None => return Err(field("schema", "it is not a whole number".into())),
                Some(0) => return Err(field("schema", "schemas count from 1".into())),
                Some(found) if found > u64::from(SCHEMA) => {
                    return Err(DecodeError::NewerSchema { found });
                }
                Some(_) => {}
            },
        }
        match object.get("kind").map(Value::as_str) {
            None => return Err(field("kind", "it is missing".into())),
            Some(None) => return Err(field("kind", "it is not a text".into())),
            Some(Some(kind)) if !KINDS.contains(&kind) => {
                return Err(DecodeError::UnknownKind {
                    found: kind.chars().take(80).collect(),
                });
            }
            Some(Some(_)) => {}
        }
        let message: JobMessage = serde_path_to_error::deserialize(&value).map_err(|e| {
            let path = e.path().to_string();
            let reason = e.into_inner().to_string();
            match path.as_str() {
                "." => wrong_in_payload(&value).unwrap_or_else(|| {
                    let field = named_field(&reason).unwrap_or_else(|| "payload".into());
                    DecodeError::field(field, reason)
                }),
                _ => DecodeError::field(path, reason),
            }
        })?;
        if message.job != message.payload.name() {
            let reason = format!(
                "`{}` is not the name of this payload, `{}`",
                message.job,
                message.payload.name()
            );
            return Err(field("job", reason));
        }
        Ok(message)
    }
}

/// Which field of the payload is wrong. serde reads payloads by way of a buffer that forgets the
/// path, so it is read once more as what its kind says.
fn wrong_in_payload(value: &Value) -> Option<DecodeError> {
    let wrong = match value.get("kind")?.as_str()? {
        "demo" => serde_path_to_error::deserialize::<_, Demo>(value).err()?,
        "mirror-images" => serde_path_to_error::deserialize::<_, MirrorImages>(value).err()?,
        "provision" | "reachability" | "mount" | "permissions" => {
            serde_path_to_error::deserialize::<_, OnNode>(value).err()?
        }
        "remove-node" => serde_path_to_error::deserialize::<_, RemoveNode>(value).err()?,
        "os-update" => serde_path_to_error::deserialize::<_, OsUpdate>(value).err()?,
        "add-user" => serde_path_to_error::deserialize::<_, AddUser>(value).err()?,
        "switch" => serde_path_to_error::deserialize::<_, Switch>(value).err()?,
        "restore" => serde_path_to_error::deserialize::<_, Restore>(value).err()?,
        "backup" => serde_path_to_error::deserialize::<_, Backup>(value).err()?,
        "wait-certificates" => {
            serde_path_to_error::deserialize::<_, WaitCertificates>(value).err()?
        }
        "secret" => serde_path_to_error::deserialize::<_, PutSecret>(value).err()?,
        "load-test" => serde_path_to_error::deserialize::<_, LoadTest>(value).err()?,
        "release" => serde_path_to_error::deserialize::<_, Release>(value).err()?,
        _ => return None,
    };
    let path = wrong.path().to_string();
    let reason = wrong.into_inner().to_string();
    let field = if path == "." {
        named_field(&reason)?
    } else {
        path
    };
    Some(DecodeError::field(field, reason))
}

/// serde names the field of "missing field `x`" only in its text.
fn named_field(reason: &str) -> Option<String> {
    let rest = reason.strip_prefix("missing field `")?;
    Some(rest.split('`').next()?.to_owned())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
