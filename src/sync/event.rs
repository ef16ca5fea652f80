//! What the host hears of a session.

use super::bodies::Wanted;
use super::handshake::{Digest, Join, PeerHello, RecordName, VersionVector};
use super::survey::{Answer, Question};
use crate::blob::BlobId;
use crate::member::Signature;

/// A change that the peer sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IncomingChange {
    /// The change.
    pub bytes: Vec<u8>,
    /// What its author signed, if it came with it.
    pub signature: Option<Signature>,
}

/// What the host hears from a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The peer says who it is. Judge it, then [`accept`](super::Session::accept) (initiator),
    /// [`answer`](super::Session::answer) (responder) or [`fail`](super::Session::fail).
    Hello(PeerHello),
    /// A guest wants to join. Check its ticket with [`holds_ticket`](super::Session::holds_ticket), admit it durably,
    /// then [`welcome`](super::Session::welcome), or [`fail`](super::Session::fail).
    Join(Join),
    /// We may join: the membership log. Store it, then [`hello`](super::Session::hello).
    Welcome(Vec<Vec<u8>>),
    /// Both sides accepted each other, and had the same or not.
    Accepted {
        /// Whether both have the same changes and membership records.
        in_sync: bool,
    },
    /// The peer has these membership records; it wants the others, with
    /// [`offer_members`](super::Session::offer_members).
    MembersWanted {
        /// Their names.
        peer_has: Vec<RecordName>,
    },
    /// Encoded membership records, to be verified and added before the changes that come after them.
    Members(Vec<Vec<u8>>),
    /// Bring changes that the peer lacks, in causal order, with [`offer_changes`](super::Session::offer_changes).
    ChangesWanted {
        /// What it has or was sent.
        peer_has: VersionVector,
        /// About how many bytes to bring; one change may be larger.
        room: usize,
    },
    /// Changes, in causal order. Neither they nor what is said to be a signature were looked into.
    Changes(Vec<IncomingChange>),
    /// The peer is in this state and has no more changes for now ([`peer_has`](super::Session::peer_has) is up to
    /// date). Commit, then say [`held`](super::Session::held) if the two have the same now, bodies included; else
    /// [`changes_known`](super::Session::changes_known), and `held` once they have.
    ChangesEnd {
        /// The state that the peer is in.
        digest: Digest,
    },
    /// The peer has these changes durably.
    /// Only what it had not said before.
    Known(VersionVector),
    /// The peer is in this state of ours, and has every change and body of it durably.
    Held(Digest),
    /// Few requests for bodies are open.
    WantMore,
    /// The peer waits for these, most urgent first. Answer at least one; what stays open is asked again.
    BodiesWanted(Vec<Wanted>),
    /// The peer waits for the next chunk of a body that was begun.
    ChunkWanted(Wanted),
    /// A bundle that should hold these bodies. Not verified.
    Bundle {
        /// The bodies that it answers.
        blobs: Vec<BlobId>,
        /// The bundle.
        bytes: Vec<u8>,
    },
    /// The next bytes of a large body. Not verified.
    Chunk {
        /// The body.
        blob: BlobId,
        /// Where the bytes belong.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
        /// Whether the body ends here.
        last: bool,
    },
    /// The peer does not have this body.
    Missing(BlobId),
    /// Bodies that the peer said are missing have arrived there, and may be asked for again. Not verified.
    Here(Vec<BlobId>),
    /// The peer asks about the state with this digest. Answer with [`tell`](super::Session::tell).
    SurveyWanted {
        /// The state.
        digest: Digest,
        /// What it wants to know of it.
        question: Question,
    },
    /// The answer to our question.
    Surveyed(Answer),
    /// The peer has nothing more to say. What waits is still sent, then the session is finished.
    Bye,
}
