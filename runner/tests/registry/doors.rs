//! Who is let in, and who gets to see the credentials.

use std::fs;

use serde_json::json;

use crate::common::server::start_tls;
use crate::common::{Tar, digest_of, text};
use crate::server::{Door, Fault, PASSWORD, Registry, alice};
use crate::world::{World, ended, gzipped, is_file, push, push_blob, push_manifest};

fn layers() -> [crate::world::Layer; 1] {
    [gzipped(Tar::new().file("f", b"1"))]
}

/// A folder with docker's file for a registry.
fn auth_file(registry: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let auth = alice().trim_start_matches("Basic ").to_owned();
    fs::write(
        &path,
        json!({ "auths": { registry: { "auth": auth } } }).to_string(),
    )
    .unwrap();
    (folder, path)
}

#[test]
fn a_token_that_everybody_gets_is_asked_for_once() {
    let (registry, world) = (Registry::start(Door::Token), World::new());
    let digest = push(&registry, &layers());
    is_file(&world.pulled(&registry, &digest).join("f"), "1");
    let requests = registry.requests();
    let shown: Vec<_> = requests
        .iter()
        .map(|request| {
            (
                request.path.split('/').nth(4),
                request.authorization.as_deref(),
            )
        })
        .collect();
    let token = Some("Bearer secret-1");
    assert_eq!(
        shown,
        [
            (Some("manifests"), None),
            (None, None),
            (Some("manifests"), token),
            (Some("blobs"), token),
            (Some("blobs"), token),
        ]
    );
}

#[test]
fn a_token_that_expires_is_replaced() {
    let (registry, world) = (Registry::start(Door::Token), World::new());
    let layers = layers();
    let digest = push(&registry, &layers);
    registry.fail(digest_of(&layers[0].blob).to_string(), Fault::Forget);
    is_file(&world.pulled(&registry, &digest).join("f"), "1");
    assert_eq!(registry.count("/token"), 2);
}

#[test]
fn user_and_password_come_from_a_file() {
    for door in [Door::Alice, Door::TokenOfAlice] {
        let (registry, world) = (Registry::start(door), World::new());
        let digest = push(&registry, &layers());
        let output = world.fails(&registry, &digest, 3, "the registry says 401");
        assert!(text(&output).contains("--auth-file"));
        let (_folder, path) = auth_file("other.example");
        let pull = |path: &std::path::Path| {
            let mut pull = world.pull(&registry.url(), &digest);
            pull.arg("--auth-file").arg(path).output().unwrap()
        };
        ended(&pull(&path), 3);
        assert!(
            registry
                .requests()
                .iter()
                .all(|request| request.authorization.is_none()),
            "another registry's password was shown"
        );
        let (_folder, path) = auth_file(&registry.address);
        ended(&pull(&path), 0);
        for request in registry.requests() {
            let shown = request.authorization.unwrap_or_default();
            let token = request.path.starts_with("/token");
            assert!(
                shown.is_empty() || (shown == alice()) == (token || door == Door::Alice),
                "{} got {shown}",
                request.path
            );
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_wrong_command_line() {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let digest = push(&registry, &layers());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    for contents in [None, Some(PASSWORD)] {
        if let Some(contents) = contents {
            fs::write(&path, contents).unwrap();
        }
        let mut pull = world.pull(&registry.url(), &digest);
        ended(&pull.arg("--auth-file").arg(&path).output().unwrap(), 2);
    }
    assert_eq!(registry.requests(), []);
}

#[test]
fn who_we_are_redirected_to_sees_no_credentials() {
    for door in [Door::Token, Door::Alice] {
        let (registry, world) = (Registry::start(door), World::new());
        let storage = Registry::start(Door::Open);
        let layers = layers();
        let digest = push(&registry, &layers);
        let blob = digest_of(&layers[0].blob);
        storage.put("/bucket/blob?X-Amz-Signature=abc", &layers[0].blob);
        registry.fail(
            blob.to_string(),
            Fault::Redirect(format!(
                "http://{}/bucket/blob?X-Amz-Signature=abc",
                storage.address
            )),
        );
        let (_folder, path) = auth_file(&registry.address);
        let mut pull = world.pull(&registry.url(), &digest);
        let output = pull.arg("--auth-file").arg(&path).output().unwrap();
        ended(&output, 0);
        assert_eq!(storage.requests().len(), 1);
        assert_eq!(storage.requests()[0].authorization, None);
        let asked = registry.requests();
        let asked = asked
            .iter()
            .find(|request| request.path.contains(&blob.to_string()));
        assert!(
            asked.unwrap().authorization.is_some(),
            "the registry itself did see them"
        );
    }
}

#[test]
fn a_redirect_within_the_registry_keeps_the_token() {
    let (registry, world) = (Registry::start(Door::Token), World::new());
    let layers = layers();
    let digest = push(&registry, &layers);
    registry.put("/elsewhere", &layers[0].blob);
    registry.fail(
        digest_of(&layers[0].blob).to_string(),
        Fault::Redirect("/elsewhere".into()),
    );
    world.pulled(&registry, &digest);
    let requests = registry.requests();
    assert_eq!(requests.last().unwrap().path, "/elsewhere");
    assert_eq!(
        requests.last().unwrap().authorization.as_deref(),
        Some("Bearer secret-1")
    );
}

#[test]
fn redirects_that_are_not_followed() {
    let world = World::new();
    for place in [
        "http://192.0.2.1/blob",
        "http://alice:pw@127.0.0.1/blob",
        "file:///etc/passwd",
        "ftp://127.0.0.1/blob",
        "relative",
    ] {
        let registry = Registry::start(Door::Open);
        let digest = push(&registry, &layers());
        registry.fail("/manifests/", Fault::Redirect(place.to_owned()));
        world.fails(&registry, &digest, 3, "redirects");
    }
    // Round and round.
    let registry = Registry::start(Door::Open);
    let digest = push(&registry, &layers());
    for _ in 0..10 {
        registry.fail(
            "/manifests/",
            Fault::Redirect(format!("/v2/team/app/manifests/{digest}")),
        );
    }
    world.fails(&registry, &digest, 3, "redirects");
    assert_eq!(registry.requests().len(), 6);
}

#[test]
fn certificates_are_verified() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let scratch = Registry::start(Door::Open);
    let (digest, manifest) = {
        let manifest = crate::world::manifest(&scratch, &layers());
        push_manifest(&scratch, &manifest)
    };
    let url = start_tls(&manifest, folder.path());
    let url = url
        .replace("https://", "oci://")
        .replace("/image", "/team/app");
    let output = world.run(&url, &digest);
    ended(&output, 3);
    assert!(text(&output).contains("ertificate"), "{}", text(&output));
    // This server has the manifest only, whatever it is asked for: the next document is wrong.
    let mut pull = world.pull(&url, &digest);
    let output = pull
        .arg("--ca-file")
        .arg(folder.path().join("ca.pem"))
        .output()
        .unwrap();
    ended(&output, 4);
    assert!(text(&output).contains("/blobs/"), "{}", text(&output));
}

#[test]
fn wrong_command_lines_ask_nobody() {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let digest = push(&registry, &layers());
    let other = push_blob(&registry, b"other");
    for url in [
        "oci+http://r.example/team/app".to_owned(),
        format!("oci+http://u:p@{}/team/app", registry.address),
        format!("{}@{other}", registry.url()),
        format!("{}@sha512:{}", registry.url(), "0".repeat(128)),
    ] {
        ended(&world.run(&url, &digest), 2);
    }
    assert_eq!(registry.requests(), []);
    assert!(!world.store.exists());
    // The same digest twice is fine, and a tag is for people.
    ended(
        &world.run(&format!("{}:v1@{digest}", registry.url()), &digest),
        0,
    );
}
