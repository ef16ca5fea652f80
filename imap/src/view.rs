//! What a client has been told of its selected mailbox, and how it learns what happened since.
//!
//! Sequence numbers are a matter between this client and its session alone: they move only when an update of a [`View`]
//! is sent, never because a merge came in. So a command that was written against what the client knew means just that,
//! however many commits have passed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::uids::UidList;

/// What the mailbox did since the view was brought up to date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// UIDs that appeared or whose flags changed, ascending, each with its mod-sequence.
    pub changed: Vec<(u32, u64)>,
    /// UIDs that are not shown any more, in any order; ones that this client never saw do no harm.
    pub vanished: Vec<u32>,
}

/// One thing to tell the client, in the order in which it must be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Messages are gone. Their sequence numbers before any of them was taken out, and their UIDs, ascending.
    Expunged(Vec<(u32, u32)>),
    /// The mailbox has this many messages now.
    Exists(u32),
    /// A message's flags may be others now.
    Flags {
        /// Its sequence number.
        seq: u32,
        /// Its UID.
        uid: u32,
    },
}

/// A UID appeared below one that the client has: the mailbox lied, and the session must end before the client believes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("UID {uid} appeared below UID {last}, which the client knows")]
pub struct OutOfOrder {
    /// The UID that appeared.
    pub uid: u32,
    /// The highest one that the client knows.
    pub last: u32,
}

/// What the client has been told.
#[derive(Clone, Debug, Default)]
pub struct View {
    uids: UidList,
    /// Gone, and still counted by the client.
    gone: BTreeSet<u32>,
}

impl View {
    /// The view of a client that was just told EXISTS for these UIDs.
    pub fn new(uids: UidList) -> View {
        View { uids, gone: BTreeSet::new() }
    }

    /// How many messages the client counts.
    pub fn exists(&self) -> u32 {
        self.uids.len()
    }

    /// The highest UID that the client counts.
    pub fn last_uid(&self) -> Option<u32> {
        self.uids.last()
    }

    /// The UID behind a sequence number.
    pub fn uid(&self, seq: u32) -> Option<u32> {
        self.uids.uid(seq)
    }

    /// The sequence number of a UID.
    pub fn seq(&self, uid: u32) -> Option<u32> {
        self.uids.seq(uid)
    }

    /// Sequence numbers and UIDs in a range of sequence numbers, ascending.
    pub fn by_seq(&self, seqs: RangeInclusive<u32>) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.uids.by_seq(seqs)
    }

    /// Sequence numbers and UIDs in a range of UIDs, ascending.
    pub fn by_uid(&self, uids: RangeInclusive<u32>) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.uids.by_uid(uids)
    }

    /// Every UID the client counts, ascending.
    pub fn uids(&self) -> &UidList {
        &self.uids
    }

    /// Whether expunges wait to be told.
    pub fn owes_expunges(&self) -> bool {
        !self.gone.is_empty()
    }

    /// Takes in what happened and gives what may be told now. Expunges wait until `may_expunge` (RFC 9051, section 7.5.1:
    /// not while a command that uses sequence numbers is under way, nor while none is). A change whose mod-sequence stands
    /// in `known` is not told again: the client made it. Costs O(changes), and O(runs of UIDs) where messages are expunged.
    pub fn update(
        &mut self,
        changes: &Changes,
        known: &BTreeMap<u32, u64>,
        may_expunge: bool,
    ) -> Result<Vec<Update>, OutOfOrder> {
        self.gone.extend(changes.vanished.iter().filter(|uid| self.uids.seq(**uid).is_some()));
        let mut updates = Vec::new();
        if may_expunge && !self.gone.is_empty() {
            let gone: Vec<u32> = std::mem::take(&mut self.gone).into_iter().collect();
            let seqs = gone.iter().filter_map(|uid| Some((self.uids.seq(*uid)?, *uid))).collect();
            self.uids.remove(&gone);
            updates.push(Update::Expunged(seqs));
        }
        let mut arrived = false;
        for (uid, _) in &changes.changed {
            if self.uids.seq(*uid).is_none() {
                if !self.uids.push(*uid) {
                    return Err(OutOfOrder { uid: *uid, last: self.uids.last().unwrap_or(0) });
                }
                arrived = true;
            } else if known.get(uid) != changes.modseq(*uid).as_ref()
                && let Some(seq) = self.uids.seq(*uid)
            {
                updates.push(Update::Flags { seq, uid: *uid });
            }
        }
        if arrived {
            let after = updates.iter().take_while(|update| matches!(update, Update::Expunged(_))).count();
            updates.insert(after, Update::Exists(self.uids.len()));
        }
        Ok(updates)
    }
}

impl Changes {
    fn modseq(&self, uid: u32) -> Option<u64> {
        let at = self.changed.binary_search_by_key(&uid, |(uid, _)| *uid).ok()?;
        Some(self.changed[at].1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A client that believes each line it is sent, and the mailbox as it really is.
    #[derive(Default)]
    struct Naive {
        told: Vec<u32>,
        mailbox: BTreeSet<u32>,
        next: u32,
    }

    impl Naive {
        fn hear(&mut self, updates: &[Update], view: &View) {
            for update in updates {
                match update {
                    Update::Expunged(gone) => {
                        // As lines would say it: from the highest number down.
                        for (seq, uid) in gone.iter().rev() {
                            assert_eq!(self.told.remove(*seq as usize - 1), *uid);
                        }
                    }
                    Update::Exists(count) => {
                        let known = self.told.len() as u32;
                        assert!(*count > known);
                        self.told.extend((known + 1..=*count).map(|seq| view.uid(seq).unwrap()));
                    }
                    Update::Flags { seq, uid } => assert_eq!(self.told[*seq as usize - 1], *uid),
                }
            }
            assert_eq!(view.uids().iter().collect::<Vec<_>>(), self.told);
        }
    }

    proptest! {
        #[test]
        fn a_client_that_believes_its_server_is_right(
            steps in prop::collection::vec((0u8..4, any::<prop::sample::Index>(), any::<bool>()), 1..60),
        ) {
            let (mut naive, mut view) = (Naive { next: 1, ..Naive::default() }, View::default());
            let mut changes = Changes::default();
            for (kind, at, may_expunge) in steps {
                let some = (!naive.mailbox.is_empty()).then(|| *at.get(&naive.mailbox.iter().copied().collect::<Vec<_>>()));
                match (kind, some) {
                    (0, _) => {
                        naive.next += 1 + at.index(3) as u32;
                        naive.mailbox.insert(naive.next);
                        changes.changed.push((naive.next, 7));
                    }
                    (1, Some(uid)) => {
                        naive.mailbox.remove(&uid);
                        changes.changed.retain(|(changed, _)| *changed != uid);
                        changes.vanished.push(uid);
                    }
                    (2, Some(uid)) if changes.changed.iter().all(|(changed, _)| *changed != uid) => {
                        changes.changed.push((uid, 9));
                        changes.changed.sort();
                    }
                    _ => {
                        let updates = view.update(&std::mem::take(&mut changes), &BTreeMap::new(), may_expunge).unwrap();
                        let expunged = updates.iter().any(|update| matches!(update, Update::Expunged(_)));
                        prop_assert!(may_expunge || !expunged);
                        naive.hear(&updates, &view);
                        if may_expunge {
                            prop_assert_eq!(&naive.told, &naive.mailbox.iter().copied().collect::<Vec<_>>());
                        }
                    }
                }
            }
        }
    }

    fn view(uids: &[u32]) -> View {
        View::new(uids.iter().copied().collect())
    }

    #[test]
    fn expunges_wait_and_numbers_stay() {
        let mut view = view(&[3, 5, 9]);
        let changes = Changes { changed: vec![(5, 8), (12, 8)], vanished: vec![3, 4] };
        let updates = view.update(&changes, &BTreeMap::new(), false).unwrap();
        assert_eq!(updates, [Update::Exists(4), Update::Flags { seq: 2, uid: 5 }]);
        assert_eq!((view.uid(1), view.owes_expunges()), (Some(3), true));
        let updates = view.update(&Changes::default(), &BTreeMap::new(), true).unwrap();
        assert_eq!(updates, [Update::Expunged(vec![(1, 3)])]);
        assert_eq!(view.uid(1), Some(5));
    }

    #[test]
    fn what_the_client_did_is_not_told_again() {
        let mut view = view(&[3, 5]);
        let changes = Changes { changed: vec![(3, 8), (5, 9)], vanished: vec![] };
        let updates = view.update(&changes, &BTreeMap::from([(3, 8), (5, 8)]), true).unwrap();
        assert_eq!(updates, [Update::Flags { seq: 2, uid: 5 }]);
    }

    #[test]
    fn a_uid_below_known_ones_is_refused() {
        let changes = Changes { changed: vec![(4, 8)], vanished: vec![] };
        assert_eq!(
            view(&[3, 5]).update(&changes, &BTreeMap::new(), true),
            Err(OutOfOrder { uid: 4, last: 5 })
        );
    }
}
