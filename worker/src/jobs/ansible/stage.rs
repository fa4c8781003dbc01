//! For tests: one run of a real Ansible in folders of its own, with the settings that it has on the bastion.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use jobs::ids::RecoveryId;
use jobs::record::{Address, NodeRecord};
use jobs::spec::{ClusterSpec, Role};

use super::events::Progress;
use super::inputs::{self, EVENTS, Files, INPUTS, Machine, OUTPUTS};
use super::runner::Exit;
use super::verdict::{Ended, judge};

/// A cluster with Kubernetes.
pub(in crate::jobs) const SPEC: &str =
    include_str!("../../../../deploy/examples/cluster-with-kubernetes.yaml");

/// Where the programs of Ansible are, of a list of requirements or of the usual one; installed at the
/// first call.
pub(in crate::jobs) fn programs(list: Option<&Path>) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/ansible");
    let install = Command::new(script).arg("install").args(list).output();
    let output = install.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// One run of Ansible in folders of its own, with the settings that it has on the bastion.
pub(in crate::jobs) struct Stage {
    pub(in crate::jobs) home: tempfile::TempDir,
}

/// How it ended.
pub(in crate::jobs) struct Ran {
    output: Output,
    pub(super) progress: Progress,
}

impl Stage {
    /// The folders, with what the run is given.
    pub(in crate::jobs) fn new(files: &Files) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("in")).unwrap();
        std::fs::create_dir(home.path().join("out")).unwrap();
        for (name, bytes) in files {
            std::fs::write(home.path().join("in").join(name), bytes).unwrap();
        }
        Self { home }
    }

    /// A path in the container, here.
    pub(in crate::jobs) fn here(&self, text: &str) -> String {
        let to = |name: &str| self.home.path().join(name).display().to_string();
        // First what could be in the paths that are put in.
        text.replace("/tmp/", &format!("{}/", to("tmp")))
            .replace(INPUTS, &to("in"))
            .replace(OUTPUTS, &to("out"))
            .replace("HOME", &to(""))
    }

    /// Plays a playbook; `HOME` in it is the folder of the run.
    pub(in crate::jobs) fn play(&self, playbook: &str, more: &[&str]) -> Ran {
        self.play_by(&inputs::playbook("cluster.yml"), playbook, more)
    }

    /// Plays a playbook, by a command that plays `cluster.yml`.
    pub(in crate::jobs) fn play_by(
        &self,
        command: &[String],
        playbook: &str,
        more: &[&str],
    ) -> Ran {
        let book = self.home.path().join("cluster.yml");
        std::fs::write(&book, self.here(playbook)).unwrap();
        let programs = programs(None);
        let words = command.iter().skip(1).filter(|word| *word != "--become");
        let environment = inputs::environment();
        let environment = environment.iter().map(|(k, v)| (*k, self.here(v)));
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let python = format!("ansible_python_interpreter={}/python", programs.display());
        let output = Command::new(programs.join(&command[0]))
            .args(words.map(|word| self.here(word)))
            .args(["--extra-vars", &python])
            .args(more)
            .env_clear()
            .envs(environment)
            .env("PATH", path)
            .env("HOME", self.home.path())
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let mut progress = Progress::default();
        let events = std::fs::read(self.home.path().join("out").join(EVENTS));
        progress.read(&events.unwrap_or_default());
        Ran { output, progress }
    }
}

impl Ran {
    pub(in crate::jobs) fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    pub(in crate::jobs) fn text(&self) -> String {
        let (out, err) = (&self.output.stdout, &self.output.stderr);
        String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
    }

    /// What the job would say of it.
    pub(in crate::jobs) fn verdict(&self, hosts: &[&str]) -> Result<(), String> {
        let ended = Ended {
            exit: Some(Exit {
                code: self.code(),
                signal: None,
            }),
            lost: None,
            recap: self.progress.recap.clone(),
            troubles: self.progress.troubles.clone(),
            log_end: 0,
            generation: 0,
        };
        judge(&ended, hosts)
    }
}

/// The nodes of the example, at addresses where nobody listens.
pub(in crate::jobs) fn machines(spec: &ClusterSpec) -> Vec<Machine> {
    let nodes = spec.nodes().into_iter();
    let nodes = nodes.filter(|node| node.role != Role::Bastion);
    let machine = |(n, node): (usize, jobs::spec::Node)| {
        let ip = Ipv4Addr::new(127, 0, 0, 100 + u8::try_from(n).unwrap());
        let record = NodeRecord {
            node: node.name.clone(),
            server: format!("s-{n}"),
            internal: Address { id: "a".into(), ip },
            external: None,
            host_keys: vec!["ssh-ed25519 AAAAkey".into()],
            ssh_user: "root".into(),
            volumes: Default::default(),
            recovery: RecoveryId::new("r-1").unwrap(),
            epoch: 1,
        };
        Machine { node, record }
    };
    nodes.enumerate().map(machine).collect()
}
