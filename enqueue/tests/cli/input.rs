//! Files and settings.

use super::{NO_BROKER, RECOVER};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn bad_files_exit_2_and_name_the_path_of_each_problem() {
    let world = World::new().await;
    let bad = crate::world::SPEC
        .replace("ram_gb: 2", "ram_gb: 2048")
        .replace("role: worker", "role: worker\n    taints: [x]");
    world.file("bad.yaml", &bad);
    let run = world.run("validate --spec bad.yaml").await.exits(2);
    let run = run
        .says("bad.yaml: groups[0].ram_gb: 2048 is more than 512")
        .says("groups[0].taints[0]");
    assert_eq!(run.stderr, "");
    let run = world
        .run("validate --spec bad.yaml --output json")
        .await
        .exits(2)
        .json();
    assert_eq!(run["valid"], false);
    assert_eq!(run["problems"][0]["path"], "groups[0].ram_gb");

    world.file(
        "bad-plan.yaml",
        "version: 1\njobs: [{job: mount, needs: [provision]}]\n",
    );
    world
        .run("validate --spec cluster.yaml --plan bad-plan.yaml")
        .await
        .exits(2)
        .says("bad-plan.yaml: jobs[0].needs[0]");
    world
        .run("validate --plan plan.yaml")
        .await
        .exits(0)
        .says("plan.yaml");
    world
        .run("validate --spec cluster.yaml")
        .await
        .exits(0)
        .says("2 nodes");
    world
        .run("validate --spec missing.yaml")
        .await
        .exits(2)
        .complains("missing.yaml");
    world
        .run("recover --cluster test --spec bad.yaml")
        .await
        .exits(2)
        .complains("groups[0].ram_gb");
    world
        .run("plan --spec bad.yaml")
        .await
        .exits(2)
        .complains("groups[0].ram_gb");
    assert_eq!(world.count(""), 0, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_exit_2_and_are_named() {
    let world = World::new().await;
    let run = world.run_with("list", &[("S3_BUCKET", "")]).await.exits(2);
    run.complains("S3_BUCKET").complains("--s3-bucket");
    let run = world
        .run_with("list", &[("S3_SECRET_KEY", "")])
        .await
        .exits(2);
    run.complains("S3_SECRET_KEY is not");
    world
        .run(RECOVER)
        .await
        .exits(2)
        .complains("AMQP_URL")
        .complains("--here");
    world
        .run_with(RECOVER, &[("AMQP_URL", "http://x")])
        .await
        .exits(2)
        .complains("AMQP_URL");
    world.run("status").await.exits(2).complains("--cluster");
    world
        .run("status --cluster Bad_Name")
        .await
        .exits(2)
        .complains("not a valid cluster name");
    world.run("nonsense").await.exits(2);
    world
        .run(&format!("{RECOVER} --wait --timeout soon"))
        .await
        .exits(2)
        .complains("30m");
    world.run("--help").await.exits(0).says("Exit codes:");
    let wrong = RECOVER.replace("cluster test", "cluster prod");
    let run = world.run(&format!("{wrong} --here")).await.exits(2);
    run.complains("`prod`").complains("`test`");
    assert_eq!(world.count("clusters/"), 0, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_never_shown() {
    let world = World::new().await;
    for args in ["recover --help", "doctor --help", RECOVER, "doctor"] {
        let run = world
            .run_with(
                args,
                &[
                    NO_BROKER,
                    ("CLO_AUTH_TOKEN", "hunter2"),
                    ("REKINDLE_LOG", "debug"),
                ],
            )
            .await;
        let all = run.stdout + &run.stderr;
        assert!(
            !all.contains("hunter2") && !all.contains(world.s3.secret_key()),
            "{all}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_on_a_running_cluster_is_refused_with_the_reason_and_no_private_key_is_repeated() {
    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBy8J3iJeCBE41pd2kUsu1S5DV2Vh7uC9zYMFjlhUUyZ ann\n";
    let world = World::new().await;
    world.file("ann.pub", KEY);
    world.file("two.pub", &KEY.repeat(2));
    world.file("options.pub", &format!("no-pty {KEY}"));
    world.file(
        "ann",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    );
    for (command, why) in [
        (
            "add-user --name ann --key-file ann",
            "this is a private key",
        ),
        (
            "add-user --name ann --key-file two.pub",
            "more than one line",
        ),
        (
            "add-user --name ann --key-file options.pub",
            "options are not taken",
        ),
        ("add-user --name ann --key-file missing.pub", "missing.pub"),
        (
            "add-user --name root --key-file ann.pub",
            "systems have for themselves",
        ),
        (
            "add-user --name ann;reboot --key-file ann.pub",
            "is not a user name",
        ),
        ("add-user --name ann", "--key-file"),
        (
            "add-user --name ann --key-file ann.pub --revoke",
            "cannot be used with",
        ),
        ("add-user --name ann --revoke --sudo", "cannot be used with"),
        (
            "add-user --name ann --key-file ann.pub",
            "no `kubernetes` section",
        ),
        (
            "add-user --name ann --revoke --node test-nope-1",
            "no switched-on node",
        ),
        ("os-update", "no `kubernetes` section"),
        ("os-update --node test-nope-1", "no switched-on node"),
        ("remove-node --node test-web-1", "no `kubernetes` section"),
        ("remove-node --node ../etc", "is not a valid node name"),
        ("remove-node", "--node"),
        ("flux-bootstrap", "no `flux` section"),
        ("switch", "--freeze"),
        ("switch --freeze slr", "no application `slr`"),
        ("switch --freeze slr --thaw slr", "cannot be used with"),
        ("switch --values pg:x", "no values after the name"),
        ("switch --values pg:x:[]", "no JSON object"),
        ("switch --freeze slr --release slr", "cannot be used with"),
        ("restore", "no `database` section"),
        ("restore --until yesterday", "`end`, `consistent`"),
        ("promote", "no `database` section"),
        ("backup", "no `database` section"),
        ("backup --type weekly", "weekly"),
        ("wait-certificates", "no certificate is named"),
        ("wait-certificates tls", "is not `namespace/name`"),
        ("secret pg/keys --data a=B", "which is not given"),
        ("secret pg/keys --data a=hunter2-b3Blb", "never its value"),
        ("secret pg/keys", "--data"),
        ("release --tag 1.2", "which application is released?"),
        ("release --tag a/b", "is not an image tag"),
        ("release", "--tag"),
    ] {
        let line = format!("{command} --cluster test --spec cluster.yaml");
        let run = world.run(&line).await.exits(2).complains(why);
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(!said.contains("b3Blb"), "{line}: {said}");
    }
    assert_eq!(world.count(""), 0, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_are_made_for_every_shell() {
    let world = World::new().await;
    for shell in ["bash", "zsh", "fish"] {
        world
            .run(&format!("completions {shell}"))
            .await
            .exits(0)
            .says("rekindle");
    }
    assert!(world.path().exists());
}
