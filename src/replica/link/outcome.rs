//! What comes of a conversation: what happens in it, and why it ends before its time.

use super::STILL;
use crate::blob::BlobId;
use crate::mailbox::ReplicaId;
use crate::replica::ReplicaError;
use crate::sync::{Fault, Refusal, SessionError};

/// What happens in a conversation, for people and for the program around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The peer is a member and proved it. The transport may give it more room.
    Accepted {
        /// The peer.
        peer: ReplicaId,
        /// Whether both sides had the same already.
        in_sync: bool,
    },
    /// Changes of others are here, durably.
    Received {
        /// How many.
        changes: u64,
    },
    /// Bodies arrived.
    Bodies {
        /// How many.
        count: u64,
        /// Their bytes.
        bytes: u64,
        /// Bodies that are still owed.
        left: u64,
        /// Their bytes.
        left_bytes: u64,
    },
    /// The peer does not have a body that is owed here.
    Missing(BlobId),
    /// The peer durably has all changes that are here.
    Known,
    /// The peer durably has all changes that are here, and all bodies that are shown.
    Held,
    /// The peer says that this replica is no member of the account any more.
    Revoked,
}

/// Why a conversation ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The session failed; the peer was told why.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The peer says that this replica was revoked; unless the peer lies, no other will talk to it either.
    #[error("this replica was forgotten: the peer says that its membership in the account was revoked")]
    Revoked,
    /// The peer sent what this replica cannot take.
    #[error("the peer sent what cannot be taken: {what}")]
    Peer {
        /// What is wrong with it.
        what: String,
    },
    /// The peer has more of this replica's changes than it has itself.
    #[error(
        "this store was rolled back: the peer brought changes of this replica that it does not know; it goes on as a new \
         replica, try again"
    )]
    RolledBack,
    /// Nothing moves any more, and yet the two do not have the same.
    #[error("nothing came for {} s, and the two sides do not have the same", STILL.as_secs())]
    Still,
    /// This side does not talk to the peer; the peer was told why.
    #[error("the peer was refused: {}", fault.refusal)]
    Refused {
        /// What it was told.
        fault: Fault,
    },
    /// The other end is somebody else than the one who was meant.
    #[error("the other end is {found}, not {meant}")]
    SomebodyElse {
        /// Who it says it is.
        found: ReplicaId,
        /// Who was to be reached.
        meant: ReplicaId,
    },
    /// This replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<Refusal> for LinkError {
    fn from(refusal: Refusal) -> LinkError {
        LinkError::Refused { fault: refusal.into() }
    }
}
