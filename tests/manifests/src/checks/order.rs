//! Flux applies what it can at once and the rest when what it depends on is Ready. All waits are one graph: what is
//! applied waits for other Kustomizations, one that waits for health waits for its releases, and a release waits for
//! being applied and for other releases. A circle in it stands still for ever.

use std::collections::{BTreeMap, BTreeSet};

use super::kinds::BROUGHT;
use super::references::named_secrets;
use crate::document::{field, keys};
use crate::{BY_SOPS, Document, Finding, Tree};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Applied(String),
    Ready(String),
    Released(String, String),
}

type Graph = BTreeMap<Event, BTreeSet<Event>>;

/// What is depended on exists, nothing waits for itself, and kinds come before their objects.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = missing(tree);
    let graph = graph(tree);
    for event in graph.keys() {
        if after(&graph, event).contains(event) {
            let place = match event {
                Event::Applied(name) | Event::Ready(name) => format!("Kustomization {name}"),
                Event::Released(namespace, name) => format!("HelmRelease {namespace}/{name}"),
            };
            findings.push(Finding::new(place, "it waits for itself"));
        }
    }
    findings.extend(early_kinds(tree, &graph));
    findings.extend(early_releases(tree, &graph));
    findings
}

/// The names that an object depends on, with their namespaces.
fn depends_on(document: &Document) -> impl Iterator<Item = (String, String)> {
    document.items("/spec/dependsOn").iter().map(|dependency| {
        let namespace = match field(dependency, "namespace") {
            "" => document.namespace(),
            other => other,
        };
        (namespace.to_owned(), field(dependency, "name").to_owned())
    })
}

fn missing(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for document in tree.kustomizations().chain(tree.releases()) {
        for (namespace, name) in depends_on(document) {
            if tree.find(document.kind(), &namespace, &name).is_none() {
                let what = format!("it depends on {namespace}/{name}, which does not exist");
                findings.push(Finding::new(document.id(), what));
            }
        }
    }
    findings
}

fn graph(tree: &Tree) -> Graph {
    let mut graph = Graph::new();
    let mut wait = |one: Event, other: Event| {
        graph.entry(one).or_default().insert(other);
    };
    for document in tree.kustomizations() {
        let name = document.name().to_owned();
        for (_, dependency) in depends_on(document) {
            wait(Event::Applied(name.clone()), Event::Ready(dependency));
        }
        // What says this Kustomization must have been applied itself; the root is applied by Rekindle.
        if document.layer != name {
            wait(
                Event::Applied(name.clone()),
                Event::Applied(document.layer.clone()),
            );
        }
        wait(Event::Ready(name.clone()), Event::Applied(name.clone()));
        if waits(document) {
            for release in tree.releases().filter(|r| r.layer == name) {
                let release = Event::Released(release.namespace().into(), release.name().into());
                wait(Event::Ready(name.clone()), release);
            }
            for inner in tree.kustomizations().filter(|k| k.layer == name) {
                wait(
                    Event::Ready(name.clone()),
                    Event::Ready(inner.name().into()),
                );
            }
        }
    }
    for release in tree.releases() {
        let event = Event::Released(release.namespace().into(), release.name().into());
        wait(event.clone(), Event::Applied(release.layer.clone()));
        for (namespace, name) in depends_on(release) {
            wait(event.clone(), Event::Released(namespace, name));
        }
    }
    graph
}

/// Whether Ready means that what was applied is well.
pub(super) fn waits(kustomization: &Document) -> bool {
    kustomization.value.pointer("/spec/wait") == Some(&true.into())
        || !kustomization.items("/spec/healthChecks").is_empty()
}

/// Everything that comes before an event.
fn after(graph: &Graph, event: &Event) -> BTreeSet<Event> {
    let mut before = BTreeSet::new();
    let mut open: Vec<_> = graph.get(event).into_iter().flatten().collect();
    while let Some(next) = open.pop() {
        if before.insert(next.clone()) {
            open.extend(graph.get(next).into_iter().flatten());
        }
    }
    before
}

/// Objects of a kind that a release brings, in a Kustomization that does not wait for that release: the first try
/// fails, and the next one comes an interval later.
fn early_kinds(tree: &Tree, graph: &Graph) -> Vec<Finding> {
    let mut findings = Vec::new();
    for document in &tree.documents {
        let kind = (document.api_version(), document.kind());
        let brought = BROUGHT.iter().find(|b| (b.0, b.1) == kind);
        let Some((_, _, namespace, name)) = brought else {
            continue;
        };
        let release = Event::Released((*namespace).to_owned(), (*name).to_owned());
        let before = after(graph, &Event::Applied(document.layer.clone()));
        if !before.contains(&release) {
            let what = format!(
                "Kustomization {} does not wait for {namespace}/{name}, which brings its kind",
                document.layer
            );
            findings.push(Finding::new(document.id(), what));
        }
    }
    findings
}

/// Releases whose secrets or disks come from a Kustomization that theirs does not wait for: pods that cannot start
/// until it is there, and a release that fails over it.
fn early_releases(tree: &Tree, graph: &Graph) -> Vec<Finding> {
    let mut findings = Vec::new();
    for release in tree.releases() {
        let before = after(graph, &Event::Applied(release.layer.clone()));
        for layer in needed(tree, release) {
            if !before.contains(&Event::Ready(layer.to_owned())) {
                let what = format!("Kustomization {} does not wait for {layer}", release.layer);
                findings.push(Finding::new(release.id(), what));
            }
        }
    }
    findings
}

/// The Kustomizations that bring a release's secrets and disks.
fn needed<'a>(tree: &'a Tree, release: &Document) -> BTreeSet<&'a str> {
    let mut layers = BTreeSet::new();
    let sealed = |name: &String| {
        let mut given = BY_SOPS.iter();
        given.any(|g| g.namespace == release.namespace() && g.name == name)
    };
    if named_secrets(tree, release).iter().any(sealed) {
        let decrypts = |k: &&Document| {
            k.text("/spec/sourceRef/kind") == "Bucket"
                && k.text("/spec/targetNamespace") == release.namespace()
        };
        layers.extend(tree.kustomizations().filter(decrypts).map(Document::name));
    }
    for values in tree.values(release) {
        keys(&values, &mut |key, class| {
            if key == "storageClassName" {
                let name = class.as_str().unwrap_or_default();
                let class = tree.find("StorageClass", "", name);
                layers.extend(class.map(|class| class.layer.as_str()));
            }
        });
    }
    layers
}
