//! Wrong command lines: a clear error, nothing started, nothing left.

use std::fs;

use crate::world::{World, ended, text};

#[test]
fn unknown_runs_are_unknown_to_every_command() {
    let world = World::new();
    for args in [
        ["status", "none"].as_slice(),
        &["logs", "none"],
        &["logs", "none", "--from", "5"],
        &["stop", "none"],
    ] {
        let error = world.ask(5, args);
        assert_eq!(error["kind"], "unknown", "{args:?}");
        assert!(error["error"].as_str().unwrap().contains("none"), "{error}");
        assert!(
            error["hint"]
                .as_str()
                .unwrap()
                .contains("rekindle-runner list"),
            "{error}"
        );
    }
    assert_eq!(world.ask(125, &["attach", "none"])["kind"], "unknown");
    assert_eq!(fs::read_dir(world.store().join("runs")).unwrap().count(), 0);
}

#[test]
fn bad_command_lines_change_nothing() {
    let world = World::new();
    let long = "x".repeat(101);
    for id in ["../x", "", ".", "a/b", "-", "a b", &long] {
        for command in ["status", "logs", "stop"] {
            let output = world.command(&[command, "--", id]).output().unwrap();
            assert_eq!(
                output.status.code(),
                Some(2),
                "{command} {id:?}: {}",
                text(&output)
            );
        }
        let output = world.command(&["attach", "--", id]).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{id:?}");
        let output = world.run_with(id, &["-d"], "exit 0").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{id:?}: {}", text(&output));
    }
    let file = world.path("env");
    fs::write(&file, "GOOD=1\nhunter2\n").unwrap();
    let file = file.to_str().unwrap();
    for (options, names) in [
        (["--env", "A"], "--env"),
        (["--env", "1A=x"], "--env"),
        (["--env-file", "/none"], "/none"),
        (["--env-file", file], ":2:"),
        (["--cwd", "tmp"], "--cwd"),
        (["--cwd", "/a/../b"], "--cwd"),
        (["--hostname", "a b"], "--hostname"),
        (["--bind", "/etc"], "--bind"),
        (["--bind", "etc:/etc"], "--bind"),
        (["--bind", "/none:/etc"], "/none"),
        (["--bind", "/etc:/proc/x"], "/proc/x"),
        (["--bind", "/etc:/dev"], "is in /dev"),
        (["--secret", "key"], "--secret"),
        (["--secret", "key=/none"], "/none"),
        (["--secret", "../key=/etc/shadow"], "../key"),
        (["--memory", "lots"], "--memory"),
        (["--pids", "0"], "--pids"),
        (["--tmpfs-size", "0"], "--tmpfs-size"),
        (["--log-limit", "1.5G"], "--log-limit"),
        (["--image", "sha256:1"], "--image"),
    ] {
        let mut all = vec!["-d"];
        all.extend(options);
        let output = world.run_with("a", &all, "exit 0").output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {said}");
        assert!(said.contains(names), "{options:?}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
        // Followed, 2 would be the program's.
        all.remove(0);
        let output = world.run_with("a", &all, "exit 0").output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(125),
            "{options:?}: {}",
            text(&output)
        );
    }
    for args in [
        ["run", "-d", "--id", "a", "--", "/bin/sh"].as_slice(),
        &["run", "-d", "--id", "a", "--root", "/"],
        &["run", "-d", "--root", "/", "--", "/bin/sh"],
        &["run", "-d", "--id", "a", "--root", "/none", "--", "/bin/sh"],
        &[
            "run",
            "-d",
            "--id",
            "a",
            "--root",
            "/etc/passwd",
            "--",
            "/bin/sh",
        ],
        &["stop", "a", "--grace", "long"],
        &["gc", "--older-than", "x"],
        &["logs", "a", "--from", "-1"],
        &["logs", "a", "-f", "--limit", "5"],
        // The name of another command is no command.
        &["status", "run", "--bad"],
        &["--output", "json", "list", "attach"],
    ] {
        let output = world.command(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output));
    }
    assert!(!world.file("a", "").exists());
}

#[test]
fn secrets_on_stdin_that_are_none_are_not_repeated() {
    let world = World::new();
    let path = world.path("input");
    fs::write(&path, "{\"key\": hunter2}").unwrap();
    let mut command = world.run_with("a", &["-d", "--secrets-stdin"], "exit 0");
    let output = command
        .stdin(fs::File::open(&path).unwrap())
        .output()
        .unwrap();
    let error = ended(&output, 2);
    assert!(error["error"].as_str().unwrap().contains("JSON"), "{error}");
    assert!(!text(&output).contains("hunter2"));
}

#[test]
fn a_store_that_cannot_be_used_is_named() {
    let world = World::new();
    let path = world.path("file");
    fs::write(&path, "").unwrap();
    let error = world.ask(1, &["list", "--store", path.to_str().unwrap()]);
    assert!(
        error["error"]
            .as_str()
            .unwrap()
            .contains(path.to_str().unwrap()),
        "{error}"
    );
}
