//! The default run: one recovery by the real `rekindle`, in this process, and a look at the result.
//!
//! On in-process hosts it goes all the way, from nothing but the bucket to an application that answers with its
//! data and bears a thousand visitors. On real ones it ends with the machines: there Kubernetes would want an image of hundreds of megabytes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use comfy_table::{Table, presets};
use jobs::ids::ClusterName;
use jobs::keys;
use jobs::record::{NodeRecord, Summary, VolumeRecord};
use jobs::secrets::Identity;
use sandbox::clo::{ServerStatus, VolumeStatus};
use sandbox::payload::{Estate, Payload, ROWS};
use sandbox::say::line;
use sandbox::world::{Options, Sandbox};
use serde_json::Value;
use worker::ssh::HostExt;

/// The reference cluster's machines.
const MACHINES: &str = include_str!("../../../deploy/examples/cluster.yaml");
const CLUSTER: &str = "test";
/// Virtual users of the load test at the end.
const VISITORS: u32 = 1000;

/// Runs it, and takes the world down whatever happens.
pub(crate) async fn run(options: Options, disaster: bool) -> anyhow::Result<()> {
    let started = Instant::now();
    line("Starting the world: S3, cloud, network, hosts …");
    let sandbox = Sandbox::start(options).await?;
    describe(&sandbox);
    let ended = tokio::select! {
        ended = acts(&sandbox, disaster) => ended,
        () = worker::shutdown_signal() => Err(anyhow::anyhow!("interrupted")),
    };
    let down = sandbox.stop().await;
    ended?;
    down?;
    line(&format!(
        "\nAll of it took {:.1} s. To go on by hand: `cargo run --release -p sandbox -- up`",
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn describe(sandbox: &Sandbox) {
    let hosts = match sandbox.hosts.kind() {
        "namespaces" => {
            "real hosts: Linux namespaces with their own sshd, root and loop-device disks"
                .to_owned()
        }
        _ => match &sandbox.no_real_hosts {
            Some(reason) => {
                format!("in-process hosts that speak SSH (no real ones here: {reason})")
            }
            None => "in-process hosts that speak SSH".to_owned(),
        },
    };
    line(&format!(
        "  S3     {} (embedded)\n  cloud  {} (simulated CLO)\n  hosts  {hosts}\n",
        sandbox.s3.endpoint(),
        sandbox.clo.base_url()
    ));
}

async fn acts(sandbox: &Sandbox, disaster: bool) -> anyhow::Result<()> {
    let whole = match &sandbox.simulated {
        Some(_) => Some(Whole::begin(sandbox).await?),
        None => None,
    };
    recover(sandbox, "first", whole.as_ref()).await?;
    let mut report = check(sandbox, whole.as_ref()).await?;
    if disaster {
        line(
            "\nThe disaster: a file on every data disk, then all servers are destroyed. The volumes stay.\n",
        );
        write_canaries(sandbox).await?;
        sandbox.clo.destroy_all_servers().await;
        recover(sandbox, "second", whole.as_ref()).await?;
        report = check(sandbox, whole.as_ref()).await?;
        let found = read_canaries(sandbox).await?;
        line(&format!("{found} of {found} files are still there."));
    }
    let copy = save(sandbox, &report)?;
    line(&format!("\nReport: {}", copy.display()));
    Ok(())
}

/// What a recovery to the very end begins with, and what lives on the cluster.
#[derive(Debug)]
struct Whole {
    estate: Estate,
    payload: Payload,
}

impl Whole {
    async fn begin(sandbox: &Sandbox) -> anyhow::Result<Self> {
        line(
            "A database lives, is backed up into the bucket, is used on, and is lost with its cluster …\n",
        );
        let estate = Estate::leave(sandbox).await?.with_virtual_users(VISITORS);
        let payload = Payload::follow(sandbox, &estate)?;
        line(
            "Kubernetes, Flux, Percona's operator, PostgreSQL and the shop are played by small stand-ins: an API server,\n\
             operators and servers in this process, written from the real ones' code.\n",
        );
        Ok(Self { estate, payload })
    }

    /// What the recovery is given beside the machines: secrets as files, and the keys to seal and open them.
    fn flags(&self, folder: &Path) -> anyhow::Result<Vec<OsString>> {
        let identity = Identity::generate();
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            anyhow::Ok(path)
        };
        let mut flags: Vec<OsString> = vec![
            "--recipient".into(),
            identity.recipient().to_string().into(),
            "--age-identity-file".into(),
            write("worker.age", identity.to_file().reveal())?.into(),
            "--flux".into(),
            Estate::flux_folder().into(),
            // Simulated hosts run nothing of it.
            "--runner".into(),
            write("rekindle-runner", "a runner\n")?.into(),
        ];
        for (name, value) in self.estate.secrets() {
            let path = write(&format!("{name}.secret"), &value)?;
            let mut secret = OsString::from(format!("{name}=@"));
            secret.push(path);
            flags.extend(["--secret".into(), secret]);
        }
        Ok(flags)
    }
}

/// `rekindle recover … --here`, as a person would type it.
async fn recover(sandbox: &Sandbox, key: &str, whole: Option<&Whole>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let spec = folder.path().join("cluster.yaml");
    std::fs::write(&spec, whole.map_or(MACHINES, |whole| whole.estate.spec()))?;
    let example = whole.map_or("cluster.yaml", |_| "cluster-complete.yaml");
    line(&format!(
        "$ rekindle recover --cluster {CLUSTER} --spec deploy/examples/{example} --key {key} --here --wait\n"
    ));
    let words = [
        "rekindle",
        "recover",
        "--cluster",
        CLUSTER,
        "--key",
        key,
        "--here",
        "--wait",
        "--timeout",
        "30m",
        "--spec",
    ];
    let mut args: Vec<OsString> = words.iter().map(OsString::from).collect();
    args.push(spec.into());
    for (name, value) in sandbox.environment() {
        args.push(flag_of(name).into());
        args.push(value.into());
    }
    if let Some(whole) = whole {
        args.extend(whole.flags(folder.path())?);
    }
    let code = run_like_a_program(args).await?;
    let stuck = whole.map_or_else(String::new, |whole| whole.payload.errors());
    ensure!(
        code == enqueue::ExitCode::Done,
        "the recovery ended with exit code {}\n{stuck}",
        code as u8
    );
    Ok(())
}

/// `rekindle` in this process, with the stack that a program's main thread has: in a build without optimisation
/// the definition of its command line alone takes more than a thread of ours gets.
async fn run_like_a_program(args: Vec<OsString>) -> anyhow::Result<enqueue::ExitCode> {
    let (ended, code) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("rekindle".into())
        .stack_size(8 << 20)
        .spawn(move || ended.send(enqueue::run(args)))
        .context("start a thread")?;
    code.await.context("rekindle ended without a word")
}

/// Every setting has a flag called like its variable, but for a few that are shorter.
fn flag_of(variable: &str) -> String {
    let name = variable.strip_prefix("REKINDLE_").unwrap_or(variable);
    format!("--{}", name.to_ascii_lowercase().replace('_', "-"))
}

/// Looks at the cloud and the report, prints what stands, and fails when something is missing.
async fn check(sandbox: &Sandbox, whole: Option<&Whole>) -> anyhow::Result<Value> {
    let cluster = ClusterName::new(CLUSTER)?;
    let store = sandbox.store().await?;
    let recoveries = store.list_folders(&keys::recoveries(&cluster)).await?;
    let mut reports = BTreeMap::new();
    for id in recoveries {
        let id = jobs::ids::RecoveryId::new(id)?;
        let bytes = store
            .get(&keys::report(&cluster, &id))
            .await?
            .context("the recovery has no report")?;
        let report: Value = serde_json::from_slice(&bytes)?;
        reports.insert(report["written"].to_string(), report);
    }
    let (_, report) = reports.pop_last().context("there is no recovery")?;
    let records: Vec<NodeRecord> = store
        .read_all(&keys::nodes(&cluster))
        .await?
        .into_iter()
        .map(|s| s.body)
        .collect();
    let volumes: Vec<VolumeRecord> = store
        .read_all(&keys::volumes(&cluster))
        .await?
        .into_iter()
        .map(|s| s.body)
        .collect();
    let cloud = sandbox.clo.snapshot();

    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header([
        "node",
        "server",
        "private address",
        "data volume",
        "mounted at",
        "file system",
    ]);
    for node in &records {
        let mut row = vec![
            node.node.to_string(),
            node.server.clone(),
            node.internal.ip.to_string(),
        ];
        match volumes
            .iter()
            .find(|v| node.volumes.values().any(|id| *id == v.id))
        {
            Some(v) => row.extend([
                v.id.clone(),
                v.mount.clone(),
                v.fs_uuid.clone().unwrap_or_default(),
            ]),
            None => row.extend([String::new(), String::new(), String::new()]),
        }
        table.add_row(row);
    }
    line(&format!("{table}"));

    let active = cloud
        .servers
        .iter()
        .filter(|s| s.status == ServerStatus::Active)
        .count();
    let in_use = cloud
        .volumes
        .iter()
        .filter(|v| !v.bootable && v.status == VolumeStatus::InUse)
        .count();
    let rules: usize = cloud.balancers.iter().map(|b| b.rules.len()).sum();
    let proofs = report["proofs"].as_array().map_or(0, Vec::len);
    let mounts = report["proofs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|p| p["proof"] == "mounts" && p["result"]["holds"] == true)
        .count();
    line(&format!(
        "{active} servers are active, {in_use} data volumes attached, {mounts} of them proven mounted, {} load balancer with {rules} rules; {proofs} proofs hold; RTO {} s; verdict {}",
        cloud.balancers.len(),
        report["rto_seconds"],
        report["verdict"].as_str().unwrap_or("?"),
    ));
    ensure!(
        active == 17 && cloud.servers.len() == 17,
        "17 servers should be active"
    );
    ensure!(
        in_use == 7 && mounts == 7,
        "7 data volumes should be attached and proven mounted"
    );
    ensure!(
        cloud.balancers.len() == 1 && rules == 5,
        "one load balancer should have 5 rules"
    );
    ensure!(
        report["verdict"] == "passed",
        "the report's verdict should be `passed`"
    );
    if let Some(whole) = whole {
        check_data(&whole.payload, &report)?;
        check_load(&report)?;
    }
    Ok(report)
}

/// The database and the shop, seen from their own side.
fn check_data(payload: &Payload, report: &Value) -> anyhow::Result<()> {
    let rows = payload.rows().context("the database should run")?;
    let kube = payload.kube().context("the cluster should have an API")?;
    let available = |namespace: &str, name: &str| {
        let found = kube.get("Deployment", namespace, name);
        found.is_some_and(|found| found["status"]["availableReplicas"].as_u64() > Some(0))
    };
    line(&format!(
        "{rows} rows of a lost database are back, half of them younger than its backup, from {}; the shop answers; RPO {} s",
        report["backup"]["from"], report["rpo"]["actual_seconds"],
    ));
    ensure!(rows == 2 * ROWS, "{} rows should be back", 2 * ROWS);
    ensure!(
        payload.destroyed() == 0,
        "a living database was written over"
    );
    ensure!(
        available("slr", "slr-api") && available("dsf", "dsf"),
        "the applications should be thawed"
    );
    Ok(())
}

/// The last proof: what the load test says of the shop.
fn check_load(report: &Value) -> anyhow::Result<()> {
    let mut proofs = report["proofs"].as_array().into_iter().flatten();
    let proof = proofs
        .find(|proof| proof["job"] == "load-test")
        .context("the load test should have a proof")?;
    let total = &proof["result"]["observed"]["total"];
    let total: Summary = serde_json::from_value(total.clone()).context("the load test's total")?;
    let passed = proof["result"]["holds"] == true;
    line(&format!(
        "Load test {}: {} requests of {VISITORS} virtual users in {:.1} s, {:.0} a second; p95 {:.0} ms; error rate {:.2} %",
        if passed { "passed" } else { "failed" },
        total.requests,
        total.duration_ms / 1000.0,
        total.rate().unwrap_or_default(),
        total.latency.p95,
        100.0 * total.error_rate().unwrap_or_default(),
    ));
    ensure!(
        passed && total.iterations == 5 * u64::from(VISITORS),
        "every virtual user should have visited the shop 5 times"
    );
    Ok(())
}

/// Copies the report to where people find it.
fn save(sandbox: &Sandbox, report: &Value) -> anyhow::Result<PathBuf> {
    let here = Path::new("Cargo.toml").exists();
    let folder = if here {
        PathBuf::from("target/sandbox/last")
    } else {
        std::env::temp_dir().join("rekindle-sandbox-last")
    };
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let path = folder.join("report.json");
    std::fs::write(&path, serde_json::to_vec_pretty(report)?)
        .with_context(|| format!("write {}", path.display()))?;
    let id = jobs::ids::RecoveryId::new(report["recovery"].as_str().unwrap_or_default())?;
    let page = keys::report_page(&ClusterName::new(CLUSTER)?, &id);
    let page = sandbox
        .s3
        .object(&page)
        .context("the recovery has no page")?;
    let path = folder.join("report.html");
    std::fs::write(&path, page).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

async fn write_canaries(sandbox: &Sandbox) -> anyhow::Result<()> {
    for (host, path, content) in canaries(sandbox).await? {
        host.write_file(&path, content.as_bytes(), 0o600).await?;
        host.run_ok(&["sync"]).await?;
    }
    Ok(())
}

async fn read_canaries(sandbox: &Sandbox) -> anyhow::Result<usize> {
    let all = canaries(sandbox).await?;
    let count = all.len();
    for (host, path, content) in all {
        let there = host.run_ok(&["cat", &path]).await?.text();
        ensure!(
            there == content,
            "{path} of {} says `{there}`",
            worker::ssh::Host::name(&host)
        );
    }
    Ok(count)
}

/// A connection, a path and a content for each data volume.
async fn canaries(sandbox: &Sandbox) -> anyhow::Result<Vec<(worker::ssh::Ssh, String, String)>> {
    let cluster = ClusterName::new(CLUSTER)?;
    let store = sandbox.store().await?;
    let volumes: Vec<VolumeRecord> = store
        .read_all(&keys::volumes(&cluster))
        .await?
        .into_iter()
        .map(|s| s.body)
        .collect();
    let mut out = Vec::new();
    for volume in volumes {
        let host = sandbox.login(&cluster, &volume.node).await?;
        out.push((
            host,
            format!("{}/canary", volume.mount),
            format!("{} {}", volume.id, volume.name),
        ));
    }
    Ok(out)
}
