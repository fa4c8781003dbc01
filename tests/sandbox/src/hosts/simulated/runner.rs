//! A bastion's `rekindle-runner`, by the rules that matter: a run is started once for an id and keeps what
//! became of it, and its state is in files of the bastion, where a test sees it.
//!
//! A run goes on whenever somebody looks at it, so that nothing depends on the time of day.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Inner;
use super::kubespray::{go_on, kubectl};
use super::machine::{Machine, World};
use super::playbooks;
use super::shell::{Args, Output};
use super::tree::{Node, file_name, parent};

/// Where the runner keeps its own things.
const STORE: &str = "/var/lib/rekindle/runner";
/// Lines of a whole log: more than two chunks of it.
const LINES: usize = 1500;

/// A run, as the runner keeps it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) spec: Value,
    /// The public half of the key that was lent.
    pub(super) key: String,
    pub(super) state: String,
    pub(super) attempt: u32,
    pub(super) looks: u32,
    pub(super) log_end: usize,
    pub(super) exit: Option<Value>,
}

/// Whether one of these programs reads its standard input.
pub(super) fn reads_stdin(argv: &[String]) -> bool {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    match words.split_first() {
        Some((program, args)) if file_name(program) == "rekindle-runner" => {
            args.starts_with(&["image", "pull"])
                || args.starts_with(&["fetch"])
                || args.contains(&"--secrets-stdin")
        }
        _ => false,
    }
}

/// Runs the command if it is one of these programs.
pub(super) async fn run(
    inner: &Inner,
    server: &str,
    argv: &[String],
    stdin: &[u8],
) -> Option<Output> {
    let (program, args) = argv.split_first()?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = match file_name(program) {
        "kubectl" => kubectl(inner, server, &args),
        "rekindle-runner" if !is_program(&inner.world(), server, program) => Err((
            127,
            format!("bash: line 1: {program}: No such file or directory"),
        )),
        "rekindle-runner" => match args.as_slice() {
            ["image", "pull", rest @ ..] => pull(inner, server, rest, stdin).await,
            ["fetch", rest @ ..] => bring(inner, server, rest, stdin).await,
            ["run", rest @ ..] => start(inner, server, rest, stdin),
            ["status", id, ..] => status(inner, server, id),
            ["logs", id, rest @ ..] => logs(inner, server, id, rest),
            ["stop", id] => stop(inner, server, id),
            ["list", ..] => list(inner, server),
            _ => Err((2, format!("error: unrecognized command {args:?}"))),
        },
        other => return playbooks::run(&inner.world(), server, other, &args),
    };
    Some(output.unwrap_or_else(|(status, said)| Output::fail(status, said)))
}

pub(super) type Ran = Result<Output, (u32, String)>;

fn is_program(world: &World, server: &str, path: &str) -> bool {
    let entry = world
        .find(server)
        .and_then(|machine| machine.root.get(path));
    entry.is_some_and(|e| matches!(e.node, Node::File(_)) && e.mode & 0o100 != 0)
}

/// Fetches the image for real, by the URL that was lent.
async fn pull(inner: &Inner, server: &str, args: &[&str], stdin: &[u8]) -> Ran {
    let args = Args::parse(args, "", &["digest", "url-file"]);
    let digest = args.value(&["digest"]).unwrap_or_default();
    if args.value(&["url-file"]) != Some("-") {
        return Err((2, "error: the sandbox takes the URL from stdin only".into()));
    }
    let path = format!("{STORE}/images/{digest}");
    if inner
        .world()
        .find(server)
        .is_some_and(|m| m.root.get(&path).is_some())
    {
        return Ok(Output::default());
    }
    let url = String::from_utf8_lossy(stdin);
    let image = fetch(url.trim())
        .await
        .map_err(|e| (3, format!("error: the image did not come: {e}")))?;
    let found = format!("sha256:{}", hex::encode(Sha256::digest(&image)));
    if found != digest {
        return Err((4, format!("error: the image is {found}, not {digest}")));
    }
    write(&mut inner.world(), server, &path, b"(unpacked)".to_vec())?;
    Ok(Output::default())
}

/// Fetches files for real, by the URLs that were lent.
async fn bring(inner: &Inner, server: &str, args: &[&str], stdin: &[u8]) -> Ran {
    let args = Args::parse(args, "", &["into"]);
    let into = args.value(&["into"]).unwrap_or_default().to_owned();
    let order: Value = serde_json::from_slice(stdin).map_err(|e| (2, format!("error: {e}")))?;
    for file in order["files"].as_array().into_iter().flatten() {
        let text = |field: &str| file[field].as_str().unwrap_or_default();
        let path = format!("{into}/{}", text("name"));
        let there = |machine: &Machine| machine.root.get(&path).is_some();
        if inner.world().find(server).is_some_and(there) {
            continue;
        }
        let body = fetch(text("url"))
            .await
            .map_err(|e| (3, format!("error: `{}` did not come: {e}", text("name"))))?;
        let found = format!("sha256:{}", hex::encode(Sha256::digest(&body)));
        if found != text("digest") || file["size"] != body.len() {
            return Err((4, format!("error: `{}` is {found}", text("name"))));
        }
        write(&mut inner.world(), server, &path, body)?;
    }
    Ok(Output::default())
}

async fn fetch(url: &str) -> Result<Vec<u8>, String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or("not a URL on this machine")?;
    let (host, path) = rest.split_once('/').ok_or("no path")?;
    let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let talk = async {
        let mut stream = TcpStream::connect(host).await?;
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    talk.await.map_err(|e| e.to_string())?;
    let end = answer
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .ok_or("no answer")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    match head.starts_with("HTTP/1.1 200") {
        true => Ok(answer.split_off(end + 4)),
        false => Err(head.lines().next().unwrap_or_default().to_owned()),
    }
}

/// Starts a run, or finds it.
fn start(inner: &Inner, server: &str, args: &[&str], stdin: &[u8]) -> Ran {
    let dashes = args.iter().position(|a| *a == "--").unwrap_or(args.len());
    let (options, argv) = args.split_at(dashes);
    let parsed = Args::parse(options, "", &["id", "image", "cwd", "env", "bind"]);
    let id = parsed.value(&["id"]).unwrap_or_default().to_owned();
    if id.is_empty() || !parsed.has(&["detach"]) || argv.len() < 2 {
        return Err((
            2,
            "error: the sandbox runs only what has an id, detached".into(),
        ));
    }
    let spec = json!({
        "image": parsed.value(&["image"]),
        "cwd": parsed.value(&["cwd"]),
        "env": parsed.values(&["env"]).collect::<Vec<_>>(),
        "binds": parsed.values(&["bind"]).collect::<Vec<_>>(),
        "argv": argv[1..],
    });
    let mut world = inner.world();
    if let Ok(mut there) = read_run(&world, server, &id) {
        if there.spec != spec {
            return Err((4, format!("error: run {id} is another one")));
        }
        if there.state == "lost" {
            there.state = "running".into();
            (there.attempt, there.looks) = (there.attempt + 1, 0);
            write_run(&mut world, server, &id, &there)?;
        }
        return Ok(Output::ok(format!("{id}\n")));
    }
    let machine = world.find(server).ok_or((1, "no such server".to_owned()))?;
    let image = parsed.value(&["image"]).unwrap_or_default();
    if machine
        .root
        .get(&format!("{STORE}/images/{image}"))
        .is_none()
    {
        return Err((3, format!("error: there is no image {image} on this host")));
    }
    for bind in parsed.values(&["bind"]) {
        let source = bind.split(':').next().unwrap_or_default();
        if machine.root.get(source).is_none() {
            return Err((
                1,
                format!("error: bind {source}: No such file or directory"),
            ));
        }
    }
    let run = Run {
        spec,
        key: lent_key(stdin)?,
        state: "running".into(),
        attempt: 1,
        looks: 0,
        log_end: 0,
        exit: None,
    };
    write_run(&mut world, server, &id, &run)?;
    Ok(Output::ok(format!("{id}\n")))
}

/// The public half of the secret `ssh_key`.
fn lent_key(stdin: &[u8]) -> Result<String, (u32, String)> {
    let secrets: BTreeMap<String, String> = serde_json::from_slice(stdin).map_err(|e| {
        (
            2,
            format!("error: the secrets are no JSON object of texts: {e}"),
        )
    })?;
    let pem = secrets.get("ssh_key").cloned().unwrap_or_default();
    let key = russh::keys::decode_secret_key(&pem, None).map_err(|e| (2, format!("error: {e}")))?;
    key.public_key()
        .to_openssh()
        .map_err(|e| (2, format!("error: {e}")))
}

/// How a run is; it goes on by one look.
fn status(inner: &Inner, server: &str, id: &str) -> Ran {
    let play = inner.lock(&inner.kubespray).clone();
    let mut world = inner.world();
    let mut run = read_run(&world, server, id)?;
    if run.state == "running" {
        run.looks += 1;
        if run.attempt <= play.lost {
            run.state = "lost".into();
        } else {
            go_on(&mut world, server, &mut run, &play)?;
        }
        write_run(&mut world, server, id, &run)?;
    }
    let answer = json!({
        "id": id,
        "state": run.state,
        "attempt": run.attempt,
        "exit": run.exit,
        "image": run.spec["image"],
        "argv": run.spec["argv"],
        "log": {"begin": 0, "end": run.log_end},
        "notes": [],
        "reason": (run.state == "lost").then_some("the host was started anew"),
    });
    Ok(Output::ok(answer.to_string()))
}

/// All runs of the host.
fn list(inner: &Inner, server: &str) -> Ran {
    let world = inner.world();
    let machine = world.find(server).ok_or((1, "no such server".to_owned()))?;
    let (folder, mut runs) = (format!("{STORE}/runs/"), Vec::new());
    for (path, _) in machine.root.files() {
        let name = path.strip_prefix(&folder);
        if let Some(id) = name.and_then(|name| name.strip_suffix("/run.json")) {
            let run = read_run(&world, server, id)?;
            runs.push(json!({"id": id, "state": run.state, "attempt": run.attempt}));
        }
    }
    Ok(Output::ok(json!({"runs": runs, "damaged": []}).to_string()))
}

fn logs(inner: &Inner, server: &str, id: &str, args: &[&str]) -> Ran {
    let args = Args::parse(args, "", &["from", "limit"]);
    let number = |name: &str| args.value(&[name]).and_then(|n| n.parse::<usize>().ok());
    let run = read_run(&inner.world(), server, id)?;
    let text = log_text(&run).into_bytes();
    let from = number("from").unwrap_or(0).min(run.log_end);
    let to = run
        .log_end
        .min(from + number("limit").unwrap_or(usize::MAX - from));
    Ok(Output::ok(text[from..to].to_vec()))
}

fn stop(inner: &Inner, server: &str, id: &str) -> Ran {
    let mut world = inner.world();
    let mut run = read_run(&world, server, id)?;
    if run.state != "exited" {
        run.state = "exited".into();
        run.exit = Some(json!({"signal": 15}));
        write_run(&mut world, server, id, &run)?;
    }
    Ok(Output::default())
}

/// The whole log that a run will have.
pub(super) fn log_text(run: &Run) -> String {
    let line = |n: usize| {
        format!(
            "TASK [{n:04} : one of many tasks] ******************** attempt {} of this run\n",
            run.attempt
        )
    };
    (0..LINES).map(line).collect()
}

fn run_file(id: &str) -> String {
    format!("{STORE}/runs/{id}/run.json")
}

fn read_run(world: &World, server: &str, id: &str) -> Result<Run, (u32, String)> {
    let machine = world.find(server).ok_or((1, "no such server".to_owned()))?;
    let unknown = || (5, format!("error: there is no run {id}"));
    match machine.root.get(&run_file(id)).map(|e| &e.node) {
        Some(Node::File(bytes)) => serde_json::from_slice(bytes).map_err(|_| unknown()),
        _ => Err(unknown()),
    }
}

fn write_run(world: &mut World, server: &str, id: &str, run: &Run) -> Result<(), (u32, String)> {
    let bytes = serde_json::to_vec(run).map_err(|e| (1, e.to_string()))?;
    write(world, server, &run_file(id), bytes)
}

pub(super) fn write(
    world: &mut World,
    server: &str,
    path: &str,
    bytes: Vec<u8>,
) -> Result<(), (u32, String)> {
    let machine = world
        .machines
        .get_mut(server)
        .ok_or((1, "no such server".to_owned()))?;
    let tree = &mut machine.root;
    tree.make_directories(parent(path))
        .and_then(|()| tree.write(path, bytes))
        .map_err(|e| (1, e.to_string()))
}
