//! Who is at the other end: hellos and joins, and the signatures that tie them to one connection.

use std::collections::BTreeMap;

use super::frame::{HelloFrame, JoinFrame};
use crate::mailbox::{AccountId, ReplicaId};
use crate::member::{MemberName, OfferId, PeerId, PublicKey, SecretKey, TicketSecret};

/// Names a connection: the exporter of its TLS session, or the hash of both nonces. A proof holds for one.
pub type Binding = [u8; 32];
/// Names a state of an account: its heads and its membership.
pub type Digest = [u8; 16];
/// Names a set of membership records: the first bytes of their digest.
pub type MembersDigest = [u8; 8];
/// Names a membership record: the first bytes of its id.
pub type RecordName = [u8; 16];
/// Of each replica the number of its last change that is here: changes of one replica are a chain, so this
/// says exactly which changes a causally closed set holds.
pub type VersionVector = BTreeMap<ReplicaId, u64>;

const HELLO_DOMAIN: &[u8] = b"postmerge 1 hello\0";
const JOIN_DOMAIN: &[u8] = b"postmerge 1 join\0";

/// Who opened the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Speaks first.
    Initiator,
    /// Answers, once it knows who asks.
    Responder,
}

impl Side {
    fn code(self) -> u8 {
        match self {
            Side::Initiator => 1,
            Side::Responder => 2,
        }
    }
}

/// What a replica has: the changes, and a name for the whole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// Equal on two replicas exactly if they have the same changes and membership records.
    pub digest: Digest,
    /// Which changes.
    pub changes: VersionVector,
}

/// What the host says of itself when a session begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Local {
    /// The account.
    pub account: AccountId,
    /// This replica of it.
    pub replica: ReplicaId,
    /// What it has.
    pub state: State,
    /// The first bytes of the membership digest.
    pub members: MembersDigest,
    /// The names of its membership records, for a peer that has others.
    pub records: Vec<RecordName>,
    /// The counter of its mod-sequences; both sides go on from the higher.
    pub counter: u64,
    /// Whether bodies of what it shows have not arrived yet: a peer that has the same changes is still needed.
    pub owes: bool,
    /// Membership records that a peer may lack and without which it would not know this replica: those of a restored
    /// store, which goes on under another id. At most [`MAX_INTRODUCTION`](super::MAX_INTRODUCTION).
    pub introduction: Vec<Vec<u8>>,
}

/// What a peer says of itself. Believe nothing of it before it is accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerHello {
    /// The account that it wants to talk about.
    pub account: AccountId,
    /// The replica that it says it is.
    pub replica: ReplicaId,
    /// Names what it has.
    pub digest: Digest,
    /// Names its membership records.
    pub members: MembersDigest,
    /// The counter of its mod-sequences.
    pub counter: u64,
    /// Whether it still waits for bodies.
    pub owes: bool,
    /// Membership records that tell who it is. Not verified.
    pub introduction: Vec<Vec<u8>>,
}

/// What a guest says of itself. Its signature with `key` was verified; whether it may come was not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Join {
    /// The account to join.
    pub account: AccountId,
    /// The offer on the ticket.
    pub offer: OfferId,
    /// The id that it chose.
    pub replica: ReplicaId,
    /// Its key.
    pub key: PublicKey,
    /// Its endpoint. Over QUIC the host compares it with the endpoint that it talks to.
    pub endpoint: PeerId,
    /// What people call it.
    pub name: MemberName,
}

impl Join {
    /// What shows that the guest holds the ticket, without showing the secret, on this connection only.
    fn ticket_proof(&self, secret: &TicketSecret, binding: &Binding) -> [u8; 32] {
        let key = blake3::derive_key("postmerge 1 join proof", secret.expose());
        *blake3::keyed_hash(&key, &self.transcript(binding)).as_bytes()
    }

    fn transcript(&self, binding: &Binding) -> Vec<u8> {
        let mut bytes = [JOIN_DOMAIN, binding, self.account.as_bytes(), self.offer.as_bytes()].concat();
        bytes.extend_from_slice(self.replica.as_bytes());
        bytes.extend_from_slice(self.key.as_bytes());
        bytes.extend_from_slice(self.endpoint.key().as_bytes());
        bytes.extend_from_slice(self.name.as_str().as_bytes());
        bytes
    }

    pub(super) fn frame(&self, secret: &TicketSecret, key: &SecretKey, binding: &Binding) -> JoinFrame {
        let ticket_proof = self.ticket_proof(secret, binding);
        let signature = key.sign(&[&self.transcript(binding)[..], &ticket_proof].concat());
        JoinFrame { join: self.clone(), ticket_proof, signature }
    }
}

impl JoinFrame {
    /// Whether the guest has the key that it names.
    pub(super) fn signed(&self, binding: &Binding) -> bool {
        let message = [&self.join.transcript(binding)[..], &self.ticket_proof].concat();
        self.join.key.verify(&message, &self.signature)
    }

    /// Whether the guest holds the ticket with `secret`.
    pub(super) fn holds(&self, secret: &TicketSecret, binding: &Binding) -> bool {
        // Comparing two BLAKE3 hashes takes constant time.
        blake3::Hash::from(self.ticket_proof) == blake3::Hash::from(self.join.ticket_proof(secret, binding))
    }
}

impl HelloFrame {
    pub(super) fn new(local: &Local, key: &SecretKey, side: Side, binding: &Binding) -> HelloFrame {
        let hello = PeerHello {
            account: local.account,
            replica: local.replica,
            digest: local.state.digest,
            members: local.members,
            counter: local.counter,
            owes: local.owes,
            introduction: local.introduction.clone(),
        };
        let proof = key.sign(&transcript(&hello, side, binding));
        HelloFrame { hello, proof }
    }

    /// Whether `key` made the proof, on this connection and on `side`.
    pub(super) fn proves(&self, key: &PublicKey, side: Side, binding: &Binding) -> bool {
        key.verify(&transcript(&self.hello, side, binding), &self.proof)
    }
}

fn transcript(hello: &PeerHello, side: Side, binding: &Binding) -> Vec<u8> {
    let mut bytes = [HELLO_DOMAIN, binding, hello.account.as_bytes(), hello.replica.as_bytes()].concat();
    bytes.push(side.code());
    bytes.extend_from_slice(&hello.digest);
    bytes.extend_from_slice(&hello.members);
    bytes.extend_from_slice(&hello.counter.to_be_bytes());
    bytes.push(u8::from(hello.owes));
    bytes
}
