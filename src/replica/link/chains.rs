//! Signatures of changes on their way in and out.
//!
//! An author's signature of one change covers all that the author wrote before, so few are sent. A *point* is a place in the
//! stream up to which every change is covered; nothing behind the last point is committed. Points are never farther apart than
//! [`WINDOW`], or than the sender's own: so what a receiver has to hold does not grow from one replica to the next.

use std::collections::{BTreeMap, BTreeSet};

use super::LinkError;
use crate::mailbox::{Change, ReplicaId};
use crate::member::{ChainHead, Members, Signature};
use crate::replica::identity::Identity;
use crate::replica::signatures;
use crate::store;
use crate::sync::{IncomingChange, MAX_QUEUED, OutgoingChange};

/// Bytes after which there is a point, if the log has one: what the session asks for at a time.
const WINDOW: usize = MAX_QUEUED;
/// Bytes of changes that may wait for a signature: one window, the largest change, and as much again for what the sender of an
/// older log has.
const MAX_UNSIGNED: usize = 4 << 20;

/// Chooses the signatures that go with changes.
#[derive(Default)]
pub(super) struct Covering {
    /// Authors of changes that are not covered yet.
    open: BTreeSet<ReplicaId>,
    /// Bytes since the last point.
    bytes: usize,
}

impl Covering {
    /// Which of `changes`, each with its author, its size and whether its author's signature can be had, are sent with it. They
    /// go on from those of the last call.
    pub(super) fn choose(&mut self, changes: &[(ReplicaId, usize, bool)]) -> Vec<bool> {
        let (mut chosen, mut since) = (vec![false; changes.len()], BTreeMap::new());
        let mut last_point = None;
        for (at, (author, size, signed)) in changes.iter().enumerate() {
            self.bytes += size;
            match signed {
                true => self.open.remove(author),
                false => self.open.insert(*author),
            };
            if *signed {
                since.insert(*author, at);
            }
            if !self.open.is_empty() {
                continue;
            }
            if self.bytes > WINDOW
                && let Some((point, needed, bytes)) = last_point.take()
            {
                choose(&mut chosen, needed);
                self.bytes -= bytes;
                since.retain(|_, at| *at > point);
            }
            last_point = Some((at, since.clone(), self.bytes));
        }
        if let Some((point, needed, bytes)) = last_point {
            choose(&mut chosen, needed);
            self.bytes -= bytes;
            since.retain(|_, at| *at > point);
        }
        // Those behind the last point too: their authors may have nothing more to come.
        choose(&mut chosen, since);
        chosen
    }
}

fn choose(chosen: &mut [bool], places: BTreeMap<ReplicaId, usize>) {
    places.into_values().for_each(|at| chosen[at] = true);
}

/// Makes changes of the log ready to be sent. Those of `identity` are signed here; `kept` has signatures that the log does not,
/// by author and number.
pub(super) fn sign(
    covering: &mut Covering,
    changes: Vec<store::Change>,
    identity: &Identity,
    kept: &BTreeMap<(ReplicaId, u64), Signature>,
) -> Vec<OutgoingChange> {
    let own = |change: &store::Change| change.actor == identity.replica;
    let here = |change: &store::Change| {
        let logged = change.signature.map(Signature::from_bytes);
        logged.or_else(|| kept.get(&(change.actor, change.seq)).copied())
    };
    let choice: Vec<_> = changes
        .iter()
        .map(|change| (change.actor, change.bytes.len(), own(change) || here(change).is_some()))
        .collect();
    let chosen = covering.choose(&choice);
    let outgoing = changes.into_iter().zip(chosen).map(|(change, chosen)| {
        let signature = match chosen {
            true if own(&change) => Some(signatures::sign(identity, &change)),
            true => here(&change),
            false => None,
        };
        OutgoingChange { replica: change.actor, seq: change.seq, bytes: change.bytes, signature }
    });
    outgoing.collect()
}

/// Changes that came and are not committed yet.
#[derive(Default)]
pub(super) struct Arriving {
    changes: Vec<Change>,
    bytes: usize,
    /// How many of them are covered, and their bytes.
    covered: (usize, usize),
    /// Authors of others.
    open: BTreeSet<ReplicaId>,
    /// Up to which change each author's signature was seen.
    signed: BTreeMap<ReplicaId, u64>,
}

impl Arriving {
    /// Vets changes and checks what signatures came with them. Costs 60 µs a signature beside what vetting costs.
    pub(super) fn take(&mut self, members: &Members, changes: Vec<IncomingChange>) -> Result<(), LinkError> {
        for IncomingChange { bytes, signature } in changes {
            let change = Change::vet(&bytes).map_err(|fault| LinkError::Peer { what: fault.to_string() })?;
            let (author, seq) = (change.replica(), change.seq());
            let refuse = |what: &str| LinkError::Peer { what: format!("change {seq} of {author}, {what}") };
            if !members.has_introduced(author) {
                return Err(refuse("who is no member"));
            }
            let Some(role) = members.role_under(author, change.under()) else {
                return Err(refuse("in a role that nobody gave it"));
            };
            if let Err(overstep) = role.permits(change.touched()) {
                return Err(refuse(&format!("whose role is {role}, {overstep}")));
            }
            if let Some(signature) = &signature {
                let head =
                    ChainHead { account: members.account(), replica: author, seq, hash: change.hash() };
                if !members.keys_of(author).any(|key| head.is_signed(&key, signature)) {
                    return Err(refuse("with a signature that is not its author's"));
                }
                let last = self.signed.entry(author).or_default();
                *last = seq.max(*last);
            }
            match self.signed.get(&author).is_some_and(|last| *last >= seq) {
                true => self.open.remove(&author),
                false => self.open.insert(author),
            };
            self.bytes += bytes.len();
            self.changes.push(change.signed(signature.map(|signature| *signature.as_bytes())));
            if self.open.is_empty() {
                self.covered = (self.changes.len(), self.bytes);
            }
        }
        if self.bytes - self.covered.1 > MAX_UNSIGNED {
            return Err(LinkError::Peer {
                what: "too many changes without the signatures of their authors".into(),
            });
        }
        Ok(())
    }

    /// Bytes of changes that may be committed.
    pub(super) fn covered_bytes(&self) -> usize {
        self.covered.1
    }

    /// Takes out the changes that may be committed.
    pub(super) fn covered(&mut self) -> Vec<Change> {
        let (count, bytes) = std::mem::take(&mut self.covered);
        self.bytes -= bytes;
        let rest = self.changes.split_off(count);
        std::mem::replace(&mut self.changes, rest)
    }

    /// Nothing more comes: nothing may be left.
    pub(super) fn end(&self) -> Result<(), LinkError> {
        let unsigned = self.changes.iter().find(|change| self.open.contains(&change.replica()));
        match unsigned {
            None => Ok(()),
            Some(change) => {
                let what =
                    format!("change {} of {} without its author's signature", change.seq(), change.replica());
                Err(LinkError::Peer { what })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The places up to which all is covered, in bytes, if `sent` says with which changes a signature goes.
    fn points(changes: &[(ReplicaId, usize, bool)], sent: &[bool]) -> Vec<usize> {
        let (mut open, mut bytes, mut points) = (BTreeSet::new(), 0, vec![0]);
        for ((author, size, _), sent) in changes.iter().zip(sent) {
            bytes += size;
            if *sent {
                open.remove(author);
            } else {
                open.insert(*author);
            }
            if open.is_empty() {
                points.push(bytes);
            }
        }
        points
    }

    fn widest(points: &[usize]) -> usize {
        points.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn what_a_receiver_holds_does_not_grow_from_hop_to_hop(
            changes in proptest::collection::vec((0u8..4, 1usize..300_000, any::<bool>()), 1..120),
            chunk in 1usize..20,
        ) {
            let mut changes: Vec<_> = changes
                .into_iter()
                .map(|(author, size, signed)| (ReplicaId::from_bytes([author; 16]), size, signed))
                .collect();
            // Whatever is in a log is covered there.
            let last: BTreeMap<_, _> = changes.iter().enumerate().map(|(at, change)| (change.0, at)).collect();
            last.into_values().for_each(|at| changes[at].2 = true);
            let available: Vec<bool> = changes.iter().map(|change| change.2).collect();
            let here = points(&changes, &available);

            let mut covering = Covering::default();
            let sent: Vec<bool> = changes.chunks(chunk).flat_map(|part| covering.choose(part)).collect();
            prop_assert!(sent.iter().zip(&available).all(|(sent, available)| *available || !sent));
            let there = points(&changes, &sent);
            prop_assert_eq!(here.last(), there.last(), "all is covered in the end");
            // A chunk stands for what is read at a time, which is bounded where it is read.
            let read = changes.chunks(chunk).map(|part| part.iter().map(|change| change.1).sum()).max();
            prop_assert!(widest(&there) <= widest(&here).max(WINDOW).max(read.unwrap_or(0)));
        }
    }

    #[test]
    fn one_signature_is_enough_for_many_small_changes() {
        let changes = vec![(ReplicaId::from_bytes([1; 16]), 100, true); 5_000];
        let chosen = Covering::default().choose(&changes);
        assert_eq!(chosen.iter().filter(|chosen| **chosen).count(), 1);
        assert!(chosen[4_999]);
    }
}
