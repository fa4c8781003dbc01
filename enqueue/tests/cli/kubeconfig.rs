//! The kubeconfig that a recovery sealed comes out for whoever holds the key, and for nobody else.

use std::os::unix::fs::PermissionsExt;

use jiff::Timestamp;
use jobs::keys;
use jobs::record::KubeconfigRecord;
use jobs::secrets::{Identity, Secrets};
use jobs::store::{Appended, Secret};
use sandbox::kube_api::{Authority, Validity, kubeconfig};

use super::cluster;
use crate::world::World;

const SERVER: &str = "https://127.0.0.1:6443";

fn conf() -> String {
    let authority = Authority::new("kubernetes").unwrap();
    let admin = authority.client("kubernetes-admin", Some("system:masters"), Validity::Good);
    kubeconfig(
        SERVER,
        &authority.pem(),
        "kubernetes-admin",
        &admin.unwrap(),
    )
}

/// A world where a recovery kept this, sealed to the key in the file `identity`.
async fn kept(text: &str) -> World {
    let world = World::new().await;
    world.run("keygen identity").await.exits(0);
    let identity = std::fs::read_to_string(world.path().join("identity")).unwrap();
    let identity: Identity = identity.parse().unwrap();
    let mut secrets = Secrets::default();
    secrets.add("KUBECONFIG", Secret::new(text)).unwrap();
    let sealed = secrets.seal(&cluster(), &identity.recipient()).unwrap();
    let store = world.store().await;
    let record = KubeconfigRecord {
        input: store.put_input(sealed.into()).await.unwrap(),
        recipient: identity.recipient().to_string(),
        authorities: ["00".to_owned()].into(),
        at: Timestamp::now(),
        recovery: "r1".parse().unwrap(),
    };
    let series = keys::kubeconfig(&cluster());
    let appended = store.append(&series, 1, &record).await.unwrap();
    assert_eq!(appended, Appended::Won);
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_into_a_new_file_of_its_owner_or_into_a_pipe() {
    let conf = conf();
    let world = kept(&conf).await;
    let open = "kubeconfig --cluster test --age-identity-file identity";
    let ran = world.run(&format!("{open} admin.conf")).await.exits(0);
    let ran = ran.says(SERVER);
    let path = world.path().join("admin.conf");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), conf);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let secret = conf.lines().last().unwrap().trim();
    assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret));

    // A file that is there may hold other clusters, too.
    std::fs::write(&path, "mine").unwrap();
    let again = world.run(&format!("{open} admin.conf")).await.exits(1);
    again.complains("no file is overwritten");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");

    for pipe in [open.to_owned(), format!("{open} -")] {
        assert_eq!(world.run(&pipe).await.exits(0).stdout.trim(), conf.trim());
    }
    let told = world.run(&format!("{open} other.conf --output json")).await;
    let told = told.exits(0).json();
    assert_eq!(told["server"], format!("{SERVER}/"));
    assert_eq!(told["recovery"], "r1");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_it_does_not_come_out_is_said_with_the_next_command() {
    let conf = conf();
    let world = kept(&conf).await;
    world.run("keygen other").await.exits(0);
    let open = "kubeconfig --cluster test admin.conf";
    let ran = world.run(open).await.exits(2);
    ran.complains("--age-identity-file");
    let ran = world
        .run(&format!("{open} --age-identity-file other"))
        .await;
    ran.exits(1).complains("sealed to another key");
    let nothing = "kubeconfig --cluster nothing admin.conf --age-identity-file identity";
    let ran = world.run(nothing).await.exits(1);
    let ran = ran.complains("none on record yet");
    ran.complains("rekindle flux-bootstrap --cluster nothing");

    // Somebody's own words, sealed to the right key.
    let world = kept("hunter2: [").await;
    let ran = world
        .run(&format!("{open} --age-identity-file identity"))
        .await
        .exits(1);
    let ran = ran.complains("it is no kubeconfig");
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    assert!(!world.path().join("admin.conf").exists());
}
