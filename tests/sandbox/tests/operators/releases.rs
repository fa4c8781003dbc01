//! What becomes of releases: the storefront's rollback, what is retried for ever, and what visitors see meanwhile.

use std::sync::{Arc, Mutex};

use sandbox::operators::Fault;
use sandbox::operators::app::{App, AppSettings};
use serde_json::{Value, json};

use crate::world::{HELM, SOURCE, World, client, is_ready, ready};

/// The storefront's release as the tree has it, without what it stands on.
fn release(name: &str, more: &Value) -> Value {
    let mut object = json!({"apiVersion": HELM, "kind": "HelmRelease",
    "metadata": {"name": name, "namespace": name},
    "spec": {
        "releaseName": name,
        "chart": {"spec": {"chart": format!("./fluxcd/charts/{name}"), "version": "0.2.0",
            "sourceRef": {"kind": "GitRepository", "name": "repo", "namespace": "flux-system"},
            "reconcileStrategy": "ChartVersion"}},
        "interval": "10m", "timeout": "2m",
        "valuesFrom": [{"kind": "ConfigMap", "name": format!("{name}-values-switch"), "valuesKey": "values-switch.yaml"}],
        "values": {"image": {"repository": "harbor.example.org/library/storefront"}},
    }});
    for (field, value) in more.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut all = object["status"]["conditions"].as_array()?.iter();
    all.find(|condition| condition["type"] == kind)
}

async fn page(app: &App) -> (u16, String) {
    let answer = reqwest::get(app.url()).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// A world in which only our charts are there.
async fn world() -> World {
    let world = World::of(concat!(env!("CARGO_MANIFEST_DIR"), "/../..").as_ref()).await;
    world
        .secret("git", &[("username", "git"), ("password", "token-1")])
        .await;
    world.apply(&json!({"apiVersion": SOURCE, "kind": "GitRepository",
        "metadata": {"name": "repo", "namespace": "flux-system"},
        "spec": {"url": "https://git.example.org/a.git", "interval": "1m", "ref": {"branch": "main"},
            "ignore": "/*\n!/fluxcd\n", "secretRef": {"name": "git"}}})).await;
    for name in ["dsf", "slr"] {
        world
            .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
            .await;
    }
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_a_storefront_that_does_not_run_is_rolled_back_and_visitors_notice_nothing() {
    let started = world().await;
    let world = &started;
    let marker = Arc::new(Mutex::new(None));
    let data = Arc::clone(&marker);
    let database = Arc::new(move || data.lock().unwrap().clone());
    let settings = AppSettings {
        deployments: vec![("dsf".to_owned(), "dsf".to_owned())],
        database,
        cluster: None,
    };
    let app = App::start(client(&world.api), settings).await.unwrap();
    let mend = json!({"upgrade": {"remediation": {"retries": 1, "remediateLastFailure": true, "strategy": "rollback"}}});
    world.apply(&release("dsf", &mend)).await;
    let which = [HELM, "HelmRelease", "dsf", "dsf"];
    let found = world.release_is("dsf", "dsf", "ValuesError").await;
    assert_eq!(found["status"]["observedGeneration"], -1);
    let tag = |tag: &str| json!({"storefront": {"enabled": true}, "image": {"tag": tag}});
    let switch = async |values: Value| world.switch("dsf", "dsf-values-switch", &values).await;

    // Frozen, then a first tag.
    switch(json!({"storefront": {"enabled": false}})).await;
    let found = world.release_is("dsf", "dsf", "InstallSucceeded").await;
    assert_eq!(
        ready(&found).2,
        "Helm install succeeded for release dsf/dsf.v1 with chart dsf@0.2.0"
    );
    assert_eq!(page(&app).await.0, 503);
    switch(tag("1")).await;
    let at = |version: i64| {
        move |found: &Value| is_ready(found) && found["status"]["history"][0]["version"] == version
    };
    world.until(which, at(2)).await;
    // No page before the data is there.
    assert_eq!(page(&app).await.0, 503);
    *marker.lock().unwrap() = Some("row-7".to_owned());
    let (status, body) = page(&app).await;
    assert_eq!(status, 200);
    assert!(
        body.contains("data-tag=\"1\" data-marker=\"row-7\""),
        "{body}"
    );

    // An image that is not there: tried twice, gone back from twice, then given up.
    world.operators.faults().set(Fault::BrokenTag("2".into()));
    switch(tag("2")).await;
    let pods = || world.cluster.list("v1", "Pod");
    let waits = |pod: &Value| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff"
    };
    while !pods().await.unwrap().iter().any(waits) {
        assert_eq!(page(&app).await.0, 200);
    }
    let found = world
        .until(which, |found| condition(found, "Stalled").is_some())
        .await;
    assert_eq!(ready(&found).1, "RollbackSucceeded");
    assert_eq!(
        condition(&found, "Stalled").unwrap()["message"],
        "Failed to upgrade after 2 attempt(s)"
    );
    assert_eq!(found["status"]["upgradeFailures"], 2);
    assert_eq!(
        found["status"]["observedGeneration"],
        found["metadata"]["generation"]
    );
    let states: Vec<_> = found["status"]["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["status"].as_str().unwrap())
        .collect();
    assert_eq!(
        states,
        ["deployed", "failed", "superseded", "failed", "superseded"]
    );
    let (status, body) = page(&app).await;
    assert_eq!(status, 200);
    assert!(body.contains("data-tag=\"1\""), "{body}");

    // The next tag begins anew.
    switch(tag("3")).await;
    let found = world
        .until(which, |found| ready(found).1 == "UpgradeSucceeded")
        .await;
    assert!(is_ready(&found));
    assert_eq!(condition(&found, "Stalled"), None);
    assert!(page(&app).await.1.contains("data-tag=\"3\""));
    // Frozen again: its Deployment goes.
    switch(json!({"storefront": {"enabled": false}})).await;
    world
        .until(which, |found| {
            is_ready(found) && found["status"]["history"][0]["version"] == 8
        })
        .await;
    assert_eq!(world.get("apps/v1", "Deployment", "dsf", "dsf").await, None);
    assert_eq!(page(&app).await.0, 503);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_a_release_that_is_retried_goes_on_and_one_that_is_not_wants_to_be_reset() {
    let world = world().await;
    let faults = world.operators.faults();
    faults.set(Fault::ReleaseFails("slr/slr".into()));
    faults.set(Fault::ReleaseFails("dsf/dsf".into()));
    world
        .switch(
            "slr",
            "slr-values-switch",
            &json!({"image": {"repository": "ghcr.io/saleor/saleor"}}),
        )
        .await;
    world
        .switch(
            "dsf",
            "dsf-values-switch",
            &json!({"storefront": {"enabled": false}}),
        )
        .await;
    let again = json!({"strategy": {"name": "RetryOnFailure", "retryInterval": "20s"}});
    world
        .apply(&release(
            "slr",
            &json!({"install": again, "upgrade": again}),
        ))
        .await;
    world.apply(&release("dsf", &json!({}))).await;

    let found = world.release_is("slr", "slr", "InstallFailed").await;
    assert_eq!(condition(&found, "Stalled"), None);
    let slr = [HELM, "HelmRelease", "slr", "slr"];
    world
        .until(slr, |found| {
            ready(found).1 == "UpgradeFailed" && found["status"]["failures"].as_i64() > Some(2)
        })
        .await;
    let dsf = [HELM, "HelmRelease", "dsf", "dsf"];
    let stalled = |found: &Value| {
        condition(found, "Stalled").is_some_and(|c| c["reason"] == "RetriesExceeded")
    };
    let found = world.until(dsf, stalled).await;
    assert_eq!(ready(&found).1, "InstallFailed");

    // Nothing fails any more: one goes on by itself, though its pods do not come up at first; the other one only when
    // it is told to forget.
    faults.clear_all();
    faults.set(Fault::NeverAvailable("slr/slr-api".into()));
    let found = world
        .until(slr, |found| {
            ready(found).2.contains("context deadline exceeded")
        })
        .await;
    assert_eq!(ready(&found).1, "UpgradeFailed");
    let deployment = ["apps/v1", "Deployment", "slr", "slr-api"];
    world
        .until(deployment, |found| {
            condition(found, "Progressing")
                .is_some_and(|c| c["reason"] == "ProgressDeadlineExceeded")
        })
        .await;
    faults.clear_all();
    let found = world.release_is("slr", "slr", "UpgradeSucceeded").await;
    assert!(is_ready(&found));
    let ask = |names: &[&str], value: &str| {
        let names = names
            .iter()
            .map(|name| (format!("reconcile.fluxcd.io/{name}"), Value::from(value)));
        json!({"metadata": {"annotations": names.collect::<serde_json::Map<_, _>>()}})
    };
    let object = world.release("dsf", "dsf").await;
    world
        .cluster
        .patch("test", &object, &ask(&["requestedAt"], "1"))
        .await
        .unwrap();
    world
        .until(dsf, |found| {
            found["status"]["lastHandledReconcileAt"] == "1" && stalled(found)
        })
        .await;
    world
        .cluster
        .patch("test", &object, &ask(&["requestedAt", "resetAt"], "2"))
        .await
        .unwrap();
    let found = world.until(dsf, is_ready).await;
    assert_eq!(found["status"]["lastHandledResetAt"], "2");
    let version = found["status"]["history"][0]["version"].as_i64().unwrap();
    // Nothing changed, but somebody wants it.
    world
        .cluster
        .patch("test", &object, &ask(&["requestedAt", "forceAt"], "3"))
        .await
        .unwrap();
    let found = world
        .until(dsf, |found| found["status"]["lastHandledForceAt"] == "3")
        .await;
    assert_eq!(found["status"]["history"][0]["version"], version + 1);
    world.stop().await;
}
