//! The way in: the load balancer's rules lead to ports of the gateway's nodes, the gateway knows a certificate for each
//! name, and routes hang on gateways that exist.

use jobs::spec::{ClusterSpec, Role};
use serde_json::Value;

use super::disks::has_labels;
use crate::document::{field, texts};
use crate::{Document, Finding, Tree};

/// Where the gateway runs, and so where it looks for certificates.
const INGRESS: (&str, &str) = ("istio-system", "istio-ingressgateway");

/// From the load balancer to the route, nothing leads into the void.
pub fn check(tree: &Tree, spec: &ClusterSpec) -> Vec<Finding> {
    let mut findings = ports(tree, spec);
    for gateway in tree.of_kind("Gateway") {
        for server in gateway.items("/spec/servers") {
            let secret = server
                .pointer("/tls/credentialName")
                .and_then(Value::as_str);
            if let Some(secret) = secret {
                let said = certificate(tree, secret, server);
                findings.extend(
                    said.into_iter()
                        .map(|what| Finding::new(gateway.id(), what)),
                );
            }
        }
    }
    for route in tree.of_kind("VirtualService") {
        for name in route
            .items("/spec/gateways")
            .iter()
            .filter_map(Value::as_str)
        {
            if tree.find("Gateway", route.namespace(), name).is_none() {
                let what = format!("there is no Gateway {}/{name}", route.namespace());
                findings.push(Finding::new(route.id(), what));
            }
        }
    }
    findings
}

/// What is wrong with the certificate of a gateway's server.
fn certificate(tree: &Tree, secret: &str, server: &Value) -> Vec<String> {
    let writes = |d: &&Document| d.namespace() == INGRESS.0 && d.text("/spec/secretName") == secret;
    let Some(certificate) = tree.of_kind("Certificate").find(writes) else {
        return vec![format!("no Certificate writes {secret}")];
    };
    let mut wrong = Vec::new();
    texts(server.get("hosts").unwrap_or(&Value::Null), &mut |host| {
        let names = certificate.items("/spec/dnsNames");
        if !names.iter().any(|name| name.as_str() == Some(host)) {
            wrong.push(format!("{secret} is not for {host}"));
        }
    });
    wrong
}

/// What the load balancer sends to a worker is taken there by the gateway.
fn ports(tree: &Tree, spec: &ClusterSpec) -> Vec<Finding> {
    let Some(ingress) = tree.find("HelmRelease", INGRESS.0, INGRESS.1) else {
        let place = format!("HelmRelease {}/{}", INGRESS.0, INGRESS.1);
        return vec![Finding::new(place, "it is not in the tree")];
    };
    let mut findings = Vec::new();
    let mut say = |what: String| findings.push(Finding::new(ingress.id(), what));
    let services = ingress.items("/spec/values/service/ports");
    let selector = ingress.value.pointer("/spec/values/nodeSelector");
    let nodes = spec.nodes();
    for node in nodes.iter().filter(|node| node.role == Role::Worker) {
        for forward in &node.forward {
            let listens = |service: &&Value| service.get("nodePort") == Some(&forward.to.into());
            match services.iter().find(listens) {
                None => say(format!("nothing listens on {}", forward.to)),
                Some(service) if service.get("port") == Some(&forward.port.into()) => {}
                Some(service) => {
                    let name = field(service, "name");
                    say(format!(
                        "{} leads to {name}, not {}",
                        forward.to, forward.port
                    ));
                }
            }
            if !selector.is_some_and(|selector| has_labels(node, selector)) {
                let (name, port) = (&node.name, forward.port);
                say(format!(
                    "{name} sends {port} there, and no pod of it runs on that node"
                ));
            }
        }
    }
    findings
}
