//! Manifests, indexes and configurations.

use serde_json::{Value, json};

use crate::common::{Tar, digest_of};
use crate::server::{Door, Registry};
use crate::world::{
    INDEX, Layer, MANIFEST, World, architecture, config, descriptor, gzipped, is_file, manifest,
    push_blob, push_manifest,
};

fn layer(contents: &str) -> Layer {
    gzipped(Tar::new().file("f", contents.as_bytes()))
}

fn other() -> &'static str {
    if architecture() == "amd64" {
        "arm64"
    } else {
        "amd64"
    }
}

fn entry(manifest: &[u8], os: &str, architecture: &str) -> Value {
    let mut entry = descriptor(MANIFEST, manifest);
    entry["platform"] = json!({ "os": os, "architecture": architecture });
    entry
}

/// A registry with an index of these manifests.
fn index(registry: &Registry, manifests: Vec<Value>) -> runner::Digest {
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    push_manifest(registry, &index).0
}

#[test]
fn of_an_index_the_image_for_this_host_is_taken() {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let push = |contents: &str| {
        let manifest = manifest(&registry, &[layer(contents)]);
        push_manifest(&registry, &manifest).1
    };
    let (right, wrong) = (push("right"), push("wrong"));
    let mut newer = entry(&wrong, "linux", architecture());
    newer["platform"]["variant"] = "v99".into();
    let attestation = entry(&wrong, "unknown", "unknown");
    let entries = vec![
        attestation,
        entry(&wrong, "linux", other()),
        entry(&wrong, "windows", architecture()),
        newer,
        descriptor(MANIFEST, &wrong),
        entry(&right, "linux", architecture()),
        entry(&wrong, "linux", architecture()),
    ];
    let digest = index(&registry, entries);
    is_file(&world.pulled(&registry, &digest).join("f"), "right");
}

#[test]
fn an_index_without_an_image_for_this_host_is_refused() {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let manifest = manifest(&registry, &[layer("1")]);
    let (_, text) = push_manifest(&registry, &manifest);
    let entries = vec![
        entry(&text, "linux", other()),
        entry(&text, "unknown", "unknown"),
    ];
    let digest = index(&registry, entries);
    world.refuses(
        &registry,
        &digest,
        &format!("but for linux/{}, unknown/unknown", other()),
    );
    let digest = index(&registry, vec![descriptor(MANIFEST, &text)]);
    world.refuses(&registry, &digest, "no platform");
    let digest = index(&registry, Vec::new());
    world.refuses(&registry, &digest, "it is not for");
    let digest = index(&registry, vec![entry(&text, "evil\u{1b}[31m\n", "x")]);
    world.refuses(&registry, &digest, "evil");
}

#[test]
fn an_image_for_another_host_is_refused_whatever_the_index_says() {
    for (os, architecture) in [("linux", other()), ("windows", architecture())] {
        let (registry, world) = (Registry::start(Door::Open), World::new());
        let mut manifest = manifest(&registry, &[layer("1")]);
        let mut config = config(&[layer("1")]);
        config["os"] = os.into();
        config["architecture"] = architecture.into();
        let config = serde_json::to_vec(&config).unwrap();
        push_blob(&registry, &config);
        manifest["config"] = descriptor(crate::world::CONFIG, &config);
        let (direct, text) = push_manifest(&registry, &manifest);
        let by_index = index(
            &registry,
            vec![entry(&text, "linux", crate::world::architecture())],
        );
        for digest in [direct, by_index] {
            world.refuses(&registry, &digest, &format!("but for {os}/{architecture}"));
        }
    }
}

#[test]
fn indexes_of_indexes_and_loops_are_refused() {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let manifest = manifest(&registry, &[layer("1")]);
    let (_, text) = push_manifest(&registry, &manifest);
    let inner = json!({ "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [entry(&text, "linux", architecture())] });
    let (_, inner) = push_manifest(&registry, &inner);
    let mut nested = entry(&inner, "linux", architecture());
    // It does not matter whether the index admits it.
    world.refuses(
        &registry,
        &index(&registry, vec![nested.clone()]),
        "index of indexes",
    );
    nested["mediaType"] = INDEX.into();
    world.refuses(
        &registry,
        &index(&registry, vec![nested]),
        "index of indexes",
    );
    // A digest cannot name itself, so a loop needs a registry that lies.
    let digest = digest_of(b"loop");
    let mut looped = entry(b"loop", "linux", architecture());
    looped["size"] = 10_000.into();
    let text = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [looped] });
    let path = format!("/v2/team/app/manifests/{digest}");
    registry.put(&path, &serde_json::to_vec(&text).unwrap());
    world.refuses(&registry, &digest, "verify the manifest");
    world.refuses(
        &registry,
        &index(&registry, text["manifests"].as_array().unwrap().clone()),
        "verify the manifest",
    );
}

/// The image is refused when its manifest is changed so.
#[track_caller]
fn changed(reason: &str, change: impl FnOnce(&mut Value)) {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let mut manifest = manifest(&registry, &[layer("1")]);
    change(&mut manifest);
    let (digest, _) = push_manifest(&registry, &manifest);
    world.refuses(&registry, &digest, reason);
}

#[test]
fn manifests_that_are_something_else_are_refused() {
    changed("an index and a manifest at once", |m| {
        m["manifests"] = json!([])
    });
    changed("an index and a manifest at once", |m| {
        m["mediaType"] = INDEX.into()
    });
    changed("its type `application/x", |m| {
        m["mediaType"] = "application/x".into()
    });
    changed("no sound manifest", |m| m["config"] = json!(null));
    changed("no sound manifest", |m| {
        *m = json!({ "schemaVersion": 1, "fsLayers": [] })
    });
    changed("no sound manifest", |m| *m = json!([]));
    changed("no sound manifest", |m| {
        m["layers"][0]["size"] = (-1).into()
    });
    changed("no sound manifest", |m| {
        m["layers"][0]["digest"] = "../../x".into()
    });
    changed("its type `application/vnd.oci.empty", |m| {
        m["config"]["mediaType"] = "application/vnd.oci.empty.v1+json".into();
    });
    changed("its type `text/x\\u{1b}", |m| {
        m["layers"][0]["mediaType"] = "text/x\u{1b}[31m".into();
    });
    changed("nondistributable", |m| {
        m["layers"][0]["mediaType"] =
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".into();
    });
    changed("no SHA-256", |m| {
        m["layers"][0]["digest"] = format!("sha512:{}", "0".repeat(128)).into();
    });
    changed("document of 4194305 bytes", |m| {
        m["config"]["size"] = 4_194_305.into()
    });
    changed("2 layers, and its configuration 1", |m| {
        let layer = m["layers"][0].clone();
        m["layers"].as_array_mut().unwrap().push(layer);
    });
    changed("600 layers", |m| {
        let layer = m["layers"][0].clone();
        m["layers"] = vec![layer; 600].into();
    });
    changed("more than an image may have", |m| {
        m["layers"][0]["size"] = (1_u64 << 60).into();
    });
}

#[test]
fn dockers_own_types_are_taken() {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let mut manifest = manifest(&registry, &[layer("1")]);
    manifest["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json".into();
    manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
    manifest["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
    let (_, text) = push_manifest(&registry, &manifest);
    let mut entry = entry(&text, "linux", architecture());
    entry["mediaType"] = manifest["mediaType"].clone();
    let list = json!({ "schemaVersion": 2, "manifests": [entry],
        "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json" });
    let (digest, _) = push_manifest(&registry, &list);
    is_file(&world.pulled(&registry, &digest).join("f"), "1");
}
