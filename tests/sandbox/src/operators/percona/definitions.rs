//! The definitions of the operator's kinds.

use serde_json::{Value, json};

/// What the operator's chart would install. The schemas are those of the fields that are looked at; the status is as the
/// operator writes it, and what a spec has no field for is dropped where the original drops it.
pub fn definitions() -> Vec<Value> {
    let any = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let texts = json!({ "type": "array", "items": { "type": "string" } });
    let text = json!({ "type": "string" });
    let cluster = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "required": ["backups", "instances", "postgresVersion"],
        "properties": { "postgresVersion": { "type": "integer" },
            "instances": { "type": "array", "items": any.clone() },
            "backups": any.clone() } });
    // There is no `type`: one that is written is dropped without a word.
    let backup = json!({ "type": "object", "required": ["pgCluster", "repoName"],
        "properties": { "pgCluster": text, "repoName": repo_name(), "options": texts } });
    let restore = json!({ "type": "object", "required": ["pgCluster", "repoName"],
        "properties": { "pgCluster": text, "repoName": repo_name(), "options": texts } });
    vec![
        definition("pgv2.percona.com", "v2", "PerconaPGCluster", "pg", &cluster),
        definition(
            "pgv2.percona.com",
            "v2",
            "PerconaPGBackup",
            "pg-backup",
            &backup,
        ),
        definition(
            "pgv2.percona.com",
            "v2",
            "PerconaPGRestore",
            "pg-restore",
            &restore,
        ),
        definition(
            "postgres-operator.crunchydata.com",
            "v1beta1",
            "PostgresCluster",
            "postgrescluster",
            &any,
        ),
    ]
}

fn repo_name() -> Value {
    json!({ "type": "string", "pattern": "^repo[1-4]" })
}

/// A definition of a kind in namespaces, whose status is a subresource.
pub(crate) fn definition(
    group: &str,
    version: &str,
    kind: &str,
    short: &str,
    spec: &Value,
) -> Value {
    let singular = kind.to_lowercase();
    let plural = format!("{singular}s");
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": { "plural": plural, "singular": singular, "kind": kind, "listKind": format!("{kind}List"),
                "shortNames": [short] },
            "versions": [{ "name": version, "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": { "type": "object", "properties": {
                    "spec": spec,
                    "status": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                } } } }],
        },
    })
}
