//! Compacting: pack segments that hold little but forgotten bodies are written anew, so that the file system gets its space back.

use super::{Replica, ReplicaError};
use crate::store::{SegmentUse, StoreError};

/// What a compaction did, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes that were read to be written anew.
    pub read: u64,
    /// Bytes that the file system has back.
    pub freed: u64,
}

/// A compaction that goes on step by step.
#[derive(Debug, Default)]
pub struct Compaction {
    left: Vec<SegmentUse>,
    from: u64,
}

impl Replica {
    /// Which pack segments are worth writing anew, those that give back most first. Costs O(bodies).
    pub fn plan_compaction(&self) -> Result<Compaction, ReplicaError> {
        let mut left = self.0.handle.bodies().segments()?;
        left.retain(SegmentUse::is_worth_compacting);
        left.sort_by_key(|segment| segment.dead);
        Ok(Compaction { left, from: 0 })
    }

    /// Goes on with a compaction, until `budget` bytes were read or there is nothing left to do. Readers and writers go on
    /// meanwhile; a segment that is damaged, or that a backup is copying, is left as it is.
    pub fn compact(&self, compaction: &mut Compaction, budget: u64) -> Result<Compacted, ReplicaError> {
        let mut done = Compacted::default();
        while done.read < budget
            && let Some(segment) = compaction.left.last().copied()
        {
            let moved = match self.0.handle.bodies().evacuate(
                segment.segment,
                compaction.from,
                budget - done.read,
            ) {
                Ok(moved) => moved,
                Err(error @ StoreError::Damaged { .. }) => {
                    tracing::error!(%error, "a pack segment is damaged and is not compacted; `check` says more");
                    compaction.skip();
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            done.read += moved.read;
            match moved.next {
                Some(next) => compaction.from = next,
                None => {
                    let removed = self.with(|core| Ok(core.store.remove_segment(segment.segment)?))?;
                    done.freed += if removed { segment.dead } else { 0 };
                    compaction.skip();
                }
            }
        }
        Ok(done)
    }
}

impl Compaction {
    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.left.is_empty()
    }

    /// Bytes that it will give back.
    pub fn dead(&self) -> u64 {
        self.left.iter().map(|segment| segment.dead).sum()
    }

    fn skip(&mut self) {
        self.left.pop();
        self.from = 0;
    }
}
