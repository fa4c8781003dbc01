//! Flux-bootstrap: hands the cluster over to Flux.
//!
//! Before anything is applied, a file of the secrets' bucket must open with the age key (`canary`): with a wrong one
//! Flux would stand still half-way. Then Flux' own components, by digest (`components`), the Secrets that it
//! reads first (`secrets`), and the objects of `flux/<cluster>`. The cluster's kubeconfig is kept on the way (`kubeconfig`).
//! It is done when everything that can become ready is ready (`tree`): what waits for a switch is `restore`'s business, and
//! only named.
//!
//! ```text
//! canary ─→ components ─→ kubeconfig ─→ foundation (namespace, kinds) ─→ secrets ─→ definitions ─→ rest
//!        ─→ controllers ─→ objects ─→ sources ─→ tree ─→ proof
//! ```

mod canary;
mod components;
mod secrets;
mod tree;

use std::collections::BTreeMap;
use std::time::Duration;

use jobs::spec::Flux;
use serde_json::{Value, json};

use super::switch::patience;
use crate::engine::{Ctx, JobError, Poll, Proof, Proven};
use crate::kube::{Force, Look, Manifest, Object, Objects, kept, pods, wait};
use crate::pinned::Pinned;
use crate::sealed;
use tree::{Standing, Switches};

/// The step names.
pub const STEPS: &[&str] = &[
    "canary",
    "components",
    "kubeconfig",
    "foundation",
    "secrets",
    "definitions",
    "rest",
    "controllers",
    "objects",
    "sources",
    "tree",
    "prove",
];

/// Where Flux lives.
const NAMESPACE: &str = "flux-system";
/// A definition is established within seconds.
const DEFINITIONS: Duration = Duration::from_secs(5 * 60);
/// The controllers' images may come slowly.
const CONTROLLERS: Duration = Duration::from_secs(20 * 60);
/// The repository answers within a minute or not at all.
const SOURCES: Duration = Duration::from_secs(10 * 60);
/// Everything that does not wait for a switch, with all its images.
const TREE: Duration = Duration::from_secs(60 * 60);
/// What is shown of things that are not ready yet.
const SHOWN: usize = 5;

/// Bootstraps Flux, and proves that what can be ready is.
pub async fn run(ctx: &Ctx) -> Result<Proven, JobError> {
    let flux = ctx.spec().flux.as_ref().ok_or_else(|| {
        JobError::fatal("the spec has no `flux` section: there is nothing to bootstrap")
    })?;
    ctx.step("canary", || preflight(ctx, flux)).await?;
    let components: Pinned = ctx
        .step("components", || components::fetch(ctx, flux))
        .await?;

    let _: kept::Outcome = ctx.step("kubeconfig", || Box::pin(kept::keep(ctx))).await?;
    let objects = ctx.world().kube(ctx).await?;
    let definitions: Vec<String> = ctx
        .step("foundation", || async {
            let manifest = components::manifest(ctx, flux, &components).await?;
            objects.apply_all(&manifest.foundation, Force::Ours).await?;
            let names = manifest.definitions().map(|it| it.name.clone());
            Ok::<_, JobError>(names.collect())
        })
        .await?;
    let _: Vec<String> = ctx
        .step("secrets", || async {
            let made = secrets::objects(&sealed::secrets(ctx).await?);
            objects.apply_all(&made, Force::Ours).await?;
            Ok::<_, JobError>(made.iter().map(ToString::to_string).collect())
        })
        .await?;
    ctx.wait("definitions", patience(ctx, DEFINITIONS), || {
        established(&objects, &definitions)
    })
    .await?;
    let controllers: BTreeMap<String, Vec<String>> = ctx
        .step("rest", || async {
            let manifest = components::manifest(ctx, flux, &components).await?;
            objects.apply_all(&manifest.rest, Force::Ours).await?;
            Ok::<_, JobError>(components::controllers(&manifest))
        })
        .await?;
    ctx.wait("controllers", patience(ctx, CONTROLLERS), || {
        available(&objects, &controllers)
    })
    .await?;

    let applied: Vec<Named> = ctx
        .step("objects", || async {
            let manifest = bootstrap(ctx).await?;
            objects.apply_all(&manifest.foundation, Force::Ours).await?;
            objects.apply_all(&manifest.rest, Force::Ours).await?;
            let all = manifest.foundation.iter().chain(&manifest.rest);
            Ok::<_, JobError>(all.map(named).collect())
        })
        .await?;
    ctx.wait("sources", patience(ctx, SOURCES), || {
        sources(&objects, &applied)
    })
    .await?;
    let switches = tree::switches(ctx.spec());
    let standing: Standing = ctx
        .wait("tree", patience(ctx, TREE), || {
            settled(&objects, &applied, &switches)
        })
        .await?;
    for (name, what) in &standing.waiting {
        tracing::info!(%name, "waits for its switch: {what}");
    }
    ctx.prove("flux", || {
        prove(&objects, &definitions, &controllers, &applied, &switches)
    })
    .await
}

/// Version, kind, namespace and name of an object.
type Named = (String, String, Option<String>, String);

fn named(object: &Object) -> Named {
    (
        object.api_version.clone(),
        object.kind.clone(),
        object.namespace.clone(),
        object.name.clone(),
    )
}

fn at((version, kind, namespace, name): &Named) -> Object {
    Object::at(version, kind, namespace.as_deref(), name)
}

/// What must be right before anything is applied: the secrets that are needed, and the age key.
async fn preflight(ctx: &Ctx, flux: &Flux) -> Result<canary::Opened, JobError> {
    let bootstrap = bootstrap(ctx).await?;
    let given = sealed::secrets(ctx).await?;
    let missing = secrets::missing(ctx.spec(), &bootstrap, &given);
    if !missing.is_empty() {
        return Err(JobError::fatal(missing.join("; ")));
    }
    canary::open(flux, &given).await
}

/// The objects of `flux/<cluster>`, as they were packed when the recovery was started.
async fn bootstrap(ctx: &Ctx) -> Result<Manifest, JobError> {
    let record = ctx.store().recovery_record(ctx.cluster(), ctx.recovery());
    let digest = record.await?.and_then(|record| record.inputs.flux);
    let digest = digest.ok_or_else(|| {
        JobError::fatal(
            "this recovery was given no objects that bootstrap Flux: start one with the folder `flux/<cluster>` (`flux.folder` of the spec)",
        )
    })?;
    let bytes = ctx.store().get_input(&digest).await?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| JobError::fatal("the objects that bootstrap Flux are not text"))?;
    Ok(Manifest::parse(text, "of the objects that bootstrap Flux")?)
}

/// Whether definitions of kinds are established.
pub(super) async fn established(objects: &Objects, names: &[String]) -> Result<Poll<()>, JobError> {
    let version = "apiextensions.k8s.io/v1";
    for name in names {
        let definition = Object::at(version, "CustomResourceDefinition", None, name);
        let seen = objects.get(&definition).await?;
        let look = seen.map_or_else(gone, |seen| wait::definition(&seen));
        match look {
            Look::Ready => {}
            Look::NotYet(text) => return Ok(Poll::Pending(format!("{definition}: {text}"))),
            Look::Stuck(text) => return Err(JobError::fatal(format!("{definition}: {text}"))),
        }
    }
    Ok(Poll::Ready(()))
}

fn gone() -> Look {
    Look::NotYet("it is gone".to_owned())
}

/// Whether the controllers run with their images. Those that do not say why by their pods.
async fn available(
    objects: &Objects,
    controllers: &BTreeMap<String, Vec<String>>,
) -> Result<Poll<()>, JobError> {
    for name in controllers.keys() {
        let deployment = Object::at("apps/v1", "Deployment", Some(NAMESPACE), name);
        let seen = objects.get(&deployment).await?;
        let look = seen.map_or_else(gone, |seen| wait::deployment(&seen));
        let (text, stuck) = match look {
            Look::Ready => continue,
            Look::NotYet(text) => (text, false),
            Look::Stuck(text) => (text, true),
        };
        let selector = format!("app={name}");
        let pods = objects
            .list("v1", "Pod", Some(NAMESPACE), &selector)
            .await?;
        let trouble = pods::trouble(&pods);
        let hopeless = trouble.as_ref().is_some_and(|it| it.hopeless);
        let why = trouble.map_or_else(String::new, |it| format!("; {}", it.text));
        let text = format!("{deployment}: {text}{why}");
        match stuck || hopeless {
            true => return Err(JobError::fatal(text)),
            false => return Ok(Poll::Pending(text)),
        }
    }
    Ok(Poll::Ready(()))
}

/// Whether the repositories of the bootstrap can be read. What follows needs them, and why one cannot be read is
/// known soon.
async fn sources(objects: &Objects, applied: &[Named]) -> Result<Poll<()>, JobError> {
    let sources = applied
        .iter()
        .filter(|(version, ..)| version.starts_with("source.toolkit.fluxcd.io/"));
    for source in sources {
        let object = at(source);
        let seen = objects.get(&object).await?;
        let look = seen.as_ref().map_or_else(gone, tree::of_source);
        match look {
            Look::Ready => {}
            Look::NotYet(text) => return Ok(Poll::Pending(format!("{object}: {text}"))),
            Look::Stuck(text) => {
                return Err(JobError::fatal(format!(
                    "{object}: {text}: mend it (a token is the secret GITHUB_TOKEN of a recovery), then `rekindle retry`"
                )));
            }
        }
    }
    Ok(Poll::Ready(()))
}

/// Whether all that Flux keeps is ready, or waits for a switch.
async fn settled(
    objects: &Objects,
    applied: &[Named],
    switches: &Switches,
) -> Result<Poll<Standing>, JobError> {
    let standing = look(objects, applied, switches).await?;
    if !standing.stuck.is_empty() {
        let text = some(&standing.stuck);
        return Err(JobError::fatal(format!(
            "Flux does not get on without you: {text}"
        )));
    }
    Ok(match standing.not_yet.is_empty() {
        true => Poll::Ready(standing),
        false => Poll::Pending(format!(
            "{} ready, {} wait for a switch, {} not yet: {}",
            standing.ready.len(),
            standing.waiting.len(),
            standing.not_yet.len(),
            some(&standing.not_yet)
        )),
    })
}

fn some(what: &BTreeMap<String, String>) -> String {
    let shown = what.iter().take(SHOWN);
    let texts: Vec<String> = shown
        .map(|(name, text)| format!("{name}: {text}"))
        .collect();
    let more = what.len().saturating_sub(SHOWN);
    match more {
        0 => texts.join("; "),
        more => format!("{}; and {more} more", texts.join("; ")),
    }
}

async fn look(
    objects: &Objects,
    applied: &[Named],
    switches: &Switches,
) -> Result<Standing, JobError> {
    let mut all = Vec::new();
    for (version, kind) in tree::KINDS {
        all.extend(objects.list(version, kind, None, "").await?);
    }
    let mut standing = tree::judge(&all, switches);
    // What we applied ourselves must be among them.
    for object in applied.iter().map(at) {
        let name = object.to_string();
        let ours = tree::KINDS.iter().any(|(_, kind)| *kind == object.kind);
        if ours && !standing.knows(&name) {
            standing.not_yet.insert(name, "it is gone".to_owned());
        }
    }
    Ok(standing)
}

async fn prove(
    objects: &Objects,
    definitions: &[String],
    controllers: &BTreeMap<String, Vec<String>>,
    applied: &[Named],
    switches: &Switches,
) -> Result<Proof, JobError> {
    let kinds = matches!(established(objects, definitions).await?, Poll::Ready(()));
    let run = matches!(available(objects, controllers).await?, Poll::Ready(()));
    let mut images = BTreeMap::new();
    for name in controllers.keys() {
        let deployment = Object::at("apps/v1", "Deployment", Some(NAMESPACE), name);
        let seen = objects.get(&deployment).await?.unwrap_or(Value::Null);
        let seen: Vec<String> = pods::images(&seen).into_iter().map(str::to_owned).collect();
        images.insert(name.clone(), seen);
    }
    let standing = look(objects, applied, switches).await?;
    let holds = kinds
        && run
        && images == *controllers
        && standing.not_yet.is_empty()
        && standing.stuck.is_empty()
        && !standing.ready.is_empty();
    Ok(Proof {
        expected: json!({"definitions": definitions.len(), "controllers": controllers, "tree": "ready, or waiting for a switch"}),
        observed: json!({"definitions": if kinds { definitions.len() } else { 0 }, "controllers": images,
            "available": run, "tree": standing}),
        holds,
    })
}
