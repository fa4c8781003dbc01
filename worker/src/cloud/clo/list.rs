//! Reading a whole list, page by page.
//!
//! A list that broke off must never pass for a short one: whoever looks for a server by name
//! would not find it and make a second. So a list is either complete or an error.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::call::Call;
use super::client::Clo;
use super::error::CloError;

/// Items asked for at once. The API may give fewer.
const PAGE: usize = 100;
/// Pages read at most; an API that always promises more is not believed for ever.
const MOST_PAGES: usize = 500;
/// Items kept at most, also of an API that gives more than a page at once.
const MOST_ITEMS: usize = PAGE * MOST_PAGES;
/// How often a list is read from the start when it changed under our hands.
const ROUNDS: usize = 3;

/// Something that CLO names by an id.
pub trait Resource {
    /// The id.
    fn id(&self) -> &str;
}

/// What stands in the way of a complete list.
struct Broken {
    reason: &'static str,
    got: usize,
    count: u64,
}

#[derive(Deserialize)]
struct Page<T> {
    count: Option<u64>,
    result: Option<Vec<T>>,
}

impl Clo {
    /// Reads a list to its end. Sorted by id, each id once.
    ///
    /// Pages are cut by offset, so an item that goes away meanwhile shifts the rest and one is
    /// missed. The count shrinks then, unless another item came at the same time; so each page
    /// begins with the last row of the one before, and a row that we have not seen there means a
    /// gap. The list is read again then. Items that are added are not a problem: all that were
    /// there when we began are found.
    pub(super) async fn list<T>(&self, operation: &str, path: &str) -> Result<Vec<T>, CloError>
    where
        T: DeserializeOwned + Resource,
    {
        let mut broken = Broken {
            reason: "",
            got: 0,
            count: 0,
        };
        for _ in 0..ROUNDS {
            match self.list_once(operation, path).await? {
                Ok(items) => return Ok(items),
                Err(reason) => broken = reason,
            }
            tracing::debug!(
                operation,
                reason = broken.reason,
                "list is incomplete, reading it again"
            );
        }
        let Broken { reason, got, count } = broken;
        Err(CloError::IncompleteList {
            operation: operation.to_owned(),
            reason,
            got,
            count,
        })
    }

    async fn list_once<T>(
        &self,
        operation: &str,
        path: &str,
    ) -> Result<Result<Vec<T>, Broken>, CloError>
    where
        T: DeserializeOwned + Resource,
    {
        let mut items: BTreeMap<String, T> = BTreeMap::new();
        let mut offset = 0;
        // Pages of one row have no room for a row that we know.
        let mut again = 0;
        // What there was when we began, and what there was at the last page.
        let mut first: Option<u64> = None;
        let mut last = 0;
        for _ in 0..MOST_PAGES {
            let call = Call::new(Method::GET, operation, path)
                .query("limit", PAGE)
                .query("offset", offset - again);
            let page: Page<T> = self.decoded(call).await?;
            let before = items.len();
            let broken = |reason, got, count| Ok(Err(Broken { reason, got, count }));
            let Some(count) = page.count else {
                return broken("an answer has no `count`", before, 0);
            };
            let first = *first.get_or_insert(count);
            if count < last {
                return broken("items went away while it was read", before, count);
            }
            last = count;
            let rows = page.result.unwrap_or_default();
            let known = rows.first().is_some_and(|row| items.contains_key(row.id()));
            if again > 0 && !rows.is_empty() && !known {
                return broken("its rows moved while it was read", before, count);
            }
            let read = rows.len();
            items.extend(rows.into_iter().map(|item| (item.id().to_owned(), item)));
            offset += read.saturating_sub(again);
            if offset as u64 >= count {
                if (items.len() as u64) < first {
                    return broken("its order changed while it was read", items.len(), count);
                }
                return Ok(Ok(items.into_values().collect()));
            }
            if read <= again {
                return broken("a page is empty before the end", before, count);
            }
            if items.len() == before {
                return broken("a page brings nothing new", before, count);
            }
            if items.len() > MOST_ITEMS {
                break;
            }
            again = usize::from(read > 1);
        }
        Ok(Err(Broken {
            reason: "it has no end",
            got: items.len(),
            count: last,
        }))
    }
}
