//! Runs that nobody knows the end of.

use std::fs;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::world::{World, ended, signal, text, wait_for};

const SCRIPT: &str =
    "echo x >>/shared/starts; while [ ! -e /shared/go ]; do sleep 0.05; done; exit 4";

fn starts(world: &World) -> usize {
    fs::read_to_string(world.shared("starts"))
        .unwrap_or_default()
        .lines()
        .count()
}

/// Changes the record, as a reboot or a broken disk would.
fn rewrite(world: &World, id: &str, change: impl FnOnce(&mut Value)) {
    let path = world.file(id, "status.json");
    let mut record = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut record);
    fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
}

#[test]
fn a_killed_supervisor_takes_the_container_along_and_the_next_attempt_is_its_own() {
    let world = World::new();
    let run = &world.start("a", SCRIPT)["run"];
    wait_for("the program", || starts(&world) == 1);
    signal(run, "supervisor", Signal::SIGKILL);
    let status = world.wait_for("a", "lost");
    assert!(
        status["reason"].as_str().unwrap().contains("supervisor"),
        "{status}"
    );
    assert_eq!(status["exit_code"], Value::Null);
    world.assert_nothing_lives();
    // Neither a follower nor `stop` makes a success of it.
    assert_eq!(world.ask(125, &["attach", "a"])["state"], "lost");
    assert_eq!(world.ask(0, &["stop", "a"])["state"], "lost");
    let log_end = status["log"]["end"].clone();

    let again = world.start("a", SCRIPT);
    assert_eq!(again["new"], true);
    let run = &again["run"];
    assert_eq!(
        (&run["attempt"], &run["state"]),
        (&json!(2), &json!("running"))
    );
    assert_eq!(run["log_from"], log_end);
    assert_eq!(run["former"][0]["attempt"], 1);
    assert_eq!(run["former"][0]["state"], "lost");
    wait_for("the program", || starts(&world) == 2);

    // And once more.
    signal(run, "supervisor", Signal::SIGKILL);
    world.wait_for("a", "lost");
    fs::write(world.shared("go"), "").unwrap();
    let status = ended(&world.run_with("a", &[], SCRIPT).output().unwrap(), 4);
    assert_eq!(status["attempt"], 3);
    assert_eq!(status["former"].as_array().unwrap().len(), 2);
    assert_eq!(starts(&world), 3);
    // Over is over.
    assert_eq!(world.start("a", SCRIPT)["new"], false);
    assert_eq!(starts(&world), 3);
    world.assert_nothing_lives();
}

#[test]
fn a_lost_run_is_started_again_with_the_same_request_only() {
    let world = World::new();
    let run = &world.start("a", SCRIPT)["run"];
    signal(run, "supervisor", Signal::SIGKILL);
    world.wait_for("a", "lost");
    let output = world.run_with("a", &["-d"], "exit 0").output().unwrap();
    assert_eq!(ended(&output, 4)["kind"], "refused");
    assert_eq!(world.status("a")["attempt"], 1);
}

#[test]
fn heavy_twenty_at_once_start_a_lost_run_once() {
    let world = World::new();
    let run = &world.start("a", SCRIPT)["run"];
    wait_for("the program", || starts(&world) == 1);
    signal(run, "supervisor", Signal::SIGKILL);
    world.wait_for("a", "lost");
    let clients: Vec<_> = (0..20)
        .map(|_| {
            world
                .run_with("a", &["-d"], SCRIPT)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for client in clients {
        let answer = ended(&client.wait_with_output().unwrap(), 0);
        assert_eq!(answer["run"]["attempt"], 2);
    }
    fs::write(world.shared("go"), "").unwrap();
    world.wait_for("a", "exited");
    assert_eq!(starts(&world), 2);
}

#[test]
fn after_a_reboot_a_run_is_lost() {
    let world = World::new();
    let run = &world.start("a", SCRIPT)["run"];
    wait_for("the program", || starts(&world) == 1);
    signal(run, "supervisor", Signal::SIGKILL);
    world.wait_for("a", "lost");
    // The supervisor's number belongs to somebody else by now, who looks just like it; and so does
    // that of the container.
    let this = &world.start("b", "sleep 600")["run"];
    rewrite(&world, "a", |record| {
        record["boot_id"] = json!("another");
        record["supervisor"] = this["supervisor"].clone();
        record["process"] = this["process"].clone();
    });
    let status = world.status("a");
    assert_eq!(
        (&status["state"], &status["reason"]),
        (&json!("lost"), &json!("the machine was rebooted"))
    );
    assert_eq!(world.start("a", SCRIPT)["run"]["attempt"], 2);
    wait_for("the program", || starts(&world) == 2);
    assert_eq!(world.status("b")["state"], "running");
}

#[test]
fn a_pid_that_somebody_else_has_now_is_nobody() {
    let world = World::new();
    let run = &world.start("a", SCRIPT)["run"];
    signal(run, "supervisor", Signal::SIGKILL);
    world.wait_for("a", "lost");
    world.assert_nothing_lives();
    let this = std::process::id();
    rewrite(&world, "a", |record| {
        record["supervisor"] = json!({"pid": this, "start_time": 1});
        record["process"] = json!({"pid": this, "start_time": 1});
    });
    assert_eq!(world.status("a")["state"], "lost");
    assert_eq!(world.start("a", SCRIPT)["run"]["attempt"], 2);
}

#[test]
fn a_damaged_record_is_never_a_success() {
    let world = World::new();
    ended(&world.run_with("a", &[], "exit 0").output().unwrap(), 0);
    let path = world.file("a", "status.json");
    let whole = fs::read(&path).unwrap();
    let stranger = String::from_utf8(whole.clone())
        .unwrap()
        .replacen("\"a\"", "\"b\"", 1);
    let damages: [&[u8]; 5] = [
        b"",
        &whole[..whole.len() / 2],
        b"\0\0\0\0",
        b"{}",
        stranger.as_bytes(),
    ];
    for damage in damages {
        fs::write(&path, damage).unwrap();
        let status = world.status("a");
        assert_eq!(status["state"], "lost", "{status}");
        assert!(
            status["reason"].as_str().unwrap().contains("status.json"),
            "{status}"
        );
        assert_eq!(world.ask(125, &["attach", "a"])["exit_code"], Value::Null);
        assert_eq!(world.ask(0, &["list"])["runs"][0]["state"], "lost");
    }
    let again = world.start("a", "exit 0");
    assert_eq!(
        (&again["new"], &again["run"]["attempt"]),
        (&json!(true), &json!(2))
    );
    world.wait_for("a", "exited");
}

#[test]
fn a_record_that_is_damaged_while_the_run_lives_starts_no_second_one() {
    let world = World::new();
    world.start("a", SCRIPT);
    wait_for("the program", || starts(&world) == 1);
    fs::write(world.file("a", "status.json"), "").unwrap();
    assert_eq!(world.status("a")["state"], "lost");
    // The supervisor listens nevertheless.
    let status = world.ask(0, &["stop", "a"]);
    assert_eq!(
        (&status["state"], &status["stopped"]),
        (&json!("exited"), &json!(true))
    );
    assert_eq!(starts(&world), 1);
    world.assert_nothing_lives();
}

#[test]
fn a_run_without_its_request_is_refused() {
    let world = World::new();
    ended(&world.run_with("a", &[], "exit 0").output().unwrap(), 0);
    fs::write(world.file("a", "spec.json"), "{").unwrap();
    let output = world.run_with("a", &["-d"], "exit 0").output().unwrap();
    assert_ne!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(world.status("a")["exit_code"], 0);
}

#[test]
fn nothing_is_started_while_something_of_the_former_attempt_can_write_to_its_log() {
    let world = World::new();
    let run = &world.start("a", SCRIPT)["run"];
    signal(run, "supervisor", Signal::SIGKILL);
    world.wait_for("a", "lost");
    world.assert_nothing_lives();
    // A process that the kernel did not end yet.
    let log = fs::OpenOptions::new()
        .append(true)
        .open(world.file("a", "log"))
        .unwrap();
    // The next look may find it gone.
    let error = ended(&world.run_with("a", &["-d"], SCRIPT).output().unwrap(), 1);
    let message = error["error"].as_str().unwrap();
    assert!(
        message.contains(&std::process::id().to_string()),
        "{message}"
    );
    drop(log);
    assert_eq!(world.start("a", SCRIPT)["run"]["attempt"], 2);
}

#[test]
fn a_next_attempt_that_cannot_start_leaves_the_lost_one_on_record() {
    let world = World::new();
    let run = &world.start("a", SCRIPT)["run"];
    signal(run, "supervisor", Signal::SIGKILL);
    world.wait_for("a", "lost");
    let shell = world.path("root/bin/sh");
    fs::rename(&shell, world.path("sh")).unwrap();
    for () in [(), ()] {
        let error = ended(&world.run_with("a", &["-d"], SCRIPT).output().unwrap(), 1);
        assert!(
            error["error"].as_str().unwrap().contains("/bin/sh"),
            "{error}"
        );
        let status = world.status("a");
        assert_eq!(
            (&status["state"], &status["attempt"]),
            (&json!("lost"), &json!(1))
        );
        assert_eq!(status["former"], json!([]));
        world.assert_nothing_lives();
    }
    fs::rename(world.path("sh"), &shell).unwrap();
    assert_eq!(world.start("a", SCRIPT)["run"]["attempt"], 2);
}
