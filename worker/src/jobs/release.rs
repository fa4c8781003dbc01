//! Release: brings another image of an application into service by its switch, and proves that it runs and answers.
//!
//! What `--rollback` goes back to is decided by what was proven: a release that failed has left its tag in the
//! switch but not in the record, so the way back from it is the tag on record; the way back from one that was proven
//! is the one before it. The record is written last.
//!
//! ```text
//! intent (tag, what it replaces) ─→ there ─→ write ─→ token, ask ─→ handled ─→ pods ─→ answers ─→ proof ─→ record
//! ```

use std::time::Duration;

use jobs::keys;
use jobs::message::{Image, Release};
use jobs::record::ReleaseRecord;
use jobs::spec::Application;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::switch::{of_spec, patience, token};
use crate::application::{self, Answer};
use crate::engine::{Ctx, JobError, Poll, Proof, Proven};
use crate::kube::{Look, Objects, pods, wait};
use crate::switch::{Handled, HelmRelease, Revision, Switch, values};

/// The step names.
pub const STEPS: &[&str] = &[
    "namespace",
    "intent",
    "there",
    "write",
    "token",
    "ask",
    "handled",
    "pods",
    "answers",
    "prove",
    "record",
];

/// Flux makes the namespace, and the release as soon as what it stands on is ready.
const THERE: Duration = Duration::from_secs(15 * 60);
/// An upgrade that fails is rolled back and may be tried again.
const HANDLED: Duration = Duration::from_secs(60 * 60);
/// Pods of a release that Helm calls ready.
const PODS: Duration = Duration::from_secs(10 * 60);
/// Gateways and caches follow.
const ANSWERS: Duration = Duration::from_secs(10 * 60);

/// What was decided before anything was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Intent {
    /// The tag that is to run.
    tag: String,
    /// The tag that the switch held.
    replaces: Option<String>,
    /// The text that the switch held.
    text: Option<String>,
}

/// Releases, and proves it.
pub async fn run(ctx: &Ctx, job: &Release) -> Result<Proven, JobError> {
    let application = of_spec(ctx.spec(), &job.application).map_err(JobError::fatal)?;
    let objects = ctx.world().kube(ctx).await?;
    let switch = Switch::of(&objects, application);
    let release = HelmRelease::new(&objects, &application.namespace, &application.release);

    ctx.wait("namespace", patience(ctx, THERE), || switch.namespace())
        .await?;
    let intent: Intent = ctx
        .step("intent", || decide(ctx, application, &switch, &job.image))
        .await?;
    ctx.wait("there", patience(ctx, THERE), || there(&release))
        .await?;
    let _: String = ctx
        .step("write", || async {
            let written = switch.write(|now| {
                let mut after = values::running(application, now);
                values::set_tag(application, &mut after, &intent.tag);
                Ok(after)
            });
            written.await.map(|written| written.text)
        })
        .await?;

    let attempt = ctx.generation();
    let token = token(ctx).await?;
    ctx.step(("ask", attempt), || async {
        match release.request(&token).await? {
            true => Ok(()),
            false => Err(JobError::retry(format!("{release} is gone"))),
        }
    })
    .await?;
    ctx.wait(("handled", attempt), patience(ctx, HANDLED), || {
        handled(&objects, application, &release, &token, &intent)
    })
    .await?;
    ctx.wait(("pods", attempt), patience(ctx, PODS), || async {
        run_tag(&deployments(&objects, application).await?, &intent.tag)
    })
    .await?;
    ctx.wait(("answers", attempt), patience(ctx, ANSWERS), || async {
        application::ask(ctx, application).await.map(Poll::Ready)
    })
    .await?;
    let proven = ctx
        .prove("release", || {
            prove(ctx, &objects, application, &release, &intent.tag)
        })
        .await?;
    ctx.step("record", || record(ctx, application, &intent.tag))
        .await?;
    Ok(proven)
}

async fn decide(
    ctx: &Ctx,
    application: &Application,
    switch: &Switch,
    image: &Image,
) -> Result<Intent, JobError> {
    let held = switch.read().await?;
    let text = held.and_then(|held| held.text);
    let replaces = values::tag(application, &switch.parse(text.as_deref())?);
    let record = recorded(ctx, application).await?;
    let tag = match image {
        Image::Tag(tag) => tag.as_str().to_owned(),
        Image::Former => former(record.as_ref(), replaces.as_deref()).map_err(|reason| {
            let name = &application.name;
            JobError::fatal(format!(
                "{name} has no former image: {reason}; release one by its tag"
            ))
        })?,
    };
    Ok(Intent {
        tag,
        replaces,
        text,
    })
}

async fn recorded(ctx: &Ctx, application: &Application) -> Result<Option<ReleaseRecord>, JobError> {
    let series = keys::release(ctx.cluster(), &application.name);
    let stored = ctx.store().read::<ReleaseRecord>(&series).await?;
    Ok(stored.map(|stored| stored.body))
}

/// The tag that a rollback goes to.
fn former(record: Option<&ReleaseRecord>, now: Option<&str>) -> Result<String, &'static str> {
    let record = record.ok_or("no release of it was ever proven")?;
    let proven = record.tag.as_deref();
    match (proven, now) {
        // The last release was not proven: the last one that was is the former one.
        (Some(proven), now) if now != Some(proven) => Ok(proven.to_owned()),
        _ => record
            .former
            .clone()
            .ok_or("only one release of it was ever proven"),
    }
}

/// The record after a proven release.
fn next(
    old: Option<&ReleaseRecord>,
    application: &Application,
    tag: &str,
    recovery: &jobs::ids::RecoveryId,
) -> ReleaseRecord {
    let before = old.and_then(|old| old.tag.as_deref());
    let former = match before == Some(tag) {
        true => old.and_then(|old| old.former.clone()),
        false => before.map(str::to_owned),
    };
    ReleaseRecord {
        application: application.name.clone(),
        tag: Some(tag.to_owned()),
        former,
        recovery: recovery.clone(),
    }
}

async fn record(ctx: &Ctx, application: &Application, tag: &str) -> Result<(), JobError> {
    let series = keys::release(ctx.cluster(), &application.name);
    let change = |old: Option<ReleaseRecord>| {
        let new = next(old.as_ref(), application, tag, ctx.recovery());
        let same = old.is_some_and(|old| old.tag == new.tag && old.former == new.former);
        Ok::<_, JobError>((!same).then_some(new))
    };
    ctx.store().update(&series, change).await.map(|_| ())
}

async fn there(release: &HelmRelease) -> Result<Poll<()>, JobError> {
    Ok(match release.read().await? {
        Some(_) => Poll::Ready(()),
        None => Poll::Pending(format!(
            "there is no {release}: Flux makes it when what it waits for is ready (`rekindle flux-bootstrap`, `rekindle restore`)"
        )),
    })
}

async fn handled(
    objects: &Objects,
    application: &Application,
    release: &HelmRelease,
    token: &str,
    intent: &Intent,
) -> Result<Poll<Revision>, JobError> {
    let text = match release.look(Some(token)).await? {
        Handled::Ready(revision) => return Ok(Poll::Ready(revision)),
        Handled::Absent => "it is gone".to_owned(),
        Handled::NotYet(text) => text,
        Handled::Failed(text) => {
            let back = match &intent.replaces {
                Some(tag) => format!("; before it was `{tag}`"),
                None => String::new(),
            };
            return Err(JobError::fatal(format!(
                "{release} does not run tag `{}`{back}: {text}. `rekindle release --rollback` goes back to the last proven one",
                intent.tag
            )));
        }
    };
    // Helm only says that it waits; the pods say for what.
    let namespace = application.namespace.as_str();
    let pods = objects.list("v1", "Pod", Some(namespace), "").await?;
    let pods = pods::trouble(&pods).map_or_else(String::new, |it| format!("; {}", it.text));
    Ok(Poll::Pending(format!("{release}: {text}{pods}")))
}

/// The Deployments of a release.
async fn deployments(objects: &Objects, application: &Application) -> Result<Vec<Value>, JobError> {
    let namespace = application.namespace.as_str();
    let mut all = objects
        .list("apps/v1", "Deployment", Some(namespace), "")
        .await?;
    all.retain(|it| is_of(it, application.release.as_str()));
    Ok(all)
}

/// Whether an object is a release's: helm-controller labels, and Helm annotates, what it makes.
fn is_of(object: &Value, release: &str) -> bool {
    let meta = &object["metadata"];
    let said = [
        &meta["labels"]["helm.toolkit.fluxcd.io/name"],
        &meta["annotations"]["meta.helm.sh/release-name"],
    ];
    said.iter().any(|said| said.as_str() == Some(release))
}

/// Whether Deployments run a tag: at least one has it, and all of them are ready.
fn run_tag(deployments: &[Value], tag: &str) -> Result<Poll<Vec<String>>, JobError> {
    let mut of_tag = Vec::new();
    for deployment in deployments {
        let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
        match wait::deployment(deployment) {
            Look::Ready => {}
            Look::NotYet(text) => return Ok(Poll::Pending(format!("Deployment {name}: {text}"))),
            Look::Stuck(text) => {
                return Err(JobError::fatal(format!("Deployment {name}: {text}")));
            }
        }
        let images = pods::images(deployment).into_iter();
        of_tag.extend(
            images
                .filter(|image| pods::tag(image) == Some(tag))
                .map(|image| format!("{name}: {image}")),
        );
    }
    Ok(match of_tag.is_empty() {
        true => Poll::Pending(format!(
            "none of the release's {} Deployments has an image with tag `{tag}`",
            deployments.len()
        )),
        false => Poll::Ready(of_tag),
    })
}

async fn prove(
    ctx: &Ctx,
    objects: &Objects,
    application: &Application,
    release: &HelmRelease,
    tag: &str,
) -> Result<Proof, JobError> {
    let seen = release.look(None).await?;
    let running = run_tag(&deployments(objects, application).await?, tag)?;
    let answer: Option<Answer> = application::ask(ctx, application).await?;
    let (release, ready) = match seen {
        Handled::Ready(revision) => (json!(revision), true),
        Handled::Absent => ("there is none".into(), false),
        Handled::NotYet(text) | Handled::Failed(text) => (text.into(), false),
    };
    let (images, runs) = match running {
        Poll::Ready(images) => (json!(images), true),
        Poll::Pending(text) => (text.into(), false),
    };
    Ok(Proof {
        expected: json!({"tag": tag, "release": "Ready", "url": application.url}),
        observed: json!({"images": images, "release": release, "answer": answer}),
        holds: ready && runs,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use jobs::ids::RecoveryId;

    use super::*;

    fn application() -> Application {
        serde_json::from_value(json!({"name": "dsf", "namespace": "dsf", "release": "dsf",
            "switch": "dsf-values-switch", "frozen": {"a": 1}}))
        .unwrap()
    }

    fn record(tag: Option<&str>, former: Option<&str>) -> ReleaseRecord {
        ReleaseRecord {
            application: application().name,
            tag: tag.map(str::to_owned),
            former: former.map(str::to_owned),
            recovery: RecoveryId::new("r-1").unwrap(),
        }
    }

    #[test]
    fn the_way_back_leads_to_what_was_proven() {
        let check = |record: Option<ReleaseRecord>, now: Option<&str>, to: Result<&str, &str>| {
            let found = former(record.as_ref(), now);
            assert_eq!(
                found.as_deref(),
                to.as_ref().map(|to| *to),
                "{record:?} with {now:?}"
            );
        };
        check(None, Some("3"), Err("no release of it was ever proven"));
        check(
            Some(record(Some("2"), None)),
            Some("2"),
            Err("only one release of it was ever proven"),
        );
        check(Some(record(Some("2"), Some("1"))), Some("2"), Ok("1"));
        // The release of 3 failed.
        check(Some(record(Some("2"), Some("1"))), Some("3"), Ok("2"));
        check(Some(record(Some("2"), None)), Some("3"), Ok("2"));
        // A new cluster, whose switch holds no tag yet.
        check(Some(record(Some("2"), Some("1"))), None, Ok("2"));
    }

    #[test]
    fn the_record_keeps_the_proven_tag_before_this_one() {
        let id = RecoveryId::new("r-1").unwrap();
        let check = |old: Option<ReleaseRecord>, tag: &str, expected: ReleaseRecord| {
            let new = next(old.as_ref(), &application(), tag, &id);
            assert_eq!(new, expected, "{old:?}");
            assert_eq!(next(Some(&new), &application(), tag, &id), new, "once more");
        };
        check(None, "1", record(Some("1"), None));
        check(
            Some(record(Some("1"), None)),
            "2",
            record(Some("2"), Some("1")),
        );
        check(
            Some(record(Some("2"), Some("1"))),
            "2",
            record(Some("2"), Some("1")),
        );
        // Back, and the way back from that.
        check(
            Some(record(Some("2"), Some("1"))),
            "1",
            record(Some("1"), Some("2")),
        );
    }

    fn deployment(image: &str, available: i64) -> Value {
        json!({"metadata": {"name": "dsf", "generation": 1},
            "spec": {"replicas": 1, "template": {"spec": {"containers": [{"image": image}]}}},
            "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1,
                "availableReplicas": available}})
    }

    #[test]
    fn a_tag_runs_when_an_image_has_it_and_all_pods_are_there() {
        let runs = |all: &[Value]| match run_tag(all, "123.10").unwrap() {
            Poll::Ready(images) => Ok(images.join(", ")),
            Poll::Pending(text) => Err(text),
        };
        let image = "harbor.example.org/dsf/dsf:123.10";
        assert_eq!(runs(&[deployment(image, 1)]), Ok(format!("dsf: {image}")));
        let side = deployment("envoy:1", 1);
        runs(&[side.clone(), deployment(image, 1)]).unwrap();
        for (all, text) in [
            (vec![deployment(image, 0)], "0 of 1 pods are available"),
            (
                vec![deployment("harbor/dsf:123.1", 1)],
                "none of the release's 1 Deployments",
            ),
            (
                vec![side, deployment(image, 0)],
                "0 of 1 pods are available",
            ),
            (vec![], "none of the release's 0 Deployments"),
        ] {
            let pending = runs(&all).unwrap_err();
            assert!(pending.contains(text), "{pending}");
        }
        let mut late = deployment(image, 0);
        late["status"]["conditions"] = json!([{"type": "Progressing", "reason": "ProgressDeadlineExceeded",
            "message": "no image"}]);
        let error = run_tag(&[late], "123.10").unwrap_err().to_string();
        assert!(error.contains("no image"), "{error}");
    }

    #[test]
    fn an_objects_release_is_known_by_what_helm_writes_on_it() {
        assert!(is_of(
            &json!({"metadata": {"labels": {"helm.toolkit.fluxcd.io/name": "dsf"}}}),
            "dsf"
        ));
        assert!(is_of(
            &json!({"metadata": {"annotations": {"meta.helm.sh/release-name": "dsf"}}}),
            "dsf"
        ));
        assert!(!is_of(
            &json!({"metadata": {"labels": {"helm.toolkit.fluxcd.io/name": "slr"}}}),
            "dsf"
        ));
        assert!(!is_of(&json!({"metadata": {}}), "dsf"));
    }
}
