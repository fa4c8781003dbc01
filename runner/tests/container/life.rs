//! How containers begin and end.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runner::container::{self, Exit, Secrets, Stdio};

use crate::world::{World, group_of, groups, in_namespace, namespace, until};

#[test]
fn a_program_runs_and_its_code_comes_back() {
    let mut world = World::new();
    assert_eq!(world.sh("echo hello"), "hello\n");
    for (script, exit) in [
        ("exit 0", Exit::Code(0)),
        ("exit 7", Exit::Code(7)),
        ("exit 137", Exit::Code(137)),
        ("exit 255", Exit::Code(255)),
        ("kill -9 $$", Exit::Signal(9)),
        ("kill -15 $$", Exit::Signal(15)),
        ("kill -13 $$", Exit::Signal(13)),
    ] {
        assert_eq!(world.run(&["sh", "-c", script]).exit, Ok(exit), "{script}");
    }
}

#[test]
fn what_is_not_there_is_told_apart_from_what_cannot_be_run() {
    let mut world = World::new();
    for name in ["nothing", "/bin/nothing", "./nothing"] {
        let refusal = world.run(&[name]).refusal();
        assert!(refusal.starts_with("NotFound"), "{refusal}");
        assert!(
            refusal.contains(&format!("find the program `{name}` in the image")),
            "{refusal}"
        );
    }
    fs::write(world.image("/bin/text"), "hello").unwrap();
    world.script("/bin/words", "hello");
    world.script("/bin/lost", "#!/bin/nothing\n");
    for (name, reason) in [
        ("text", "no executable file"),
        ("/bin", "no executable file"),
        ("words", "neither a program of this machine nor a script"),
        ("lost", "its interpreter /bin/nothing is not in the image"),
    ] {
        let refusal = world.run(&[name]).refusal();
        assert!(refusal.starts_with("NotExecutable"), "{refusal}");
        assert!(refusal.contains(reason), "{refusal}");
    }
    world.script("/bin/script", "#!/bin/sh\necho $0 $1\n");
    assert_eq!(world.run(&["script", "a"]).success(), "/bin/script a\n");
}

#[test]
fn an_image_that_is_not_there_is_named() {
    let mut world = World::new();
    fs::rename(world.path("image"), world.path("gone")).unwrap();
    let refusal = world.run(&["true"]).refusal();
    assert!(
        refusal.starts_with("Kernel") && refusal.contains("open `"),
        "{refusal}"
    );
    assert!(refusal.contains("/image`: No such file"), "{refusal}");
}

#[test]
fn a_process_with_threads_is_refused() {
    let world = World::new();
    let mut spec = world.spec.clone();
    spec.args = vec!["true".to_owned()];
    let error = std::thread::scope(|scope| {
        let start = || {
            let null = || fs::File::open("/dev/null").unwrap().into();
            let stdio = Stdio {
                stdin: null(),
                stdout: null(),
                stderr: null(),
            };
            container::start(&spec, &world.path("image"), Secrets::new(), stdio).unwrap_err()
        };
        scope.spawn(start).join().unwrap()
    });
    assert!(matches!(error, container::StartError::Threads), "{error:?}");
}

#[test]
fn signals_reach_the_program() {
    let mut world = World::new();
    let script = "trap 'echo got term; exit 3' TERM; trap 'echo got usr1' USR1; echo ready; while :; do sleep 0.01; done";
    let running = world.start(&["sh", "-c", script]);
    let init = Pid::from_raw(running.init());
    running.until_stdout("ready");
    kill(init, Signal::SIGUSR1).unwrap();
    running.until_stdout("got usr1");
    kill(init, Signal::SIGTERM).unwrap();
    let output = running.wait();
    assert_eq!(output.exit, Ok(Exit::Code(3)));
    assert!(output.stdout.ends_with("got term\n"), "{}", output.stdout);
}

#[test]
fn a_signal_that_is_not_handled_ends_the_program() {
    for (signal, number) in [
        (Signal::SIGTERM, 15),
        (Signal::SIGHUP, 1),
        (Signal::SIGKILL, 9),
    ] {
        let mut world = World::new();
        let running = world.start(&["sleep", "1000"]);
        kill(Pid::from_raw(running.init()), signal).unwrap();
        assert_eq!(running.wait().exit, Ok(Exit::Signal(number)), "{signal}");
    }
}

#[test]
fn all_ends_with_the_program() {
    let mut world = World::new();
    let running = world.start(&["sh", "-c", "sleep 1000 & sleep 1000 & trap '' TERM; while [ ! -e /tmp/end ]; do sleep 0.01; done; exit 5"]);
    let space = namespace(running.init()).unwrap();
    until("three sleep", || running.processes().len() >= 4);
    let program = running.processes()[0];
    fs::write(format!("/proc/{program}/root/tmp/end"), "").unwrap();
    assert_eq!(running.wait().exit, Ok(Exit::Code(5)));
    // Before `wait` comes back, not some time later.
    assert_eq!(in_namespace(&space), Vec::<i32>::new());
}

#[test]
fn all_ends_with_the_supervisor() {
    let mut world = World::new();
    let running = world.start(&["sh", "-c", "trap '' HUP TERM INT; sleep 1000 & sleep 1000"]);
    let space = namespace(running.init()).unwrap();
    until("two sleep", || running.processes().len() == 3);
    kill(running.supervisor, Signal::SIGKILL).unwrap();
    until("all are gone", || in_namespace(&space).is_empty());
}

#[test]
fn a_supervisor_that_dies_at_once_leaves_nothing() {
    let mut world = World::new();
    // At any moment of the start.
    for microseconds in (0..6000).step_by(60) {
        let running = world.start(&["sleep", "1000"]);
        std::thread::sleep(std::time::Duration::from_micros(microseconds));
        kill(running.supervisor, Signal::SIGKILL).unwrap();
        drop(running);
        until("all are gone", || {
            users_of(&world.path("stdout")).is_empty()
        });
    }
}

/// The processes that have a file open, as the program and those before it have their output.
fn users_of(file: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|process| {
            let open = fs::read_dir(process.path().join("fd"))
                .into_iter()
                .flatten();
            open.flatten()
                .any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == file))
        })
        .map(|process| process.file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_thousand_orphans_are_reaped() {
    let mut world = World::new();
    // Each child ends before its own child, which goes to process 1.
    let script = "
        for (1..1000) {
            my $child = fork // die $!;
            if (!$child) { fork // die $!; exit }
            waitpid $child, 0;
        }
        my $wait = 0;
        while (1) {
            opendir my $proc, '/proc'; my @pids = grep /^\\d/, readdir $proc;
            last if @pids == 2 or $wait++ > 3000;
            select undef, undef, undef, 0.01;
        }
        opendir my $proc, '/proc'; print join ' ', grep /^\\d/, readdir $proc";
    assert_eq!(world.perl(script), "1 2");
}

#[test]
fn short_programs_are_never_waited_for_in_vain() {
    let mut world = World::new();
    for round in 0..100 {
        let code = round % 3;
        let exit = world.run(&["sh", "-c", &format!("exit {code}")]).exit;
        assert_eq!(exit, Ok(Exit::Code(code)));
    }
}

#[test]
fn a_fork_bomb_is_bounded_where_the_host_has_groups() {
    let mut world = World::new();
    world.spec.limits.pids = Some(20);
    world.after = |container| {
        let exit = container.wait().unwrap();
        assert!(groups(&group_of(Pid::this())).is_empty(), "groups are left");
        exit
    };
    let script = "my $n = 0; while (1) { my $pid = fork; last unless defined $pid; if (!$pid) { sleep 1000 } $n++; last if $n > 200 } print $n";
    let output = world.run(&["perl", "-e", script]);
    assert_eq!(
        output.notes.iter().find(|note| note.contains("no limit")),
        None,
        "this host has no group for pids"
    );
    // Of 20, process 1 and the program are two.
    assert_eq!(output.success(), "18");
}

#[test]
fn memory_is_bounded_where_the_host_has_groups() {
    let mut world = World::new();
    world.spec.limits.memory_bytes = Some(32 << 20);
    let output = world.run(&["perl", "-e", "my $x = 'x' x (200 << 20); print length $x"]);
    assert_eq!(
        output.notes.iter().find(|note| note.contains("no limit")),
        None,
        "this host has no group for memory"
    );
    assert_eq!(output.exit, Ok(Exit::Signal(9)));
    assert_eq!(output.stdout, "");
}

#[test]
fn the_limit_of_memory_is_one_of_swap_too() {
    let mut world = World::new();
    world.spec.limits.memory_bytes = Some(32 << 20);
    world.after = |container| {
        let groups = groups(&group_of(Pid::this()));
        let read = |name: &str| {
            let files = groups.iter().map(|group| group.join(name));
            files
                .filter_map(|file| fs::read_to_string(file).ok())
                .next()
        };
        // In version 1, both together. A kernel that counts no swap has neither.
        if let Some(both) = read("memory.memsw.limit_in_bytes") {
            assert_eq!(both.trim(), (32 << 20).to_string());
        }
        if let Some(swap) = read("memory.swap.max") {
            assert_eq!(swap.trim(), "0");
        }
        container.wait().unwrap()
    };
    assert_eq!(world.run(&["true"]).exit, Ok(Exit::Code(0)));
}

#[test]
fn the_groups_of_a_killed_supervisor_are_removed_by_the_next() {
    let mut world = World::new();
    world.spec.limits.pids = Some(20);
    let running = world.start(&["sleep", "1000"]);
    let space = namespace(running.init()).unwrap();
    let name = running.group.clone();
    assert_eq!(groups(&name).len(), 1);
    kill(running.supervisor, Signal::SIGKILL).unwrap();
    until("all are gone", || in_namespace(&space).is_empty());
    drop(running);
    until("the next one removes them", || {
        world.sh("true");
        groups(&name).is_empty()
    });
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    let mut world = World::new();
    world.spec.limits.pids = Some(20);
    // `wait` looks.
    world.run(&["nothing"]).refusal();
    world.spec.cwd = "/nowhere".into();
    world.run(&["true"]).refusal();
}

#[test]
fn a_supervisor_signals_and_waits_as_often_as_it_likes() {
    let mut world = World::new();
    world.after = |container| {
        assert!(container.pid() > 1);
        // This one would stop process 1.
        container.signal(Signal::SIGSTOP).unwrap_err();
        container.signal(Signal::SIGTERM).unwrap();
        let exit = container.wait().unwrap();
        // There is nobody any more: no other process gets it.
        container.signal(Signal::SIGKILL).unwrap();
        assert_eq!(container.wait().unwrap(), exit);
        exit
    };
    let exit = world.run(&["sleep", "1000"]).exit;
    assert_eq!(exit, Ok(Exit::Signal(15)));
}

#[test]
fn a_container_ends_when_it_is_let_go() {
    let mut world = World::new();
    world.after = |container| {
        let space = namespace(container.pid()).unwrap();
        drop(container);
        Exit::Code(in_namespace(&space).len() as i32)
    };
    let exit = world.run(&["sh", "-c", "sleep 1000 & sleep 1000"]).exit;
    assert_eq!(exit, Ok(Exit::Code(0)), "processes are left");
}

#[test]
fn a_supervisor_without_input_and_output_gives_its_own() {
    let mut world = World::new();
    world.before = |_| {
        for fd in 0..3 {
            nix::unistd::close(fd).unwrap();
        }
    };
    let output = world.run(&["sh", "-c", "cat; echo out; echo err >&2"]);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("out\n", "err\n")
    );
    assert_eq!(output.exit, Ok(Exit::Code(0)));
}

#[test]
fn a_supervisor_that_ignores_its_children_hears_of_them() {
    let mut world = World::new();
    world.before = |_| {
        use nix::sys::signal::{SigHandler, signal};
        // SAFETY: no handler is set.
        #[expect(unsafe_code, reason = "there is no safe call")]
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.unwrap();
    };
    assert_eq!(
        world.run(&["sh", "-c", "true; exit 4"]).exit,
        Ok(Exit::Code(4))
    );
}
