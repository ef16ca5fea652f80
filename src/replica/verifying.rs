//! Proof that two sides have the same: who asks for it, and what came of it.
//!
//! A request waits in the replica until a conversation with the peer picks it up: one that goes on, or the next one.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::{Replica, lock, now};
use crate::blob::BlobId;
use crate::mailbox::{MailboxName, ReplicaId};
use crate::sync::SurveyedMailbox;

/// What a comparison with a peer found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The state that both were in: it names all changes and members.
    pub digest: [u8; 16],
    /// Every mailbox that either has, by name.
    pub mailboxes: Vec<MailboxVerdict>,
    /// Messages whose bodies are here.
    pub bodies: u64,
    /// Bodies that are here and not at the peer, [`Verdict::MAX_NAMED`] at most.
    pub only_here: Vec<BlobId>,
    /// Bodies that the peer has and this replica lacks, as many at most.
    pub only_there: Vec<BlobId>,
    /// How many of the 256 parts by which bodies are compared differ.
    pub differing_buckets: u64,
    /// Whether one side shows private UIDs, so that messages were compared and UIDs were not.
    pub without_uids: bool,
}

/// How a mailbox is on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxVerdict {
    /// Its name.
    pub name: MailboxName,
    /// How it is here.
    pub here: Option<SurveyedMailbox>,
    /// How it is there.
    pub there: Option<SurveyedMailbox>,
    /// What differs, in words; nothing if all is the same.
    pub differs: Vec<&'static str>,
}

impl Verdict {
    /// Bodies that are named on each side: who has lost more needs a repair and no list.
    pub const MAX_NAMED: usize = 1000;

    /// Whether both have the same.
    pub fn is_equal(&self) -> bool {
        self.differing_buckets == 0 && self.mailboxes.iter().all(|mailbox| mailbox.differs.is_empty())
    }
}

/// Why there is no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// Both went on and on.
    #[error("the two sides were never in one state for long enough to be compared")]
    NeverStill,
    /// Nobody said anything.
    #[error("no conversation with the peer came to a verdict")]
    NoAnswer,
}

type Outcome = Result<Verdict, Unverified>;

/// A request to compare with a peer. Dropped, it is withdrawn.
pub struct Verification {
    replica: Replica,
    peer: ReplicaId,
    waiter: Arc<Waiter>,
}

#[derive(Default)]
pub(super) struct Waiter {
    outcome: Mutex<Option<Outcome>>,
    bell: Condvar,
}

/// Requests that wait, and what the last comparison with each peer found: when it was, and whether the two were equal.
#[derive(Default)]
pub(super) struct Verifications {
    waiting: BTreeMap<ReplicaId, Arc<Waiter>>,
    last: BTreeMap<ReplicaId, (i64, bool)>,
}

impl Replica {
    /// Has the conversation with a peer, or the next one, compare what both have.
    pub fn verify(&self, peer: ReplicaId) -> Verification {
        let waiter = lock(&self.0.verifications).waiting.entry(peer).or_default().clone();
        self.tell(&[]);
        Verification { replica: self.clone(), peer, waiter }
    }

    /// What the last comparison with each peer since this was opened found: when, and whether both had the same.
    pub fn verified(&self) -> BTreeMap<ReplicaId, (i64, bool)> {
        lock(&self.0.verifications).last.clone()
    }

    pub(super) fn is_to_verify(&self, peer: ReplicaId) -> bool {
        lock(&self.0.verifications).waiting.contains_key(&peer)
    }

    pub(super) fn verified_with(&self, peer: ReplicaId, outcome: Outcome) {
        let waiter = {
            let mut verifications = lock(&self.0.verifications);
            if let Ok(verdict) = &outcome {
                verifications.last.insert(peer, (now(), verdict.is_equal()));
            }
            verifications.waiting.remove(&peer)
        };
        if let Ok(verdict) = &outcome
            && !verdict.is_equal()
        {
            let mailboxes = verdict.mailboxes.iter().filter(|mailbox| !mailbox.differs.is_empty()).count();
            let (here, there) = (verdict.only_here.len(), verdict.only_there.len());
            tracing::error!(%peer, mailboxes, only_here = here, only_there = there, "a peer has something else");
        }
        if let Some(waiter) = waiter {
            *lock(&waiter.outcome) = Some(outcome);
            waiter.bell.notify_all();
        }
    }
}

impl Verification {
    /// Waits for the verdict.
    pub fn wait(&self, time: Duration) -> Outcome {
        let outcome = lock(&self.waiter.outcome);
        let waited = self.waiter.bell.wait_timeout_while(outcome, time, |outcome| outcome.is_none());
        let outcome = waited.unwrap_or_else(PoisonError::into_inner).0.clone();
        outcome.unwrap_or(Err(Unverified::NoAnswer))
    }
}

impl Drop for Verification {
    fn drop(&mut self) {
        // Two for this one and the list: nobody else waits.
        if Arc::strong_count(&self.waiter) <= 2 {
            lock(&self.replica.0.verifications).waiting.remove(&self.peer);
        }
    }
}
