//! Two sessions with hosts that keep everything in maps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::blob::{BlobId, MAX_BLOB};
use crate::mailbox::{AccountId, ReplicaId};
use crate::member::{MemberName, OfferId, PublicKey, SecretKey, Signature};
use crate::sync::*;

pub(super) const ACCOUNT: AccountId = AccountId::from_bytes([0xac; 16]);
pub(super) const BINDING: Binding = [7; 32];
/// Bodies above this go in chunks.
const LARGE: usize = 200_000;

pub(super) fn replica(n: u8) -> ReplicaId {
    ReplicaId::from_bytes([n; 16])
}

pub(super) fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

pub(super) fn offer() -> OfferId {
    OfferId::from_bytes([3; 16])
}

/// Every other change has one; here it says nothing but whose it is.
fn signature_of(change: &[u8]) -> Option<Signature> {
    (change[8] % 2 == 1).then(|| Signature::from_bytes([change[8]; 64]))
}

fn name_of(record: &[u8]) -> RecordName {
    *blake3::hash(record).as_bytes().first_chunk().unwrap()
}

/// A host: its changes name one body each.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) id: u8,
    pub(super) changes: BTreeMap<(ReplicaId, u64), Vec<u8>>,
    pub(super) bodies: BTreeMap<BlobId, Vec<u8>>,
    pub(super) records: BTreeSet<Vec<u8>>,
    pub(super) keys: BTreeMap<ReplicaId, PublicKey>,
    pub(super) guest: bool,
    partial: BTreeMap<BlobId, Vec<u8>>,
    owed: Vec<BlobId>,
    peer_state: Option<Digest>,
    pub(super) acknowledged: Vec<Event>,
    pub(super) trace: Vec<&'static str>,
}

impl Node {
    pub(super) fn new(id: u8) -> Node {
        Node {
            id,
            changes: BTreeMap::new(),
            bodies: BTreeMap::new(),
            records: BTreeSet::from([vec![1; 300]]),
            keys: (1..6).map(|n| (replica(n), key(n).public())).collect(),
            guest: false,
            partial: BTreeMap::new(),
            owed: Vec::new(),
            peer_state: None,
            acknowledged: Vec::new(),
            trace: Vec::new(),
        }
    }

    /// A change of this replica, of `padding` bytes and more, that names a body of `size` bytes.
    pub(super) fn write(&mut self, padding: usize, size: usize) -> BlobId {
        self.write_as(self.id, padding, size)
    }

    pub(super) fn write_as(&mut self, author: u8, padding: usize, size: usize) -> BlobId {
        let of_author = |(who, _): &&(ReplicaId, u64)| *who == replica(author);
        let seq = self.changes.keys().filter(of_author).count() as u64 + 1;
        let mut body = vec![author; size];
        body.extend_from_slice(&seq.to_be_bytes());
        let blob = BlobId::of(&body);
        let mut change = vec![author];
        change.extend_from_slice(&seq.to_be_bytes());
        change.extend_from_slice(blob.as_bytes());
        change.resize(change.len() + padding, 0);
        self.changes.insert((replica(author), seq), change);
        self.bodies.insert(blob, body);
        blob
    }

    pub(super) fn state(&self) -> State {
        let mut changes = VersionVector::new();
        let mut hasher = blake3::Hasher::new();
        for ((replica, seq), change) in &self.changes {
            changes.insert(*replica, *seq);
            hasher.update(change);
        }
        for record in &self.records {
            hasher.update(record);
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        State { digest, changes }
    }

    pub(super) fn local(&self) -> Local {
        let all: Vec<u8> = self.records.iter().flatten().copied().collect();
        let mut members = [0; 8];
        members.copy_from_slice(&blake3::hash(&all).as_bytes()[..8]);
        Local {
            account: ACCOUNT,
            replica: replica(self.id),
            state: self.state(),
            members,
            counter: 1 << 36,
            records: self.records.iter().map(|record| name_of(record)).collect(),
            owes: false,
            introduction: Vec::new(),
        }
    }

    fn take_change(&mut self, change: Vec<u8>) {
        let seq = u64::from_be_bytes(change[1..9].try_into().unwrap());
        let author = replica(change[0]);
        assert!(seq == 1 || self.changes.contains_key(&(author, seq - 1)), "out of causal order");
        let blob = BlobId::from_bytes(change[9..41].try_into().unwrap());
        if !self.bodies.contains_key(&blob) {
            self.owed.push(blob);
        }
        assert!(self.changes.insert((author, seq), change).is_none(), "a change came twice");
    }

    fn fetch(&mut self, session: &mut Session) {
        let count = session.want_room().min(self.owed.len());
        let wants: Vec<Want> = self
            .owed
            .drain(..count)
            .map(|blob| Want {
                blob,
                offset: self.partial.get(&blob).map_or(0, |b| b.len() as u64),
                at_most: MAX_BLOB,
            })
            .collect();
        if !wants.is_empty() {
            session.want(wants, Duration::ZERO).unwrap();
        }
    }

    fn offer_changes(&mut self, session: &mut Session, peer_has: &VersionVector, room: usize) {
        let mut size = 0;
        let lacks = |(r, seq): &(ReplicaId, u64)| peer_has.get(r).is_none_or(|has| has < seq);
        let all: Vec<_> = self.changes.iter().filter(|(id, _)| lacks(id)).collect();
        let total = all.len();
        let some: Vec<_> = all
            .into_iter()
            .take_while(|(_, bytes)| {
                let fits = size == 0 || size + bytes.len() <= room;
                size += bytes.len();
                fits
            })
            .map(|((replica, seq), bytes)| OutgoingChange {
                replica: *replica,
                seq: *seq,
                bytes: bytes.clone(),
                signature: signature_of(bytes),
            })
            .collect();
        let end = (some.len() == total).then(|| self.state());
        session.offer_changes(some, end).unwrap();
    }

    fn serve(&mut self, session: &mut Session, wanted: Vec<Wanted>) {
        let small = |w: &&Wanted| w.offset == 0 && self.bodies.get(&w.blob).is_some_and(|b| b.len() <= LARGE);
        let bundle: Vec<BlobId> = wanted.iter().filter(small).map(|w| w.blob).take(4).collect();
        if !bundle.is_empty() {
            let mut bytes = Vec::new();
            for body in bundle.iter().map(|blob| &self.bodies[blob]) {
                bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
                bytes.extend_from_slice(body);
            }
            return session.send_bundle(&bundle, &bytes).unwrap();
        }
        match self.bodies.contains_key(&wanted[0].blob) {
            true => self.chunk(session, wanted[0]),
            false => session.send_missing(wanted[0].blob).unwrap(),
        }
    }

    fn chunk(&mut self, session: &mut Session, wanted: Wanted) {
        let rest = &self.bodies[&wanted.blob][wanted.offset as usize..];
        let len = rest.len().min(PIECE);
        session.send_chunk(wanted, rest[..len].to_vec(), len == rest.len()).unwrap();
    }

    fn take_body(&mut self, body: Vec<u8>) {
        self.bodies.insert(BlobId::of(&body), body);
    }

    /// Step 2 of the pump.
    pub(super) fn act(&mut self, session: &mut Session) -> Result<(), SessionError> {
        let now = Duration::ZERO;
        while let Some(event) = session.poll_event()? {
            match event {
                Event::Hello(peer) => match self.keys.get(&peer.replica) {
                    _ if peer.account != ACCOUNT => session.fail(Refusal::WrongAccount),
                    None => session.fail(Fault::new(Refusal::UnknownReplica, "who\0 are you")),
                    Some(peer_key) if self.id == 1 => session.accept(peer_key, now)?,
                    Some(peer_key) => session.answer(peer_key, self.local(), &key(self.id), now)?,
                },
                Event::Join(join) => {
                    let secret = key(self.id).ticket_secret(join.offer);
                    if session.holds_ticket(&secret) {
                        self.keys.insert(join.replica, join.key);
                        self.records.insert(join.key.as_bytes().to_vec());
                        session.welcome(self.records.iter().cloned().collect(), now)?;
                    } else {
                        session.fail(Refusal::TicketAltered);
                    }
                }
                Event::Welcome(records) => {
                    self.records = records.into_iter().collect();
                    session.hello(self.local(), &key(self.id), now)?;
                }
                Event::Accepted { in_sync } => self.trace.push(if in_sync { "in sync" } else { "differs" }),
                Event::MembersWanted { peer_has } => {
                    let lacks = self.records.iter().filter(|record| !peer_has.contains(&name_of(record)));
                    session.offer_members(lacks.cloned().collect())?;
                }
                Event::Members(records) => self.records.extend(records),
                Event::ChangesWanted { peer_has, room } => self.offer_changes(session, &peer_has, room),
                Event::Changes(changes) => {
                    self.trace.push("changes");
                    for change in changes {
                        assert_eq!(change.signature, signature_of(&change.bytes));
                        self.take_change(change.bytes);
                    }
                }
                Event::ChangesEnd { digest } => {
                    session.changes_known(self.state().changes)?;
                    self.peer_state = Some(digest);
                    self.fetch(session);
                }
                event @ (Event::Known(_) | Event::Held(_)) => self.acknowledged.push(event),
                Event::WantMore => self.fetch(session),
                Event::BodiesWanted(wanted) => self.serve(session, wanted),
                Event::ChunkWanted(wanted) => self.chunk(session, wanted),
                Event::Bundle { mut bytes, .. } => {
                    self.trace.push("bundle");
                    while let Some((len, rest)) = bytes.split_first_chunk::<4>() {
                        let (body, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
                        self.take_body(body.to_vec());
                        bytes = rest.to_vec();
                    }
                }
                Event::Chunk { blob, offset, bytes, last } => {
                    self.trace.push("chunk");
                    let partial = self.partial.entry(blob).or_default();
                    assert_eq!(partial.len() as u64, offset);
                    partial.extend_from_slice(&bytes);
                    if last {
                        let body = self.partial.remove(&blob).unwrap();
                        self.take_body(body);
                    }
                }
                Event::Missing(_) => self.trace.push("missing"),
                Event::Here(blobs) => {
                    self.trace.push("here");
                    self.owed.extend(blobs);
                    self.fetch(session);
                }
                Event::SurveyWanted { .. } | Event::Surveyed(_) => self.trace.push("survey"),
                Event::Bye => self.trace.push("bye"),
            }
        }
        let complete = self.owed.is_empty() && session.want_room() == MAX_WANTED;
        if complete && self.peer_state.is_some() {
            let state = self.state();
            if self.peer_state.take_if(|theirs| *theirs == state.digest).is_some() {
                session.held(&state)?;
            }
        }
        Ok(())
    }
}

/// Two sessions and what is on its way between them.
pub(super) struct Pair {
    pub(super) nodes: [Node; 2],
    pub(super) sessions: [Session; 2],
    pub(super) errors: [Option<SessionError>; 2],
    pub(super) sent: [usize; 2],
    /// Bytes given to `receive` at once.
    pub(super) fragment: usize,
}

impl Pair {
    /// Node 1 opens, node 2 answers.
    pub(super) fn new(left: Node, right: Node) -> Pair {
        let now = Duration::ZERO;
        let opening = if left.guest {
            let join = Join {
                account: ACCOUNT,
                offer: offer(),
                replica: replica(left.id),
                key: key(left.id).public(),
                endpoint: key(left.id).peer_id(),
                name: MemberName::new("guest").unwrap(),
            };
            Session::join(&join, &key(2).ticket_secret(offer()), &key(left.id), BINDING, now)
        } else {
            Session::initiate(left.local(), &key(left.id), BINDING, now)
        };
        let sessions = [opening, Session::respond(BINDING, now)];
        Pair { nodes: [left, right], sessions, errors: [None, None], sent: [0, 0], fragment: usize::MAX }
    }

    /// Lets both talk until nothing more happens; returns how often bytes went over.
    pub(super) fn settle(&mut self) -> usize {
        let mut turns = 0;
        loop {
            let mut quiet = true;
            for from in 0..2 {
                let acted = self.nodes[from].act(&mut self.sessions[from]);
                self.note(from, acted);
                let Some(bytes) = self.sessions[from].poll_send(100_000) else { continue };
                quiet = false;
                turns += 1;
                self.sent[from] += bytes.len();
                self.deliver(1 - from, &bytes);
            }
            if quiet {
                return turns;
            }
        }
    }

    pub(super) fn deliver(&mut self, to: usize, bytes: &[u8]) {
        for part in bytes.chunks(self.fragment.min(bytes.len())) {
            let received = self.sessions[to].receive(part, Duration::ZERO);
            self.note(to, received);
            let acted = self.nodes[to].act(&mut self.sessions[to]);
            self.note(to, acted);
        }
    }

    fn note(&mut self, at: usize, result: Result<(), SessionError>) {
        if let Err(error) = result {
            self.errors[at].get_or_insert(error);
        }
    }

    /// Both say goodbye and the session ends well.
    pub(super) fn part(&mut self) {
        self.sessions[0].bye();
        self.settle();
        assert_eq!(self.errors, [None, None]);
        assert!(self.sessions.iter().all(Session::is_finished));
    }

    /// Both have everything, and were told that the other does.
    pub(super) fn assert_equal(&self) {
        assert_eq!(self.errors, [None, None]);
        let [left, right] = &self.nodes;
        assert_eq!(left.state(), right.state());
        assert_eq!(left.records, right.records);
        assert_eq!(left.bodies.keys().collect::<Vec<_>>(), right.bodies.keys().collect::<Vec<_>>());
    }
}
