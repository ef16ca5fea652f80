//! When to try again.

use std::time::Duration;

/// Longest wait between attempts: a peer that comes back is met within 5 minutes.
pub const MAX_BACKOFF: Duration = Duration::from_secs(300);

const FIRST: Duration = Duration::from_secs(1);

/// Waits that double from 1 s to [`MAX_BACKOFF`], each shortened by up to half at random, so that many replicas
/// that lost one peer do not come back at once.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Starts without failures.
    pub fn new() -> Backoff {
        Backoff::default()
    }

    /// The wait after another failure; `random` is any number that the caller drew.
    pub fn failed(&mut self, random: u64) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.failures.min(16)).min(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        let half = doubled / 2;
        half + half.mul_f64(random as f64 / u64::MAX as f64)
    }

    /// A hello was answered: the next failure is the first again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit() {
        let mut backoff = Backoff::new();
        let longest: Vec<u64> = (0..11).map(|_| backoff.failed(u64::MAX).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(backoff.failed(0), MAX_BACKOFF / 2);
        backoff.succeeded();
        assert_eq!(backoff.failed(0), FIRST / 2);
    }
}
