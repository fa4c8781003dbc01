//! Others' charts: their kinds, what is waited for, and the services that are named elsewhere.

use serde_json::{Value, json};

use super::super::render::{Scope, definition, deployment, service, stateful_set};
use super::{Objects, Release, number, text};

fn kinds(group: &str, versions: &[&str], names: &[(&str, &str)]) -> Vec<Value> {
    let of = |(kind, plural): &(&str, &str)| {
        definition(kind, plural, group, versions, Scope::Namespaced)
    };
    names.iter().map(of).collect()
}

pub(super) fn pg_operator(release: &Release<'_>) -> Objects {
    let mut all = kinds(
        "pgv2.percona.com",
        &["v2"],
        &[
            ("PerconaPGCluster", "perconapgclusters"),
            ("PerconaPGBackup", "perconapgbackups"),
            ("PerconaPGRestore", "perconapgrestores"),
        ],
    );
    let inner = [("PostgresCluster", "postgresclusters")];
    all.extend(kinds(
        "postgres-operator.crunchydata.com",
        &["v1beta1"],
        &inner,
    ));
    let image = format!("percona/percona-postgresql-operator:{}", release.version);
    all.push(deployment(release, release.name, &image, 1));
    Ok(all)
}

/// The database's object, as the chart fills it from values.
pub(super) fn pg_db(release: &Release<'_>) -> Objects {
    let values = release.values;
    let version = release.version;
    let postgres = number(values, "/postgresVersion", 17);
    let instances = values["instances"].as_array().cloned().unwrap_or_default();
    let mut spec = json!({
        "crVersion": version,
        "image": format!("percona/percona-distribution-postgresql:{postgres}.6-1"),
        "imagePullPolicy": values["imagePullPolicy"].as_str().unwrap_or("Always"),
        "postgresVersion": postgres,
        "port": 5432,
        "instances": instances,
        "proxy": { "pgBouncer": {
            "image": "percona/percona-pgbouncer:1.24.1-1",
            "replicas": 3,
        } },
        "backups": { "pgbackrest": { "image": "percona/percona-pgbackrest:2.56.0-1" } },
        "pmm": { "image": "percona/pmm-client:3.4.1" },
    });
    for field in [
        "pause",
        "standby",
        "users",
        "dataSource",
        "extensions",
        "metadata",
    ] {
        if let Some(value) = values.get(field) {
            spec[field] = value.clone();
        }
    }
    for field in ["proxy", "backups", "pmm"] {
        if let Some(value) = values.get(field) {
            crate::operators::api::merge(&mut spec[field], value);
        }
    }
    Ok(vec![json!({
        "apiVersion": "pgv2.percona.com/v2",
        "kind": "PerconaPGCluster",
        "metadata": {
            "name": release.name,
            "namespace": release.namespace,
            "labels": { "app.kubernetes.io/instance": release.name, "app.kubernetes.io/version": version },
        },
        "spec": spec,
    })])
}

pub(super) fn pmm(release: &Release<'_>) -> Objects {
    let name = text(release.values, "/service/name");
    let name = if name.is_empty() {
        "monitoring-service"
    } else {
        name
    };
    Ok(vec![
        stateful_set(release, release.name, "percona/pmm-server:3.4.1", 1),
        service(release, name, 443),
    ])
}

pub(super) fn cert_manager(release: &Release<'_>) -> Objects {
    let mut all = Vec::new();
    if release.values["crds"]["enabled"] == true {
        all = kinds(
            "cert-manager.io",
            &["v1"],
            &[
                ("Certificate", "certificates"),
                ("Issuer", "issuers"),
                ("CertificateRequest", "certificaterequests"),
            ],
        );
        let group = "cert-manager.io";
        all.push(definition(
            "ClusterIssuer",
            "clusterissuers",
            group,
            &["v1"],
            Scope::Cluster,
        ));
        let acme = [("Order", "orders"), ("Challenge", "challenges")];
        all.extend(kinds("acme.cert-manager.io", &["v1"], &acme));
    }
    let (version, name) = (release.version, release.name);
    for (suffix, image) in [
        ("", "controller"),
        ("-cainjector", "cainjector"),
        ("-webhook", "webhook"),
    ] {
        let image = format!("quay.io/jetstack/cert-manager-{image}:{version}");
        all.push(deployment(release, &format!("{name}{suffix}"), &image, 1));
    }
    Ok(all)
}

pub(super) fn istio_base(_: &Release<'_>) -> Objects {
    let versions = ["v1", "v1beta1", "v1alpha3"];
    let names = [
        ("Gateway", "gateways"),
        ("VirtualService", "virtualservices"),
        ("DestinationRule", "destinationrules"),
        ("ServiceEntry", "serviceentries"),
    ];
    Ok(kinds("networking.istio.io", &versions, &names))
}

pub(super) fn istiod(release: &Release<'_>) -> Objects {
    let image = format!("docker.io/istio/pilot:{}", release.version);
    Ok(vec![deployment(release, "istiod", &image, 1)])
}

/// The chart makes a DaemonSet here; one pod of a Deployment stands for it.
pub(super) fn istio_gateway(release: &Release<'_>) -> Objects {
    let image = format!("docker.io/istio/proxyv2:{}", release.version);
    let mut way = service(release, release.name, 80);
    for field in ["type", "ports", "externalTrafficPolicy"] {
        if let Some(value) = release.values["service"].get(field) {
            way["spec"][field] = value.clone();
        }
    }
    Ok(vec![deployment(release, release.name, &image, 1), way])
}

pub(super) fn monitoring(release: &Release<'_>) -> Objects {
    let mut all = kinds(
        "monitoring.coreos.com",
        &["v1"],
        &[
            ("Prometheus", "prometheuses"),
            ("Alertmanager", "alertmanagers"),
            ("ServiceMonitor", "servicemonitors"),
            ("PrometheusRule", "prometheusrules"),
        ],
    );
    let name = release.name;
    let operator = format!("{name}-kube-prometheus-operator");
    let image = "quay.io/prometheus-operator/prometheus-operator:v0.86.2";
    all.push(deployment(release, &operator, image, 1));
    let grafana = format!("{name}-grafana");
    all.push(deployment(
        release,
        &grafana,
        "docker.io/grafana/grafana:12.2.1",
        1,
    ));
    all.push(service(release, &grafana, 80));
    Ok(all)
}

pub(super) fn harbor(release: &Release<'_>) -> Objects {
    let name = release.name;
    let parts = ["core", "jobservice", "portal", "registry"];
    let mut all: Vec<_> = parts
        .iter()
        .map(|part| {
            let image = format!("goharbor/harbor-{part}:v2.14.1");
            deployment(release, &format!("{name}-{part}"), &image, 1)
        })
        .collect();
    all.push(service(release, name, 80));
    Ok(all)
}

pub(super) fn redis_operator(release: &Release<'_>) -> Objects {
    let names = [
        ("RedisReplication", "redisreplications"),
        ("Redis", "redis"),
    ];
    let mut all = kinds("redis.redis.opstreelabs.in", &["v1beta2"], &names);
    let image = format!("quay.io/opstree/redis-operator:v{}", release.version);
    all.push(deployment(release, release.name, &image, 1));
    Ok(all)
}

/// The chart makes a RedisReplication, and the operator of it what is made here.
pub(super) fn redis_replication(release: &Release<'_>) -> Objects {
    let size = number(release.values, "/redisReplication/clusterSize", 3);
    let image = "quay.io/opstree/redis:v8.2.1";
    let mut set = stateful_set(release, release.name, image, size);
    // The tree's policy for the network finds the pods by it.
    set["spec"]["template"]["metadata"]["labels"]["app"] = release.name.into();
    Ok(vec![set, service(release, release.name, 6379)])
}
