//! A MiniStack for tests, by way of the script `tests/ministack`.
//!
//! `tests/run` starts one for everybody and names it in `SQS_ENDPOINT_TEST`. Without that each
//! test process starts its own; it ends with the process, however that ends.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jobs::queue::SqsConfig;
use jobs::store::{Credentials, Secret};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/ministack");

/// One of one's own, which may be killed and frozen.
pub(crate) struct Emulator {
    dir: PathBuf,
    pub(crate) endpoint: String,
}

impl Emulator {
    pub(crate) fn start() -> Emulator {
        Emulator::start_with_auth(false)
    }

    /// One that looks who is asking.
    pub(crate) fn start_with_auth(auth: bool) -> Emulator {
        let dir = std::env::temp_dir().join(format!("rekindle-ministack-{}", unique()));
        let out = script("start", &dir, auth);
        let endpoint = out
            .lines()
            .find_map(|line| line.strip_prefix("SQS_ENDPOINT="));
        let endpoint = endpoint.expect("the script prints the URL").to_owned();
        Emulator { dir, endpoint }
    }

    /// As a power cut would.
    pub(crate) fn kill(&self) {
        script("kill", &self.dir, false);
    }

    /// On the same port, without what it held.
    pub(crate) fn restart(&self) {
        script("restart", &self.dir, false);
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal: &str) {
        let file = std::fs::read_to_string(self.dir.join("ministack.pid")).unwrap();
        let pid = file.split(' ').next().unwrap();
        let status = Command::new("kill").args([signal, pid]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let stopped = Command::new(SCRIPT).arg("stop").arg(&self.dir).status();
        if stopped.is_ok_and(|status| status.success()) {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// The URL of one that is shared with other tests: nobody kills it.
pub(crate) fn shared_endpoint() -> String {
    // Never dropped: the script's watcher ends it with this process.
    static OWN: OnceLock<Emulator> = OnceLock::new();
    match std::env::var("SQS_ENDPOINT_TEST") {
        Ok(url) => url,
        Err(_) => OWN.get_or_init(Emulator::start).endpoint.clone(),
    }
}

/// Settings for a queue that nobody else uses.
pub(crate) fn config(endpoint: &str) -> SqsConfig {
    SqsConfig {
        endpoint: Some(endpoint.to_owned()),
        credentials: Credentials::Keys {
            access: "test".to_owned(),
            secret: Secret::new("test-secret"),
        },
        // Closing takes as long.
        poll: Duration::from_secs(1),
        ..SqsConfig::new(format!("test-{}", unique()))
    }
}

fn unique() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{}-{number}", std::process::id())
}

fn script(verb: &str, dir: &std::path::Path, auth: bool) -> String {
    let out = Command::new(SCRIPT)
        .arg(verb)
        .arg(dir)
        .env("AUTH", auth.to_string())
        .env("WITH_PID", std::process::id().to_string())
        .output()
        .expect("tests/ministack can be started");
    let shown = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "tests/ministack {verb}: {shown}");
    String::from_utf8(out.stdout).unwrap()
}
