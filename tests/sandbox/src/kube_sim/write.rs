//! Every write: what comes, what becomes of what is there, and what the server adds.

use serde_json::{Value, json};

use super::admit;
use super::apply::{self, Writer};
use super::call::{Call, Target, drop_nulls};
use super::fields::Schema;
use super::kinds::Kind;
use super::patch;
use super::refusal::{Cause, Refusal};
use super::store::{Key, Object, State, now, uid};

/// What changes an object as a whole or in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Merge,
    Json,
    Apply,
}

const FORMS: [(&str, Form); 3] = [
    ("application/json-patch+json", Form::Json),
    ("application/merge-patch+json", Form::Merge),
    ("application/apply-patch+yaml", Form::Apply),
];

/// A write in progress.
struct Write<'a> {
    kind: &'a Kind,
    namespace: &'a str,
    sub: &'a str,
    call: &'a Call,
}

/// POST: a new object.
pub(super) fn create(
    state: &mut State,
    kind: &Kind,
    target: &Target,
    call: &Call,
) -> Result<Object, Refusal> {
    if kind.namespaced && target.namespace.is_none() {
        return Err(Refusal::not_allowed());
    }
    let mut body = call.value()?;
    let write = Write::new(kind, target, call);
    write.identify(&mut body, None)?;
    if body["metadata"]["name"].as_str().is_none_or(str::is_empty)
        && let Some(prefix) = body["metadata"]["generateName"].as_str()
    {
        let name = format!("{prefix}{}", &uid()[..5]);
        body["metadata"]["name"] = name.into();
    }
    let name = body["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if body["metadata"]["resourceVersion"]
        .as_str()
        .is_some_and(|v| !v.is_empty())
    {
        let why = "resourceVersion should not be set on objects to be created";
        return Err(Refusal::new(500, "", why));
    }
    if !name.is_empty() {
        write.may_make(state, &name)?;
    }
    let mut body = write.new_body(body)?;
    admit::valid(kind, &name, &body, None)?;
    let key = Key::new(kind, write.namespace, &name);
    if state.objects.contains_key(&key) {
        return Err(Refusal::already_exists(kind, &name));
    }
    admit::allot(state, kind, &mut body);
    let managers = apply::update(
        &Schema(kind),
        &json!({}),
        &body,
        &[],
        &write.writer(),
        &now(),
    );
    Ok(write.store(state, key, Object { body, managers }))
}

/// PUT: an object as a whole.
pub(super) fn replace(
    state: &mut State,
    kind: &Kind,
    target: &Target,
    call: &Call,
) -> Result<Object, Refusal> {
    let name = target.name.as_deref().unwrap_or_default();
    let mut body = call.value()?;
    let write = Write::new(kind, target, call);
    write.identify(&mut body, Some(name))?;
    let key = Key::new(kind, write.namespace, name);
    let live = state.objects.get(&key);
    let live = live
        .cloned()
        .ok_or_else(|| Refusal::not_found(kind, name))?;
    if kind.custom() && body["metadata"].get("resourceVersion").is_none() {
        let field = "metadata.resourceVersion";
        let cause = Cause::invalid(field, &json!(0), "must be specified for an update");
        return Err(Refusal::invalid(kind, name, &[cause]));
    }
    write.update(state, &key, &live, body)
}

/// PATCH: a part of an object; an apply may make it.
pub(super) fn patch(
    state: &mut State,
    kind: &Kind,
    target: &Target,
    call: &Call,
) -> Result<(Object, bool), Refusal> {
    let name = target.name.as_deref().unwrap_or_default();
    let essence = call
        .content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    let Some((_, form)) = FORMS.iter().find(|(name, _)| *name == essence) else {
        let accepted: Vec<&str> = FORMS.iter().map(|(name, _)| *name).collect();
        return Err(Refusal::media_type(&accepted));
    };
    if *form == Form::Apply {
        return applied(state, kind, target, call);
    }
    let patch = call.patch()?;
    let write = Write::new(kind, target, call);
    let key = Key::new(kind, write.namespace, name);
    let live = state.objects.get(&key);
    let live = live
        .cloned()
        .ok_or_else(|| Refusal::not_found(kind, name))?;
    let mut body = live.shown(kind);
    if *form == Form::Merge {
        patch::merge(&mut body, &patch);
    } else {
        patch::json(&mut body, &patch).map_err(|why| Refusal::new(422, "Invalid", why))?;
    }
    drop_nulls(&mut body);
    write.identify(&mut body, Some(name))?;
    let changed = write.update(state, &key, &live, body)?;
    Ok((changed, false))
}

/// Server-side apply.
fn applied(
    state: &mut State,
    kind: &Kind,
    target: &Target,
    call: &Call,
) -> Result<(Object, bool), Refusal> {
    let name = target.name.as_deref().unwrap_or_default();
    if call.parameter("fieldManager").is_empty() {
        let cause = Cause::required("fieldManager", "is required for apply patch");
        return Err(Refusal::invalid_as(
            "meta.k8s.io",
            "PatchOptions",
            "",
            &[cause],
        ));
    }
    let mut config = call.value()?;
    let write = Write::new(kind, target, call);
    for field in ["apiVersion", "kind"] {
        if config[field].as_str().is_none_or(str::is_empty) {
            let why = format!("error decoding patch: the object has no {field}");
            return Err(Refusal::bad_request(why));
        }
    }
    if config["metadata"].get("managedFields").is_some() {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    write.identify(&mut config, Some(name))?;
    admit::prepare(kind, &mut config)?;
    let key = Key::new(kind, write.namespace, name);
    let live = state.objects.get(&key).cloned();
    let Some(live) = live else {
        if !write.sub.is_empty() {
            return Err(Refusal::not_found(kind, name));
        }
        if config["metadata"].get("resourceVersion").is_some() {
            let why = "the object does not exist, and its resourceVersion was named";
            return Err(Refusal::conflict(kind, name, why));
        }
        write.may_make(state, name)?;
        let config = write.relevant(config);
        let empty = json!({});
        let made = apply::apply(
            &Schema(kind),
            &empty,
            &[],
            &config,
            &write.writer(),
            false,
            &now(),
        );
        let (_, managers) = made.map_err(|conflicts| Refusal::managed(&conflicts))?;
        let mut body = write.new_body(config)?;
        admit::valid(kind, name, &body, None)?;
        admit::allot(state, kind, &mut body);
        return Ok((write.store(state, key, Object { body, managers }), true));
    };
    write.precondition(&live, &config)?;
    let config = write.relevant(config);
    let (body, managers) = apply::apply(
        &Schema(kind),
        &live.body,
        &live.managers,
        &config,
        &write.writer(),
        call.is_set("force"),
        &now(),
    )
    .map_err(|conflicts| Refusal::managed(&conflicts))?;
    let body = write.become_of(&live, admit::completed(kind, body));
    admit::valid(kind, name, &body, Some(&live.body))?;
    Ok((
        write.commit(state, &key, &live, Object { body, managers }),
        false,
    ))
}

/// DELETE of one object: what is left of it, if anything.
pub(super) fn delete(
    state: &mut State,
    kind: &Kind,
    target: &Target,
    call: &Call,
) -> Result<Result<Object, Object>, Refusal> {
    let name = target.name.as_deref().unwrap_or_default();
    let key = Key::new(kind, target.namespace.as_deref().unwrap_or_default(), name);
    let options: Value = match call.body.len() {
        0 => Value::Null,
        _ => call.value()?,
    };
    let live = state.objects.get(&key).cloned();
    let live = live.ok_or_else(|| Refusal::not_found(kind, name))?;
    for (field, called) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let wanted = options.pointer(&format!("/preconditions/{field}"));
        if let Some(wanted) = wanted.and_then(Value::as_str)
            && wanted != live.meta(field)
        {
            let why = format!(
                "Precondition failed: {called} in precondition: {wanted}, {called} in object meta: {}",
                live.meta(field)
            );
            return Err(Refusal::conflict(kind, name, &why));
        }
    }
    let policy = options["propagationPolicy"].as_str();
    let policy = policy.unwrap_or(call.parameter("propagationPolicy"));
    Ok(match state.delete(&key, policy == "Orphan") {
        Some(left) => Ok(left),
        None => Err(live),
    })
}

impl<'a> Write<'a> {
    fn new(kind: &'a Kind, target: &'a Target, call: &'a Call) -> Self {
        Self {
            kind,
            namespace: target.namespace.as_deref().unwrap_or_default(),
            sub: target.sub.as_deref().unwrap_or_default(),
            call,
        }
    }

    fn writer(&self) -> Writer {
        Writer {
            name: self.call.manager(),
            version: self.kind.api_version(),
            subresource: self.sub.to_owned(),
        }
    }

    /// The body says that it is what the path says.
    fn identify(&self, body: &mut Value, name: Option<&str>) -> Result<(), Refusal> {
        let Some(fields) = body.as_object_mut() else {
            return Err(Refusal::bad_request("the body is no object"));
        };
        let kind = self.kind;
        for (field, expected) in [
            ("apiVersion", kind.api_version()),
            ("kind", kind.kind.clone()),
        ] {
            let said = fields
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default();
            if !said.is_empty() && said != expected {
                let why = format!(
                    "the {field} in the data ({said}) does not match the expected {field} ({expected})"
                );
                return Err(Refusal::bad_request(why));
            }
            fields.insert(field.to_owned(), expected.into());
        }
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        let Some(metadata) = metadata.as_object_mut() else {
            return Err(Refusal::bad_request("the metadata is no object"));
        };
        metadata.remove("managedFields");
        metadata.remove("selfLink");
        if kind.namespaced {
            let said = metadata
                .get("namespace")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if !said.is_empty() && said != self.namespace {
                let why = "the namespace of the provided object does not match the namespace sent on the request";
                return Err(Refusal::bad_request(why));
            }
            metadata.insert("namespace".into(), self.namespace.into());
        } else if metadata.remove("namespace").is_some() {
            let why = "namespace may not be set on cluster-scoped objects";
            return Err(Refusal::bad_request(why));
        }
        if let Some(name) = name {
            let said = metadata
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if !said.is_empty() && said != name {
                let why = format!(
                    "the name of the object ({said}) does not match the name on the URL ({name})"
                );
                return Err(Refusal::bad_request(why));
            }
            metadata.insert("name".into(), name.into());
        }
        Ok(())
    }

    /// There is a place for a new object.
    fn may_make(&self, state: &State, name: &str) -> Result<(), Refusal> {
        if !self.kind.namespaced {
            return Ok(());
        }
        match state.namespace(self.namespace) {
            None => {
                let namespaces = super::kinds::by_plural(state, "", "v1", "namespaces");
                let namespaces = namespaces.as_ref().unwrap_or(self.kind);
                Err(Refusal::not_found(namespaces, self.namespace))
            }
            Some(namespace) if namespace.is_going() => {
                Err(Refusal::terminating(self.kind, name, self.namespace))
            }
            Some(_) => Ok(()),
        }
    }

    /// A new object, with what the server adds.
    fn new_body(&self, mut body: Value) -> Result<Value, Refusal> {
        admit::prepare(self.kind, &mut body)?;
        if self.kind.status
            && let Some(fields) = body.as_object_mut()
        {
            fields.remove("status");
            if !self.kind.custom() {
                fields.insert("status".into(), json!({}));
            }
        }
        let mut body = admit::completed(self.kind, body);
        let metadata = &mut body["metadata"];
        metadata["uid"] = uid().into();
        metadata["creationTimestamp"] = now().into();
        if let Some(metadata) = metadata.as_object_mut() {
            for field in [
                "resourceVersion",
                "generation",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
            ] {
                metadata.remove(field);
            }
        }
        if self.kind.generation {
            metadata["generation"] = 1.into();
        }
        Ok(body)
    }

    /// Of an apply: the part that this path takes.
    fn relevant(&self, mut config: Value) -> Value {
        let Some(fields) = config.as_object_mut() else {
            return config;
        };
        if self.sub == "status" {
            fields.retain(|name, _| {
                ["apiVersion", "kind", "metadata", "status"].contains(&name.as_str())
            });
            if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.retain(|name, _| ["name", "namespace"].contains(&name.as_str()));
            }
        } else if self.kind.status {
            fields.remove("status");
        }
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["resourceVersion", "uid", "generation", "creationTimestamp"] {
                metadata.remove(field);
            }
        }
        config
    }

    /// It is the object that was meant, in the version that was meant.
    fn precondition(&self, live: &Object, body: &Value) -> Result<(), Refusal> {
        let said = |field: &str| {
            body["metadata"][field]
                .as_str()
                .filter(|text| !text.is_empty())
        };
        let name = live.meta("name");
        if let Some(uid) = said("uid").filter(|uid| *uid != live.meta("uid")) {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                live.meta("uid")
            );
            return Err(Refusal::conflict(self.kind, name, &why));
        }
        match said("resourceVersion") {
            Some(version) if version != live.meta("resourceVersion") => {
                Err(Refusal::modified(self.kind, name))
            }
            _ => Ok(()),
        }
    }

    /// An object that is there becomes this one.
    fn update(
        &self,
        state: &mut State,
        key: &Key,
        live: &Object,
        mut body: Value,
    ) -> Result<Object, Refusal> {
        self.precondition(live, &body)?;
        admit::prepare(self.kind, &mut body)?;
        let body = self.become_of(live, admit::completed(self.kind, body));
        admit::valid(self.kind, &key.name, &body, Some(&live.body))?;
        let (schema, writer) = (Schema(self.kind), self.writer());
        let managers = apply::update(&schema, &live.body, &body, &live.managers, &writer, &now());
        Ok(self.commit(state, key, live, Object { body, managers }))
    }

    /// What is the server's own stays, and a path changes only its part.
    fn become_of(&self, live: &Object, mut body: Value) -> Value {
        if self.sub == "status" {
            let mut whole = live.body.clone();
            set(&mut whole, "status", body.get("status"));
            return whole;
        }
        if self.kind.status {
            set(&mut body, "status", live.body.get("status"));
        }
        for field in [
            "uid",
            "creationTimestamp",
            "resourceVersion",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ] {
            let kept = live.body["metadata"].get(field);
            set(&mut body["metadata"], field, kept);
        }
        let (before, after) = (spec(self.kind, &live.body), spec(self.kind, &body));
        if let Some(generation) = live.body["metadata"]["generation"].as_i64()
            && before != after
        {
            body["metadata"]["generation"] = (generation + 1).into();
        }
        for field in ["clusterIP", "clusterIPs"] {
            if self.kind.kind == "Service" && body["spec"].get(field).is_none() {
                let kept = live.body["spec"].get(field);
                set(&mut body["spec"], field, kept);
            }
        }
        body
    }

    fn store(&self, state: &mut State, key: Key, object: Object) -> Object {
        let stored = state.insert(key.clone(), object);
        if self.kind.kind == "CustomResourceDefinition" {
            state.establish_later(&key);
        }
        stored
    }

    /// Writes the new version, if it is one; the last finalizer of what is being deleted ends it.
    fn commit(&self, state: &mut State, key: &Key, live: &Object, new: Object) -> Object {
        if new == *live {
            return new;
        }
        if State::may_go(&new) && key.plural != "namespaces" {
            state.remove(key, false);
            return new;
        }
        state.insert(key.clone(), new)
    }
}

/// What counts as the spec: everything of a custom object but its metadata and its status.
fn spec(kind: &Kind, body: &Value) -> Value {
    if !kind.custom() && body.get("spec").is_some() {
        return body["spec"].clone();
    }
    let mut rest = body.clone();
    if let Some(fields) = rest.as_object_mut() {
        for field in ["apiVersion", "kind", "metadata"] {
            fields.remove(field);
        }
        if kind.status {
            fields.remove("status");
        }
    }
    rest
}

fn set(value: &mut Value, field: &str, to: Option<&Value>) {
    let Some(fields) = value.as_object_mut() else {
        return;
    };
    match to {
        Some(to) => fields.insert(field.to_owned(), to.clone()),
        None => fields.remove(field),
    };
}
