//! Removing runs, and images that runs use.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::world::{World, ended, pid_of, signal, text};

#[test]
fn only_what_is_over_and_old_is_removed() {
    let world = World::new();
    ended(&world.run_with("over", &[], "exit 0").output().unwrap(), 0);
    world.start("live", "sleep 600");
    let run = &world.start("lost", "sleep 600")["run"];
    signal(run, "supervisor", Signal::SIGKILL);
    world.wait_for("lost", "lost");
    ended(
        &world.run_with("strange", &[], "exit 0").output().unwrap(),
        0,
    );
    fs::write(world.file("strange", "notes.txt"), "mine").unwrap();
    fs::create_dir(world.store().join("runs/not a run")).unwrap();

    let gone = world.ask(0, &["gc", "--older-than", "1h"]);
    assert_eq!(gone["removed"], json!([]));
    assert_eq!(gone["kept"], json!(["lost", "over"]));
    let gone = world.ask(0, &["gc", "--older-than", "0d"]);
    assert_eq!(gone["removed"], json!(["lost", "over"]));
    assert_eq!(gone["live"], json!(["live"]));
    assert!(
        gone["foreign"][0][1]
            .as_str()
            .unwrap()
            .contains("notes.txt"),
        "{gone}"
    );
    assert_eq!(world.status("live")["state"], "running");
    assert_eq!(world.status("strange")["state"], "exited");
    assert!(world.store().join("runs/not a run").exists());
    for id in ["over", "lost"] {
        assert!(!world.file(id, "").exists(), "{id}");
        world.ask(5, &["status", id]);
    }
    // The name is free.
    assert_eq!(world.start("over", "exit 1")["new"], true);
}

#[test]
fn what_a_killed_collection_left_is_swept() {
    let world = World::new();
    let trash = world.store().join("runs/.trash-a-1");
    fs::create_dir_all(&trash).unwrap();
    fs::write(trash.join("log"), "x").unwrap();
    world.ask(0, &["gc"]);
    assert!(!trash.exists());
}

#[test]
fn what_cannot_be_removed_keeps_nothing_else() {
    let world = World::new();
    ended(&world.run_with("a", &[], "exit 0").output().unwrap(), 0);
    // A file where a folder should be.
    fs::write(world.store().join("runs/.trash-x"), "").unwrap();
    let error = world.ask(1, &["gc", "--older-than", "0d"]);
    assert!(error["error"].to_string().contains(".trash-x"), "{error}");
    assert!(!world.file("a", "").exists());
}

#[test]
fn an_image_is_held_as_long_as_its_run_lives() {
    let world = World::new();
    let image = world.path("image.tar.zst");
    let (root, image) = (world.path("root"), image.to_str().unwrap());
    let built = world.ask(
        0,
        &[
            "image",
            "build",
            root.to_str().unwrap(),
            image,
            "--level",
            "1",
        ],
    );
    let digest = built["digest"].as_str().unwrap();
    let options = ["-d", "--image", digest];

    let missing = ended(
        &world.run_with("a", &options, "exit 0").output().unwrap(),
        5,
    );
    assert!(
        missing["hint"]
            .as_str()
            .unwrap()
            .contains(&format!("image pull --digest {digest}"))
    );
    assert!(!world.file("a", "").exists());

    let url = format!("file:{image}");
    world.ask(0, &["image", "pull", "--digest", digest, "--url", &url]);
    let output = world
        .run_with("a", &options, "echo >/shared/began; sleep 600")
        .output()
        .unwrap();
    let run = &ended(&output, 0)["run"];
    assert_eq!(run["rootfs"], json!({"image": digest}));
    world.wait_for_shared("began");
    let collect = || world.ask(0, &["image", "gc", "--unused-for", "0d"]);
    let collected = collect();
    assert_eq!(
        (&collected["in_use"], &collected["removed"]),
        (&json!([digest]), &json!([]))
    );
    world.ask(0, &["stop", "a", "--grace", "0s"]);
    assert_eq!(collect()["removed"], json!([digest]));
    let again = world
        .run_with("a", &options, "echo >/shared/began; sleep 600")
        .output()
        .unwrap();
    assert_eq!(
        ended(&again, 0)["run"]["state"],
        "exited",
        "{}",
        text(&again)
    );
}

#[test]
fn heavy_removing_and_starting_at_once_harm_nobody() {
    let world = World::new();
    world.ask(0, &["list"]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                world.ask(0, &["gc", "--older-than", "0d"]);
            }
        });
        let starters: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..30 {
                        let output = world.run_with("a", &["-d"], "exit 0").output().unwrap();
                        // It may be over and removed before we could look at it.
                        let gone = output.status.code() == Some(5);
                        assert!(gone || output.status.success(), "{}", text(&output));
                    }
                })
            })
            .collect();
        let results: Vec<_> = starters.into_iter().map(|starter| starter.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok));
    });
    world.assert_nothing_lives();
}

#[test]
fn no_control_group_outlives_its_run_for_long() {
    let world = World::new();
    let options = ["-d", "--pids", "64", "--memory", "256M"];
    let script = "echo >/shared/began; sleep 600";
    let start =
        || ended(&world.run_with("a", &options, script).output().unwrap(), 0)["run"].clone();
    let run = start();
    let first = groups(&run);
    // Where the host has none, the run says so.
    assert!(
        !first.is_empty() || run["notes"].to_string().contains("no limit"),
        "{run}"
    );
    signal(&run, "supervisor", Signal::SIGKILL);
    world.wait_for("a", "lost");
    world.assert_nothing_lives();
    // Its supervisor cannot remove them any more; the next one does.
    let second = start();
    assert_eq!(groups(&run), [""; 0]);
    world.ask(0, &["stop", "a", "--grace", "0s"]);
    assert_eq!(groups(&second), [""; 0]);
}

/// The control groups that the supervisor of a run made.
fn groups(run: &serde_json::Value) -> Vec<String> {
    let prefix = format!("rekindle-runner-{}-", pid_of(run, "supervisor"));
    let mut found = Vec::new();
    let mut left = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            if name.starts_with(&prefix) {
                found.push(name);
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(entry.path());
            }
        }
    }
    found
}
