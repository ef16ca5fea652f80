//! The session: who may say what when, and what the host hears of it.

mod opening;
mod surveying;

use std::collections::VecDeque;
use std::time::Duration;

use super::assembler::Assembler;
use super::bodies::{Asking, Serving, Want, Wanted};
use super::compact::Compactor;
use super::error::{Fault, Misbehaved, Refusal, SessionError, Waiting};
use super::event::{Event, IncomingChange};
use super::frame::{Frame, HelloFrame, JoinFrame, batches};
use super::handshake::{Binding, Join, Local, PeerHello, Side, State, VersionVector};
use super::outbox::Outbox;
use super::outgoing::{Outgoing, OutgoingChange};
use super::survey::Surveying;
use super::{
    BATCH, HELLO_TIMEOUT, MAX_FRAME, MAX_QUEUED, MAX_STRANGER_FRAME, MAX_TEXT, MAX_WANTED, STALL_TIMEOUT,
};
use crate::blob::BlobId;
use crate::member::{MAX_RECORDS, SecretKey, TicketSecret};

#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    /// The peer's first frame is due.
    Greeting,
    /// The host judges this.
    Judging(HelloFrame),
    /// The host judges this guest.
    JudgingGuest(JoinFrame),
    /// The inviter's answer is due; records so far.
    Joining(Vec<Vec<u8>>),
    /// The host is to say who we are now.
    Welcomed,
    Open,
    /// The peer said goodbye.
    PeerDone,
    Closed,
}

/// One conversation with one peer. The pump:
///
/// 1. Make it with [`initiate`](Session::initiate), [`join`](Session::join) or [`respond`](Session::respond).
/// 2. While [`poll_event`](Session::poll_event) returns something, act on it.
/// 3. While [`poll_send`](Session::poll_send) returns bytes, write them. Then go to 2 if the host was asked for
///    something meanwhile: what is asked for depends on what was sent.
/// 4. If [`is_finished`](Session::is_finished), flush and close.
/// 5. Wait for bytes, for the host, or for [`poll_timeout`](Session::poll_timeout). Read only if
///    [`wants_input`](Session::wants_input): while the host judges a peer or has changes to take, the peer can wait.
/// 6. Give bytes to [`receive`](Session::receive), at most 64 KiB at a time, or call
///    [`handle_timeout`](Session::handle_timeout). Go to 2, also after an error: the peer is told why.
///
/// Times are durations since any fixed start. Everything that fails ends the session.
pub struct Session {
    side: Side,
    binding: Binding,
    phase: Phase,
    local: Option<Local>,
    peer: Option<PeerHello>,
    input: Vec<u8>,
    assembler: Assembler,
    outbox: Outbox,
    events: VecDeque<Event>,
    /// What went wrong after the events that wait.
    failed: Option<SessionError>,
    outgoing: Outgoing,
    unpacker: Compactor,
    asking: Asking,
    serving: Serving,
    surveying: Surveying,
    /// The names of the peer's membership records may come.
    records_due: bool,
    /// The peer's version vector is due.
    have_due: bool,
    changes_due: bool,
    records: usize,
    leaving: bool,
    bye_queued: bool,
    greeting_ends: Duration,
    quiet_since: Duration,
}

impl Session {
    /// Opens a session as a member: says hello.
    pub fn initiate(local: Local, key: &SecretKey, binding: Binding, now: Duration) -> Session {
        let mut session = Session::new(Side::Initiator, binding, Phase::Greeting, now);
        session.say_hello(local, key);
        session
    }

    /// Opens a session as a guest with a ticket. `join` says who the guest is; `key` is the replica's.
    pub fn join(
        join: &Join,
        secret: &TicketSecret,
        key: &SecretKey,
        binding: Binding,
        now: Duration,
    ) -> Session {
        let mut session = Session::new(Side::Initiator, binding, Phase::Joining(Vec::new()), now);
        // The inviter makes the admission durable before it answers.
        session.greeting_ends = now + STALL_TIMEOUT;
        session.outbox.control(&Frame::Join(join.frame(secret, key, &binding)));
        session
    }

    /// Waits for a peer that opened a connection, whichever account it is about.
    pub fn respond(binding: Binding, now: Duration) -> Session {
        Session::new(Side::Responder, binding, Phase::Greeting, now)
    }

    fn new(side: Side, binding: Binding, phase: Phase, now: Duration) -> Session {
        Session {
            side,
            binding,
            phase,
            local: None,
            peer: None,
            input: Vec::new(),
            assembler: Assembler::default(),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            failed: None,
            outgoing: Outgoing::default(),
            unpacker: Compactor::default(),
            asking: Asking::default(),
            serving: Serving::default(),
            surveying: Surveying::default(),
            records_due: false,
            have_due: false,
            changes_due: false,
            records: 0,
            leaving: false,
            bye_queued: false,
            greeting_ends: now + HELLO_TIMEOUT,
            quiet_since: now,
        }
    }

    /// Takes bytes from the peer. After an error only what it is told is left to send.
    pub fn receive(&mut self, bytes: &[u8], now: Duration) -> Result<(), SessionError> {
        if self.phase == Phase::Closed {
            return Ok(());
        }
        self.quiet_since = now;
        if !self.wants_input() {
            if self.input.len() + bytes.len() > BATCH {
                return Err(SessionError::Misuse(
                    "input goes on while the host judges the peer or has changes to take",
                ));
            }
            self.input.extend_from_slice(bytes);
            return Ok(());
        }
        self.process(bytes)
    }

    /// Whether the host should read from the peer: not while it judges it, and not before it polled the changes that came. A
    /// few bytes may unpack to the largest change, so that all those of one read would be a gigabyte.
    pub fn wants_input(&self) -> bool {
        let judging = matches!(self.phase, Phase::Judging(_) | Phase::JudgingGuest(_) | Phase::Welcomed);
        !judging && !matches!(self.events.back(), Some(Event::Changes(_)))
    }

    /// Goes on with what was put off.
    fn resume(&mut self) -> Result<(), SessionError> {
        let input = std::mem::take(&mut self.input);
        self.process(&input)
    }

    fn process(&mut self, mut bytes: &[u8]) -> Result<(), SessionError> {
        loop {
            if !self.wants_input() {
                self.input.extend_from_slice(bytes);
                return Ok(());
            }
            if self.phase == Phase::Closed {
                return Ok(());
            }
            if self.phase == Phase::PeerDone && !bytes.is_empty() {
                return Err(self.broken(Misbehaved::AfterEnd));
            }
            let max = match self.phase {
                Phase::Greeting => MAX_STRANGER_FRAME,
                _ => MAX_FRAME,
            };
            let step = match self.assembler.next(&mut bytes, max) {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => self.handle(frame),
                Err(fault) => Err(self.broken(fault)),
            };
            step?;
        }
    }

    fn handle(&mut self, frame: Frame) -> Result<(), SessionError> {
        match frame {
            Frame::Ignored => return Ok(()),
            Frame::Close { code, text } => {
                self.phase = Phase::Closed;
                self.outbox = Outbox::default();
                return Err(SessionError::Refused { refusal: Refusal::from_code(code), text });
            }
            _ => {}
        }
        match self.phase {
            Phase::Open => self.handle_open(frame).map_err(|fault| self.broken(fault)),
            _ => self.handle_greeting(frame),
        }
    }

    fn handle_open(&mut self, frame: Frame) -> Result<(), Misbehaved> {
        let kind = frame.kind();
        match frame {
            Frame::Members { records } => {
                self.records += records.len();
                // Twice: once in the beginning, and once more as they are made.
                if self.records > 2 * MAX_RECORDS {
                    return Err(Misbehaved::TooManyRecords);
                }
                self.events.push_back(Event::Members(records));
            }
            Frame::Records { names } if self.records_due => {
                self.records_due = false;
                self.events.push_back(Event::MembersWanted { peer_has: names });
            }
            Frame::Have { changes } if self.have_due => {
                self.have_due = false;
                self.outgoing.begin(&changes);
            }
            Frame::Changes { packed, signatures } => {
                let changes = self.unpacker.unpack(&packed, super::frame::MAX_CHANGES);
                let changes = changes.map_err(|_| Misbehaved::Malformed { kind })?;
                let mut changes: Vec<IncomingChange> =
                    changes.into_iter().map(|bytes| IncomingChange { bytes, signature: None }).collect();
                for (at, signature) in signatures {
                    let change = changes.get_mut(at).ok_or(Misbehaved::Malformed { kind })?;
                    change.signature = Some(signature);
                }
                self.changes_due = true;
                self.events.push_back(Event::Changes(changes));
            }
            Frame::ChangesEnd { digest, changes } => {
                self.changes_due = false;
                self.outgoing.peer_has(&changes)?;
                self.events.push_back(Event::ChangesEnd { digest });
            }
            Frame::Known { changes } => {
                self.outgoing.peer_has(&changes)?;
                self.events.push_back(Event::Known(changes));
            }
            Frame::Held { digest } => self.events.push_back(Event::Held(digest)),
            Frame::Want { first, bodies } => self.serving.wanted(first, bodies)?,
            Frame::Bundle { numbers, len } => self.asking.bundle(&numbers, len)?,
            Frame::Piece { bytes } => {
                let whole = self.asking.piece(&bytes)?;
                self.events.extend(whole);
            }
            Frame::Chunk { number, offset, last, bytes } => {
                let event = self.asking.chunk(number, offset, last, bytes)?;
                self.events.push_back(event);
            }
            Frame::Missing { number } => {
                let event = self.asking.missing(number)?;
                self.events.push_back(event);
            }
            Frame::Here { blobs } => self.events.push_back(Event::Here(blobs)),
            Frame::Survey(frame) => self.handle_survey(frame)?,
            Frame::Bye => {
                self.phase = Phase::PeerDone;
                self.leaving = true;
                self.events.push_back(Event::Bye);
            }
            _ => return Err(Misbehaved::OutOfTurn { kind }),
        }
        Ok(())
    }

    /// Sends encoded membership records: what the peer lacks when it asks, new ones at any time.
    pub fn offer_members(&mut self, records: Vec<Vec<u8>>) -> Result<(), SessionError> {
        if !self.open()? {
            return Ok(());
        }
        for records in batches(records, MAX_RECORDS) {
            self.outbox.control(&Frame::Members { records });
        }
        Ok(())
    }

    /// Brings changes after [`Event::ChangesWanted`]. With the last of them comes the state that they lead to;
    /// without it the host is asked again.
    pub fn offer_changes(
        &mut self,
        changes: Vec<OutgoingChange>,
        end: Option<State>,
    ) -> Result<(), SessionError> {
        if !self.open()? {
            return Ok(());
        }
        self.outgoing.offer(changes, end, &mut self.outbox)
    }

    /// There are new changes here, for the peer or not: it may be asked for them.
    pub fn local_changed(&mut self) {
        self.outgoing.changed();
    }

    /// The changes in `changes` are durably here.
    pub fn changes_known(&mut self, changes: VersionVector) -> Result<(), SessionError> {
        if !self.open()? {
            return Ok(());
        }
        // What it was told before it knows; the rest may be one replica of many.
        let news = self.outgoing.news(&changes);
        self.outgoing.told(&changes);
        self.outbox.control(&Frame::Known { changes: news });
        Ok(())
    }

    /// This side is in the peer's state now, and every change and body of it is durably here. The peer then knows what is
    /// here: it is not told again.
    pub fn held(&mut self, state: &State) -> Result<(), SessionError> {
        if !self.open()? {
            return Ok(());
        }
        self.outgoing.same(state);
        // Never before a *changes end* that was queued earlier and tells of an earlier state.
        self.outbox.change(&Frame::Held { digest: state.digest });
        Ok(())
    }

    /// How many more bodies may be asked for now.
    pub fn want_room(&self) -> usize {
        if self.phase == Phase::Open { self.asking.room() } else { 0 }
    }

    /// Asks for bodies, most urgent first, at most [`want_room`](Session::want_room) of them.
    pub fn want(&mut self, wants: Vec<Want>, now: Duration) -> Result<(), SessionError> {
        if !self.open()? {
            return Ok(());
        }
        if self.waiting().is_none() {
            self.quiet_since = now;
        }
        let frame = self.asking.want(wants)?;
        self.outbox.control(&frame);
        Ok(())
    }

    /// Answers requests with a bundle that holds `blobs`.
    pub fn send_bundle(&mut self, blobs: &[BlobId], bytes: &[u8]) -> Result<(), SessionError> {
        if !self.open()? {
            return Ok(());
        }
        self.serving.bundle(blobs, bytes, &mut self.outbox)
    }

    /// Answers a request with a part of a large body, at most [`PIECE`](super::PIECE) bytes.
    pub fn send_chunk(&mut self, chunk: Wanted, bytes: Vec<u8>, last: bool) -> Result<(), SessionError> {
        if !self.open()? {
            return Ok(());
        }
        self.serving.chunk(chunk, bytes, last, &mut self.outbox)
    }

    /// Answers a request for a body that is not here.
    pub fn send_missing(&mut self, blob: BlobId) -> Result<(), SessionError> {
        if !self.open()? {
            return Ok(());
        }
        self.serving.missing(blob, &mut self.outbox)
    }

    /// Tells of bodies that were missing and have arrived, at most [`MAX_WANTED`](super::MAX_WANTED) of them.
    pub fn send_here(&mut self, blobs: Vec<BlobId>) -> Result<(), SessionError> {
        if !self.open()? {
            return Ok(());
        }
        if blobs.len() > MAX_WANTED {
            return Err(SessionError::Misuse("more bodies at once than a peer may ask for"));
        }
        // Among the bodies: it must not overtake the word that they are missing.
        self.outbox.body(&Frame::Here { blobs });
        Ok(())
    }

    /// Says goodbye once everything is sent.
    pub fn bye(&mut self) {
        self.leaving = true;
    }

    /// Ends the session, and tells the peer why.
    pub fn fail(&mut self, fault: impl Into<Fault>) {
        self.ended(fault.into());
    }

    /// Whether anything can still be said. What comes after our goodbye is dropped without a word: the host
    /// may have acted on what arrived meanwhile.
    fn open(&self) -> Result<bool, SessionError> {
        match self.phase {
            Phase::Open | Phase::PeerDone => Ok(!self.bye_queued),
            Phase::Closed => Ok(false),
            _ => Err(SessionError::Misuse("the session is not open yet")),
        }
    }

    fn ended(&mut self, fault: Fault) -> SessionError {
        if self.phase != Phase::Closed {
            tracing::debug!(refusal = ?fault.refusal, "session ended here");
            let mut text = fault.text;
            text.truncate(text.floor_char_boundary(MAX_TEXT));
            let close = Frame::Close { code: fault.refusal.code(), text };
            match fault.refusal {
                // Nothing may follow a goodbye that is on its way.
                _ if self.bye_queued && !self.outbox.has_last() => {}
                // Membership records may wait that the peer judges its changes by: without them it would bring the same again.
                Refusal::BadChange => self.outbox.after_control(&close),
                _ => self.outbox.only(&close),
            }
            self.phase = Phase::Closed;
            self.input = Vec::new();
        }
        SessionError::Ended { refusal: fault.refusal }
    }

    fn broken(&mut self, fault: Misbehaved) -> SessionError {
        self.ended(Fault::new(Refusal::Protocol, fault.to_string()));
        SessionError::Peer(fault)
    }

    /// At most `max` bytes for the peer.
    pub fn poll_send(&mut self, max: usize) -> Option<Vec<u8>> {
        if self.leaving && !self.bye_queued && self.may_leave() {
            self.bye_queued = true;
            self.outbox.last(&Frame::Bye);
        }
        self.outbox.poll(max)
    }

    /// After the peer's goodbye nothing is owed to it but what it asked for.
    fn may_leave(&self) -> bool {
        let answered = self.serving.is_idle() || self.phase == Phase::PeerDone;
        matches!(self.phase, Phase::Open | Phase::PeerDone) && answered
    }

    /// What the host should know or do next. It goes on with what came after changes once those are polled, and so fails as
    /// [`receive`](Session::receive) does.
    pub fn poll_event(&mut self) -> Result<Option<Event>, SessionError> {
        if self.events.is_empty() && !self.input.is_empty() && self.wants_input() {
            self.failed = self.resume().err();
        }
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.phase != Phase::Open || self.bye_queued {
            return Ok(None);
        }
        if let Some(peer_has) = self.outgoing.ask(&self.outbox) {
            return Ok(Some(Event::ChangesWanted { peer_has, room: MAX_QUEUED }));
        }
        if self.asking.runs_low() {
            return Ok(Some(Event::WantMore));
        }
        Ok(self.serving.ask(&self.outbox))
    }

    /// Bytes of changes that the host has not polled.
    #[cfg(test)]
    pub(super) fn held_changes(&self) -> usize {
        let size = |event: &Event| match event {
            Event::Changes(changes) => changes.iter().map(|change| change.bytes.len()).sum(),
            _ => 0,
        };
        self.events.iter().map(size).sum()
    }

    fn waiting(&self) -> Option<Waiting> {
        match self.phase {
            Phase::Open if !self.asking.is_idle() => Some(Waiting::Bodies),
            Phase::Open if self.have_due || self.changes_due => Some(Waiting::Changes),
            Phase::Open if self.surveying.asked.is_some() => Some(Waiting::Survey),
            _ => None,
        }
    }

    /// When [`handle_timeout`](Session::handle_timeout) is to be called, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match self.phase {
            Phase::Greeting | Phase::Joining(_) => Some(self.greeting_ends),
            _ => self.waiting().map(|_| self.quiet_since + STALL_TIMEOUT),
        }
    }

    /// Ends the session if the peer was silent for too long.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), SessionError> {
        if self.poll_timeout().is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        let waiting = self.waiting().unwrap_or(Waiting::Hello);
        self.ended(Refusal::Stalled.into());
        Err(SessionError::Timeout(waiting))
    }

    /// The peer, once it was accepted.
    pub fn peer(&self) -> Option<&PeerHello> {
        self.peer.as_ref()
    }

    /// What the peer is known to have or was sent.
    pub fn peer_has(&self) -> &VersionVector {
        self.outgoing.peer()
    }

    /// What the peer said that it durably has.
    pub fn peer_said(&self) -> &VersionVector {
        self.outgoing.said()
    }

    /// Whether the peer said goodbye: nothing more comes.
    pub fn has_heard_all(&self) -> bool {
        self.phase == Phase::PeerDone
    }

    /// Whether our goodbye is sent: nothing more will be, though the peer may still have something to say.
    pub fn has_said_all(&self) -> bool {
        self.bye_queued && self.outbox.is_empty()
    }

    /// Whether both sides said goodbye, or it failed, and all is sent: the connection may be closed.
    pub fn is_finished(&self) -> bool {
        let over = self.phase == Phase::Closed || (self.phase == Phase::PeerDone && self.bye_queued);
        over && self.outbox.is_empty()
    }
}
