//! The conversation of two replicas, without I/O: bytes and time in, bytes and events out.
//!
//! A session proves who the peer is, exchanges the membership records and changes that the other lacks, then
//! bodies, and goes on pushing. It knows nothing of storage: what changes and bundles hold is the host's
//! affair, and so is judging who may do what. `docs/protocol.md` has the bytes.
//!
//! What it keeps true: nothing is said to a peer before it is accepted but our own hello, and not even that by
//! the responder; a peer can make us keep only one frame, one bundle and a bounded number of requests; a
//! change never waits behind more than one piece of a body.

mod assembler;
mod bodies;
mod compact;
mod error;
mod event;
mod frame;
mod handshake;
mod naming;
mod outbox;
mod outgoing;
mod session;
mod survey;

pub use bodies::{Want, Wanted};
pub use error::{Fault, Misbehaved, Refusal, SessionError, Waiting};
pub use event::{Event, IncomingChange};
pub use handshake::{
    Binding, Digest, Join, Local, MembersDigest, PeerHello, RecordName, Side, State, VersionVector,
};
pub use naming::{Naming, naming};
pub use outgoing::OutgoingChange;
pub use session::Session;
pub use survey::{
    Answer, BUCKETS, Bucket, MAX_LISTED, MAX_SURVEYED, Question, SetDigest, SurveyedMailbox, SurveyedUids,
};

/// Version of the protocol. A peer that speaks only a newer one is refused by name.
pub const PROTOCOL: u64 = 1;
/// Largest change, 1 MiB: an import's pack of a thousand entries is a tenth of it.
pub const MAX_CHANGE: usize = 1 << 20;
/// Largest body of a frame: one change and the few bytes around it.
pub const MAX_FRAME: usize = MAX_CHANGE + 1024;
/// Largest body of a frame before the peer is accepted: a hello or a join is below 512 bytes.
pub const MAX_STRANGER_FRAME: usize = 4096;
/// Most membership records in a hello: a store that was restored three times since a peer last heard of it.
pub const MAX_INTRODUCTION: usize = 3;
/// Changes and records are gathered into frames of about this size, so that a round trip is not paid for each.
pub const BATCH: usize = 256 << 10;
/// Bytes of changes that wait to be sent before the host is asked for more.
pub const MAX_QUEUED: usize = 1 << 20;
/// Largest piece of a body on the wire: what a flag change waits for at most, 50 ms at 10 Mbit/s.
pub const PIECE: usize = 64 << 10;
/// Largest bundle: a mebibyte of bodies and what is written around them.
pub const MAX_BUNDLE: usize = (1 << 20) + (64 << 10);
/// Most bodies that may be asked for and not yet answered.
pub const MAX_WANTED: usize = 256;
/// Below this many open requests the host is asked for more.
pub const LOW_WATER: usize = 64;
/// Most replicas in a version vector: as many as a membership log can hold.
pub const MAX_REPLICAS: usize = crate::member::MAX_RECORDS;
/// Longest explanation in a refusal, in bytes.
pub const MAX_TEXT: usize = 256;
/// A peer that has not said who it is after this long is sent away.
pub const HELLO_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// A peer that owes something and is silent for this long is given up.
pub const STALL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

#[cfg(test)]
mod tests;
