//! Which changes the peer still lacks, and when to ask the host for them.

use super::compact::Compactor;
use super::error::{Misbehaved, SessionError};
use super::frame::{Frame, MAX_CHANGES, batches};
use super::handshake::{Digest, State, VersionVector};
use super::outbox::Outbox;
use super::{MAX_CHANGE, MAX_QUEUED, MAX_REPLICAS};
use crate::mailbox::ReplicaId;
use crate::member::Signature;

/// A change for the peer. The session never looks into its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutgoingChange {
    /// The replica that made it.
    pub replica: ReplicaId,
    /// Its number among that replica's changes, from 1.
    pub seq: u64,
    /// The change, at most [`MAX_CHANGE`] bytes and not empty.
    pub bytes: Vec<u8>,
    /// What its author signed, if that goes with it.
    pub signature: Option<Signature>,
}

#[derive(Default, PartialEq, Eq, Clone, Copy, Debug)]
enum Phase {
    /// It is not known yet what the peer has.
    #[default]
    Unknown,
    /// The host has nothing new.
    Idle,
    /// The host is to be asked once the queue is empty.
    Due,
    /// The host was asked and did not say yet that it is done.
    Asked,
}

/// The changes on their way to the peer.
#[derive(Default)]
pub(super) struct Outgoing {
    phase: Phase,
    /// Something happened while the host was being asked, or before it could be.
    again: bool,
    /// What the peer said it has, or what it was sent.
    peer: VersionVector,
    /// What it said.
    said: VersionVector,
    /// What the peer was told that is here.
    told: VersionVector,
    /// The state that it was told last.
    digest: Option<Digest>,
    compactor: Compactor,
}

impl Outgoing {
    /// The peer has what is here.
    pub(super) fn in_sync(&mut self, state: &State) {
        self.phase = if std::mem::take(&mut self.again) { Phase::Due } else { Phase::Idle };
        self.peer = state.changes.clone();
        self.said = state.changes.clone();
        self.told = state.changes.clone();
        self.digest = Some(state.digest);
    }

    /// The peer hears, by an acknowledgement, that what is here is what it has. The first *changes end* is due all the same.
    pub(super) fn same(&mut self, state: &State) {
        self.told(&state.changes);
        if let Some(digest) = &mut self.digest {
            *digest = state.digest;
        }
    }

    /// Remembers what the peer was told.
    pub(super) fn told(&mut self, changes: &VersionVector) {
        merge(&mut self.told, changes);
    }

    /// What of `changes` the peer was not told.
    pub(super) fn news(&self, changes: &VersionVector) -> VersionVector {
        let news = changes.iter().filter(|(replica, seq)| self.told.get(replica) != Some(seq));
        news.map(|(replica, seq)| (*replica, *seq)).collect()
    }

    /// The peer has `changes`, to begin with.
    pub(super) fn begin(&mut self, changes: &VersionVector) {
        merge(&mut self.peer, changes);
        merge(&mut self.said, changes);
        self.again = false;
        self.phase = Phase::Due;
    }

    /// The peer has `changes` by now.
    /// It cannot make the vector grow without end by naming ever new replicas.
    pub(super) fn peer_has(&mut self, changes: &VersionVector) -> Result<(), Misbehaved> {
        merge(&mut self.peer, changes);
        merge(&mut self.said, changes);
        if self.peer.len() > 2 * MAX_REPLICAS { Err(Misbehaved::TooMuch) } else { Ok(()) }
    }

    pub(super) fn peer(&self) -> &VersionVector {
        &self.peer
    }

    pub(super) fn said(&self) -> &VersionVector {
        &self.said
    }

    /// There may be something new for the peer.
    pub(super) fn changed(&mut self) {
        match self.phase {
            Phase::Idle => self.phase = Phase::Due,
            Phase::Asked | Phase::Unknown => self.again = true,
            Phase::Due => {}
        }
    }

    /// What to ask the host with, if it is time.
    pub(super) fn ask(&mut self, outbox: &Outbox) -> Option<VersionVector> {
        if self.phase != Phase::Due || !outbox.no_changes() {
            return None;
        }
        self.phase = Phase::Asked;
        Some(self.peer.clone())
    }

    /// Queues what the host brought.
    pub(super) fn offer(
        &mut self,
        changes: Vec<OutgoingChange>,
        end: Option<State>,
        outbox: &mut Outbox,
    ) -> Result<(), SessionError> {
        if self.phase != Phase::Asked {
            return Err(SessionError::Misuse("changes were offered that nobody asked for"));
        }
        let size: usize = changes.iter().map(|change| change.bytes.len()).sum();
        let fits = |change: &OutgoingChange| !change.bytes.is_empty() && change.bytes.len() <= MAX_CHANGE;
        if size > MAX_QUEUED + MAX_CHANGE || !changes.iter().all(fits) {
            return Err(SessionError::Misuse("more or larger changes were offered than may be"));
        }
        if changes.is_empty() && end.is_none() {
            return Err(SessionError::Misuse("no changes were offered, though there are more"));
        }
        let nothing_new = changes.is_empty();
        for change in &changes {
            let last = self.peer.entry(change.replica).or_default();
            *last = change.seq.max(*last);
        }
        let (bodies, signed): (_, Vec<_>) =
            changes.into_iter().map(|change| (change.bytes, change.signature)).unzip();
        let mut signed = signed.into_iter();
        for changes in batches(bodies, MAX_CHANGES) {
            let here = signed.by_ref().take(changes.len()).enumerate();
            let signatures = here.filter_map(|(at, signature)| Some((at, signature?))).collect();
            outbox.change(&Frame::Changes { packed: self.compactor.pack(&changes), signatures });
        }
        let Some(state) = end else {
            self.phase = Phase::Due;
            return Ok(());
        };
        self.phase = if std::mem::take(&mut self.again) { Phase::Due } else { Phase::Idle };
        if nothing_new && self.digest == Some(state.digest) {
            return Ok(());
        }
        let news = self.news(&state.changes);
        outbox.change(&Frame::ChangesEnd { digest: state.digest, changes: news });
        merge(&mut self.told, &state.changes);
        self.digest = Some(state.digest);
        Ok(())
    }
}

/// Raises each entry of `into` to that of `from`.
fn merge(into: &mut VersionVector, from: &VersionVector) {
    for (replica, seq) in from {
        let last = into.entry(*replica).or_default();
        *last = (*last).max(*seq);
    }
}
