//! What happened here, and whether all is well.

use std::collections::VecDeque;

use super::{Replica, ReplicaError};
use crate::mailbox::{Change, DocumentError};
use crate::store::{CheckReport, Level, Position, Progress, Record};

impl Replica {
    /// The last `limit` changes, oldest first, each with the commit that brought it here.
    pub fn history(&self, limit: usize) -> Result<Vec<(Position, Change)>, ReplicaError> {
        let reader = self.0.handle.reader()?;
        let (mut found, mut until) = (VecDeque::new(), reader.position().0);
        // A commit holds a change or more, seldom none, so that this looks at little more than it gives.
        while found.len() < limit && until > 0 {
            let from = until.saturating_sub(limit.clamp(1, 1000) as u64);
            let mut part = Vec::new();
            for group in reader.groups_after(Position(from))? {
                let group = group?;
                if group.position.0 > until {
                    break;
                }
                for record in group.records {
                    if let Record::Change(change) = record {
                        let change = Change::vet(&change.bytes).map_err(DocumentError::from)?;
                        part.push((group.position, change));
                    }
                }
            }
            part.into_iter().rev().for_each(|change| found.push_front(change));
            until = from;
        }
        found.drain(..found.len().saturating_sub(limit));
        Ok(found.into())
    }

    /// Looks at every file of the store, while it is used.
    pub fn check(
        &self,
        level: Level,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<CheckReport, ReplicaError> {
        let checker = self.with(|core| Ok(core.store.checker()?))?;
        Ok(checker.check(level, progress)?)
    }
}
