//! SIGKILL at any moment of a start, to any process that takes part.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::world::{World, wait_for};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Client,
    Supervisor,
    Init,
}

/// The supervisor of a run, wherever it is by now.
fn supervisor(id: &str) -> Option<Pid> {
    let wanted = format!("rekindle-runner\0supervise\0{id}\0");
    processes().find(|pid| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == wanted.as_bytes())
    })
}

fn processes() -> impl Iterator<Item = Pid> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| Some(Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)))
}

/// The container's first process: the supervisor's only child.
fn init(id: &str) -> Option<Pid> {
    let parent = supervisor(id)?;
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children
        .split_whitespace()
        .next()?
        .parse()
        .ok()
        .map(Pid::from_raw)
}

#[test]
fn heavy_kills_at_any_moment_of_a_start_never_make_two_and_leave_nothing() {
    let world = World::new();
    // Says so when another one like it lives.
    let script = "exec 9>/shared/alone; flock -n 9 || echo two >>/shared/two; \
        while [ ! -e /shared/go ]; do sleep 0.01; done; exit 4";
    let mut number = 1_u64;
    for round in 0..40_u64 {
        let id = format!("chaos-{}-{round}", std::process::id());
        let victim = [Victim::Client, Victim::Supervisor, Victim::Init][round as usize % 3];
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let delay = Duration::from_micros((number >> 33) % 40_000);
        let _ = fs::remove_file(world.shared("go"));
        let mut client = world
            .run_with(&id, &["-d"], script)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(delay);
        let target = match victim {
            Victim::Client => Some(Pid::from_raw(i32::try_from(client.id()).unwrap())),
            Victim::Supervisor => supervisor(&id),
            Victim::Init => init(&id),
        };
        let killed = target.is_some_and(|pid| kill(pid, Signal::SIGKILL).is_ok());
        let said = client.wait().unwrap();
        if victim == Victim::Supervisor && killed {
            wait_for("the supervisor to die", || supervisor(&id).is_none());
        }
        // Whatever became of it, the same command makes it run, or tells that it ended.
        let answer = world.start(&id, script);
        let run = &answer["run"];
        match run["state"].as_str().unwrap() {
            "running" => {
                fs::write(world.shared("go"), "").unwrap();
                let status = world.wait_for(&id, "exited");
                let by_us = victim == Victim::Init && status["exit"] == json!({"signal": 9});
                assert!(by_us || status["exit"] == json!({"code": 4}), "{status}");
            }
            "exited" => {
                assert_eq!(victim, Victim::Init, "{run}");
                assert_eq!(run["exit"], json!({"signal": 9}), "{run}");
            }
            state => panic!("round {round}: {victim:?} {killed} {said:?} after {delay:?}: {state}"),
        }
        assert!(!world.shared("two").exists(), "round {round}: two at once");
        wait_for("the supervisor to end", || supervisor(&id).is_none());
    }
    world.assert_nothing_lives();
    // Nor is anything left of a start that did not come about.
    world.ask(0, &["gc", "--older-than", "0d"]);
    assert_eq!(fs::read_dir(world.store().join("runs")).unwrap().count(), 0);
}
