//! One name, one run.

use std::fs;
use std::process::Stdio;

use serde_json::json;

use crate::world::{World, ended, text};

#[test]
fn the_same_run_again_finds_it_and_starts_nothing() {
    let world = World::new();
    let script = "echo x >>/shared/starts; while [ ! -e /shared/go ]; do sleep 0.05; done; exit 4";
    assert_eq!(world.start("a", script)["new"], true);
    let again = world.start("a", script);
    assert_eq!(again["new"], false);
    assert_eq!(again["run"]["state"], "running");
    fs::write(world.shared("go"), "").unwrap();
    // Without --detach it is followed, and its exit is ours.
    ended(&world.run_with("a", &[], script).output().unwrap(), 4);
    // And so when it is over.
    ended(&world.run_with("a", &[], script).output().unwrap(), 4);
    let again = world.start("a", script);
    assert_eq!(again["new"], false);
    assert_eq!(again["run"]["exit"], json!({"code": 4}));
    assert_eq!(again["run"]["attempt"], 1);
    assert_eq!(fs::read_to_string(world.shared("starts")).unwrap(), "x\n");
}

#[test]
fn heavy_twenty_at_once_start_one_program() {
    let world = World::new();
    for round in 0..3 {
        let id = format!("round-{round}");
        let script = format!("echo x >>/shared/{id}; sleep 600");
        let clients: Vec<_> = (0..20)
            .map(|_| {
                world
                    .run_with(&id, &["-d"], &script)
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let answers: Vec<_> = clients
            .into_iter()
            .map(|client| ended(&client.wait_with_output().unwrap(), 0))
            .collect();
        let new = answers
            .iter()
            .filter(|answer| answer["new"] == true)
            .count();
        assert_eq!(new, 1);
        for answer in &answers {
            assert_eq!(answer["run"]["supervisor"], answers[0]["run"]["supervisor"]);
        }
        assert_eq!(world.status(&id)["state"], "running");
        world.ask(0, &["stop", &id, "--grace", "0s"]);
        assert_eq!(fs::read_to_string(world.shared(&id)).unwrap(), "x\n");
    }
    world.assert_nothing_lives();
}

#[test]
fn a_name_stands_for_one_thing() {
    let world = World::new();
    let script = "sleep 600";
    let key = world.path("key");
    fs::write(&key, "hunter2").unwrap();
    std::process::Command::new("chmod")
        .arg("600")
        .arg(&key)
        .status()
        .unwrap();
    let secret = format!("key={}", key.display());
    world.start("a", script);
    let other_root = world.path("other");
    fs::create_dir(&other_root).unwrap();
    let refused = |options: &[&str], script: &str, what: &str| {
        let mut all = vec!["-d"];
        all.extend(options);
        let output = world.run_with("a", &all, script).output().unwrap();
        let error = ended(&output, 4);
        assert_eq!(error["kind"], "refused");
        let message = error["error"].as_str().unwrap();
        assert!(message.contains(what), "{what}: {message}");
        assert!(!text(&output).contains("hunter2"), "{message}");
    };
    for () in [(), ()] {
        refused(&[], "sleep 601", "arguments");
        refused(&["-e", "A=hunter2"], script, "environment (A)");
        refused(&["--cwd", "/tmp"], script, "directory (/, not /tmp)");
        refused(&["--hostname", "b"], script, "host name (rekindle, not b)");
        refused(
            &["--bind", "/etc:/b"],
            script,
            "binds (/shared, not /shared /b)",
        );
        refused(&["--secret", &secret], script, "secrets (none, not key)");
        refused(&["--pids", "7"], script, "limits");
        // It is so when it is over, too.
        world.ask(0, &["stop", "a", "--grace", "0s"]);
    }
    // A follower's own failures never look like a program's.
    let output = world.run_with("a", &[], "sleep 601").output().unwrap();
    let error = ended(&output, 125);
    assert_eq!(
        (&error["kind"], &error["exit_code"]),
        (&json!("refused"), &json!(125))
    );
}

#[test]
fn what_could_not_start_leaves_its_name_free() {
    let world = World::new();
    let root = world.path("root");
    let root = root.to_str().unwrap();
    let args = ["run", "-d", "--id", "a", "--root", root, "--", "/bin/none"];
    let error = world.ask(1, &args);
    assert!(
        error["error"].as_str().unwrap().contains("/bin/none"),
        "{error}"
    );
    assert!(!world.file("a", "").exists());
    assert_eq!(world.ask(5, &["status", "a"])["kind"], "unknown");
    world.assert_nothing_lives();
    world.start("a", "exit 0");
    world.wait_for("a", "exited");
}
