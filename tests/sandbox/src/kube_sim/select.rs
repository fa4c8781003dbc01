//! Which objects of a kind a list shows: selectors and pages.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use super::kinds::Kind;
use super::refusal::Refusal;
use super::store::Key;

/// A selector by labels and by fields.
#[derive(Debug, Default)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, bool, String)>,
}

#[derive(Debug, PartialEq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Selector {
    pub(super) fn read(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Refusal> {
        let mut selector = Self::default();
        for part in split(labels) {
            let parsed = requirement(part).ok_or_else(|| {
                Refusal::bad_request(format!("unable to parse requirement: {part:?}"))
            })?;
            selector.labels.push(parsed);
        }
        for part in fields.split(',').filter(|part| !part.is_empty()) {
            let (path, equal, value) = field(part)
                .ok_or_else(|| Refusal::bad_request(format!("invalid field selector: {part:?}")))?;
            if !selectable(kind).contains(&path.as_str()) {
                let message = format!(
                    "Unable to find {:?} that match label selector {labels:?}, field selector {fields:?}: field label not supported: {path}",
                    format!("{}/{}, Resource={}", kind.group, kind.version, kind.plural)
                );
                return Err(Refusal::bad_request(message));
            }
            selector.fields.push((path, equal, value));
        }
        Ok(selector)
    }

    pub(super) fn takes(&self, body: &Value) -> bool {
        let labels = &body["metadata"]["labels"];
        let label = |name: &str| labels.get(name).and_then(Value::as_str);
        let by_label = self.labels.iter().all(|requirement| match requirement {
            Requirement::In(name, values) => {
                label(name).is_some_and(|v| values.iter().any(|w| w == v))
            }
            Requirement::NotIn(name, values) => {
                label(name).is_none_or(|v| values.iter().all(|w| w != v))
            }
            Requirement::Exists(name) => label(name).is_some(),
            Requirement::Absent(name) => label(name).is_none(),
        });
        by_label
            && self.fields.iter().all(|(path, equal, value)| {
                let at = format!("/{}", path.replace('.', "/"));
                let found = body
                    .pointer(&at)
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                (found == value) == *equal
            })
    }
}

fn selectable(kind: &Kind) -> &'static [&'static str] {
    const NAMES: &[&str] = &["metadata.name", "metadata.namespace"];
    match kind.kind.as_str() {
        "Pod" => &[
            "metadata.name",
            "metadata.namespace",
            "spec.nodeName",
            "status.phase",
        ],
        "Secret" => &["metadata.name", "metadata.namespace", "type"],
        "Event" => &[
            "metadata.name",
            "metadata.namespace",
            "involvedObject.kind",
            "involvedObject.name",
            "involvedObject.namespace",
            "involvedObject.uid",
            "reason",
            "type",
        ],
        _ => NAMES,
    }
}

/// At the commas that are not between brackets.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut from) = (0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[from..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

fn requirement(text: &str) -> Option<Requirement> {
    let name = |name: &str| {
        let name = name.trim();
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        (!name.is_empty() && name.chars().all(fine)).then(|| name.to_owned())
    };
    for (word, without) in [(" notin ", true), (" in ", false)] {
        if let Some((left, right)) = text.split_once(word) {
            let list = right.trim().strip_prefix('(')?.strip_suffix(')')?;
            let values = list.split(',').map(|v| v.trim().to_owned()).collect();
            return Some(match without {
                true => Requirement::NotIn(name(left)?, values),
                false => Requirement::In(name(left)?, values),
            });
        }
    }
    if let Some(absent) = text.strip_prefix('!') {
        return Some(Requirement::Absent(name(absent)?));
    }
    if let Some((left, right)) = text.split_once("!=") {
        return Some(Requirement::NotIn(
            name(left)?,
            vec![right.trim().to_owned()],
        ));
    }
    if let Some((left, right)) = text.split_once('=') {
        let right = right.strip_prefix('=').unwrap_or(right);
        return Some(Requirement::In(name(left)?, vec![right.trim().to_owned()]));
    }
    Some(Requirement::Exists(name(text)?))
}

fn field(text: &str) -> Option<(String, bool, String)> {
    let (left, equal, right) = match text.split_once("!=") {
        Some((left, right)) => (left, false, right),
        None => {
            let (left, right) = text.split_once('=')?;
            (left, true, right.strip_prefix('=').unwrap_or(right))
        }
    };
    Some((left.trim().to_owned(), equal, right.trim().to_owned()))
}

/// Where the next page begins.
pub(super) fn token(after: &Key) -> String {
    BASE64.encode(json!([after.namespace, after.name]).to_string())
}

/// The last object of the page before.
pub(super) fn read_token(kind: &Kind, token: &str) -> Result<Key, Refusal> {
    let wrong = || Refusal::bad_request("continue key is not valid");
    let bytes = BASE64.decode(token).map_err(|_| wrong())?;
    let (namespace, name): (String, String) =
        serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    Ok(Key::new(kind, &namespace, &name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors_are_read_in_all_their_forms() {
        let text = "a=1,b==2, c!=3,d in (x, y),e notin (z),f,!g/h.i";
        let read: Vec<_> = split(text).into_iter().filter_map(requirement).collect();
        let all = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            read,
            [
                Requirement::In("a".into(), all(&["1"])),
                Requirement::In("b".into(), all(&["2"])),
                Requirement::NotIn("c".into(), all(&["3"])),
                Requirement::In("d".into(), all(&["x", "y"])),
                Requirement::NotIn("e".into(), all(&["z"])),
                Requirement::Exists("f".into()),
                Requirement::Absent("g/h.i".into()),
            ]
        );
        assert_eq!(requirement("a b"), None);
    }
}
