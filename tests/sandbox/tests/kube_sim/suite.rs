//! What is asked of both servers, and what they say to it, as lines.

use reqwest::{Client, Method};
use sandbox::kube_api::{Pair, Pki};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAP: &str = "/api/v1/namespaces/default/configmaps/mine";
/// Stands for who manages what: they are in no order that could be compared.
const MANAGERS: &str = "managers";
const JSON: &str = "application/json";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
const PATCH: &str = "application/json-patch+json";

/// One server and what it has said.
struct Suite {
    server: String,
    admin: Client,
    lines: Vec<String>,
}

/// Somebody who asks, with the certificate of `pair` if there is one.
fn client(pki: &Pki, pair: Option<&Pair>) -> Client {
    let authority = reqwest::Certificate::from_pem(pki.cluster().pem().as_bytes()).unwrap();
    let mut builder = Client::builder()
        .user_agent("suite/1")
        .tls_certs_only([authority]);
    if let Some(pair) = pair {
        let both = format!("{}{}", pair.certificate, pair.key);
        builder = builder.identity(reqwest::Identity::from_pem(both.as_bytes()).unwrap());
    }
    builder.build().unwrap()
}

/// Asks everything.
pub(crate) async fn play(server: &str, pki: &Pki) -> Vec<String> {
    let good = sandbox::kube_api::Validity::Good;
    let admin = pki
        .cluster()
        .client("admin", Some("system:masters"), good)
        .unwrap();
    let mut suite = Suite {
        server: server.to_owned(),
        admin: client(pki, Some(&admin)),
        lines: Vec::new(),
    };
    suite.plain().await;
    suite.refusals().await;
    suite.patches().await;
    suite.applies().await;
    suite.lists_of_maps().await;
    suite.deletions().await;
    suite.definitions().await;
    suite.keyed_lists().await;
    suite.people(pki).await;
    suite.lines
}

impl Suite {
    async fn ask(
        &mut self,
        what: &str,
        method: &str,
        path: &str,
        kind: &str,
        body: Value,
        look: &[&str],
    ) -> Value {
        let admin = self.admin.clone();
        self.ask_as(&admin, what, method, path, kind, body, look)
            .await
    }

    #[expect(clippy::too_many_arguments, reason = "it is one line of a table")]
    async fn ask_as(
        &mut self,
        who: &Client,
        what: &str,
        method: &str,
        path: &str,
        kind: &str,
        body: Value,
        look: &[&str],
    ) -> Value {
        let url = format!("{}{path}", self.server);
        let mut request = who.request(Method::from_bytes(method.as_bytes()).unwrap(), url);
        if !body.is_null() {
            request = request.header("content-type", kind).body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let code = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let mut line = format!("{what}: {code}");
        if value["kind"] == "Status" && !look.contains(&"/reason") {
            for field in ["status", "reason", "message"] {
                if let Some(text) = value[field].as_str() {
                    line.push_str(&format!("\n    {field}: {}", blot(text)));
                }
            }
            let mut details = value["details"].clone();
            if let Some(fields) = details.as_object_mut() {
                fields.remove("uid");
            }
            line.push_str(&format!("\n    details: {}", blot(&details.to_string())));
        } else if value.is_string() {
            line.push_str(&format!("\n    {value}"));
        }
        for at in look {
            if *at == MANAGERS {
                line.push_str(&managers(&value));
                continue;
            }
            let seen = value
                .pointer(at)
                .map_or("(absent)".to_owned(), Value::to_string);
            line.push_str(&format!("\n    {at} = {seen}"));
        }
        self.lines.push(line);
        value
    }

    /// A test of one value against another of an earlier answer.
    fn say(&mut self, what: &str, is: bool) {
        self.lines.push(format!("{what}: {is}"));
    }

    async fn plain(&mut self) {
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

    async fn refusals(&mut self) {
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

    async fn patches(&mut self) {
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

    async fn applies(&mut self) {
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

    async fn lists_of_maps(&mut self) {
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

    async fn deletions(&mut self) {
        let wrong = json!({"preconditions": {"uid": "11111111-1111-1111-1111-111111111111"}});
        self.ask(
            "another one is to be deleted",
            "DELETE",
            MAP,
            JSON,
            wrong,
            &["/reason"],
        )
        .await;
        self.ask("it is deleted", "DELETE", MAP, JSON, Value::Null, &[])
            .await;
        self.ask("it is deleted again", "DELETE", MAP, JSON, Value::Null, &[])
            .await;
        let held = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "held", "finalizers": ["example.com/a"]}});
        self.ask("something is held", "POST", MAPS, JSON, held, &[])
            .await;
        let path = format!("{MAPS}/held");
        let going = self
            .ask(
                "it is to go",
                "DELETE",
                &path,
                JSON,
                Value::Null,
                &[
                    "/kind",
                    "/metadata/finalizers",
                    "/metadata/deletionGracePeriodSeconds",
                ],
            )
            .await;
        self.say(
            "it says since when",
            going["metadata"]["deletionTimestamp"].is_string(),
        );
        self.ask(
            "it is let go",
            "PATCH",
            &path,
            MERGE,
            json!({"metadata": {"finalizers": null}}),
            &["/metadata/name"],
        )
        .await;
        self.ask("it is gone", "GET", &path, JSON, Value::Null, &[])
            .await;
        // A namespace with something in it that is held stays, whoever empties it.
        let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "going"}});
        self.ask(
            "a namespace",
            "POST",
            "/api/v1/namespaces",
            JSON,
            space,
            &["/status/phase", "/spec/finalizers"],
        )
        .await;
        let held = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "held", "finalizers": ["example.com/a"]}});
        self.ask(
            "with something in it",
            "POST",
            "/api/v1/namespaces/going/configmaps",
            JSON,
            held,
            &[],
        )
        .await;
        self.ask(
            "it is to go",
            "DELETE",
            "/api/v1/namespaces/going",
            JSON,
            Value::Null,
            &["/kind", "/status/phase", "/spec/finalizers"],
        )
        .await;
        let late = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}});
        self.ask(
            "nothing new is made in it",
            "POST",
            "/api/v1/namespaces/going/configmaps",
            JSON,
            late.clone(),
            &[],
        )
        .await;
        self.ask(
            "nor applied",
            "PATCH",
            "/api/v1/namespaces/going/configmaps/late?fieldManager=rekindle",
            APPLY,
            late,
            &[],
        )
        .await;
    }

    async fn definitions(&mut self) {
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

    async fn keyed_lists(&mut self) {
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

    async fn people(&mut self, pki: &Pki) {
        let good = sandbox::kube_api::Validity::Good;
        let bob = pki.cluster().client("bob", Some("staff"), good).unwrap();
        let bob = client(pki, Some(&bob));
        self.ask_as(&bob, "bob reads", "GET", MAP, JSON, Value::Null, &[])
            .await;
        self.ask_as(
            &bob,
            "bob lists",
            "GET",
            "/api/v1/nodes",
            JSON,
            Value::Null,
            &[],
        )
        .await;
        self.ask_as(
            &bob,
            "bob writes",
            "PATCH",
            &format!("{MAP}?fieldManager=bob"),
            APPLY,
            map(json!({})),
            &[],
        )
        .await;
        self.ask_as(
            &bob,
            "bob deletes",
            "DELETE",
            "/apis/apps/v1/namespaces/default/deployments/d",
            JSON,
            Value::Null,
            &[],
        )
        .await;
        self.ask_as(
            &bob,
            "bob discovers",
            "GET",
            "/apis/apps",
            JSON,
            Value::Null,
            &["/kind", "/name"],
        )
        .await;
        let nobody = client(pki, None);
        self.ask_as(&nobody, "nobody reads", "GET", MAP, JSON, Value::Null, &[])
            .await;
        self.ask_as(
            &nobody,
            "nobody discovers",
            "GET",
            "/apis",
            JSON,
            Value::Null,
            &[],
        )
        .await;
        let url = format!("{}{MAP}", self.server);
        let answer = nobody
            .get(url)
            .header("authorization", "Bearer wrong")
            .send()
            .await
            .unwrap();
        let code = answer.status().as_u16();
        let said: Value = answer.json().await.unwrap();
        self.lines.push(format!(
            "a wrong token: {code} {} {}",
            said["reason"], said["message"]
        ));
    }
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}, "data": data})
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": {
            "metadata": {"labels": {"app": "d"}},
            "spec": {"containers": [{"name": "main", "image": "example.com/a:1",
                "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}]}]}}}})
}

fn definition() -> Value {
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

/// Without statuses: since 1.22 who writes them is told apart from who writes the rest.
fn managers(value: &Value) -> String {
    let mut value = value.clone();
    let all = value["metadata"]["managedFields"].as_array_mut();
    if let Some(all) = all {
        all.retain_mut(|manager| {
            let fields = manager["fieldsV1"].as_object_mut().unwrap();
            fields.remove("f:status");
            !fields.is_empty()
        });
    }
    let all = value["metadata"]["managedFields"].as_array();
    let mut all: Vec<String> = all
        .into_iter()
        .flatten()
        .map(|m| {
            format!(
                "\n    {} by {}: {}",
                m["manager"], m["operation"], m["fieldsV1"]
            )
        })
        .collect();
    all.sort();
    all.concat()
}

/// Without what differs from run to run: ids.
fn blot(text: &str) -> String {
    let is_id = |word: &str| word.len() == 36 && word.bytes().filter(|b| *b == b'-').count() == 4;
    let words = text.split(' ');
    let words = words.map(|word| {
        let id = word
            .trim_end_matches([',', '"', '}', '.', ')'])
            .trim_start_matches(['(', '"']);
        if is_id(id) {
            word.replace(id, "*")
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}
