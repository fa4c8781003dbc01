//! Reading whole lists, page by page.
//!
//! A list that broke off must never pass for a short one: what is not on it would be left running, and cost money.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::call::Call;
use super::client::Yandex;
use super::error::YandexError;
use super::model::{Item, Kind, Resource};

/// Items asked for at once: the most that the API gives.
const PAGE: usize = 1000;
/// Pages read at most; an API that always promises more is not believed for ever.
const MOST_PAGES: usize = 200;

/// All that is in the folder, of all kinds that we make.
#[derive(Debug, Clone)]
pub struct Everything {
    /// Sorted by kind and id.
    pub resources: Vec<Resource>,
    /// When that was: by the cloud's clock or by ours, whichever is behind. What is judged by its age is then past
    /// its time by both. Where the cloud did not say, it is the beginning of time: nothing is past it.
    pub at: Timestamp,
}

impl Everything {
    /// Adds what is known by its id and is missing here, if it exists: lists may lag behind.
    pub async fn with(
        mut self,
        yandex: &Yandex,
        known: Vec<(Kind, String)>,
    ) -> Result<Self, YandexError> {
        for (kind, id) in known {
            let mut all = self.resources.iter();
            if all.any(|resource| resource.kind == kind && resource.id == id) {
                continue;
            }
            self.resources.extend(yandex.get(kind, &id).await?);
        }
        Ok(self)
    }
}

impl Yandex {
    /// All that is in the folder. Each kind after those that it lies in: what is in a cluster is then on the list if
    /// the cluster is.
    pub async fn everything(&self) -> Result<Everything, YandexError> {
        let mut all = Everything {
            resources: Vec::new(),
            at: Timestamp::now(),
        };
        for kind in Kind::ALL {
            let (resources, at) = self.list(kind).await?;
            all.resources.extend(resources);
            all.at = at.unwrap_or(Timestamp::MIN).min(all.at);
        }
        Ok(all)
    }

    /// Reads a list to its end. Sorted by id, each id once; with the time of its answer by the cloud's clock.
    pub async fn list(
        &self,
        kind: Kind,
    ) -> Result<(Vec<Resource>, Option<Timestamp>), YandexError> {
        let operation = format!("list {}s", kind.name());
        let mut found: BTreeMap<String, Resource> = BTreeMap::new();
        let mut tokens: BTreeSet<String> = BTreeSet::new();
        let mut token = String::new();
        for _ in 0..MOST_PAGES {
            let mut call = Call::get(kind.service(), &operation, kind.path())
                .query("folderId", self.folder())
                .query("pageSize", PAGE);
            if !token.is_empty() {
                call = call.query("pageToken", &token);
            }
            let answer = self.send(call).await?;
            let page =
                page(answer.decode()?, kind).map_err(|reason| answer.asked.unexpected(&reason))?;
            let resources = page.items.into_iter().map(|item| item.of(kind));
            found.extend(resources.map(|resource| (resource.id.clone(), resource)));
            if page.next.is_empty() {
                return Ok((found.into_values().collect(), answer.at));
            }
            if !tokens.insert(page.next.clone()) {
                let reason = "a page leads to one that was read";
                return Err(YandexError::IncompleteList { operation, reason });
            }
            token = page.next;
        }
        let reason = "it has no end";
        Err(YandexError::IncompleteList { operation, reason })
    }
}

struct Page {
    items: Vec<Item>,
    next: String,
}

/// Reads one page. What is empty is left out of it, so `{}` is an empty list; but an answer with something else
/// instead is none, for an empty list must not come of a misunderstanding.
fn page(answer: Value, kind: Kind) -> Result<Page, String> {
    let Value::Object(mut answer) = answer else {
        return Err("it is no object".into());
    };
    let next = match answer.remove("nextPageToken") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(next)) => next,
        Some(_) => return Err("its `nextPageToken` is no text".into()),
    };
    let field = kind.plural();
    let items = match answer.remove(field) {
        Some(Value::Null) => vec![],
        Some(items) => Deserialize::deserialize(items)
            .map_err(|error: serde_json::Error| format!("its `{field}`: {error}"))?,
        None => match answer.keys().next() {
            Some(other) => return Err(format!("it has `{other}` and no `{field}`")),
            None => vec![],
        },
    };
    Ok(Page { items, next })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_list_never_comes_of_a_misunderstanding() {
        let read = |answer| page(answer, Kind::NodeGroup).map(|page| (page.items.len(), page.next));
        assert_eq!(read(json!({})).unwrap(), (0, String::new()));
        assert_eq!(
            read(json!({"nodeGroups": null})).unwrap(),
            (0, String::new())
        );
        let one = json!({"nodeGroups": [{"id": "catx"}], "nextPageToken": "t", "other": 1});
        assert_eq!(read(one).unwrap(), (1, "t".to_owned()));
        for bad in [
            json!([]),
            json!(null),
            json!({"node_groups": [{"id": "catx"}]}),
            json!({"message": "maintenance"}),
            json!({"nodeGroups": {"id": "catx"}}),
            json!({"nodeGroups": [{"name": "n"}]}),
            json!({"nodeGroups": [], "nextPageToken": 7}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
