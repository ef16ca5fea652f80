//! The promise, tried on random schedules of the real document and the real pass.
//!
//! Replicas deliver, move, copy, expunge, flag, rename, delete and adopt, exchange some of what they have, crash, are
//! restored and made anew. Each has a strict caching client; one more client roams between all servers. P1 to P5 are
//! checked whenever a mailbox is shown; in the end all must agree and be quiet. The same schedules find a violation as
//! soon as one rule is taken out.

use super::pass::Rules;

mod node;
mod world;

use self::world::World;
use crate::trial::{Outcome, Random, Violation};

fn run(seed: u64, rules: Rules) -> Outcome {
    let mut world = World::new(seed, rules);
    for _ in 0..60 {
        world.step()?;
    }
    world.heal()
}

/// Seeds that once failed: a floor that did not burn itself (19), UIDVALIDITYs after a restore (88, 281), lanes given away
/// too early (550), a claim that came with its expunge (3455).
const KEPT: [u64; 5] = [19, 88, 281, 550, 3455];

#[expect(clippy::disallowed_methods, reason = "a longer run is asked for by hand")]
fn schedules() -> u64 {
    std::env::var("POSTMERGE_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

#[test]
fn the_promise_holds_on_random_schedules() {
    for seed in KEPT.into_iter().chain(0..schedules()) {
        if let Err(Violation(what)) = run(seed, Rules::ALL) {
            panic!("seed {seed}: {what}");
        }
    }
}

/// The first violation that some seed finds without a rule.
fn caught(rules: Rules, promise: &str) -> bool {
    (0..4000).any(|seed| run(seed, rules).is_err_and(|Violation(what)| what.starts_with(promise)))
}

#[test]
fn without_rule_3b_a_uid_appears_below_uidnext() {
    assert!(caught(Rules { spanned: false, ..Rules::ALL }, "P2"));
}

#[test]
fn without_rule_3c_a_vanished_uid_comes_back() {
    assert!(caught(Rules { recorded: false, ..Rules::ALL }, "P2"));
}

#[test]
fn without_lanes_a_roaming_client_sees_two_messages_under_one_uid() {
    assert!(caught(Rules { lanes: false, ..Rules::ALL }, "P4"));
}

#[test]
fn without_lanes_and_rule_3a_one_uid_is_two_messages() {
    assert!(caught(Rules { lanes: false, contested: false, ..Rules::ALL }, "P"));
}
