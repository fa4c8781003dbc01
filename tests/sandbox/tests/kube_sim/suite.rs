//! What is asked of both servers, and what they say to it, as lines.

use reqwest::{Client, Method};
use sandbox::kube_api::{Pair, Pki};
use serde_json::Value;

pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const MAP: &str = "/api/v1/namespaces/default/configmaps/mine";
/// Stands for who manages what: they are in no order that could be compared.
pub(crate) const MANAGERS: &str = "managers";
pub(crate) const JSON: &str = "application/json";
pub(crate) const APPLY: &str = "application/apply-patch+yaml";
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const PATCH: &str = "application/json-patch+json";

/// One server and what it has said.
pub(crate) struct Suite {
    pub(crate) server: String,
    pub(crate) admin: Client,
    pub(crate) lines: Vec<String>,
}

/// Somebody who asks, with the certificate of `pair` if there is one.
pub(crate) fn client(pki: &Pki, pair: Option<&Pair>) -> Client {
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
    pub(crate) async fn ask(
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
    pub(crate) async fn ask_as(
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
    pub(crate) fn say(&mut self, what: &str, is: bool) {
        self.lines.push(format!("{what}: {is}"));
    }
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
