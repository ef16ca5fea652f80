//! How failed logins slow a connection down and end it.

use std::time::{Duration, Instant};

/// Failures after which a connection ends: somebody who mistypes has tried each password they know.
pub const MAX_FAILURES: u32 = 5;

/// Longest wait before a failure is answered: clients give up on an answer after 30 s or more.
pub const MAX_DELAY: Duration = Duration::from_secs(8);

/// The failed logins of one connection. Guessing over many connections is for the listener to slow down.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    failures: u32,
    /// Failures of the same address on other connections.
    elsewhere: u32,
    held_until: Option<Instant>,
}

/// What a failed login costs the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Penalty {
    /// When to answer it, and not to read another command before.
    pub answer_at: Instant,
    /// Whether the answer is followed by BYE and the end of the connection.
    pub bye: bool,
}

impl Attempts {
    /// Starts without failures.
    pub fn new() -> Attempts {
        Attempts::default()
    }

    /// How many logins failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Takes failures of the same address on other connections into account: the next wait is as long as if they had
    /// happened here.
    pub fn suspect(&mut self, elsewhere: u32) {
        self.elsewhere = elsewhere;
    }

    /// Counts a LOGIN or AUTHENTICATE that failed, whatever for: waits of 1, 2, 4 and 8 s, and BYE with the fifth.
    pub fn failed(&mut self, now: Instant) -> Penalty {
        let delay = Duration::from_secs(1 << self.failures.max(self.elsewhere).min(6)).min(MAX_DELAY);
        self.failures = self.failures.saturating_add(1);
        let answer_at = now + delay;
        self.held_until = Some(answer_at);
        Penalty { answer_at, bye: self.failures >= MAX_FAILURES }
    }

    /// Whether the connection may try to log in at `now`: the last failure was answered and not the last one.
    pub fn may_try(&self, now: Instant) -> bool {
        self.failures < MAX_FAILURES && self.held_until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an instant to count from")]
    fn waits_grow_and_the_fifth_failure_is_the_last() {
        let mut attempts = Attempts::new();
        let mut now = Instant::now();
        assert!(attempts.may_try(now));
        for (seconds, bye) in [(1, false), (2, false), (4, false), (8, false), (8, true), (8, true)] {
            let penalty = attempts.failed(now);
            assert_eq!(penalty, Penalty { answer_at: now + Duration::from_secs(seconds), bye });
            assert!(!attempts.may_try(penalty.answer_at - Duration::from_nanos(1)));
            assert_eq!(attempts.may_try(penalty.answer_at), !bye);
            now = penalty.answer_at;
        }
    }
}
