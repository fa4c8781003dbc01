//! Specs and plans from people, templates and CI: bounded work, no panic, and errors with a place.

mod fuzz;

use std::collections::BTreeSet;

use fuzz::{cases, damaged, spoils, spoilt};
use jobs::plan::{DEFAULT_PLAN, Plan, PlanFile, Readiness, Settled};
use jobs::spec::{ClusterSpec, Problem, Storage};
use proptest::prelude::*;
use serde_json::{Value, json};

const SPEC: &str = include_str!("../../deploy/examples/cluster.yaml");
const LONGEST_ERROR: usize = 4000;

/// Problems are there, each with its place, and none of them repeats the document.
fn have_places(problems: &[Problem]) -> Result<(), TestCaseError> {
    prop_assert!(!problems.is_empty());
    for problem in problems {
        let text = problem.to_string();
        prop_assert!(
            !problem.path.is_empty() && !problem.reason.is_empty(),
            "{}",
            text
        );
        prop_assert!(
            text.len() < LONGEST_ERROR,
            "{} bytes: {:.300}",
            text.len(),
            text
        );
        if problem.path == "(document)" {
            let placed = problem.reason.contains("line ") || problem.reason.contains(" bytes");
            prop_assert!(placed, "{}", text);
        }
    }
    Ok(())
}

/// What a spec that was accepted promises.
fn keeps_its_promises(spec: &ClusterSpec) -> Result<(), TestCaseError> {
    let text = serde_json::to_string(spec).expect("plain data");
    let back = ClusterSpec::parse(&text);
    prop_assert_eq!(back.as_ref(), Ok(spec), "JSON is YAML");
    let nodes = spec.nodes();
    prop_assert!(!nodes.is_empty());
    let mut names = BTreeSet::new();
    for node in &nodes {
        prop_assert!(names.insert(node.name.to_string()), "{} twice", node.name);
        let found = spec.node(&node.name);
        prop_assert_eq!(found.as_ref(), Some(node));
        let mut mounts = BTreeSet::new();
        for disk in &node.data_disks {
            prop_assert!(mounts.insert(disk.mount.clone()));
            // As the kernel's mount table has it.
            let parts: Vec<&str> = disk.mount.split('/').collect();
            prop_assert!(
                parts.len() > 1 && parts[0].is_empty() && parts[1..].iter().all(|p| !p.is_empty())
            );
            prop_assert!(disk.storage == Storage::Local || disk.size_gb >= 10);
        }
    }
    for node in &nodes {
        for disk in &node.data_disks {
            let name = node.volume_name(disk);
            prop_assert!(names.insert(name.clone()), "volume name {} twice", name);
        }
    }
    let ports: Vec<u16> = spec
        .groups
        .iter()
        .flat_map(|g| &g.forward)
        .map(|f| f.port)
        .collect();
    prop_assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
    let file = PlanFile::parse(DEFAULT_PLAN).expect("the default plan is valid");
    match file.expand(spec) {
        Ok(plan) => is_a_graph(&plan),
        Err(problems) => have_places(&problems),
    }
}

/// Names are unique, needs exist and stand before, and everything can be done in order.
fn is_a_graph(plan: &Plan) -> Result<(), TestCaseError> {
    let mut settled = Settled::default();
    for job in plan.jobs() {
        prop_assert_eq!(&job.name, &job.payload.name());
        for need in &job.needs {
            prop_assert!(
                settled.done.contains(need),
                "{} needs {}, which comes later",
                job.name,
                need
            );
            prop_assert!(plan.successors(need).any(|after| after.name == job.name));
        }
        prop_assert!(
            plan.is_ready(&job.name, &settled),
            "{} in its place",
            job.name
        );
        prop_assert!(settled.done.insert(job.name.clone()), "{} twice", job.name);
    }
    let all_done = plan
        .readiness(&settled)
        .values()
        .all(|r| *r == Readiness::Done);
    prop_assert!(all_done);
    let text = serde_json::to_string(plan).expect("plain data");
    let back: Plan = serde_json::from_str(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert_eq!(&back, plan);
    Ok(())
}

fn judge(yaml: &str) -> Result<(), TestCaseError> {
    match ClusterSpec::parse(yaml) {
        Ok(spec) => keeps_its_promises(&spec)?,
        Err(problems) => have_places(&problems)?,
    }
    match PlanFile::parse(yaml) {
        Ok(file) => drop(file.expand(&reference())),
        Err(problems) => have_places(&problems)?,
    }
    Ok(())
}

fn reference() -> ClusterSpec {
    ClusterSpec::parse(SPEC).expect("the example is valid")
}

fn labels() -> impl Strategy<Value = String> {
    // Short and from few letters, so that names collide.
    "[ab]([ab1-]{0,3}[ab1])?"
}

/// Specs that are nearly always valid, in YAML's JSON form.
fn specs() -> impl Strategy<Value = Value> {
    let disk = (labels(), 10..12_u32, any::<bool>(), "/mnt/[ab]{1,3}/?", any::<bool>()).prop_map(
        |(name, size_gb, local, mount, protected)| {
            let storage = if local { "local" } else { "network" };
            json!({"name": name, "size_gb": size_gb, "storage": storage, "mount": mount, "protected": protected, "mode": "0750"})
        },
    );
    let instance = prop_oneof![
        4 => any::<bool>().prop_map(Value::from),
        1 => any::<bool>().prop_map(|enabled| json!({"enabled": enabled, "labels": {"a": "b"}})),
    ];
    let group = (
        labels(),
        prop_oneof![
            Just("master"),
            Just("worker"),
            Just("worker"),
            Just("bastion")
        ],
        prop::collection::btree_map(1..4_u32, instance, 1..3),
        prop::collection::vec(disk, 0..3),
        prop::collection::vec((1..u16::MAX, 1..u16::MAX), 0..2),
    )
        .prop_map(|(prefix, role, instances, data_disks, forward)| {
            let instances: serde_json::Map<String, Value> = instances
                .into_iter()
                .map(|(n, i)| (n.to_string(), i))
                .collect();
            let forward: Vec<Value> = forward
                .into_iter()
                .map(|(port, to)| json!({"port": port, "to": to}))
                .collect();
            json!({
                "prefix": prefix, "role": role, "instances": instances, "vcpus": 2, "ram_gb": 4,
                "boot_disk": {"size_gb": 20}, "data_disks": data_disks, "forward": forward,
            })
        });
    (labels(), prop::collection::vec(group, 1..4), any::<bool>()).prop_map(
        |(cluster, groups, balanced)| {
            let mut spec = json!({
                "version": 1, "cluster": cluster, "groups": groups,
                "servers": {"image": {"distribution": "ubuntu", "version": "22.04"}, "keypair": "k"},
            });
            if balanced {
                spec["load_balancer"] = json!({});
            }
            spec
        },
    )
}

/// Plans of any shape.
fn plans() -> impl Strategy<Value = Value> {
    let kind = || {
        prop_oneof![
            Just("provision"),
            Just("load-balancer"),
            Just("reachability"),
            Just("mount"),
            Just("permissions"),
            Just("report"),
            Just("demo"),
        ]
    };
    let selector = || {
        prop_oneof![
            Just(json!({})),
            Just(json!({"roles": ["worker"]})),
            Just(json!({"roles": ["bastion"]})),
            Just(json!({"forwarded": true})),
            Just(json!({"data_disks": false})),
            Just(json!({"groups": ["cache"]})),
            Just(json!({"names": ["test-cache-1"]})),
            Just(json!({"names": ["nobody"]})),
        ]
    };
    let need = prop_oneof![
        3 => kind().prop_map(Value::from),
        1 => (kind(), selector()).prop_map(|(job, nodes)| json!({"job": job, "nodes": nodes})),
    ];
    let entry = (
        kind(),
        prop::option::of(selector()),
        prop::collection::vec(need, 0..3),
        any::<bool>(),
    )
        .prop_map(|(job, nodes, needs, always)| {
            let mut entry = json!({"job": job, "needs": needs, "always": always});
            if let Some(nodes) = nodes {
                entry["nodes"] = nodes;
            }
            entry
        });
    prop::collection::vec(entry, 0..6).prop_map(|jobs| json!({"version": 1, "jobs": jobs}))
}

/// Pieces of YAML that have meant trouble somewhere.
fn tricks() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "&a ",
        "*a",
        "*nobody",
        "<<: *a",
        "!!binary aGk=",
        "!!int \"3\"",
        "!custom x",
        "? ",
        "- - - ",
        "|\n",
        ">-\n",
        "~",
        "null",
        ".inf",
        ".nan",
        "-0",
        "0x10",
        "0o17",
        "1_000",
        "1e400",
        "99999999999999999999",
        "-1",
        "1:30",
        "no",
        "on",
        "yes",
        "\t",
        "\u{feff}",
        "\0",
        "\u{85}",
        "---\n",
        "...\n",
        "%YAML 1.1\n",
        "{",
        "}",
        "[",
        "]",
        ",",
        ": ",
        "#",
        "\"",
        "'",
        "\\",
        "@",
        "`",
        "a: 1\n",
        "version: 1\n",
        "\r\n",
        "«",
        "{a: {a: {a: ",
    ])
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn any_text_is_a_spec_or_a_list_of_problems(text in "\\PC{0,200}") {
        judge(&text)?;
    }

    #[test]
    fn any_tricks_are_a_spec_or_a_list_of_problems(
        parts in prop::collection::vec(prop_oneof![tricks().prop_map(str::to_owned), "[ \n]{1,3}", "[a-z]{1,8}: ?"], 0..40),
    ) {
        judge(&parts.concat())?;
    }

    #[test]
    fn any_damage_to_the_example_is_a_spec_or_a_list_of_problems(
        bytes in damaged(SPEC.to_owned()), at in any::<prop::sample::Index>(), trick in tricks(),
    ) {
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        let spots: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
        if !spots.is_empty() {
            text.insert_str(spots[at.index(spots.len())], trick);
        }
        judge(&text)?;
    }

    #[test]
    fn any_spoilt_example_is_a_spec_or_a_list_of_problems(spoils in spoils()) {
        let good = serde_json::to_value(reference()).expect("plain data");
        judge(&spoilt(&good, &spoils).to_string())?;
    }

    #[test]
    fn what_is_accepted_has_unique_names_and_a_plan(spec in specs()) {
        judge(&spec.to_string())?;
    }

    #[test]
    fn any_spoilt_spec_is_a_spec_or_a_list_of_problems(spec in specs(), spoils in spoils()) {
        judge(&spoilt(&spec, &spoils).to_string())?;
    }

    #[test]
    fn any_plan_is_a_graph_or_a_list_of_problems(plan in plans(), spoils in prop::option::of(spoils())) {
        let plan = match spoils {
            Some(spoils) => spoilt(&plan, &spoils),
            None => plan,
        };
        match PlanFile::parse(&plan.to_string()) {
            Err(problems) => have_places(&problems)?,
            Ok(file) => match file.expand(&reference()) {
                Ok(plan) => is_a_graph(&plan)?,
                Err(problems) => have_places(&problems)?,
            },
        }
    }
}

#[test]
fn some_generated_specs_and_plans_are_valid() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut valid = [0; 2];
    for _ in 0..200 {
        let spec = specs().new_tree(&mut runner).expect("a spec").current();
        valid[0] += usize::from(ClusterSpec::parse(&spec.to_string()).is_ok());
        let plan = plans().new_tree(&mut runner).expect("a plan").current();
        let plan = PlanFile::parse(&plan.to_string()).and_then(|file| file.expand(&reference()));
        valid[1] += usize::from(plan.is_ok());
    }
    assert!(
        valid[0] > 20 && valid[1] > 20,
        "the generators are too wild: {valid:?}"
    );
}

/// Each of these would be gigabytes or a full stack, were it believed.
#[test]
fn bombs_are_problems() {
    let mut laughs = String::from("a: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    let mut merges = String::from("a: &a0 {x0: 1}\n");
    for n in 1..30 {
        let of = vec![format!("*a{}", n - 1); 10].join(", ");
        laughs += &format!("a{n}: &a{n} [{of}]\n");
        merges += &format!("a{n}: &a{n} {{<<: [{of}], x{n}: 1}}\n");
    }
    let keys: String = (0..400_000).map(|n| format!("k{n}: 1\n")).collect();
    for (name, yaml) in [
        ("a billion laughs", laughs),
        ("merges of merges", merges),
        ("deep brackets", "[".repeat(100_000)),
        ("deep braces", "{a: ".repeat(100_000)),
        ("deep dashes", "- ".repeat(100_000)),
        ("deep questions", "? ".repeat(100_000)),
        (
            "deep indents",
            (0..3000)
                .map(|n| format!("{}a:\n", " ".repeat(n)))
                .collect(),
        ),
        ("many documents", "---\n".repeat(100_000)),
        ("many keys", keys),
        (
            "many anchors",
            (0..100_000).map(|n| format!("- &a{n} x\n")).collect(),
        ),
        ("a long word", "x".repeat(1_000_000)),
        ("a long key", format!("{}: 1", "x".repeat(1_000_000))),
        (
            "a long string",
            format!("version: \"{}\"", "x".repeat(1_000_000)),
        ),
    ] {
        let problems = ClusterSpec::parse(&yaml).expect_err(name);
        have_places(&problems).expect(name);
    }
}

#[test]
fn keys_that_stand_twice_are_problems() {
    let twice = |find: &str, replace: &str| {
        assert!(SPEC.contains(find), "{find}");
        ClusterSpec::parse(&SPEC.replacen(find, replace, 1)).expect_err(replace)
    };
    twice("version: 1", "version: 1\nversion: 1");
    twice("vcpus: 2", "vcpus: 2\n    vcpus: 2");
    twice("{ 1: true, 2: true, 3: true }", "{ 1: true, 1: false }");
    twice("{ 1: true, 2: true, 3: true }", "{ 1: true, \"1\": false }");
    twice("{ 1: true, 2: true, 3: true }", "{ 1: true, 01: false }");
    twice("{ 1: true, 2: true, 3: true }", "{ 1: true, 0x1: false }");
    twice("{ 1: true, 2: true, 3: true }", "{ 1: true, +1: false }");
}
