//! Changes on their way in and out of a conversation.

use std::collections::{BTreeMap, BTreeSet};

use super::chains::{self, Arriving};
use super::{Link, LinkError, LinkEvent};
use crate::mailbox::{Change, Document, ReplicaId};
use crate::member::Role;
use crate::mutation::{Mutation, planted};
use crate::replica::core::Core;
use crate::replica::record::LocalRecord;
use crate::replica::signatures;
use crate::sync::{Digest, IncomingChange, State};
use crate::uid::{Account, AccountError};

/// What comes, and what is said of it.
#[derive(Default)]
pub(super) struct Incoming {
    arriving: Arriving,
    /// The peer's mod-sequence counter.
    pub(super) counter: u64,
    /// Whether the peer was sent changes, so that it is to acknowledge their bodies.
    pub(super) sent: bool,
    /// Whether this side was sent changes, and has not said since that their bodies are here.
    pub(super) unheld: bool,
}

/// Bytes of changes that are committed together: memory stays bounded, and a first sync is not one commit a frame.
const COMMIT_BYTES: usize = 4 << 20;

impl Link {
    /// Brings changes that the peer lacks, straight from the log: the document is not needed.
    pub(super) fn offer(
        &mut self,
        peer_has: &BTreeMap<ReplicaId, u64>,
        room: usize,
    ) -> Result<(), LinkError> {
        if self.outgoing.is_none() {
            let snapshot = self.replica.view()?;
            let missing = snapshot.tables().missing(peer_has).map_err(crate::replica::ReplicaError::from)?;
            self.outgoing = Some((missing, snapshot));
        }
        let Some((missing, snapshot)) = &mut self.outgoing else { return Ok(()) };
        let (mut changes, mut size) = (Vec::new(), 0);
        let mut exhausted = true;
        for change in missing.by_ref() {
            let change = change.map_err(crate::replica::ReplicaError::from)?;
            size += change.bytes.len();
            changes.push(change);
            if size >= room {
                exhausted = false;
                break;
            }
        }
        self.incoming.sent |= !changes.is_empty();
        let end = match exhausted {
            true => Some(self.replica.state_at(snapshot)?),
            false => None,
        };
        if end.is_some() {
            self.outgoing = None;
        }
        let covering = &mut self.covering;
        let changes = self.replica.with(|core| {
            let (identity, kept) = (&core.identity, signatures::kept(&core.store.reader()?)?);
            Ok(chains::sign(covering, changes, identity, &kept))
        })?;
        Ok(self.session.offer_changes(changes, end)?)
    }

    /// Keeps changes until they are committed. The author's admission may be void by now: members who did not know that took the
    /// change and wrote what follows it, and who refused it would never take anything of theirs again.
    pub(super) fn take(&mut self, changes: Vec<IncomingChange>) -> Result<(), LinkError> {
        self.incoming.unheld |= !changes.is_empty();
        let arriving = &mut self.incoming.arriving;
        self.replica.with(|core| Ok(arriving.take(&core.members, changes)))??;
        if arriving.covered_bytes() >= COMMIT_BYTES {
            self.commit()?;
        }
        Ok(())
    }

    /// Commits what arrived, with the bodies that are owed for it.
    pub(super) fn commit(&mut self) -> Result<(), LinkError> {
        let changes = self.incoming.arriving.covered();
        if changes.is_empty() {
            return Ok(());
        }
        self.notice_rollback(&changes)?;
        let counter = self.incoming.counter;
        let count = changes.len() as u64;
        let result = self.replica.with(|core| {
            let known = Account::counter(&core.store.reader()?)?;
            let records = if counter > known { vec![LocalRecord::Counter(counter)] } else { Vec::new() };
            match core.receive(&records, changes) {
                Ok(events) => Ok(Ok(events)),
                // What the document refuses, the peer should not have sent.
                Err(crate::replica::ReplicaError::Account(AccountError::Document(error))) => {
                    Ok(Err(LinkError::Peer { what: error.to_string() }))
                }
                Err(error) => Err(error),
            }
        })?;
        let events = result?;
        self.events.push_back(LinkEvent::Received { changes: count });
        self.replica.tell(&events);
        Ok(())
    }

    /// A peer that brings changes of this replica which are not here: the store was rolled back, and what it showed since is
    /// unknown. It goes on as another replica, from the next conversation on, and takes in those changes then.
    ///
    /// That a peer says that it has them is not enough: a version vector is quickly damaged or made up, and a succession costs
    /// each client its cache. The first of them must follow what this replica wrote last, which its own changes always do.
    fn notice_rollback(&mut self, changes: &[Change]) -> Result<(), LinkError> {
        let rolled_back = self.replica.with(|core| {
            let own = core.identity.replica;
            let reader = core.store.reader()?;
            let here = reader.last_seq(own)?;
            let beyond = |change: &&Change| change.replica() == own && change.seq() > here;
            let Some(first) = changes.iter().find(beyond) else { return Ok(Ok(false)) };
            let last = reader.change(own, here)?.map(|change| change.hash);
            drop(reader);
            if first.seq() != here + 1 || !follows(core.account()?.document(), changes, first, last) {
                let what =
                    format!("change {} of this replica, which does not follow what it wrote", first.seq());
                return Ok(Err(LinkError::Peer { what }));
            }
            crate::replica::members::succeed(core)?;
            Ok(Ok(true))
        })??;
        if rolled_back {
            self.replica.tell(&[]);
            return Err(LinkError::RolledBack);
        }
        Ok(())
    }

    /// A peer that has said all cannot have more of this replica's changes than are here.
    fn check_claim(&self) -> Result<(), LinkError> {
        let (own, here) = self.replica.with(|core| {
            let own = core.identity.replica;
            Ok((own, core.store.reader()?.last_seq(own)?))
        })?;
        match self.session.peer_has().get(&own) {
            Some(seq) if *seq > here => {
                let what = format!("the word that it has change {seq} of this replica, and not the change");
                Err(LinkError::Peer { what })
            }
            _ => Ok(()),
        }
    }

    /// The peer has sent all it has. What is owed for it is asked for before the acknowledgement, so that a peer which leaves
    /// when it is acknowledged knows that it is still needed.
    pub(super) fn changes_end(&mut self, digest: Digest) -> Result<(), LinkError> {
        if planted(Mutation::KnownTooEarly) {
            let mut known =
                self.replica.view()?.tables().vector().map_err(crate::replica::ReplicaError::from)?;
            known.extend(self.session.peer_has());
            return Ok(self.session.changes_known(known)?);
        }
        self.commit()?;
        self.incoming.arriving.end()?;
        self.check_claim()?;
        self.peer_digest = Some(digest);
        self.heard_inviter()?;
        self.claim_for_others()?;
        self.fetching.look_again();
        self.want_more()?;
        // If this side is where the peer is, bodies included, it has said so, and that says that the changes are here.
        if self.held_theirs != Some(digest) {
            let known = self.replica.view()?.tables().vector().map_err(crate::replica::ReplicaError::from)?;
            self.session.changes_known(known)?;
        }
        self.session.local_changed();
        Ok(())
    }

    /// With all that the inviter had a new server knows which UIDs of its lane are taken.
    pub(super) fn heard_inviter(&mut self) -> Result<(), LinkError> {
        let Some(peer) = self.member.as_ref().map(|member| member.replica) else { return Ok(()) };
        self.replica.with(|core| {
            let own = core.members.get(core.identity.replica);
            let waits = own.is_some_and(|own| own.inviter == Some(peer) && own.role == Role::Server);
            if waits && !core.is_ready()? {
                let known = core.store.reader()?.vector()?;
                core.change(&[LocalRecord::Granted(known)], |_, _| Ok(((), Default::default())))?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Of the servers that are connected the one with the lowest lane claims for the messages of others. No UID relies on it: who
    /// shows a mailbox claims what is not claimed. But two that always did so at the same moment would never come to rest.
    fn claim_for_others(&mut self) -> Result<(), LinkError> {
        let (role, ready) = self.replica.with(|core| Ok((core.role(), core.is_ready()?)))?;
        if role == Role::Server && ready && !self.replica.0.elders.any() {
            self.replica.settle(None)?;
        }
        Ok(())
    }
}

/// Whether `change` and what of its past came with it lead to changes that are here, `last` among them or their past.
fn follows(document: &Document, came: &[Change], change: &Change, last: Option<[u8; 32]>) -> bool {
    let came: BTreeMap<[u8; 32], &Change> = came.iter().map(|change| (change.hash(), change)).collect();
    let (mut next, mut seen, mut here) = (vec![change.hash()], BTreeSet::new(), Vec::new());
    while let Some(hash) = next.pop() {
        match came.get(&hash) {
            _ if !seen.insert(hash) => {}
            Some(change) => next.extend(change.deps()),
            None => here.push(hash),
        }
    }
    last.is_none_or(|last| document.leads_to(&here, &last)) && here.iter().all(|hash| document.has(hash))
}

impl crate::replica::Replica {
    pub(super) fn state_at(&self, snapshot: &crate::replica::read::Snapshot) -> Result<State, LinkError> {
        let heads = Core::heads(snapshot.tables())?;
        let members = self.with(|core| Ok(core.members.digest()))?;
        let changes = snapshot.tables().vector().map_err(crate::replica::ReplicaError::from)?;
        Ok(State { digest: crate::replica::read::digest_of(&members, &heads), changes })
    }
}
