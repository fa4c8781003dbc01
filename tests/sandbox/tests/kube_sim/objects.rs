//! Objects that are read, made, changed and listed.

use serde_json::{Value, json};

use crate::suite::*;

impl Suite {
    pub(crate) async fn plain(&mut self) {
        let made = self
            .ask(
                "a ConfigMap is made",
                "POST",
                MAPS,
                JSON,
                map(json!({"a": "1"})),
                &[
                    "/apiVersion",
                    "/kind",
                    "/metadata/name",
                    "/metadata/namespace",
                    "/metadata/generation",
                    MANAGERS,
                    "/data",
                ],
            )
            .await;
        let read = self
            .ask("it is read", "GET", MAP, JSON, Value::Null, &["/data"])
            .await;
        self.say("what was read is what was made", read == made);
        self.ask(
            "it is made again",
            "POST",
            MAPS,
            JSON,
            map(json!({"a": "1"})),
            &[],
        )
        .await;
        self.ask(
            "another one is read",
            "GET",
            &format!("{MAPS}/no"),
            JSON,
            Value::Null,
            &[],
        )
        .await;
        let mut next = read.clone();
        next["data"] = json!({"a": "2"});
        let changed = self
            .ask("it is replaced", "PUT", MAP, JSON, next.clone(), &["/data"])
            .await;
        let versions = |value: &Value| value["metadata"]["resourceVersion"].clone();
        self.say(
            "its version is another one",
            versions(&read) != versions(&changed),
        );
        self.ask(
            "it is replaced from an old version",
            "PUT",
            MAP,
            JSON,
            next,
            &[],
        )
        .await;
        let same = self
            .ask(
                "it is replaced by itself",
                "PUT",
                MAP,
                JSON,
                changed.clone(),
                &[],
            )
            .await;
        self.say(
            "its version is the same",
            versions(&same) == versions(&changed),
        );
        let mut other = changed.clone();
        other["metadata"]["uid"] = json!("11111111-1111-1111-1111-111111111111");
        self.ask(
            "it is replaced as another one",
            "PUT",
            MAP,
            JSON,
            other,
            &["/reason"],
        )
        .await;
        self.ask(
            "what is not there is replaced",
            "PUT",
            &format!("{MAPS}/no"),
            JSON,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "no"}}),
            &[],
        )
        .await;
        let dry = "/api/v1/namespaces/default/configmaps/mine?dryRun=All";
        self.ask("it is dry-deleted", "DELETE", dry, JSON, Value::Null, &[])
            .await;
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
            "data": {"a": "MQ=="}, "stringData": {"b": "2"}});
        self.ask(
            "a Secret is made of text",
            "POST",
            "/api/v1/namespaces/default/secrets",
            JSON,
            secret,
            &["/data", "/stringData", "/type", "/metadata/generation"],
        )
        .await;
        let deployment = deployment();
        self.ask(
            "a Deployment is made",
            "POST",
            "/apis/apps/v1/namespaces/default/deployments",
            JSON,
            deployment.clone(),
            &["/metadata/generation", "/spec/replicas", "/status"],
        )
        .await;
        let path = "/apis/apps/v1/namespaces/default/deployments/d";
        self.ask(
            "its spec changes",
            "PATCH",
            path,
            MERGE,
            json!({"spec": {"replicas": 3}, "status": {"replicas": 9}}),
            &["/metadata/generation", "/spec/replicas", "/status"],
        )
        .await;
        self.ask(
            "its status changes",
            "PATCH",
            &format!("{path}/status"),
            MERGE,
            json!({"spec": {"replicas": 5}, "status": {"replicas": 3}}),
            &["/metadata/generation", "/spec/replicas", "/status/replicas"],
        )
        .await;
        self.ask(
            "its labels change",
            "PATCH",
            path,
            MERGE,
            json!({"metadata": {"labels": {"x": "y"}}}),
            &[
                "/metadata/generation",
                "/metadata/labels",
                "/status/replicas",
            ],
        )
        .await;
        self.ask("its selector changes", "PATCH", path, MERGE,
            json!({"spec": {"selector": {"matchLabels": {"app": "e"}}, "template": {"metadata": {"labels": {"app": "e"}}}}}),
            &["/reason", "/details/causes/0/field", "/details/causes/0/reason"]).await;
    }

    pub(crate) async fn refusals(&mut self) {
        let named = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        self.ask(
            "a missing namespace",
            "POST",
            "/api/v1/namespaces/nowhere/configmaps",
            JSON,
            named("x"),
            &[],
        )
        .await;
        self.ask(
            "an apply in a missing namespace",
            "PATCH",
            "/api/v1/namespaces/nowhere/configmaps/x?fieldManager=rekindle",
            APPLY,
            named("x"),
            &[],
        )
        .await;
        self.ask(
            "no group",
            "GET",
            "/apis/no.example.com/v1/namespaces/default/things/x",
            JSON,
            Value::Null,
            &[],
        )
        .await;
        self.ask(
            "no kind",
            "GET",
            "/api/v1/namespaces/default/things/x",
            JSON,
            Value::Null,
            &[],
        )
        .await;
        self.ask(
            "no such group to discover",
            "GET",
            "/apis/no.example.com/v1",
            JSON,
            Value::Null,
            &[],
        )
        .await;
        self.ask(
            "a body in a language of its own",
            "PATCH",
            MAP,
            "application/x-no",
            named("mine"),
            &["/reason"],
        )
        .await;
        self.ask("another name", "PUT", MAP, JSON, named("other"), &[])
            .await;
        let elsewhere = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine", "namespace": "pg"}});
        self.ask(
            "another namespace",
            "PUT",
            MAP,
            JSON,
            elsewhere.clone(),
            &["/reason"],
        )
        .await;
        self.ask(
            "made in another namespace",
            "POST",
            MAPS,
            JSON,
            elsewhere,
            &[],
        )
        .await;
        self.ask(
            "no name",
            "POST",
            MAPS,
            JSON,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}),
            &[],
        )
        .await;
        let labelled = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "n", "labels": {"a": 1}}});
        let number = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n"},
            "data": {"a": 1}});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "n"},
            "data": {"a": "?"}});
        let secrets = "/api/v1/namespaces/default/secrets";
        for (what, path, body) in [
            ("labels that are no texts", MAPS, labelled),
            ("data that is no text", MAPS, number),
            ("a Secret that is not base64", secrets, secret.clone()),
            ("another kind", MAPS, secret),
            ("a name that is none", MAPS, named("Not_A_Name")),
        ] {
            self.ask(what, "POST", path, JSON, body, &["/reason"]).await;
        }
        self.ask("a version on what is new", "POST", MAPS, JSON,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "v", "resourceVersion": "1"}}), &[]).await;
        self.ask(
            "a method that is none",
            "POST",
            MAP,
            JSON,
            named("mine"),
            &[],
        )
        .await;
        self.ask(
            "an apply by nobody",
            "PATCH",
            MAP,
            APPLY,
            named("mine"),
            &[],
        )
        .await;
        self.ask(
            "a bad label selector",
            "GET",
            &format!("{MAPS}?labelSelector=a%20b"),
            JSON,
            Value::Null,
            &["/reason"],
        )
        .await;
        self.ask(
            "a bad field selector",
            "GET",
            &format!("{MAPS}?fieldSelector=data.a%3D1"),
            JSON,
            Value::Null,
            &["/reason"],
        )
        .await;
    }

    pub(crate) async fn patches(&mut self) {
        self.ask(
            "merged",
            "PATCH",
            MAP,
            MERGE,
            json!({"data": {"a": null, "b": "2"}}),
            &["/data"],
        )
        .await;
        self.ask(
            "merged from an old version",
            "PATCH",
            MAP,
            MERGE,
            json!({"metadata": {"resourceVersion": "1"}, "data": {"b": "3"}}),
            &[],
        )
        .await;
        self.ask(
            "patched",
            "PATCH",
            MAP,
            PATCH,
            json!([{"op": "add", "path": "/data/c", "value": "3"},
            {"op": "remove", "path": "/data/b"}]),
            &["/data"],
        )
        .await;
        self.ask(
            "what is not there is merged",
            "PATCH",
            &format!("{MAPS}/no"),
            MERGE,
            json!({}),
            &[],
        )
        .await;
    }

    pub(crate) async fn lists_of_maps(&mut self) {
        let maps = "/api/v1/namespaces/kube-public/configmaps";
        for (name, labels) in [
            ("l1", json!({"a": "1"})),
            ("l2", json!({"a": "2", "b": ""})),
            ("l3", json!({})),
        ] {
            let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}});
            self.ask("for a list", "POST", maps, JSON, body, &[]).await;
        }
        let look = &[
            "/kind",
            "/apiVersion",
            "/items/0/kind",
            "/items/0/metadata/name",
            "/items/1/metadata/name",
            "/items/2/metadata/name",
        ];
        for query in [
            "labelSelector=a",
            "labelSelector=a%3D1",
            "labelSelector=a!%3D1",
            "labelSelector=!a",
            "labelSelector=a%20in%20(2,3)",
            "labelSelector=a%20notin%20(2,3),a",
            "labelSelector=b%3D",
            "fieldSelector=metadata.name%3Dl3",
            "fieldSelector=metadata.name!%3Dl3",
            "labelSelector=no",
        ] {
            self.ask(
                query,
                "GET",
                &format!("{maps}?{query}"),
                JSON,
                Value::Null,
                look,
            )
            .await;
        }
        let page = self
            .ask(
                "a first page",
                "GET",
                &format!("{maps}?limit=2"),
                JSON,
                Value::Null,
                &[
                    "/items/1/metadata/name",
                    "/items/2",
                    "/metadata/remainingItemCount",
                ],
            )
            .await;
        let token = page["metadata"]["continue"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        self.ask(
            "the next page",
            "GET",
            &format!("{maps}?limit=2&continue={token}"),
            JSON,
            Value::Null,
            &["/items/0/metadata/name", "/items/1", "/metadata/continue"],
        )
        .await;
        self.ask(
            "all at once are deleted",
            "DELETE",
            &format!("{maps}?labelSelector=a"),
            JSON,
            Value::Null,
            &["/kind"],
        )
        .await;
        self.ask(
            "what is left",
            "GET",
            maps,
            JSON,
            Value::Null,
            &["/items/0/metadata/name", "/items/1"],
        )
        .await;
    }
}

pub(crate) fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}, "data": data})
}

pub(crate) fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": {
            "metadata": {"labels": {"app": "d"}},
            "spec": {"containers": [{"name": "main", "image": "example.com/a:1",
                "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}]}]}}}})
}
