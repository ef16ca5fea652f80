//! One conversation of a replica with a peer: what a session asks, answered from the replica.
//!
//! No I/O of its own beyond the store: bytes and time go in, bytes and events come out, so that any transport can carry it.

mod bodies;
mod chains;
mod changes;
mod outcome;
mod verify;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use self::bodies::Fetching;
use self::chains::Covering;
use self::changes::Incoming;
pub use self::outcome::{LinkError, LinkEvent};
use self::verify::{Looks, Verifying};
use super::contacts::Meeting;
use super::elders::Elder;
use super::members::{self, AdmitError};
use super::read::{Snapshot, digest};
use super::survey::Survey;
use super::{Replica, ReplicaError};
use crate::blob::BlobId;
use crate::mailbox::ReplicaId;
use crate::member::{Member, PeerId, Record, Role, Status, Ticket};
use crate::store::{BodyReader, Missing};
use crate::sync::{
    Binding, Digest, Event, Fault, Join, Local, MembersDigest, PeerHello, RecordName, Refusal, Session,
    SessionError, State, Wanted,
};

/// When a conversation ends by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stay {
    /// Goes on pushing changes as they happen.
    Live,
    /// Says goodbye once both sides have the same, bodies included.
    Once,
}

/// What one peer and this replica say to each other. The pump is that of [`Session`]: write what [`Link::poll_send`] gives,
/// give what arrives to [`Link::receive`], call [`Link::wake`] after a commit and [`Link::handle_timeout`] in time, until
/// [`Link::is_finished`].
pub struct Link {
    replica: Replica,
    pub(super) session: Session,
    stay: Stay,
    /// Who the transport says the peer is; nothing where the transport does not know.
    endpoint: Option<PeerId>,
    /// Who it must be.
    expected: Option<ReplicaId>,
    member: Option<Member>,
    /// The peer claims before this replica does, while it is connected.
    elder: Option<Elder>,
    meeting: Option<Meeting>,
    incoming: Incoming,
    outgoing: Option<(Missing, Snapshot)>,
    covering: Covering,
    fetching: Fetching,
    streaming: Option<(Wanted, BodyReader)>,
    /// What the peer last said its state is.
    peer_digest: Option<Digest>,
    /// Whether the peer said at first that it waits for bodies.
    peer_owes: bool,
    /// Whether this side said so, and is to say when it does no more.
    said_owes: bool,
    /// The membership log that this side said it has: the digest, and its records.
    said_members: (MembersDigest, Vec<RecordName>),
    pub(super) held_ours: Option<Digest>,
    held_theirs: Option<Digest>,
    sent_missing: Option<Duration>,
    /// Bodies that the peer asked for and that were not here.
    said_missing: BTreeSet<BlobId>,
    /// How many arrivals of bodies were looked at.
    arrivals: u64,
    /// The membership records that the peer has or was sent; nothing while that is not known.
    peer_records: Option<BTreeSet<RecordName>>,
    /// The membership log when the peer was last sent what it lacks.
    members: [u8; 16],
    verifying: Option<Verifying>,
    /// Since when a comparison is asked for.
    verify_since: Option<Duration>,
    /// What the peer asked about, and how often that may cost a look at all messages.
    surveyed: Option<(Digest, Survey)>,
    looks: Looks,
    events: VecDeque<LinkEvent>,
    now: Duration,
    /// When the peer was heard last.
    heard: Duration,
}

/// After this long without a request a peer that lacks a body which nobody here has is not waited for.
const GIVE_UP: Duration = Duration::from_secs(1);
/// A one-shot conversation in which nothing came for this long, and nothing is due, does not come to its end any more.
const STILL: Duration = Duration::from_secs(90);

impl Link {
    /// Opens a conversation with a member. `endpoint` is the key that the transport has verified.
    pub fn initiate(
        replica: &Replica,
        peer: ReplicaId,
        endpoint: Option<PeerId>,
        binding: Binding,
        stay: Stay,
        now: Duration,
    ) -> Result<Link, ReplicaError> {
        let (session, owes, members) = replica.with(|core| {
            let local = local(replica, core)?;
            let (owes, members) = (local.owes, (local.members, local.records.clone()));
            Ok((Session::initiate(local, &core.identity.key, binding, now), owes, members))
        })?;
        let link = Link::new(replica, session, endpoint, Some(peer), stay, now);
        Ok(Link { said_owes: owes, said_members: members, ..link })
    }

    /// Opens a conversation as a guest with a ticket.
    pub fn join(
        replica: &Replica,
        ticket: &Ticket,
        guest: &Join,
        binding: Binding,
        stay: Stay,
        now: Duration,
    ) -> Result<Link, ReplicaError> {
        let session = replica
            .with(|core| Ok(Session::join(guest, &ticket.secret, &core.identity.key, binding, now)))?;
        Ok(Link::new(replica, session, Some(ticket.endpoint), Some(ticket.inviter), stay, now))
    }

    /// Answers a peer that opened a connection and was already heard by `session`: it asked for this replica's account.
    pub fn respond(replica: &Replica, binding: Binding, endpoint: Option<PeerId>, now: Duration) -> Link {
        Link::new(replica, Session::respond(binding, now), endpoint, None, Stay::Live, now)
    }

    fn new(
        replica: &Replica,
        session: Session,
        endpoint: Option<PeerId>,
        expected: Option<ReplicaId>,
        stay: Stay,
        now: Duration,
    ) -> Link {
        Link {
            replica: replica.clone(),
            session,
            stay,
            endpoint,
            expected,
            member: None,
            elder: None,
            meeting: None,
            incoming: Incoming::default(),
            outgoing: None,
            covering: Covering::default(),
            fetching: Fetching::default(),
            streaming: None,
            peer_digest: None,
            peer_owes: false,
            said_owes: false,
            said_members: Default::default(),
            held_ours: None,
            held_theirs: None,
            sent_missing: None,
            said_missing: BTreeSet::new(),
            arrivals: 0,
            peer_records: None,
            members: [0; 16],
            verifying: None,
            verify_since: None,
            surveyed: None,
            looks: Looks::default(),
            events: VecDeque::new(),
            now,
            heard: now,
        }
    }

    /// Asks for no bodies in this conversation: they are found elsewhere, or fetched later.
    pub fn leave_bodies(&mut self) {
        self.fetching.leave();
    }

    /// Takes bytes from the peer, at most 64 KiB at a time.
    pub fn receive(&mut self, bytes: &[u8], now: Duration) -> Result<(), LinkError> {
        (self.now, self.heard) = (now, now);
        let received = self.session.receive(bytes, now);
        // What came before a failure still counts.
        let handled = self.run();
        match received {
            Err(error) => Err(self.ended(error)),
            Ok(()) => handled,
        }
    }

    fn ended(&mut self, error: SessionError) -> LinkError {
        match error {
            SessionError::Refused { refusal: Refusal::Revoked, .. } => {
                self.events.push_back(LinkEvent::Revoked);
                LinkError::Revoked
            }
            error => error.into(),
        }
    }

    /// To be called whenever subscribers of this replica are.
    pub fn wake(&mut self, now: Duration) -> Result<(), LinkError> {
        self.now = now;
        if let Some(member) = &self.member {
            let active = self.replica.with(|core| Ok(core.members.is_active(member.replica)))?;
            if !active {
                self.session.fail(Refusal::Revoked);
                return Err(Refusal::Revoked.into());
            }
            self.offer_new_members()?;
            self.tell_here()?;
            self.hurry()?;
        }
        self.session.local_changed();
        self.run()
    }

    /// When the peer was heard last.
    pub fn heard(&self) -> Duration {
        self.heard
    }

    /// When [`Link::handle_timeout`] is to be called, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let give_up = self.sent_missing.map(|since| since + GIVE_UP).filter(|at| *at > self.now);
        let still = (self.stay == Stay::Once).then_some(self.heard + STILL);
        [self.session.poll_timeout(), give_up, still].into_iter().flatten().min()
    }

    /// Ends what took too long.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), LinkError> {
        self.now = now;
        self.session.handle_timeout(now)?;
        if self.stay == Stay::Once && now >= self.heard + STILL && !self.is_finished() {
            self.session.fail(Refusal::Stalled);
            return Err(LinkError::Still);
        }
        self.run()
    }

    /// At most `max` bytes for the peer.
    pub fn poll_send(&mut self, max: usize) -> Result<Option<Vec<u8>>, LinkError> {
        let bytes = self.session.poll_send(max);
        if bytes.is_none() {
            self.run()?;
            return Ok(self.session.poll_send(max));
        }
        Ok(bytes)
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// Whether the transport should read.
    pub fn wants_input(&self) -> bool {
        self.session.wants_input() && !self.session.has_heard_all()
    }

    /// Whether all is said and sent.
    pub fn is_finished(&self) -> bool {
        self.session.is_finished()
    }

    /// Whether nothing more will be sent, though the peer may still have something to say.
    pub fn has_said_all(&self) -> bool {
        self.session.has_said_all()
    }

    /// Says goodbye once what the peer asked for is sent.
    pub fn bye(&mut self) {
        self.session.bye();
    }

    /// The peer, once it was accepted.
    pub fn peer(&self) -> Option<&Member> {
        self.member.as_ref()
    }

    /// Ends the conversation: another one with the same peer goes on.
    pub fn give_way(&mut self) -> LinkError {
        self.session.fail(Refusal::Replaced);
        Refusal::Replaced.into()
    }

    /// The state that the peer is in, once neither side waits for a body that the other could give. If it is that of this
    /// replica ([`Replica::digest`]), the two are in sync.
    pub fn peer_state(&self) -> Option<Digest> {
        let theirs = self.peer_digest.filter(|_| self.member.is_some() && self.fetching.is_idle())?;
        let waits = self.incoming.sent || self.peer_owes;
        let gave_up = self.sent_missing.is_some_and(|since| self.now >= since + GIVE_UP);
        (!waits || self.held_ours == Some(theirs) || gave_up).then_some(theirs)
    }

    fn run(&mut self) -> Result<(), LinkError> {
        while let Some(event) = self.session.poll_event().map_err(|error| self.ended(error))? {
            if let Err(error) = self.handle(event) {
                let fault = match &error {
                    LinkError::Replica(error) => {
                        tracing::error!(%error, "the replica failed in a session");
                        Fault::from(Refusal::Unavailable)
                    }
                    LinkError::Refused { fault } => fault.clone(),
                    LinkError::SomebodyElse { .. } => Fault::new(Refusal::Unavailable, error.to_string()),
                    LinkError::Still => Fault::from(Refusal::Stalled),
                    LinkError::RolledBack => Fault::from(Refusal::Unavailable),
                    LinkError::Peer { what } => Fault::new(Refusal::BadChange, what.clone()),
                    LinkError::Session(_) | LinkError::Revoked => return Err(error),
                };
                self.session.fail(fault);
                return Err(error);
            }
        }
        self.leave_if_done()
    }

    fn handle(&mut self, event: Event) -> Result<(), LinkError> {
        match event {
            Event::Hello(hello) => self.meet(&hello)?,
            Event::Join(join) => self.admit(&join)?,
            Event::Welcome(records) => self.welcomed(records)?,
            Event::Accepted { in_sync } => self.accepted(in_sync)?,
            Event::MembersWanted { peer_has } => {
                self.peer_records = Some(peer_has.into_iter().collect());
                self.offer_new_members()?;
            }
            Event::Members(records) => self.add_members(records)?,
            Event::ChangesWanted { peer_has, room } => {
                self.hear();
                self.offer(&peer_has, room)?;
            }
            Event::Changes(changes) => self.take(changes)?,
            Event::ChangesEnd { digest } => {
                self.changes_end(digest)?;
                self.hear();
            }
            Event::Known(_) => {
                self.hear();
                self.events.push_back(LinkEvent::Known);
            }
            Event::Held(state) => {
                (self.peer_digest, self.held_ours) = (Some(state), Some(state));
                let here = self.replica.state_at(&self.replica.view()?)?;
                if state == here.digest {
                    if let Some(meeting) = &mut self.meeting {
                        meeting.hear(&here.changes, self.now);
                    }
                    // All that it was sent, and all that it waited for.
                    (self.incoming.sent, self.peer_owes) = (false, false);
                }
                if self.incoming.unheld && self.fetching.is_idle() {
                    self.say_held()?;
                }
                self.events.push_back(LinkEvent::Held);
            }
            Event::WantMore => self.want_more()?,
            Event::BodiesWanted(wanted) => self.serve(&wanted)?,
            Event::ChunkWanted(wanted) => self.stream(wanted)?,
            Event::Bundle { blobs, bytes } => self.take_bundle(&blobs, &bytes)?,
            Event::Chunk { blob, offset, bytes, last } => self.take_chunk(blob, offset, &bytes, last)?,
            Event::Missing(blob) => self.take_missing(blob)?,
            Event::Here(blobs) => self.take_here(&blobs)?,
            Event::SurveyWanted { digest, question } => self.tell_survey(digest, question)?,
            Event::Surveyed(answer) => self.surveyed(answer)?,
            Event::Bye => {}
        }
        Ok(())
    }

    /// Judges who says hello: a member that may come, and from where the transport says.
    fn meet(&mut self, hello: &PeerHello) -> Result<(), LinkError> {
        let replica = self.replica.clone();
        if hello.account != replica.account() {
            return Err(Refusal::WrongAccount.into());
        }
        let member = replica.with(|core| {
            if core.members.get(hello.replica).is_none() {
                members::introduce(core, hello)?;
            }
            Ok(core.members.get(hello.replica).cloned())
        })?;
        let here = |member: &Member| self.endpoint.is_none_or(|endpoint| endpoint == member.endpoint);
        let refusal = match &member {
            None => Some(Refusal::UnknownReplica),
            Some(member) => match member.status {
                Status::Revoked { .. } => Some(Refusal::Revoked),
                Status::Succeeded { .. } => Some(Refusal::Succeeded),
                Status::Active if !here(member) => Some(Refusal::UnknownReplica),
                Status::Active => None,
            },
        };
        if let Some(meant) = self.expected.filter(|meant| *meant != hello.replica) {
            return Err(LinkError::SomebodyElse { found: hello.replica, meant });
        }
        let (Some(member), None) = (member, refusal) else {
            return Err(refusal.unwrap_or(Refusal::UnknownReplica).into());
        };
        let (now, session, said_owes) = (self.now, &mut self.session, &mut self.said_owes);
        let said_members = &mut self.said_members;
        let judged = replica.with(|core| match self.expected {
            Some(_) => Ok(session.accept(&member.key, now)),
            None => {
                let local = local(&replica, core)?;
                *said_owes = local.owes;
                *said_members = (local.members, local.records.clone());
                Ok(session.answer(&member.key, local, &core.identity.key, now))
            }
        })?;
        self.member = Some(member);
        self.incoming.counter = hello.counter;
        self.peer_digest = Some(hello.digest);
        self.peer_owes = hello.owes;
        Ok(judged?)
    }

    fn admit(&mut self, join: &Join) -> Result<(), LinkError> {
        if self.endpoint.is_some_and(|endpoint| endpoint != join.endpoint) {
            return Err(Refusal::BadProof.into());
        }
        let offered = self.replica.with(|core| Ok(core.identity.key.ticket_secret(join.offer)))?;
        match self.replica.admit(join, self.session.holds_ticket(&offered)) {
            Ok(records) => Ok(self.session.welcome(records, self.now)?),
            Err(AdmitError::Refused(fault)) => Err(LinkError::Refused { fault }),
            Err(AdmitError::Replica(error)) => Err(error.into()),
        }
    }

    fn welcomed(&mut self, records: Vec<Vec<u8>>) -> Result<(), LinkError> {
        self.add_members(records)?;
        let (now, session, replica) = (self.now, &mut self.session, &self.replica);
        let (said_owes, said_members) = (&mut self.said_owes, &mut self.said_members);
        replica.with(|core| {
            if !core.members.is_active(core.identity.replica) {
                return Ok(Err(LinkError::Peer { what: "a welcome that does not let us in".into() }));
            }
            let local = local(replica, core)?;
            *said_owes = local.owes;
            *said_members = (local.members, local.records.clone());
            Ok(session.hello(local, &core.identity.key, now).map_err(LinkError::from))
        })?
    }

    fn accepted(&mut self, in_sync: bool) -> Result<(), LinkError> {
        if let Some(member) = &self.member {
            let said = self.session.peer_said();
            self.meeting = Some(Meeting::begin(&self.replica, member.replica, said, self.now));
            self.events.push_back(LinkEvent::Accepted { peer: member.replica, in_sync });
        }
        self.defer()?;
        let theirs = self.session.peer().map(|hello| hello.members);
        let (said, records) = std::mem::take(&mut self.said_members);
        if theirs == Some(said) {
            // It will not ask: it has what this side had at its hello. What came since is news for it.
            self.peer_records = Some(records.into_iter().collect());
            self.offer_new_members()?;
        }
        if in_sync {
            self.heard_inviter()?;
            // Nothing was exchanged, so there is nothing to acknowledge unless bodies are still to come.
            if !self.said_owes && self.replica.owed(&self.replica.view()?, 1)?.is_empty() {
                self.held_theirs = self.peer_digest;
            }
            self.want_more()?;
        }
        Ok(())
    }

    /// Remembers what the peer said that it has.
    fn hear(&mut self) {
        if let Some(meeting) = &mut self.meeting {
            meeting.hear(self.session.peer_said(), self.now);
        }
    }

    /// Lets the peer claim first as long as it is connected, if its lane is lower.
    fn defer(&mut self) -> Result<(), LinkError> {
        let theirs = self.member.as_ref().filter(|member| member.role == Role::Server).and_then(|m| m.lane);
        let ours = self.replica.with(|core| Ok(core.members.lane_of(core.identity.replica)))?;
        if ours.zip(theirs).is_some_and(|(ours, theirs)| theirs.index() < ours.index()) {
            self.elder = Some(Elder::connected(&self.replica.0.elders));
        }
        Ok(())
    }

    fn add_members(&mut self, records: Vec<Vec<u8>>) -> Result<(), LinkError> {
        let mut decoded = Vec::with_capacity(records.len());
        for record in records {
            let record =
                Record::decode(&record).map_err(|error| LinkError::Peer { what: error.to_string() })?;
            decoded.push(record);
        }
        let names: Vec<RecordName> = decoded.iter().map(members::name).collect();
        let news = self.replica.with(|core| members::add(core, decoded))?;
        if let Some(known) = &mut self.peer_records {
            // What was refused is not remembered, so that a peer cannot make the list grow.
            let here = self.replica.with(|core| Ok(members::names(&core.members)))?;
            known.extend(names.into_iter().filter(|name| here.contains(name)));
        }
        if news {
            self.replica.tell(&[]);
        }
        Ok(())
    }

    /// Passes on the membership records that the peer lacks.
    fn offer_new_members(&mut self) -> Result<(), LinkError> {
        let Some(known) = &mut self.peer_records else { return Ok(()) };
        let last = &mut self.members;
        let records = self.replica.with(|core| {
            let digest = core.members.digest();
            Ok(match std::mem::replace(last, digest) == digest {
                true => Vec::new(),
                false => members::lacking(&core.members, known),
            })
        })?;
        Ok(self.session.offer_members(records)?)
    }

    /// A one-shot conversation ends when both sides have the same and nobody waits for a body.
    fn leave_if_done(&mut self) -> Result<(), LinkError> {
        self.begin_to_verify()?;
        if self.is_to_verify() {
            return Ok(());
        }
        if let (Stay::Once, Some(theirs)) = (self.stay, self.peer_state())
            && theirs == self.replica.digest()?
        {
            self.session.bye();
        }
        Ok(())
    }
}

/// What this replica says of itself.
fn local(replica: &Replica, core: &mut super::core::Core) -> Result<Local, ReplicaError> {
    let reader = core.store.reader()?;
    let state = State { digest: digest(core)?, changes: reader.vector()? };
    let digest_of_members = core.members.digest()[..8].try_into().expect("eight of sixteen bytes");
    let counter = crate::uid::Account::counter(&reader)?;
    let introduction = members::introduction(&core.members, core.identity.replica);
    let records = members::names(&core.members);
    let owes = !replica.owed(&replica.view()?, 1)?.is_empty();
    Ok(Local {
        account: core.identity.account,
        replica: core.identity.replica,
        state,
        members: digest_of_members,
        records,
        counter,
        owes,
        introduction,
    })
}
