//! Bodies on their way in and out of a conversation.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use super::{Link, LinkError, LinkEvent};
use crate::blob::{BlobId, Bundle, MAX_BLOB, MAX_SMALL};
use crate::mutation::{Mutation, planted};
use crate::replica::ReplicaError;
use crate::replica::owed::{self, Owed};
use crate::store::StoreError;
use crate::sync::{MAX_WANTED, PIECE, Want, Wanted};

/// What is being fetched from the peer.
#[derive(Default)]
pub(super) struct Fetching {
    /// Asked for and not answered; without the debt where somebody could not wait for the list.
    open: BTreeMap<BlobId, Option<Owed>>,
    /// Further messages with a body that was asked for.
    twins: BTreeMap<BlobId, Vec<Owed>>,
    /// The peer does not have these.
    missing: BTreeSet<BlobId>,
    /// Of those, what the peer has got since: asked for before what the list says.
    again: BTreeSet<BlobId>,
    /// Arrived, and still listed as owed.
    arrived: Vec<Owed>,
    arrived_bytes: u64,
    /// Arrived, and nobody was told.
    untold: Vec<BlobId>,
    /// Whether something arrived whose place in the list was passed.
    passed: bool,
    /// How far the list of what is owed was read.
    last: Option<Owed>,
    /// How many bodies are owed in all, and their bytes; counted when somebody asks.
    left: Option<(u64, u64)>,
    /// Whether bodies are left alone in this conversation.
    left_alone: bool,
}

/// Bodies after which the list of what is owed is brought up to date, and bytes.
const NOTE_BODIES: usize = 1000;
const NOTE_BYTES: u64 = 16 << 20;
/// Bodies that a peer asked for in vain and is told about when they come: 2 MiB of names. For the rest it asks again when
/// there are new changes, or in the next conversation.
const MAX_SAID_MISSING: usize = 1 << 16;

impl Fetching {
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn leave(&mut self) {
        self.left_alone = true;
    }

    /// There may be new debts, more urgent ones among them: the list is read from the top again.
    pub(super) fn look_again(&mut self) {
        self.last = None;
        self.left = None;
        // The peer may have got by now what it lacked.
        self.missing.clear();
        self.again.clear();
    }
}

impl Link {
    /// Asks for as many owed bodies as may be open. When there are none left, says that all are held.
    pub(super) fn want_more(&mut self) -> Result<(), LinkError> {
        if self.fetching.left_alone {
            return Ok(());
        }
        let snapshot = self.replica.view()?;
        let mut wants = self.want_first()?;
        'fill: while wants.len() < self.session.want_room() {
            let part = owed::list(snapshot.tables(), self.fetching.last.as_ref(), 256)?;
            if part.is_empty() {
                if self.fetching.is_idle() && std::mem::take(&mut self.fetching.passed) {
                    self.fetching.last = None;
                    continue;
                }
                break;
            }
            for body in part {
                if wants.len() == self.session.want_room() {
                    break 'fill;
                }
                self.fetching.last = Some(body.clone());
                let missing = self.fetching.missing.contains(&body.blob);
                if missing || !owed::is_needed(&snapshot.view(), &body)? {
                    continue;
                }
                if self.fetching.open.contains_key(&body.blob) {
                    self.fetching.twins.entry(body.blob).or_default().push(body);
                    continue;
                }
                if self.replica.has_body(body.blob)? {
                    // It may have come in a conversation that was cut before anybody was told.
                    self.fetching.untold.push(body.blob);
                    self.fetching.arrived.push(body);
                    if self.fetching.arrived.len() >= NOTE_BODIES {
                        self.note_arrived()?;
                    }
                    continue;
                }
                let offset = match body.size >= MAX_SMALL as u64 {
                    true => self.bodies().partial(body.blob).map_err(ReplicaError::from)?.length(),
                    false => 0,
                };
                wants.push(Want { blob: body.blob, offset, at_most: body.size });
                self.fetching.open.insert(body.blob, Some(body));
            }
        }
        if !wants.is_empty() {
            self.session.want(wants, self.now)?;
        }
        if self.fetching.is_idle() {
            self.note_arrived()?;
            self.say_held()?;
        }
        Ok(())
    }

    /// What goes before the list: bodies that somebody waits for, and those that the peer has got since it was asked.
    fn want_first(&mut self) -> Result<Vec<Want>, LinkError> {
        let mut first = self.replica.wanted()?;
        first.retain(|blob| !self.fetching.missing.contains(blob));
        first.extend(&self.fetching.again);
        let mut wants = Vec::new();
        let mut partials: Option<BTreeMap<BlobId, u64>> = None;
        for blob in first {
            if wants.len() == self.session.want_room() {
                break;
            }
            self.fetching.again.remove(&blob);
            if self.fetching.open.contains_key(&blob) || self.replica.has_body(blob)? {
                continue;
            }
            let known = match &mut partials {
                Some(known) => known,
                none => {
                    none.insert(self.bodies().partials().map_err(ReplicaError::from)?.into_iter().collect())
                }
            };
            let offset = known.get(&blob).copied().unwrap_or(0);
            wants.push(Want { blob, offset, at_most: MAX_BLOB });
            self.fetching.open.insert(blob, None);
        }
        Ok(wants)
    }

    /// Asks for what somebody began to wait for.
    pub(super) fn hurry(&mut self) -> Result<(), LinkError> {
        let news =
            |blob: &BlobId| !self.fetching.open.contains_key(blob) && !self.fetching.missing.contains(blob);
        match self.replica.wanted()?.iter().any(news) {
            true => self.want_more(),
            false => Ok(()),
        }
    }

    /// Acknowledges the peer's state, if it is that of this replica and no body of it is owed. Bodies are made durable first.
    pub(super) fn say_held(&mut self) -> Result<(), LinkError> {
        let snapshot = self.replica.view()?;
        let ours = self.replica.state_at(&snapshot)?;
        if self.peer_digest != Some(ours.digest) || self.held_theirs == Some(ours.digest) {
            return Ok(());
        }
        if self.replica.owed(&snapshot, 1)?.is_empty() || planted(Mutation::HeldTooEarly) {
            self.bodies().sync().map_err(ReplicaError::from)?;
            self.session.held(&ours)?;
            self.held_theirs = Some(ours.digest);
            self.incoming.unheld = false;
        }
        Ok(())
    }

    fn bodies(&self) -> &crate::store::BodyStore {
        self.replica.0.handle.bodies()
    }

    /// Answers the most urgent request, together with others that the same bundle answers.
    pub(super) fn serve(&mut self, wanted: &[Wanted]) -> Result<(), LinkError> {
        let Some(first) = wanted.first() else { return Ok(()) };
        match self.serve_from_disk(first, wanted) {
            Err(LinkError::Replica(ReplicaError::Store(error @ StoreError::Damaged { .. }))) => {
                // One rotten body must not keep the others from the peer.
                tracing::error!(blob = %first.blob, %error, "a body cannot be read; `check` names all of them");
                self.say_missing(first.blob)
            }
            served => served,
        }
    }

    fn serve_from_disk(&mut self, first: &Wanted, wanted: &[Wanted]) -> Result<(), LinkError> {
        if first.offset == 0
            && let Some(bundle) = self.bodies().bundle_of(first.blob).map_err(ReplicaError::from)?
        {
            let index = Bundle::index(&bundle).map_err(StoreError::from).map_err(ReplicaError::from)?;
            let asked: BTreeSet<BlobId> = wanted.iter().filter(|w| w.offset == 0).map(|w| w.blob).collect();
            let answers: Vec<BlobId> =
                index.iter().map(|(id, _)| *id).filter(|id| asked.contains(id)).collect();
            // A bundle of which the peer needs little is not worth its bytes.
            let bytes = |only: bool| -> usize {
                index.iter().filter(|(id, _)| !only || asked.contains(id)).map(|(_, len)| *len).sum()
            };
            if 2 * bytes(true) >= bytes(false) {
                return Ok(self.session.send_bundle(&answers, &bundle)?);
            }
            let body = Bundle::extract(&bundle, first.blob);
            let body = body.map_err(StoreError::from).map_err(ReplicaError::from)?;
            let alone = Bundle::encode(&[(first.blob, &body)]);
            let alone = alone.map_err(StoreError::from).map_err(ReplicaError::from)?;
            return Ok(self.session.send_bundle(&[first.blob], &alone)?);
        }
        if self.replica.has_body(first.blob)? {
            return self.stream(*first);
        }
        self.say_missing(first.blob)
    }

    /// The peer is told once the body is here after all.
    fn say_missing(&mut self, blob: BlobId) -> Result<(), LinkError> {
        self.sent_missing = Some(self.now);
        if self.said_missing.len() < MAX_SAID_MISSING {
            self.said_missing.insert(blob);
        }
        Ok(self.session.send_missing(blob)?)
    }

    /// Tells the peer of bodies that it asked for in vain and that have arrived since.
    pub(super) fn tell_here(&mut self) -> Result<(), LinkError> {
        let news = self.replica.arrived_since(&mut self.arrivals);
        let mut here = Vec::new();
        for blob in news.unwrap_or_else(|| self.said_missing.iter().copied().collect()) {
            if self.said_missing.contains(&blob) && self.replica.has_body(blob)? {
                self.said_missing.remove(&blob);
                here.push(blob);
            }
        }
        for part in here.chunks(MAX_WANTED) {
            self.session.send_here(part.to_vec())?;
        }
        if self.said_missing.is_empty() {
            self.sent_missing = None;
        }
        Ok(())
    }

    /// Sends the next piece of a large body.
    pub(super) fn stream(&mut self, wanted: Wanted) -> Result<(), LinkError> {
        let mut reader = match self.streaming.take() {
            Some((at, reader)) if at == wanted => reader,
            _ => self.bodies().open_at(wanted.blob, wanted.offset).map_err(ReplicaError::from)?,
        };
        let mut piece = vec![0; PIECE];
        let mut len = 0;
        while len < piece.len() {
            match reader.read(&mut piece[len..]) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(source) => {
                    let path = wanted.blob.to_string().into();
                    return Err(ReplicaError::Io { action: "read the body", path, source }.into());
                }
            }
        }
        piece.truncate(len);
        let last = reader.remaining() == 0;
        if !last {
            self.streaming = Some((Wanted { offset: wanted.offset + len as u64, ..wanted }, reader));
        }
        Ok(self.session.send_chunk(wanted, piece, last)?)
    }

    /// Takes a bundle: every body in it is checked against its name before it is stored.
    pub(super) fn take_bundle(&mut self, blobs: &[BlobId], bytes: &[u8]) -> Result<(), LinkError> {
        let stored = match self.bodies().import_bundle(bytes) {
            Ok(stored) => stored,
            Err(StoreError::Bundle(error)) => return Err(LinkError::Peer { what: error.to_string() }),
            Err(error) => return Err(ReplicaError::from(error).into()),
        };
        for blob in blobs {
            if !stored.iter().any(|(id, _)| id == blob) {
                return Err(LinkError::Peer {
                    what: format!("a bundle without the body {blob} that it answers"),
                });
            }
            self.arrived(*blob)?;
        }
        Ok(())
    }

    /// Takes a piece of a large body. The whole is checked against its name when the last piece is here. Another conversation
    /// may be fetching the same body: what is here already is passed over.
    pub(super) fn take_chunk(
        &mut self,
        blob: BlobId,
        offset: u64,
        bytes: &[u8],
        last: bool,
    ) -> Result<(), LinkError> {
        let mut partial = self.bodies().partial(blob).map_err(ReplicaError::from)?;
        let fits = partial.length() == offset && !self.replica.has_body(blob)?;
        if fits {
            partial.append(bytes).map_err(ReplicaError::from)?;
        }
        match last {
            false => Ok(()),
            true if fits => match partial.finish() {
                Ok(_) => self.arrived(blob),
                Err(error @ StoreError::WrongBody { .. }) => Err(LinkError::Peer { what: error.to_string() }),
                Err(error) => Err(ReplicaError::from(error).into()),
            },
            // Finished by the other conversation, or still on its way there.
            true if self.replica.has_body(blob)? => {
                partial.discard().map_err(ReplicaError::from)?;
                self.arrived(blob)
            }
            true => self.take_missing(blob),
        }
    }

    /// A body that this peer does not have stops nothing else; another peer may have it.
    pub(super) fn take_missing(&mut self, blob: BlobId) -> Result<(), LinkError> {
        self.fetching.open.remove(&blob);
        self.fetching.twins.remove(&blob);
        self.fetching.missing.insert(blob);
        self.events.push_back(LinkEvent::Missing(blob));
        if self.fetching.is_idle() {
            self.want_more()?;
        }
        Ok(())
    }

    /// The peer has got bodies that it did not have when it was asked.
    pub(super) fn take_here(&mut self, blobs: &[BlobId]) -> Result<(), LinkError> {
        for blob in blobs {
            if self.fetching.missing.remove(blob) {
                self.fetching.again.insert(*blob);
            }
        }
        self.want_more()
    }

    fn arrived(&mut self, blob: BlobId) -> Result<(), LinkError> {
        let Some(body) = self.fetching.open.remove(&blob) else { return Ok(()) };
        let hurried = self.replica.is_wanted(blob);
        self.fetching.untold.push(blob);
        match body {
            Some(body) => {
                self.fetching.arrived_bytes += body.size;
                self.fetching.arrived.push(body);
            }
            None => self.fetching.passed = true,
        }
        self.fetching.arrived.extend(self.fetching.twins.remove(&blob).unwrap_or_default());
        let many = self.fetching.untold.len().max(self.fetching.arrived.len()) >= NOTE_BODIES;
        if hurried || many || self.fetching.arrived_bytes >= NOTE_BYTES {
            self.note_arrived()?;
        }
        if self.fetching.is_idle() {
            self.want_more()?;
        }
        Ok(())
    }

    /// Strikes what arrived off the list of what is owed. After a crash it is on the list again, and found to be here.
    fn note_arrived(&mut self) -> Result<(), LinkError> {
        let arrived = std::mem::take(&mut self.fetching.arrived);
        let bytes = std::mem::take(&mut self.fetching.arrived_bytes);
        let untold = std::mem::take(&mut self.fetching.untold);
        if !untold.is_empty() {
            self.replica.tell_arrived(untold);
        }
        if arrived.is_empty() {
            return Ok(());
        }
        self.replica.with(|core| {
            let mut txn = core.store.begin()?;
            for body in &arrived {
                owed::settle(&mut txn, body)?;
            }
            txn.commit()?;
            Ok(())
        })?;
        let count = arrived.len() as u64;
        let (left, left_bytes) = match self.fetching.left {
            Some((left, left_bytes)) => (left.saturating_sub(count), left_bytes.saturating_sub(bytes)),
            None => {
                let status = self.replica.status()?;
                (status.owed_bodies, status.owed_bytes)
            }
        };
        self.fetching.left = Some((left, left_bytes));
        self.events.push_back(LinkEvent::Bodies { count, bytes, left, left_bytes });
        Ok(())
    }
}
