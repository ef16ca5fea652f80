//! How a session ends badly, and whose doing it is.

use std::fmt;

use crate::blob::BlobId;

/// Why a session ended. The peer was told, where there was somebody to tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Peer(#[from] Misbehaved),
    /// The peer ended the session and said why.
    #[error("the peer ended the session: {refusal}{}{text}", if text.is_empty() { "" } else { ": " })]
    Refused {
        /// What it holds against us.
        refusal: Refusal,
        /// Its words: printable, at most [`MAX_TEXT`](super::MAX_TEXT) bytes.
        text: String,
    },
    /// We ended the session; the peer was told the same.
    #[error("the session was ended here: {refusal}")]
    Ended {
        /// Why.
        refusal: Refusal,
    },
    /// A limit: the peer was silent for too long.
    #[error("the peer was silent for too long while {0} was due")]
    Timeout(Waiting),
    /// Ours: the host called what the session's state does not allow.
    #[error("the session was used wrongly: {0}")]
    Misuse(&'static str),
}

/// What a silent peer owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Its hello, or the answer to ours.
    Hello,
    /// Its version vector or its changes.
    Changes,
    /// Bodies that it was asked for.
    Bodies,
    /// The answer to a question of a survey.
    Survey,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Waiting::Hello => "its hello",
            Waiting::Changes => "its changes",
            Waiting::Bodies => "a body",
            Waiting::Survey => "an answer",
        })
    }
}

/// What a peer did that the protocol forbids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaved {
    /// A frame is larger than the state allows.
    #[error("a frame of {len} bytes, at most {max} are allowed")]
    FrameTooLarge {
        /// Bytes it announced.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A frame's body is not what its type says.
    #[error("a malformed frame of type {kind:#04x}")]
    Malformed {
        /// The frame's type.
        kind: u8,
    },
    /// A frame type that nobody may ignore and we do not know.
    #[error("an unknown frame of type {kind:#04x}")]
    UnknownFrame {
        /// The frame's type.
        kind: u8,
    },
    /// A frame at a time when it is not allowed.
    #[error("a frame of type {kind:#04x} out of turn")]
    OutOfTurn {
        /// The frame's type.
        kind: u8,
    },
    /// Something followed its goodbye.
    #[error("bytes after the end")]
    AfterEnd,
    /// More requests than allowed are open.
    #[error("more than {} bodies asked for at once", super::MAX_WANTED)]
    TooManyWanted,
    /// It asked again for what it was still waiting for.
    #[error("body {blob} asked for twice")]
    AskedTwice {
        /// The body.
        blob: BlobId,
    },
    /// It answered what nobody asked, or twice.
    #[error("a body that nobody asked for")]
    Unrequested,
    /// A large body went on somewhere else than where it was cut.
    #[error("a piece of body {blob} at {offset} instead of {expected}")]
    WrongOffset {
        /// The body.
        blob: BlobId,
        /// Where the piece was.
        offset: u64,
        /// Where it belonged.
        expected: u64,
    },
    /// A body or bundle has more bytes than it may.
    #[error("more bytes of a body than were asked for")]
    TooMuch,
    /// More membership records than an account can have.
    #[error("more membership records than an account can have")]
    TooManyRecords,
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why one side ends a session; what goes over the wire is the number.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Refusal {
            $($(#[$doc])* $name,)*
            /// A reason of a later version.
            Other(u64),
        }

        impl Refusal {
            /// The number on the wire.
            pub const fn code(self) -> u64 {
                match self {
                    $(Refusal::$name => $code,)*
                    Refusal::Other(code) => code,
                }
            }

            /// The reason that a number stands for.
            pub const fn from_code(code: u64) -> Refusal {
                match code {
                    $($code => Refusal::$name,)*
                    code => Refusal::Other(code),
                }
            }
        }

        impl fmt::Display for Refusal {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Refusal::$name => f.write_str($text),)*
                    Refusal::Other(code) => write!(f, "reason {code}, which this program does not know"),
                }
            }
        }
    };
}

refusals! {
    /// The two speak no common version.
    Version = 1, "no common protocol version";
    /// This endpoint has no replica of the account.
    WrongAccount = 2, "no replica of this account here";
    /// The replica is no member of the account.
    UnknownReplica = 3, "the replica is not a member of this account";
    /// The replica was a member.
    Revoked = 4, "the membership was revoked";
    /// The signature does not match the key of the member, or was made for another connection.
    BadProof = 5, "the replica's proof of identity does not hold";
    /// The replica went on under another id.
    Succeeded = 6, "the replica has gone on under another id";
    /// Both sides are the same replica: a store was copied.
    SameReplica = 7, "both sides are the same replica, so one store is a copy of the other";
    /// The offer of the ticket is not known here.
    TicketUnknown = 10, "the ticket is not known here";
    /// The ticket was used.
    TicketUsed = 11, "the ticket was already used";
    /// The ticket came too late.
    TicketExpired = 12, "the ticket has expired";
    /// The ticket's secret is not the one that was given out.
    TicketAltered = 13, "the ticket's secret is wrong";
    /// The peer broke the protocol.
    Protocol = 20, "you broke the protocol";
    /// The peer sent a change that cannot be applied.
    BadChange = 21, "you sent a change that cannot be applied";
    /// The peer sent a body that is not what was asked for.
    BadBody = 22, "you sent a body that is not the one asked for";
    /// The peer sent a membership record that is none.
    BadRecord = 23, "you sent a membership record that is none";
    /// The peer was silent for too long.
    Stalled = 24, "you were silent for too long";
    /// A limit of the account is reached.
    Limit = 25, "a limit of the account is reached";
    /// Too many sessions.
    Busy = 30, "too busy, come back later";
    /// There is another conversation of the two, and one is enough.
    Replaced = 32, "another conversation between the two goes on in its place";
    /// This side stops, or has no room, or failed; the peer did nothing wrong.
    Unavailable = 31, "unavailable here for now";
}

/// A reason of the host's to end a session, and words for the other side. The words must not hold secrets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The reason.
    pub refusal: Refusal,
    /// Words; cut to [`MAX_TEXT`](super::MAX_TEXT) bytes.
    pub text: String,
}

impl Fault {
    /// A reason with words.
    pub fn new(refusal: Refusal, text: impl Into<String>) -> Fault {
        Fault { refusal, text: text.into() }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault::new(refusal, "")
    }
}
