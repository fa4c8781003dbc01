//! The sections about what runs on Kubernetes, from the outside: the example, its plan, and what can be wrong.

use std::str::FromStr;

use jobs::ids::JobName;
use jobs::plan::{DEFAULT_PLAN, Plan, PlanFile};
use jobs::spec::{ClusterSpec, Namespaced};

const EXAMPLE: &str = include_str!("../../deploy/examples/cluster-complete.yaml");
const MACHINES: &str = include_str!("../../deploy/examples/cluster.yaml");

fn plan(yaml: &str) -> Plan {
    let spec = ClusterSpec::parse(yaml).expect("valid");
    let file = PlanFile::parse(DEFAULT_PLAN).expect("valid");
    file.expand(&spec).expect("valid")
}

#[test]
fn the_example_has_the_machines_of_the_other_one() {
    let complete = ClusterSpec::parse(EXAMPLE).expect("valid");
    let machines = ClusterSpec::parse(MACHINES).expect("valid");
    assert_eq!(complete.nodes(), machines.nodes());
    assert_eq!(complete.cluster, machines.cluster);
    let flux = complete.flux.as_ref().expect("it has the section");
    assert_eq!(flux.folder(&complete), "flux/test");
    assert_eq!(flux.secrets.url(), "https://storage.clo.ru");
    let database = complete.database.as_ref().expect("it has the section");
    assert_eq!(
        (
            database.backups.stanza.as_str(),
            database.backups.repo.as_str()
        ),
        ("db", "repo1")
    );
    assert_eq!(database.user, "postgres");
    let front = complete.application("dsf").expect("in the example");
    assert_eq!(front.tag_path(), ["image", "tag"]);
    assert_eq!(front.running["image"]["tag"], "123.1", "a tag stays a text");
    let targets = complete.targets.expect("it has the section");
    assert_eq!(targets.rto.map(|rto| rto.as_secs()), Some(4 * 3600));
}

#[test]
fn what_the_spec_has_is_in_the_plan_and_nothing_else() {
    let with = plan(EXAMPLE);
    let needs = |kind: &str| {
        let job = with.job(&JobName::of(kind, None)).expect(kind);
        job.needs.iter().map(JobName::to_string).collect::<Vec<_>>()
    };
    assert_eq!(needs("flux-bootstrap"), ["kubespray"]);
    assert_eq!(needs("restore"), ["flux-bootstrap", "load-balancer"]);
    assert_eq!(
        needs("wait-certificates"),
        ["flux-bootstrap", "load-balancer"]
    );
    for kind in ["flux-bootstrap", "restore", "wait-certificates"] {
        assert!(needs("report").contains(&kind.to_owned()), "{kind}");
        assert!(plan(MACHINES).job(&JobName::of(kind, None)).is_none());
    }
}

#[test]
fn what_a_plan_cannot_say_is_begun_by_its_command() {
    let spec = ClusterSpec::parse(EXAMPLE).expect("valid");
    for kind in ["switch", "release", "secret"] {
        let yaml = format!("version: 1\njobs: [{{ job: {kind} }}]\n");
        let problems = PlanFile::parse(&yaml)
            .expect("read")
            .expand(&spec)
            .expect_err(kind);
        assert!(
            problems[0].reason.contains(&format!("rekindle {kind}")),
            "{problems:?}"
        );
    }
}

#[test]
fn everything_wrong_names_its_field() {
    let check = |from: &str, to: &str, want: &str| {
        assert!(EXAMPLE.contains(from), "the example has no {from}");
        let problems = ClusterSpec::parse(&EXAMPLE.replacen(from, to, 1)).expect_err(to);
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(
            text.iter().any(|line| line.contains(want)),
            "{to}: {text:?}"
        );
    };
    check(
        "version: \"2.8.8\"",
        "version: v2.8.8",
        "flux.version: `v2.8.8` is not",
    );
    check(
        "version: \"2.8.8\"",
        "version: \"2.6.0\"",
        "flux.version: 2.6.0 is older than 2.7.0",
    );
    check(
        "version: \"2.8.8\"",
        "version: \"2.8.8\"\n  digest: sha256:1",
        "flux.digest",
    );
    check("canary: test", "canary: /test", "flux.canary");
    check(
        "bucket: rekindle-secrets",
        "bucket: Rekindle",
        "flux.secrets.bucket",
    );
    check(
        "endpoint: storage.clo.ru",
        "endpoint: \"https://storage.clo.ru\"",
        "flux.secrets.endpoint: write it without a scheme",
    );
    check(
        "path: /pgbackrest/test/1",
        "path: pgbackrest",
        "database.backups.path: `pgbackrest`",
    );
    check(
        "path: /pgbackrest/test/1",
        "path: /a/../b",
        "database.backups.path",
    );
    check(
        "path: /pgbackrest/test/1",
        "path: /a\n    repo: repo9",
        "database.backups.repo",
    );
    check(
        "path: /pgbackrest/test/1",
        "path: /a\n    stanza: ../x",
        "database.backups.stanza",
    );
    check(
        "path: /pgbackrest/test/1",
        "path: /a\n    system_id: \"x\"",
        "is not a system identifier",
    );
    check(
        "taints: [\"postgresqltaint=yestaint:NoSchedule\"]\n  backups",
        "taints: [\"x=y:NoSchedule\"]\n  backups",
        "no switched-on node has the taint `x=y:NoSchedule`",
    );
    check(
        "at_least: 1 }",
        "}",
        "database.proofs[0]: say either `at_least` or `equals`",
    );
    check(
        "at_least: 1 }",
        "at_least: 1, equals: x }",
        "database.proofs[0]",
    );
    check(
        "name: products",
        "name: orders",
        "database.proofs[1].name: `orders` stands twice",
    );
    check(
        "switch: pg-db-values-switch",
        "switch: pg-db-values",
        "database.switch: `pg-db-values` does not end",
    );
    check(
        "name: dsf",
        "name: slr",
        "applications[1].name: `slr` stands twice",
    );
    check(
        "frozen: { storefront: { enabled: false } }",
        "frozen: {}",
        "applications[1].frozen",
    );
    check("\"https://dsf", "\"ftp://dsf", "applications[1].url");
    check("istio-system/tls-slr", "tls-slr", "is not `namespace/name`");
    check("rto: 4h", "rto: soon", "`soon` is not a time such as 4h");
    check("rto: 4h", "rto: -4h", "is not a time");
    check(
        "namespace: pg",
        "namespace: ../pg",
        "is not a valid Kubernetes name",
    );
}

#[test]
fn a_section_without_what_it_stands_on_is_refused() {
    let mut spec = serde_json::to_value(ClusterSpec::parse(EXAMPLE).expect("valid")).expect("data");
    spec.as_object_mut()
        .expect("an object")
        .remove("kubernetes");
    let problems = ClusterSpec::parse(&spec.to_string()).expect_err("no Kubernetes");
    assert!(problems.iter().any(|p| p.path == "flux"), "{problems:?}");
    spec.as_object_mut().expect("an object").remove("flux");
    let problems = ClusterSpec::parse(&spec.to_string()).expect_err("no Flux");
    for section in ["database", "applications"] {
        assert!(problems.iter().any(|p| p.path == section), "{problems:?}");
    }
}

#[test]
fn an_object_in_its_namespace_is_two_names() {
    let read = Namespaced::from_str("istio-system/tls-slr").expect("good");
    assert_eq!(read.to_string(), "istio-system/tls-slr");
    for bad in ["", "a", "/a", "a/", "a/b/c", "A/b", "../a"] {
        assert!(Namespaced::from_str(bad).is_err(), "{bad}");
    }
}
