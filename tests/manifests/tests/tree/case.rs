//! A way to break a tree in memory, and the finding that it must lead to.

use manifests::{Document, Tree};
use serde_json::Value;

/// What is done to a tree, and where a finding then says what.
pub(crate) struct Case {
    pub(crate) place: &'static str,
    pub(crate) what: &'static str,
    pub(crate) change: Box<dyn Fn(&mut Tree)>,
}

pub(crate) fn case(
    place: &'static str,
    what: &'static str,
    change: impl Fn(&mut Tree) + 'static,
) -> Case {
    let change = Box::new(change);
    Case {
        place,
        what,
        change,
    }
}

impl Case {
    /// The finding is at another object than the one that is changed.
    pub(crate) fn at(self, place: &'static str) -> Self {
        Self { place, ..self }
    }
}

fn object<'a>(tree: &'a mut Tree, kind: &str, name: &str) -> &'a mut Value {
    let mut documents = tree.documents.iter_mut();
    let found = documents.find(|d| d.kind() == kind && d.name() == name);
    &mut found.expect("the case names what is in the tree").value
}

/// A case that gives the field at a pointer another value, making it where its parent is there.
pub(crate) fn set(
    (kind, name): (&'static str, &'static str),
    pointer: &'static str,
    value: Value,
    what: &'static str,
) -> Case {
    case(name, what, move |tree| {
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
        let object = object(tree, kind, name);
        let parent = object.pointer_mut(parent).expect("the parent is there");
        match parent {
            Value::Array(items) => items[field.parse::<usize>().expect("an index")] = value.clone(),
            other => other[field] = value.clone(),
        }
    })
}

/// A case that takes the field at a pointer away.
pub(crate) fn without(
    (kind, name): (&'static str, &'static str),
    pointer: &'static str,
    what: &'static str,
) -> Case {
    case(name, what, move |tree| {
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
        let object = object(tree, kind, name);
        let parent = object.pointer_mut(parent).expect("the parent is there");
        let fields = parent.as_object_mut().expect("an object");
        fields.remove(field).expect("the field is there");
    })
}

/// A case in which an object is not there at all.
pub(crate) fn gone(
    kind: &'static str,
    name: &'static str,
    place: &'static str,
    what: &'static str,
) -> Case {
    case(place, what, move |tree| {
        let before = tree.documents.len();
        tree.documents
            .retain(|d| d.kind() != kind || d.name() != name);
        assert!(
            tree.documents.len() < before,
            "the case names what is in the tree"
        );
    })
}

/// A case with one more object, in the Kustomization `infra`.
pub(crate) fn more(value: Value, place: &'static str, what: &'static str) -> Case {
    case(place, what, move |tree| {
        let layer = "infra".to_owned();
        let value = value.clone();
        tree.documents.push(Document { layer, value });
    })
}

/// A case in which a text in a ConfigMap's values.yaml is another one.
pub(crate) fn values(
    map: &'static str,
    from: &'static str,
    to: &'static str,
    place: &'static str,
    what: &'static str,
) -> Case {
    case(place, what, move |tree| {
        let text = &mut object(tree, "ConfigMap", map)["data"]["values.yaml"];
        let old = text.as_str().expect("a text").to_owned();
        assert!(old.contains(from), "{map} has no {from:?}");
        *text = old.replace(from, to).into();
    })
}
