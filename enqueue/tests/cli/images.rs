//! Lists of images: checked here, before any worker sees them.

use jobs::images::Reference;
use sandbox::registry::{Door, Image, Registry, tar};

use crate::world::{SPEC, World};

/// What the Kubernetes of [`spec`] needs.
const IMAGES: &str = "\
registry.k8s.io/kube-apiserver:v1.33.7
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

fn spec() -> String {
    let kubernetes = format!(
        "kubernetes:\n  version: \"1.33.7\"\n  kubespray: \"2.29.1\"\n  image: {{ digest: \"sha256:{}\" }}\ngroups:\n",
        "0a".repeat(32)
    );
    let more = ["master", "bastion"].map(|role| {
        format!(
            "  - {{ prefix: {role}, role: {role}, instances: {{ 1: true }}, vcpus: 2, ram_gb: 2, boot_disk: {{ size_gb: 20 }} }}\n"
        )
    });
    format!(
        "{}{}",
        SPEC.replace("groups:\n", &kubernetes),
        more.concat()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_do_not_fit_exit_2_and_leave_nothing_behind() {
    let world = World::new().await;
    world.file("kubernetes.yaml", &spec());
    world.file("images.list", IMAGES);
    let validate = "validate --spec kubernetes.yaml --images";
    world
        .run(&format!("{validate} images.list"))
        .await
        .exits(0)
        .says("images.list: 14 images for Kubernetes 1.33.7: fine");
    let mirror = "mirror-images --cluster test --spec kubernetes.yaml --images";
    for (list, why) in [
        (
            IMAGES.replace("v1.33.7", "v1.31.1"),
            "wants `registry.k8s.io/kube-apiserver:v1.33.7`; there is `registry.k8s.io/kube-apiserver:v1.31.1`",
        ),
        (
            format!("{IMAGES}nginx:1\n"),
            "line 15: `nginx:1` is not an image",
        ),
        (
            format!("{IMAGES}{IMAGES}"),
            "line 15: `registry.k8s.io/kube-apiserver:v1.33.7` stands in line 1",
        ),
        ("# nothing\n".to_owned(), "line 1: there is no image"),
    ] {
        world.file("bad.list", &list);
        world
            .run(&format!("{validate} bad.list"))
            .await
            .exits(2)
            .says(why);
        world
            .run(&format!("{mirror} bad.list"))
            .await
            .exits(2)
            .complains(why);
    }
    world
        .run(&format!("{mirror} missing.list"))
        .await
        .exits(2)
        .complains("missing.list");
    world
        .run("mirror-images --cluster test --spec cluster.yaml --images images.list")
        .await
        .exits(2)
        .complains("has no `kubernetes` section");
    world
        .run(&format!("{mirror} images.list --platform vax"))
        .await
        .exits(2)
        .complains("`vax` is not a platform");
    world
        .run("validate --images images.list")
        .await
        .exits(2)
        .complains("--spec");
    assert_eq!(world.count(""), 0, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_mirrored_here_and_status_shows_its_digest() {
    let world = World::new().await;
    world.file("kubernetes.yaml", &spec());
    world.file("images.list", IMAGES);
    let registry = Registry::start(Door::Token);
    for name in IMAGES.lines() {
        let image: Reference = name.parse().unwrap();
        let layers = vec![tar("own", name.as_bytes())];
        Image::of(layers).push(&registry, image.repository(), image.tag().unwrap());
    }
    let hosts = ["registry.k8s.io", "quay.io", "docker.io"];
    let mirrors = hosts.map(|host| format!("{host}=oci+http://{}", registry.address));
    let mirrors = [("REKINDLE_REGISTRY_MIRRORS", &*mirrors.join(","))];
    let mirror = "mirror-images --cluster test --spec kubernetes.yaml --images images.list --here";
    world.run_with(mirror, &mirrors).await.exits(0);
    let bundles = world.s3.objects("artifacts/bundles/");
    let mut names = bundles
        .iter()
        .filter_map(|(key, _)| key.strip_suffix("/index.json"));
    let digits = names.next().and_then(|key| key.rsplit('/').next()).unwrap();
    world
        .run("status --cluster test --job mirror-images")
        .await
        .exits(0)
        .says(&format!("\"sha256:{digits}\""));
    let bad = [("REKINDLE_REGISTRY_MIRRORS", "quay.io=https://r.example")];
    world
        .run_with(mirror, &bad)
        .await
        .exits(2)
        .complains("REKINDLE_REGISTRY_MIRRORS");
}
