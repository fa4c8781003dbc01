use super::*;

fn plan(world: &World, wish: &Wish) -> RestorePlan {
    let stanza = world.stanza();
    let choice = stanza.choose(wish).expect("a choice");
    RestorePlan::new(&stanza, &choice, at("2026-11-23T01:40:00Z"))
}

#[test]
fn a_plan_reads_well() {
    let mut world = World::new();
    world.gone = vec![DIFF];
    insta::assert_snapshot!("plan", plan(&world, &Wish::default()).to_string());
    let mut plan = plan(&World::new(), &to("2026-11-23T01:36:00Z"));
    plan.sets.truncate(1);
    insta::assert_json_snapshot!("plan_json", plan);
}

#[test]
fn what_is_lost_depends_on_the_target() {
    let world = World::new();
    let lost = |wish: &Wish| plan(&world, wish).loss.rpo.as_secs();
    assert_eq!(lost(&Wish::default()), 115);
    assert_eq!(lost(&to("2026-11-23T01:36:00Z")), 240);
    let immediate = Wish {
        target: Target::Immediate,
        ..Wish::default()
    };
    assert_eq!(lost(&immediate), 288);
    let plan = plan(&world, &immediate);
    assert_eq!(plan.wal.segments, 2);
    assert_eq!(plan.wal.last.map(|last| last.segment), Some(segment(1, 7)));
}

#[test]
fn a_stale_set_shows_in_the_loss() {
    let stanza = World::new().stanza();
    let choice = stanza.choose(&Wish::default()).expect("a choice");
    let plan = RestorePlan::new(&stanza, &choice, at("2026-12-31T12:00:00Z"));
    assert!(
        plan.to_string().contains("Loss      about 38d 10h 22m"),
        "{plan}"
    );
}

#[test]
fn a_failure_before_the_last_segment_came_loses_nothing() {
    let stanza = World::new().stanza();
    let choice = stanza.choose(&Wish::default()).expect("a choice");
    let loss = Loss::of(&choice, at("2026-11-23T01:36:30Z"));
    assert!(loss.rpo.is_zero());
}

#[test]
fn a_plan_says_what_a_person_should_know() {
    let mut world = World::new();
    world.archive = archived((1..=8).chain(10..=10));
    let accepted = Wish {
        accept_gap: true,
        ..Wish::default()
    };
    let mut stanza = world.stanza();
    stanza.backups.from_copy = Some(Unusable::Missing);
    let choice = stanza.choose(&accepted).expect("a choice");
    let text = RestorePlan::new(&stanza, &choice, at("2026-11-23T01:40:00Z")).to_string();
    for part in [
        "backup.info could not be used (it is missing); its copy was read",
        "WAL ends at segment 000000010000000000000009, though there is more up to 00000001000000000000000A",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let mut copied = Archive::default();
    for number in 1..=10 {
        copied.add_segment(segment(1, number), at("2026-12-24T00:00:00Z"));
    }
    world.archive = copied;
    let text = plan(&world, &Wish::default()).to_string();
    assert!(text.contains("was the bucket copied?"), "{text}");
}
