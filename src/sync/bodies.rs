//! Bodies that were asked for, in both directions. Requests are numbered, so an answer names the one it is for.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{Misbehaved, SessionError};
use super::event::Event;
use super::frame::Frame;
use super::outbox::Outbox;
use super::{LOW_WATER, MAX_BUNDLE, MAX_WANTED, PIECE};
use crate::blob::{BlobId, MAX_BLOB};

/// A body to fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    /// The body.
    pub blob: BlobId,
    /// Bytes of it that are here already.
    pub offset: u64,
    /// Its size if known, else [`MAX_BLOB`]: a peer that sends more is sent away.
    pub at_most: u64,
}

/// A body that the peer asks for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Wanted {
    /// The body.
    pub blob: BlobId,
    /// Bytes of it that the peer has already. If any, it wants chunks from there.
    pub offset: u64,
}

/// What we asked the peer for.
#[derive(Default)]
pub(super) struct Asking {
    next: u64,
    open: BTreeMap<u64, Want>,
    blobs: BTreeSet<BlobId>,
    bundle: Option<(Vec<BlobId>, usize, Vec<u8>)>,
    low: bool,
}

impl Asking {
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty() && self.bundle.is_none()
    }

    pub(super) fn room(&self) -> usize {
        MAX_WANTED.saturating_sub(self.open.len())
    }

    pub(super) fn want(&mut self, wants: Vec<Want>) -> Result<Frame, SessionError> {
        let mut fresh = BTreeSet::new();
        let ours = |want: &Want| !self.blobs.contains(&want.blob) && fresh.insert(want.blob);
        if wants.is_empty() || wants.len() > self.room() || !wants.iter().all(ours) {
            return Err(SessionError::Misuse("no body, too many, or one twice was asked for"));
        }
        let first = self.next;
        let bodies = wants.iter().map(|want| (want.blob, want.offset)).collect();
        for want in wants {
            self.blobs.insert(want.blob);
            self.open.insert(self.next, Want { at_most: want.at_most.min(MAX_BLOB), ..want });
            self.next += 1;
        }
        self.low = false;
        Ok(Frame::Want { first, bodies })
    }

    fn close(&mut self, number: u64) -> Result<Want, Misbehaved> {
        let want = self.open.remove(&number).ok_or(Misbehaved::Unrequested)?;
        self.blobs.remove(&want.blob);
        Ok(want)
    }

    /// The head of a bundle.
    pub(super) fn bundle(&mut self, numbers: &[u64], len: u64) -> Result<(), Misbehaved> {
        let len = usize::try_from(len).ok().filter(|len| *len <= MAX_BUNDLE).ok_or(Misbehaved::TooMuch)?;
        if self.bundle.is_some() || numbers.is_empty() || len == 0 {
            return Err(Misbehaved::Unrequested);
        }
        let mut blobs = Vec::new();
        for number in numbers {
            let want = self.close(*number)?;
            if want.offset > 0 {
                return Err(Misbehaved::Unrequested);
            }
            blobs.push(want.blob);
        }
        self.bundle = Some((blobs, len, Vec::new()));
        Ok(())
    }

    /// A piece of the bundle that was begun.
    pub(super) fn piece(&mut self, bytes: &[u8]) -> Result<Option<Event>, Misbehaved> {
        let Some((_, len, so_far)) = self.bundle.as_mut().filter(|_| !bytes.is_empty()) else {
            return Err(Misbehaved::Unrequested);
        };
        if so_far.len() + bytes.len() > *len {
            return Err(Misbehaved::TooMuch);
        }
        so_far.extend_from_slice(bytes);
        if so_far.len() < *len {
            return Ok(None);
        }
        Ok(self.bundle.take().map(|(blobs, _, bytes)| Event::Bundle { blobs, bytes }))
    }

    pub(super) fn chunk(
        &mut self,
        number: u64,
        offset: u64,
        last: bool,
        bytes: Vec<u8>,
    ) -> Result<Event, Misbehaved> {
        let want = self.open.get_mut(&number).ok_or(Misbehaved::Unrequested)?;
        let blob = want.blob;
        if offset != want.offset {
            return Err(Misbehaved::WrongOffset { blob, offset, expected: want.offset });
        }
        want.offset += bytes.len() as u64;
        if want.offset > want.at_most {
            return Err(Misbehaved::TooMuch);
        }
        if last {
            self.close(number)?;
        }
        Ok(Event::Chunk { blob, offset, bytes, last })
    }

    pub(super) fn missing(&mut self, number: u64) -> Result<Event, Misbehaved> {
        Ok(Event::Missing(self.close(number)?.blob))
    }

    /// Whether it is time to ask for more; says so once.
    pub(super) fn runs_low(&mut self) -> bool {
        let low = self.next > 0 && self.open.len() < LOW_WATER;
        low && !std::mem::replace(&mut self.low, true)
    }
}

/// What the peer asked us for.
#[derive(Default)]
pub(super) struct Serving {
    next: u64,
    open: BTreeMap<u64, Wanted>,
    numbers: BTreeMap<BlobId, u64>,
    /// The body that is being sent in chunks.
    streaming: Option<u64>,
    /// The host was asked and did not answer anything yet.
    asked: bool,
}

impl Serving {
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn wanted(&mut self, first: u64, bodies: Vec<(BlobId, u64)>) -> Result<(), Misbehaved> {
        if first != self.next {
            return Err(Misbehaved::Unrequested);
        }
        if self.open.len() + bodies.len() > MAX_WANTED {
            return Err(Misbehaved::TooManyWanted);
        }
        for (blob, offset) in bodies {
            if self.numbers.insert(blob, self.next).is_some() {
                return Err(Misbehaved::AskedTwice { blob });
            }
            self.open.insert(self.next, Wanted { blob, offset });
            // Cannot overflow: it counts requests that arrived.
            self.next += 1;
        }
        Ok(())
    }

    /// What to ask the host for, once nothing else of a body waits to be sent.
    pub(super) fn ask(&mut self, outbox: &Outbox) -> Option<Event> {
        if self.asked || self.open.is_empty() || !outbox.no_bodies() {
            return None;
        }
        self.asked = true;
        if let Some(wanted) = self.streaming.and_then(|number| self.open.get(&number)) {
            return Some(Event::ChunkWanted(*wanted));
        }
        Some(Event::BodiesWanted(self.open.values().copied().collect()))
    }

    pub(super) fn bundle(
        &mut self,
        blobs: &[BlobId],
        bytes: &[u8],
        outbox: &mut Outbox,
    ) -> Result<(), SessionError> {
        let too_much = bytes.is_empty() || bytes.len() > MAX_BUNDLE || outbox.body_bytes() > MAX_BUNDLE;
        if too_much || self.streaming.is_some() || blobs.is_empty() {
            return Err(SessionError::Misuse("a bundle is empty, too large or out of turn"));
        }
        let numbers: Vec<u64> = blobs.iter().filter_map(|blob| self.numbers.get(blob).copied()).collect();
        let whole = numbers.iter().all(|number| self.open.get(number).is_some_and(|w| w.offset == 0));
        if numbers.len() != blobs.len() || !whole {
            return Err(SessionError::Misuse("a bundle holds a body that was not asked for as a whole"));
        }
        for number in &numbers {
            self.close(*number);
        }
        outbox.body(&Frame::Bundle { numbers, len: bytes.len() as u64 });
        for piece in bytes.chunks(PIECE) {
            outbox.body(&Frame::Piece { bytes: piece.to_vec() });
        }
        Ok(())
    }

    pub(super) fn chunk(
        &mut self,
        chunk: Wanted,
        bytes: Vec<u8>,
        last: bool,
        outbox: &mut Outbox,
    ) -> Result<(), SessionError> {
        let misuse = SessionError::Misuse("a chunk is out of turn, misplaced, empty or too large");
        let Some(number) = self.numbers.get(&chunk.blob).copied() else { return Err(misuse) };
        let open = self.open.get_mut(&number).filter(|wanted| **wanted == chunk);
        let Some(open) = open.filter(|_| self.streaming.is_none_or(|streaming| streaming == number)) else {
            return Err(misuse);
        };
        if bytes.len() > PIECE || (bytes.is_empty() && !last) {
            return Err(misuse);
        }
        open.offset += bytes.len() as u64;
        self.streaming = (!last).then_some(number);
        self.asked = false;
        outbox.body(&Frame::Chunk { number, offset: chunk.offset, last, bytes });
        if last {
            self.close(number);
        }
        Ok(())
    }

    pub(super) fn missing(&mut self, blob: BlobId, outbox: &mut Outbox) -> Result<(), SessionError> {
        let number = self.numbers.get(&blob).copied();
        let number = number.ok_or(SessionError::Misuse("a body is missing that nobody asked for"))?;
        outbox.body(&Frame::Missing { number });
        self.close(number);
        Ok(())
    }

    fn close(&mut self, number: u64) {
        if let Some(wanted) = self.open.remove(&number) {
            self.numbers.remove(&wanted.blob);
        }
        if self.streaming == Some(number) {
            self.streaming = None;
        }
        self.asked = false;
    }
}
