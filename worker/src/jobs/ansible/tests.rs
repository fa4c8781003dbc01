//! The real Ansible, and what we read back of a run.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use jobs::spec::ClusterSpec;
use serde_json::json;

use super::inputs::{self, EVENTS, Group, Inventory};
use super::stage::{SPEC, Stage, machines};

const ALL: [&str; 5] = [
    "small-master-1",
    "small-master-2",
    "small-master-3",
    "small-app-1",
    "small-app-2",
];

fn stage() -> Stage {
    let machines = machines(&ClusterSpec::parse(SPEC).unwrap());
    let host = |m: &inputs::Machine| {
        let vars = json!({"ansible_host": m.record.internal.ip});
        (m.node.name.to_string(), vars)
    };
    let inventory = Inventory::new(
        BTreeMap::new(),
        machines.iter().map(host).collect(),
        vec![("some", Group::of_hosts(machines[3..].iter()))],
    );
    Stage::new(&inputs::files(&inventory, &BTreeMap::new(), &machines))
}

#[test]
fn heavy_a_run_that_goes_well_is_counted_and_good() {
    let stage = stage();
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
  hosts: some
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
    let stage = stage();
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
    let stage = stage();
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
    let stage = stage();
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
