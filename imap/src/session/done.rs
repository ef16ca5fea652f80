//! How a command ends.

use std::borrow::Cow;

use postmerge::mailbox::{MailboxId, ModSeq, Uid, UidValidity};
use postmerge::replica::ReplicaError;
use postmerge::uid::AccountError;

use super::selected::Lost;
use crate::grammar::{Code, CopyUid, NumberSet};

/// The answer to a command.
pub(super) enum Done {
    /// It was done.
    Ok(Reply, Cow<'static, str>),
    /// The command is fine, but it cannot be done.
    No(Reply, Cow<'static, str>),
    /// It is not a command that can be given here.
    Bad(Reply, Cow<'static, str>),
    /// The session cannot go on.
    Bye(String),
    /// It goes on in later steps.
    Runs,
    /// Everything is said.
    Answered,
}

impl Done {
    pub(super) fn ok(text: &'static str) -> Done {
        Done::Ok(Reply::None, text.into())
    }

    pub(super) fn ok_with(reply: Reply, text: &'static str) -> Done {
        Done::Ok(reply, text.into())
    }

    pub(super) fn no(code: Code<'static>, text: impl Into<Cow<'static, str>>) -> Done {
        Done::No(Reply::Plain(code), text.into())
    }

    pub(super) fn bad(text: &'static str) -> Done {
        Done::Bad(Reply::None, text.into())
    }
}

/// A response code that owns what it tells.
pub(super) enum Reply {
    None,
    Plain(Code<'static>),
    Appended(UidValidity, NumberSet),
    Copied(UidValidity, Vec<(Uid, Uid)>),
    Modified(NumberSet),
    HighestModSeq(ModSeq),
    BadUrl(String),
    MailboxId(MailboxId),
}

impl Reply {
    pub(super) fn code(&self) -> Option<Code<'_>> {
        Some(match self {
            Reply::None => return None,
            Reply::Plain(code) => *code,
            Reply::Appended(uid_validity, uids) => Code::AppendUid(*uid_validity, uids),
            Reply::Copied(uid_validity, uids) if !uids.is_empty() => {
                Code::CopyUid(CopyUid { uid_validity: *uid_validity, uids })
            }
            Reply::Copied(..) => return None,
            Reply::Modified(messages) => Code::Modified(messages),
            Reply::BadUrl(url) => Code::BadUrl(url),
            Reply::HighestModSeq(modseq) => Code::HighestModSeq(*modseq),
            Reply::MailboxId(id) => Code::MailboxId(*id),
        })
    }
}

/// Why a command was not done.
#[derive(Debug)]
pub(super) enum Failed {
    /// It makes no sense in this state.
    Bad(&'static str),
    /// It cannot be done, for this reason.
    No(Option<Code<'static>>, String),
    /// A URL means no message here.
    BadUrl(String),
    /// The selected mailbox is not what it was.
    Lost(Lost),
    /// The replica failed.
    Replica(ReplicaError),
    /// Sequence numbers are not for a client that enabled UIDONLY (RFC 9586).
    UidRequired,
    /// A line is half written and cannot be completed.
    HalfWritten(ReplicaError),
}

impl From<ReplicaError> for Failed {
    fn from(error: ReplicaError) -> Failed {
        Failed::Replica(error)
    }
}

impl From<Lost> for Failed {
    fn from(lost: Lost) -> Failed {
        match lost {
            Lost::Replica(error) => Failed::Replica(error),
            lost => Failed::Lost(lost),
        }
    }
}

impl Failed {
    pub(super) fn unselected() -> Failed {
        Failed::Bad("select a mailbox first")
    }

    /// What the client is told.
    pub(super) fn answer(self) -> Done {
        match self {
            Failed::Bad(text) => Done::bad(text),
            Failed::No(code, text) => Done::No(code.map_or(Reply::None, Reply::Plain), text.into()),
            Failed::BadUrl(url) => {
                Done::No(Reply::BadUrl(url), "there is no such message or part here".into())
            }
            Failed::UidRequired => Done::Bad(Reply::Plain(Code::UidRequired), "name messages by UIDs".into()),
            Failed::Lost(lost) => Done::Bye(lost.to_string()),
            Failed::HalfWritten(error) => {
                tracing::error!(%error, "a message could not be read to its end");
                Done::Bye("a message could not be read to its end".into())
            }
            Failed::Replica(error) => {
                let code = code_of(&error);
                if code == Code::ServerBug {
                    tracing::error!(%error, "the replica failed");
                }
                Done::No(Reply::Plain(code), error.to_string().into())
            }
        }
    }
}

fn code_of(error: &ReplicaError) -> Code<'static> {
    match error {
        ReplicaError::Account(AccountError::NoMailbox { .. }) => Code::NonExistent,
        ReplicaError::Account(AccountError::Exists { .. }) => Code::AlreadyExists,
        ReplicaError::Account(AccountError::Inbox) => Code::Cannot,
        ReplicaError::Account(AccountError::TooMany { .. }) => Code::Limit,
        ReplicaError::Account(AccountError::ValidityExhausted { .. }) => Code::Cannot,
        ReplicaError::NotReady | ReplicaError::NotJoined | ReplicaError::Unsettled { .. } => {
            Code::Unavailable
        }
        ReplicaError::Role { .. } => Code::NoPerm,
        ReplicaError::Owed { .. } => Code::Unavailable,
        _ => Code::ServerBug,
    }
}
