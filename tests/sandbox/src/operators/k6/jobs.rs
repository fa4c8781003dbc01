//! The Jobs and Services that the operator makes of a TestRun. Pure.

use serde_json::{Value, json};

use crate::operators::api::{name, namespace, without_nulls};
use crate::operators::percona::json::{owner, text, texts};

/// Who a Pod of a test is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Initializer,
    Runner(u32),
    Starter,
}

impl Role {
    /// The role of a Job of a TestRun.
    pub(super) fn of(job: &Value) -> Option<Self> {
        let run = text(job, "/metadata/labels/k6_cr");
        let suffix = name(job).strip_prefix(run)?.strip_prefix('-')?;
        match suffix {
            "initializer" => Some(Self::Initializer),
            "starter" => Some(Self::Starter),
            number => number.parse().ok().map(Self::Runner),
        }
    }
}

/// The arguments of k6 that a spec gives: `args`, or else the words of `arguments`.
pub(super) fn arguments(spec: &Value) -> Vec<String> {
    let listed = texts(&spec["args"]);
    match listed.is_empty() {
        true => text(spec, "/arguments")
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        false => listed,
    }
}

/// Whether the operator takes them: each is an option or follows one.
pub(super) fn are_arguments(arguments: &[String]) -> bool {
    let is_option = |argument: &String| argument.starts_with('-');
    let mut pairs = arguments.windows(2);
    arguments.first().is_none_or(is_option)
        && pairs.all(|pair| !pair[1].is_empty() || is_option(&pair[0]))
}

/// The ConfigMap of a script and the path at which it is in the Pods.
pub(super) fn script(spec: &Value) -> Option<(&str, String)> {
    let of = &spec["script"]["configMap"];
    let file = match text(of, "/file") {
        "" => "test.js",
        file => file,
    };
    match text(of, "/name") {
        "" => None,
        name => Some((name, format!("/test/{file}"))),
    }
}

/// The initializer. Without a block of its own it is like a runner.
pub(super) fn initializer(run: &Value) -> Option<Value> {
    let spec = &run["spec"];
    let block = match spec.get("initializer") {
        Some(block) => block,
        None => &spec["runner"],
    };
    let (_, path) = script(spec)?;
    let archive = "/tmp/test.js.archived.tar";
    let variables = block["env"].as_array().into_iter().flatten();
    let variables = variables.map(|variable| {
        let name = text(variable, "/name");
        format!(" -e {name}=\"${{{name}}}\"")
    });
    let variables: String = variables.collect();
    let more = arguments(spec).join(" ");
    let command = format!(
        "k6 archive {path}{variables} -O {archive} {more} && k6 inspect --execution-requirements {archive}"
    );
    let command = json!(["sh", "-c", command]);
    let container = container(block, "k6", "grafana/k6:latest", &command);
    Some(job(run, "initializer", block, container, false))
}

/// A runner's Job.
pub(super) fn runner(run: &Value, number: u32) -> Option<Value> {
    let spec = &run["spec"];
    let (_, path) = script(spec)?;
    let all = spec["parallelism"].as_u64().unwrap_or_default();
    let is_off = |field: &str| text(spec, field) == "false";
    let mut command = vec!["k6".to_owned(), "run".to_owned()];
    if !is_off("/quiet") {
        command.push("--quiet".to_owned());
    }
    if all > 1 {
        let fraction = |n: u64| match n {
            0 => "0".to_owned(),
            n if n == all => "1".to_owned(),
            n => format!("{n}/{all}"),
        };
        let (from, to) = (fraction(u64::from(number) - 1), fraction(number.into()));
        let sequence: Vec<String> = (0..=all).map(fraction).collect();
        command.push(format!("--execution-segment={from}:{to}"));
        let sequence = sequence.join(",");
        command.push(format!("--execution-segment-sequence={sequence}"));
    }
    command.extend(arguments(spec));
    command.push(path);
    command.push("--address=0.0.0.0:6565".to_owned());
    if !is_off("/paused") {
        command.push("--paused".to_owned());
    }
    let tags = [
        format!("instance_id={number}"),
        format!("testrun_name={}", name(run)),
    ];
    for tag in tags {
        command.extend(["--tag".to_owned(), tag]);
    }
    let block = &spec["runner"];
    let container = container(block, "k6", "grafana/k6:latest", &json!(command));
    let suffix = number.to_string();
    let mut job = job(run, &suffix, block, container, true);
    let pod = &mut job["spec"]["template"]["spec"];
    pod["hostname"] = format!("{}-{number}", name(run)).into();
    if spec["separate"] == true {
        // What the block says of affinity is lost.
        let runners = |key: &str, value: &str| json!({ "key": key, "operator": "In", "values": [value] });
        let selector = json!({ "matchExpressions": [runners("app", "k6"), runners("runner", "true")] });
        pod["affinity"] = json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
            { "labelSelector": selector, "topologyKey": "kubernetes.io/hostname" }] } });
    }
    Some(job)
}

/// A runner's Service.
pub(super) fn service(run: &Value, number: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": format!("{}-service-{number}", name(run)), "namespace": namespace(run),
            "labels": labels(run, &run["spec"]["runner"], true), "ownerReferences": owner(run) },
        "spec": { "selector": { "job-name": format!("{}-{number}", name(run)) },
            "ports": [{ "name": "http-api", "port": 6565, "protocol": "TCP" }] },
    })
}

/// The starter. It takes nothing from the runners' block.
pub(super) fn starter(run: &Value) -> Value {
    let block = &run["spec"]["starter"];
    let runners = 1..=run["spec"]["parallelism"].as_u64().unwrap_or_default();
    let posts: Vec<String> = runners
        .map(|n| format!("curl --retry 3 -X PATCH -H 'Content-Type: application/json' http://{}-service-{n}:6565/v1/status -d '{{\"data\":{{\"attributes\":{{\"paused\":false}},\"id\":\"default\",\"type\":\"status\"}}}}' -s", name(run)))
        .collect();
    let command = json!(["sh", "-c", posts.join(";")]);
    let image = "ghcr.io/grafana/k6-operator:latest-starter";
    let mut container = container(block, "k6-curl", image, &command);
    for field in ["env", "envFrom", "volumeMounts"] {
        container[field] = Value::Null;
    }
    job(run, "starter", block, container, false)
}

fn labels(run: &Value, block: &Value, runner: bool) -> Value {
    let mut all = json!({});
    for (key, value) in block["metadata"]["labels"].as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    all["app"] = "k6".into();
    all["k6_cr"] = name(run).into();
    if runner {
        all["runner"] = "true".into();
    }
    all
}

fn container(block: &Value, name: &str, image: &str, command: &Value) -> Value {
    let image = match text(block, "/image") {
        "" => image,
        image => image,
    };
    let mut mounts = vec![
        json!({ "name": "k6-test-volume", "mountPath": "/test", "readOnly": true }),
    ];
    mounts.extend(block["volumeMounts"].as_array().cloned().unwrap_or_default());
    json!({
        "name": name, "image": image, "imagePullPolicy": block["imagePullPolicy"], "command": command,
        "env": block["env"], "envFrom": block["envFrom"], "resources": block["resources"], "volumeMounts": mounts,
        "securityContext": block["containerSecurityContext"],
    })
}

fn job(run: &Value, suffix: &str, block: &Value, container: Value, runner: bool) -> Value {
    let labels = labels(run, block, runner);
    let annotations = &block["metadata"]["annotations"];
    let account = match text(block, "/serviceAccountName") {
        "" => "default",
        account => account,
    };
    let volumes = script(&run["spec"]).filter(|_| suffix != "starter");
    let volumes = volumes.map(|(map, _)| json!({ "name": "k6-test-volume", "configMap": { "name": map } }));
    let mut volumes: Vec<Value> = volumes.into_iter().collect();
    volumes.extend(block["volumes"].as_array().cloned().unwrap_or_default());
    let pod = json!({
        "restartPolicy": "Never", "serviceAccountName": account,
        "automountServiceAccountToken": text(block, "/automountServiceAccountToken") != "false",
        "affinity": block["affinity"], "nodeSelector": block["nodeSelector"], "tolerations": block["tolerations"],
        "securityContext": block["securityContext"], "imagePullSecrets": block["imagePullSecrets"],
        "containers": [container], "volumes": volumes,
    });
    without_nulls(&json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": { "name": format!("{}-{suffix}", name(run)), "namespace": namespace(run), "labels": labels,
            "annotations": annotations, "ownerReferences": owner(run) },
        "spec": { "backoffLimit": 0,
            "template": { "metadata": { "labels": labels, "annotations": annotations }, "spec": pod } },
    }))
}

/// The one Pod of a Job.
pub(super) fn pod(job: &Value) -> Value {
    let template = &job["spec"]["template"];
    let mut labels = template["metadata"]["labels"].clone();
    labels["job-name"] = name(job).into();
    labels["batch.kubernetes.io/job-name"] = name(job).into();
    labels["batch.kubernetes.io/controller-uid"] = job["metadata"]["uid"].clone();
    without_nulls(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("{}-{}", name(job), letters()), "namespace": namespace(job), "labels": labels,
            "annotations": template["metadata"]["annotations"], "ownerReferences": owner(job) },
        "spec": template["spec"],
    }))
}

/// What makes a name another one.
fn letters() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let letter = |_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]);
    (0..5).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(more: &Value) -> Value {
        let mut run = json!({ "apiVersion": "k6.io/v1alpha1", "kind": "TestRun",
            "metadata": { "name": "load", "namespace": "here", "uid": "1" },
            "spec": { "parallelism": 3, "script": { "configMap": { "name": "script", "file": "a.js" } },
                "runner": { "image": "grafana/k6:2.2.0", "tolerations": [{ "operator": "Exists" }],
                    "env": [{ "name": "VUS", "value": "3" }] } } });
        crate::operators::api::merge(&mut run["spec"], more);
        run
    }

    #[test]
    fn a_runner_has_its_segment_and_waits_for_the_starter() {
        let job = runner(&run(&json!({ "arguments": "--no-color" })), 2).expect("a Job");
        let command = texts(&job["spec"]["template"]["spec"]["containers"][0]["command"]).join(" ");
        assert_eq!(
            command,
            "k6 run --quiet --execution-segment=1/3:2/3 --execution-segment-sequence=0,1/3,2/3,1 --no-color /test/a.js --address=0.0.0.0:6565 --paused --tag instance_id=2 --tag testrun_name=load"
        );
        assert_eq!(job["spec"]["backoffLimit"], 0);
        assert_eq!(Role::of(&job), Some(Role::Runner(2)));
        let alone = runner(&run(&json!({ "parallelism": 1, "paused": "false" })), 1).expect("a Job");
        let command = texts(&alone["spec"]["template"]["spec"]["containers"][0]["command"]).join(" ");
        assert!(!command.contains("segment") && !command.contains("--paused"), "{command}");
    }

    #[test]
    fn the_starter_takes_nothing_from_the_runner_and_the_initializer_all() {
        let run = run(&json!({}));
        let starter = starter(&run);
        let spec = &starter["spec"]["template"]["spec"];
        assert_eq!(spec.get("tolerations"), None);
        assert_eq!(spec["containers"][0]["name"], "k6-curl");
        assert_eq!(starter["metadata"]["labels"].get("runner"), None);
        assert_eq!(starter["metadata"]["labels"]["k6_cr"], "load");
        let initializer = initializer(&run).expect("a Job");
        let spec = &initializer["spec"]["template"]["spec"];
        assert_eq!(spec["tolerations"], run["spec"]["runner"]["tolerations"]);
        assert_eq!(spec["containers"][0]["image"], "grafana/k6:2.2.0");
        assert_eq!(Role::of(&initializer), Some(Role::Initializer));
        assert_eq!(Role::of(&starter), Some(Role::Starter));
    }

    #[test]
    fn separate_runners_lose_the_affinity_they_were_given() {
        let spec = json!({ "separate": true, "runner": { "affinity": { "nodeAffinity": {} } } });
        let job = runner(&run(&spec), 1).expect("a Job");
        let affinity = &job["spec"]["template"]["spec"]["affinity"];
        assert_eq!(affinity.get("nodeAffinity"), None);
        assert!(affinity["podAntiAffinity"].is_object());
    }

    #[test]
    fn arguments_are_options_and_what_follows_them() {
        let check = |arguments: &[&str], expected: bool| {
            let own: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
            assert_eq!(are_arguments(&own), expected, "{arguments:?}");
        };
        check(&[], true);
        check(&["--tag", "a=b", "-v"], true);
        check(&["--user-agent", ""], true);
        check(&["run"], false);
        check(&["--a", "b", ""], false);
        let listed = json!({ "args": ["--a", "b c"], "arguments": "--d" });
        assert_eq!(super::arguments(&listed), ["--a", "b c"]);
    }
}
