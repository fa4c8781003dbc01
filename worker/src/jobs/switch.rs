//! Switch: changes the values of a release by its switch, records what it replaced, and waits until the release has
//! taken them.
//!
//! Freezing and thawing put an application's values of the spec in and out and leave the rest of its switch; a thawed
//! one gets its last proven image tag back, should its switch have none. Raw values are merged key by key. The
//! database's switch is guarded: no order to restore gets into it while a living database would be overwritten.
//!
//! ```text
//! namespace ─→ before (what it replaces) ─→ write ─→ token, ask (reconcile now) ─→ handled ─→ proof
//! ```

use std::time::Duration;

use jobs::ids::ObjectName;
use jobs::keys;
use jobs::message::{Change, Switch as Message};
use jobs::record::ReleaseRecord;
use jobs::spec::{Application, ClusterSpec, Database, Namespaced};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::engine::{Ctx, JobError, Patience, Poll, Proof, Proven};
use crate::kube::{KubeError, Object, Objects};
use crate::pgbackrest::Danger;
use crate::switch::{Handled, HelmRelease, Switch, Values, values};

/// The step names.
pub const STEPS: &[&str] = &[
    "namespace",
    "before",
    "write",
    "token",
    "ask",
    "handled",
    "prove",
];

/// Flux makes namespaces within minutes.
const NAMESPACE: Duration = Duration::from_secs(15 * 60);
/// An upgrade may run migrations.
const HANDLED: Duration = Duration::from_secs(40 * 60);

/// What the switch held before, and what has to be known to change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    /// Its text, if there was one.
    text: Option<String>,
    /// The last proven image tag of the application.
    tag: Option<String>,
}

/// Changes a switch, and proves that it holds the values and that the release has taken them.
pub async fn run(ctx: &Ctx, job: &Message) -> Result<Proven, JobError> {
    let target = Target::of(ctx.spec(), &job.change).map_err(JobError::fatal)?;
    let objects = ctx.world().kube(ctx).await?;
    let switch = Switch::new(&objects, &target.place);
    ctx.wait("namespace", patience(ctx, NAMESPACE), || switch.namespace())
        .await?;

    let before: Before = ctx.step("before", || look(ctx, &switch, &target)).await?;
    // Only the text is recorded: it is the same when an earlier turn has written it and could not say so.
    let written: String = ctx
        .step("write", || async {
            let danger = match target.database {
                Some(database) => danger(&objects, database).await?,
                None => Danger::Creates,
            };
            let written = switch.write(|now| {
                let after = target.change(now, before.tag.as_deref());
                guard(now, &after, &danger).map_err(JobError::fatal)?;
                Ok(after)
            });
            let written = written.await?;
            if written.changed && written.replaced != before.text {
                tracing::warn!(%switch, "somebody else has changed it since it was recorded; what they wrote is kept");
            }
            Ok::<_, JobError>(written.text)
        })
        .await?;
    let release = target
        .release
        .map(|name| HelmRelease::new(&objects, &target.place.namespace, name));
    let asked = match &release {
        Some(release) => ask(ctx, release).await?,
        None => None,
    };
    ctx.prove("switch", || async {
        let now = switch.values().await?;
        let taken = match (&release, &asked) {
            (Some(release), Some(token)) => Some(release.look(Some(token)).await?),
            _ => None,
        };
        prove(&switch.parse(Some(&written))?, &now, taken)
    })
    .await
}

/// Asks a release to take its values now, and waits until it has. Nothing when there is no such release yet. A retry
/// of the job asks again.
async fn ask(ctx: &Ctx, release: &HelmRelease) -> Result<Option<String>, JobError> {
    let attempt = ctx.generation();
    let token = token(ctx).await?;
    let there = ctx.step(("ask", attempt), || release.request(&token));
    if !there.await? {
        return Ok(None);
    }
    let taken = ctx.wait(("handled", attempt), patience(ctx, HANDLED), || async {
        handled(release, release.look(Some(&token)).await?)
    });
    Ok(taken.await?.then_some(token))
}

/// What a release is asked with: chosen before it is asked, and another one in each retry of the job.
pub(super) async fn token(ctx: &Ctx) -> Result<String, JobError> {
    ctx.step(("token", ctx.generation()), || async {
        let (recovery, unique) = (ctx.recovery(), Uuid::new_v4().simple());
        Ok::<_, JobError>(format!("rekindle-{recovery}-{unique}"))
    })
    .await
}

/// A look at a release as a poll; false when it is gone.
fn handled(release: &HelmRelease, seen: Handled) -> Result<Poll<bool>, JobError> {
    match seen {
        Handled::Absent => Ok(Poll::Ready(false)),
        Handled::Ready(_) => Ok(Poll::Ready(true)),
        Handled::NotYet(text) => Ok(Poll::Pending(format!("{release}: {text}"))),
        Handled::Failed(text) => Err(JobError::fatal(format!(
            "{release} did not take the values: {text}"
        ))),
    }
}

/// How long a wait is.
pub(super) fn patience(ctx: &Ctx, deadline: Duration) -> Patience {
    Patience {
        every: ctx.world().poll.unwrap_or(Duration::from_secs(5)),
        deadline,
    }
}

/// What a change is about.
#[derive(Debug)]
struct Target<'a> {
    place: Namespaced,
    release: Option<&'a ObjectName>,
    /// The database, when it is its switch.
    database: Option<&'a Database>,
    application: Option<&'a Application>,
    change: &'a Change,
}

impl<'a> Target<'a> {
    fn of(spec: &'a ClusterSpec, change: &'a Change) -> Result<Self, String> {
        let (place, release, application) = match change {
            Change::Freeze { application } | Change::Thaw { application } => {
                let application = of_spec(spec, application)?;
                let namespace = application.namespace.clone();
                let name = application.switch.clone();
                (
                    Namespaced { namespace, name },
                    Some(&application.release),
                    Some(application),
                )
            }
            Change::Values {
                switch, release, ..
            } => (switch.clone(), release.as_ref(), None),
        };
        let database = spec
            .database
            .as_ref()
            .filter(|it| it.namespace == place.namespace && it.switch == place.name);
        Ok(Self {
            place,
            release,
            database,
            application,
            change,
        })
    }

    /// What becomes of the values.
    fn change(&self, now: &Values, tag: Option<&str>) -> Values {
        match (self.change, self.application) {
            (Change::Values { values, .. }, _) => {
                let mut after = now.clone();
                values::merge(&mut after, values);
                after
            }
            (Change::Freeze { .. }, Some(application)) => values::frozen(application, now),
            (Change::Thaw { .. }, Some(application)) => thawed(application, now, tag),
            (Change::Freeze { .. } | Change::Thaw { .. }, None) => now.clone(),
        }
    }
}

/// The values that let an application run, with its last proven image tag if there is none in them.
pub fn thawed(application: &Application, now: &Values, tag: Option<&str>) -> Values {
    let mut after = values::running(application, now);
    if let Some(tag) = tag.filter(|_| values::tag(application, &after).is_none()) {
        values::set_tag(application, &mut after, tag);
    }
    after
}

/// An application of the spec.
pub(super) fn of_spec<'a>(
    spec: &'a ClusterSpec,
    name: &ObjectName,
) -> Result<&'a Application, String> {
    spec.application(name.as_str()).ok_or_else(|| {
        let names: Vec<&str> = spec
            .applications
            .iter()
            .map(|it| it.name.as_str())
            .collect();
        format!(
            "the spec has no application `{name}` in `applications`, but {}",
            match names.is_empty() {
                true => "none at all".to_owned(),
                false => names.join(", "),
            }
        )
    })
}

async fn look(ctx: &Ctx, switch: &Switch, target: &Target<'_>) -> Result<Before, JobError> {
    let held = switch.read().await?;
    // Also a text that nobody can read is found here, before anything is written.
    let text = held.and_then(|held| held.text);
    switch.parse(text.as_deref())?;
    let tag = match target.application {
        Some(application) => proven_tag(ctx, application).await?,
        None => None,
    };
    Ok(Before { text, tag })
}

/// The image tag of an application that was proven last.
pub async fn proven_tag(ctx: &Ctx, application: &Application) -> Result<Option<String>, JobError> {
    let series = keys::release(ctx.cluster(), &application.name);
    let record = ctx.store().read::<ReleaseRecord>(&series).await?;
    Ok(record.and_then(|stored| stored.body.tag))
}

/// What a source in the values would do to the database as it is.
async fn danger(objects: &Objects, database: &Database) -> Result<Danger, JobError> {
    let (namespace, name) = (database.namespace.as_str(), database.cluster.as_str());
    let cluster = Object::at(
        "pgv2.percona.com/v2",
        "PerconaPGCluster",
        Some(namespace),
        name,
    );
    let seen = match objects.get(&cluster).await {
        Ok(seen) => seen,
        // Without the operator there is no database of it.
        Err(KubeError::UnknownKind { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    Danger::of(name, &seen).map_err(JobError::fatal)
}

/// Whether the database's switch may be changed so.
fn guard(now: &Values, after: &Values, danger: &Danger) -> Result<(), String> {
    let in_place = |values: &Values| {
        let restore = values
            .get("backups")
            .and_then(|it| it.pointer("/pgbackrest/restore"));
        restore.is_some_and(|restore| restore["enabled"] == true)
    };
    if in_place(after) && !in_place(now) && !matches!(danger, Danger::Creates) {
        return Err("`backups.pgbackrest.restore` would overwrite the living database".into());
    }
    let source = |values: &Values| values.get("dataSource").filter(|it| !it.is_null()).cloned();
    let (before, then) = (source(now), source(after));
    if before == then {
        return Ok(());
    }
    match danger {
        Danger::Destroys { why } if then.is_some() => Err(format!(
            "`dataSource` would make the operator overwrite the living database: {why}"
        )),
        Danger::Running { progress } => Err(format!(
            "the database is being restored ({progress}), and a change of `dataSource` would start that again"
        )),
        Danger::Creates | Danger::Nothing | Danger::Destroys { .. } => Ok(()),
    }
}

fn prove(wanted: &Values, now: &Values, taken: Option<Handled>) -> Result<Proof, JobError> {
    let (release, holds) = match taken {
        None => (Value::Null, true),
        Some(Handled::Ready(revision)) => (json!(revision), true),
        Some(Handled::Absent) => ("there is none".into(), false),
        Some(Handled::NotYet(text) | Handled::Failed(text)) => (text.into(), false),
    };
    let expected = match holds {
        true => release.clone(),
        false => "Ready".into(),
    };
    Ok(Proof {
        expected: json!({"values": wanted, "release": expected}),
        observed: json!({"values": now, "release": release}),
        holds: holds && wanted == now,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn map(value: Value) -> Values {
        serde_json::from_value(value).unwrap()
    }

    fn dsf() -> Application {
        serde_json::from_value(json!({"name": "dsf", "namespace": "shop", "release": "dsf",
            "switch": "dsf-values-switch", "frozen": {"storefront": {"enabled": false}},
            "running": {"storefront": {"enabled": true}}}))
        .unwrap()
    }

    fn target<'a>(change: &'a Change, application: &'a Application) -> Target<'a> {
        Target {
            place: "shop/dsf-values-switch".parse().unwrap(),
            release: Some(&application.release),
            database: None,
            application: Some(application),
            change,
        }
    }

    #[test]
    fn a_thawed_application_gets_its_proven_image_back_and_keeps_its_own() {
        let application = dsf();
        let name = application.name.clone();
        let thaw = Change::Thaw {
            application: name.clone(),
        };
        let thaw = target(&thaw, &application);
        let check = |now: Value, tag: Option<&str>, after: Value| {
            assert_eq!(Value::Object(thaw.change(&map(now), tag)), after);
        };
        let frozen = json!({"storefront": {"enabled": false}});
        let on = json!({"storefront": {"enabled": true}});
        check(frozen.clone(), None, on);
        check(
            frozen.clone(),
            Some("7.10"),
            json!({"storefront": {"enabled": true}, "image": {"tag": "7.10"}}),
        );
        check(
            json!({"storefront": {"enabled": false}, "image": {"tag": "8"}}),
            Some("7.10"),
            json!({"storefront": {"enabled": true}, "image": {"tag": "8"}}),
        );
        let freeze = Change::Freeze { application: name };
        let after = target(&freeze, &application).change(&Values::new(), Some("7.10"));
        assert_eq!(Value::Object(after), frozen, "freezing brings no image");
    }

    #[test]
    fn raw_values_are_merged() {
        let values = Change::Values {
            switch: "shop/dsf-values-switch".parse().unwrap(),
            values: map(json!({"a": {"b": null, "c": 2}})),
            release: None,
        };
        let application = dsf();
        let after =
            target(&values, &application).change(&map(json!({"a": {"b": 1}, "d": 1})), None);
        assert_eq!(Value::Object(after), json!({"a": {"c": 2}, "d": 1}));
    }

    #[test]
    fn no_order_to_restore_gets_to_a_living_database() {
        let living = Danger::Destroys {
            why: "it lives".into(),
        };
        let running = Danger::Running {
            progress: "it has begun".into(),
        };
        let source = |n: u32| json!({"dataSource": {"pgbackrest": {"repo": n}}, "backups": {}});
        let none = json!({"backups": {"pgbackrest": {"global": {}}}});
        let in_place = json!({"backups": {"pgbackrest": {"restore": {"enabled": true}}}});
        let check = |now: &Value, after: &Value, danger: &Danger, allowed: bool| {
            let (now, after) = (map(now.clone()), map(after.clone()));
            let verdict = guard(&now, &after, danger);
            assert_eq!(
                verdict.is_ok(),
                allowed,
                "{danger:?}: {now:?} to {after:?}: {verdict:?}"
            );
        };
        for new in [Danger::Creates, Danger::Nothing] {
            check(&none, &source(1), &new, true);
            check(&source(1), &none, &new, true);
        }
        check(&none, &source(1), &living, false);
        check(&source(1), &source(2), &living, false);
        check(&source(1), &source(1), &living, true);
        check(&source(1), &none, &living, true);
        check(&none, &none, &living, true);
        check(&source(1), &none, &running, false);
        check(&source(1), &source(2), &running, false);
        check(&source(1), &source(1), &running, true);
        for there in [&living, &running, &Danger::Nothing] {
            check(&none, &in_place, there, false);
        }
        check(&none, &in_place, &Danger::Creates, true);
        check(&json!({}), &json!({"dataSource": null}), &living, true);
    }

    #[test]
    fn it_is_proven_by_what_stands_there_and_by_the_release() {
        let wanted = map(json!({"a": 1}));
        let check = |now: Value, taken: Option<Handled>, holds: bool| {
            let proof = prove(&wanted, &map(now), taken).unwrap();
            assert_eq!(proof.holds, holds, "{proof:?}");
        };
        check(json!({"a": 1}), None, true);
        check(json!({"a": 2}), None, false);
        check(
            json!({"a": 1}),
            Some(Handled::Ready(Default::default())),
            true,
        );
        for other in [
            Handled::Absent,
            Handled::NotYet("x".into()),
            Handled::Failed("x".into()),
        ] {
            check(json!({"a": 1}), Some(other), false);
        }
    }

    #[test]
    fn an_unknown_application_is_named_with_those_that_there_are() {
        let spec =
            ClusterSpec::parse(include_str!("../../../deploy/examples/cluster.yaml")).unwrap();
        let change = Change::Freeze {
            application: ObjectName::new("shop").unwrap(),
        };
        let error = Target::of(&spec, &change).unwrap_err();
        assert!(
            error.contains("`shop`") && error.contains("none at all"),
            "{error}"
        );
    }
}
