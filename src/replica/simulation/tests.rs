//! How many schedules are tried, and what must be found.

use super::*;

/// Seeds that once failed.
const KEPT: [u64; 0] = [];

#[expect(clippy::disallowed_methods, reason = "a longer run is asked for by hand")]
fn asked_for(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[test]
fn nothing_promised_is_broken_by_any_schedule() {
    for seed in KEPT.into_iter().chain(0..100) {
        if let Err(Violation(what)) = run(seed) {
            panic!("seed {seed}: {what}");
        }
    }
}

#[test]
fn a_seed_always_gives_the_same_schedule() {
    assert_eq!(run(1).unwrap(), run(1).unwrap());
    assert_ne!(run(1).unwrap().end, run(2).unwrap().end);
}

/// `POSTMERGE_SEEDS=0..1000 cargo test --release --lib simulation::tests::long -- --ignored --nocapture`
#[test]
#[ignore = "runs for as long as it is told"]
fn long() {
    let range = asked_for("POSTMERGE_SEEDS").expect("POSTMERGE_SEEDS=0..1000");
    let (from, to) = range.split_once("..").expect("a range");
    let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
    let (mut all, mut failed) = (Report::default(), Vec::new());
    for seed in from..to {
        match run(seed) {
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
