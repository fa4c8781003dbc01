//! What goes wrong with sources and Kustomizations, in the words of Flux, and how it goes well again.

use sandbox::operators::Fault;
use sandbox::operators::flux::sealed;
use serde_json::{Value, json};

use crate::world::{KUSTOMIZE, SOURCE, World, is_ready, ready};

const REPO: [&str; 4] = [SOURCE, "GitRepository", "flux-system", "repo"];

fn repository() -> Value {
    json!({"apiVersion": SOURCE, "kind": "GitRepository",
        "metadata": {"name": "repo", "namespace": "flux-system"},
        "spec": {"url": "https://git.example.org/a.git", "ref": {"branch": "main"},
            "interval": "1m", "secretRef": {"name": "git"}}})
}

/// A Kustomization that tries again at once and else waits for an hour.
fn kustomization(path: &str, more: &Value) -> Value {
    let mut object = json!({"apiVersion": KUSTOMIZE, "kind": "Kustomization",
        "metadata": {"name": path, "namespace": "flux-system"},
        "spec": {"path": format!("./{path}"), "interval": "1h", "retryInterval": "10s", "timeout": "1m",
            "prune": true, "sourceRef": {"kind": "GitRepository", "name": "repo"}}});
    for (field, value) in more.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "flux-system",
            "labels": {"reconcile.fluxcd.io/watch": "Enabled"}}, "data": data})
}

impl World {
    /// Waits until a Kustomization says something.
    async fn says(&self, name: &str, words: &str) {
        let which = [KUSTOMIZE, "Kustomization", "flux-system", name];
        self.until(which, |found| ready(found).2.contains(words))
            .await;
    }

    /// Waits until an applied ConfigMap holds something, or is gone.
    async fn holds(&self, name: &str, key: &str, text: &str) {
        let which = ["v1", "ConfigMap", "default", name];
        self.until(which, |found| found["data"][key] == text).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_a_source_that_fails_says_why_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let file = |path: &str, text: &str| {
        let at = folder.path().join(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, text).unwrap();
    };
    file(
        "app/a.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: default}\ndata: {name: '${NAME}'}\n",
    );
    file(
        "app/b.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, namespace: default}\n",
    );
    file(
        "app/kept.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept, namespace: default, annotations: {kustomize.toolkit.fluxcd.io/prune: disabled}}\n",
    );
    file(
        "other/x.yaml",
        "apiVersion: example.org/v1\nkind: Nothing\nmetadata: {name: x, namespace: default}\n",
    );
    let world = World::of(folder.path()).await;
    let faults = world.operators.faults();
    world.apply(&repository()).await;
    let from = json!({"substituteFrom": [{"kind": "ConfigMap", "name": "variables"}]});
    world
        .apply(&kustomization("app", &json!({"postBuild": from})))
        .await;

    // The source: no Secret, half a Secret, a wrong one, then the right one.
    let source =
        |words: &'static str| world.until(REPO, move |found| ready(found).2.contains(words));
    let found = source("failed to get secret 'flux-system/git': secrets \"git\" not found").await;
    assert_eq!(ready(&found).1, "AuthenticationFailed");
    assert_eq!(found["status"]["observedGeneration"], -1);
    world
        .says("app", "Source artifact not found, retrying in 30s")
        .await;
    world
        .secret("git", &[("username", "git"), ("password", "stale")])
        .await;
    let found = source("authentication required").await;
    assert_eq!(ready(&found).1, "GitOperationFailed");
    world
        .secret("git", &[("username", "git"), ("password", "token-1")])
        .await;
    let found = world.until(REPO, is_ready).await;
    let revision = found["status"]["artifact"]["revision"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(revision.starts_with("main@sha1:"), "{revision}");

    // Variables: none, the wrong ones, the right ones; a change is acted on at once, as it is watched.
    world
        .says(
            "app",
            "substitute from 'ConfigMap/variables' error: configmaps \"variables\" not found",
        )
        .await;
    world
        .apply(&config_map("variables", json!({"OTHER": "x"})))
        .await;
    world.says("app", "envsubst error: variable substitution failed: variable not set (strict mode): \"NAME\"").await;
    world
        .apply(&config_map("variables", json!({"NAME": "one"})))
        .await;
    let found = world
        .kustomization_is("app", "ReconciliationSucceeded")
        .await;
    assert!(is_ready(&found));
    assert_eq!(found["status"]["lastAppliedRevision"], revision.as_str());
    assert_eq!(
        found["status"]["inventory"]["entries"][0]["id"],
        "default_a__ConfigMap"
    );
    world.holds("a", "name", "one").await;
    world
        .apply(&config_map("variables", json!({"NAME": "two"})))
        .await;
    world.holds("a", "name", "two").await;

    // A new revision: what left the tree is pruned, unless it says otherwise.
    std::fs::remove_file(folder.path().join("app/b.yaml")).unwrap();
    std::fs::remove_file(folder.path().join("app/kept.yaml")).unwrap();
    let which = [KUSTOMIZE, "Kustomization", "flux-system", "app"];
    world
        .until(which, |found| {
            is_ready(found) && found["status"]["lastAppliedRevision"] != revision.as_str()
        })
        .await;
    assert_eq!(world.get("v1", "ConfigMap", "default", "b").await, None);
    assert!(
        world
            .get("v1", "ConfigMap", "default", "kept")
            .await
            .is_some()
    );

    // Asked for, and while it is suspended not.
    let asked = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "now"}}});
    let app = world.kustomization("app").await;
    world.cluster.patch("test", &app, &asked).await.unwrap();
    world
        .until(which, |found| {
            found["status"]["lastHandledReconcileAt"] == "now"
        })
        .await;

    // What it cannot apply, and what is never healthy.
    world.apply(&kustomization("other", &json!({}))).await;
    world.says("other", "Nothing/default/x dry-run failed: no matches for kind \"Nothing\" in version \"example.org/v1\"").await;
    faults.set(Fault::WebhookDown("ConfigMap".into()));
    world
        .apply(&config_map("variables", json!({"NAME": "three"})))
        .await;
    world.says("app", "failed calling webhook").await;
    world.holds("a", "name", "two").await;
    faults.clear_all();
    world.holds("a", "name", "three").await;
    faults.set(Fault::KustomizationStuck("app".into()));
    world
        .apply(&config_map("variables", json!({"NAME": "four"})))
        .await;
    world.kustomization_is("app", "HealthCheckFailed").await;
    faults.clear_all();
    world
        .kustomization_is("app", "ReconciliationSucceeded")
        .await;
    file(
        "app/kustomization.yaml",
        "resources: [a.yaml]\nnameSuffix: -x\n",
    );
    world.says("app", "`nameSuffix` is not simulated").await;

    // The server is away for a while; then they go on.
    faults.set(Fault::GitDown);
    source("dial tcp: lookup git.example.org").await;
    let mut world = world;
    world.api.restart_api().await.unwrap();
    world.operators.faults().clear_all();
    std::fs::remove_file(folder.path().join("app/kustomization.yaml")).unwrap();
    world.until(REPO, is_ready).await;
    world
        .kustomization_is("app", "ReconciliationSucceeded")
        .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_secrets_of_the_bucket_open_with_the_right_key_only() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::of(folder.path()).await;
    world
        .apply(&json!({"apiVersion": SOURCE, "kind": "Bucket",
        "metadata": {"name": "repo", "namespace": "flux-system"},
        "spec": {"endpoint": "storage.clo.ru", "bucketName": "rekindle-secrets", "prefix": "test/",
            "interval": "1m", "secretRef": {"name": "s3-sops"}}}))
        .await;
    let bucket = [SOURCE, "Bucket", "flux-system", "repo"];
    world.secret("s3-sops", &[("accesskey", "AKIA")]).await;
    let found = world
        .until(bucket, |found| ready(found).1 == "AuthenticationFailed")
        .await;
    assert!(
        ready(&found)
            .2
            .contains("required fields 'accesskey' and 'secretkey'")
    );
    world
        .secret("s3-sops", &[("accesskey", "AKIA"), ("secretkey", "wrong")])
        .await;
    let found = world
        .until(bucket, |found| ready(found).1 == "BucketOperationFailed")
        .await;
    assert!(ready(&found).2.contains("Access Denied"));
    world
        .secret(
            "s3-sops",
            &[("accesskey", "AKIA"), ("secretkey", "store-secret")],
        )
        .await;
    let found = world.until(bucket, is_ready).await;
    assert!(
        found["status"]["artifact"]["revision"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );

    let more = |decrypt: bool| {
        let mut more = json!({"targetNamespace": "default", "path": "./test/pg",
            "sourceRef": {"kind": "Bucket", "name": "repo"}});
        if decrypt {
            more["decryption"] = json!({"provider": "sops", "secretRef": {"name": "sops-age"}});
        }
        more
    };
    world.apply(&kustomization("pg", &more(false))).await;
    world
        .says(
            "pg",
            "Secret/default/clo-s3-secret is SOPS encrypted, configuring decryption is required",
        )
        .await;
    world.apply(&kustomization("pg", &more(true))).await;
    world.says("pg", "secrets \"sops-age\" not found").await;
    world
        .secret("sops-age", &[("age.agekey", &sealed::age_key().0)])
        .await;
    world
        .says(
            "pg",
            "cannot get sops data key: Error getting data key: 0 successful groups required, got 0",
        )
        .await;
    assert_eq!(
        world.get("v1", "Secret", "default", "clo-s3-secret").await,
        None
    );
    let both = format!("{}{}", sealed::age_key().0, world.age);
    world.secret("sops-age", &[("age.agekey", &both)]).await;
    world
        .kustomization_is("pg", "ReconciliationSucceeded")
        .await;
    let secret = world
        .get("v1", "Secret", "default", "clo-s3-secret")
        .await
        .unwrap();
    assert_eq!(secret["data"]["s3.conf"], "bWFkZSB1cA==");
    world.stop().await;
}
