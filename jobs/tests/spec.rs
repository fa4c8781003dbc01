//! The cluster spec from the outside: the example, the schema, and everything that can be wrong.

use jobs::spec::{ClusterSpec, Role};

const EXAMPLE: &str = include_str!("../../deploy/examples/cluster.yaml");

#[test]
fn the_example_is_the_reference_cluster() {
    let spec = ClusterSpec::parse(EXAMPLE).expect("the example is valid");
    let nodes = spec.nodes();
    assert_eq!(nodes.len(), 17);
    assert_eq!(nodes.iter().map(|n| n.data_disks.len()).sum::<usize>(), 7);
    assert_eq!(nodes.iter().map(|n| n.forward.len()).sum::<usize>(), 5);
    let count = |role| nodes.iter().filter(|n| n.role == role).count();
    assert_eq!(
        (
            count(Role::Master),
            count(Role::Worker),
            count(Role::Bastion)
        ),
        (3, 13, 1)
    );
    let cache = nodes
        .iter()
        .find(|n| n.name.as_str() == "test-cache-2")
        .expect("there");
    assert_eq!(cache.labels["cacheinstance"], "num2");
    assert_eq!(cache.labels["cachenode"], "yesnaff");
    assert_eq!(cache.volume_name(&cache.data_disks[0]), "test-cache-2-data");
}

#[test]
fn a_switched_off_instance_keeps_the_others_numbers() {
    let yaml = EXAMPLE.replace(
        "instances: { 1: true, 2: true, 3: true }",
        "instances: { 1: true, 2: false, 3: true }",
    );
    let names: Vec<_> = ClusterSpec::parse(&yaml)
        .expect("valid")
        .nodes()
        .into_iter()
        .map(|n| n.name.to_string())
        .collect();
    assert!(
        names.contains(&"test-masterbig-3".into()) && !names.contains(&"test-masterbig-2".into())
    );
}

#[test]
fn the_checked_in_schema_is_current() {
    let schema = serde_json::to_string_pretty(&ClusterSpec::schema()).expect("plain data") + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/cluster.schema.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(path, &schema).expect("writable");
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        there, schema,
        "run `UPDATE_SCHEMA=1 cargo nextest run -p jobs schema` and commit the file"
    );
}

/// The example with one piece replaced must give a problem whose text contains `want`.
fn check(find: &str, replace: &str, want: &str) {
    assert!(EXAMPLE.contains(find), "{find}");
    let problems = ClusterSpec::parse(&EXAMPLE.replacen(find, replace, 1)).expect_err(want);
    let text = problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    assert!(text.contains(want), "`{replace}` gives:\n{text}");
}

#[test]
fn flaw_30_a_typo_is_an_error_that_names_its_path() {
    check(
        "role: master",
        "role: mastr",
        "groups[0].role: unknown variant `mastr`, expected one of `master`, `worker`, `bastion`",
    );
    check("role: master", "rle: master", "groups[0]");
    check("role: master", "rle: master", "unknown field `rle`");
    check("vcpus: 2", "vcpus: two", "groups[0].vcpus");
    check("version: 1", "version: 3", "version: 3 is not known");
    check(
        "version: 1\n",
        "version: 1\nregion: x\n",
        "unknown field `region`",
    );
}

#[test]
fn ram_in_mb_is_refused() {
    check(
        "ram_gb: 4",
        "ram_gb: 4096",
        "groups[0].ram_gb: 4096 is more than 512: memory is given in GB, not in MB; write 4 if you mean 4096 MB",
    );
    check("ram_gb: 4", "ram_gb: 0", "groups[0].ram_gb: it is 0");
}

#[test]
fn duplicate_names_and_ports_are_refused() {
    check(
        "prefix: monitoring",
        "prefix: masterbig",
        "groups[1].prefix: node `test-masterbig-1` is also made by groups[0]",
    );
    check(
        "port: 443",
        "port: 2205",
        "port 2205 is also forwarded by groups[5]",
    );
    check("port: 443", "port: 80", "port 80 is also forwarded");
    check(
        "instances: { 1: true, 2: true, 3: true }",
        "instances: { 1: true, 1: true }",
        "duplicate",
    );
    check("role: worker", "role: bastion", "2 bastions");
}

#[test]
fn malformed_yaml_is_refused_with_its_place() {
    let problems = ClusterSpec::parse("version: 1\ncluster: [").expect_err("not YAML");
    assert!(
        problems[0].reason.contains("not valid YAML") && problems[0].reason.contains("line"),
        "{problems:?}"
    );
    assert!(ClusterSpec::parse("").is_err());
    assert!(ClusterSpec::parse("just a text").is_err());
}

#[test]
fn disks_are_checked() {
    check(
        "size_gb: 10, mount: /mnt/disks/data, protected: true",
        "size_gb: 5, mount: /mnt/disks/data",
        "groups[1].data_disks[0].size_gb: 5 is less than 10 GB",
    );
    check(
        "mount: /mnt/disks/data",
        "mount: /etc",
        "groups[1].data_disks[0].mount: `/etc` belongs to the system",
    );
    check(
        "mount: /mnt/disks/data",
        "mount: mnt",
        "not an absolute path",
    );
    check(
        "mount: /mnt/disks/data",
        "mount: /mnt/../etc",
        "not an absolute path",
    );
    check("mode: \"0750\"", "mode: \"rwx\"", "octal");
    check(
        "cluster: test",
        "cluster: Test_1",
        "not a valid cluster name",
    );
}

#[test]
fn labels_taints_and_rules_are_checked() {
    check(
        "\"prometheustaint=yestaint:NoSchedule\"",
        "\"prometheustaint=yestaint\"",
        "groups[1].taints[0]",
    );
    check(
        "cachenode: yesnaff",
        "cachenode: \"not a label!\"",
        "is not a Kubernetes label",
    );
    check(
        "delay: 80",
        "delay: 10",
        "load_balancer.health.delay: 10 is less",
    );
}

#[test]
fn a_node_has_one_taint_of_a_key_and_an_effect() {
    let taints = |group: &str, own: &str| {
        let yaml = EXAMPLE.replacen(
            "instances: { 1: true, 2: true, 3: true }",
            &format!("instances: {{ 1: {{ taints: [{own}] }} }}\n    taints: [{group}]"),
            1,
        );
        match ClusterSpec::parse(&yaml) {
            Ok(_) => String::new(),
            Err(problems) => problems[0].to_string(),
        }
    };
    let twice = |text: &str, at: &str| {
        assert!(text.contains("has the key and the effect of"), "{text}");
        assert!(text.starts_with(&format!("groups[0].{at}: ")), "{text}");
    };
    let (one, other) = ("\"a=1:NoSchedule\"", "\"a=2:NoSchedule\"");
    twice(&taints(one, other), "instances.1.taints[0]");
    twice(&taints(&format!("{one}, {other}"), ""), "taints[1]");
    twice(
        &taints("", &format!("{one}, {other}")),
        "instances.1.taints[1]",
    );
    twice(
        &taints("", &format!("{one}, {one}")),
        "instances.1.taints[1]",
    );
    twice(
        &taints("\"a:NoSchedule\"", "\"a=:NoSchedule\""),
        "instances.1.taints[0]",
    );
    // The group's own once more is the same taint, and another effect is another taint.
    assert_eq!(taints(one, one), "");
    assert_eq!(taints(one, "\"a=1:NoExecute\""), "");
    assert_eq!(taints(one, "\"x/a=1:NoSchedule\""), "");
}

#[test]
fn the_prefix_of_a_label_is_a_dns_name_in_lower_case() {
    let label = |key: &str| {
        let yaml = EXAMPLE.replacen("cachenode: yesnaff", &format!("\"{key}\": yesnaff"), 1);
        assert_ne!(yaml, EXAMPLE);
        ClusterSpec::parse(&yaml).is_ok()
    };
    let long = |length: usize| format!("{}.x/name", "a".repeat(length - 2));
    for fine in ["my-co.example/My_Name.x", "1/x", "a.b.c/X", &long(253)] {
        assert!(label(fine), "{fine}");
    }
    let wrong = [
        "My_Co/x",
        "My/x",
        "my_co/x",
        "-a/x",
        "a-/x",
        "a..b/x",
        "/x",
        "a/",
        "a/b/c",
        &long(254),
    ];
    for wrong in wrong {
        assert!(!label(wrong), "{wrong}");
    }
    check(
        "\"prometheustaint=yestaint:NoSchedule\"",
        "\"My_Co/prometheus=yes:NoSchedule\"",
        "groups[1].taints[0]",
    );
}

#[test]
fn a_mount_point_is_as_the_kernel_shows_it_and_none_of_the_systems() {
    let mount = |path: &str, want: &str| {
        check("mount: /mnt/disks/data", &format!("mount: {path}"), want);
    };
    mount("/mnt/disks/data/", "has a `/` too many");
    mount("/mnt//data", "has a `/` too many");
    mount("//etc", "has a `/` too many");
    mount("/lib64/x", "belongs to the system");
    mount("/sbin", "belongs to the system");
    mount("/var", "belongs to the system");
}
