//! The `kubernetes` section of a spec from the outside: the example, its place in the plan, and what
//! can be wrong with it.

use jobs::ids::JobName;
use jobs::plan::{DEFAULT_PLAN, PlanFile};
use jobs::spec::{ClusterSpec, Encapsulation, NetworkPlugin};

const EXAMPLE: &str = include_str!("../../deploy/examples/cluster-with-kubernetes.yaml");
const WITHOUT: &str = include_str!("../../deploy/examples/cluster.yaml");

#[test]
fn the_example_says_what_is_installed() {
    let spec = ClusterSpec::parse(EXAMPLE).expect("the example is valid");
    let nodes = spec.nodes();
    let kubernetes = spec.kubernetes.expect("it has the section");
    assert_eq!(kubernetes.image.key(), "images/kubespray-2.29.1.tar.zst");
    assert_eq!(kubernetes.network.plugin, NetworkPlugin::Calico);
    assert_eq!(kubernetes.network.encapsulation, Some(Encapsulation::Vxlan));
    let taints = |name: &str| {
        let mut nodes = nodes.iter().filter(|node| node.name.as_str() == name);
        nodes.next().expect("in the example").taints.clone()
    };
    assert_eq!(taints("small-app-1"), ["apptaint=yes:NoSchedule"]);
    assert_eq!(
        taints("small-app-2"),
        ["apptaint=yes:NoSchedule", "batch=yes:PreferNoSchedule"]
    );
    assert_eq!(
        kubernetes.extra_vars["auto_renew_certificates"],
        serde_json::json!(true)
    );
}

#[test]
fn kubespray_is_in_the_plan_of_a_cluster_that_wants_kubernetes_and_in_no_other() {
    let plan = |yaml: &str| {
        let spec = ClusterSpec::parse(yaml).expect("valid");
        let file = PlanFile::parse(DEFAULT_PLAN).expect("valid");
        file.expand(&spec).expect("valid")
    };
    let name = JobName::of("kubespray", None);
    let with = plan(EXAMPLE);
    let job = with.job(&name).expect("in the plan");
    let needs: Vec<&str> = job.needs.iter().map(JobName::as_str).collect();
    assert_eq!(
        needs,
        [
            "reachability/small-master-1",
            "reachability/small-master-2",
            "reachability/small-master-3",
            "reachability/small-app-1",
            "reachability/small-app-2",
            "reachability/small-bastion-1",
            "mount/small-app-1",
            "mount/small-app-2"
        ]
    );
    let report = with.job(&JobName::of("report", None)).expect("in the plan");
    assert!(report.needs.contains(&name));

    let without = plan(WITHOUT);
    assert!(without.job(&name).is_none());
    assert!(without.jobs().iter().all(|job| !job.needs.contains(&name)));
}

#[test]
fn everything_wrong_names_its_field() {
    let check = |from: &str, to: &str, want: &str| {
        assert!(EXAMPLE.contains(from), "the example has no {from}");
        let problems = ClusterSpec::parse(&EXAMPLE.replace(from, to)).expect_err(to);
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(
            text.iter().any(|line| line.contains(want)),
            "{to}: {text:?}"
        );
    };
    check("\"1.33.7\"", "\"v1.33.7\"", "kubernetes.version: `v1.33.7`");
    check(
        "\"1.33.7\"",
        "\"1.36.0\"",
        "kubernetes.version: Kubespray 2.29.1 does not install",
    );
    check("\"1.33.7\"", "1.33", "kubernetes.version: invalid type");
    check(
        "kubespray: \"2.29.1\"",
        "kubespray: \"2.10.0\"",
        "kubernetes.kubespray: 2.10.0",
    );
    check(
        "\"2.17.14\"",
        "\"2.19.0\"",
        "kubernetes.image.ansible_core: Kubespray 2.29.1 refuses",
    );
    check("sha256:00", "sha256:0", "kubernetes.image.digest");
    check("sha256:00", "sha256:0A", "kubernetes.image.digest");
    check(
        "  network:",
        "  images: { digest: \"sha256:0\" }\n  network:",
        "kubernetes.images.digest: `sha256:0` is not",
    );
    check(
        "  network:",
        "  images: { tag: v1 }\n  network:",
        "kubernetes.images",
    );
    check(
        "images/kubespray-2.29.1.tar.zst",
        "../secrets",
        "kubernetes.image.key",
    );
    check(
        "plugin: calico",
        "plugin: weave",
        "kubernetes.network.plugin: unknown variant `weave`",
    );
    check(
        "plugin: calico",
        "plugin: cilium",
        "kubernetes.network.encapsulation: only calico",
    );
    check(
        "pods: 10.42.0.0/16",
        "pods: 10.42.0.0",
        "kubernetes.network.pods: `10.42.0.0`",
    );
    check(
        "pods: 10.42.0.0/16",
        "pods: 10.42.1.0/16",
        "write 10.42.0.0/16",
    );
    check(
        "pods: 10.42.0.0/16",
        "pods: 10.42.0.0/33",
        "between /8 and /28",
    );
    // Kubespray sees only one of these two.
    check(
        "pods: 10.42.0.0/16",
        "pods: 10.40.0.0/13",
        "kubernetes.network.services: 10.43.0.0/16 overlaps",
    );
    check(
        "services: 10.43.0.0/16",
        "services: 10.42.128.0/24",
        "kubernetes.network.services: 10.42.128.0/24 overlaps",
    );
    check(
        "policies: true",
        "policies: \"yes\"",
        "kubernetes.network.policies",
    );
    check(
        "plugin: calico",
        "plugins: calico",
        "unknown field `plugins`",
    );
    check(
        "auto_renew_certificates: true",
        "kube_version: 1.2.3",
        "extra_vars.kube_version: not here: set `version`",
    );
    check(
        "auto_renew_certificates: true",
        "etcd_backup_v2: false",
        "extra_vars.etcd_backup_v2: not here",
    );
    check(
        "auto_renew_certificates: true",
        "helm_enabled: \"true\"",
        "extra_vars.helm_enabled: \"true\" is not",
    );
    check(
        "auto_renew_certificates: true",
        "download_localhost: true",
        "extra_vars.download_localhost: not here: the image has no",
    );
    check(
        "auto_renew_certificates: true",
        "bin_dir: /opt/bin",
        "extra_vars.bin_dir: not here",
    );
    check(
        "auto_renew_certificates: true",
        "unsafe_show_logs: true",
        "extra_vars.unsafe_show_logs: not here: it would write secrets",
    );
    check(
        "auto_renew_certificates: true",
        "deploy_netchecker: \"false\"",
        "extra_vars.deploy_netchecker: \"false\" is not",
    );
    check(
        "auto_renew_certificates: true",
        "kube_network_node_prefix: \"25\"",
        "extra_vars.kube_network_node_prefix: \"25\" is not a number",
    );
    check(
        "auto_renew_certificates: true",
        "calico_pool_blocksize: 33",
        "extra_vars.calico_pool_blocksize: 33 is not a number",
    );
    check(
        "auto_renew_certificates: true",
        "ansible_ssh_common_args: x",
        "extra_vars.ansible_ssh_common_args",
    );
    check(
        "auto_renew_certificates: true",
        "a-b: 1",
        "extra_vars.a-b: a variable has",
    );
    check(
        "{ 1: true, 2: true, 3: true }",
        "{ 1: true, 2: true, 3: false }",
        "2 masters are switched on",
    );
    check("role: master", "role: worker", "no node with role `master`");
    check("role: worker", "role: master", "no node with role `worker`");
    check(
        "instances: { 1: true }",
        "instances: { 1: false }",
        "no bastion is switched on",
    );
    check(
        "batch=yes:PreferNoSchedule",
        "batch=yes",
        "groups[1].instances.2.taints[0]: `batch=yes` is not",
    );
    check(
        "keypair: rekindle-small",
        "keypair: rekindle-small\n  ssh_user: ubuntu",
        "servers.ssh_user: `ubuntu` is not `root`",
    );
    check(
        "ram_gb: 8",
        "ram_gb: 1",
        "groups[1].ram_gb: 1 is less than 2",
    );
    check(
        "ram_gb: 4",
        "ram_gb: 1",
        "groups[0].ram_gb: 1 is less than 2",
    );
}

/// The example with its pod network replaced: all problems, one a line.
fn with_network(network: &str) -> String {
    let (before, rest) = EXAMPLE.split_once("    plugin: calico\n").expect("there");
    let (_, after) = rest.split_once("    policies: true").expect("there");
    let (_, after) = after.split_once('\n').expect("there");
    match ClusterSpec::parse(&format!("{before}    {network}\n{after}")) {
        Ok(_) => String::new(),
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            lines.join("\n")
        }
    }
}

#[test]
fn ranges_are_as_large_as_kubespray_and_kubeadm_want_them() {
    let check = |network: &str, want: &str| {
        let found = with_network(network);
        let right = if want.is_empty() {
            found.is_empty()
        } else {
            found.contains(want)
        };
        assert!(right, "{network}: `{found}`, not `{want}`");
    };
    let services = "kubernetes.network.services: ";
    check("services: 10.128.0.0/12", "");
    check(
        "services: 10.128.0.0/11",
        &format!("{services}10.128.0.0/11 is larger than /12"),
    );
    check("services: 172.16.0.0/28", "");
    // Calico shares the range out block by block, to any number of nodes.
    let pods = "kubernetes.network.pods: ";
    check("pods: 10.0.0.0/26", "");
    check(
        "pods: 10.0.0.0/27",
        &format!("{pods}10.0.0.0/27 is smaller than /26"),
    );
    // The others give a /24 to each of the five nodes.
    for plugin in ["cilium", "flannel"] {
        let network = |range: &str| format!("plugin: {plugin}\n    pods: {range}");
        check(&network("10.0.0.0/21"), "");
        check(
            &network("10.0.0.0/22"),
            "10.0.0.0/22 has room for a /24 of 4 nodes, and 5 are",
        );
        check(&network("10.0.0.0/25"), "/24 of 0 nodes");
    }
    let reserved = |range: &str, what: &str| {
        check(&format!("pods: {range}"), &format!("{pods}`{range}` has"));
        check(&format!("services: {range}"), what);
    };
    reserved("0.0.0.0/8", "which mean this network");
    reserved("127.16.0.0/16", "which never leave a host");
    reserved("169.254.128.0/20", "which are link-local");
    reserved("169.0.0.0/8", "which are link-local");
    reserved("224.0.0.0/12", "which are multicast");
    reserved("240.0.0.0/16", "which are multicast");
    check("pods: 223.255.0.0/16", "");
    check("pods: 128.0.0.0/8", "");
}

#[test]
fn other_sizes_among_the_variables_count() {
    let parse = |network: &str, var: &str| {
        let yaml = EXAMPLE
            .replace("plugin: calico", network)
            .replace("    encapsulation: vxlan\n", "")
            .replace("auto_renew_certificates: true", var);
        ClusterSpec::parse(&yaml.replace("    pods: 10.42.0.0/16\n", ""))
    };
    let small = "plugin: cilium\n    pods: 10.0.0.0/22";
    assert!(parse(small, "kube_network_node_prefix: 25").is_ok());
    assert!(parse(small, "kube_network_node_prefix: 24").is_err());
    let block = "plugin: calico\n    pods: 10.0.0.0/27";
    assert!(parse(block, "calico_pool_blocksize: 28").is_ok());
    assert!(parse(block, "calico_pool_blocksize: 26").is_err());
}

#[test]
fn policies_are_never_promised_where_the_plugin_enforces_none() {
    let with = |plugin: &str, policies: &str| with_network(&format!("plugin: {plugin}{policies}"));
    let (on, off) = ("\n    policies: true", "\n    policies: false");
    for plugin in ["calico", "cilium"] {
        assert_eq!(with(plugin, ""), "");
        assert_eq!(with(plugin, on), "");
        let text = format!("kubernetes.network.policies: {plugin} always enforces them");
        assert!(with(plugin, off).contains(&text));
    }
    assert_eq!(with("flannel", ""), "");
    assert_eq!(with("flannel", off), "");
    assert!(with("flannel", on).contains("kubernetes.network.policies: flannel enforces none"));
}

#[test]
fn a_small_bastion_and_small_machines_without_kubernetes_are_fine() {
    let (head, bastion) = EXAMPLE.rsplit_once("ram_gb: 4").expect("there");
    let yaml = format!("{head}ram_gb: 1{bastion}");
    assert!(ClusterSpec::parse(&yaml).is_ok());
    assert!(ClusterSpec::parse(&WITHOUT.replace("ram_gb: 4", "ram_gb: 1")).is_ok());
}
