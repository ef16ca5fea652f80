//! How many schedules are tried, and what must be found.

use super::*;
use crate::mutation::{Mutation, plant};

/// Seeds that once failed.
const KEPT: [u64; 7] = [5, 207, 219, 258, 310, 719, 2663];

/// Schedules of a test run; a debug build takes some 0.2 s for each.
const SCHEDULES: u64 = 120;

/// Defects, and the first seed that notices each. `docs/testing.md` says what is noticed.
const CAUGHT: [(Mutation, u64); 8] = [
    (Mutation::Contested, 0),
    (Mutation::Spanned, 0),
    (Mutation::Recorded, 83),
    (Mutation::Lanes, 0),
    (Mutation::LateClaim, 1),
    (Mutation::LaneTooEarly, 37),
    (Mutation::UidNext, 0),
    (Mutation::StaleUids, 215),
];

#[expect(clippy::disallowed_methods, reason = "a longer run is asked for by hand")]
pub(super) fn asked_for(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[test]
fn nothing_promised_is_broken_by_any_schedule() {
    for seed in KEPT.into_iter().chain(0..SCHEDULES) {
        if let Err(Violation(what)) = run(seed, None) {
            panic!("seed {seed}: {what}");
        }
    }
}

/// Exchanges of each with its neighbours, in a random topology.
#[test]
fn ten_replicas_with_churn_are_equal_after_three_exchanges_each() {
    for seed in 0..8 {
        let report = run(seed, Some(10)).unwrap();
        assert!(report.rounds <= 3, "seed {seed}: {} exchanges", report.rounds);
    }
}

#[test]
fn a_seed_always_gives_the_same_schedule() {
    assert_eq!(run(1, None).unwrap(), run(1, None).unwrap());
    assert_ne!(run(1, None).unwrap().end, run(2, None).unwrap().end);
}

fn run_with(mutation: Mutation, seed: u64) -> Result<Report, Violation> {
    plant(Some(mutation));
    let ended = run(seed, None);
    plant(None);
    ended
}

#[test]
fn planted_defects_are_noticed() {
    for (mutation, seed) in CAUGHT {
        assert!(run_with(mutation, seed).is_err(), "seed {seed} does not notice {mutation:?}");
        run(seed, None).unwrap();
    }
}

/// `POSTMERGE_SEEDS=0..1000 cargo test --release --lib simulation::tests::seeds_of_mutations -- --ignored --nocapture`
#[test]
#[ignore = "looks for seeds that notice planted defects"]
fn seeds_of_mutations() {
    let (from, to) = range();
    for mutation in Mutation::ALL {
        let mut caught = (from..to).filter_map(|seed| Some((seed, run_with(mutation, seed).err()?)));
        match caught.next() {
            Some((seed, Violation(what))) => {
                println!("{mutation:?} {seed}: {}", what.chars().take(150).collect::<String>())
            }
            None => println!("{mutation:?} is not noticed"),
        }
    }
}

fn range() -> (u64, u64) {
    let range = asked_for("POSTMERGE_SEEDS").expect("POSTMERGE_SEEDS=0..1000");
    let (from, to) = range.split_once("..").expect("a range");
    (from.parse().unwrap(), to.parse().unwrap())
}

/// `POSTMERGE_SEEDS=0..1000 cargo test --release --lib simulation::tests::long -- --ignored --nocapture`
#[test]
#[ignore = "runs for as long as it is told"]
fn long() {
    let (from, to) = range();
    let (mut all, mut failed) = (Report::default(), Vec::new());
    let replicas = asked_for("POSTMERGE_REPLICAS").and_then(|n| n.parse().ok());
    for seed in from..to {
        match run(seed, replicas) {
            Ok(report) => {
                all.steps += report.steps;
                all.time += report.time;
                all.rounds = all.rounds.max(report.rounds);
            }
            Err(Violation(what)) => {
                println!("seed {seed}: {what}");
                failed.push(seed);
            }
        }
        if (seed + 1 - from).is_multiple_of(1000) || seed + 1 == to {
            let years = all.time as f64 / 1000.0 / 86_400.0 / 365.25;
            println!(
                "{from}..{}: {} steps, {years:.2} simulated years, at most {} rounds, {} violations",
                seed + 1,
                all.steps,
                all.rounds,
                failed.len()
            );
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?}");
}
