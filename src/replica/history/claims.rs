//! Who claimed which UID, who counted past it, and who burned it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Act, Deed, Teller};
use crate::mailbox::{
    EntryId, Key, Nonce, Origin, Pack, PackId, Placement, Segment, Source, Stamp, Uid, UidRecord,
};
use crate::replica::ReplicaError;
use crate::uid::{Burn, UidSpace};

/// The UID records of a mailbox in one epoch. Reading one costs a few µs; there is about one for each delivery.
pub(super) struct Records {
    pub(super) space: UidSpace,
    records: Vec<([u8; 16], UidRecord)>,
    packs: BTreeMap<PackId, Option<Pack>>,
}

/// The records that have to do with one UID, by their keys.
#[derive(Default)]
pub(super) struct Parties {
    /// Who claims it, and for which message's stay.
    pub(super) claims: Vec<([u8; 16], Placement)>,
    /// Who went past it without holding it.
    passed: Vec<[u8; 16]>,
    burned: Vec<[u8; 16]>,
}

impl Records {
    pub(super) fn read(teller: &Teller<'_>, space: UidSpace) -> Result<Records, ReplicaError> {
        let keys = teller.view.uid_records(space)?;
        let read = |key: [u8; 16]| Some((key, teller.past.document().uid_record(&key)?));
        let records = keys.into_iter().filter_map(read).collect();
        Ok(Records { space, records, packs: BTreeMap::new() })
    }

    /// Who has to do with some UIDs. Costs O(records), and what is found.
    pub(super) fn parties(&mut self, teller: &Teller<'_>, wanted: &BTreeSet<Uid>) -> BTreeMap<Uid, Parties> {
        let mut found: BTreeMap<Uid, Parties> = BTreeMap::new();
        let mut held = Vec::new();
        for (key, record) in &self.records {
            match record {
                UidRecord::Run(run) if !run.is_void() => {
                    for segment in &run.segments {
                        held.extend(within(segment, wanted).map(|uid| (uid, *key, *segment)));
                    }
                    for uid in between(run.base + 1, run.span_end(), wanted) {
                        found.entry(uid).or_default().passed.push(*key);
                    }
                }
                UidRecord::Run(_) => {}
                UidRecord::Burn { uids, .. } => {
                    for uid in uids.iter().filter(|uid| wanted.contains(uid)) {
                        found.entry(*uid).or_default().burned.push(*key);
                    }
                }
            }
        }
        for (uid, key, segment) in held {
            if let Some(placement) = self.placement(teller, &segment, uid) {
                found.entry(uid).or_default().claims.push((key, placement));
            }
        }
        for parties in found.values_mut() {
            let claims = &parties.claims;
            parties.passed.retain(|key| claims.iter().all(|(holder, _)| holder != key));
        }
        found
    }

    /// The UIDs that were claimed for a message, and by which record.
    pub(super) fn uids_of(
        &mut self,
        teller: &Teller<'_>,
        entry: EntryId,
    ) -> Result<Vec<(Uid, [u8; 16])>, ReplicaError> {
        let Some((own, index)) = teller.view.pack_of(entry)? else { return Ok(Vec::new()) };
        // Somebody else may have imported the same message with another pack.
        let imported =
            self.pack(teller, own).is_some_and(|pack| matches!(pack.origin, Origin::Imported { .. }));
        let (mut uids, mut others) = (Vec::new(), Vec::new());
        let runs = self.records.iter().filter_map(|(key, record)| match record {
            UidRecord::Run(run) => Some((*key, run)),
            UidRecord::Burn { .. } => None,
        });
        for (key, segment) in runs.flat_map(|(key, run)| run.segments.iter().map(move |one| (key, one))) {
            match segment.source {
                Source::Placement(placement) if placement.entry == entry => uids.push((segment.first, key)),
                Source::Pack { pack, first } if pack == own => {
                    let at = index.checked_sub(first).filter(|at| *at < segment.count);
                    uids.extend(at.and_then(|at| Some((Uid::new(segment.first.value() + at)?, key))));
                }
                Source::Pack { .. } if imported => others.push((key, *segment)),
                Source::Placement(_) | Source::Pack { .. } => {}
            }
        }
        for (key, segment) in others {
            let all = (0..segment.count).filter_map(|at| Uid::new(segment.first.value() + at));
            for uid in all {
                if self.placement(teller, &segment, uid).is_some_and(|placement| placement.entry == entry) {
                    uids.push((uid, key));
                }
            }
        }
        uids.sort_unstable();
        Ok(uids)
    }

    fn placement(&mut self, teller: &Teller<'_>, segment: &Segment, uid: Uid) -> Option<Placement> {
        match segment.source {
            Source::Placement(placement) => Some(placement),
            Source::Pack { pack, first } => {
                let index = first.checked_add(uid.value() - segment.first.value())? as usize;
                let content = self.pack(teller, pack)?;
                let entry = (index < content.messages.len()).then(|| content.entry_id(pack, index))?;
                Some(Placement { entry, nonce: Nonce::INITIAL })
            }
        }
    }

    fn pack(&mut self, teller: &Teller<'_>, id: PackId) -> Option<&Pack> {
        self.packs.entry(id).or_insert_with(|| teller.past.document().pack(id)).as_ref()
    }
}

impl Parties {
    /// Whether a record has a part in it.
    pub(super) fn involve(&self, record: &[u8; 16]) -> bool {
        self.claims
            .iter()
            .map(|(key, _)| key)
            .chain(&self.passed)
            .chain(&self.burned)
            .any(|key| key == record)
    }

    /// What was done, and by whom, that burned the UID by a rule.
    pub(super) fn acts(&self, teller: &mut Teller<'_>, space: UidSpace, rule: Burn) -> Vec<Act> {
        let mailbox = space.mailbox;
        let mut acts = Vec::new();
        let mut add = |key: &[u8; 16], deed: Deed, won| {
            let stamp: Option<Stamp> = teller.past.author(&Key::Uids(*key));
            acts.extend(stamp.map(|stamp| Act { stamp, deed, won }));
        };
        self.claims.iter().for_each(|(key, _)| add(key, Deed::Claimed { mailbox }, false));
        match rule {
            Burn::Contested => {}
            Burn::Spanned => {
                self.passed.iter().for_each(|key| add(key, Deed::PassedOver { mailbox }, true));
            }
            Burn::Recorded => self.burned.iter().for_each(|key| add(key, Deed::Burned { mailbox }, true)),
        }
        acts.sort();
        acts.dedup();
        acts
    }
}

/// The UIDs from `from` on and below `to`.
fn between(from: u32, to: u32, wanted: &BTreeSet<Uid>) -> impl Iterator<Item = Uid> {
    let bounds = Uid::new(from).zip(Uid::new(to)).filter(|(from, to)| from < to);
    bounds.into_iter().flat_map(|(from, to)| wanted.range(from..to).copied())
}

fn within(segment: &Segment, wanted: &BTreeSet<Uid>) -> impl Iterator<Item = Uid> {
    let first = segment.first.value();
    between(first, first.saturating_add(segment.count), wanted)
}
