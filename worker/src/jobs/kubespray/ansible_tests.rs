//! The files that Ansible is given, given to a real one: it reads our inventory as we mean it, and we
//! read back what our callback says of a run.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use jobs::ids::{NodeName, RecoveryId};
use jobs::record::{Address, NodeRecord};
use jobs::spec::{ClusterSpec, Role};
use serde_json::{Value, json};

use super::events::Progress;
use super::inventory::{self, EVENTS, INPUTS, Machine, OUTPUTS};
use super::runner::Exit;
use super::verdict::{Ended, judge};

const SPEC: &str = include_str!("../../../../deploy/examples/cluster-with-kubernetes.yaml");

/// Where the programs of Ansible are; installed at the first call.
fn programs() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/ansible");
    let output = Command::new(script).arg("install").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// One run of Ansible in folders of its own, with the settings that it has on the bastion.
struct Stage {
    home: tempfile::TempDir,
}

/// How it ended.
struct Ran {
    output: Output,
    progress: Progress,
}

impl Stage {
    fn new(change: impl FnOnce(&mut Vec<Machine>)) -> Self {
        let spec = ClusterSpec::parse(SPEC).unwrap();
        let mut machines = machines(&spec);
        change(&mut machines);
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("in")).unwrap();
        std::fs::create_dir(home.path().join("out")).unwrap();
        let files = inventory::render(&spec.kubernetes.unwrap(), &machines).unwrap();
        for (name, bytes) in files {
            std::fs::write(home.path().join("in").join(name), bytes).unwrap();
        }
        Self { home }
    }

    /// A path in the container, here.
    fn here(&self, text: &str) -> String {
        let to = |name: &str| self.home.path().join(name).display().to_string();
        // First what could be in the paths that are put in.
        text.replace("/tmp/", &format!("{}/", to("tmp")))
            .replace(INPUTS, &to("in"))
            .replace(OUTPUTS, &to("out"))
            .replace("HOME", &to(""))
    }

    fn play(&self, playbook: &str, more: &[&str]) -> Ran {
        let book = self.home.path().join("cluster.yml");
        std::fs::write(&book, self.here(playbook)).unwrap();
        let programs = programs();
        let command: Vec<String> = inventory::command();
        let words = command.iter().skip(1).filter(|word| *word != "--become");
        let environment = inventory::environment();
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
    fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    fn text(&self) -> String {
        let (out, err) = (&self.output.stdout, &self.output.stderr);
        String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
    }

    /// What the job would say of it.
    fn verdict(&self, hosts: &[&str]) -> Result<(), String> {
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
fn machines(spec: &ClusterSpec) -> Vec<Machine> {
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

const ALL: [&str; 5] = [
    "small-master-1",
    "small-master-2",
    "small-master-3",
    "small-app-1",
    "small-app-2",
];

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn heavy_ansible_reads_the_inventory_as_it_is_meant() {
    let nasty = r#"+ ' " < > & : # {x} %s \n ü"#;
    let stage = Stage::new(|machines| {
        machines[0].record.ssh_user = "no".into();
        machines[3].node.labels.insert("nasty".into(), nasty.into());
        machines[3].node.labels.insert("time".into(), "1:30".into());
        machines[3].node.labels.insert("mode".into(), "0777".into());
        // It is appended, and stays last although its name sorts second.
        let mut tenth = machines[2].clone();
        tenth.node.name = NodeName::new("small-master-10").unwrap();
        tenth.record.node = tenth.node.name.clone();
        tenth.record.internal.ip = Ipv4Addr::new(127, 0, 0, 200);
        let mut eleventh = tenth.clone();
        eleventh.node.name = NodeName::new("small-master-11").unwrap();
        eleventh.record.node = eleventh.node.name.clone();
        eleventh.record.internal.ip = Ipv4Addr::new(127, 0, 0, 201);
        machines.insert(3, tenth);
        machines.insert(4, eleventh);
    });
    let ran = stage.play(
        "
- hosts: k8s_cluster
  gather_facts: false
  connection: local
  tasks:
    - name: Keep what is seen
      run_once: true
      ansible.builtin.copy:
        dest: HOME/seen.json
        mode: '0600'
        content: \"{{ {'groups': groups, 'app': hostvars['small-app-1'], 'master': hostvars['small-master-1']} | to_json }}\"
",
        &[],
    );
    assert_eq!(ran.code(), Some(0), "{}", ran.text());
    let seen = read_json(&stage.home.path().join("seen.json"));
    let masters = json!([
        "small-master-1",
        "small-master-2",
        "small-master-3",
        "small-master-10",
        "small-master-11"
    ]);
    assert_eq!(seen["groups"]["kube_control_plane"], masters);
    assert_eq!(seen["groups"]["etcd"], masters);
    assert_eq!(
        seen["groups"]["kube_node"],
        json!(["small-app-1", "small-app-2"])
    );
    assert_eq!(seen["groups"]["calico_rr"], json!([]));
    assert_eq!(seen["groups"]["k8s_cluster"].as_array().unwrap().len(), 7);
    let labels = &seen["app"]["node_labels"];
    assert_eq!(labels["nasty"], nasty);
    assert_eq!(
        (&labels["time"], &labels["mode"]),
        (&json!("1:30"), &json!("0777"))
    );
    assert_eq!(labels["appnode"], "true", "a text, as it was written");
    assert_eq!(
        seen["app"]["node_taints"],
        json!(["apptaint=yes:NoSchedule"])
    );
    assert_eq!(seen["master"]["ansible_user"], "no");
    assert_eq!(seen["master"]["ip"], "127.0.0.100");
    assert_eq!(seen["master"]["download_run_once"], json!(false));
    // The variables of the spec win, with their types.
    assert_eq!(seen["app"]["auto_renew_certificates"], json!(true));
    let names = &seen["app"]["supplementary_addresses_in_ssl_keys"];
    assert_eq!(*names, json!(["k8s.example.org"]));
}

#[test]
fn heavy_a_run_that_goes_well_is_counted_and_good() {
    let stage = Stage::new(|_| {});
    let ran = stage.play(
        "
- name: First
  hosts: all
  gather_facts: false
  connection: local
  tasks:
    - name: One
      ansible.builtin.debug: { msg: hello }
    - block:
        - name: Two
          ansible.builtin.fail: { msg: it is made good }
          when: inventory_hostname == 'small-app-1'
      rescue:
        - name: Mend
          ansible.builtin.debug: { msg: mended }
    - name: Three
      ansible.builtin.fail: { msg: never mind }
      ignore_errors: true
- name: Second
  hosts: kube_node
  gather_facts: false
  connection: local
  tasks:
    - name: Four
      ansible.builtin.debug: { msg: bye }
",
        &[],
    );
    assert_eq!(ran.code(), Some(0), "{}", ran.text());
    assert_eq!(ran.verdict(&ALL), Ok(()));
    // Mend was one more than could be known before.
    assert_eq!(
        ran.progress.text(),
        "task 5 of 5: Four on 2 hosts, failed: small-app-1"
    );
    let messages: Vec<&str> = ran
        .progress
        .troubles
        .iter()
        .map(|t| t.message.as_str())
        .collect();
    assert_eq!(messages, ["it is made good"]);
}

#[test]
fn heavy_a_host_that_fails_is_named_and_what_is_secret_is_not() {
    let stage = Stage::new(|_| {});
    let ran = stage.play(
        "
- hosts: all
  gather_facts: false
  connection: local
  tasks:
    - name: Download
      ansible.builtin.command: sh -c 'echo 404 not found >&2; exit 3'
      when: inventory_hostname == 'small-app-2'
    - name: Log in
      ansible.builtin.command: sh -c 'echo hunter2 >&2; exit 1'
      no_log: true
      when: inventory_hostname == 'small-master-2'
    - name: Try each
      ansible.builtin.fail: { msg: \"no {{ item }}\" }
      loop: [tea, coffee]
      when: inventory_hostname == 'small-master-3' and item == 'coffee'
",
        &[],
    );
    assert_eq!(ran.code(), Some(2), "{}", ran.text());
    let said: Vec<(&str, &str, &str)> = ran
        .progress
        .troubles
        .iter()
        .map(|t| (t.host.as_str(), t.task.as_str(), t.message.as_str()))
        .collect();
    assert_eq!(
        said,
        [
            (
                "small-app-2",
                "Download",
                "non-zero return code: 404 not found"
            ),
            ("small-master-2", "Log in", "(hidden by no_log)"),
            ("small-master-3", "Try each", "no coffee"),
        ]
    );
    let events = std::fs::read_to_string(stage.home.path().join("out").join(EVENTS)).unwrap();
    assert!(!events.contains("hunter2"));
    assert_eq!(
        ran.verdict(&ALL).unwrap_err(),
        "Ansible ended with exit code 2: small-app-2: task `Download`: non-zero return code: 404 not found (and 2 more)"
    );
}

#[test]
fn heavy_a_host_that_is_not_reached_is_named() {
    let stage = Stage::new(|_| {});
    // Nobody listens on port 1; ssh itself is the real one.
    let more = [
        "--extra-vars",
        "ansible_port=1 ansible_ssh_retries=0",
        "--limit",
        "small-app-1",
    ];
    let ran = stage.play("[{hosts: all, gather_facts: true, tasks: []}]", &more);
    assert_eq!(ran.code(), Some(4), "{}", ran.text());
    let why = ran.verdict(&["small-app-1"]).unwrap_err();
    assert!(
        why.starts_with("Ansible ended with exit code 4: small-app-1: task `Gathering Facts`: "),
        "{why}"
    );
    assert!(why.contains("Connection refused"), "{why}");
}

#[test]
fn heavy_no_hosts_and_no_inventory_are_no_success() {
    let stage = Stage::new(|_| {});
    let inventory = stage.home.path().join("in/inventory.json");
    let play = "[{hosts: all, gather_facts: false, tasks: []}]";
    std::fs::write(&inventory, r#"{"all": {"hosts": {}}}"#).unwrap();
    let ran = stage.play(play, &[]);
    assert_eq!(
        ran.code(),
        Some(0),
        "Ansible calls this a success: {}",
        ran.text()
    );
    let why = ran.verdict(&ALL).unwrap_err();
    assert!(why.contains("did nothing on 5 of 5 hosts"), "{why}");

    std::fs::write(&inventory, "{ this is no inventory").unwrap();
    let ran = stage.play(play, &[]);
    assert_ne!(ran.code(), Some(0), "{}", ran.text());
    ran.verdict(&ALL).unwrap_err();
}
