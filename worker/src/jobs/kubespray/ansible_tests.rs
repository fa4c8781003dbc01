//! The inventory, given to a real Ansible: it reads it as we mean it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;
use std::path::Path;

use jobs::ids::NodeName;
use jobs::spec::ClusterSpec;
use serde_json::{Value, json};

use super::inventory;
use crate::jobs::ansible::inputs::Machine;
use crate::jobs::ansible::stage::{SPEC, Stage, machines};

fn stage(change: impl FnOnce(&mut Vec<Machine>)) -> Stage {
    let spec = ClusterSpec::parse(SPEC).unwrap();
    let mut machines = machines(&spec);
    change(&mut machines);
    Stage::new(&inventory::render(&spec.kubernetes.unwrap(), &machines).unwrap())
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn heavy_ansible_reads_the_inventory_as_it_is_meant() {
    let nasty = r#"+ ' " < > & : # {x} %s \n ü"#;
    let stage = stage(|machines| {
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
