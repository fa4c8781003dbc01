//! Helm releases, and what they wait for.

use serde_json::json;

use super::{PG_DB, PMM, SLR};
use crate::case::{Case, gone, set, values, without};

const DSF: (&str, &str) = ("HelmRelease", "dsf");

pub(super) fn releases() -> Vec<Case> {
    vec![
        set(
            PMM,
            "/spec/chart/spec/version",
            json!("1.4.x"),
            "version is not exact",
        ),
        set(
            PMM,
            "/spec/chart/spec/version",
            json!(">=1.4.9"),
            "version is not exact",
        ),
        without(PMM, "/spec/chart/spec/version", "version is not exact"),
        without(DSF, "/spec/timeout", "it has no timeout"),
        without(DSF, "/spec/upgrade", "a failed upgrade has no remedy"),
        set(
            DSF,
            "/spec/upgrade/remediation/retries",
            json!(0),
            "a failed upgrade has no remedy",
        ),
        without(DSF, "/spec/install", "a failed install has no remedy"),
        set(
            SLR,
            "/spec/chart/spec/version",
            json!("0.1.9"),
            "its chart's version is 0.2.0, not 0.1.9",
        ),
        set(
            SLR,
            "/spec/chart/spec/chart",
            json!("./fluxcd/charts/saleor"),
            "there is no chart in",
        ),
        set(
            ("HelmRepository", "istio"),
            "/spec/url",
            json!("http://charts.example.org"),
            "not read over TLS",
        ),
        values("slr-values", "api:", "api: [", "slr/slr", "are no YAML"),
    ]
}

pub(super) fn gates() -> Vec<Case> {
    vec![
        set(
            PG_DB,
            "/spec/valuesFrom/1/optional",
            json!(true),
            "installed also without its switch",
        ),
        set(
            SLR,
            "/spec/valuesFrom/1/optional",
            json!(true),
            "installed also without its switch",
        ),
        set(
            DSF,
            "/spec/valuesFrom/1/optional",
            json!(true),
            "installed also without its switch",
        ),
        set(
            PG_DB,
            "/spec/valuesFrom/1/valuesKey",
            json!("values.yaml"),
            "by another key",
        ),
        set(
            PG_DB,
            "/spec/values",
            json!({ "pause": false }),
            "which win over its switch",
        ),
        set(
            PG_DB,
            "/spec/valuesFrom",
            json!([
                { "kind": "ConfigMap", "name": "pg-db-values-switch", "valuesKey": "values-switch.yaml" },
                { "kind": "ConfigMap", "name": "pg-db-values" },
            ]),
            "not the last of its values",
        ),
        gone(
            "HelmRelease",
            "dsf",
            "HelmRelease dsf/dsf",
            "it is not in the tree",
        ),
    ]
}
