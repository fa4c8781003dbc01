//! Secrets go from files and variables into the bucket as ciphertext, and are gone with the recovery.

use std::os::unix::fs::PermissionsExt;

use jobs::keys;
use jobs::record::Sealed;
use jobs::secrets::{Identity, Secrets};

use super::cluster;
use crate::world::World;

const RECOVER: &str = "recover --cluster test --spec cluster.yaml --plan plan.yaml --key k";

/// A world with a pair of keys.
async fn sealed_world() -> (World, Identity, String) {
    let world = World::new().await;
    let made = world.run("keygen identity --output json").await.exits(0);
    let recipient = made.json()["recipient"].as_str().unwrap().to_owned();
    let text = std::fs::read_to_string(world.path().join("identity")).unwrap();
    let identity: Identity = text.parse().unwrap();
    assert_eq!(identity.recipient().to_string(), recipient);
    (world, identity, recipient)
}

async fn sealed(world: &World) -> Option<Sealed> {
    let store = world.store().await;
    let records = store.recoveries(&cluster()).await.unwrap();
    assert_eq!(records.len(), 1);
    records.into_iter().next().unwrap().inputs.secrets
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_lie_sealed_until_the_recovery_ends() {
    let (world, identity, recipient) = sealed_world().await;
    world.file("token", "hunter2-file\n");
    // Without a cloud it fails, and goes on being there.
    world.file("plan.yaml", "version: 1\njobs: [{ job: provision }]\n");
    let environment = [
        ("REKINDLE_RECIPIENT", recipient.as_str()),
        ("DOMAIN", "hunter2.example.org"),
        ("MINE", "hunter2-variable"),
    ];
    let command = format!("{RECOVER} --here --secret GITHUB_TOKEN=@token --secret MINE");
    let ran = world.run_with(&command, &environment).await.exits(1);
    ran.says("sealed: DOMAIN, GITHUB_TOKEN, MINE");

    let there = sealed(&world).await.unwrap();
    assert_eq!(there.names, ["DOMAIN", "GITHUB_TOKEN", "MINE"]);
    assert_eq!(there.recipient, recipient);
    let store = world.store().await;
    let bytes = store.get_input(&there.input).await.unwrap();
    let opened = Secrets::open(&bytes, &cluster(), &identity).unwrap();
    let get = |name: &str| opened.get(name).unwrap().reveal().to_owned();
    assert_eq!(get("GITHUB_TOKEN"), "hunter2-file");
    assert_eq!(get("MINE"), "hunter2-variable");
    assert_eq!(get("DOMAIN"), "hunter2.example.org");
    for (key, bytes) in world.s3.objects("") {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("hunter2"), "{key}: {text}");
    }

    // The same key is the same recovery, and what was sealed first stays.
    let again = world.run_with(&command, &environment).await.exits(1);
    again.says("attached to");
    assert_eq!(sealed(&world).await.as_ref(), Some(&there));
    assert_eq!(world.count("inputs/"), 3);
    let other = format!("{RECOVER} --secret MINE");
    let other = world.run_with(&other, &environment).await.exits(2);
    other.complains("its secrets are others: DOMAIN, GITHUB_TOKEN, MINE");

    world
        .run("cancel --cluster test --reason done")
        .await
        .exits(0);
    assert_eq!(store.get(&keys::input(&there.input)).await.unwrap(), None);
    assert_eq!(world.count("inputs/"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_succeeds_leaves_no_secrets() {
    let (world, _, recipient) = sealed_world().await;
    let environment = [("REKINDLE_RECIPIENT", recipient.as_str()), ("DOMAIN", "d")];
    let command = format!("{RECOVER} --here");
    world.run_with(&command, &environment).await.exits(0);
    let there = sealed(&world).await.unwrap();
    let store = world.store().await;
    assert_eq!(store.get(&keys::input(&there.input)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_secrets_are_refused_and_not_repeated() {
    let (world, _, recipient) = sealed_world().await;
    world.file("empty", "");
    let private = std::fs::read_to_string(world.path().join("identity")).unwrap();
    let private = private.lines().last().unwrap();
    let to = |key: &str, secret: &str| format!("{RECOVER} --recipient {key} --secret {secret}");
    for (command, says) in [
        (format!("{RECOVER} --secret DOMAIN"), "no --recipient"),
        (to("age1hunter2", "DOMAIN"), "is no age recipient"),
        (to(private, "DOMAIN"), "(a private key)"),
        (to(&recipient, "A=hunter2"), "can be read by everybody"),
        (to(&recipient, "hunter2"), "no such environment variable"),
        (to(&recipient, "A=@nowhere"), "failed to read nowhere"),
        (to(&recipient, "A=@empty"), "the secret A is empty"),
        (to(&recipient, "a-b=@token"), "is no name of a secret"),
    ] {
        world.file("token", "hunter2");
        let ran = world.run(&command).await.exits(2);
        let ran = ran.complains(says);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(
            !said.contains("hunter2") || says.contains("recipient"),
            "{said}"
        );
        assert!(!said.contains(private), "{said}");
    }
    assert_eq!(world.count(""), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_for_its_owner_only_and_never_overwritten() {
    let (world, identity, _) = sealed_world().await;
    let path = world.path().join("identity");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    world
        .run("keygen identity")
        .await
        .exits(1)
        .complains("take another name");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        text.parse::<Identity>().unwrap().recipient(),
        identity.recipient()
    );
}
