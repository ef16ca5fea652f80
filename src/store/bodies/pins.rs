//! Bodies that somebody has put and not referred to yet.
//!
//! A body is put first, and the message that needs it is committed later. In between, nothing that is durable says that it is
//! needed, and a body that was here already may be one that is just being forgotten. So each put pins its body until the
//! second turn after it: far longer than a commit takes. A put that took longer finds its body missing and fails.

use std::collections::BTreeSet;

use crate::blob::BlobId;

/// Pins that are remembered, some 3 MiB of them. With more, as in a large import, everything is pinned for a while.
const MAX_PINS: usize = 1 << 16;

#[derive(Debug, Default)]
pub(super) struct Pins {
    recent: Generation,
    before: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    ids: BTreeSet<BlobId>,
    overflowed: bool,
}

impl Generation {
    fn holds(&self, id: &BlobId) -> bool {
        self.overflowed || self.ids.contains(id)
    }
}

impl Pins {
    pub(super) fn pin(&mut self, id: BlobId) {
        if self.recent.ids.len() < MAX_PINS {
            self.recent.ids.insert(id);
        } else if !self.recent.ids.contains(&id) {
            self.recent.overflowed = true;
        }
    }

    pub(super) fn holds(&self, id: &BlobId) -> bool {
        self.recent.holds(id) || self.before.holds(id)
    }

    /// Lets go of what was pinned before the last turn.
    pub(super) fn turn(&mut self) {
        self.before = std::mem::take(&mut self.recent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_holds_until_the_second_turn_and_too_many_hold_everything() {
        let id = |n: u32| BlobId::of(&n.to_le_bytes());
        let mut pins = Pins::default();
        pins.pin(id(1));
        assert!(pins.holds(&id(1)) && !pins.holds(&id(2)));
        pins.turn();
        assert!(pins.holds(&id(1)));
        pins.turn();
        assert!(!pins.holds(&id(1)));
        (0..=MAX_PINS as u32).for_each(|n| pins.pin(id(n)));
        assert!(pins.holds(&id(u32::MAX)), "what was not remembered may be any body");
        pins.turn();
        pins.turn();
        assert!(!pins.holds(&id(u32::MAX)));
    }
}
