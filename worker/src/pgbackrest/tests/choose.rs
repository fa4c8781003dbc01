use super::*;

fn refused(world: &World, wish: &Wish, says: &[&str]) -> Refusal {
    let refusal = world.choose(wish).expect_err("it is to be refused");
    let text = refusal.to_string();
    for part in says {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    refusal
}

fn chosen(world: &World, wish: &Wish) -> String {
    let choice = world.choose(wish).expect("a choice");
    choice.set.label.to_string()
}

#[test]
fn the_latest_set_is_the_last_that_was_finished() {
    let world = World::new();
    assert_eq!(chosen(&world, &Wish::default()), INCR);
    assert_eq!(chosen(&world, &named(FULL)), FULL);
    assert!(world.stanza().sets.iter().all(Set::is_usable));
}

#[test]
fn a_moment_takes_the_newest_set_before_it() {
    let world = World::new();
    assert_eq!(chosen(&world, &to("2026-11-23T01:36:00Z")), INCR);
    assert_eq!(chosen(&world, &to("2026-11-23T01:35:10Z")), DIFF);
    // The set itself was finished at this second, and pgBackRest wants it before.
    assert_eq!(chosen(&world, &to("2026-11-23T01:35:12Z")), DIFF);
    assert_eq!(chosen(&world, &to("2026-11-23T01:35:12.9Z")), DIFF);
    assert_eq!(chosen(&world, &to("2026-11-23T01:35:13Z")), INCR);
    // The same moment, written in Moscow.
    assert_eq!(chosen(&world, &to("2026-11-23T04:35:10+03:00")), DIFF);
}

#[test]
fn a_moment_outside_of_what_there_is_is_refused() {
    let world = World::new();
    let early = refused(
        &world,
        &to("2026-11-23T01:35:07Z"),
        &[FULL, "2026-11-23T01:35:07Z", "later"],
    );
    assert!(matches!(early, Refusal::BeforeFirst { .. }));
    let late = refused(
        &world,
        &to("2026-11-23T01:38:06Z"),
        &["00000001000000000000000A", "earlier"],
    );
    assert!(matches!(late, Refusal::AfterArchive { .. }));
    assert_eq!(chosen(&world, &to("2026-11-23T01:38:05Z")), INCR);
}

#[test]
fn a_set_that_is_younger_than_the_moment_is_refused_and_an_older_one_named() {
    let wish = Wish {
        set: Some(INCR.into()),
        ..to("2026-11-23T01:35:10Z")
    };
    let refusal = refused(
        &World::new(),
        &wish,
        &[INCR, &format!("take {DIFF} instead")],
    );
    assert!(matches!(refusal, Refusal::SetAfterTarget { .. }));
}

#[test]
fn a_label_that_is_not_there_is_answered_with_those_like_it() {
    let wish = named("20261123-013502F_20261123-013511I");
    let refusal = refused(&World::new(), &wish, &["there is no set", INCR]);
    let Refusal::NoSuchSet { near, .. } = refusal else {
        panic!("{refusal}");
    };
    assert_eq!(near[0].as_str(), INCR);
    refused(
        &World::new(),
        &named("; reboot"),
        &["there is no set ; reboot"],
    );
}

#[test]
fn the_reference_pipelines_hard_coded_set_is_answered_when_it_has_expired() {
    let wish = Wish {
        target: Target::Immediate,
        ..named("20251226-133733F_20251226-140728I")
    };
    refused(
        &World::new(),
        &wish,
        &["there is no set 20251226-133733F", "there is"],
    );
}

#[test]
fn an_empty_stanza_is_refused() {
    let sets = BACKUP_INFO.find("20261123-013502F={").expect("the sets");
    let rest = BACKUP_INFO.find("\n[db]").expect("what follows");
    let mut world = World::new();
    world.backup_info = resealed(&format!("{}{}", &BACKUP_INFO[..sets], &BACKUP_INFO[rest..]));
    for wish in [Wish::default(), named(FULL), to("2026-11-23T01:36:00Z")] {
        assert_eq!(world.choose(&wish), Err(Refusal::Empty));
    }
}

#[test]
fn a_set_with_damaged_pages_is_not_taken() {
    let find = "\"backup-error\":false,\"backup-info-repo-size\":4532545";
    let world = World::with(find, &find.replace("false", "true"));
    assert_eq!(chosen(&world, &Wish::default()), DIFF);
    refused(
        &world,
        &named(INCR),
        &["damaged pages", &format!("take {DIFF} instead")],
    );
    // Old versions do not say, and `null` is not `true`.
    for replace in ["null", "false"] {
        let world = World::with(find, &find.replace("false", replace));
        assert_eq!(chosen(&world, &Wish::default()), INCR);
    }
}

#[test]
fn a_set_without_a_manifest_takes_those_with_it_that_need_it() {
    let mut world = World::new();
    world.gone = vec![DIFF];
    assert_eq!(chosen(&world, &Wish::default()), FULL);
    let needs = format!("it needs the set {DIFF}, which is gone");
    refused(
        &world,
        &named(INCR),
        &[&needs, &format!("take {FULL} instead")],
    );
    refused(&world, &named(DIFF), &["its backup.manifest is missing"]);
    world.gone = vec![FULL, DIFF, INCR];
    let none = refused(
        &world,
        &Wish::default(),
        &["none of the 3 sets", FULL, DIFF, INCR],
    );
    assert!(matches!(none, Refusal::NoneUsable { .. }));
    refused(&world, &named(FULL), &["there is no other set"]);
}

#[test]
fn a_set_whose_reference_is_not_listed_is_not_taken() {
    let line = BACKUP_INFO
        .lines()
        .find(|line| line.starts_with(DIFF))
        .expect("a set");
    let world = World::with(&format!("{line}\n"), "");
    assert_eq!(chosen(&world, &Wish::default()), FULL);
    refused(&world, &named(INCR), &[&format!("it needs the set {DIFF}")]);
}

#[test]
fn a_set_that_does_not_say_which_wal_it_needs_is_not_taken() {
    let start = "\"backup-archive-start\":\"000000010000000000000006\"";
    for replace in [
        "\"backup-archive-start\":null",
        "\"backup-archive-start\":\"6\"",
        "\"backup-archive-start\":\"000000010000000000000009\"",
        "\"x\":null",
    ] {
        let world = World::with(start, replace);
        assert_eq!(chosen(&world, &Wish::default()), DIFF, "{replace}");
        refused(&world, &named(INCR), &["which WAL it needs"]);
    }
}

#[test]
fn a_set_whose_own_wal_is_missing_is_not_taken() {
    let mut world = World::new();
    world.archive = archived((1..=6).chain(8..=10));
    let why = "WAL segment 000000010000000000000007, which it needs, is missing";
    refused(&world, &named(INCR), &[why]);
    // Nothing leads over the gap from an older set either, and that is said.
    let gap = refused(
        &world,
        &Wish::default(),
        &["000000010000000000000007 is missing"],
    );
    assert!(matches!(gap, Refusal::Gap { .. }), "{gap}");
    // A set that carries its WAL needs none of the archive.
    let find = "\"db-id\":1,\"option-archive-check\":true,\"option-archive-copy\":false";
    world.backup_info =
        resealed(&BACKUP_INFO.replace(find, &find.replace("copy\":false", "copy\":true")));
    assert!(world.stanza().sets.iter().all(Set::is_usable));
}

#[test]
fn a_gap_after_the_set_is_refused_unless_its_loss_is_accepted() {
    let mut world = World::new();
    world.archive = archived((1..=8).chain(10..=10));
    let says = [
        "000000010000000000000009 is missing",
        "2026-11-23T01:36:05Z",
        "2026-11-23T01:38:05Z",
    ];
    refused(&world, &Wish::default(), &says);
    refused(&world, &to("2026-11-23T01:37:30Z"), &says);
    assert_eq!(chosen(&world, &to("2026-11-23T01:36:05Z")), INCR);
    let accepted = Wish {
        accept_gap: true,
        ..Wish::default()
    };
    let choice = world.choose(&accepted).expect("accepted");
    assert_eq!(choice.recovers_to(), at("2026-11-23T01:36:05Z"));
    let immediate = Wish {
        target: Target::Immediate,
        ..Wish::default()
    };
    assert_eq!(chosen(&world, &immediate), INCR);
    world.archive.add_segment(segment(1, 9), arrival(9));
    world.archive.add_segment(segment(1, 9), arrival(9));
    refused(&world, &Wish::default(), &["archived twice"]);
}

#[test]
fn a_set_of_another_database_is_refused() {
    let world = World::two_systems(Some(SYSTEM));
    assert_eq!(chosen(&world, &Wish::default()), INCR);
    let other = "20261123-013553F";
    let refusal = refused(
        &world,
        &named(other),
        &[&OTHER_SYSTEM.to_string(), &format!("take {INCR}")],
    );
    assert!(matches!(refusal, Refusal::OtherSystem { .. }));
    // The young database has two segments of its own, which the other's archive does not have.
    let mut world = World::two_systems(Some(OTHER_SYSTEM));
    world.archive = archived(1..=2);
    assert_eq!(chosen(&world, &Wish::default()), other);
    refused(
        &world,
        &named(INCR),
        &[&SYSTEM.to_string(), &format!("take {other}")],
    );
    // A number that backup.info does not know is nobody's.
    let find = "\"backup-type\":\"incr\",\"db-id\":1";
    let world = World::with(find, "\"backup-type\":\"incr\",\"db-id\":9");
    assert_eq!(chosen(&world, &Wish::default()), DIFF);
    refused(&world, &named(INCR), &["system id unknown"]);
}

#[test]
fn several_databases_need_a_choice() {
    let info = BackupInfo::parse(TWO_BACKUP_INFO.as_bytes()).expect("backup.info");
    let refusal = wanted_by(&info, None).expect_err("two databases");
    let text = refusal.to_string();
    for part in [
        "7711174403467544656 (PostgreSQL 15, 3 sets, the newest of 2026-11-23T01:35:12Z)",
        "7711174623377886675 (PostgreSQL 15, 1 sets",
        "say which one",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let unknown = wanted_by(&info, Some(1)).expect_err("nobody's").to_string();
    assert!(unknown.contains("nothing of system id 1,"), "{unknown}");
    let one = BackupInfo::parse(BACKUP_INFO.as_bytes()).expect("backup.info");
    assert!(wanted_by(&one, None).is_ok());
    assert!(wanted_by(&one, Some(OTHER_SYSTEM)).is_err());
}

#[test]
fn a_set_that_was_left_behind_by_a_promotion_is_refused_and_another_named() {
    let mut world = World::new();
    // Somebody promoted a copy between the second and the third set.
    world
        .archive
        .add_history(2, parse_history("1\t0/6000000\tx\n").expect("a history"));
    for number in 6..=9 {
        world
            .archive
            .add_segment(segment(2, number), arrival(number));
    }
    let says = [
        "timeline 2 left timeline 1 at 0/6000000",
        &format!("take {DIFF} instead"),
    ];
    refused(&world, &Wish::default(), &says);
    let choice = world.choose(&named(DIFF)).expect("an ancestor");
    assert_eq!(choice.reach.timeline, 2);
    let immediate = Wish {
        target: Target::Immediate,
        ..Wish::default()
    };
    assert_eq!(chosen(&world, &immediate), INCR);
}
