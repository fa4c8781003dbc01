//! Our charts, `fluxcd/charts/slr` and `fluxcd/charts/dsf`, as their templates render. A test holds these functions
//! against the templates' text.

use serde_json::{Value, json};

use super::{Objects, Release, number, text};

/// Saleor.
pub(super) fn slr(release: &Release<'_>) -> Objects {
    let values = release.values;
    let mut all = Vec::new();
    if on(values, "migrationjob") {
        all.push(migration(release));
    }
    if on(values, "api") {
        all.push(api(release));
    }
    if on(values, "worker") {
        all.push(worker(release));
    }
    if on(values, "beat") {
        all.push(beat(release));
    }
    let mut selector = selector(release);
    selector["app.kubernetes.io/component"] = "api".into();
    all.push(service(release, slr_labels(release), selector, 80));
    Ok(all)
}

fn on(values: &Value, part: &str) -> bool {
    values[part]["enabled"] == true
}

fn selector(release: &Release<'_>) -> Value {
    json!({ "app.kubernetes.io/name": release.chart, "app.kubernetes.io/instance": release.name })
}

fn labels(release: &Release<'_>) -> Value {
    let mut labels = selector(release);
    labels["app.kubernetes.io/managed-by"] = "Helm".into();
    labels["helm.sh/chart"] = format!("{}-{}", release.chart, release.version).into();
    labels
}

fn slr_tag<'a>(release: &Release<'a>) -> &'a str {
    match text(release.values, "/image/tag") {
        "" => release.app_version,
        tag => tag,
    }
}

fn slr_labels(release: &Release<'_>) -> Value {
    let mut labels = labels(release);
    labels["app.kubernetes.io/version"] = slr_tag(release).into();
    labels
}

fn slr_container(release: &Release<'_>, name: &str, command: Value) -> Value {
    let values = release.values;
    json!({
        "name": name,
        "image": format!("{}:{}", text(values, "/image/repository"), slr_tag(release)),
        "imagePullPolicy": values["image"]["pullPolicy"],
        "env": [{ "name": "DJANGO_SETTINGS_MODULE", "value": "custom_settings" }],
        "envFrom": [{ "secretRef": { "name": values["existingSecretName"] } }],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": [{
            "name": "settings", "mountPath": "/app/custom_settings.py", "subPath": "custom_settings.py",
        }],
        "command": command,
    })
}

/// A pod's spec; fields of a component are put over it.
fn slr_pod(release: &Release<'_>, container: Value) -> Value {
    let values = release.values;
    let mut pod = json!({
        "automountServiceAccountToken": false,
        "volumes": [{ "name": "settings", "configMap": { "name": values["settingsConfigMapName"] } }],
        "containers": [container],
    });
    where_it_runs(values, &mut pod);
    pod
}

/// `with`: what is empty is left out.
fn where_it_runs(values: &Value, pod: &mut Value) {
    for field in ["nodeSelector", "tolerations"] {
        with(&values[field], &mut pod[field]);
        if pod[field].is_null() {
            pod.as_object_mut().map(|pod| pod.remove(field));
        }
    }
}

fn with(value: &Value, into: &mut Value) {
    let empty = match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        other => other.is_null(),
    };
    if !empty {
        *into = value.clone();
    }
}

fn resources(values: &Value, part: &str, container: &mut Value) {
    let wanted = &values[part]["resources"];
    if wanted.as_object().is_some_and(|fields| !fields.is_empty()) {
        container["resources"] = wanted.clone();
    }
}

fn slr_workload(
    release: &Release<'_>,
    part: &str,
    kind: [&str; 2],
    spec: Value,
    pod: Value,
) -> Value {
    let (mut labels, mut selector) = (slr_labels(release), selector(release));
    labels["app.kubernetes.io/component"] = part.into();
    selector["app.kubernetes.io/component"] = part.into();
    let mut object = json!({
        "apiVersion": kind[0], "kind": kind[1],
        "metadata": {
            "name": format!("{}-{part}", release.name), "namespace": release.namespace, "labels": labels,
        },
        "spec": spec,
    });
    if kind[1] == "Deployment" {
        object["spec"]["selector"] = json!({ "matchLabels": selector });
    }
    object["spec"]["template"] = json!({ "metadata": { "labels": selector }, "spec": pod });
    object
}

const DEPLOYMENT: [&str; 2] = ["apps/v1", "Deployment"];

fn api(release: &Release<'_>) -> Value {
    let values = release.values;
    let mut container = slr_container(release, "api", json!(["uvicorn"]));
    container["args"] = json!([
        "saleor.asgi:application",
        "--host=0.0.0.0",
        "--port=8000",
        format!("--workers={}", number(values, "/api/workers", 2)),
        "--lifespan=off",
        "--ws=none",
        "--no-server-header",
        "--no-access-log",
        "--timeout-keep-alive=35",
        "--timeout-graceful-shutdown=25",
        "--limit-max-requests=10000",
    ]);
    container["ports"] = json!([{ "name": "http", "containerPort": 8000 }]);
    let probe = |period: i64| json!({ "tcpSocket": { "port": "http" }, "periodSeconds": period });
    container["startupProbe"] = probe(5);
    container["startupProbe"]["failureThreshold"] = 60.into();
    container["readinessProbe"] = probe(5);
    container["livenessProbe"] = probe(10);
    resources(values, "api", &mut container);
    let mut matching = selector(release);
    matching["app.kubernetes.io/component"] = "api".into();
    let mut pod = slr_pod(release, container);
    pod["topologySpreadConstraints"] = json!([{
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": { "matchLabels": matching },
    }]);
    let spec = json!({ "replicas": number(values, "/api/replicaCount", 2) });
    slr_workload(release, "api", DEPLOYMENT, spec, pod)
}

fn worker(release: &Release<'_>) -> Value {
    let values = release.values;
    let mut container = slr_container(release, "worker", json!(["python", "-m", "celery"]));
    container["args"] = json!([
        "--app=saleor.celeryconf:app",
        "worker",
        "--loglevel=info",
        format!("--concurrency={}", number(values, "/worker/concurrency", 4)),
    ]);
    let ping =
        r#"celery --app=saleor.celeryconf:app inspect ping --destination "celery@$HOSTNAME""#;
    container["livenessProbe"] = json!({
        "exec": { "command": ["sh", "-c", ping] },
        "initialDelaySeconds": 60, "periodSeconds": 60, "timeoutSeconds": 30, "failureThreshold": 5,
    });
    resources(values, "worker", &mut container);
    let mut pod = slr_pod(release, container);
    pod["terminationGracePeriodSeconds"] = 60.into();
    let spec = json!({ "replicas": number(values, "/worker/replicaCount", 1) });
    slr_workload(release, "worker", DEPLOYMENT, spec, pod)
}

fn beat(release: &Release<'_>) -> Value {
    let mut container = slr_container(release, "beat", json!(["python", "-m", "celery"]));
    container["args"] = json!([
        "--app=saleor.celeryconf:app",
        "beat",
        "--loglevel=info",
        "--pidfile=/tmp/celerybeat.pid",
        "--schedule=/tmp/celerybeat-schedule",
    ]);
    resources(release.values, "beat", &mut container);
    let pod = slr_pod(release, container);
    let spec = json!({ "replicas": 1, "strategy": { "type": "Recreate" } });
    slr_workload(release, "beat", DEPLOYMENT, spec, pod)
}

/// A hook: it is never applied, as no hook runs here.
fn migration(release: &Release<'_>) -> Value {
    let command = json!(["python", "manage.py", "migrate", "--noinput"]);
    let mut pod = slr_pod(release, slr_container(release, "migration", command));
    pod["restartPolicy"] = "Never".into();
    let deadline = number(release.values, "/migrationjob/deadline", 1200);
    let spec = json!({ "backoffLimit": 3, "activeDeadlineSeconds": deadline });
    let mut job = slr_workload(release, "migration", ["batch/v1", "Job"], spec, pod);
    job["metadata"]["annotations"] = json!({
        "helm.sh/hook": "pre-install,pre-upgrade",
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
    });
    job
}

fn service(release: &Release<'_>, labels: Value, selector: Value, port: i64) -> Value {
    let port = number(release.values, "/service/port", port);
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": release.name, "namespace": release.namespace, "labels": labels },
        "spec": {
            "selector": selector,
            "ports": [{ "name": "http", "port": port, "targetPort": "http", "protocol": "TCP" }],
        },
    })
}

/// The shop's front.
pub(super) fn dsf(release: &Release<'_>) -> Objects {
    let mut all = Vec::new();
    if on(release.values, "storefront") {
        all.push(storefront(release)?);
    }
    all.push(service(release, labels(release), selector(release), 3000));
    Ok(all)
}

fn storefront(release: &Release<'_>) -> Result<Value, String> {
    let values = release.values;
    let required = |pointer: &str, else_says: &str| match values.pointer(pointer) {
        // A tag without quotes is a number, and not always the one that was written.
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        _ => Err(format!(
            "execution error at (dsf/templates/storefront.yaml:27:21): {else_says}"
        )),
    };
    let repository = required("/image/repository", "image.repository is wanted")?;
    let tag = required(
        "/image/tag",
        "image.tag is wanted: the switch says which image runs",
    )?;
    let mut container = json!({
        "name": "storefront",
        "image": format!("{repository}:{tag}"),
        "imagePullPolicy": values["image"]["pullPolicy"],
        "envFrom": [{ "secretRef": { "name": values["existingSecretName"] } }],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
        },
        "ports": [{ "name": "http", "containerPort": number(values, "/service/port", 3000) }],
        "readinessProbe": { "httpGet": { "path": "/", "port": "http" }, "timeoutSeconds": 5 },
        "livenessProbe": { "tcpSocket": { "port": "http" } },
    });
    resources(values, "storefront", &mut container);
    let mut pod = json!({ "automountServiceAccountToken": false, "containers": [container] });
    where_it_runs(values, &mut pod);
    Ok(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": release.name, "namespace": release.namespace, "labels": labels(release),
        },
        "spec": {
            "replicas": number(values, "/storefront/replicaCount", 1),
            "selector": { "matchLabels": selector(release) },
            "strategy": { "rollingUpdate": { "maxUnavailable": 0 } },
            "template": { "metadata": { "labels": selector(release) }, "spec": pod },
        },
    }))
}

#[cfg(test)]
#[path = "apps_tests.rs"]
mod tests;
