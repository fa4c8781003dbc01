//! The tests of the RabbitMQ queue, and the node they run over, by way of the script `tests/rabbitmq`.
//!
//! Each release of RabbitMQ has a test target of its own, which says what it wants in `RELEASE`.
//! `tests/run` starts one node of each for everybody and names it in the environment. Without that
//! each test process starts its own; it ends with the process, however that ends.

mod checks;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use jobs::queue::RabbitConfig;

use crate::RELEASE;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/rabbitmq");

const MAKE_CERTIFICATES: &str = "
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem
    openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout broker.key -out broker.csr
    printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' >broker.ext
    openssl x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
        -extfile broker.ext -out broker.pem
";

/// A release of RabbitMQ to test with.
pub(crate) struct Release {
    /// The environment variable that names the node shared by all tests.
    pub(crate) shared: &'static str,
    /// What the script is told in `RABBITMQ_RELEASE`.
    pub(crate) script: &'static str,
    /// How its version begins.
    pub(crate) version: &'static str,
}

/// A node of one's own, which may be killed and wiped.
pub(crate) struct Broker {
    dir: PathBuf,
    pub(crate) url: String,
}

impl Broker {
    pub(crate) fn start() -> Broker {
        Broker::start_in(new_dir())
    }

    /// A node with lines of its own in `rabbitmq.conf` and in `advanced.config`.
    pub(crate) fn start_with(conf: &str, advanced: &str) -> Broker {
        let dir = new_dir();
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("extra.conf"), conf).unwrap();
        std::fs::write(dir.join("advanced.config"), advanced).unwrap();
        Broker::start_in(dir)
    }

    /// A node that also speaks TLS; returns its `amqps` URL and the PEM of its private CA.
    pub(crate) fn start_with_tls() -> (Broker, String, String) {
        let dir = new_dir();
        std::fs::create_dir(&dir).unwrap();
        let make = Command::new("sh")
            .arg("-ec")
            .arg(MAKE_CERTIFICATES)
            .current_dir(&dir)
            .output();
        let make = make.unwrap();
        let shown = String::from_utf8_lossy(&make.stderr);
        assert!(make.status.success(), "openssl: {shown}");
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let path = dir.to_str().unwrap();
        let conf = format!(
            "listeners.ssl.1 = 127.0.0.1:{port}\n\
             ssl_options.cacertfile = {path}/ca.pem\n\
             ssl_options.certfile = {path}/broker.pem\n\
             ssl_options.keyfile = {path}/broker.key\n"
        );
        std::fs::write(dir.join("extra.conf"), conf).unwrap();
        let ca = std::fs::read_to_string(dir.join("ca.pem")).unwrap();
        let url = format!("amqps://guest:guest@localhost:{port}");
        let broker = Broker::start_in(dir);
        // This listener opens after the other one, by which the script knows that the node is up.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(std::time::Instant::now() < deadline, "no TLS listener");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        (broker, url, ca)
    }

    fn start_in(dir: PathBuf) -> Broker {
        let out = script("start", &[dir.to_str().unwrap()]);
        let url = out.lines().find_map(|line| line.strip_prefix("AMQP_URL="));
        let url = url.expect("the script prints the URL").to_owned();
        Broker { dir, url }
    }

    /// As a power cut would.
    pub(crate) fn kill(&self) {
        script("kill", &[self.dir()]);
    }

    /// On the same port with the same data.
    pub(crate) fn restart(&self) {
        script("restart", &[self.dir()]);
    }

    /// On the same port without any data.
    pub(crate) fn wipe(&self) {
        script("wipe", &[self.dir()]);
    }

    /// Sends a signal to all processes of the node.
    pub(crate) fn signal(&self, signal: &str) {
        let file = std::fs::read_to_string(self.dir.join("node.pid")).unwrap();
        let pid = file.split(' ').next().unwrap();
        let group = format!("-{pid}");
        let status = Command::new("kill").args([signal, "--", &group]).status();
        assert!(status.unwrap().success());
    }

    /// What the node says about itself.
    pub(crate) fn version(&self) -> String {
        script("ctl", &[self.dir(), "-q", "version"])
    }

    fn dir(&self) -> &str {
        self.dir.to_str().unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let stopped = Command::new(SCRIPT).arg("stop").arg(&self.dir).status();
        if stopped.is_ok_and(|status| status.success()) {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// The URL of a node that is shared with other tests: nobody kills it.
pub(crate) fn shared_url() -> String {
    // Never dropped: the script's watcher ends the node with this process.
    static OWN: OnceLock<Broker> = OnceLock::new();
    match std::env::var(RELEASE.shared) {
        Ok(url) => url,
        Err(_) => OWN.get_or_init(Broker::start).url.clone(),
    }
}

/// Settings for a queue that nobody else uses.
pub(crate) fn config(url: &str) -> RabbitConfig {
    let mut config = RabbitConfig::new(url);
    config.queue = format!("test.{}", unique());
    config
}

fn new_dir() -> PathBuf {
    std::env::temp_dir().join(format!("rekindle-broker-{}", unique()))
}

fn unique() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{}-{number}", std::process::id())
}

fn script(verb: &str, args: &[&str]) -> String {
    let out = Command::new(SCRIPT)
        .arg(verb)
        .args(args)
        .env("WITH_PID", std::process::id().to_string())
        .env("RABBITMQ_RELEASE", RELEASE.script)
        .output()
        .expect("tests/rabbitmq can be started");
    let shown = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "tests/rabbitmq {verb}: {shown}");
    String::from_utf8(out.stdout).unwrap()
}
