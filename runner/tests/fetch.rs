//! Fetching files with the real binary: what breaks goes on, what is wrong never gets its name.
#![allow(missing_docs, reason = "these are tests")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use common::server::{Answer, Server};
use common::{binary, digest_of, text};
use serde_json::{Value, json};

const OBJECT: &[u8] = &[7; 100_000];

fn fetch(folder: &Path, order: &str) -> Output {
    let mut child = binary()
        .args(["fetch", "--output", "json", "--tries", "2", "--into"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end before it has read all of it.
    let _ = child.stdin.take().unwrap().write_all(order.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert!(!text(&output).contains("hunter2"), "{}", text(&output));
    output
}

fn order(server: &Server, name: &str) -> Value {
    json!({"name": name, "digest": digest_of(OBJECT).to_string(), "size": OBJECT.len(), "url": server.url})
}

#[track_caller]
fn ends(output: &Output, code: i32, words: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
    assert!(text(output).contains(words), "{}", text(output));
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder.join("b")).is_ok_and(|mut files| files.next().is_none())
}

#[test]
fn a_file_comes_once_and_goes_on_where_it_broke() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("into");
    let cut = [
        Answer::Cut(60_000),
        Answer::Status(500),
        Answer::Status(503),
        Answer::Ranged,
    ];
    let server = Server::start(OBJECT, &cut);
    let both = json!({"files": [order(&server, "b/one"), order(&server, "b/two")]}).to_string();
    // Two failures in a row are too many for one run; another one goes on.
    ends(&fetch(&into, &both), 3, "no byte came in 2 tries");
    assert!(!into.join("b/one").exists());
    ends(&fetch(&into, &both), 0, "\"fetched\": 2");
    for name in ["b/one", "b/two"] {
        assert!(fs::read(into.join(name)).unwrap() == OBJECT, "{name}");
    }
    assert_eq!(
        server.ranges(),
        [None, Some(60_000), Some(60_000), Some(60_000), None]
    );
    ends(&fetch(&into, &both), 0, "\"there\": 2");
    assert_eq!(server.ranges().len(), 5, "what is there is not asked for");
    // One that was cut short afterwards comes again.
    fs::write(into.join("b/two"), b"x").unwrap();
    ends(&fetch(&into, &both), 0, "\"fetched\": 1");
}

#[test]
fn what_is_not_as_it_must_be_gets_no_name() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("into");
    let wrong = vec![8; OBJECT.len()];
    for (answer, code, words) in [
        (Answer::Other(wrong), 4, "its digest is"),
        (Answer::Other(vec![7; 99]), 4, "bytes long"),
        (Answer::Other(vec![7; OBJECT.len() + 1]), 4, "bytes long"),
        // A presigned URL that has expired: another one will do.
        (Answer::Status(403), 3, "403"),
        (Answer::Status(307), 3, "redirects"),
    ] {
        let server = Server::start(OBJECT, &[answer]);
        let one = json!({"files": [order(&server, "b/one")]}).to_string();
        ends(&fetch(&into, &one), code, words);
        assert!(!into.join("b/one").exists(), "{words}");
        fs::remove_dir_all(into.join("b")).unwrap();
    }
    // A part that is none of ours is thrown away with what came.
    fs::create_dir_all(into.join("b")).unwrap();
    fs::write(into.join("b/one.part"), [9; 50]).unwrap();
    let server = Server::start(OBJECT, &[Answer::Ranged]);
    let one = json!({"files": [order(&server, "b/one")]}).to_string();
    ends(&fetch(&into, &one), 4, "its digest is");
    assert!(is_empty(&into));
    ends(&fetch(&into, &one), 0, "\"fetched\": 1");
}

#[test]
fn an_order_that_makes_no_sense_is_refused_and_nothing_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("into");
    let server = Server::start(OBJECT, &[Answer::Ranged]);
    let with = |name: &str, field: &str, value: Value| {
        let mut bad = order(&server, name);
        bad[field] = value;
        json!({"files": [order(&server, "good"), bad]}).to_string()
    };
    for (bad, words) in [
        (String::new(), "cannot be read"),
        ("{}".into(), "cannot be read"),
        ("[\"hunter2\"]".into(), "cannot be read"),
        (with("../x", "size", json!(1)), "is not the name"),
        (with("/etc/x", "size", json!(1)), "is not the name"),
        (with("a", "size", json!(-1)), "cannot be read"),
        (with("a", "digest", json!("sha256:00")), "cannot be read"),
        (with("a", "more", json!(1)), "cannot be read"),
        (
            with("a", "url", json!("file:/etc/hunter2")),
            "neither https",
        ),
        (
            with("a", "url", json!("http://s3.example/hunter2")),
            "neither https",
        ),
    ] {
        ends(&fetch(&into, &bad), 2, words);
    }
    assert_eq!(server.ranges(), [], "nothing was asked for");
    assert!(!into.exists());
}
