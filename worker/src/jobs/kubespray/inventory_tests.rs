#![expect(clippy::unwrap_used, reason = "tests")]

use jobs::ids::{NodeName, RecoveryId};
use jobs::record::{Address, NodeRecord};
use jobs::spec::{ClusterSpec, Node};
use proptest::prelude::*;

use super::*;

const SPEC: &str = include_str!("../../../../deploy/examples/cluster-with-kubernetes.yaml");

fn spec() -> ClusterSpec {
    ClusterSpec::parse(SPEC).unwrap()
}

fn kubernetes() -> Kubernetes {
    spec().kubernetes.unwrap()
}

/// The nodes of the example, with addresses in their order.
fn machines() -> Vec<Machine> {
    let nodes = spec().nodes().into_iter();
    let nodes = nodes.filter(|node| node.role != Role::Bastion);
    let machine = |(n, node): (usize, Node)| {
        let ip = Ipv4Addr::new(10, 0, 0, 10 + u8::try_from(n).unwrap());
        let internal = Address {
            id: format!("a-{n}"),
            ip,
        };
        let record = NodeRecord {
            node: node.name.clone(),
            server: format!("s-{n}"),
            internal,
            external: None,
            host_keys: vec![format!("ssh-ed25519 AAAAkey{n} root@{}", node.name)],
            ssh_user: "root".into(),
            volumes: BTreeMap::new(),
            recovery: RecoveryId::new("r-1").unwrap(),
            epoch: 1,
        };
        Machine { node, record }
    };
    nodes.enumerate().map(machine).collect()
}

fn file(name: &str, files: &Files) -> String {
    String::from_utf8(files[name].clone()).unwrap()
}

#[test]
fn the_files_are_as_they_were() {
    let files = render(&kubernetes(), &machines()).unwrap();
    insta::assert_snapshot!(file("inventory.json", &files));
    insta::assert_snapshot!("known_hosts", file("known_hosts", &files));
    insta::assert_snapshot!("extra_vars", file("extra_vars.json", &files));
    let again = render(&kubernetes(), &machines()).unwrap();
    assert_eq!(inputs::digest(&files), inputs::digest(&again));
}

#[test]
fn the_tenth_master_comes_after_the_ninth() {
    let mut machines = machines();
    let master = machines[0].clone();
    for n in 4..=11 {
        let mut more = master.clone();
        more.node.name = NodeName::new(format!("small-master-{n}")).unwrap();
        more.record.node = more.node.name.clone();
        more.record.internal.ip = Ipv4Addr::new(10, 0, 1, n);
        machines.insert(usize::from(n) - 1, more);
    }
    let text = file("inventory.json", &render(&kubernetes(), &machines).unwrap());
    let at = |n: u32| text.find(&format!("\"small-master-{n}\": {{\n")).unwrap();
    assert!((1..11).all(|n| at(n) < at(n + 1)), "{text}");
}

#[test]
fn what_kubespray_does_not_catch_is_refused() {
    let check = |change: &dyn Fn(&mut Vec<Machine>), want: &str| {
        let mut machines = machines();
        change(&mut machines);
        let error = render(&kubernetes(), &machines).expect_err(want);
        assert!(error.contains(want), "{error}");
    };
    check(&|all| all.clear(), "0 masters");
    check(
        &|all| drop(all.remove(0)),
        "2 masters: etcd needs an odd number",
    );
    check(
        &|all| all.retain(|m| m.node.role == Role::Master),
        "no workers",
    );
    check(
        &|all| all[4].record.internal.ip = all[0].record.internal.ip,
        "small-app-2 has the address of small-master-1, 10.0.0.10",
    );
    check(
        &|all| all[1].record.internal.ip = Ipv4Addr::new(10, 42, 3, 4),
        "the address of small-master-2, 10.42.3.4, lies in the range of the pods",
    );
    check(
        &|all| all[1].record.internal.ip = Ipv4Addr::new(10, 43, 0, 1),
        "lies in the range of the services",
    );
    check(
        &|all| all[2].record.host_keys.clear(),
        "small-master-3 has no SSH host key",
    );
    check(
        &|all| all[2].record.host_keys = vec!["nonsense".into()],
        "has no SSH host key",
    );
    check(
        &|all| all[3].record.ssh_user.clear(),
        "small-app-1 has no user",
    );
    check(
        &|all| all[3].record.node = all[4].record.node.clone(),
        "the record of small-app-1 is that of small-app-2",
    );
}

#[test]
fn encapsulation_is_one_thing_and_only_calico_has_it() {
    let of = |plugin, encapsulation| {
        let mut kubernetes = kubernetes();
        kubernetes.network.plugin = plugin;
        kubernetes.network.encapsulation = encapsulation;
        let all = settings(&kubernetes);
        [
            "calico_vxlan_mode",
            "calico_ipip_mode",
            "calico_network_backend",
        ]
        .map(|name| {
            all.get(name)
                .and_then(Value::as_str)
                .unwrap_or("-")
                .to_owned()
        })
    };
    let calico = NetworkPlugin::Calico;
    assert_eq!(of(calico, None), ["Always", "Never", "vxlan"]);
    assert_eq!(
        of(calico, Some(Encapsulation::Ipip)),
        ["Never", "Always", "bird"]
    );
    assert_eq!(
        of(calico, Some(Encapsulation::None)),
        ["Never", "Never", "bird"]
    );
    assert_eq!(of(NetworkPlugin::Cilium, None), ["-", "-", "-"]);
}

proptest! {
    /// The reference made an HTML page of its inventory: a `+` came out as `&#43;`.
    #[test]
    fn values_arrive_as_they_are(
        label in "\\PC{0,20}",
        taint in r#"[+'"<>&:#{}%@`!|, \\-]{0,12}"#,
        user in prop_oneof![Just("no".to_owned()), Just("1:30".into()), Just("0777".into()), "\\PC{1,12}"],
        extra in "(\\PC|\n|\t){0,20}",
    ) {
        let (mut machines, mut kubernetes) = (machines(), kubernetes());
        machines[0].node.labels.insert("key".into(), label.clone());
        machines[0].node.taints = vec![taint.clone()];
        machines[0].record.ssh_user = user.clone();
        kubernetes.extra_vars.insert("extra".into(), extra.clone().into());
        let files = render(&kubernetes, &machines).unwrap();

        let inventory: Value = serde_json::from_slice(&files["inventory.json"]).unwrap();
        let host = &inventory["all"]["hosts"]["small-master-1"];
        prop_assert_eq!(&host["node_labels"]["key"], &Value::from(label));
        prop_assert_eq!(&host["node_taints"][0], &Value::from(taint));
        prop_assert_eq!(&host["ansible_user"], &Value::from(user));
        let vars: Value = serde_json::from_slice(&files["extra_vars.json"]).unwrap();
        prop_assert_eq!(&vars["extra"], &Value::from(extra));
        // What reads YAML reads the same.
        let text = String::from_utf8(files["inventory.json"].clone()).unwrap();
        let yaml: Value = serde_saphyr::from_str(&text).unwrap();
        prop_assert_eq!(yaml, inventory);
    }
}
