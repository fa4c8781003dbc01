//! Switches: the ConfigMaps whose values win over everything in Git, and the releases that read them.
//!
//! A switch is changed by what is to become of what it holds ([`Switch::write`]), never blindly: the server takes
//! the change only for the version that was read, so what another one wrote meanwhile is not lost. What a
//! switch held before is on record before it is written ([`Switch::read`] in a step of its own). The release is
//! then asked to look at once ([`HelmRelease::request`]), by a text that was recorded before, so that its
//! answer ([`HelmRelease::look`]) is known to be about our change.

pub mod release;
pub mod values;

pub use release::{Handled, HelmRelease, Revision};
pub use values::Values;

use std::fmt;

use jobs::ids::ObjectName;
use jobs::spec::{Application, Namespaced};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::engine::{JobError, Poll};
use crate::kube::{Object, Objects};

/// The key that holds a switch's values.
pub const KEY: &str = "values-switch.yaml";
/// With this label Flux acts on a change at once, not at the next interval.
pub const WATCH: (&str, &str) = ("reconcile.fluxcd.io/watch", "Enabled");
/// Somebody else may be faster so often.
const TRIES: usize = 5;

/// A switch of the cluster.
#[derive(Debug, Clone)]
pub struct Switch {
    objects: Objects,
    place: Namespaced,
}

/// A switch as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What stands under [`KEY`], if anything does.
    pub text: Option<String>,
    /// The version of the ConfigMap.
    pub version: String,
    /// It has the label [`WATCH`].
    pub watched: bool,
}

/// What became of a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// What stood there before, if anything did.
    pub replaced: Option<String>,
    /// What stands there now.
    pub text: String,
    /// Whether it had to be written.
    pub changed: bool,
}

impl Switch {
    /// The switch of that place.
    pub fn new(objects: &Objects, place: &Namespaced) -> Self {
        Self {
            objects: objects.clone(),
            place: place.clone(),
        }
    }

    /// The switch `name` in `namespace`.
    pub fn named(objects: &Objects, namespace: &ObjectName, name: &ObjectName) -> Self {
        let (namespace, name) = (namespace.clone(), name.clone());
        Self::new(objects, &Namespaced { namespace, name })
    }

    /// An application's switch.
    pub fn of(objects: &Objects, application: &Application) -> Self {
        Self::named(objects, &application.namespace, &application.switch)
    }

    /// Where it is.
    pub fn place(&self) -> &Namespaced {
        &self.place
    }

    fn object(&self) -> Object {
        let (namespace, name) = (self.place.namespace.as_str(), self.place.name.as_str());
        Object::at("v1", "ConfigMap", Some(namespace), name)
    }

    /// Whether the namespace is there, for `ctx.wait`: Flux makes it.
    pub async fn namespace(&self) -> Result<Poll<()>, JobError> {
        namespace(&self.objects, &self.place.namespace).await
    }

    /// It as it is; `None` if there is none.
    pub async fn read(&self) -> Result<Option<Held>, JobError> {
        let found = self.objects.get(&self.object()).await?;
        Ok(found.as_ref().map(held))
    }

    /// Its values as they are: none if there is no switch.
    pub async fn values(&self) -> Result<Values, JobError> {
        let held = self.read().await?;
        self.parse(held.as_ref().and_then(|held| held.text.as_deref()))
    }

    /// Reads the text of a switch.
    ///
    /// # Errors
    /// When it is no map of values: a person has to look.
    pub fn parse(&self, text: Option<&str>) -> Result<Values, JobError> {
        let values = values::parse(text.unwrap_or_default());
        values.map_err(|reason| {
            JobError::fatal(format!(
                "{KEY} of {self} {reason}: mend or delete the ConfigMap, then `rekindle retry`"
            ))
        })
    }

    /// Makes the switch hold what `change` makes of its values. Nothing is written if it holds that already, and
    /// `change` is asked again when somebody else has changed it meanwhile.
    pub async fn write(
        &self,
        change: impl Fn(&Values) -> Result<Values, JobError>,
    ) -> Result<Written, JobError> {
        for _ in 0..TRIES {
            let held = self.read().await?;
            let replaced = held.as_ref().and_then(|held| held.text.clone());
            let before = self.parse(replaced.as_deref())?;
            let wanted = change(&before)?;
            let there = held.as_ref().filter(|held| held.watched);
            if let Some(text) = there.and_then(|held| held.text.clone())
                && before == wanted
            {
                return Ok(Written {
                    replaced,
                    text,
                    changed: false,
                });
            }
            let text = values::text(&wanted);
            if self.put(held.as_ref(), &text).await? {
                return Ok(Written {
                    replaced,
                    text,
                    changed: true,
                });
            }
        }
        Err(JobError::retry(format!(
            "{self} was changed by somebody else {TRIES} times while it was written"
        )))
    }

    /// Writes it, if it is still as it was read.
    async fn put(&self, held: Option<&Held>, text: &str) -> Result<bool, JobError> {
        let (label, enabled) = WATCH;
        let body = json!({"metadata": {"labels": {label: enabled}}, "data": {KEY: text}});
        let Some(held) = held else {
            let mut new = self.object();
            new.body["metadata"]["labels"] = body["metadata"]["labels"].clone();
            new.body["data"] = body["data"].clone();
            return Ok(self.objects.create(&new).await?.is_some());
        };
        let mut patch = body;
        patch["metadata"]["resourceVersion"] = held.version.as_str().into();
        match self.objects.merge(&self.object(), &patch).await {
            Ok(_) => Ok(true),
            // Changed or deleted since.
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigMap {}", self.place)
    }
}

/// Whether a namespace can be written into, for `ctx.wait`.
pub async fn namespace(objects: &Objects, name: &ObjectName) -> Result<Poll<()>, JobError> {
    let found = objects
        .get(&Object::at("v1", "Namespace", None, name.as_str()))
        .await?;
    let Some(found) = found else {
        return Ok(Poll::Pending(format!(
            "there is no namespace {name}: Flux makes it when it applies `infra` (`rekindle flux-bootstrap`)"
        )));
    };
    match found
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|at| !at.is_null())
    {
        true => Ok(Poll::Pending(format!("namespace {name} is being deleted"))),
        false => Ok(Poll::Ready(())),
    }
}

fn held(found: &Value) -> Held {
    let text = |at: &str| found.pointer(at).and_then(Value::as_str).map(str::to_owned);
    let (label, enabled) = WATCH;
    Held {
        text: found["data"][KEY].as_str().map(str::to_owned),
        version: text("/metadata/resourceVersion").unwrap_or_default(),
        watched: found["metadata"]["labels"][label].as_str() == Some(enabled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_its_one_key_and_its_label() {
        let check = |object: Value, text: Option<&str>, watched: bool| {
            let expected = Held {
                text: text.map(str::to_owned),
                version: "7".into(),
                watched,
            };
            assert_eq!(held(&object), expected, "{object}");
        };
        let meta =
            json!({"resourceVersion": "7", "labels": {"reconcile.fluxcd.io/watch": "Enabled"}});
        check(
            json!({"metadata": meta, "data": {"values-switch.yaml": "a: 1", "other": "x"}}),
            Some("a: 1"),
            true,
        );
        check(json!({"metadata": {"resourceVersion": "7"}}), None, false);
        let off = json!({"resourceVersion": "7", "labels": {"reconcile.fluxcd.io/watch": "no"}});
        check(json!({"metadata": off, "data": {}}), None, false);
    }
}
