//! Ascending UIDs, kept as runs: what a sequence number means (RFC 9051, section 2.3.1.2).

use std::ops::RangeInclusive;

/// The UIDs of a mailbox in ascending order; the position of one, counted from 1, is its sequence number.
///
/// Consecutive UIDs cost one run of 12 bytes together, so that a thousand idle sessions on large mailboxes stay small.
/// Look-ups are O(log runs).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UidList {
    runs: Vec<Run>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u32,
    len: u32,
    /// How many UIDs stand in earlier runs.
    before: u32,
}

impl Run {
    fn last(&self) -> u32 {
        self.first + (self.len - 1)
    }
}

impl UidList {
    /// How many UIDs there are: EXISTS.
    pub fn len(&self) -> u32 {
        self.runs.last().map_or(0, |run| run.before + run.len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The highest UID.
    pub fn last(&self) -> Option<u32> {
        self.runs.last().map(Run::last)
    }

    /// Adds a UID above all others; says whether it was above them.
    #[must_use]
    pub fn push(&mut self, uid: u32) -> bool {
        let before = self.len();
        match self.runs.last_mut() {
            Some(run) if uid <= run.last() => return false,
            Some(run) if uid == run.last() + 1 => run.len += 1,
            _ => self.runs.push(Run { first: uid, len: 1, before }),
        }
        true
    }

    /// The UID with a sequence number.
    pub fn uid(&self, seq: u32) -> Option<u32> {
        let index = seq.checked_sub(1)?;
        let run = &self.runs[..self.runs.partition_point(|run| run.before <= index)];
        let run = run.last()?;
        (index - run.before < run.len).then(|| run.first + (index - run.before))
    }

    /// The sequence number of a UID.
    pub fn seq(&self, uid: u32) -> Option<u32> {
        let run = self.runs[..self.runs.partition_point(|run| run.first <= uid)].last()?;
        (uid - run.first < run.len).then(|| run.before + (uid - run.first) + 1)
    }

    /// How many UIDs stand below one.
    fn below(&self, uid: u32) -> u32 {
        match self.runs[..self.runs.partition_point(|run| run.first < uid)].last() {
            Some(run) => run.before + run.len.min(uid - run.first),
            None => 0,
        }
    }

    /// Takes UIDs out, given in ascending order. Costs O(runs + UIDs).
    pub fn remove(&mut self, uids: &[u32]) {
        debug_assert!(uids.is_sorted());
        let mut uids = uids.iter().copied().peekable();
        let mut kept = UidList::default();
        for run in &self.runs {
            // Nothing once the run's last UID, which may be the highest number there is, was taken out.
            let mut rest = Some(run.first);
            while let Some(gone) = uids.next_if(|uid| *uid <= run.last()) {
                if let Some(first) = rest.filter(|first| *first <= gone) {
                    kept.push_run(first, gone - first);
                    rest = gone.checked_add(1);
                }
            }
            if let Some(first) = rest.filter(|first| *first <= run.last()) {
                kept.push_run(first, run.last() - first + 1);
            }
        }
        *self = kept;
    }

    fn push_run(&mut self, first: u32, len: u32) {
        if len > 0 {
            self.runs.push(Run { first, len, before: self.len() });
        }
    }

    /// Sequence numbers and UIDs whose UID lies in a range, ascending.
    pub fn by_uid(&self, uids: RangeInclusive<u32>) -> impl Iterator<Item = (u32, u32)> + '_ {
        let (first, end) = (self.below(*uids.start()), self.below(*uids.end()));
        let end = end + u32::from(self.seq(*uids.end()).is_some());
        self.by_seq(first + 1..=end)
    }

    /// Sequence numbers and UIDs whose sequence number lies in a range, ascending.
    pub fn by_seq(&self, seqs: RangeInclusive<u32>) -> impl Iterator<Item = (u32, u32)> + '_ {
        let (start, end) = ((*seqs.start()).max(1) - 1, *seqs.end());
        let runs = self.runs.partition_point(|run| run.before + run.len <= start);
        self.runs[runs..].iter().take_while(move |run| run.before < end).flat_map(move |run| {
            let skip = start.saturating_sub(run.before);
            let stop = (end - run.before).min(run.len);
            let run = *run;
            (skip..stop).map(move |at| (run.before + at + 1, run.first + at))
        })
    }

    /// Every UID, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.runs.iter().flat_map(|run| run.first..=run.last())
    }

    /// The ranges of consecutive UIDs, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u32>> + '_ {
        self.runs.iter().map(|run| run.first..=run.last())
    }
}

impl FromIterator<u32> for UidList {
    /// Takes ascending UIDs; one that does not ascend is left out.
    fn from_iter<I: IntoIterator<Item = u32>>(uids: I) -> UidList {
        let mut list = UidList::default();
        for uid in uids {
            let _ = list.push(uid);
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_list_does_what_a_sorted_vector_does(
            uids in prop::collection::btree_set(1u32..60, 0..40),
            gone in prop::collection::btree_set(1u32..60, 0..40),
            range in (0u32..70, 0u32..70),
        ) {
            let mut list: UidList = uids.iter().copied().collect();
            list.remove(&gone.iter().copied().collect::<Vec<_>>());
            let plain: Vec<u32> = uids.difference(&gone).copied().collect::<BTreeSet<_>>().into_iter().collect();
            prop_assert_eq!(list.iter().collect::<Vec<_>>(), plain.clone());
            prop_assert_eq!(list.len() as usize, plain.len());
            prop_assert_eq!(list.last(), plain.last().copied());
            let numbered: Vec<(u32, u32)> = plain.iter().enumerate().map(|(at, uid)| (at as u32 + 1, *uid)).collect();
            for n in 0..70 {
                prop_assert_eq!(list.uid(n), numbered.iter().find(|(seq, _)| *seq == n).map(|(_, uid)| *uid));
                prop_assert_eq!(list.seq(n), numbered.iter().find(|(_, uid)| *uid == n).map(|(seq, _)| *seq));
            }
            let (low, high) = (range.0.min(range.1), range.0.max(range.1));
            let in_uids: Vec<_> = numbered.iter().filter(|(_, uid)| (low..=high).contains(uid)).copied().collect();
            prop_assert_eq!(list.by_uid(low..=high).collect::<Vec<_>>(), in_uids);
            let in_seqs: Vec<_> = numbered.iter().filter(|(seq, _)| (low..=high).contains(seq)).copied().collect();
            prop_assert_eq!(list.by_seq(low..=high).collect::<Vec<_>>(), in_seqs);
            let again: UidList = plain.iter().copied().collect();
            prop_assert_eq!(list.iter().collect::<Vec<_>>(), again.iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn uids_only_ascend() {
        let mut list: UidList = [3, 4, 9].into_iter().collect();
        assert!(!list.push(9) && !list.push(5));
        assert!(list.push(u32::MAX));
        assert_eq!(list.ranges().collect::<Vec<_>>(), [3..=4, 9..=9, u32::MAX..=u32::MAX]);
    }
}
