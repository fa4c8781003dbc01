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
        "extra_vars.download_localhost: Kubespray wants",
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
}
