//! What the API says when it does not do what it was asked: a `Status`, in the real one's words.

use serde_json::{Value, json};

use super::kinds::Kind;

/// A request that was refused.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) retry_after: Option<u64>,
    body: Body,
}

#[derive(Clone, Debug, PartialEq)]
enum Body {
    Status(Value),
    Text(&'static str),
}

/// One of the reasons why an object is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) reason: &'static str,
    pub(super) field: String,
    pub(super) message: String,
}

impl Cause {
    /// A value that may not be.
    pub(super) fn invalid(field: &str, value: &Value, why: &str) -> Self {
        Self {
            reason: "FieldValueInvalid",
            field: field.to_owned(),
            message: format!("Invalid value: {value}: {why}"),
        }
    }

    /// A value that has to be there.
    pub(super) fn required(field: &str, why: &str) -> Self {
        let why = if why.is_empty() {
            String::new()
        } else {
            format!(": {why}")
        };
        Self {
            reason: "FieldValueRequired",
            field: field.to_owned(),
            message: format!("Required value{why}"),
        }
    }

    /// A value that may not be changed or said here.
    pub(super) fn forbidden(field: &str, why: &str) -> Self {
        Self {
            reason: "FieldValueForbidden",
            field: field.to_owned(),
            message: format!("Forbidden: {why}"),
        }
    }
}

impl Refusal {
    pub(super) fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self::detailed(code, reason, message, Value::Null)
    }

    fn detailed(code: u16, reason: &str, message: impl Into<String>, details: Value) -> Self {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message.into(), "code": code,
        });
        if !reason.is_empty() {
            status["reason"] = reason.into();
        }
        if !details.is_null() {
            status["details"] = details;
        }
        Self {
            code,
            retry_after: None,
            body: Body::Status(status),
        }
    }

    /// The path is of nothing that is served; the real API says so in plain text.
    pub(super) fn no_such_page() -> Self {
        Self {
            code: 404,
            retry_after: None,
            body: Body::Text("404 page not found\n"),
        }
    }

    /// The group is served and the resource is not.
    pub(super) fn no_such_resource() -> Self {
        let message = "the server could not find the requested resource";
        Self::detailed(404, "NotFound", message, json!({}))
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} not found", kind.qualified());
        Self::detailed(404, "NotFound", message, kind.details(name))
    }

    pub(super) fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", kind.qualified());
        Self::detailed(409, "AlreadyExists", message, kind.details(name))
    }

    /// Somebody was faster, or it is not the object that was meant.
    pub(super) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            kind.qualified()
        );
        Self::detailed(409, "Conflict", message, kind.details(name))
    }

    pub(super) fn modified(kind: &Kind, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    /// Fields that others manage: each with its manager.
    pub(super) fn managed(conflicts: &[(String, String)]) -> Self {
        let causes: Vec<Value> = conflicts
            .iter()
            .map(|(who, field)| {
                let message = format!("conflict with {who}");
                json!({"reason": "FieldManagerConflict", "message": message, "field": field})
            })
            .collect();
        let mut text = String::new();
        let mut at = 0;
        while let Some((who, field)) = conflicts.get(at) {
            let of_one = conflicts[at..].iter().take_while(|(w, _)| w == who).count();
            if of_one == 1 {
                text.push_str(&format!("conflict with {who}: {field}"));
            } else {
                text.push_str(&format!("conflicts with {who}:"));
                for (_, field) in &conflicts[at..at + of_one] {
                    text.push_str(&format!("\n- {field}"));
                }
            }
            at += of_one;
            if at < conflicts.len() {
                text.push('\n');
            }
        }
        let plural = if conflicts.len() == 1 { "" } else { "s" };
        let message = format!(
            "Apply failed with {} conflict{plural}: {text}",
            conflicts.len()
        );
        Self::detailed(409, "Conflict", message, json!({"causes": causes}))
    }

    pub(super) fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        Self::invalid_as(&kind.group, &kind.kind, name, causes)
    }

    pub(super) fn invalid_as(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let of = match group {
            "" => kind.to_owned(),
            group => format!("{kind}.{group}"),
        };
        let lines: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let said = match lines.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let causes: Vec<Value> = causes
            .iter()
            .map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}))
            .collect();
        let mut details = json!({"kind": kind, "causes": causes});
        if !name.is_empty() {
            details["name"] = name.into();
        }
        if !group.is_empty() {
            details["group"] = group.into();
        }
        let message = format!("{of} {name:?} is invalid: {said}");
        Self::detailed(422, "Invalid", message, details)
    }

    pub(super) fn forbidden(kind: &Kind, name: Option<&str>, why: &str) -> Self {
        let which = kind.qualified();
        let named = name.map(|name| format!("{which} {name:?}"));
        let message = format!("{} is forbidden: {why}", named.unwrap_or(which));
        let details = kind.details(name.unwrap_or_default());
        Self::detailed(403, "Forbidden", message, details)
    }

    /// What is no object may not be seen.
    pub(super) fn forbidden_page(message: String) -> Self {
        Self::detailed(403, "Forbidden", message, json!({}))
    }

    /// Nothing may be made in a namespace that goes away.
    pub(super) fn terminating(kind: &Kind, name: &str, namespace: &str) -> Self {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut refusal = Self::forbidden(kind, Some(name), &why);
        if let Body::Status(status) = &mut refusal.body {
            status["details"]["causes"] = json!([{
                "reason": "NamespaceTerminating", "field": "metadata.namespace",
                "message": format!("namespace {namespace} is being terminated"),
            }]);
        }
        refusal
    }

    pub(super) fn not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::detailed(405, "MethodNotAllowed", message, json!({}))
    }

    pub(super) fn media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::detailed(415, "UnsupportedMediaType", message, json!({}))
    }

    /// What the real one can and this one cannot.
    pub(super) fn not_here(what: &str) -> Self {
        let message = format!("the sandbox's Kubernetes API does not do this: {what}");
        Self::new(501, "NotImplemented", message)
    }

    pub(super) fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        if let Body::Status(status) = &mut self.body {
            status["details"] = json!({"retryAfterSeconds": seconds});
        }
        self
    }

    /// The content type and the bytes.
    pub(super) fn render(&self) -> (&'static str, Vec<u8>) {
        match &self.body {
            Body::Status(status) => ("application/json", status.to_string().into_bytes()),
            Body::Text(text) => ("text/plain; charset=utf-8", text.as_bytes().to_vec()),
        }
    }
}
