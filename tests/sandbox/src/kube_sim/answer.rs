//! From a request to its answer: one function over the state.

use http::Method;
use serde_json::{Value, json};

use super::call::{Call, Target, segments};
use super::kinds::{self, Kind};
use super::refusal::Refusal;
use super::select::{Selector, read_token, token};
use super::store::{Key, Object, State};
use super::write;
use crate::operators::percona::LOG;

/// The version that it says it is.
const VERSION: (&str, &str, &str) = ("1", "33", "v1.33.7");

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
    pub(super) retry_after: Option<u64>,
}

impl Answer {
    fn json(code: u16, value: &Value) -> Self {
        Self {
            code,
            content_type: "application/json",
            body: value.to_string().into_bytes(),
            retry_after: None,
        }
    }

    fn text(text: &str) -> Self {
        Self {
            code: 200,
            content_type: "text/plain; charset=utf-8",
            body: text.as_bytes().to_vec(),
            retry_after: None,
        }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let (content_type, body) = refusal.render();
        Self {
            code: refusal.code,
            content_type,
            body,
            retry_after: refusal.retry_after,
        }
    }
}

/// Does what is asked.
pub(super) fn answer(state: &mut State, call: &Call) -> Answer {
    state.settle();
    match answered(state, call) {
        Ok(answer) => answer,
        Err(refusal) => refusal.into(),
    }
}

fn answered(state: &mut State, call: &Call) -> Result<Answer, Refusal> {
    let parts = segments(&call.path);
    let words: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (group, version, rest) = match words.as_slice() {
        ["api", version, _, ..] => ("", *version, &parts[2..]),
        ["apis", group, version, _, ..] => (*group, *version, &parts[3..]),
        other => return page(state, call, other),
    };
    if !kinds::is_served(state, group, version) {
        call.user.may_visit(&call.path)?;
        return Err(Refusal::no_such_page());
    }
    let target = Target::read(group, version, rest).ok_or_else(Refusal::no_such_page)?;
    let kind = kinds::by_plural(state, group, version, &target.plural);
    let Some(kind) = kind else {
        call.user.may_visit(&call.path)?;
        return Err(Refusal::no_such_resource());
    };
    call.user.may(call.verb(&target), &kind, &target)?;
    if !kind.namespaced && target.namespace.is_some() {
        return Err(Refusal::no_such_resource());
    }
    if kind.namespaced && target.namespace.is_none() && target.name.is_some() {
        return Err(Refusal::no_such_resource());
    }
    if call.is_dry() {
        // Everything happens, to a world that is thrown away.
        return objects(&mut state.clone(), &kind, &target, call);
    }
    objects(state, &kind, &target, call)
}

/// What is not objects: the ways to find them, and how the server is.
fn page(state: &State, call: &Call, words: &[&str]) -> Result<Answer, Refusal> {
    call.user.may_visit(&call.path)?;
    if call.method != Method::GET {
        return Err(Refusal::not_allowed());
    }
    let found = match words {
        ["healthz" | "livez" | "readyz", ..] => return Ok(Answer::text("ok")),
        ["version"] => {
            let (major, minor, version) = VERSION;
            Some(
                json!({"major": major, "minor": minor, "gitVersion": version,
                "platform": "linux/amd64"}),
            )
        }
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": []})),
        ["apis"] => Some(kinds::group_list(state)),
        ["api", version] => kinds::resource_list(state, "", version),
        ["apis", group] => kinds::one_group(state, group),
        ["apis", group, version] => kinds::resource_list(state, group, version),
        _ => None,
    };
    let found = found.ok_or_else(Refusal::no_such_page)?;
    Ok(Answer::json(200, &found))
}

fn objects(
    state: &mut State,
    kind: &Kind,
    target: &Target,
    call: &Call,
) -> Result<Answer, Refusal> {
    match (target.sub.as_deref(), kind.kind.as_str()) {
        (None, _) => {}
        (Some("status"), _) if kind.status => {}
        (Some("log"), "Pod") => return log(state, kind, target, call),
        (Some("finalize"), "Namespace") if call.method == Method::PUT => {
            return Err(Refusal::not_here("finalize a namespace"));
        }
        (Some("exec" | "attach" | "portforward" | "eviction" | "binding"), "Pod")
        | (Some("scale"), "Deployment" | "StatefulSet" | "ReplicaSet")
        | (Some("token"), "ServiceAccount") => {
            let sub = target.sub.as_deref().unwrap_or_default();
            return Err(Refusal::not_here(&format!("{}/{sub}", kind.plural)));
        }
        _ => return Err(Refusal::no_such_resource()),
    }
    let show = |object: &Object| object.shown(kind);
    match (&call.method, &target.name) {
        (_, _) if call.is_set("watch") => Err(Refusal::not_here("watch")),
        (&Method::GET, Some(name)) => {
            let key = Key::new(kind, target.namespace.as_deref().unwrap_or_default(), name);
            let found = state.objects.get(&key);
            let found = found.ok_or_else(|| Refusal::not_found(kind, name))?;
            Ok(Answer::json(200, &show(found)))
        }
        (&Method::GET, None) => list(state, kind, target, call),
        (&Method::POST, None) => {
            let made = write::create(state, kind, target, call)?;
            Ok(Answer::json(201, &show(&made)))
        }
        (&Method::PUT, Some(_)) => {
            let changed = write::replace(state, kind, target, call)?;
            Ok(Answer::json(200, &show(&changed)))
        }
        (&Method::PATCH, Some(_)) => {
            let (changed, new) = write::patch(state, kind, target, call)?;
            Ok(Answer::json(if new { 201 } else { 200 }, &show(&changed)))
        }
        (&Method::DELETE, Some(name)) if target.sub.is_none() => {
            Ok(match write::delete(state, kind, target, call)? {
                Ok(left) => Answer::json(200, &show(&left)),
                // These kinds are given back as they were.
                Err(gone)
                    if ["Pod", "PersistentVolumeClaim", "Service"]
                        .contains(&kind.kind.as_str()) =>
                {
                    Answer::json(200, &show(&gone))
                }
                Err(gone) => {
                    let mut details = kind.details(name);
                    details["uid"] = gone.meta("uid").into();
                    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
                        "status": "Success", "details": details});
                    Answer::json(200, &status)
                }
            })
        }
        (&Method::DELETE, None) => {
            let selector = selector(kind, call)?;
            let found = state.of_kind(kind, target.namespace.as_deref(), None);
            let found: Vec<(Key, Object)> = found
                .filter(|(_, object)| selector.takes(&object.body))
                .map(|(key, object)| (key.clone(), object.clone()))
                .collect();
            for (key, _) in &found {
                state.delete(key, false);
            }
            let items = found.iter().map(|(_, object)| show(object)).collect();
            Ok(Answer::json(200, &list_of(state, kind, items, None)))
        }
        _ => Err(Refusal::not_allowed()),
    }
}

fn selector(kind: &Kind, call: &Call) -> Result<Selector, Refusal> {
    Selector::read(
        kind,
        call.parameter("labelSelector"),
        call.parameter("fieldSelector"),
    )
}

fn list(state: &State, kind: &Kind, target: &Target, call: &Call) -> Result<Answer, Refusal> {
    let selector = selector(kind, call)?;
    let limit = match call.parameter("limit") {
        "" | "0" => usize::MAX,
        text => text
            .parse()
            .map_err(|_| Refusal::bad_request(format!("the limit {text:?} is no number")))?,
    };
    let after = match call.parameter("continue") {
        "" => None,
        token => Some(read_token(kind, token)?),
    };
    let found = state.of_kind(kind, target.namespace.as_deref(), after.as_ref());
    let mut found = found.filter(|(_, object)| selector.takes(&object.body));
    let page: Vec<_> = found.by_ref().take(limit).collect();
    let left = found.count();
    let last = page
        .last()
        .filter(|_| left > 0)
        .map(|(key, _)| (token(key), left));
    let items = page.iter().map(|(_, object)| {
        let mut item = object.shown(kind);
        // Lists of built-in kinds say once what they are of.
        if let Some(fields) = item.as_object_mut().filter(|_| !kind.custom()) {
            fields.remove("apiVersion");
            fields.remove("kind");
        }
        item
    });
    let list = list_of(state, kind, items.collect(), last);
    Ok(Answer::json(200, &list))
}

fn list_of(state: &State, kind: &Kind, items: Value, next: Option<(String, usize)>) -> Value {
    let mut metadata = json!({"resourceVersion": state.revision.to_string()});
    if let Some((token, left)) = next {
        metadata["continue"] = token.into();
        metadata["remainingItemCount"] = left.into();
    }
    json!({
        "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
        "metadata": metadata, "items": items,
    })
}

/// What a container said.
fn log(state: &State, kind: &Kind, target: &Target, call: &Call) -> Result<Answer, Refusal> {
    if call.method != Method::GET {
        return Err(Refusal::not_allowed());
    }
    let (name, namespace) = (
        target.name.clone().unwrap_or_default(),
        target.namespace.clone().unwrap_or_default(),
    );
    let pod = state.objects.get(&Key::new(kind, &namespace, &name));
    let pod = pod.ok_or_else(|| Refusal::not_found(kind, &name))?;
    let containers = ["initContainers", "containers"];
    let containers: Vec<&str> = containers
        .iter()
        .filter_map(|list| pod.body["spec"][list].as_array())
        .flatten()
        .filter_map(|container| container["name"].as_str())
        .collect();
    let container = match (call.parameter("container"), containers.as_slice()) {
        ("", [only]) => (*only).to_owned(),
        ("", several) => {
            let why = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                several.join(" ")
            );
            return Err(Refusal::bad_request(why));
        }
        (named, all) if all.contains(&named) => named.to_owned(),
        (named, _) => {
            let why = format!("container {named} is not valid for pod {name}");
            return Err(Refusal::bad_request(why));
        }
    };
    // What a controller that plays the kubelet as well writes down (`operators::percona::LOG`).
    let noted = pod.body["metadata"]["annotations"][LOG].as_str();
    let said = state
        .logs
        .get(&(namespace, name.clone(), container.clone()));
    let Some(text) = said.map(String::as_str).or(noted) else {
        if pod.body["status"]["phase"] == "Pending" {
            let why = format!(
                "container {container:?} in pod {name:?} is waiting to start: ContainerCreating"
            );
            return Err(Refusal::bad_request(why));
        }
        return Ok(Answer::text(""));
    };
    let tail: Option<usize> = call.parameter("tailLines").parse().ok();
    let lines: Vec<&str> = text.lines().collect();
    let Some(tail) = tail.filter(|tail| *tail < lines.len()) else {
        return Ok(Answer::text(text));
    };
    let last: String = lines[lines.len() - tail..]
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    Ok(Answer::text(&last))
}
