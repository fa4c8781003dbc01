//! Why pods do not run, and which images they are to run: what stands behind "0 of 1 pods are available".

use serde_json::Value;

/// What a container says while it does not run, and does not say for long when all is well.
const TROUBLE: [&str; 8] = [
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];
/// What of it no time cures.
const HOPELESS: [&str; 2] = ["InvalidImageName", "ErrImageNeverPull"];
/// As much of a message as is shown, in letters.
const SHOWN: usize = 200;

/// What is wrong with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// `pod <name>: <reason>: <message>`.
    pub text: String,
    /// It does not go away by itself.
    pub hopeless: bool,
}

/// The first trouble of some pods.
pub fn trouble(pods: &[Value]) -> Option<Trouble> {
    pods.iter().find_map(of_pod)
}

fn of_pod(pod: &Value) -> Option<Trouble> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let list = |at: &str| pod["status"][at].as_array().into_iter().flatten();
    let waiting = list("initContainerStatuses")
        .chain(list("containerStatuses"))
        .map(|container| &container["state"]["waiting"])
        .find(|waiting| {
            waiting["reason"]
                .as_str()
                .is_some_and(|reason| TROUBLE.contains(&reason))
        });
    let unscheduled = || {
        list("conditions").find(|it| {
            it["type"] == "PodScheduled"
                && it["status"] == "False"
                && it["reason"] == "Unschedulable"
        })
    };
    let why = waiting.or_else(unscheduled)?;
    let reason = why["reason"].as_str().unwrap_or_default();
    let message: String = why["message"]
        .as_str()
        .unwrap_or_default()
        .chars()
        .take(SHOWN)
        .collect();
    let text = match message.is_empty() {
        true => format!("pod {name}: {reason}"),
        false => format!("pod {name}: {reason}: {message}"),
    };
    Some(Trouble {
        text,
        hopeless: HOPELESS.contains(&reason),
    })
}

/// The images of what makes pods, a Deployment for example.
pub fn images(workload: &Value) -> Vec<&str> {
    let containers = workload["spec"]["template"]["spec"]["containers"].as_array();
    let containers = containers.into_iter().flatten();
    containers.filter_map(|it| it["image"].as_str()).collect()
}

/// The tag of an image: `registry:5000/a/b:1.2@sha256:…` → `1.2`.
pub fn tag(image: &str) -> Option<&str> {
    let name = image.split('@').next()?;
    let last = name.rsplit('/').next()?;
    last.split_once(':').map(|(_, tag)| tag)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: Value) -> Value {
        json!({"metadata": {"name": "a-1"}, "status": status})
    }

    #[test]
    fn a_pod_says_why_it_does_not_run() {
        let check = |status: Value, text: Option<&str>, hopeless: bool| {
            let found = trouble(&[pod(json!({})), pod(status.clone())]);
            let expected = text.map(|text| Trouble {
                text: text.to_owned(),
                hopeless,
            });
            assert_eq!(found, expected, "{status}");
        };
        let waiting = |reason: &str| json!([{"state": {"waiting": {"reason": reason, "message": "no such image"}}}]);
        check(
            json!({"containerStatuses": waiting("ImagePullBackOff")}),
            Some("pod a-1: ImagePullBackOff: no such image"),
            false,
        );
        check(
            json!({"initContainerStatuses": waiting("InvalidImageName")}),
            Some("pod a-1: InvalidImageName: no such image"),
            true,
        );
        check(
            json!({"containerStatuses": waiting("ContainerCreating")}),
            None,
            false,
        );
        check(
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/3 nodes are available"}]}),
            Some("pod a-1: Unschedulable: 0/3 nodes are available"),
            false,
        );
        check(
            json!({"containerStatuses": [{"state": {"running": {}}}]}),
            None,
            false,
        );
    }

    #[test]
    fn an_images_tag_is_not_its_registrys_port() {
        for (image, expected) in [
            ("ghcr.io/fluxcd/source-controller:v1.7.4", Some("v1.7.4")),
            ("harbor.example.org:5000/a/dsf:123.10", Some("123.10")),
            ("harbor.example.org:5000/a/dsf", None),
            ("a/b:1@sha256:0a", Some("1")),
            ("a/b@sha256:0a", None),
        ] {
            assert_eq!(tag(image), expected, "{image}");
        }
        let workload = json!({"spec": {"template": {"spec": {"containers": [{"image": "a:1"}, {"image": "b:2"}]}}}});
        assert_eq!(images(&workload), ["a:1", "b:2"]);
        assert_eq!(images(&json!({})), Vec::<&str>::new());
    }
}
