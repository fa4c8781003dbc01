//! Lists: one page after the other, and a filter that knows one form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::refusal::Refusal;
use super::super::sim::Inner;
use super::super::world::{Kind, Thing};
use super::{Call, view};

/// The largest `pageSize`.
const LARGEST: usize = 1000;

/// One page of these things.
pub(super) fn list<'w>(
    inner: &Inner,
    call: &Call,
    kind: Kind,
    things: impl Iterator<Item = &'w Thing>,
) -> Result<Value, Refusal> {
    let size = size(inner, call.parameter("pageSize"))?;
    let after = after(call.parameter("pageToken"))?;
    let name = filter(call.parameter("filter"))?;
    let now = Timestamp::now();
    let is_old = |thing: &&Thing| {
        let age = now.duration_since(thing.created).unsigned_abs();
        thing.stranger || age >= inner.options.list_lag
    };
    let mut things: Vec<&Thing> = things.filter(is_old).collect();
    things.sort_by_key(|thing| thing.number);
    if call.hide_newest {
        things.pop();
    }
    if let Some(name) = name {
        things.retain(|thing| thing.name == name);
    }
    things.retain(|thing| thing.number > after);
    if call.empty_page && !things.is_empty() {
        return Ok(json!({ "nextPageToken": token(after) }));
    }
    let more = things.len() > size;
    things.truncate(size);
    let next = things
        .last()
        .filter(|_| more)
        .map(|last| token(last.number));
    let items = things.iter().map(|thing| view::thing(&inner.folder, thing));
    let mut page = json!({ "nextPageToken": next });
    page[kind.list_field()] = items.collect();
    Ok(view::bare(&page))
}

fn size(inner: &Inner, asked: &str) -> Result<usize, Refusal> {
    let asked = match asked {
        "" => 0,
        asked => asked
            .parse()
            .ok()
            .filter(|size| *size <= LARGEST)
            .ok_or_else(|| Refusal::invalid("pageSize: from 0 to 1000"))?,
    };
    Ok(match asked {
        0 => inner.options.page_size,
        asked => asked.min(inner.options.max_page_size),
    })
}

/// Where a page ends. It is another one each time, and has characters that an address does not take as they
/// are.
fn token(number: u64) -> String {
    let salt: u32 = rand::random();
    BASE64.encode(format!("?>{number}?>{salt:08x}"))
}

fn after(token: &str) -> Result<u64, Refusal> {
    if token.is_empty() {
        return Ok(0);
    }
    let read = || {
        let text = String::from_utf8(BASE64.decode(token).ok()?).ok()?;
        let (number, _salt) = text.strip_prefix("?>")?.split_once("?>")?;
        number.parse().ok()
    };
    read().ok_or_else(|| Refusal::invalid("pageToken: it is not one of ours"))
}

/// `name="x"` and nothing else.
fn filter(text: &str) -> Result<Option<&str>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let read = || {
        let value = text.trim().strip_prefix("name")?.trim_start();
        let value = value.strip_prefix('=')?.trim_start();
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        (!value.contains('"')).then_some(value)
    };
    let found = read().ok_or_else(|| Refusal::invalid("filter: only name=\"…\" is known"))?;
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_name_in_double_quotes() {
        for (text, name) in [
            ("", Ok(None)),
            ("name=\"a-b\"", Ok(Some("a-b"))),
            ("name = \"a\"", Ok(Some("a"))),
            ("name=a", Err(())),
            ("name='a'", Err(())),
            ("labels.a=\"b\"", Err(())),
            ("name=\"a\" AND name=\"b\"", Err(())),
        ] {
            assert_eq!(filter(text).map_err(|_| ()), name, "{text}");
        }
    }

    #[test]
    fn a_token_leads_back_to_its_place_and_must_be_encoded() {
        assert_ne!(token(1), token(1));
        for number in [1, 17, 12_345] {
            assert_eq!(after(&token(number)).ok(), Some(number));
            assert!(token(number).contains(['+', '/', '=']), "{}", token(number));
        }
        assert!(after("2").is_err());
    }
}
