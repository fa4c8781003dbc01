//! What is stored: every object by group, resource, namespace and name, and what happens by itself a
//! moment after a write.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::apply::{Manager, managed_fields};
use super::definitions;
use super::kinds::Kind;

/// How long a new definition takes until it is served, and a namespace until its content is gone.
const MOMENT: Duration = Duration::from_millis(10);

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) group: String,
    pub(super) plural: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(kind: &Kind, namespace: &str, name: &str) -> Self {
        Self {
            group: kind.group.clone(),
            plural: kind.plural.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Not after any object of this kind.
    pub(super) fn first(group: &str, plural: &str) -> Self {
        Self {
            group: group.to_owned(),
            plural: plural.to_owned(),
            namespace: String::new(),
            name: String::new(),
        }
    }

    pub(super) fn is_of(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    fn namespace(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::first("", "namespaces")
        }
    }
}

/// An object, and who manages its fields.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Object {
    /// Without `managedFields`.
    pub(super) body: Value,
    pub(super) managers: Vec<Manager>,
}

impl Object {
    /// As a client sees it in a version of its kind.
    pub(super) fn shown(&self, kind: &Kind) -> Value {
        let mut body = self.body.clone();
        body["apiVersion"] = kind.api_version().into();
        if !self.managers.is_empty() {
            body["metadata"]["managedFields"] = managed_fields(&self.managers);
        }
        body
    }

    pub(super) fn meta(&self, field: &str) -> &str {
        self.body["metadata"][field].as_str().unwrap_or_default()
    }

    pub(super) fn is_going(&self) -> bool {
        self.body["metadata"].get("deletionTimestamp").is_some()
    }

    fn has_finalizers(&self) -> bool {
        let finalizers = self.body["metadata"]["finalizers"].as_array();
        finalizers.is_some_and(|all| !all.is_empty())
    }
}

/// What happens by itself.
#[derive(Clone, Debug, PartialEq)]
enum Due {
    /// A definition is served.
    Establish(Key),
    /// The content of a namespace goes, and then the namespace.
    Empty(String),
}

/// All of it: what etcd has, and what the controllers have still to do.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<Key, Object>,
    pub(super) revision: u64,
    /// The kinds that definitions bring, kept beside them.
    pub(super) defined: Vec<Kind>,
    due: Vec<(Instant, Due)>,
    /// Nothing happens by itself.
    pub(super) still: bool,
    /// By namespace, pod and container.
    pub(super) logs: BTreeMap<(String, String, String), String>,
    /// How many Services have an address.
    pub(super) addresses: u32,
}

impl State {
    /// What a new cluster has.
    pub(super) fn new() -> Self {
        let mut state = Self::default();
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            let body = json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {
                    "name": name, "uid": uid(), "creationTimestamp": now(),
                    "labels": {"kubernetes.io/metadata.name": name},
                },
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            });
            state.insert(
                Key::namespace(name),
                Object {
                    body,
                    managers: Vec::new(),
                },
            );
        }
        state
    }

    /// Writes an object in a new revision.
    pub(super) fn insert(&mut self, key: Key, mut object: Object) -> Object {
        self.revision += 1;
        object.body["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let defines = key.is_of(definitions::GROUP, definitions::PLURAL);
        self.objects.insert(key, object.clone());
        if defines {
            self.defined = definitions::established(self);
        }
        object
    }

    /// Takes an object away, and what belongs to it unless it is to stay.
    pub(super) fn remove(&mut self, key: &Key, orphans: bool) {
        self.revision += 1;
        let Some(gone) = self.objects.remove(key) else {
            return;
        };
        if key.is_of(definitions::GROUP, definitions::PLURAL) {
            let text = |at: &str| {
                gone.body
                    .pointer(at)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let (group, plural) = (text("/spec/group"), text("/spec/names/plural"));
            self.objects.retain(|key, _| !key.is_of(group, plural));
            self.defined = definitions::established(self);
        }
        if orphans {
            return;
        }
        let uid = gone.meta("uid");
        let owned = |object: &Object| {
            let owners = object.body["metadata"]["ownerReferences"].as_array();
            owners
                .into_iter()
                .flatten()
                .any(|owner| owner["uid"] == uid)
        };
        let dependents = self.objects.iter().filter(|(_, object)| owned(object));
        let dependents: Vec<Key> = dependents.map(|(key, _)| key.clone()).collect();
        for key in dependents {
            self.delete(&key, false);
        }
    }

    /// Deletes an object: at once, or when its finalizers are gone. Gives what is left of it.
    pub(super) fn delete(&mut self, key: &Key, orphans: bool) -> Option<Object> {
        let mut object = self.objects.get(key)?.clone();
        let is_namespace = key.is_of("", "namespaces");
        if !object.has_finalizers() && !is_namespace {
            self.remove(key, orphans);
            return None;
        }
        if object.is_going() {
            return Some(object);
        }
        let metadata = &mut object.body["metadata"];
        metadata["deletionTimestamp"] = now().into();
        metadata["deletionGracePeriodSeconds"] = 0.into();
        if let Some(generation) = metadata["generation"].as_i64() {
            metadata["generation"] = (generation + 1).into();
        }
        if is_namespace {
            object.body["status"] = json!({"phase": "Terminating"});
            self.later(Due::Empty(key.name.clone()));
        }
        Some(self.insert(key.clone(), object))
    }

    /// Whether an object that is being deleted may go now.
    pub(super) fn may_go(object: &Object) -> bool {
        object.is_going() && !object.has_finalizers()
    }

    /// A new definition will be served.
    pub(super) fn establish_later(&mut self, key: &Key) {
        self.later(Due::Establish(key.clone()));
    }

    fn later(&mut self, due: Due) {
        self.due.push((Instant::now() + MOMENT, due));
    }

    /// Lets happen what is due.
    pub(super) fn settle(&mut self) {
        if self.still || self.due.is_empty() {
            return;
        }
        let at = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.due)
            .into_iter()
            .partition(|(when, _)| *when <= at);
        self.due = later;
        for (_, due) in due {
            match due {
                Due::Establish(key) => {
                    if let Some(mut object) = self.objects.get(&key).cloned() {
                        definitions::establish(&mut object.body, &now());
                        self.insert(key, object);
                    }
                }
                Due::Empty(namespace) => self.empty(&namespace),
            }
        }
    }

    fn empty(&mut self, namespace: &str) {
        let inside: Vec<Key> = self.inside(namespace).cloned().collect();
        for key in inside {
            self.delete(&key, false);
        }
        let key = Key::namespace(namespace);
        if self.inside(namespace).next().is_some()
            || self.objects.get(&key).is_some_and(Object::has_finalizers)
        {
            // Somebody's finalizer holds it.
            return self.later(Due::Empty(namespace.to_owned()));
        }
        self.remove(&key, false);
    }

    fn inside<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Key> {
        self.objects
            .keys()
            .filter(move |key| key.namespace == namespace)
    }

    /// The objects of a kind, of one namespace or of all.
    pub(super) fn of_kind<'a>(
        &'a self,
        kind: &'a Kind,
        namespace: Option<&'a str>,
        after: Option<&Key>,
    ) -> impl Iterator<Item = (&'a Key, &'a Object)> {
        let from = match after {
            Some(key) => Bound::Excluded(key.clone()),
            None => Bound::Included(Key::first(&kind.group, &kind.plural)),
        };
        self.objects
            .range((from, Bound::Unbounded))
            .take_while(|(key, _)| key.is_of(&kind.group, &kind.plural))
            .filter(move |(key, _)| namespace.is_none_or(|n| key.namespace == n))
    }

    /// A namespace, if it is there.
    pub(super) fn namespace(&self, name: &str) -> Option<&Object> {
        self.objects.get(&Key::namespace(name))
    }
}

/// Now, as the API writes it: in seconds.
pub(super) fn now() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second())
        .unwrap_or(now)
        .to_string()
}

pub(super) fn uid() -> String {
    uuid::Uuid::new_v4().to_string()
}
