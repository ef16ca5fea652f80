//! When a bridge stops and asks: a run that would remove more than anybody does by hand.
//!
//! An empty or half mounted directory looks like a user who removed everything. No synchronizer is forgiven for that mistake.

use super::decide::{DiskStep, ReplicaStep};
use super::gather::{Case, Plan};
use super::{Report, Run};
use crate::bytes::{Reader, put_number};
use crate::uid::Fate;

/// More removals than this, and more than this share of all messages, stop a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemovalLimit {
    /// So many removals always pass, unless nothing would be left.
    pub count: u64,
    /// Of a hundred messages so many may go at once.
    pub percent: u64,
}

impl Default for RemovalLimit {
    /// A hundred, and a tenth: somebody who tidies up a mailbox passes, an account that empties does not.
    fn default() -> RemovalLimit {
        RemovalLimit { count: 100, percent: 10 }
    }
}

/// So few messages may all go at once: that is a folder of drafts, not thirty years of mail.
const FEW: u64 = 10;

impl RemovalLimit {
    /// Whether `removals` of `messages` are more than pass without a question.
    pub(super) fn stops(&self, removals: u64, messages: u64) -> bool {
        let all = removals >= messages && removals > FEW;
        let many =
            removals > self.count && removals.saturating_mul(100) > messages.saturating_mul(self.percent);
        all || many
    }
}

/// The directions that stand still, and for how many removals each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brake {
    /// Files are gone, and their messages would be expunged.
    pub into_replica: Option<Stopped>,
    /// Messages are expunged, and their files would be removed.
    pub into_maildir: Option<Stopped>,
}

/// What a direction stopped at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Messages that would go.
    pub removals: u64,
    /// Messages that the Maildir had.
    pub messages: u64,
}

impl Brake {
    /// Whether everything moves.
    pub fn is_off(&self) -> bool {
        self.into_replica.is_none() && self.into_maildir.is_none()
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for stopped in [self.into_replica, self.into_maildir] {
            put_number(out, stopped.map_or(0, |stopped| stopped.removals));
            put_number(out, stopped.map_or(0, |stopped| stopped.messages));
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Brake> {
        let mut stopped = || {
            let (removals, messages) = (reader.number()?, reader.number()?);
            Some(Some(Stopped { removals, messages }).filter(|_| removals > 0))
        };
        Some(Brake { into_replica: stopped()?, into_maildir: stopped()? })
    }
}

impl Run<'_> {
    /// Takes out a direction in which too much would go.
    pub(super) fn brake(&self, plan: &mut Plan, report: &mut Report) {
        let expunges =
            |case: &&Case| matches!(case.on_replica, ReplicaStep::Edit { fate: Fate::Expunge, .. });
        let expunged = plan.cases.iter().filter(expunges).count() as u64;
        let removed = plan.cases.iter().filter(|case| case.on_disk == DiskStep::Remove).count() as u64;
        let removed = removed.max(self.queue.expunged);
        let stop = |removals: u64, messages: u64| {
            let stops = !self.how.allow_removals && self.how.limit.stops(removals, messages);
            stops.then_some(Stopped { removals, messages })
        };
        report.brake.into_replica = stop(expunged, plan.messages);
        report.brake.into_maildir = stop(removed, plan.messages + removed);
        let (in_stops, out_stops) =
            (report.brake.into_replica.is_some(), report.brake.into_maildir.is_some());
        if !in_stops && !out_stops {
            return;
        }
        let stopped = |case: &Case| {
            in_stops && case.on_replica != ReplicaStep::Nothing
                || out_stops && !matches!(case.on_disk, DiskStep::Nothing | DiskStep::Forget)
        };
        let (kept, stopped): (Vec<Case>, Vec<Case>) =
            std::mem::take(&mut plan.cases).into_iter().partition(|case| !stopped(case));
        plan.cases = kept;
        plan.postponed.extend(stopped.iter().filter_map(|case| case.entry));
        plan.again.extend(plan.folders.keys());
        plan.more = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_and_a_large_share_stop() {
        let limit = RemovalLimit::default();
        for (removals, messages, stops) in [
            (100, 120, false),
            (101, 120, true),
            (101, 5000, false),
            (500, 5000, false),
            (501, 5000, true),
            (10, 10, false),
            (11, 11, true),
            (0, 0, false),
        ] {
            assert_eq!(limit.stops(removals, messages), stops, "{removals} of {messages}");
        }
    }
}
