//! How runs end, and what does not end them.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::world::{World, ended, pid_of, signal, text, wait_for};

#[test]
fn a_run_exits_as_its_program_did() {
    let world = World::new();
    for (id, script, code, exit) in [
        ("zero", "exit 0", 0, json!({"code": 0})),
        ("seven", "exit 7", 7, json!({"code": 7})),
        ("highest", "exit 255", 255, json!({"code": 255})),
        ("killed", "kill -KILL $$", 137, json!({"signal": 9})),
        ("terminated", "kill -TERM $$", 143, json!({"signal": 15})),
    ] {
        let output = world.run_with(id, &[], script).output().unwrap();
        let status = ended(&output, code);
        assert_eq!(status["state"], "exited");
        assert_eq!(status["exit"], exit);
        assert_eq!(status["exit_code"], code);
        assert_eq!(status["stopped"], false);
        assert_eq!(world.ask(code, &["attach", id])["exit"], exit);
    }
    world.assert_nothing_lives();
}

#[test]
fn the_log_has_what_the_program_wrote_and_the_follower_prints_it() {
    let world = World::new();
    let script = "echo out; echo err >&2; read line; echo end of input";
    let root = world.path("root");
    let args = [
        "run",
        "--id",
        "a",
        "--root",
        root.to_str().unwrap(),
        "--",
        "/bin/sh",
        "-c",
        script,
    ];
    let output = world.command(&args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "out\nerr\nend of input\n"
    );
    assert_eq!(world.log("a"), "out\nerr\nend of input\n");
}

#[test]
fn a_program_sees_its_variables_and_nothing_of_ours() {
    let world = World::new();
    let file = world.path("env");
    fs::write(&file, "# a comment\n\nFROM_FILE=a=b c\nBOTH=file\n").unwrap();
    let options = [
        "-d",
        "--env-file",
        file.to_str().unwrap(),
        "-e",
        "BOTH=flag",
        "--cwd",
        "/tmp",
    ];
    let script = "env; echo cwd $PWD; umask; cat /proc/self/status; echo >/shared/done";
    let mut command = world.run_with("a", &options, script);
    ended(&command.env("LEAK", "hunter2").output().unwrap(), 0);
    world.wait_for("a", "exited");
    let log = world.log("a");
    let has = |line: &str| log.lines().any(|found| found == line);
    for line in [
        "FROM_FILE=a=b c",
        "BOTH=flag",
        "HOME=/root",
        "cwd /tmp",
        "0022",
    ] {
        assert!(has(line), "{line}: {log}");
    }
    // A blocked or ignored signal would be inherited by all that the program starts. (The highest ones
    // belong to the C library.)
    for name in ["SigBlk:\t", "SigIgn:\t"] {
        let mask = log
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        let mask = u64::from_str_radix(mask, 16).unwrap();
        assert_eq!(mask & 0x7fff_ffff, 0, "{name}: {log}");
    }
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn a_user_without_rights_has_runs_too() {
    let world = World::new();
    fs::copy(env!("CARGO_BIN_EXE_rekindle-runner"), world.path("runner")).unwrap();
    fs::create_dir(world.store()).unwrap();
    let owned = std::process::Command::new("chown")
        .args(["-R", "1000:1000"])
        .args([world.store(), world.path("root")])
        .status();
    assert!(owned.unwrap().success());
    // The folder's parents may be closed to others: it is seen at /mnt, by this command alone.
    let script = "mount --make-rprivate / && mount --bind \"$0\" /mnt && exec setpriv \"$@\"";
    let mut command = std::process::Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", script])
        .arg(world.path(""))
        .args(["--reuid=1000", "--regid=1000", "--clear-groups"])
        .args(["--inh-caps=-all", "/mnt/runner", "run", "--id", "a"])
        .args(["--root", "/mnt/root", "--secrets-stdin", "--"])
        .args(["/bin/sh", "-c"])
        .arg("cat /run/secrets/key /proc/self/uid_map; exit 3")
        .env("REKINDLE_RUNNER_STORE", "/mnt/store")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut client = command.spawn().unwrap();
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(br#"{"key": "x "}"#).unwrap();
    drop(stdin);
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let words: Vec<_> = str::from_utf8(&output.stdout)
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(words, ["x", "0", "1000", "1"]);
    world.assert_nothing_lives();
}

#[test]
fn the_starter_may_be_killed_and_the_terminal_may_go() {
    let world = World::new();
    let script = "echo >/shared/began; while [ ! -e /shared/go ]; do sleep 0.05; done; exit 3";
    let mut client = world
        .run_with("a", &[], script)
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    world.wait_for_shared("began");
    let status = world.wait_for("a", "running");
    let group = nix::unistd::Pid::from_raw(-i32::try_from(client.id()).unwrap());
    nix::sys::signal::kill(group, Signal::SIGKILL).unwrap();
    client.wait().unwrap();
    // As when a terminal hangs up, or somebody types Ctrl-C.
    for number in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        signal(&status, "supervisor", number);
    }
    let supervisor = pid_of(&status, "supervisor");
    assert_eq!(nix::unistd::getsid(Some(supervisor)).unwrap(), supervisor);
    assert_eq!(world.status("a")["state"], "running");
    fs::write(world.shared("go"), "").unwrap();
    let status = world.ask(3, &["attach", "a"]);
    assert_eq!(status["exit"], json!({"code": 3}));
    world.assert_nothing_lives();
}

#[test]
fn an_interrupted_follower_says_so_and_the_run_goes_on() {
    let world = World::new();
    world.start("a", "sleep 600");
    for number in [Signal::SIGINT, Signal::SIGTERM] {
        let mut follower = world
            .command(&["attach", "a"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(follower.id()).unwrap());
        // It is past the default action once it has its second thread, which waits for signals.
        wait_for("the follower", || {
            fs::read_dir(format!("/proc/{pid}/task")).unwrap().count() > 1
        });
        nix::sys::signal::kill(pid, number).unwrap();
        assert_eq!(follower.wait().unwrap().code(), Some(125));
        let mut said = String::new();
        follower
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert!(said.contains("a goes on"), "{said}");
    }
    assert_eq!(world.status("a")["state"], "running");
}

#[test]
fn stop_ends_a_program_and_what_it_was_is_on_record() {
    let world = World::new();
    let script = "trap 'echo bye; exit 5' TERM; echo >/shared/polite; while :; do sleep 0.05; done";
    world.start("polite", script);
    world.wait_for_shared("polite");
    let status = world.ask(0, &["stop", "polite"]);
    assert_eq!(status["exit"], json!({"code": 5}));
    assert_eq!(status["stopped"], true);
    assert_eq!(world.log("polite"), "bye\n");

    let script = "trap '' TERM; echo >/shared/stubborn; while :; do sleep 0.05; done";
    world.start("stubborn", script);
    world.wait_for_shared("stubborn");
    let status = world.ask(0, &["stop", "stubborn", "--grace", "1s"]);
    assert_eq!(status["state"], "exited");
    assert_eq!(status["exit"], json!({"signal": 9}));
    assert_eq!(status["stopped"], true);
    world.assert_nothing_lives();
    // Again, it is as it was.
    assert_eq!(
        world.ask(0, &["stop", "polite"])["exit"],
        json!({"code": 5})
    );
    assert_eq!(
        world.ask(0, &["stop", "stubborn"])["exit"],
        json!({"signal": 9})
    );
}

#[test]
fn a_grace_may_be_longer_than_any_clock_runs() {
    let world = World::new();
    let forever = format!("{}s", u64::MAX);
    let script = "trap 'exit 3' TERM; echo >/shared/began; while :; do sleep 0.05; done";
    world.start("a", script);
    world.wait_for_shared("began");
    let status = world.ask(0, &["stop", "a", "--grace", &forever]);
    assert_eq!(status["exit"], json!({"code": 3}));
    world.ask(0, &["stop", "a", "--grace", &forever]);
}

#[test]
fn a_second_stop_may_be_less_patient() {
    let world = World::new();
    let script = "trap '' TERM; echo >/shared/began; while :; do sleep 0.05; done";
    world.start("a", script);
    world.wait_for_shared("began");
    let mut patient = world
        .command(&["stop", "a", "--grace", "1h"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let status = world.ask(0, &["stop", "a", "--grace", "0s"]);
    assert_eq!(status["exit"], json!({"signal": 9}));
    assert_eq!(patient.wait().unwrap().code(), Some(0));
}

#[test]
fn the_end_of_the_machine_stops_a_run_in_order() {
    let world = World::new();
    let script = "trap 'exit 6' TERM; echo >/shared/began; while :; do sleep 0.05; done";
    let run = &world.start("a", script)["run"];
    world.wait_for_shared("began");
    signal(run, "supervisor", Signal::SIGTERM);
    let status = world.wait_for("a", "exited");
    assert_eq!(status["exit"], json!({"code": 6}));
    assert_eq!(status["stopped"], true);
}

#[test]
fn the_death_of_the_containers_first_process_is_an_exit() {
    let world = World::new();
    let run = &world.start("a", "sleep 600")["run"];
    signal(run, "process", Signal::SIGKILL);
    let status = world.wait_for("a", "exited");
    assert_eq!(status["exit"], json!({"signal": 9}));
    world.assert_nothing_lives();
}

#[test]
fn a_supervisor_keeps_no_file_of_its_starter() {
    let world = World::new();
    // A pipe that somebody reads until it ends, as ssh does with its session's.
    let mut shell = std::process::Command::new("/bin/sh")
        .args(["-c", r#"exec 7>&1; "$@" >/dev/null"#, "sh"])
        .arg(env!("CARGO_BIN_EXE_rekindle-runner"))
        .args(world.run_with("a", &["-d"], "sleep 600").get_args())
        .env("REKINDLE_RUNNER_STORE", world.store())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = shell.stdout.take().unwrap();
    // Does not return as long as anybody has the other end.
    let reader = std::thread::spawn(move || pipe.read_to_string(&mut String::new()));
    assert_eq!(shell.wait().unwrap().code(), Some(0));
    wait_for("the end of the pipe", || reader.is_finished());
    assert_eq!(world.status("a")["state"], "running");
}

#[test]
fn an_exit_is_on_record_although_the_disk_is_full() {
    let world = World::new();
    let small = world.path("small");
    fs::create_dir(&small).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&small)
        .status()
        .unwrap();
    assert!(mounted.success());
    let store = small.to_str().unwrap();
    let script = "echo >/shared/began; while [ ! -e /shared/go ]; do sleep 0.05; done; \
        i=0; while [ $i -lt 100 ]; do echo line $i || echo failed >>/shared/failed; i=$((i+1)); done; exit 9";
    let output = world
        .run_with("a", &["-d", "--store", store], script)
        .output()
        .unwrap();
    ended(&output, 0);
    world.wait_for_shared("began");
    // Fill it to the last byte.
    let filled = fs::File::create(small.join("filler")).and_then(|mut file| {
        loop {
            std::io::Write::write_all(&mut file, &[7; 512])?;
        }
        #[allow(unreachable_code, reason = "gives the closure its type")]
        Ok(())
    });
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    fs::write(world.shared("go"), "").unwrap();
    let status = world.ask(9, &["attach", "a", "--store", store]);
    assert_eq!(status["exit"], json!({"code": 9}));
    // The program's own lines found no place, and it was told so.
    assert!(world.shared("failed").exists());
}
