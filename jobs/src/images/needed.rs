//! Which images the Kubernetes of a spec cannot start without. What is missing is found before anything
//! is transferred, and not by a node in a disaster that waits for an image from nowhere.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Reference;
use crate::spec::{Kubernetes, NetworkPlugin, Problem};

/// Registries as Kubespray has them: the variable that moves one elsewhere, and where it is without.
type Registry = (&'static str, &'static str);
const KUBE: Registry = ("kube_image_repo", "registry.k8s.io");
const QUAY: Registry = ("quay_image_repo", "quay.io");
const DOCKER: Registry = ("docker_image_repo", "docker.io");

/// An image that must be there.
struct Needed {
    /// What it is to people.
    what: &'static str,
    /// Kubespray's variable with its whole name, where it has one.
    own: Option<&'static str>,
    registry: Registry,
    path: &'static str,
    /// The tag that it must have; any when absent: which one goes with a release of Kubespray, Kubespray knows.
    tag: Option<String>,
}

/// What of `images` is missing for the Kubernetes of a spec: what is wanted, and what is there instead.
pub fn missing<'a>(
    images: impl IntoIterator<Item = &'a Reference>,
    kubernetes: &Kubernetes,
) -> Vec<Problem> {
    let images: Vec<&Reference> = images.into_iter().collect();
    let vars = &kubernetes.extra_vars;
    let misses = needed(kubernetes).into_iter().filter_map(|needed| {
        let name = needed.name(vars)?;
        let fits = |image: &&&Reference| {
            let tagged = needed
                .tag
                .as_deref()
                .is_none_or(|tag| image.tag() == Some(tag));
            image.name() == name && tagged
        };
        if images.iter().any(|image| fits(&image)) {
            return None;
        }
        let wanted = match &needed.tag {
            Some(tag) => format!("`{name}:{tag}`"),
            None => format!("`{name}`"),
        };
        // The same image from elsewhere, or of another version, is what people mean by "but it is there".
        let last = name.rsplit('/').next().unwrap_or_default();
        let others = images
            .iter()
            .filter(|image| image.repository().rsplit('/').next() == Some(last));
        let others: Vec<String> = others.take(5).map(|image| format!("`{image}`")).collect();
        let there = match others.is_empty() {
            true => "there is none".to_owned(),
            false => format!("there is {}", others.join(", ")),
        };
        let version = &kubernetes.version;
        let reason = format!("Kubernetes {version} of the spec wants {wanted}; {there}");
        Some(Problem::new(needed.what, reason))
    });
    misses.collect()
}

impl Needed {
    /// Registry and repository; nothing when a variable is no plain text, but an expression of Ansible's.
    fn name(&self, vars: &BTreeMap<String, Value>) -> Option<String> {
        let text = |name: &str| match vars.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.contains("{{") => Ok(Some(text.clone())),
            Some(_) => Err(()),
        };
        if let Some(own) = self.own.map(text).transpose().ok()?.flatten() {
            return Some(own);
        }
        let (variable, usual) = self.registry;
        let registry = text(variable).ok()?.unwrap_or_else(|| usual.to_owned());
        Some(format!("{}/{}", registry.trim_end_matches('/'), self.path))
    }
}

fn needed(kubernetes: &Kubernetes) -> Vec<Needed> {
    let vars = &kubernetes.extra_vars;
    let on = |name: &str, usual: bool| match vars.get(name) {
        Some(Value::Bool(set)) => *set,
        _ => usual,
    };
    let version = format!("v{}", kubernetes.version);
    let of_release = [
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
    ];
    let mut all: Vec<Needed> = of_release
        .map(|name| Needed {
            tag: Some(version.clone()),
            ..any(name, None, KUBE, name)
        })
        .into();
    all.push(any("pause", Some("pod_infra_image_repo"), KUBE, "pause"));
    all.push(any(
        "coredns",
        Some("coredns_image_repo"),
        KUBE,
        "coredns/coredns",
    ));
    if on("enable_nodelocaldns", true) {
        let own = Some("nodelocaldns_image_repo");
        all.push(any(
            "node-local DNS (enable_nodelocaldns)",
            own,
            KUBE,
            "dns/k8s-dns-node-cache",
        ));
    }
    if on("enable_dns_autoscaler", true) {
        let path = "cpa/cluster-proportional-autoscaler";
        let own = Some("dnsautoscaler_image_repo");
        all.push(any(
            "DNS autoscaler (enable_dns_autoscaler)",
            own,
            KUBE,
            path,
        ));
    }
    // Rekindle's own inventory switches these two on.
    if on("metrics_server_enabled", true) {
        let own = Some("metrics_server_image_repo");
        all.push(any(
            "metrics-server (metrics_server_enabled)",
            own,
            KUBE,
            "metrics-server/metrics-server",
        ));
    }
    if on("local_volume_provisioner_enabled", true) {
        all.push(any(
            "local volumes (local_volume_provisioner_enabled)",
            Some("local_volume_provisioner_image_repo"),
            KUBE,
            "sig-storage/local-volume-provisioner",
        ));
    }
    // Workers reach the masters by a proxy of their own, unless the spec's variables name a load balancer.
    let proxied = !vars.contains_key("loadbalancer_apiserver")
        && on("loadbalancer_apiserver_localhost", true);
    match vars.get("loadbalancer_apiserver_type").map(Value::as_str) {
        _ if !proxied => {}
        None | Some(Some("nginx")) => {
            all.push(any(
                "proxy of the workers",
                Some("nginx_image_repo"),
                DOCKER,
                "library/nginx",
            ));
        }
        Some(Some("haproxy")) => {
            all.push(any(
                "proxy of the workers",
                Some("haproxy_image_repo"),
                DOCKER,
                "library/haproxy",
            ));
        }
        Some(_) => {}
    }
    match kubernetes.network.plugin {
        NetworkPlugin::Calico => {
            all.push(any(
                "calico",
                Some("calico_node_image_repo"),
                QUAY,
                "calico/node",
            ));
            all.push(any(
                "calico",
                Some("calico_cni_image_repo"),
                QUAY,
                "calico/cni",
            ));
            // They come with the enforcement of network policies, which calico always has.
            let own = Some("calico_policy_image_repo");
            all.push(any("calico", own, QUAY, "calico/kube-controllers"));
        }
        NetworkPlugin::Cilium => {
            all.push(any(
                "cilium",
                Some("cilium_image_repo"),
                QUAY,
                "cilium/cilium",
            ));
            all.push(any(
                "cilium",
                Some("cilium_operator_image_repo"),
                QUAY,
                "cilium/operator",
            ));
        }
        NetworkPlugin::Flannel => {
            all.push(any(
                "flannel",
                Some("flannel_image_repo"),
                DOCKER,
                "flannel/flannel",
            ));
            all.push(any(
                "flannel",
                Some("flannel_init_image_repo"),
                DOCKER,
                "flannel/flannel-cni-plugin",
            ));
        }
    }
    all
}

fn any(
    what: &'static str,
    own: Option<&'static str>,
    registry: Registry,
    path: &'static str,
) -> Needed {
    Needed {
        what,
        own,
        registry,
        path,
        tag: None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::images::List;
    use serde_json::json;

    const LIST: &str = "registry.k8s.io/kube-apiserver:v1.33.7
registry.k8s.io/kube-controller-manager:v1.33.7
registry.k8s.io/kube-scheduler:v1.33.7
registry.k8s.io/kube-proxy:v1.33.7
registry.k8s.io/pause:3.10
registry.k8s.io/coredns/coredns:v1.12.0
registry.k8s.io/dns/k8s-dns-node-cache:1.25.0
registry.k8s.io/cpa/cluster-proportional-autoscaler:v1.8.8
registry.k8s.io/metrics-server/metrics-server:v0.8.0
registry.k8s.io/sig-storage/local-volume-provisioner:v2.5.0
docker.io/library/nginx:1.28.0-alpine
quay.io/calico/node:v3.30.5
quay.io/calico/cni:v3.30.5
quay.io/calico/kube-controllers:v3.30.5
";

    fn kubernetes(plugin: NetworkPlugin, vars: Value) -> Kubernetes {
        let section = json!({
            "version": "1.33.7", "kubespray": "2.29.1", "image": {"digest": ""},
            "network": {"plugin": plugin}, "extra_vars": vars,
        });
        serde_json::from_value(section).unwrap()
    }

    #[track_caller]
    fn check(list: &str, kubernetes: &Kubernetes, want: &[&str]) {
        let list = List::parse(list).unwrap();
        let found: Vec<String> = missing(list.images(), kubernetes)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found.len(), want.len(), "{found:#?}");
        for (found, want) in found.iter().zip(want) {
            assert!(found.contains(want), "`{found}` does not say `{want}`");
        }
    }

    #[test]
    fn what_kubespray_installs_must_be_there() {
        let calico = kubernetes(NetworkPlugin::Calico, json!({}));
        check(LIST, &calico, &[]);
        for line in LIST.lines() {
            let name = line.split(':').next().unwrap();
            check(&LIST.replace(&format!("{line}\n"), ""), &calico, &[name]);
        }
        // A digest beside the tag does no harm, a digest alone says no version.
        let digest = format!("@sha256:{}", "0a".repeat(32));
        let bound = LIST.replace("kube-proxy:v1.33.7", &format!("kube-proxy:v1.33.7{digest}"));
        check(&bound, &calico, &[]);
        let untold = LIST.replace("kube-proxy:v1.33.7", &format!("kube-proxy{digest}"));
        check(
            &untold,
            &calico,
            &[
                "kube-proxy: Kubernetes 1.33.7 of the spec wants `registry.k8s.io/kube-proxy:v1.33.7`",
            ],
        );
    }

    /// The reference's bundle held Kubernetes 1.31.1 while Kubespray installed 1.33.7.
    #[test]
    fn another_version_and_another_registry_are_named() {
        let calico = kubernetes(NetworkPlugin::Calico, json!({}));
        let old = LIST.replace("v1.33.7", "v1.31.1");
        let wants = "wants `registry.k8s.io/kube-scheduler:v1.33.7`; there is `registry.k8s.io/kube-scheduler:v1.31.1`";
        check(
            &old,
            &calico,
            &["kube-apiserver", "kube-controller", wants, "kube-proxy"],
        );
        let elsewhere = LIST.replace("quay.io/calico/cni", "mirror.example/calico/cni");
        check(
            &elsewhere,
            &calico,
            &[
                "calico: Kubernetes 1.33.7 of the spec wants `quay.io/calico/cni`; there is `mirror.example/calico/cni:v3.30.5`",
            ],
        );
    }

    #[test]
    fn variables_move_images_and_switch_them_on_and_off() {
        let moved = LIST
            .replace("registry.k8s.io/", "mirror.example/k8s/")
            .replace("quay.io/", "mirror.example/");
        let vars =
            json!({"kube_image_repo": "mirror.example/k8s/", "quay_image_repo": "mirror.example"});
        check(&moved, &kubernetes(NetworkPlugin::Calico, vars), &[]);
        let own = LIST.replace("docker.io/library/nginx", "mirror.example/proxy");
        check(
            &own,
            &kubernetes(
                NetworkPlugin::Calico,
                json!({"nginx_image_repo": "mirror.example/proxy"}),
            ),
            &[],
        );
        // What Ansible would work out is not guessed at.
        check(
            &own,
            &kubernetes(
                NetworkPlugin::Calico,
                json!({"nginx_image_repo": "{{ x }}/proxy"}),
            ),
            &[],
        );
        let less = json!({"enable_nodelocaldns": false, "enable_dns_autoscaler": false, "metrics_server_enabled": false, "local_volume_provisioner_enabled": false, "loadbalancer_apiserver_localhost": false});
        let bare: String = LIST
            .lines()
            .filter(|line| {
                ["/dns/", "/cpa/", "nginx", "metrics", "local-volume"]
                    .iter()
                    .all(|part| !line.contains(part))
            })
            .map(|line| format!("{line}\n"))
            .collect();
        check(&bare, &kubernetes(NetworkPlugin::Calico, less), &[]);
        let more = json!({"loadbalancer_apiserver_type": "haproxy"});
        check(
            LIST,
            &kubernetes(NetworkPlugin::Calico, more),
            &["library/haproxy"],
        );
    }

    #[test]
    fn each_network_plugin_has_its_images() {
        check(
            LIST,
            &kubernetes(NetworkPlugin::Cilium, json!({})),
            &["cilium/cilium", "cilium/operator"],
        );
        let flannel = format!(
            "{LIST}docker.io/flannel/flannel:v0.27\ndocker.io/flannel/flannel-cni-plugin:v1\n"
        );
        check(
            &flannel,
            &kubernetes(NetworkPlugin::Flannel, json!({})),
            &[],
        );
    }
}
