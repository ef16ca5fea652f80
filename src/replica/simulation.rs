//! Whole replicas on simulated disks, a simulated network and simulated clocks, at random.
//!
//! Everything that ships is there: document, pass, store and sync sessions, as `Replica` and `Link`. Simulated are only what
//! they stand on: disks that lose, tear and refuse writes, connections that are slow, cut and deaf in one direction, clocks that
//! are wrong, and what an operator does: restart, restore a backup, retire a server, invite another. Caching clients look
//! after every commit and believe all they were ever told. In the end faults stop, and all must agree and be quiet.
//!
//! A schedule follows from its seed alone. `docs/testing.md` has what it found, and what would be found if it were there.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::store::disk::fault;
use crate::trial::{Outcome, Random, Violation};

mod clients;
mod healing;
mod network;
mod restarts;
mod site;
mod users;
mod world;

use self::world::World;

/// Where entropy and the time come from while a schedule runs in this thread.
struct Seam {
    entropy: Random,
    time: i64,
}

thread_local! {
    static SEAM: RefCell<Option<Seam>> = const { RefCell::new(None) };
}

/// Random bytes of the schedule; false if none runs.
pub(super) fn draw(bytes: &mut [u8]) -> bool {
    SEAM.with_borrow_mut(|seam| {
        let Some(seam) = seam else { return false };
        bytes
            .chunks_mut(8)
            .for_each(|part| part.copy_from_slice(&seam.entropy.next().to_le_bytes()[..part.len()]));
        true
    })
}

/// What the clock of the replica says whose turn it is, while a schedule runs.
pub(super) fn time() -> Option<i64> {
    SEAM.with_borrow(|seam| seam.as_ref().map(|seam| seam.time))
}

fn set_time(time: i64) {
    SEAM.with_borrow_mut(|seam| {
        if let Some(seam) = seam {
            seam.time = time;
        }
    });
}

/// What a schedule came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Report {
    steps: u64,
    /// Simulated milliseconds.
    time: u64,
    /// Exchanges of each replica with its neighbours until all were equal after healing.
    rounds: u64,
    /// A hash of what everybody had in the end: it follows from the seed alone.
    end: u64,
}

/// Steps of a schedule.
const STEPS: u64 = 220;

fn run(seed: u64, replicas: Option<usize>) -> Result<Report, Violation> {
    SEAM.set(Some(Seam { entropy: Random(!seed), time: 0 }));
    let live = || {
        let mut world = World::new(seed, replicas)?;
        for _ in 0..STEPS {
            world.step()?;
        }
        world.heal()
    };
    let ended = catch_unwind(AssertUnwindSafe(live));
    fault::set_current(None);
    SEAM.set(None);
    ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation(format!("panicked: {}", text.unwrap_or_default())))
    })
}

mod tests;
