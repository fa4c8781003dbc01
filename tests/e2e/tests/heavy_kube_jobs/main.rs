//! The jobs of the Kubernetes half against a real kube-apiserver, which workers come to as in the field: by the sshd of
//! a bastion and of a master. Then kubectl looks at what they applied. Needs root.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod owned;
mod world;

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jobs::ids::StepKey;
use jobs::message::{Change, Image, Job, PutSecret, Release, Restore, Switch, WaitCertificates};
use jobs::record::JobRecord;
use sandbox::payload::ROWS;
use serde_json::{Value, json};
use worker::kube::{Manifest, Object, kept};

use owned::{Ours, names_and_holds, ours};
use world::Scene;

/// What the spec wants installed.
const INSTALL: &str = "artifacts/flux/2.8.8/install.yaml";

fn output<'a>(record: &'a JobRecord, step: &str) -> &'a Value {
    &record.steps[&StepKey::new(step).unwrap()].output
}

fn freeze(application: &str) -> Job {
    let application = application.parse().unwrap();
    let change = Change::Freeze { application };
    Job::Switch(Switch { change })
}

fn thaw(application: &str) -> Job {
    let application = application.parse().unwrap();
    let change = Change::Thaw { application };
    Job::Switch(Switch { change })
}

fn tag(tag: &str) -> Job {
    Job::Release(Release {
        application: "dsf".parse().unwrap(),
        image: Image::Tag(tag.parse().unwrap()),
    })
}

fn secret() -> Job {
    Job::Secret(PutSecret {
        secret: "pg/keys".parse().unwrap(),
        keys: [("domain".to_owned(), "DOMAIN".to_owned())].into(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_flux_and_a_database_come_back_over_ssh_and_a_real_api_and_kubectl_sees_no_more_than_was_described()
-> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let bootstrap = scene.done(Job::FluxBootstrap).await?;
    assert_eq!(output(&bootstrap, "prove/flux")["holds"], true);
    scene
        .done(Job::WaitCertificates(WaitCertificates::default()))
        .await?;
    let restored = scene.done(Job::Restore(Restore::default())).await?;
    assert_eq!(scene.crew.rows(), Some(2 * ROWS));
    assert_eq!(scene.crew.destroyed(), 0);
    let proofs = output(&restored, "data")["proofs"]
        .as_array()
        .context("proofs")?;
    assert!(
        proofs.iter().all(|proof| proof["holds"] == true),
        "{proofs:?}"
    );
    scene.done(tag("123.2")).await?;
    scene.done(freeze("slr")).await?;
    scene.done(thaw("slr")).await?;
    scene.done(secret()).await?;

    is_kept(&scene).await?;
    kubectl_sees_what_was_described(&scene).await?;
    scene.stop().await
}

/// The kubeconfig of the real API is kept, and opens with the worker's key.
async fn is_kept(scene: &Scene) -> anyhow::Result<()> {
    let cluster = "test".parse()?;
    let kept = kept::open(&scene.store, &cluster, Some(&scene.identity)).await?;
    let path = scene.folder.path().join("kept.conf");
    std::fs::write(&path, kept.config.text().reveal())?;
    let path = path.to_str().context("a path")?;
    let ready = scene
        .kubectl_says(&["get", "--raw", "/readyz", "--kubeconfig", path])
        .await?;
    ensure!(ready == "ok", "{ready}");
    Ok(())
}

async fn kubectl_sees_what_was_described(scene: &Scene) -> anyhow::Result<()> {
    let kinds = scene
        .kubectl_says(&["api-resources", "--verbs=list", "-o", "name"])
        .await?;
    let kinds: Vec<&str> = kinds
        .lines()
        .filter(|kind| !kind.starts_with("events"))
        .collect();
    let all = [
        "get",
        &kinds.join(","),
        "--all-namespaces",
        "--show-managed-fields",
        "-o",
        "json",
    ];
    let seen = scene.kubectl(&all).await?;
    let seen = seen["items"].as_array().context("a list")?;
    ensure!(seen.len() > 50, "{} objects", seen.len());
    let found = ours(seen);

    // Whole objects are applied, each as it was described.
    let described = described(scene)?;
    let names: BTreeSet<String> = described.iter().map(ToString::to_string).collect();
    let applied = found
        .iter()
        .filter(|it| it.manager == "rekindle" && it.applied);
    let applied: Vec<&Ours> = applied.collect();
    let there: BTreeSet<String> = applied.iter().map(|it| it.name.clone()).collect();
    assert_eq!(there, names);
    for it in &applied {
        let wanted = described
            .iter()
            .find(|object| object.to_string() == it.name);
        names_and_holds(it, &wanted.context("it was described")?.body)?;
    }

    // Of objects that are others' as well, as little as was asked for.
    let changed = found
        .iter()
        .filter(|it| it.manager == "rekindle" && !it.applied);
    for it in changed {
        let kind = it.name.split(' ').next().unwrap_or_default();
        let may = match kind {
            "ConfigMap" => json!({"metadata": {"labels": {"reconcile.fluxcd.io/watch": "Enabled"}},
                "data": {"values-switch.yaml": it.object["data"]["values-switch.yaml"]}}),
            "HelmRelease" => {
                json!({"metadata": {"annotations": it.object["metadata"]["annotations"]}})
            }
            _ => anyhow::bail!("{} was changed", it.name),
        };
        names_and_holds(it, &may)?;
        ensure!(
            kind != "ConfigMap" || it.name.ends_with("-values-switch"),
            "{}",
            it.name
        );
        if kind == "HelmRelease" {
            let fields = it.fields["f:metadata"]["f:annotations"]
                .as_object()
                .context("annotations")?;
            let mut keys = fields.keys().map(String::as_str);
            ensure!(
                keys.all(|key| key == "." || key.starts_with("f:reconcile.fluxcd.io/")),
                "{}: {fields:?}",
                it.name
            );
        }
    }
    let switches = found
        .iter()
        .filter(|it| !it.applied && it.name.starts_with("ConfigMap "));
    let switches: BTreeSet<&str> = switches.map(|it| it.name.as_str()).collect();
    let expected =
        ["dsf/dsf", "pg/pg-db", "slr/slr"].map(|it| format!("ConfigMap {it}-values-switch"));
    assert_eq!(switches, expected.iter().map(String::as_str).collect());

    // A Secret's keys have a manager of their own.
    let others = found.iter().filter(|it| it.manager != "rekindle");
    let others: Vec<&Ours> = others.collect();
    assert_eq!(others.len(), 1, "{others:?}");
    let keys = others[0];
    assert_eq!(keys.name, "Secret pg/keys");
    assert!(keys.manager.starts_with("rekindle-secret-") && keys.applied);
    let domain = BASE64_STANDARD.encode(&scene.secrets()["DOMAIN"]);
    names_and_holds(keys, &json!({"data": {"domain": domain}}))
}

/// All that `flux-bootstrap` is to apply: Flux' own manifest, tuned in one place; the Secrets; and `flux/test`.
fn described(scene: &Scene) -> anyhow::Result<Vec<Object>> {
    let install = scene.sandbox.s3.object(INSTALL).context("the manifest")?;
    let install = Manifest::parse(std::str::from_utf8(&install)?, "install.yaml")?;
    let tree = Manifest::parse(&Scene::bootstrap()?, "flux/test")?;
    let mut all: Vec<Object> =
        [install.foundation, install.rest, tree.foundation, tree.rest].concat();
    for object in &mut all {
        let busy = ["kustomize-controller", "helm-controller"].contains(&object.name.as_str());
        if object.kind == "Deployment" && busy {
            let args = object
                .body
                .pointer_mut("/spec/template/spec/containers/0/args");
            let args = args.and_then(Value::as_array_mut).context("arguments")?;
            args.retain(|arg| {
                !arg.as_str()
                    .is_some_and(|arg| arg.starts_with("--concurrent="))
            });
            args.push("--concurrent=10".into());
        }
    }
    let given = scene.secrets();
    for (name, keys) in [
        (
            "flux-system",
            vec![
                ("username", "git"),
                ("password", given["GITHUB_TOKEN"].as_str()),
            ],
        ),
        (
            "s3-sops",
            vec![
                ("accesskey", given["CLUSTER_S3_ACCESS_KEY"].as_str()),
                ("secretkey", given["CLUSTER_S3_SECRET_KEY"].as_str()),
            ],
        ),
        (
            "sops-age",
            vec![("age.agekey", given["SOPS_AGE_KEY"].as_str())],
        ),
        (
            "cert-manager-acme-email",
            vec![("ACME_EMAIL", given["ACME_EMAIL"].as_str())],
        ),
        ("cluster-domain", vec![("DOMAIN", given["DOMAIN"].as_str())]),
    ] {
        let mut body = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"namespace": "flux-system", "name": name,
                "labels": {"reconcile.fluxcd.io/watch": "Enabled"}}});
        for (key, value) in keys {
            body["data"][key] = BASE64_STANDARD.encode(value.trim()).into();
        }
        all.push(Object::new(body).map_err(|lacks| anyhow::anyhow!("{name} lacks {lacks}"))?);
    }
    Ok(all)
}
