//! A real API server: what we apply, what it refuses, and what we make of it.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use std::time::Duration;

use sandbox::kube_api::{Authority, KubeApi, Validity, kubeconfig};
use serde_json::{Value, json};
use worker::engine::{Again, JobError};
use worker::kube::wait::{self, Look};
use worker::kube::{Force, KubeError, Kubeconfig, Manifest, Object, Objects, direct};
use worker::net::Dialer;

const DEADLINE: Duration = Duration::from_secs(60);

fn objects(text: &str) -> Objects {
    let config = Kubeconfig::parse(text, "test").unwrap();
    Objects::new(direct(&config, Dialer::direct()).unwrap())
}

fn admin(api: &KubeApi) -> Objects {
    objects(&api.admin_conf().unwrap())
}

fn object(body: Value) -> Object {
    Object::new(body).unwrap()
}

fn config_map(name: &str, data: Value) -> Object {
    object(json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"}, "data": data}))
}

/// What another manager does.
async fn by_other(objects: &Objects, path: &str, body: Value) {
    let request = http::Request::patch(format!("{path}?fieldManager=helm&force=true"))
        .header("content-type", "application/apply-patch+yaml")
        .body(body.to_string().into_bytes())
        .unwrap();
    let _: Value = objects.client().request(request).await.unwrap();
}

/// Looks until an object is what it should be.
async fn until(objects: &Objects, which: &Object, look: impl Fn(&Value) -> Look) -> Value {
    let found = tokio::time::timeout(DEADLINE, async {
        loop {
            if let Some(found) = objects.get(which).await.unwrap()
                && look(&found) == Look::Ready
            {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.expect("it is never ready")
}

fn job(error: KubeError) -> (Again, String) {
    let error = JobError::from(error);
    let text = error.to_string();
    (error.again, text)
}

fn crd(schema: Value) -> Object {
    object(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boxes.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "boxes", "singular": "box", "kind": "Box", "listKind": "BoxList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema}}]}
    }))
}

#[tokio::test]
async fn heavy_what_we_apply_is_ours_and_a_conflict_names_the_other_manager() {
    worker::install_crypto();
    let api = KubeApi::start().await.unwrap();
    let objects = admin(&api);

    // Applied twice it is the same object.
    let mine = config_map("mine", json!({"a": "1", "b": "2"}));
    assert_eq!(objects.get(&mine).await.unwrap(), None);
    let first = objects.apply(&mine, Force::No).await.unwrap();
    let second = objects.apply(&mine, Force::No).await.unwrap();
    assert_eq!(
        first["metadata"]["resourceVersion"],
        second["metadata"]["resourceVersion"]
    );
    assert_eq!(
        second["metadata"]["managedFields"][0]["manager"],
        "rekindle"
    );

    // What we no longer name goes; what others set stays.
    let path = "/api/v1/namespaces/default/configmaps/mine";
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "mine"}, "data": {"a": "theirs", "c": "3"}});
    by_other(&objects, path, theirs).await;
    let error = objects.apply(&mine, Force::No).await.unwrap_err();
    let KubeError::Conflict { conflicts, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(
        (conflicts[0].manager.as_str(), conflicts[0].field.as_str()),
        ("helm", ".data.a")
    );
    assert_eq!(conflicts.len(), 1);
    let (again, text) = job(error);
    assert_eq!(again, Again::Fatal);
    assert_eq!(
        text,
        "apply ConfigMap default/mine: .data.a is managed by helm"
    );
    assert_eq!(
        objects.get(&mine).await.unwrap().unwrap()["data"]["a"],
        "theirs"
    );
    let forced = config_map("mine", json!({"a": "1"}));
    let forced = objects.apply(&forced, Force::Ours).await.unwrap();
    assert_eq!(forced["data"], json!({"a": "1", "c": "3"}));

    // Somebody else was faster: that is worth another try.
    let stale = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "4"},
        "metadata": {"name": "mine", "namespace": "default", "resourceVersion": "1"}});
    let error = objects
        .apply(&object(stale), Force::Ours)
        .await
        .unwrap_err();
    let (again, text) = job(error);
    assert!(matches!(again, Again::Retry { .. }), "{text}");
    assert!(text.contains("(409)"), "{text}");

    // What is wrong with the object is told in the server's words.
    let invalid = config_map("Not.A.Name", json!({}));
    let (again, text) = job(objects.apply(&invalid, Force::No).await.unwrap_err());
    assert_eq!(again, Again::Fatal, "{text}");
    assert!(text.contains("metadata.name: Invalid value"), "{text}");
    let unknown = object(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "surplus": 1,
        "metadata": {"name": "surplus", "namespace": "default"}}),
    );
    let error = objects.apply(&unknown, Force::Ours).await.unwrap_err();
    assert!(matches!(error, KubeError::UnknownField { .. }), "{error:?}");
    let (again, text) = job(error);
    assert!(again == Again::Fatal && text.contains(".surplus"), "{text}");

    // Objects that stand in the wrong place are told before the server is asked.
    for (body, expected) in [
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}),
            "no namespace",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a", "namespace": "b"}}),
            "belongs to no namespace",
        ),
    ] {
        let (again, text) = job(objects.apply(&object(body), Force::No).await.unwrap_err());
        assert!(again == Again::Fatal && text.contains(expected), "{text}");
    }
    api.stop().await.unwrap();
}

#[tokio::test]
async fn heavy_kinds_are_known_as_soon_as_they_are_defined() {
    worker::install_crypto();
    let api = KubeApi::start().await.unwrap();
    let objects = admin(&api);
    let text = r#"
apiVersion: example.com/v1
kind: Box
metadata: {name: one, namespace: boxes}
spec: {size: 3}
---
apiVersion: v1
kind: Namespace
metadata: {name: boxes}
"#;
    let mut manifest = Manifest::parse(text, "test").unwrap();
    let error = objects.get(&manifest.rest[0]).await.unwrap_err();
    assert!(matches!(error, KubeError::UnknownKind { .. }), "{error:?}");
    assert!(matches!(job(error).0, Again::Retry { .. }));

    // A definition with rules that this server does not know: applied as ours it is taken without.
    let schema = json!({"type": "object", "properties": {
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "spec": {"type": "object", "properties": {
            "size": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]}}}}});
    manifest.foundation.push(crd(schema));
    let definition = manifest.definitions().next().unwrap().clone();
    let error = objects.apply(&definition, Force::No).await.unwrap_err();
    assert!(matches!(error, KubeError::UnknownField { .. }), "{error:?}");
    assert_eq!(objects.get(&definition).await.unwrap(), None);
    for _ in 0..2 {
        objects
            .apply_all(&manifest.foundation, Force::Ours)
            .await
            .unwrap();
        let established = until(&objects, &definition, wait::definition).await;
        let size = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/size";
        assert_eq!(established.pointer(size), Some(&json!({"type": "integer"})));
    }
    // Its objects may take some moments more.
    let applied = tokio::time::timeout(DEADLINE, async {
        loop {
            match objects.apply_all(&manifest.rest, Force::Ours).await {
                Ok(()) => return,
                Err(error) => {
                    let (again, text) = job(error);
                    assert!(matches!(again, Again::Retry { .. }), "{text}");
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    applied.await.expect("it cannot be applied");
    let one = objects.get(&manifest.rest[0]).await.unwrap().unwrap();
    assert_eq!(one["spec"], json!({"size": 3}));
    assert!(matches!(wait::flux(&one, None), Look::NotYet(_)));
    api.stop().await.unwrap();
}

#[tokio::test]
async fn heavy_who_may_not_gets_the_servers_words() {
    worker::install_crypto();
    let api = KubeApi::start().await.unwrap();
    let objects_of = admin(&api);
    // An account that may read and write ConfigMaps of one namespace, and nothing else.
    for body in [
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "maps", "namespace": "default"},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "maps", "namespace": "default"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "maps"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "limited"}]}),
    ] {
        objects_of.apply(&object(body), Force::Ours).await.unwrap();
    }
    let map = config_map("mine", json!({"a": "1"}));
    objects_of.apply(&map, Force::Ours).await.unwrap();
    let limited = objects(&api.kubeconfig("limited", None, Validity::Good).unwrap());
    // Rights are known to the server some moments after they are given.
    let allowed = tokio::time::timeout(DEADLINE, async {
        while limited.apply(&map, Force::Ours).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    allowed.await.expect("the account is never allowed");
    let secret = object(json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "s", "namespace": "default"}}));
    for refused in [
        limited.get(&secret).await.unwrap_err(),
        limited.apply(&secret, Force::Ours).await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Some(403), "{refused:?}");
        let (again, text) = job(refused);
        assert_eq!(again, Again::Fatal);
        assert!(
            text.contains("Secret default/s: the API server does not allow it (403)")
                && text.contains("User \"limited\" cannot"),
            "{text}"
        );
    }

    // A certificate that has expired is like none.
    let masters = Some("system:masters");
    let expired = api.kubeconfig("kubernetes-admin", masters, Validity::Expired);
    let (again, text) = job(objects(&expired.unwrap()).get(&map).await.unwrap_err());
    assert_eq!(again, Again::Fatal, "{text}");
    assert!(
        text.contains("does not accept our credentials (401)"),
        "{text}"
    );
    // So is one of another cluster.
    let other = Authority::new("kubernetes").unwrap();
    let pair = other
        .client("kubernetes-admin", masters, Validity::Good)
        .unwrap();
    let ours = api.pki().cluster();
    let stranger = kubeconfig(&api.server(), &ours.pem(), "kubernetes-admin", &pair);
    let (again, text) = job(objects(&stranger).get(&map).await.unwrap_err());
    assert!(again == Again::Fatal && text.contains("(401)"), "{text}");

    // A server whose certificate is another authority's is not spoken to.
    let pair = ours
        .client("kubernetes-admin", masters, Validity::Good)
        .unwrap();
    let wrong = kubeconfig(&api.server(), &other.pem(), "kubernetes-admin", &pair);
    let error = objects(&wrong).get(&map).await.unwrap_err();
    assert!(error.is_untrusted(), "{error:?}");
    let (again, text) = job(error);
    assert_eq!(again, Again::NeedsApproval, "{text}");
    assert!(
        text.contains("trust the Kubernetes API at 127.0.0.1"),
        "{text}"
    );
    // Neither is one that has another name.
    let named = format!(
        "server: {}\n    tls-server-name: other.example",
        api.server()
    );
    let named = api
        .admin_conf()
        .unwrap()
        .replace(&format!("server: {}", api.server()), &named);
    let error = objects(&named).get(&map).await.unwrap_err();
    assert!(error.is_untrusted(), "{error:?}");
    api.stop().await.unwrap();
}

#[tokio::test]
async fn heavy_an_api_server_that_goes_away_during_a_call_is_asked_again() {
    worker::install_crypto();
    let mut api = KubeApi::start().await.unwrap();
    let objects = admin(&api);
    let map = config_map("mine", json!({"a": "1"}));
    objects.apply(&map, Force::No).await.unwrap();

    // The call is on its way when the server dies.
    api.freeze_api().unwrap();
    let call = tokio::spawn({
        let (objects, map) = (objects.clone(), map.clone());
        async move { objects.get(&map).await }
    });
    // Time for it to leave; one that had not left would be the easier case.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!call.is_finished(), "a frozen server answers");
    api.kill_api().await.unwrap();
    let (again, text) = job(call.await.unwrap().unwrap_err());
    assert_eq!(again, Again::Retry { after: None }, "{text}");
    // Nobody listens: not yet, and never "absent".
    let (again, text) = job(objects.get(&map).await.unwrap_err());
    assert_eq!(again, Again::Retry { after: None }, "{text}");
    assert!(
        text.contains("read ConfigMap default/mine: reach the Kubernetes API"),
        "{text}"
    );

    // The same client finds it again, with what it held.
    api.restart_api().await.unwrap();
    let found = objects.get(&map).await.unwrap().unwrap();
    assert_eq!(found["data"]["a"], "1");
    api.restart().await.unwrap();
    assert_eq!(
        objects.get(&map).await.unwrap().unwrap()["metadata"]["uid"],
        found["metadata"]["uid"]
    );
    api.stop().await.unwrap();
}
