//! Hundreds of recoveries in virtual time, each from a seed. A run that breaks a law prints what
//! happened last and its seed.
//!
//! `REKINDLE_SEED=<seed>` plays that one alone; `REKINDLE_SEEDS=<n>` plays so many instead of the
//! usual ones, for a long soak, from a beginning that the clock decides.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use simulation::{Ended, Flaw, Options, run};

/// Seeds of a usual run: a minute of two idle cores, most of it spent in the S3 client.
const USUAL: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect(variable))
}

/// Plays all seeds, a thread per core; gives the first that broke a law.
fn play(seeds: &[u64], options: Options) -> Option<Ended> {
    let next = AtomicU64::new(0);
    let broken = Mutex::new(None);
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while broken.lock().unwrap().is_none() {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(seed) = usize::try_from(at).ok().and_then(|at| seeds.get(at)) else {
                        return;
                    };
                    let ended = run(*seed, options);
                    if ended.broken.is_some() {
                        broken.lock().unwrap().get_or_insert(ended);
                    }
                }
            });
        }
    });
    broken.into_inner().unwrap()
}

/// The seeds of this run.
fn seeds() -> Vec<u64> {
    match (number("REKINDLE_SEED"), number("REKINDLE_SEEDS")) {
        (Some(seed), None) => vec![seed],
        (Some(first), Some(count)) => (first..first + count).collect(),
        (None, Some(count)) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let first = now.as_secs() << 20;
            (first..first + count).collect()
        }
        (None, None) => (1..=USUAL).collect(),
    }
}

#[test]
fn heavy_whatever_goes_wrong_every_recovery_comes_to_its_end_and_no_law_is_broken() {
    let clean_up = true;
    let options = Options {
        clean_up,
        ..Options::default()
    };
    if let Some(ended) = play(&seeds(), options) {
        panic!("{ended}\nREKINDLE_SEED={} plays it again", ended.seed);
    }
}

#[test]
fn heavy_whatever_the_operator_says_nothing_begins_against_it_and_it_ends() {
    let (words, clean_up) = (true, true);
    let options = Options {
        words,
        clean_up,
        ..Options::default()
    };
    if let Some(ended) = play(&seeds(), options) {
        panic!("{ended}\nREKINDLE_SEED={} plays it again", ended.seed);
    }
}

/// Seeds that once broke a law, by what was wrong then.
type Kept = [(&'static str, &'static [u64])];

const KEPT: &Kept = &[
    (
        "begun before its pause was over, by a duplicate or by an operator's word that came again",
        &[2, 15, 22, 31, 35, 37, 54, 64, 85, 86],
    ),
    ("the end on record, the cluster never freed", &[33]),
    (
        "a job that ran in spite of a failure called itself for ever",
        &[153],
    ),
    ("a claim whose answer was lost, held by nobody", &[910]),
    (
        "copies of a message that waited for a last chance, and of the watch's calls for one",
        &[3706, 1_882_606_759_057_865],
    ),
    (
        "faults of the simulation and of its operator",
        &[83, 1870, 1899, 2050, 1_882_607_323_191_792],
    ),
];

/// The same, where the operator paused or cancelled.
const KEPT_WITH_WORDS: &Kept = &[
    ("cancelled without fencing off its last owner", &[108]),
    (
        "waited once more for a job that was put back, and was never called again",
        &[512],
    ),
    (
        "put back while its failure was marked: the mark was for the new try",
        &[1360],
    ),
];

fn play_kept(kept: &Kept, options: Options) {
    for (what, seeds) in kept {
        if let Some(ended) = play(seeds, options) {
            panic!("once: {what}\n{ended}");
        }
    }
}

#[test]
fn seeds_that_once_failed() {
    play_kept(KEPT, Options::default());
}

#[test]
fn seeds_that_once_failed_when_the_operator_spoke() {
    let words = true;
    let options = Options {
        words,
        ..Options::default()
    };
    play_kept(KEPT_WITH_WORDS, options);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [2, 4, 23, 38] {
        let [first, second] = [(); 2].map(|()| run(seed, Options::default()));
        assert_eq!(first.events, second.events, "seed {seed}");
        assert_eq!(first.digest, second.digest, "seed {seed}");
    }
}

#[test]
fn a_bucket_that_lets_two_creators_win_is_noticed() {
    let flaw = Some(Flaw::AllWin);
    let seeds: Vec<u64> = (1..=50).collect();
    let ended = play(
        &seeds,
        Options {
            flaw,
            ..Options::default()
        },
    )
    .expect("the laws notice");
    let law = ended.broken.unwrap();
    assert!(law.contains("overwrote"), "{law}");
}
