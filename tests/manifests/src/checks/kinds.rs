//! Flux 2.8 and newer serve one version of each kind. A kind that the API server does not know fails a whole
//! Kustomization.

use crate::{Document, Finding, Tree};

/// What may be used of Flux, and in which version.
const FLUX: &[(&str, &str)] = &[
    ("source.toolkit.fluxcd.io/v1", "GitRepository"),
    ("source.toolkit.fluxcd.io/v1", "Bucket"),
    ("source.toolkit.fluxcd.io/v1", "HelmRepository"),
    ("kustomize.toolkit.fluxcd.io/v1", "Kustomization"),
    ("helm.toolkit.fluxcd.io/v2", "HelmRelease"),
];

/// Kubernetes' own kinds that the tree uses.
const KUBERNETES: &[(&str, &str)] = &[
    ("v1", "Namespace"),
    ("v1", "ConfigMap"),
    ("v1", "PersistentVolume"),
    ("storage.k8s.io/v1", "StorageClass"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
];

/// Kinds that a release brings: the release's namespace and name come last.
pub(crate) const BROUGHT: &[(&str, &str, &str, &str)] = &[
    (
        "cert-manager.io/v1",
        "ClusterIssuer",
        "cert-manager",
        "cert-manager",
    ),
    (
        "cert-manager.io/v1",
        "Certificate",
        "cert-manager",
        "cert-manager",
    ),
    (
        "networking.istio.io/v1",
        "Gateway",
        "istio-system",
        "istio-base",
    ),
    (
        "networking.istio.io/v1",
        "VirtualService",
        "istio-system",
        "istio-base",
    ),
];

/// Every kind is one that somebody serves.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let strange = |document: &&Document| {
        let kind = (document.api_version(), document.kind());
        let brought = BROUGHT.iter().any(|b| (b.0, b.1) == kind);
        !brought && !FLUX.contains(&kind) && !KUBERNETES.contains(&kind)
    };
    let documents = tree.documents.iter().filter(strange);
    documents
        .map(|d| Finding::new(d.id(), format!("nothing serves {}", d.api_version())))
        .collect()
}
