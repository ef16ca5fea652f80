//! The promise, tried on random schedules of the real document and the real pass.
//!
//! Replicas deliver, move, copy, expunge, flag, rename, delete and adopt, exchange some of what they have, crash, are
//! restored and made anew. Each has a strict caching client; one more client roams between all servers. P1 to P5 are
//! checked whenever a mailbox is shown; in the end all must agree and be quiet. The same schedules find a violation as
//! soon as one rule is taken out.

use super::pass::Rules;

/// A violated promise and where.
#[derive(Debug)]
struct Violation(String);

macro_rules! promise {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err(Violation(format!($($what)*)));
        }
    };
}

mod node;
mod world;

use self::world::World;

/// SplitMix64: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { Some(&from[self.below(from.len())]) }
    }
}

type Outcome = Result<(), Violation>;

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
