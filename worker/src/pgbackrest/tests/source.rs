use super::*;

fn source() -> Source {
    Source {
        location: Location {
            bucket: "pgbak".into(),
            endpoint: "storage.clo.ru".into(),
            region: "us-east-1".into(),
            path: "/pgbackrest/repo1".into(),
        },
        stanza: "db".into(),
        repo: "repo1".into(),
        secret: "clo-s3-secret".into(),
        path_style: true,
        tolerations: vec![Toleration {
            key: Some("postgresqltaint".into()),
            operator: Some("Equal".into()),
            value: Some("yestaint".into()),
            effect: Some("NoSchedule".into()),
            toleration_seconds: None,
        }],
    }
}

fn new() -> Location {
    let recovery = "r-20261123".parse().expect("an id");
    Location {
        path: generation_path(&"small".parse().expect("a name"), &recovery),
        ..source().location
    }
}

fn restoring(wish: &Wish) -> Values {
    let choice = World::new().choose(wish).expect("a choice");
    Values::restoring(&source(), &choice.set.label, choice.target, &new()).expect("values")
}

fn options(wish: &Wish) -> serde_json::Value {
    let values = serde_json::to_value(restoring(wish)).expect("plain data");
    values["dataSource"]["pgbackrest"]["options"].clone()
}

#[test]
fn the_switch_of_a_restore_names_one_source_and_another_place_for_new_backups() {
    insta::assert_json_snapshot!("restoring", restoring(&Wish::default()));
    let yaml = serde_saphyr::to_string(&restoring(&to("2026-11-23T01:36:00.25Z"))).expect("YAML");
    insta::assert_snapshot!("restoring_yaml", yaml);
}

#[test]
fn after_it_only_the_new_place_is_left() {
    let values = Values::running(&source(), &new()).expect("values");
    insta::assert_json_snapshot!("running", values);
}

#[test]
fn the_options_are_what_the_operators_shell_wants() {
    let set = format!("--set={INCR}");
    assert_eq!(options(&Wish::default()), serde_json::json!([set]));
    let time = options(&to("2026-11-23T04:36:00+03:00"));
    let target = "--target=\"2026-11-23 01:36:00+00\"";
    assert_eq!(time, serde_json::json!([set, "--type=time", target]));
    let immediate = Wish {
        target: Target::Immediate,
        ..Wish::default()
    };
    assert_eq!(
        options(&immediate),
        serde_json::json!([set, "--type=immediate"])
    );
}

/// The chart writes each option into a list without quotes: `- {{ $option }}`.
#[test]
fn the_options_survive_the_chart() {
    let immediate = Wish {
        target: Target::Immediate,
        ..Wish::default()
    };
    for wish in [Wish::default(), immediate, to("2026-11-23T01:36:00.25Z")] {
        let options = options(&wish);
        let lines = options.as_array().expect("a list").iter();
        let rendered: String = lines
            .map(|o| format!("- {}\n", o.as_str().expect("text")))
            .collect();
        let read: serde_json::Value = serde_saphyr::from_str(&rendered).expect("YAML");
        assert_eq!(read, options, "{rendered}");
    }
}

#[test]
fn the_source_is_never_written() {
    let choice = World::new().choose(&Wish::default()).expect("a choice");
    for path in ["/pgbackrest/repo1", "/pgbackrest", "/pgbackrest/repo1/new"] {
        let same = Location {
            path: path.into(),
            // Two endpoints may lead to one bucket.
            endpoint: "s3.clo.ru".into(),
            ..new()
        };
        let error =
            Values::restoring(&source(), &choice.set.label, choice.target, &same).expect_err(path);
        assert!(
            matches!(error, SourceError::SameRepository { .. }),
            "{error}"
        );
        assert!(Values::running(&source(), &same).is_err(), "{path}");
    }
    let elsewhere = Location {
        bucket: "other".into(),
        path: "/pgbackrest/repo1".into(),
        ..new()
    };
    assert!(Values::restoring(&source(), &choice.set.label, choice.target, &elsewhere).is_ok());
    let beside = Location {
        path: "/pgbackrest/repo10".into(),
        ..new()
    };
    assert!(Values::restoring(&source(), &choice.set.label, choice.target, &beside).is_ok());
}

#[test]
fn settings_that_the_operator_would_choke_on_are_refused() {
    let choice = World::new().choose(&Wish::default()).expect("a choice");
    let refused = |change: fn(&mut Source)| {
        let mut source = source();
        change(&mut source);
        Values::restoring(&source, &choice.set.label, choice.target, &new())
            .expect_err("refused")
            .to_string()
    };
    for (error, says) in [
        (refused(|s| s.repo = "repo5".into()), "repo1 to repo4"),
        (
            refused(|s| s.location.endpoint = "https://x".into()),
            "host name",
        ),
        (refused(|s| s.location.path = "pgbackrest".into()), "a path"),
        (
            refused(|s| s.location.path = "/a/../pgbackrest".into()),
            "a path",
        ),
        (refused(|s| s.location.path = "/a b".into()), "a path"),
        (refused(|s| s.location.path = "/a/".into()), "a path"),
    ] {
        assert!(error.contains(says), "{error}");
    }
}
