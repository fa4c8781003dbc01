//! Who manages which field, and the kinds that definitions bring.

use serde_json::{Value, json};

use crate::objects::deployment;
use crate::suite::*;

impl Suite {
    pub(crate) async fn applies(&mut self) {
        let path = format!("{MAPS}/applied");
        let of = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": data});
        let (ours, theirs) = (
            format!("{path}?fieldManager=rekindle"),
            format!("{path}?fieldManager=helm"),
        );
        let managed = &["/data", MANAGERS];
        let first = self
            .ask(
                "applied, it is made",
                "PATCH",
                &ours,
                APPLY,
                of(json!({"a": "1", "b": "2"})),
                managed,
            )
            .await;
        let second = self
            .ask(
                "applied again",
                "PATCH",
                &ours,
                APPLY,
                of(json!({"a": "1", "b": "2"})),
                managed,
            )
            .await;
        self.say("nothing has changed", first == second);
        self.ask(
            "another one has another opinion",
            "PATCH",
            &theirs,
            APPLY,
            of(json!({"a": "9", "c": "3"})),
            &[],
        )
        .await;
        self.ask(
            "of several fields",
            "PATCH",
            &theirs,
            APPLY,
            of(json!({"a": "9", "b": "9"})),
            &[],
        )
        .await;
        self.ask(
            "and the same opinion of one",
            "PATCH",
            &theirs,
            APPLY,
            of(json!({"a": "1", "c": "3"})),
            managed,
        )
        .await;
        self.ask(
            "we drop what both have",
            "PATCH",
            &ours,
            APPLY,
            of(json!({"b": "2"})),
            managed,
        )
        .await;
        self.ask(
            "we drop what only we have",
            "PATCH",
            &ours,
            APPLY,
            of(json!({"x": "y"})),
            managed,
        )
        .await;
        self.ask(
            "they take by force",
            "PATCH",
            &format!("{theirs}&force=true"),
            APPLY,
            of(json!({"x": "z"})),
            managed,
        )
        .await;
        self.ask(
            "somebody just writes",
            "PATCH",
            &path,
            MERGE,
            json!({"data": {"x": "w", "y": "v"}}),
            managed,
        )
        .await;
        self.ask(
            "an apply against who just wrote",
            "PATCH",
            &ours,
            APPLY,
            of(json!({"y": "u"})),
            &[],
        )
        .await;
        let mut with_finalizer = of(json!({}));
        with_finalizer["metadata"]["finalizers"] = json!(["example.com/a"]);
        with_finalizer["metadata"]["annotations"] = json!({"n": "1"});
        self.ask(
            "finalizers are a set",
            "PATCH",
            &ours,
            APPLY,
            with_finalizer.clone(),
            &["/metadata/finalizers", "/metadata/annotations", MANAGERS],
        )
        .await;
        with_finalizer["metadata"]["finalizers"] = json!(["example.com/b"]);
        self.ask(
            "of two managers",
            "PATCH",
            &theirs,
            APPLY,
            with_finalizer,
            &["/metadata/finalizers"],
        )
        .await;
        self.ask(
            "each drops its own",
            "PATCH",
            &ours,
            APPLY,
            of(json!({})),
            &["/metadata/finalizers", "/metadata/annotations"],
        )
        .await;
        self.ask("applied to a version", "PATCH", &ours, APPLY,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied", "resourceVersion": "1"}}), &[]).await;
    }

    pub(crate) async fn keyed_lists(&mut self) {
        let path = "/apis/apps/v1/namespaces/default/deployments/applied";
        let ours = format!("{path}?fieldManager=rekindle");
        let theirs = format!("{path}?fieldManager=helm");
        let mut body = deployment();
        body["metadata"]["name"] = json!("applied");
        let look = &[
            "/metadata/generation",
            "/metadata/managedFields/0/fieldsV1/f:spec/f:template/f:spec",
        ];
        self.ask("a Deployment is applied", "PATCH", &ours, APPLY, body, look)
            .await;
        let env = |value: &str| {
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "applied"},
            "spec": {"template": {"spec": {"containers": [{"name": "main", "env": [{"name": "A", "value": value}]}]}}}})
        };
        self.ask(
            "another one has an opinion of a container",
            "PATCH",
            &theirs,
            APPLY,
            env("2"),
            &[],
        )
        .await;
        let other = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "applied"},
            "spec": {"template": {"spec": {"containers": [{"name": "main", "env": [{"name": "B", "value": "2"}]}]}}}});
        let seen = self
            .ask(
                "and adds to it",
                "PATCH",
                &theirs,
                APPLY,
                other,
                &["/metadata/generation"],
            )
            .await;
        let container = &seen["spec"]["template"]["spec"]["containers"][0];
        let line = format!("{} {}", container["image"], container["env"]);
        self.lines.push(format!("both are there: {line}"));
        let nothing =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "applied"}});
        let seen = self
            .ask(
                "and takes it back",
                "PATCH",
                &theirs,
                APPLY,
                nothing,
                &["/metadata/generation"],
            )
            .await;
        let container = &seen["spec"]["template"]["spec"]["containers"][0];
        let line = format!("{} {}", container["image"], container["env"]);
        self.lines.push(format!("ours is there: {line}"));
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
            "spec": {"ports": [{"name": "a", "port": 80, "protocol": "TCP"}, {"name": "b", "port": 81, "protocol": "UDP"}]}});
        let path = "/api/v1/namespaces/default/services/s?fieldManager=rekindle";
        self.ask(
            "a Service is applied",
            "PATCH",
            path,
            APPLY,
            service,
            &[
                "/spec/ports",
                "/spec/type",
                "/metadata/generation",
                MANAGERS,
            ],
        )
        .await;
    }

    pub(crate) async fn definitions(&mut self) {
        let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let mut wrong = definition();
        wrong["metadata"]["name"] = json!("wrong.example.com");
        self.ask(
            "a definition with another name",
            "POST",
            definitions,
            JSON,
            wrong,
            &["/reason"],
        )
        .await;
        self.ask(
            "a definition",
            "POST",
            definitions,
            JSON,
            definition(),
            &[
                "/metadata/generation",
                "/spec/names/listKind",
                "/spec/conversion/strategy",
            ],
        )
        .await;
        let path = format!("{definitions}/boxes.example.com");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let boxes = "/apis/example.com/v1/namespaces/default/boxes";
        loop {
            let url = format!("{}{path}", self.server);
            let seen: Value = self
                .admin
                .get(url)
                .send()
                .await
                .unwrap()
                .json()
                .await
                .unwrap();
            let url = format!("{}{boxes}", self.server);
            let served = self
                .admin
                .get(url)
                .send()
                .await
                .unwrap()
                .status()
                .is_success();
            let conditions = seen["status"]["conditions"].to_string();
            if conditions.contains("Established") && served {
                break;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "never established: {seen}"
            );
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        self.ask(
            "it is established",
            "GET",
            &path,
            JSON,
            Value::Null,
            &[
                "/status/conditions/0/type",
                "/status/conditions/0/status",
                "/status/conditions/0/reason",
                "/status/conditions/1/type",
                "/status/conditions/1/status",
                "/status/conditions/1/reason",
                "/status/storedVersions",
                "/status/acceptedNames",
            ],
        )
        .await;
        self.ask(
            "its group",
            "GET",
            "/apis/example.com",
            JSON,
            Value::Null,
            &[
                "/kind",
                "/preferredVersion/version",
                "/versions/1/groupVersion",
            ],
        )
        .await;
        let one = |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Box", "metadata": {"name": "b"}, "spec": spec});
        self.ask(
            "an object of it",
            "POST",
            boxes,
            JSON,
            one(json!({"size": 1, "unknown": 2})),
            &["/metadata/generation", "/spec", "/status"],
        )
        .await;
        let path = format!("{boxes}/b");
        self.ask(
            "its status is not written by the way",
            "PATCH",
            &path,
            MERGE,
            json!({"status": {"phase": "x"}}),
            &["/metadata/generation", "/status"],
        )
        .await;
        self.ask(
            "its status is written",
            "PATCH",
            &format!("{path}/status"),
            MERGE,
            json!({"spec": {"size": 7}, "status": {"phase": "x"}}),
            &["/metadata/generation", "/spec/size", "/status"],
        )
        .await;
        self.ask(
            "its spec is written",
            "PATCH",
            &path,
            MERGE,
            json!({"spec": {"size": 2}}),
            &["/metadata/generation", "/spec/size", "/status"],
        )
        .await;
        self.ask(
            "its labels are written",
            "PATCH",
            &path,
            MERGE,
            json!({"metadata": {"labels": {"a": "b"}}}),
            &["/metadata/generation"],
        )
        .await;
        self.ask(
            "in the other version",
            "GET",
            "/apis/example.com/v2/namespaces/default/boxes/b",
            JSON,
            Value::Null,
            &["/apiVersion", "/spec/size"],
        )
        .await;
        self.ask(
            "a list of them",
            "GET",
            boxes,
            JSON,
            Value::Null,
            &[
                "/kind",
                "/apiVersion",
                "/items/0/kind",
                "/items/0/apiVersion",
            ],
        )
        .await;
        self.ask(
            "a wrong type",
            "PATCH",
            &path,
            MERGE,
            json!({"spec": {"size": "large"}}),
            &["/reason"],
        )
        .await;
        self.ask("without what is required", "POST", boxes, JSON,
            json!({"apiVersion": "example.com/v1", "kind": "Box", "metadata": {"name": "c"}, "spec": {}}), &["/reason"]).await;
        self.ask(
            "replaced without a version",
            "PUT",
            &path,
            JSON,
            one(json!({"size": 3})),
            &["/reason"],
        )
        .await;
        self.ask(
            "its maps are merged by an apply",
            "PATCH",
            &format!("{path}?fieldManager=rekindle"),
            APPLY,
            one(json!({"size": 2, "parts": [{"name": "p", "n": 1}], "words": ["x"]})),
            &["/spec", MANAGERS],
        )
        .await;
        self.ask(
            "its lists by their keys",
            "PATCH",
            &format!("{path}?fieldManager=helm"),
            APPLY,
            one(json!({"parts": [{"name": "q", "n": 2}], "size": 2})),
            &["/spec/parts", MANAGERS],
        )
        .await;
        self.ask(
            "others are one value",
            "PATCH",
            &format!("{path}?fieldManager=helm"),
            APPLY,
            one(json!({"words": ["y"], "size": 2})),
            &[],
        )
        .await;
    }
}

pub(crate) fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer"},
            "colour": {"type": "string", "default": "red"},
            "words": {"type": "array", "items": {"type": "string"}},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "n": {"type": "integer"}}}},
        }},
        "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
    }});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": schema}})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boxes.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "boxes", "kind": "Box"},
            "versions": [version("v1", true), version("v2", false)]}})
}
