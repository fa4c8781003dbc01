//! What only the small API has: its handles for tests and operators, what it leaves out, and what the
//! controllers of a whole cluster would do.

use std::time::Duration;

use sandbox::kube_api::Validity;
use sandbox::kube_sim::KubeSim;
use serde_json::{Value, json};
use worker::kube::wait::{self, Look};
use worker::kube::{Force, KubeError, Kubeconfig, Object, Objects, direct};
use worker::net::Dialer;

const DEADLINE: Duration = Duration::from_secs(30);

fn client(conf: &str) -> Objects {
    let config = Kubeconfig::parse(conf, "a test").unwrap();
    Objects::new(direct(&config, Dialer::direct()).unwrap())
}

async fn start() -> (std::sync::Arc<KubeSim>, Objects) {
    worker::install_crypto();
    let api = KubeSim::start().await.unwrap();
    let objects = client(&api.direct_conf());
    (api, objects)
}

fn object(body: Value) -> Object {
    Object::new(body).unwrap()
}

fn map(namespace: &str, name: &str) -> Object {
    object(json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace}, "data": {"a": "1"}}))
}

async fn ask(objects: &Objects, method: &str, path: &str, body: Value) -> (u16, Value) {
    let request = http::Request::builder().method(method).uri(path);
    let request = match method {
        "PATCH" => request.header("content-type", "application/merge-patch+json"),
        _ => request.header("content-type", "application/json"),
    };
    let body = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let request = request.body(body.into()).unwrap();
    let answer = objects.client().send(request).await.unwrap();
    let code = answer.status().as_u16();
    let bytes = axum::body::to_bytes(axum::body::Body::new(answer.into_body()), 1 << 20)
        .await
        .unwrap();
    (
        code,
        serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into()),
    )
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}: never"));
}

#[tokio::test]
async fn our_client_finds_its_objects_after_a_restart_on_the_same_port() {
    let (api, objects) = start().await;
    objects
        .apply(&map("default", "x"), Force::No)
        .await
        .unwrap();
    let port = api.port();
    api.stop();
    objects.get(&map("default", "x")).await.unwrap_err();
    let refused = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    api.resume().unwrap();
    assert_eq!(api.port(), port);
    let found = objects.get(&map("default", "x")).await.unwrap().unwrap();
    assert_eq!(found["data"]["a"], "1");
}

#[tokio::test]
async fn a_stranger_and_an_old_certificate_are_not_let_in() {
    let (api, objects) = start().await;
    objects
        .apply(&map("default", "x"), Force::No)
        .await
        .unwrap();
    let old = api
        .kubeconfig("ann", Some("system:masters"), Validity::Expired)
        .unwrap();
    let error = client(&old).get(&map("default", "x")).await.unwrap_err();
    assert_eq!(error.code(), None, "{error:?}");
    let staff = api
        .kubeconfig("ann", Some("staff"), Validity::Good)
        .unwrap();
    let error = client(&staff)
        .apply(&map("default", "x"), Force::No)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(403), "{error:?}");
    let users: Vec<String> = api.log().into_iter().map(|asked| asked.user).collect();
    assert!(users.contains(&"ann".to_owned()) && users.contains(&"kubernetes-admin".to_owned()));
}

#[tokio::test]
async fn a_definition_is_served_a_moment_after_it_was_made_and_goes_with_its_objects() {
    let (api, objects) = start().await;
    let definition = object(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boxes.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "boxes", "kind": "Box"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}
    }));
    let thing = object(json!({"apiVersion": "example.com/v1", "kind": "Box",
        "metadata": {"name": "b", "namespace": "default"}, "spec": {"n": 1}}));
    api.stand_still(true);
    let made = objects.apply(&definition, Force::Ours).await.unwrap();
    assert!(matches!(wait::definition(&made), Look::NotYet(_)), "{made}");
    let early = objects.apply(&thing, Force::No).await.unwrap_err();
    assert!(matches!(early, KubeError::UnknownKind { .. }), "{early:?}");
    api.stand_still(false);
    until("established", async || {
        let seen = objects.get(&definition).await.unwrap().unwrap();
        wait::definition(&seen) == Look::Ready
    })
    .await;
    objects.apply(&thing, Force::No).await.unwrap();
    // An operator writes a status, as whoever plays Flux does.
    let mut ready = api.get("Box", "default", "b").unwrap();
    ready["status"] =
        json!({"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]});
    api.put(ready).unwrap();
    let seen = objects.get(&thing).await.unwrap().unwrap();
    assert_eq!(wait::flux(&seen, None), Look::Ready);
    assert_eq!(seen["metadata"]["managedFields"][0]["manager"], "rekindle");
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/boxes.example.com";
    assert_eq!(ask(&objects, "DELETE", path, Value::Null).await.0, 200);
    assert_eq!(api.get("Box", "default", "b"), None);
    let boxes = "/apis/example.com/v1/namespaces/default/boxes";
    assert_eq!(ask(&objects, "GET", boxes, Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_deleted_namespace_is_emptied_and_goes_when_nothing_holds_it() {
    let (api, objects) = start().await;
    let space =
        object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "pg"}}));
    objects.apply(&space, Force::No).await.unwrap();
    objects.apply(&map("pg", "x"), Force::No).await.unwrap();
    let held = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "held", "namespace": "pg", "finalizers": ["example.com/a"]}});
    objects.apply(&object(held), Force::No).await.unwrap();
    let path = "/api/v1/namespaces/pg";
    assert_eq!(
        ask(&objects, "DELETE", path, Value::Null).await.1["status"]["phase"],
        "Terminating"
    );
    until("emptied", async || {
        api.get("ConfigMap", "pg", "x").is_none()
    })
    .await;
    assert_eq!(ask(&objects, "GET", path, Value::Null).await.0, 200);
    let none = json!({"metadata": {"finalizers": null}});
    let code = ask(
        &objects,
        "PATCH",
        "/api/v1/namespaces/pg/configmaps/held",
        none,
    )
    .await
    .0;
    assert_eq!(code, 200);
    until("gone", async || {
        ask(&objects, "GET", path, Value::Null).await.0 == 404
    })
    .await;
}

#[tokio::test]
async fn what_belongs_to_an_object_goes_with_it_unless_it_is_to_stay() {
    let (api, objects) = start().await;
    for (owner, policy, stays) in [("a", "Background", false), ("b", "Orphan", true)] {
        let owning = objects
            .apply(&map("default", owner), Force::No)
            .await
            .unwrap();
        let name = format!("of-{owner}");
        let mut owned = map("default", &name);
        owned.body["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap",
            "name": owner, "uid": owning["metadata"]["uid"]}]);
        objects.apply(&owned, Force::No).await.unwrap();
        let path = format!("/api/v1/namespaces/default/configmaps/{owner}");
        let options = json!({"propagationPolicy": policy});
        assert_eq!(ask(&objects, "DELETE", &path, options).await.0, 200);
        assert_eq!(
            api.get("ConfigMap", "default", &name).is_some(),
            stays,
            "{policy}"
        );
    }
}

#[tokio::test]
async fn a_pods_log_is_what_an_operator_lets_it_say() {
    let (api, objects) = start().await;
    api.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "main"}, {"name": "side"}]}, "status": {"phase": "Pending"}}))
        .unwrap();
    let log = |query: &str| format!("/api/v1/namespaces/default/pods/p/log?{query}");
    let (code, said) = ask(&objects, "GET", &log(""), Value::Null).await;
    assert_eq!(
        (code, said["reason"].as_str()),
        (400, Some("BadRequest")),
        "{said}"
    );
    let (code, said) = ask(&objects, "GET", &log("container=main"), Value::Null).await;
    assert_eq!(code, 400);
    assert!(
        said["message"]
            .as_str()
            .unwrap()
            .contains("is waiting to start"),
        "{said}"
    );
    api.set_log("default", "p", "main", "one\ntwo\nthree\n");
    assert_eq!(
        ask(&objects, "GET", &log("container=main"), Value::Null)
            .await
            .1,
        "one\ntwo\nthree\n"
    );
    let tail = log("container=main&tailLines=2");
    assert_eq!(
        ask(&objects, "GET", &tail, Value::Null).await.1,
        "two\nthree\n"
    );
}

#[tokio::test]
async fn what_it_cannot_do_it_says() {
    let (_api, objects) = start().await;
    for (method, path) in [
        ("GET", "/api/v1/namespaces/default/configmaps?watch=true"),
        ("PUT", "/api/v1/namespaces/default/finalize"),
    ] {
        let (code, said) = ask(&objects, method, path, json!({})).await;
        assert_eq!(
            (code, said["reason"].as_str()),
            (501, Some("NotImplemented")),
            "{said}"
        );
    }
    objects
        .apply(&map("default", "x"), Force::No)
        .await
        .unwrap();
    let request = http::Request::patch("/api/v1/namespaces/default/configmaps/x")
        .header("content-type", "application/strategic-merge-patch+json")
        .body(Vec::from("{}").into())
        .unwrap();
    let answer = objects.client().send(request).await.unwrap();
    assert_eq!(answer.status().as_u16(), 415);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let (api, objects) = start().await;
    let maps = "/api/v1/namespaces/default/configmaps?dryRun=All";
    let (code, made) = ask(&objects, "POST", maps, map("default", "x").body).await;
    assert_eq!(code, 201);
    assert!(made["metadata"]["uid"].is_string());
    assert_eq!(api.get("ConfigMap", "default", "x"), None);
}
