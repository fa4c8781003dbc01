#![expect(clippy::unwrap_used, reason = "tests")]
use jobs::spec::Driver;

use super::super::bundle::tests::k6;
use super::*;
use crate::jobs::load_test::yandex;

/// A test as the complete example has it.
pub(in crate::jobs::load_test::k6) fn test() -> Test {
    let section = json!({"target": "https://dsf.${DOMAIN}/", "driver": "kubeconfig", "virtual_users": 1000,
        "iterations": 5, "parallelism": 2, "max_duration": "30m",
        "thresholds": {"p95_ms": 2000, "error_rate": 0.01, "checks": 0.99}, "k6": k6()});
    let section: jobs::spec::LoadTest = serde_json::from_value(section).unwrap();
    Test {
        run: "load-r-1-0".into(),
        driver: Driver::Kubeconfig,
        target: section.target.clone(),
        virtual_users: section.virtual_users,
        iterations: section.iterations,
        parallelism: section.parallelism,
        max_duration: section.max_duration.unsigned_abs(),
        script: None,
        section,
    }
}

fn marks() -> Marks {
    Marks::new("test", "r-1")
}

fn yandex() -> Place {
    Place::Yandex(yandex::Cluster { id: "cat".into() })
}

#[test]
fn a_test_run_on_our_own_cluster() {
    let run = test_run(&test(), &k6(), &yandex(), &marks()).unwrap();
    assert_eq!(run.to_string(), "TestRun load-r-1-0/load-r-1-0");
    insta::assert_json_snapshot!(run.body);
}

#[test]
fn a_test_run_on_a_given_cluster() {
    let mut k6 = k6();
    k6.node_selector = [("pool".to_owned(), "load".to_owned())].into();
    k6.tolerations = vec!["dedicated=load:NoSchedule".into(), "spot:NoExecute".into()];
    k6.memory = "512Mi".into();
    k6.starter = Some("harbor.example.org/k6/starter:1".parse().unwrap());
    let run = test_run(&test(), &k6, &Place::Given, &marks()).unwrap();
    insta::assert_json_snapshot!(run.body["spec"]);
    let mut one = test();
    one.parallelism = std::num::NonZeroU32::MIN;
    let run = test_run(&one, &k6, &yandex(), &marks()).unwrap();
    assert_eq!(
        run.body["spec"]["separate"], false,
        "one runner is apart anyway"
    );
}

#[test]
fn nothing_but_the_secret_has_the_domain() {
    let test = test();
    let target = Secret::new("https://dsf.example.org/");
    let secret = secret(&test, &target).unwrap();
    assert_eq!(
        secret.body["stringData"]["TARGET"],
        "https://dsf.example.org/"
    );
    for object in [
        namespace(&test, &marks()).unwrap(),
        config_map(&test, SCRIPT).unwrap(),
        test_run(&test, &k6(), &Place::Given, &marks()).unwrap(),
    ] {
        assert!(!object.body.to_string().contains("example.org"), "{object}");
    }
}

#[test]
fn a_toleration_is_a_taint_and_its_effect() {
    assert_eq!(
        toleration("dedicated=k6:NoSchedule").unwrap(),
        json!({"key": "dedicated", "operator": "Equal", "value": "k6", "effect": "NoSchedule"})
    );
    assert_eq!(
        toleration("spot:NoExecute").unwrap(),
        json!({"key": "spot", "operator": "Exists", "effect": "NoExecute"})
    );
    for bad in ["", "spot", "spot=a", ":NoSchedule", "a=b:Never"] {
        let error = toleration(bad).unwrap_err().to_string();
        assert!(error.contains("load_test.k6.tolerations"), "{bad}: {error}");
    }
}

#[test]
fn marks_count_only_by_our_own_hand() {
    let mut seen = namespace(&test(), &marks()).unwrap().body;
    assert!(!marks().are_on(&seen, TEST), "anybody can write a label");
    seen["metadata"]["managedFields"] = json!([{"manager": "kubectl"}, {"manager": "rekindle"}]);
    assert!(marks().are_on(&seen, TEST));
    assert!(!marks().are_on(&seen, OPERATOR));
    assert!(!Marks::new("test", "r-2").are_on(&seen, TEST));
    assert!(!Marks::new("other", "r-1").are_on(&seen, TEST));
    assert_eq!(
        marks().selector(TEST),
        "rekindle=test,rekindle-recovery=r-1,rekindle-part=test"
    );
}

#[test]
fn our_script_reads_what_it_is_told_and_prints_what_we_read() {
    let names = settings(&test()).map(|(name, _)| name);
    let names = names.into_iter().filter(|name| !name.starts_with("K6_"));
    for name in names.chain([TARGET]) {
        assert!(SCRIPT.contains(&format!("(\"{name}\")")), "{name}");
    }
    for marker in [crate::load::k6::BEGIN, crate::load::k6::END] {
        assert!(SCRIPT.contains(&format!("\"{marker}\"")), "{marker}");
    }
    let imports = SCRIPT.lines().filter(|line| line.starts_with("import "));
    for line in imports {
        assert!(
            line.contains("from \"k6"),
            "{line}: it comes from the internet"
        );
    }
    assert!(SCRIPT.len() < LARGEST);
}
