//! No secret leaves by any way that is not its own: a whole recovery with faults, everything logged
//! that any library has to say, and then every place is searched.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::lab::small;
use e2e::processes::until;
use e2e::scanner::{Canaries, Evidence, Watch, look};
use e2e::site::{Site, demo_with_programs};
use e2e::tap::{Recording, Tap};
use jobs::plan::{DEFAULT_PLAN, PlanFile};
use jobs::queue::{Outgoing, Queue, Rabbit, RabbitConfig};
use jobs::record::Status;
use jobs::spec::ClusterSpec;
use sandbox::clo::{Fault, Operation};
use sandbox::hosts::simulated::{CommandFault, Sshd};
use sandbox::s3::{Failure, Op, What, When};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

/// Only ends runs that are broken.
const LONG: Duration = Duration::from_secs(240);

/// A text that stands nowhere else.
fn canary(what: &str) -> String {
    format!("{what}-{}", Uuid::new_v4().simple())
}

/// Workers, everything that can be seen of them, and what they must not show.
struct Stage {
    site: Site,
    store: Recording,
    cloud: Recording,
    broker: Tap,
    proxy: String,
    canaries: Canaries,
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        // Signs that are written differently in URLs and in base64.
        let (s3, amqp, proxy) = (canary("s3/+"), canary("amqp"), canary("proxy"));
        let site = Site::with_secrets(&s3, &amqp).await?;
        let store = Recording::start(&site.sandbox.s3.address().to_string()).await?;
        let address = site.sandbox.clo.base_url();
        let cloud = Recording::start(address.trim_start_matches("http://")).await?;
        let broker = Tap::start(site.broker.url()).await?;
        let address = site.sandbox.network.proxy_address();
        let mut canaries = Canaries::default();
        canaries.add("the S3 secret key", &s3)?;
        canaries.add("the broker's password", &amqp)?;
        canaries.add("the proxy's password", &proxy)?;
        canaries.add("the cloud's token", site.sandbox.clo.token())?;
        let key = std::fs::read_to_string(site.sandbox.key_file())?;
        canaries.add_private_key("the SSH key", &key)?;
        Ok(Self {
            site,
            store,
            cloud,
            broker,
            proxy: format!("socks5h://rekindle:{proxy}@{address}"),
            canaries,
        })
    }

    /// What `rekindle` and workers are told of this stage.
    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("S3_ENDPOINT", self.store.http()),
            ("CLO_URL", self.cloud.http()),
            ("AMQP_URL", self.broker.url().to_owned()),
            ("REKINDLE_PROXY", self.proxy.clone()),
            ("RUST_LOG", "trace".to_owned()),
            ("RUST_BACKTRACE", "1".to_owned()),
        ]
    }

    /// Runs `rekindle` with these settings changed.
    async fn rekindle(
        &self,
        folder: &std::path::Path,
        changed: &[(&str, &str)],
        args: &str,
    ) -> anyhow::Result<(i32, String)> {
        let settings = self.settings();
        let mut all: Vec<(&str, &str)> = settings.iter().map(|(n, v)| (*n, v.as_str())).collect();
        all.extend(changed);
        self.site.rekindle(folder, &all, args).await
    }

    /// What lies in the bucket and what went over the wires to bucket and broker.
    fn stored_and_sent(&self) -> Vec<Evidence> {
        let mut all = vec![
            Evidence::new("the requests to the store", self.store.sent()),
            Evidence::new("the frames to the broker", self.broker.frames()),
        ];
        for (key, body) in self.site.sandbox.s3.objects("") {
            all.push(Evidence::new("the keys of the bucket", &key));
            all.push(Evidence::new(format!("the object {key}"), body));
        }
        all
    }

    /// The host keys that went to the cloud, which is the one place where they may be.
    fn add_host_keys(&mut self) -> anyhow::Result<usize> {
        let sent = String::from_utf8_lossy(&self.cloud.sent()).into_owned();
        let keys = sent.split("-----BEGIN OPENSSH PRIVATE KEY-----").skip(1);
        let mut added = 0;
        for key in keys {
            let (body, _) = key
                .split_once("-----END OPENSSH PRIVATE KEY-----")
                .context("a key has an end")?;
            // Line ends are escaped in JSON.
            let pem = body.replace("\\n", "\n");
            let name = format!("host key {added}");
            self.canaries.add_private_key(&name, &pem)?;
            added += 1;
        }
        Ok(added)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_no_secret_is_anywhere_after_a_recovery_with_faults() -> anyhow::Result<()> {
    let mut stage = Stage::set().await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("cluster.yaml"), small("test"))?;
    let mut evidence = Vec::new();

    // Wrong credentials are secrets as well: they may be right elsewhere.
    let wrong = canary("wrong");
    stage.canaries.add("a wrong credential", &wrong)?;
    let wrong_broker = format!("amqp://guest:{wrong}@{}", broker_address(&stage));
    let wrong_key = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{wrong}\n-----END");
    for (name, value) in [
        ("S3_SECRET_KEY", wrong.as_str()),
        ("AMQP_URL", &wrong_broker),
        ("CLO_AUTH_TOKEN", &wrong),
        ("SSH_PRIVATE_KEY", &wrong_key),
        ("REKINDLE_PROXY", &format!("socks5h://u:{wrong}@")),
    ] {
        let mut changed = vec![(name, value)];
        if name == "SSH_PRIVATE_KEY" {
            changed.push(("SSH_PRIVATE_KEY_FILE", ""));
        }
        let told = stage
            .rekindle(folder.path(), &changed, "doctor --output json")
            .await?;
        ensure!(told.0 != 0, "a wrong {name} is well: {}", told.1);
        evidence.push(Evidence::new(format!("doctor with a wrong {name}"), told.1));
    }

    // The recovery, with trouble everywhere.
    let mut workers = stage.site.workers(&["--lease", "6", "--sweep", "2"])?;
    for (name, value) in stage.settings() {
        workers.set(name, Some(&value));
    }
    let key = std::fs::read_to_string(stage.site.sandbox.key_file())?;
    let pids = Arc::new(Mutex::new(Vec::new()));
    let watched = Arc::clone(&pids);
    let watch = Watch::start(move || {
        watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    });
    let clo = stage.site.sandbox.clo.faults();
    clo.add(Fault::on(Operation::CreateServer).after().answer(500));
    clo.add(Fault::on(Operation::ListServers).answer(401));
    clo.add(Fault::anywhere().every(6).times(6));
    let hosts = stage
        .site
        .sandbox
        .simulated
        .as_ref()
        .context("in-process")?;
    hosts.faults().add(CommandFault::on("mkfs.ext4").cut());
    hosts.faults().sshd("test-master-1", Some(Sshd::Closed));
    let store = stage.site.sandbox.s3.faults();
    store.on(Op::Put, When::Every(9), What::Fail(Failure::Internal));
    store.on(Op::Get, When::Every(7), What::LoseRequest);

    let spec = ClusterSpec::parse(&small("test")).map_err(|p| anyhow::anyhow!("{p:?}"))?;
    let plan = PlanFile::parse(DEFAULT_PLAN)
        .and_then(|file| file.expand(&spec))
        .map_err(|p| anyhow::anyhow!("{p:?}"))?;
    let mut plan = plan.jobs().to_vec();
    plan.push(demo_with_programs("programs", 4, 1500));
    let queue = stage.site.broker.queue()?;
    let begun = e2e::recovery::begin(
        &stage.site.sandbox.store().await?,
        queue.as_ref(),
        &small("test"),
        Some(plan),
    )
    .await?;
    // The key itself in its environment, and then a file.
    workers.set("SSH_PRIVATE_KEY", Some(&key));
    workers.set("SSH_PRIVATE_KEY_FILE", None);
    let first = workers.spawn()?;
    *pids.lock().unwrap_or_else(PoisonError::into_inner) = workers.pids();
    until(
        "a program has run, and the cloud has refused us",
        LONG,
        async || {
            let records = begun.records().await?;
            let mut all = records.values().flatten();
            let ran = all.any(|r| r.job.as_str() == "demo/programs" && !r.steps.is_empty());
            let mut all = records.values().flatten();
            Ok((ran && all.any(|r| r.status == Status::Failed)).then_some(()))
        },
    )
    .await?;
    workers.kill9(first).await?;
    // The next one gets files alone, and so has no secret in its environment.
    workers.set("SSH_PRIVATE_KEY", None);
    let file = stage.site.sandbox.key_file().display().to_string();
    workers.set("SSH_PRIVATE_KEY_FILE", Some(&file));
    for (name, secret) in [
        ("S3_SECRET_KEY", stage.site.sandbox.s3.secret_key()),
        ("CLO_AUTH_TOKEN", stage.site.sandbox.clo.token()),
        ("AMQP_URL", stage.broker.url()),
        ("REKINDLE_PROXY", &stage.proxy),
    ] {
        let file = folder.path().join(name);
        std::fs::write(&file, format!("{secret}\n"))?;
        workers.set(name, None);
        workers.set(&format!("{name}_FILE"), Some(&file.display().to_string()));
    }
    let second = workers.spawn()?;
    *pids.lock().unwrap_or_else(PoisonError::into_inner) = workers.pids();
    let retry = "retry --cluster test --reason refused --output json";
    let told = stage.rekindle(folder.path(), &[], retry).await?;
    ensure!(told.0 == 0, "rekindle {retry}: {}", told.1);
    evidence.push(Evidence::new("rekindle retry", told.1));
    until("a worker has met the closed door", LONG, async || {
        let record = begun.record("reachability/test-master-1").await?;
        let seen = record.and_then(|r| Some(r.waits.get("ssh")?.seen.clone()));
        Ok(seen.filter(|seen| !seen.is_empty()))
    })
    .await?;
    hosts.faults().sshd("test-master-1", None);
    begun.finished(LONG).await?;
    store.clear();
    stage.site.sandbox.clo.faults().clear();

    // Everything that can be looked at.
    for args in [
        "status --cluster test --output json",
        "doctor --output json",
        "plan --spec cluster.yaml --cloud --output json",
    ] {
        let told = stage.rekindle(folder.path(), &[], args).await?;
        ensure!(told.0 == 0, "rekindle {args}: {}", told.1);
        evidence.push(Evidence::new(format!("rekindle {args}"), told.1));
    }
    let environment = look(second, "environ").context("it runs")?;
    ensure!(
        environment.text.contains("S3_SECRET_KEY_FILE="),
        "it is its own"
    );
    evidence.push(environment);
    let log = workers.logs()?;
    ensure!(log.contains("TRACE"), "the logs say all there is");
    eprintln!("{} bytes of logs", log.len());
    evidence.push(Evidence::new("the workers' logs", log));
    evidence.extend(stage.stored_and_sent());
    let processes = watch.stop();
    ensure!(
        processes.iter().any(|e| e.text.contains("sleep")),
        "no program was seen"
    );
    evidence.extend(processes);
    ensure!(stage.add_host_keys()? >= 3, "every server has a host key");
    assert_eq!(stage.canaries.find(&evidence), Vec::<String>::new());

    // And the search itself: a secret in each kind of place is found.
    planted(&stage, folder.path()).await?;
    workers.stop().await?;
    stage.site.stop().await
}

fn broker_address(stage: &Stage) -> &str {
    let url = stage.site.broker.url();
    url.rsplit_once('@').map_or(url, |(_, address)| address)
}

/// Puts a canary into one place after another, each by the way that a mistake would take, and looks.
async fn planted(stage: &Stage, folder: &std::path::Path) -> anyhow::Result<()> {
    let mut canaries = Canaries::default();
    let planted = canary("planted");
    canaries.add("it", &planted)?;
    let find = |what: &str, evidence: &[Evidence]| {
        let found = canaries.find(evidence);
        ensure!(found.len() == 1, "{what}: {found:?}");
        anyhow::Ok(())
    };
    let s3 = &stage.site.sandbox.s3;
    s3.put_object("planted", format!("{{\"token\":\"{planted}\"}}"));
    find("a body", &stage.stored_and_sent())?;
    s3.delete_object("planted");
    s3.put_object(&format!("inputs/{planted}"), "");
    find("a key", &stage.stored_and_sent())?;
    s3.delete_object(&format!("inputs/{planted}"));

    let queue = Rabbit::new(RabbitConfig::new(stage.broker.url()))?;
    let message = Outgoing {
        id: "planted".into(),
        body: format!("not a job but {planted}").into(),
    };
    queue.publish(&message, Duration::ZERO).await?;
    queue.close().await;
    find("a message", &stage.stored_and_sent())?;

    let status = format!("status --cluster {planted}");
    let told = stage.rekindle(folder, &[], &status).await?;
    find("an output", &[Evidence::new("an output", told.1)])?;

    let address = stage.store.http();
    let address = address.trim_start_matches("http://");
    let mut raw = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\nx-token: {planted}\r\n\r\n");
    raw.write_all(request.as_bytes()).await?;
    until("a header", LONG, async || {
        let sent = Evidence::new("the requests to the store", stage.store.sent());
        Ok((!canaries.find(&[sent]).is_empty()).then_some(()))
    })
    .await?;

    for environment in [false, true] {
        let me = std::process::id();
        let watch = Watch::start(move || vec![me]);
        let mut program = std::process::Command::new("sh");
        program.args(["-c", "sleep 0.5; true", "a-program"]);
        if environment {
            program.env("TOKEN", &planted);
        } else {
            program.arg(&planted);
        }
        let mut program = program.spawn()?;
        tokio::task::spawn_blocking(move || program.wait()).await??;
        let found = canaries.find(&watch.stop());
        let place = if environment { "environ" } else { "cmdline" };
        ensure!(found.iter().any(|f| f.contains(place)), "{found:?}");
    }
    Ok(())
}
