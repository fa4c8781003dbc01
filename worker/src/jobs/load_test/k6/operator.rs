//! k6-operator on the cluster: ours, unless somebody else's is there already.

use std::time::Duration;

use jobs::spec::K6;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bundle;
use super::objects::{Marks, OPERATOR};
use super::place::Place;
use crate::engine::{Ctx, JobError, Poll};
use crate::jobs::flux_bootstrap::established;
use crate::jobs::switch::patience;
use crate::kube::{Force, KubeError, Look, Manifest, Object, Objects, pods, wait};
use crate::pinned::Pinned;

/// What is being deleted is gone within minutes.
const GOING: Duration = Duration::from_secs(10 * 60);
/// A definition is established within seconds.
const DEFINITIONS: Duration = Duration::from_secs(5 * 60);
/// The controller's image may come slowly.
const CONTROLLERS: Duration = Duration::from_secs(15 * 60);

/// Makes sure that there is an operator. Whether it is ours is on record before anything is applied: what is not ours
/// is neither changed nor taken away.
pub(super) async fn ensure(ctx: &Ctx, k6: &K6, place: &Place) -> Result<(), JobError> {
    let turn = ctx.generation();
    let pinned: Pinned = ctx
        .step(("bundle", turn), || bundle::fetch(ctx, k6))
        .await?;
    let ours: bool = ctx
        .wait(("operator", turn), patience(ctx, GOING), || async {
            let manifest = bundle::manifest(ctx, k6, &pinned).await?;
            look(ctx, &place.objects(ctx).await?, &manifest).await
        })
        .await?;
    if !ours {
        tracing::info!("an operator of k6 that is not ours is there: it is used as it is");
        return Ok(());
    }
    let definitions: Vec<String> = ctx
        .step(("foundation", turn), || async {
            let manifest = bundle::manifest(ctx, k6, &pinned).await?;
            let objects = place.objects(ctx).await?;
            objects.apply_all(&manifest.foundation, Force::Ours).await?;
            let names = manifest.definitions().map(|it| it.name.clone());
            Ok::<_, JobError>(names.collect())
        })
        .await?;
    ctx.wait(
        ("definitions", turn),
        patience(ctx, DEFINITIONS),
        || async { established(&place.objects(ctx).await?, &definitions).await },
    )
    .await?;
    let controller: Controller = ctx
        .step(("rest", turn), || async {
            let manifest = bundle::manifest(ctx, k6, &pinned).await?;
            let objects = place.objects(ctx).await?;
            objects.apply_all(&manifest.rest, Force::Ours).await?;
            let controller = bundle::controller(&manifest).and_then(Controller::of);
            controller.ok_or_else(|| JobError::fatal("the controller of the bundle has no place"))
        })
        .await?;
    let patience = patience(ctx, CONTROLLERS);
    ctx.wait(("controllers", turn), patience, || async {
        available(&place.objects(ctx).await?, &controller).await
    })
    .await
}

/// The controller's Deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Controller {
    namespace: String,
    name: String,
    /// What selects its Pods.
    selector: String,
}

impl Controller {
    fn of(deployment: &Object) -> Option<Self> {
        let labels = deployment.body["spec"]["selector"]["matchLabels"].as_object();
        let labels = labels.into_iter().flatten();
        let selector: Vec<String> = labels
            .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
            .collect();
        Some(Self {
            namespace: deployment.namespace.clone()?,
            name: deployment.name.clone(),
            selector: selector.join(","),
        })
    }
}

/// What there is of an operator, and whether it is to be ours.
async fn look(ctx: &Ctx, objects: &Objects, manifest: &Manifest) -> Result<Poll<bool>, JobError> {
    let mut there = Vec::new();
    for object in manifest.foundation.iter().chain(&manifest.rest) {
        match objects.get(object).await {
            // Its definition is not there yet, so it is not either.
            Ok(None) | Err(KubeError::UnknownKind { .. }) => {}
            Ok(Some(seen)) => there.push((object.to_string(), seen)),
            Err(error) => return Err(error.into()),
        }
    }
    match whose(&there, &Marks::of(ctx)) {
        Whose::Ours => Ok(Poll::Ready(true)),
        Whose::Theirs => Ok(Poll::Ready(false)),
        Whose::NotYet(text) => Ok(Poll::Pending(text)),
        Whose::Broken(text) => Err(JobError::fatal(text)),
    }
}

/// Whose operator it is.
#[derive(Debug, PartialEq, Eq)]
enum Whose {
    /// There is none, or the one of this recovery: it is ours to apply.
    Ours,
    /// There is another one that knows our TestRun.
    Theirs,
    /// Something is on its way.
    NotYet(String),
    /// There is something that is neither.
    Broken(String),
}

fn whose(there: &[(String, Value)], marks: &Marks) -> Whose {
    let going = |seen: &Value| !seen["metadata"]["deletionTimestamp"].is_null();
    if let Some((name, _)) = there.iter().find(|(_, seen)| going(seen)) {
        return Whose::NotYet(format!("{name} is being deleted"));
    }
    let Some((stranger, _)) = there.iter().find(|(_, seen)| !marks.are_on(seen, OPERATOR)) else {
        return Whose::Ours;
    };
    let definition = there
        .iter()
        .find(|(_, seen)| seen["metadata"]["name"] == bundle::DEFINITION);
    match definition.map(|(_, seen)| seen) {
        Some(definition) if bundle::serves(definition) => match wait::definition(definition) {
            Look::Ready => Whose::Theirs,
            Look::NotYet(text) | Look::Stuck(text) => Whose::NotYet(format!(
                "CustomResourceDefinition {}: {text}",
                bundle::DEFINITION
            )),
        },
        Some(_) => Whose::Broken(format!(
            "an operator of k6 is there ({stranger}) that is not ours, and it does not serve the TestRun of \
             k6.io/v1alpha1: update it or take it away"
        )),
        None => Whose::Broken(format!(
            "a part of an operator of k6 is there ({stranger}) that is not ours, without its definition of TestRun: \
             complete it or take it away"
        )),
    }
}

/// Whether the controller runs. If it does not, its pods say why.
async fn available(objects: &Objects, controller: &Controller) -> Result<Poll<()>, JobError> {
    let namespace = Some(controller.namespace.as_str());
    let deployment = Object::at("apps/v1", "Deployment", namespace, &controller.name);
    let look = match objects.get(&deployment).await? {
        Some(seen) => wait::deployment(&seen),
        None => Look::NotYet("it is gone".to_owned()),
    };
    let (text, stuck) = match look {
        Look::Ready => return Ok(Poll::Ready(())),
        Look::NotYet(text) => (text, false),
        Look::Stuck(text) => (text, true),
    };
    let selector = &controller.selector;
    let pods = objects.list("v1", "Pod", namespace, selector).await?;
    let trouble = pods::trouble(&pods);
    let hopeless = trouble.as_ref().is_some_and(|it| it.hopeless);
    let why = trouble.map_or_else(String::new, |it| format!("; {}", it.text));
    let text = format!("{deployment}: {text}{why}");
    match stuck || hopeless {
        true => Err(JobError::fatal(text)),
        false => Ok(Poll::Pending(text)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(version: &str, marks: Option<&Marks>) -> (String, Value) {
        let mut seen = json!({"metadata": {"name": bundle::DEFINITION},
            "spec": {"group": "k6.io", "names": {"kind": "TestRun"}, "versions": [{"name": version, "served": true}]},
            "status": {"conditions": [{"type": "Established", "status": "True"}]}});
        mark(&mut seen, marks);
        ("CustomResourceDefinition testruns.k6.io".into(), seen)
    }

    fn namespace(marks: Option<&Marks>) -> (String, Value) {
        let mut seen = json!({"metadata": {"name": "k6-operator-system"}});
        mark(&mut seen, marks);
        ("Namespace k6-operator-system".into(), seen)
    }

    fn mark(seen: &mut Value, marks: Option<&Marks>) {
        if let Some(marks) = marks {
            marks.put_on(seen, OPERATOR);
            seen["metadata"]["managedFields"] =
                json!([{"manager": "rekindle", "operation": "Apply"}]);
        }
    }

    #[test]
    fn an_operator_is_ours_when_it_carries_our_marks_and_otherwise_left_alone() {
        let marks = Marks::new("a", "r-1");
        let other = Marks::new("a", "r-2");
        let (ours, theirs) = (Some(&marks), Some(&other));
        assert_eq!(whose(&[], &marks), Whose::Ours);
        assert_eq!(
            whose(&[namespace(ours), definition("v1alpha1", ours)], &marks),
            Whose::Ours
        );
        for stranger in [None, theirs] {
            let there = [namespace(stranger), definition("v1alpha1", stranger)];
            assert_eq!(whose(&there, &marks), Whose::Theirs);
        }
        // Not even what is theirs in part is taken over.
        let mixed = [namespace(None), definition("v1alpha1", ours)];
        assert_eq!(whose(&mixed, &marks), Whose::Theirs);

        let broken = |there: &[(String, Value)], expected: &str| match whose(there, &marks) {
            Whose::Broken(text) => assert!(text.contains(expected), "{text}"),
            other => panic!("{other:?}"),
        };
        broken(&[definition("v1beta1", None)], "does not serve");
        broken(&[namespace(None)], "Namespace k6-operator-system");

        let mut going = namespace(ours);
        going.1["metadata"]["deletionTimestamp"] = "2026-11-23T00:00:00Z".into();
        assert_eq!(
            whose(&[going], &marks),
            Whose::NotYet("Namespace k6-operator-system is being deleted".into())
        );
        let mut young = definition("v1alpha1", None);
        young.1["status"] = json!({});
        assert!(matches!(whose(&[young], &marks), Whose::NotYet(_)));
    }
}
