use super::*;

const SUM: &str = "25bc00f47803c49802e8efc37d0228eeb2236e47";

#[test]
fn names_tell_what_a_file_is() {
    let second = segment(1, 2);
    let whole = format!("000000010000000000000002-{SUM}");
    let partial = format!("000000010000000000000002.partial-{SUM}.gz");
    for (name, is) in [
        (whole.as_str(), Name::Segment(second)),
        (&format!("{whole}.lz4"), Name::Segment(second)),
        (&format!("{whole}.zst"), Name::Segment(second)),
        (&partial, Name::Partial(second)),
        ("00000002.history", Name::History(2)),
        ("000000010000000000000002.00000028.backup", Name::Other),
        ("000000010000000000000002", Name::Other),
        ("000000010000000000000002-25bc", Name::Other),
        ("archive.info", Name::Other),
        ("", Name::Other),
        ("é.history", Name::Other),
    ] {
        assert_eq!(Name::of(name), is, "{name}");
    }
}

#[test]
fn recovery_goes_to_the_end_of_the_archive() {
    let reach = archived(1..=10)
        .reach(segment(1, 6), lsn("0/6000028"))
        .expect("a way");
    assert_eq!(reach.last.map(|last| last.segment), Some(segment(1, 10)));
    assert_eq!((reach.segments, reach.timeline, reach.stop), (5, 1, None));
}

#[test]
fn a_gap_ends_it_and_is_named() {
    let reach = archived((1..=7).chain(9..=10)).reach(segment(1, 6), lsn("0/6000028"));
    let reach = reach.expect("a way");
    assert_eq!(reach.last.map(|last| last.segment), Some(segment(1, 7)));
    let stop = reach.stop.expect("a gap");
    assert_eq!(stop.at.to_string(), "000000010000000000000008");
    assert_eq!((stop.newest.segment, stop.twice), (segment(1, 10), false));
    // What lies before the set is not needed.
    let reach = archived(6..=10)
        .reach(segment(1, 6), lsn("0/6000028"))
        .expect("a way");
    assert_eq!(reach.stop, None);
}

#[test]
fn a_segment_that_is_there_twice_is_out_of_reach() {
    let mut archive = archived(1..=10);
    archive.add_segment(segment(1, 8), arrival(8));
    let reach = archive
        .reach(segment(1, 6), lsn("0/6000028"))
        .expect("a way");
    let stop = reach.stop.expect("pgBackRest gives out neither");
    assert_eq!((stop.at, stop.twice), (segment(1, 8), true));
}

/// Timeline 2 leaves timeline 1 in the middle of segment 8; on 1 that one was never finished.
fn forked() -> Archive {
    let mut archive = archived(1..=7);
    archive.add_partial(segment(1, 8));
    for number in 8..=12 {
        archive.add_segment(segment(2, number), arrival(number));
    }
    archive.add_history(
        2,
        parse_history("1\t0/8000F40\tpromoted\n").expect("a history"),
    );
    archive
}

#[test]
fn recovery_follows_the_newest_timeline() {
    let reach = forked()
        .reach(segment(1, 6), lsn("0/6000028"))
        .expect("a way");
    assert_eq!(reach.last.map(|last| last.segment), Some(segment(2, 12)));
    assert_eq!((reach.timeline, reach.segments, reach.stop), (2, 7, None));
    assert_eq!(forked().partial(), [segment(1, 8)]);
    let newest: Vec<Segment> = forked().newest().iter().map(|last| last.segment).collect();
    assert_eq!(newest, [segment(1, 7), segment(2, 12)]);
}

#[test]
fn what_the_old_timeline_wrote_after_the_fork_is_not_followed() {
    let mut archive = forked();
    for number in 8..=20 {
        archive.add_segment(segment(1, number), arrival(number));
    }
    let reach = archive
        .reach(segment(1, 6), lsn("0/6000028"))
        .expect("a way");
    assert_eq!(reach.last.map(|last| last.segment), Some(segment(2, 12)));
    assert_eq!(reach.stop, None);
}

#[test]
fn a_hole_where_timelines_meet_is_a_gap() {
    let mut archive = archived(1..=7);
    archive.add_segment(segment(2, 9), arrival(9));
    archive.add_history(
        2,
        parse_history("1\t0/8000F40\tpromoted\n").expect("a history"),
    );
    let reach = archive
        .reach(segment(1, 6), lsn("0/6000028"))
        .expect("a way");
    assert_eq!(reach.stop.expect("a gap").at, segment(2, 8));
}

#[test]
fn a_set_that_the_newest_timeline_left_behind_has_no_way() {
    let after = forked()
        .reach(segment(1, 9), lsn("0/9000028"))
        .expect_err("no way");
    assert!(
        matches!(
            after,
            NoWay::ForkedBefore {
                newest: 2,
                own: 1,
                ..
            }
        ),
        "{after}"
    );
    let mut archive = forked();
    archive.add_history(
        3,
        parse_history("1\t0/7000000\tpromoted\n").expect("a history"),
    );
    let strange = archive
        .reach(segment(2, 9), lsn("0/9000028"))
        .expect_err("no way");
    assert_eq!(strange, NoWay::NotAnAncestor { newest: 3, own: 2 });
    // Number 4 is missing: PostgreSQL would not find 5, and pgBackRest looks there.
    let mut archive = forked();
    archive.add_history(5, parse_history("3\t0/7000000\tx\n").expect("a history"));
    let strange = archive
        .reach(segment(1, 6), lsn("0/6000028"))
        .expect_err("no way");
    assert_eq!(strange, NoWay::NotAnAncestor { newest: 5, own: 1 });
    let both = "1\t0/8000F40\tx\n2\t0/A000000\tx\n";
    archive.add_history(5, parse_history(both).expect("a history"));
    let reach = archive
        .reach(segment(1, 6), lsn("0/6000028"))
        .expect("a way");
    assert_eq!(reach.timeline, 2);
    // Without a newer timeline there is nothing to verify, and none is looked at with `immediate`.
    assert!(archive.reach(segment(5, 9), lsn("0/9000028")).is_ok());
    assert_eq!(archive.reach_alone(segment(1, 6)).timeline, 1);
}
