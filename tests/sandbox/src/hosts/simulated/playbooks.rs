//! What the playbooks other than Kubespray's `cluster.yml` make of simulated hosts, and the programs by which a
//! worker looks at it afterwards: etcdctl, apt-get, getent, pgrep.
//!
//! Everything is in files of the hosts. A host has packages to update when [`UPGRADABLE`] is there.

use serde_json::{Value, json};

use super::kubespray::{ADMIN, Host, KUBELET, machine_of};
use super::machine::{Machine, World};
use super::runner::write;
use super::shell::Output;
use super::tree::Node;

/// Packages that apt could update, one a line.
const UPGRADABLE: &str = "/var/lib/apt/upgradable";
/// Debian's sign that a reboot is due.
const REBOOT: &str = "/run/reboot-required";

/// A task that fails: the host, the task, the message.
pub(super) type Trouble = (String, &'static str, String);

/// Plays a playbook on all hosts; nothing when it is not one of these.
pub(super) fn play(
    world: &mut World,
    playbook: &str,
    hosts: &[Host],
    vars: &Value,
) -> Option<Result<(), Trouble>> {
    Some(match playbook {
        "remove-node.yml" => remove_node(world, hosts, vars),
        "os-update.yml" => each(world, hosts, update),
        "add-user.yml" => add_user(world, hosts, vars),
        _ => return None,
    })
}

fn each(
    world: &mut World,
    hosts: &[Host],
    mut change: impl FnMut(&mut Machine) -> Result<(), String>,
) -> Result<(), Trouble> {
    for host in hosts {
        let id = machine_of(world, host).map(|machine| machine.id.clone());
        let machine = id.and_then(|id| world.machines.get_mut(&id));
        let done = machine.map_or(Err("there is no such host".to_owned()), &mut change);
        done.map_err(|why| (host.name.clone(), "change the host", why))?;
    }
    Ok(())
}

/// As Kubespray's: it asks, and nobody is there to answer.
fn remove_node(world: &mut World, hosts: &[Host], vars: &Value) -> Result<(), Trouble> {
    let node = vars["node"].as_str().unwrap_or_default();
    if vars["skip_confirmation"] != json!(true) {
        let why = "Delete nodes confirmation failed".to_owned();
        return Err((
            node.to_owned(),
            "Fail if user does not confirm deletion",
            why,
        ));
    }
    let gone: Vec<Host> = hosts.iter().filter(|h| h.name == node).cloned().collect();
    let certificate = certificate(node);
    each(world, &gone, |machine| {
        for path in [KUBELET, ADMIN, certificate.as_str()] {
            // What is not there any more is no trouble.
            let _ = machine.root.remove(path);
        }
        Ok(())
    })
}

fn update(machine: &mut Machine) -> Result<(), String> {
    for path in [UPGRADABLE, REBOOT] {
        let _ = machine.root.remove(path);
    }
    Ok(())
}

fn add_user(world: &mut World, hosts: &[Host], vars: &Value) -> Result<(), Trouble> {
    let user = vars["user"].as_str().unwrap_or_default();
    let key = vars["key"].as_str().unwrap_or_default();
    let (sudo, revoke) = (vars["sudo"] == json!(true), vars["revoke"] == json!(true));
    let mark = format!("/var/lib/rekindle/users/{user}");
    each(world, hosts, |machine| {
        let is_there = text(machine, "/etc/passwd").contains(&format!("\n{user}:"));
        if is_there && machine.root.get(&mark).is_none() {
            return Err(format!("`{user}` is an account that Rekindle did not make"));
        }
        let (home, sudoers) = (
            format!("/home/{user}"),
            format!("/etc/sudoers.d/rekindle-{user}"),
        );
        let put = |machine: &mut Machine, path: &str, content: String| {
            let folder = super::tree::parent(path);
            let made = machine.root.make_directories(folder);
            let made = made.and_then(|()| machine.root.write(path, content.into_bytes()));
            made.map_err(|e| e.to_string())
        };
        let _ = machine.root.remove(&format!("{home}/.ssh"));
        let _ = machine.root.remove(&sudoers);
        if revoke && !is_there {
            return Ok(());
        }
        let (password, expires, shell) = match revoke {
            true => ("!", "1", "/usr/sbin/nologin"),
            false => ("*", "", "/bin/bash"),
        };
        for (path, line) in [
            (
                "/etc/passwd",
                format!("{user}:x:20000:20000:Rekindle:{home}:{shell}"),
            ),
            (
                "/etc/shadow",
                format!("{user}:{password}:20000:0:99999:7::{expires}:"),
            ),
            ("/etc/group", format!("{user}:x:20000:")),
        ] {
            let others = text(machine, path);
            let others = others
                .lines()
                .filter(|l| !l.is_empty() && !l.starts_with(&format!("{user}:")));
            let lines: Vec<&str> = [""]
                .into_iter()
                .chain(others)
                .chain([line.as_str()])
                .collect();
            put(machine, path, lines.join("\n") + "\n")?;
        }
        put(machine, &mark, "20000\n".into())?;
        if !revoke {
            put(
                machine,
                &format!("{home}/.ssh/authorized_keys"),
                format!("{key}\n"),
            )?;
        }
        if sudo {
            put(
                machine,
                &sudoers,
                format!("{user} ALL=(ALL:ALL) NOPASSWD: ALL\n"),
            )?;
        }
        Ok(())
    })
}

/// What says that a master is a member of etcd.
fn certificate(node: &str) -> String {
    format!("/etc/ssl/etcd/ssl/admin-{node}.pem")
}

/// Makes a master a member of etcd.
pub(super) fn join_etcd(world: &mut World, id: &str, node: &str) -> Result<(), (u32, String)> {
    write(world, id, &certificate(node), b"(a certificate)".to_vec())
}

/// The programs; nothing when it is not one of these.
pub(super) fn run(world: &World, server: &str, program: &str, args: &[&str]) -> Option<Output> {
    let machine = world.find(server)?;
    Some(match (program, args) {
        ("etcdctl", [options @ .., "member", "list"]) => etcdctl(world, machine, options, false),
        ("etcdctl", [options @ .., "endpoint", "health", "--cluster"]) => {
            etcdctl(world, machine, options, true)
        }
        ("apt-get", ["-s", "-q", "dist-upgrade"]) => {
            let pending = text(machine, UPGRADABLE);
            let lines = pending.lines().map(|name| format!("Inst {name} [1] (2)\n"));
            Output::ok(lines.collect::<String>())
        }
        ("getent", [database @ ("passwd" | "shadow" | "group"), key @ ..]) => {
            let all = text(machine, &format!("/etc/{database}"));
            let asked =
                |l: &&str| !l.is_empty() && key.iter().all(|k| l.starts_with(&format!("{k}:")));
            let lines: Vec<&str> = all.lines().filter(asked).collect();
            match lines.is_empty() && !key.is_empty() {
                true => Output::silent(2),
                false => Output::ok(lines.iter().map(|l| format!("{l}\n")).collect::<String>()),
            }
        }
        // Nobody ever runs anything here.
        ("pgrep", _) => Output::silent(1),
        _ => return None,
    })
}

fn etcdctl(world: &World, machine: &Machine, options: &[&str], health: bool) -> Output {
    let certificate_of = |machine: &Machine| {
        let path = certificate(&machine.name);
        machine.root.get(&path).map(|_| path)
    };
    let given = options.iter().find_map(|o| o.strip_prefix("--cert="));
    if given.is_none() || certificate_of(machine).as_deref() != given {
        return Output::fail(1, "Error: open the certificate: no such file or directory");
    }
    let members = world
        .machines
        .values()
        .filter(|m| certificate_of(m).is_some());
    let url = |m: &Machine, port: u16| format!("https://{}:{port}", m.address);
    let answer = match health {
        true => members
            .map(|m| json!({"endpoint": url(m, 2379), "health": true, "took": "9ms"}))
            .collect(),
        false => {
            let member = |m: &Machine| json!({"name": m.name, "peerURLs": [url(m, 2380)], "clientURLs": [url(m, 2379)]});
            json!({"members": members.map(member).collect::<Vec<_>>()})
        }
    };
    Output::ok(answer.to_string())
}

fn text(machine: &Machine, path: &str) -> String {
    match machine.root.get(path).map(|entry| &entry.node) {
        Some(Node::File(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    }
}
