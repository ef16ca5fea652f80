//! Servers with a lower lane that are connected now: they claim for the messages of others, and this one waits for them a
//! moment (rule 1 of `docs/uids.md`). It lowers churn; nothing relies on it.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::{Replica, ReplicaError, Snapshot, lock};

/// Longest wait before a server claims itself: some round trips to a server far away, and little for a person who opens a
/// mailbox.
const MOMENT: Duration = Duration::from_millis(200);

/// How many there are, and news for whoever waits.
#[derive(Default)]
pub(super) struct Elders {
    connected: Mutex<usize>,
    committed: Condvar,
}

impl Elders {
    /// Somebody committed: it may be what is waited for.
    pub(super) fn news(&self) {
        // Under the lock, so that nobody looks and falls asleep in between.
        drop(lock(&self.connected));
        self.committed.notify_all();
    }

    pub(super) fn any(&self) -> bool {
        *lock(&self.connected) > 0
    }
}

/// A connected elder; dropped when the conversation ends.
pub(super) struct Elder(Arc<Elders>);

impl Elder {
    pub(super) fn connected(elders: &Arc<Elders>) -> Elder {
        *lock(&elders.connected) += 1;
        Elder(elders.clone())
    }
}

impl Drop for Elder {
    fn drop(&mut self) {
        *lock(&self.0.connected) -= 1;
        self.0.committed.notify_all();
    }
}

impl Replica {
    /// Waits a moment for the elders that are connected to settle what `look` looks at; what it saw once it is settled.
    pub(super) fn await_elders(
        &self,
        look: impl Fn() -> Result<Option<Snapshot>, ReplicaError>,
    ) -> Result<Option<Snapshot>, ReplicaError> {
        #[cfg(test)]
        if super::simulation::time().is_some() {
            return look(); // Simulated time does not pass while somebody waits.
        }
        let mut seen = Ok(None);
        let connected = lock(&self.0.elders.connected);
        let waited = self.0.elders.committed.wait_timeout_while(connected, MOMENT, |connected| {
            seen = look();
            matches!(seen, Ok(None)) && *connected > 0
        });
        drop(waited);
        seen
    }
}
