//! Operations: what a change is while it is under way.

use serde::Deserialize;
use serde_json::Value;

use super::call::{Call, Service};
use super::client::Yandex;
use super::error::{Rpc, YandexError};
use super::model::{Kind, id, or_default};

/// A change, as far as it has come.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Operation {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub id: String,
    #[serde(default, deserialize_with = "or_default")]
    done: bool,
    #[serde(default, deserialize_with = "or_default")]
    metadata: Value,
    #[serde(default)]
    error: Option<Rpc>,
    #[serde(default, deserialize_with = "or_default")]
    response: Value,
}

/// Where an operation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It goes on; with what is known of it.
    Going(&'static str),
    /// It has done what it should.
    Done,
    /// It has failed, for this reason.
    Failed(String),
}

impl Operation {
    /// Where it stands. An error while it is not done says that the service takes back what it has made: only what
    /// is done is final.
    pub fn progress(&self) -> Progress {
        match (self.done, &self.error) {
            (false, None) => Progress::Going("under way"),
            (false, Some(_)) => Progress::Going("failed, and is being taken back"),
            (true, None) => Progress::Done,
            (true, Some(error)) => Progress::Failed(match (error.code, error.message.trim()) {
                (Some(code), "") => format!("code {code}"),
                (_, "") => "no reason was given".into(),
                (Some(code), message) => format!("{message} (code {code})"),
                (None, message) => message.into(),
            }),
        }
    }

    /// The id of what it makes; known from its beginning.
    pub(super) fn resource(&self, kind: Kind) -> Option<&str> {
        let named = self.metadata[kind.id_field()].as_str();
        let found = named.or_else(|| self.response["id"].as_str());
        found.filter(|id| crate::cloud::http::is_id(id))
    }
}

impl Yandex {
    /// An operation, or `None` if there is none of this id any more.
    pub async fn operation(&self, id: &str) -> Result<Option<Operation>, YandexError> {
        let asked = format!("read operation {id}");
        let path = format!("/operations/{}", self.checked(&asked, id)?);
        self.if_exists(Call::get(Service::Operations, asked, path))
            .await
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_done_is_final() {
        let failed = |text: &str| Progress::Failed(text.into());
        for (value, want) in [
            (json!({"id": "op1"}), Progress::Going("under way")),
            (
                json!({"id": "op1", "done": false, "error": null}),
                Progress::Going("under way"),
            ),
            (
                json!({"id": "op1", "error": {"code": 8, "message": "quota"}}),
                Progress::Going("failed, and is being taken back"),
            ),
            (
                json!({"id": "op1", "done": true, "response": {"id": "x"}}),
                Progress::Done,
            ),
            (
                json!({"id": "op1", "done": true, "error": {"code": 8, "message": "quota"}}),
                failed("quota (code 8)"),
            ),
            (
                json!({"id": "op1", "done": true, "error": {"code": "13"}}),
                failed("code 13"),
            ),
            (
                json!({"id": "op1", "done": true, "error": {}}),
                failed("no reason was given"),
            ),
        ] {
            let operation: Operation = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(operation.progress(), want, "{value}");
        }
        assert!(serde_json::from_value::<Operation>(json!({"done": true})).is_err());
    }

    #[test]
    fn the_id_of_what_is_made_is_in_the_metadata() {
        let read = |value| serde_json::from_value::<Operation>(value).unwrap();
        let begun = read(json!({"id": "op1", "metadata": {"@type": "x", "clusterId": "cat1"}}));
        assert_eq!(begun.resource(Kind::Cluster), Some("cat1"));
        assert_eq!(begun.resource(Kind::NodeGroup), None);
        let done = read(json!({"id": "op1", "done": true, "response": {"id": "cat2"}}));
        assert_eq!(done.resource(Kind::Cluster), Some("cat2"));
    }
}
