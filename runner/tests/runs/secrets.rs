//! Secrets reach the program, and nothing else.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

use crate::world::{World, ended, pid_of, text};

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

/// All that a process can write to, as far as it can be read.
fn memory(pid: nix::unistd::Pid) -> Vec<u8> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut part = vec![0; usize::try_from(to - from).unwrap()];
        if memory.read_exact_at(&mut part, from).is_ok() {
            all.extend(part);
        }
    }
    all
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    let last = bytes.len().saturating_sub(text.len());
    (0..last).any(|at| bytes[at] == text[0] && bytes[at..].starts_with(text))
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
    let run = ended(&output, 0)["run"].clone();
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
    // Nor in the memory of those who stay with the program, as its tmpfs has it.
    for name in ["supervisor", "process"] {
        let memory = memory(pid_of(&run, name));
        assert!(contains(&memory, b"rekindle"), "{name}: it was not read");
        assert!(!contains(&memory, SECRET.as_bytes()), "{name} has it");
        let digits = hex::encode(SECRET);
        assert!(
            !contains(&memory, digits.as_bytes()),
            "{name} has it in hex"
        );
    }
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
