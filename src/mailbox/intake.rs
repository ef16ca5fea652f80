//! How a change comes into Automerge.
//!
//! Automerge finds the places of a change's operations in one walk, and then cuts its columns open for each run of them. New
//! keys side by side are one run; new values of old keys are a run each, between all the others. Where there are many of those,
//! the document is made anew from all its changes, which cuts nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{Automerge, Change, ReadDoc};

// What is weighed, in microseconds, as measured with 10,000 to 60,000 operations.
const CUT: usize = 25;
const OPERATIONS: usize = 400; // in a millisecond
const CHANGE: usize = 13;
const BYTES: usize = 140; // in a microsecond

/// Applies a change that replaces the values of `replaced` keys to a document that was loaded from, or was given, about
/// `size` bytes. False if Automerge does not have it in the end as it is; the document must be dropped then.
pub(super) fn take(doc: &mut Automerge, change: &Change, replaced: usize, size: usize) -> bool {
    let stats = doc.stats();
    let (operations, changes) = (stats.num_ops as usize, stats.num_changes as usize);
    let anew = operations.saturating_mul(1000) / OPERATIONS + changes.saturating_mul(CHANGE) + size / BYTES;
    let taken = catch_unwind(AssertUnwindSafe(|| {
        let done = match replaced.saturating_mul(CUT) > anew {
            true => make_anew(doc, change),
            false => doc.apply_changes([change.clone()]).is_ok(),
        };
        let back = doc.get_change_by_hash(&change.hash()).filter(|_| done);
        back.is_some_and(|back| back.raw_bytes() == change.raw_bytes())
    }));
    taken.unwrap_or(false)
}

fn make_anew(doc: &mut Automerge, change: &Change) -> bool {
    let mut all = doc.get_changes(&[]);
    let before = all.len();
    all.push(change.clone());
    let mut anew = Automerge::new().with_actor(doc.get_actor().clone());
    let done = anew.apply_changes(all).is_ok() && anew.stats().num_changes as usize == before + 1;
    *doc = anew;
    done
}
