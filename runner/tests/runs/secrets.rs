//! Secrets reach the program, and nothing else.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::world::{World, ended, text};

const SECRET: &str = "hunter2-is-a-secret";

fn holds(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| {
        bytes
            .windows(SECRET.len())
            .any(|part| part == SECRET.as_bytes())
            || bytes
                .windows(SECRET.len() * 2)
                .any(|part| part == hex::encode(SECRET).as_bytes())
    })
}

fn files(folder: &Path, all: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), all);
        } else {
            all.push(entry.path());
        }
    }
}

#[test]
fn a_secret_is_in_the_container_and_nowhere_else() {
    let world = World::new();
    let key = world.path("key");
    fs::write(&key, SECRET).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = format!("file={}", key.display());
    let options = ["-d", "--secret", &secret, "--secrets-stdin"];
    let script = format!(
        "for name in file stdin; do [ \"$(cat /run/secrets/$name)\" = \"$(cat /shared/expected)\" ] && \
         echo >/shared/has-$name; done; echo >/shared/began; sleep 600 # {}",
        "x".repeat(10)
    );
    fs::write(world.shared("expected"), SECRET).unwrap();
    let mut client = world
        .run_with("a", &options, &script)
        // What the starter has in its own environment is none of the run's business.
        .env("LEAK", SECRET)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let json = format!("{{\"stdin\": \"{SECRET}\"}}");
    client
        .stdin
        .take()
        .unwrap()
        .write_all(json.as_bytes())
        .unwrap();
    let output = client.wait_with_output().unwrap();
    ended(&output, 0);
    assert!(!text(&output).contains(SECRET));
    world.wait_for_shared("began");
    for name in ["has-file", "has-stdin"] {
        assert!(world.shared(name).exists(), "{name}");
    }
    let look = || {
        let mut all = Vec::new();
        files(&world.store(), &mut all);
        assert!(all.iter().any(|path| path.ends_with("a/spec.json")));
        for process in fs::read_dir("/proc").unwrap().flatten() {
            all.extend(["cmdline", "environ"].map(|name| process.path().join(name)));
        }
        for path in all {
            assert!(!holds(&path), "{}", path.display());
        }
    };
    look();
    world.ask(0, &["stop", "a", "--grace", "0s"]);
    look();
}

#[test]
fn a_secret_that_others_can_read_is_refused() {
    let world = World::new();
    let key = world.path("key");
    fs::write(&key, SECRET).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let secret = format!("key={}", key.display());
    let output = world
        .run_with("a", &["-d", "--secret", &secret], "exit 0")
        .output()
        .unwrap();
    let error = ended(&output, 2);
    assert!(error["error"].as_str().unwrap().contains("0644"), "{error}");
    assert!(!world.file("a", "").exists());
}
