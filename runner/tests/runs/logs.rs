//! The log: offsets that stay, nothing lost or doubled in what is kept, and nobody who has to read.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use serde_json::json;

use crate::world::{World, ended, text, wait_for};

/// Lines of eight bytes.
const WIDTH: u64 = 8;

fn is_line(number: u64) -> String {
    format!("{number:07}\n")
}

#[test]
fn heavy_lines_that_are_kept_are_whole_and_the_log_stays_within_its_limit() {
    let world = World::new();
    let lines = 2_000_000_u64;
    // Two writers on one file, so that appending matters; and time enough for several holes.
    let script = "for part in 0 1 2 3 4 5 6 7; do \
        seq -f %07.0f $((part*250000)) $((part*250000+249999)); sleep 1; done";
    let output = world
        .run_with("a", &["-d", "--log-limit", "2M"], script)
        .output()
        .unwrap();
    ended(&output, 0);
    // As a worker does: pieces, each from where the last one ended.
    let mut at = 0_u64;
    loop {
        let over = world.status("a")["state"] == "exited";
        let part = world.ask(
            0,
            &["logs", "a", "--from", &at.to_string(), "--limit", "64K"],
        );
        let text = part["text"].as_str().unwrap();
        let from = part["from"].as_u64().unwrap();
        assert_eq!(part["skipped"], from - at);
        // Each byte is what belongs at its offset.
        let first = from / WIDTH;
        let whole: String = (first..=first + text.len() as u64 / WIDTH + 1)
            .map(is_line)
            .collect();
        let cut = usize::try_from(from % WIDTH).unwrap();
        assert!(whole[cut..].starts_with(text), "at {from}");
        at = part["next"].as_u64().unwrap();
        assert_eq!(at, from + text.len() as u64);
        if over && text.is_empty() {
            break;
        }
    }
    assert_eq!(at, lines * WIDTH);
    let status = world.status("a");
    let oldest = status["log"]["oldest"].as_u64().unwrap();
    assert!(oldest > 0, "{status}");
    assert_eq!(status["log"]["end"], lines * WIDTH);
    let part = world.ask(0, &["logs", "a", "--limit", "5"]);
    assert_eq!(
        (&part["from"], &part["skipped"]),
        (&oldest.into(), &oldest.into())
    );
    // Who wants just these bytes gets none other.
    let error = world.ask(1, &["logs", "a", "--exact", "--limit", "5"]);
    let begins = format!("from 0: it is kept from {oldest} on");
    assert!(
        error["error"].as_str().unwrap().contains(&begins),
        "{error}"
    );
    let exact = |from: u64| {
        let from = from.to_string();
        let args = ["logs", "a", "--exact", "--limit", "8", "--from", &from];
        world.command(&args).output().unwrap()
    };
    let output = exact(oldest - 1);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"", "{}", text(&output));
    let output = exact(oldest);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, is_line(oldest / WIDTH).as_bytes());
    let kept = world.log("a");
    assert_eq!(kept.len() as u64, lines * WIDTH - oldest);
    assert!(kept.ends_with(&is_line(lines - 1)));
    let used = fs::metadata(world.file("a", "log")).unwrap().blocks() * 512;
    // The limit, an eighth until the next hole, and what comes between two looks.
    assert!(used < 8 << 20, "{used} bytes on disk");
}

#[test]
fn a_reader_that_sleeps_or_leaves_keeps_no_program_waiting() {
    let world = World::new();
    let script = "echo begin; while [ ! -e /shared/go ]; do sleep 0.05; done; seq 200000; exit 3";
    world.start("a", script);
    let mut never = world
        .command(&["attach", "a"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut gone = world
        .command(&["logs", "a", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It has begun to follow, and then nobody reads it any more.
    gone.stdout.take().unwrap().read_exact(&mut [0; 6]).unwrap();
    fs::write(world.shared("go"), "").unwrap();
    // More than a pipe holds, so the follower waits, and the program does not.
    let status = world.wait_for("a", "exited");
    assert_eq!(status["exit_code"], 3);
    assert_eq!(gone.wait().unwrap().code(), Some(0));
    let mut all = String::new();
    never
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut all)
        .unwrap();
    assert_eq!(never.wait().unwrap().code(), Some(3));
    assert!(all.starts_with("begin\n1\n2\n") && all.ends_with("\n200000\n"));
}

#[test]
fn a_part_of_the_log_is_text_and_cuts_no_character() {
    let world = World::new();
    ended(&world.run_with("a", &[], "echo 'aé€'").output().unwrap(), 0);
    let part =
        |from: &str, limit: &str| world.ask(0, &["logs", "a", "--from", from, "--limit", limit]);
    assert_eq!(part("0", "2")["text"], "a");
    assert_eq!(part("0", "2")["next"], 1);
    assert_eq!(part("1", "5")["text"], "é€");
    assert_eq!(part("6", "5")["text"], "\n");
    assert_eq!(part("7", "5")["text"], "");
    let beyond = world.ask(2, &["logs", "a", "--from", "8"]);
    assert!(beyond["error"].as_str().unwrap().contains("ends at 7"));
    let output = world
        .command(&["logs", "a", "--from", "1", "--limit", "2"])
        .output()
        .unwrap();
    assert_eq!(output.stdout, "é".as_bytes(), "{}", text(&output));
}

#[test]
fn a_character_that_is_not_written_whole_yet_waits() {
    let world = World::new();
    let script = r"printf '\342\202'; echo >/shared/began; while [ ! -e /shared/go ]; do sleep 0.05; done; printf '\254'";
    world.start("a", script);
    world.wait_for_shared("began");
    let part = world.ask(0, &["logs", "a"]);
    assert_eq!((&part["text"], &part["next"]), (&json!(""), &json!(0)));
    assert_eq!(part["end"], 2);
    fs::write(world.shared("go"), "").unwrap();
    world.wait_for("a", "exited");
    let part = world.ask(0, &["logs", "a"]);
    assert_eq!((&part["text"], &part["next"]), (&json!("€"), &json!(3)));
}

#[test]
fn following_ends_with_the_run() {
    let world = World::new();
    world.start(
        "a",
        "echo 1; while [ ! -e /shared/go ]; do sleep 0.05; done; echo 2",
    );
    let follower = world
        .command(&["logs", "a", "-f"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the first line", || world.log("a") == "1\n");
    fs::write(world.shared("go"), "").unwrap();
    let output = follower.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"1\n2\n");
}

#[test]
fn a_program_that_truncates_its_own_log_is_told_on() {
    let world = World::new();
    let script = "seq 1000; echo >/shared/began; while [ ! -e /shared/go ]; do sleep 0.05; done; echo x >/dev/stdout";
    world.start("a", script);
    world.wait_for_shared("began");
    let long = world.log("a").len();
    // The supervisor has seen it once it looked; it writes down its looks.
    let beat = fs::read(world.file("a", "heartbeat")).unwrap();
    wait_for("a heartbeat", || {
        fs::read(world.file("a", "heartbeat")).unwrap() != beat
    });
    fs::write(world.shared("go"), "").unwrap();
    let status = world.wait_for("a", "exited");
    // What it wrote then is there, behind what it took away.
    assert_eq!(world.log("a"), "x\n");
    assert_eq!(status["log"], json!({"oldest": long, "end": long + 2}));
    assert!(
        status["notes"][0].as_str().unwrap().contains("truncated"),
        "{status}"
    );
}
