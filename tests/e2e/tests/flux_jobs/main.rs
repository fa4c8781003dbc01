//! The jobs that hand a cluster to Flux and change what runs on it, on the real tree.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod kubeconfig;
mod world;

use std::collections::BTreeMap;

use anyhow::ensure;
use jobs::ids::StepKey;
use jobs::message::{Change, Image, Job, PutSecret, Release, Switch, WaitCertificates};
use jobs::record::JobRecord;
use sandbox::operators::Fault;
use serde_json::{Value, json};

use world::{CANARY, DOMAIN, MANIFEST, Scene, TOKEN, VERSION};

fn output<'a>(record: &'a JobRecord, step: &str) -> &'a Value {
    &record.steps[&StepKey::new(step).unwrap()].output
}

fn names(of: &Value) -> Vec<&str> {
    let map = of.as_object().unwrap();
    map.keys().map(String::as_str).collect()
}

/// What Flux' own objects and ours say of themselves, without what controllers write.
fn ours(scene: &Scene) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for it in scene.sim.objects() {
        let meta = &it["metadata"];
        let fields = meta["managedFields"].as_array().into_iter().flatten();
        let fields: Vec<&Value> = fields.filter(|e| e["manager"] == "rekindle").collect();
        if !fields.is_empty() {
            let name = format!("{} {}/{}", it["kind"], meta["namespace"], meta["name"]);
            let shown =
                json!({"generation": meta["generation"], "data": it["data"], "ours": fields});
            found.insert(name, shown);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn flux_takes_over_and_what_waits_for_a_switch_is_named() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let record = scene.done(Job::FluxBootstrap).await?;

    let tree = output(&record, "tree");
    assert_eq!(
        names(&tree["waiting"]),
        [
            "HelmRelease pg/pg-db",
            "Kustomization flux-system/harbor",
            "Kustomization flux-system/pg-db",
            "Kustomization flux-system/saleor",
            "Kustomization flux-system/storefront",
        ]
    );
    assert_eq!(
        tree["waiting"]["HelmRelease pg/pg-db"],
        "waits for ConfigMap pg/pg-db-values-switch"
    );
    let ready = names(&tree["ready"]);
    for name in [
        "flux-system",
        "infra",
        "secrets-pg",
        "pmm",
        "monitoring",
        "certificates",
    ] {
        assert!(
            ready.contains(&format!("Kustomization flux-system/{name}").as_str()),
            "{name}: {ready:?}"
        );
    }
    assert!(ready.contains(&"GitRepository flux-system/flux-system"));
    let proof = output(&record, "prove/flux");
    assert_eq!(proof["holds"], true);
    assert_eq!(
        output(&record, "canary")["names"],
        json!(["s3.conf"]),
        "the names, and no value"
    );

    let controller = scene
        .sim
        .get("Deployment", "flux-system", "helm-controller")
        .unwrap();
    let args = &controller["spec"]["template"]["spec"]["containers"][0]["args"];
    assert!(
        args.as_array().unwrap().contains(&json!("--concurrent=10")),
        "{args}"
    );
    for (name, keys) in [
        ("flux-system", vec!["password", "username"]),
        ("s3-sops", vec!["accesskey", "secretkey"]),
        ("sops-age", vec!["age.agekey"]),
        ("cert-manager-acme-email", vec!["ACME_EMAIL"]),
        ("cluster-domain", vec!["DOMAIN"]),
    ] {
        let secret = scene.sim.get("Secret", "flux-system", name).unwrap();
        assert_eq!(names(&secret["data"]), keys, "{name}");
    }

    // Once more: the same objects, each as it was.
    let before = ours(&scene);
    ensure!(before.len() > 20, "{before:?}");
    scene.done(Job::FluxBootstrap).await?;
    let after = ours(&scene);
    for (name, was) in &before {
        assert_eq!(&after[name], was, "{name}");
    }
    assert_eq!(after.len(), before.len());

    // No secret in anything that was kept.
    for (key, body) in scene.lab.sandbox.s3.objects("clusters/") {
        let text = String::from_utf8_lossy(&body);
        for secret in [
            TOKEN,
            DOMAIN,
            "AGE-SECRET-KEY",
            "ops@example.org",
            "made up",
        ] {
            ensure!(!text.contains(secret), "{key} holds {secret}");
        }
    }
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_applied_while_something_is_wrong_with_keys_or_components() -> anyhow::Result<()>
{
    let scene = Scene::new().await?;
    let s3 = &scene.lab.sandbox.s3;
    let but = |name: &str, value: Option<String>| {
        let mut given = scene.secrets();
        given.retain(|(key, _)| *key != name);
        if let (Some(value), Some((key, _))) = (
            value,
            scene.secrets().into_iter().find(|(key, _)| *key == name),
        ) {
            given.push((key, value));
        }
        given
    };
    let check = async |spec: &str, given: &[(&str, String)], words: &[&str]| {
        let why = scene.fails_with(spec, Job::FluxBootstrap, given).await?;
        for word in words {
            ensure!(why.contains(word), "`{word}` is not in: {why}");
        }
        let there = scene.sim.get("Namespace", "", "flux-system");
        ensure!(there.is_none(), "it was applied although {why}");
        Ok(())
    };
    let spec = scene.spec();
    let other = sandbox::operators::flux::sealed::age_key().0;
    check(
        &spec,
        &but("SOPS_AGE_KEY", Some(other)),
        &[
            "flux.canary",
            "none of the SOPS keys fits",
            "Nothing was applied",
        ],
    )
    .await?;
    check(
        &spec,
        &but("SOPS_AGE_KEY", None),
        &["no secret SOPS_AGE_KEY"],
    )
    .await?;
    check(
        &spec,
        &but("GITHUB_TOKEN", None),
        &[
            "no secret GITHUB_TOKEN",
            "GitRepository flux-system/flux-system",
        ],
    )
    .await?;
    check(
        &spec,
        &but("ACME_EMAIL", None),
        &["no secret ACME_EMAIL", "certificates"],
    )
    .await?;
    check(
        &spec,
        &but("CLUSTER_S3_SECRET_KEY", Some("wrong".into())),
        &["flux.canary", "CLUSTER_S3_SECRET_KEY", "right?"],
    )
    .await?;
    let elsewhere = spec.replace(CANARY, "test/none.yaml");
    check(
        &elsewhere,
        &scene.secrets(),
        &["flux.canary", "there is no `test/none.yaml`"],
    )
    .await?;

    // Components with another digest than the spec's.
    let digits = "0a".repeat(32);
    let pinned = spec.replace(
        &format!("version: \"{VERSION}\"\n  secrets"),
        &format!("version: \"{VERSION}\"\n  digest: \"sha256:{digits}\"\n  secrets"),
    );
    check(
        &pinned,
        &scene.secrets(),
        &["flux.digest", &digits, MANIFEST],
    )
    .await?;
    // Or than on the day of their first use.
    s3.put_object(&MANIFEST.replace("install.yaml", "sha256"), digits.clone());
    check(&spec, &scene.secrets(), &["first used", &digits]).await?;
    // Or of another version.
    let install = sandbox::operators::flux::install_yaml("2.8.8");
    s3.put_object(MANIFEST, install);
    check(&spec, &scene.secrets(), &["that of v2.8.8"]).await?;
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_refuses_the_token_is_named_at_once() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    scene.operators.faults().set(Fault::GitAuth);
    let why = scene.fails(Job::FluxBootstrap).await?;
    for word in [
        "GitRepository flux-system/flux-system",
        "GitOperationFailed",
        "authentication required",
        "GITHUB_TOKEN",
    ] {
        ensure!(why.contains(word), "`{word}` is not in: {why}");
    }
    // Mended, it goes on where it was.
    scene.operators.faults().clear_all();
    scene.done(Job::FluxBootstrap).await?;
    scene.lab.sandbox.stop().await
}

fn switch(change: Change) -> Job {
    Job::Switch(Switch { change })
}

fn values(switch: &str, values: Value, release: Option<&str>) -> Job {
    self::switch(Change::Values {
        switch: switch.parse().unwrap(),
        values: serde_json::from_value(values).unwrap(),
        release: release.map(|name| name.parse().unwrap()),
    })
}

fn freeze(application: &str) -> Job {
    let application = application.parse().unwrap();
    switch(Change::Freeze { application })
}

fn thaw(application: &str) -> Job {
    let application = application.parse().unwrap();
    switch(Change::Thaw { application })
}

#[tokio::test(flavor = "multi_thread")]
async fn switches_are_changed_recorded_and_taken_by_their_releases() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    scene
        .waits(freeze("slr"), "there is no namespace slr")
        .await?;
    scene.done(Job::FluxBootstrap).await?;

    // Before its release is there, nobody is asked.
    let record = scene.done(freeze("slr")).await?;
    assert_eq!(output(&record, "before")["text"], Value::Null);
    assert_eq!(output(&record, "ask/0"), false);
    let frozen = scene.switch("slr", "slr-values-switch").unwrap();
    assert_eq!(names(&frozen), ["api", "beat", "migrationjob", "worker"]);

    // The database's lets it be made; its release has taken it.
    let generation =
        json!({"backups": {"pgbackrest": {"global": {"repo1-path": "/pgbackrest/test/2"}}}});
    let record = scene
        .done(values(
            "pg/pg-db-values-switch",
            generation.clone(),
            Some("pg-db"),
        ))
        .await?;
    assert_eq!(output(&record, "handled/0"), true);
    let database = scene.sim.get("PerconaPGCluster", "pg", "pg-db").unwrap();
    assert_eq!(
        database["spec"]["backups"]["pgbackrest"]["global"]["repo1-path"],
        "/pgbackrest/test/2"
    );

    // What somebody else wrote stays; null takes away.
    let more = json!({"pmm": {"enabled": false}, "backups": {"pgbackrest": {"global": {"repo1-retention": "3"}}}});
    scene
        .done(values("pg/pg-db-values-switch", more, Some("pg-db")))
        .await?;
    let less =
        json!({"pmm": null, "backups": {"pgbackrest": {"global": {"repo1-retention": null}}}});
    let record = scene
        .done(values("pg/pg-db-values-switch", less, Some("pg-db")))
        .await?;
    assert_eq!(
        scene.switch("pg", "pg-db-values-switch"),
        Some(generation.clone())
    );
    let replaced: Value =
        serde_json::from_str(output(&record, "before")["text"].as_str().unwrap())?;
    assert_eq!(replaced["pmm"]["enabled"], false);

    // No order to restore over a living database.
    let source = json!({"dataSource": {"pgbackrest": {"stanza": "db"}}});
    let why = scene
        .fails(values("pg/pg-db-values-switch", source, Some("pg-db")))
        .await?;
    ensure!(
        why.contains("dataSource") && why.contains("overwrite the living database"),
        "{why}"
    );
    assert_eq!(scene.switch("pg", "pg-db-values-switch"), Some(generation));

    // When the release comes, it is thawed and asked.
    scene.until(["HelmRelease", "slr", "slr"], |_| true).await?;
    let record = scene.done(thaw("slr")).await?;
    assert_eq!(output(&record, "handled/0"), true);
    assert_eq!(scene.switch("slr", "slr-values-switch"), Some(json!({})));
    assert!(scene.sim.get("Deployment", "slr", "slr-api").is_some());

    // A release that fails with the values says so.
    scene
        .operators
        .faults()
        .set(Fault::ReleaseFails("slr/slr".into()));
    let why = scene.fails(freeze("slr")).await?;
    ensure!(
        why.contains("HelmRelease slr/slr") && why.contains("UpgradeFailed"),
        "{why}"
    );
    // A switch that nobody can read is not written over.
    let mut broken = scene
        .sim
        .get("ConfigMap", "slr", "slr-values-switch")
        .unwrap();
    broken["data"]["values-switch.yaml"] = "- a list".into();
    scene.sim.put(broken)?;
    let why = scene.fails(freeze("slr")).await?;
    ensure!(
        why.contains("slr/slr-values-switch is not a map of values"),
        "{why}"
    );
    scene.lab.sandbox.stop().await
}

fn release(image: Image) -> Job {
    Job::Release(Release {
        application: "dsf".parse().unwrap(),
        image,
    })
}

fn tag(tag: &str) -> Job {
    release(Image::Tag(tag.parse().unwrap()))
}

fn running(scene: &Scene) -> Vec<String> {
    let all = scene.sim.objects().into_iter();
    let ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        conditions
            .into_iter()
            .any(|it| it["type"] == "Ready" && it["status"] == "True")
    };
    let pods =
        all.filter(|it| it["kind"] == "Pod" && it["metadata"]["namespace"] == "dsf" && ready(it));
    pods.map(|pod| {
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
        image.rsplit_once(':').unwrap().1.to_owned()
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_proven_or_rolled_back_to_what_was() -> anyhow::Result<()> {
    let scene = Scene::bootstrapped().await?;
    let normal =
        json!({"backups": {"pgbackrest": {"global": {"repo1-path": "/pgbackrest/test/2"}}}});
    scene
        .done(values("pg/pg-db-values-switch", normal, Some("pg-db")))
        .await?;
    scene.done(thaw("slr")).await?;
    scene.done(freeze("dsf")).await?;
    let why = scene.fails(release(Image::Former)).await?;
    ensure!(why.contains("no release of it was ever proven"), "{why}");

    let record = scene.done(tag("123.10")).await?;
    let some = |tag: &str| Some(tag.to_owned());
    assert_eq!(scene.released().await?, Some((some("123.10"), None)));
    assert_eq!(running(&scene), ["123.10"]);
    let proof = output(&record, "prove/release");
    assert_eq!(proof["observed"]["answer"]["found"], "the-data");
    let url = proof["observed"]["answer"]["url"].as_str().unwrap();
    assert_eq!(url, "http://shop.${DOMAIN}:8080/", "the domain is a secret");
    let text = scene
        .sim
        .get("ConfigMap", "dsf", "dsf-values-switch")
        .unwrap();
    assert!(
        text["data"]["values-switch.yaml"]
            .as_str()
            .unwrap()
            .contains("\"123.10\"")
    );

    // An image that cannot be pulled.
    scene.operators.faults().set(Fault::BrokenTag("124".into()));
    let why = scene.fails(tag("124")).await?;
    ensure!(
        why.contains("HelmRelease dsf/dsf") && why.contains("`124`") && why.contains("--rollback"),
        "{why}"
    );
    assert_eq!(running(&scene), ["123.10"]);
    assert_eq!(scene.released().await?, Some((some("123.10"), None)));

    // Back to what was proven; then forward and back again.
    scene.done(release(Image::Former)).await?;
    assert_eq!(scene.released().await?, Some((some("123.10"), None)));
    scene.done(tag("125")).await?;
    assert_eq!(scene.released().await?, Some((some("125"), some("123.10"))));
    assert_eq!(running(&scene), ["125"]);
    scene.done(release(Image::Former)).await?;
    assert_eq!(scene.released().await?, Some((some("123.10"), some("125"))));
    assert_eq!(running(&scene), ["123.10"]);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_waited_for_and_a_refused_order_is_named() -> anyhow::Result<()> {
    let scene = Scene::with_namespace("istio-system").await?;
    let wait = || Job::WaitCertificates(WaitCertificates::default());
    scene
        .waits(wait(), "cert-manager's kinds are not there yet")
        .await?;
    for (group, kind) in [
        ("cert-manager.io", "Certificate"),
        ("cert-manager.io", "CertificateRequest"),
        ("acme.cert-manager.io", "Order"),
        ("acme.cert-manager.io", "Challenge"),
    ] {
        scene.define(group, kind).await?;
    }
    scene
        .waits(wait(), "there is no Certificate istio-system/tls-slr")
        .await?;
    let certificate = ["Certificate", "istio-system", "tls-slr"];
    scene.sim.put(
        json!({"apiVersion": "cert-manager.io/v1", "kind": "Certificate",
        "metadata": {"namespace": "istio-system", "name": "tls-slr"},
        "spec": {"secretName": "tls-slr", "dnsNames": ["slr.example.org"]}}),
    )?;
    scene
        .waits(
            wait(),
            "istio-system/tls-slr: its controller has not seen it yet",
        )
        .await?;

    let there = scene
        .sim
        .get(certificate[0], certificate[1], certificate[2])
        .unwrap();
    let generation = there["metadata"]["generation"].clone();
    let ready = |status: &str, reason: &str, generation: &Value| json!({"type": "Ready", "status": status, "reason": reason, "observedGeneration": generation});
    scene.set_status(
        certificate,
        json!({"conditions": [ready("False", "DoesNotExist", &generation)]}),
    );
    let owned = |kind: &str, version: &str, name: &str, owner: &Value, more: Value| {
        let mut object = json!({"apiVersion": version, "kind": kind,
            "metadata": {"namespace": "istio-system", "name": name, "ownerReferences": [{
                "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"]}]}});
        for (key, value) in more.as_object().unwrap() {
            object[key] = value.clone();
        }
        object
    };
    let pending =
        json!({"type": "Ready", "status": "False", "reason": "Pending", "message": "Waiting"});
    let request = owned(
        "CertificateRequest",
        "cert-manager.io/v1",
        "slr-1",
        &there,
        json!({"status": {"conditions": [pending]}}),
    );
    scene.sim.put(request)?;
    scene
        .waits(wait(), "CertificateRequest slr-1: Pending: Waiting")
        .await?;

    let request = scene
        .sim
        .get("CertificateRequest", "istio-system", "slr-1")
        .unwrap();
    let state = json!({"status": {"state": "invalid", "reason": "no A record for slr"}});
    scene.sim.put(owned(
        "Order",
        "acme.cert-manager.io/v1",
        "slr-1-7",
        &request,
        state,
    ))?;
    let why = scene.fails(wait()).await?;
    ensure!(
        why.contains("Certificate istio-system/tls-slr")
            && why.contains("Order slr-1-7 is invalid: no A record"),
        "{why}"
    );

    // It is issued, but its Secret is not there; then it is.
    let issued = json!({"conditions": [ready("True", "Ready", &generation)], "notAfter": "2999-01-01T00:00:00Z", "revision": 1});
    scene.set_status(certificate, issued);
    let why = scene.fails(wait()).await?;
    ensure!(
        why.contains("the proof `certificates` does not hold"),
        "{why}"
    );
    let name = there["spec"]["secretName"].as_str().unwrap();
    scene.sim.put(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "istio-system", "name": name},
        "data": {"tls.crt": "YQ==", "tls.key": "YQ=="}}))?;
    let record = scene.done(wait()).await?;
    let proof = &output(&record, "prove/certificates")["observed"]["istio-system/tls-slr"];
    assert_eq!(proof["certificate"]["until"], "2999-01-01T00:00:00Z");
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secrets_keys_are_written_and_other_keys_stay() -> anyhow::Result<()> {
    let scene = Scene::with_namespace("pg").await?;
    let put = |keys: &[(&str, &str)]| {
        let own = |(key, name): &(&str, &str)| ((*key).to_owned(), (*name).to_owned());
        Job::Secret(PutSecret {
            secret: "pg/keys".parse().unwrap(),
            keys: keys.iter().map(own).collect(),
        })
    };
    scene.sim.put(json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"namespace": "pg", "name": "keys"},
        "data": {"theirs": "dGhlaXJz"}}))?;
    let record = scene.done(put(&[("a", "BACKUP_KEY")])).await?;
    assert_eq!(output(&record, "before"), &json!(["theirs"]));
    scene
        .done(put(&[("b", "BACKUP_KEY"), ("c", "DOMAIN")]))
        .await?;
    scene.done(put(&[("a", "ACME_EMAIL")])).await?;
    let secret = scene.sim.get("Secret", "pg", "keys").unwrap();
    assert_eq!(
        secret["data"],
        json!({"theirs": "dGhlaXJz", "a": "b3BzQGV4YW1wbGUub3Jn", "b": "aHVudGVyMg==",
            "c": "c2VjcmV0LWRvbWFpbi5leGFtcGxlLm9yZw=="})
    );
    let why = scene.fails(put(&[("a", "NOT_GIVEN")])).await?;
    ensure!(why.contains("NOT_GIVEN"), "{why}");
    for (key, body) in scene.lab.sandbox.s3.objects("clusters/") {
        let text = String::from_utf8_lossy(&body);
        ensure!(
            !text.contains("hunter2") && !text.contains("aHVudGVyMg"),
            "{key}"
        );
    }
    scene.lab.sandbox.stop().await
}
