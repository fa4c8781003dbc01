//! How long it takes to run /bin/true in an image, against others.
//!
//!     cargo bench -p runner --bench start -- [--rounds N]
//!
//! All take turns, so that a noisy machine is noisy for all of them. Each is a program that is started,
//! starts /bin/true in a container and ends with it; "in the supervisor" leaves out the start of our own
//! program, as when it is there already. What is not installed, or does not work here, says so.
#![allow(missing_docs, reason = "a benchmark has no interface")]
#![expect(clippy::print_stdout, reason = "figures are printed")]
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as Io};
use std::time::Instant;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use runner::container::{self, Exit, Limits, Spec, Stdio};
use serde_json::{Value, json};

fn main() {
    let mut args = std::env::args().skip(1);
    let mut rounds = 60;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => rounds = args.next().unwrap().parse().unwrap(),
            // What each round of "runner" is: this program, started anew.
            "--once" => return run(Path::new(&args.next().unwrap()), &Limits::default()),
            "--once-with-limits" => return run(Path::new(&args.next().unwrap()), &limited()),
            // cargo passes it.
            "--bench" => {}
            other => panic!("unknown argument {other}"),
        }
    }
    hide_second_hierarchy();
    let dir = tempfile::tempdir().unwrap();
    let rootfs = dir.path().join("rootfs");
    make_rootfs(&rootfs);
    let methods = methods(dir.path(), &rootfs);
    let mut times = vec![Vec::new(); methods.len()];
    for round in 0..rounds {
        for (index, (name, method)) in methods.iter().enumerate() {
            if let Some(method) = method {
                let start = Instant::now();
                method(round, name);
                times[index].push(start.elapsed().as_secs_f64() * 1000.0);
            }
        }
    }
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    println!(
        "{rounds} rounds, load {}\n",
        load.split(' ').next().unwrap()
    );
    println!("| | median ms | min ms | p90 ms | × bubblewrap |");
    println!("|---|---|---|---|---|");
    let bubblewrap = methods
        .iter()
        .position(|(name, _)| *name == BUBBLEWRAP)
        .unwrap();
    let bubblewrap = median(&mut times[bubblewrap]);
    for (index, (name, method)) in methods.iter().enumerate() {
        if method.is_none() {
            println!("| {name} | not here | | | |");
            continue;
        }
        let median = median(&mut times[index]).unwrap();
        let times = &times[index];
        let ratio = bubblewrap.map_or(String::new(), |other| format!("{:.2}", median / other));
        println!(
            "| {name} | {median:.2} | {:.2} | {:.2} | {ratio} |",
            times[0],
            times[times.len() * 9 / 10]
        );
    }
}

/// crun refuses hosts with both versions of control groups. In a mount namespace of our own, the second is
/// out of sight; it limits nothing there.
fn hide_second_hierarchy() {
    let both = Path::new("/sys/fs/cgroup/unified");
    if both.exists() {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        umount2(both, MntFlags::MNT_DETACH).unwrap();
    }
}

const BUBBLEWRAP: &str = "bubblewrap";

fn median(times: &mut [f64]) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

type Method<'a> = Box<dyn Fn(usize, &str) + 'a>;

fn methods<'a>(dir: &'a Path, rootfs: &'a Path) -> Vec<(&'static str, Option<Method<'a>>)> {
    let engine = std::env::current_exe().unwrap();
    let once = |argument: &'static str| -> Option<Method<'a>> {
        let engine = engine.clone();
        Some(Box::new(move |_, _| {
            succeed(Command::new(&engine).arg(argument).arg(rootfs))
        }))
    };
    let true_on_host: Option<Method<'a>> =
        Some(Box::new(|_, _| succeed(&mut Command::new("/bin/true"))));
    let in_process: Option<Method<'a>> = Some(Box::new(|_, _| run(rootfs, &Limits::default())));
    vec![
        ("fork and exec on the host", true_on_host),
        ("runner", once("--once")),
        ("runner in the supervisor", in_process),
        (
            "runner with limits of pids and memory",
            once("--once-with-limits"),
        ),
        (
            BUBBLEWRAP,
            installed("bwrap").map(|bwrap| -> Method<'a> {
                Box::new(move |_, _| succeed(bubblewrap(&mut Command::new(&bwrap), rootfs)))
            }),
        ),
        (
            "unshare and chroot",
            installed("unshare").map(|unshare| -> Method<'a> {
                Box::new(move |_, _| {
                    let flags = ["--fork", "--pid", "--mount", "--uts", "--ipc"];
                    succeed(
                        Command::new(&unshare)
                            .args(flags)
                            .arg("--root")
                            .arg(rootfs)
                            .arg("/bin/true"),
                    );
                })
            }),
        ),
        (
            "crun without cgroups",
            oci("crun", &["--cgroup-manager=disabled"], dir, rootfs),
        ),
        (
            "crun",
            oci("crun", &["--cgroup-manager=cgroupfs"], dir, rootfs),
        ),
        ("runc", oci("runc", &[], dir, rootfs)),
    ]
}

/// All that bubblewrap can take away without a filter from us.
fn bubblewrap<'a>(command: &'a mut Command, rootfs: &Path) -> &'a mut Command {
    command.arg("--ro-bind").arg(rootfs).arg("/").args([
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
        "--tmpfs",
        "/run",
        "--unshare-pid",
        "--unshare-uts",
        "--unshare-ipc",
        "--unshare-cgroup-try",
        "--hostname",
        "box",
        "--cap-drop",
        "ALL",
        "--new-session",
        "--die-with-parent",
        "--clearenv",
        "--chdir",
        "/",
        "/bin/true",
    ])
}

/// A runtime of the Open Container Initiative, if it is here and works here.
fn oci<'a>(
    name: &'static str,
    flags: &'static [&'static str],
    dir: &'a Path,
    rootfs: &Path,
) -> Option<Method<'a>> {
    let program = installed(name)?;
    let bundle = dir.join(format!("{name}{}", flags.concat()));
    fs::create_dir(&bundle).unwrap();
    succeed(Command::new(&program).arg("spec").current_dir(&bundle));
    let file = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/true"]);
    config["root"] = json!({ "path": rootfs, "readonly": true });
    // The limits of this machine may not be raised.
    config["process"].as_object_mut().unwrap().remove("rlimits");
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts
        .retain(|mount| mount["destination"] != "/sys/fs/cgroup" && mount["destination"] != "/sys");
    fs::write(&file, config.to_string()).unwrap();
    let once = move |round: usize, name: &str| {
        let id = format!(
            "bench-{}-{round}-{}",
            std::process::id(),
            name.replace(' ', "-")
        );
        Command::new(&program)
            .args(flags)
            .args(["run", "--bundle"])
            .arg(&bundle)
            .arg(id)
            .stdin(Io::null())
            .output()
            .unwrap()
    };
    let tried = once(usize::MAX, "try");
    if !tried.status.success() {
        println!(
            "{name} {} does not work here: {}",
            flags.concat(),
            String::from_utf8_lossy(&tried.stderr)
        );
        return None;
    }
    Some(Box::new(move |round, name| {
        assert!(once(round, name).status.success())
    }))
}

fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
}

fn succeed(command: &mut Command) {
    let status = command
        .stdin(Io::null())
        .stdout(Io::null())
        .status()
        .unwrap();
    assert!(status.success(), "{command:?}");
}

fn limited() -> Limits {
    Limits {
        memory_bytes: Some(1 << 30),
        pids: Some(1000),
        ..Limits::default()
    }
}

fn run(rootfs: &Path, limits: &Limits) {
    let spec = Spec {
        args: vec!["/bin/true".into()],
        env: BTreeMap::new(),
        cwd: "/".into(),
        hostname: "box".into(),
        binds: Vec::new(),
        secrets: Vec::new(),
        limits: limits.clone(),
    };
    let null = || {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap()
            .into()
    };
    let stdio = Stdio {
        stdin: null(),
        stdout: null(),
        stderr: null(),
    };
    let container = container::start(&spec, rootfs, Default::default(), stdio).unwrap();
    assert_eq!(container.wait().unwrap(), Exit::Code(0));
}

/// /bin/true and its libraries.
fn make_rootfs(rootfs: &Path) {
    for folder in ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp"] {
        fs::create_dir_all(rootfs.join(folder)).unwrap();
    }
    fs::copy("/bin/true", rootfs.join("bin/true")).unwrap();
    let output = Command::new("ldd").arg("/bin/true").output().unwrap();
    for word in String::from_utf8(output.stdout).unwrap().split_whitespace() {
        if word.starts_with('/') {
            let to = rootfs.join(word.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(word, to).unwrap();
        }
    }
}
