//! From Flux 2.9 on a `${VARIABLE}` that nobody defines fails the whole Kustomization; before, it became nothing, and
//! where nothing is substituted it is applied as it stands.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::document::{field, texts};
use crate::{BY_REKINDLE, Document, Finding, Tree};

/// Every variable has a value that must be there; nothing else looks like one.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let defined: BTreeMap<_, _> = tree
        .kustomizations()
        .map(|k| (k.name(), defined_for(tree, k)))
        .collect();
    let mut findings = Vec::new();
    for document in &tree.documents {
        // `None` where the Kustomization substitutes nothing at all.
        let known = defined.get(document.layer.as_str()).cloned().flatten();
        texts(&document.value, &mut |text| {
            for variable in variables(text) {
                let what = match (&known, variable) {
                    (None, _) => "it has a variable, and its Kustomization substitutes none".into(),
                    (Some(_), Err(rest)) => format!("it has something like a variable: {rest}"),
                    (Some(known), Ok(name)) if known.contains(name) => continue,
                    (Some(_), Ok(name)) => format!("nobody defines ${{{name}}}"),
                };
                findings.push(Finding::new(document.id(), what));
            }
        });
    }
    findings
}

fn defined_for<'a>(tree: &'a Tree, kustomization: &'a Document) -> Option<BTreeSet<&'a str>> {
    kustomization.value.pointer("/spec/postBuild")?;
    let mut all = BTreeSet::new();
    for from in kustomization.items("/spec/postBuild/substituteFrom") {
        if from.get("optional") == Some(&Value::Bool(true)) {
            continue;
        }
        let (kind, name) = (field(from, "kind"), field(from, "name"));
        let namespace = kustomization.namespace();
        let given = BY_REKINDLE.iter();
        let given = given.filter(|g| (g.kind, g.namespace, g.name) == (kind, namespace, name));
        all.extend(given.flat_map(|g| g.keys.iter().copied()));
        let object = tree.find(kind, namespace, name);
        let data = object.and_then(|d| d.value.get("data")?.as_object());
        all.extend(data.into_iter().flat_map(|d| d.keys().map(String::as_str)));
    }
    let inline = kustomization.value.pointer("/spec/postBuild/substitute");
    let inline = inline.and_then(Value::as_object).into_iter();
    all.extend(inline.flat_map(|d| d.keys().map(String::as_str)));
    Some(all)
}

/// What is between `${` and `}`; an error with the rest of the text where that is no plain name. `$${` is an escape.
fn variables(text: &str) -> Vec<Result<&str, &str>> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("${") {
        if text[..at].ends_with('$') {
            continue;
        }
        let inner = text[at + 2..].split_once('}').map(|(name, _)| name);
        let plain = |name: &&str| {
            let mut letters = name.chars();
            letters
                .next()
                .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
                && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        found.push(inner.filter(plain).ok_or(&text[at..]));
    }
    found
}
