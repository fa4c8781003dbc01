//! Whatever a project looks like and whatever goes wrong: no protected and no foreign volume is
//! touched, no two nodes share a volume, and no data is lost.
//!
//! `REKINDLE_FUZZ_CASES` says how many worlds, `REKINDLE_SEED` which one is the first.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use e2e::volumes::scene::{Past, Sequel};
use e2e::volumes::{Scene, Tally, play};
use futures::StreamExt;

/// Worlds that play at the same time: most of what they do is to wait.
const TOGETHER: usize = 3;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => default,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_no_volume_is_harmed_in_any_world() {
    let (first, cases) = (
        setting("REKINDLE_SEED", 1),
        setting("REKINDLE_FUZZ_CASES", 12),
    );
    let worlds = (first..first + cases).map(|seed| async move {
        let scene = Scene::of(seed);
        let began = std::time::Instant::now();
        let result = play(&scene).await;
        eprintln!("REKINDLE_SEED={seed}: {result:?} in {:?}", began.elapsed());
        result.map_err(|error| {
            format!("REKINDLE_SEED={seed} REKINDLE_FUZZ_CASES=1: {error:#}\n{scene:#?}")
        })
    });
    let results: Vec<Result<Tally, String>> = futures::stream::iter(worlds)
        .buffer_unordered(TOGETHER)
        .collect()
        .await;
    let mut all = Tally::default();
    let mut failed = Vec::new();
    for result in results {
        match result {
            Ok(tally) => all += tally,
            Err(text) => failed.push(text),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    eprintln!("{cases} worlds: {all:?}");
    if cases >= 10 {
        let Tally {
            volumes_made,
            attached,
            formatted,
            adopted,
            jobs_done,
            asked_for_approval,
            ..
        } = all;
        let seen = [
            volumes_made,
            attached,
            formatted,
            adopted,
            jobs_done,
            asked_for_approval,
        ];
        assert!(seen.iter().all(|n| *n > 0), "nothing was tried: {all:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_whose_names_meet_share_nothing() -> anyhow::Result<()> {
    // Every node of one is called like one of the other, before and after a disaster.
    let names = [("test", "a-cache"), ("test-a", "cache")];
    let scene = Scene::plain(names, [&[Past::New]; 2], Sequel::Disaster);
    let tally = play(&scene).await?;
    assert_eq!((tally.volumes_made, tally.formatted), (1, 1), "{tally:?}");
    assert_eq!(tally.asked_for_approval, 1, "the one that came later");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_disk_that_bears_the_name_of_a_data_volume_is_left_alone() -> anyhow::Result<()> {
    let names = [("test", "cache"), ("shop", "cache")];
    let scene = Scene::plain(names, [&[Past::BootDisk], &[Past::New]], Sequel::End);
    let tally = play(&scene).await?;
    assert_eq!(
        (tally.attached, tally.asked_for_approval),
        (1, 1),
        "{tally:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_format_step_repeated_by_hand_does_not_format_again() -> anyhow::Result<()> {
    let names = [("test", "cache"), ("shop", "cache")];
    // The second node keeps its recovery from ending: what has ended is not repeated.
    let pasts = [&[Past::New, Past::Twice], &[Past::MadeBlank, Past::Twice]];
    let scene = Scene::plain(names, pasts.map(|p| p as &[_]), Sequel::RetryFromFormat);
    let tally = play(&scene).await?;
    assert_eq!(
        (tally.formatted, tally.asked_for_approval),
        (2, 4),
        "{tally:?}"
    );
    Ok(())
}
