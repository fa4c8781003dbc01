//! Thousands of recoveries in virtual time, each from a seed. A run that breaks a law is named with
//! its seed: `REKINDLE_SEED=<seed>` plays that one alone and prints what happened last;
//! `REKINDLE_SEEDS=<n>` plays so many, for a long soak.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "a test that cannot go on has failed")]

use simulation::{Options, run};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

#[test]
fn one() {
    let seed = number("REKINDLE_SEED").unwrap_or(1);
    let began = std::time::Instant::now();
    let n = number("REKINDLE_SEEDS").unwrap_or(1);
    for seed in seed..seed + n {
        let ended = run(seed, Options::default());
        if ended.broken.is_some() || n == 1 {
            println!("{ended}");
        }
        println!(
            "{seed} {} {} {:?} {:?}",
            ended.events,
            ended.versions,
            ended.time,
            began.elapsed()
        );
    }
}
