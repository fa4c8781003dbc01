//! Objects and namespaces that are deleted, and who may not ask for anything.

use sandbox::kube_api::Pki;
use serde_json::{Value, json};

use crate::objects::map;
use crate::suite::*;

impl Suite {
    pub(crate) async fn deletions(&mut self) {
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
            "it is held once more",
            "PATCH",
            &path,
            MERGE,
            json!({"metadata": {"finalizers": ["example.com/a", "example.com/b"]}}),
            &["/reason"],
        )
        .await;
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

    pub(crate) async fn people(&mut self, pki: &Pki) {
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
