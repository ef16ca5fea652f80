//! What the user is told when something fails: the chain of causes, a hint, an exit code.

use std::fmt;
use std::io::Write;

use postmerge::maildir::{BridgeError, ExportError, MaildirError, MboxError};
use postmerge::member::{MemberError, TicketError};
use postmerge::net::{NetError, NodeError};
use postmerge::replica::{LinkError, ReplicaError};
use postmerge::store::StoreError;
use postmerge::sync::{Refusal, SessionError};
use postmerge::uid::AccountError;

use crate::commands::deliver;
use crate::context::Code;

/// An error with a hint of its own, where the cause alone does not tell what to do.
#[derive(Debug)]
pub(crate) struct Advice {
    /// What failed.
    pub(crate) what: String,
    /// What to do.
    pub(crate) hint: String,
    /// Why, if something else failed first. A context of anyhow's would hide the hint.
    pub(crate) source: Option<anyhow::Error>,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Advice {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(AsRef::as_ref)
    }
}

/// An error that says what to do.
pub(crate) fn advice(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Advice { what: what.into(), hint: hint.into(), source: None }.into()
}

/// The same, with what caused it.
pub(crate) fn advice_on(
    error: impl Into<anyhow::Error>,
    what: impl Into<String>,
    hint: impl Into<String>,
) -> anyhow::Error {
    Advice { what: what.into(), hint: hint.into(), source: Some(error.into()) }.into()
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// The command line is right for clap and still means nothing.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error, as the user sees it.
pub(crate) struct Failure {
    causes: Vec<String>,
    hint: Option<String>,
    code: Code,
}

impl Failure {
    /// What `verb` failed of.
    pub(crate) fn of(error: &anyhow::Error, verb: &str) -> Failure {
        let mut causes: Vec<String> = Vec::new();
        for cause in error.chain().map(ToString::to_string) {
            // Some errors repeat their source.
            if !causes.last().is_some_and(|last| last.ends_with(&cause)) {
                causes.push(cause);
            }
        }
        let (mut hint, mut code) = (None, Code::FAILED);
        for cause in error.chain() {
            let (found, means) = judge(cause, verb);
            hint = hint.or(found);
            code = if code == Code::FAILED { means } else { code };
        }
        // Somebody closed our standard output, as `head` does; there is nobody to tell.
        let piped = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
        };
        if error.chain().count() == 1 && error.chain().all(piped) {
            causes.clear();
        }
        if verb == deliver::VERB {
            code = deliver::code(error);
        }
        Failure { causes, hint, code }
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Standard error may be closed too; then nobody hears of it.
    pub(crate) fn print(&self, out: &mut dyn Write) {
        let mut causes = self.causes.iter();
        if let Some(first) = causes.next() {
            let _ = writeln!(out, "error: {first}");
        }
        for cause in causes {
            let _ = writeln!(out, "  because: {cause}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "Hint: {hint}");
        }
    }
}

/// What one cause means: a hint, and an exit code.
fn judge(cause: &(dyn std::error::Error + 'static), verb: &str) -> (Option<String>, Code) {
    let failed = |hint: &str| (Some(hint.to_owned()), Code::FAILED);
    if let Some(advice) = cause.downcast_ref::<Advice>() {
        return (Some(advice.hint.clone()), Code::FAILED);
    }
    if cause.is::<Usage>() {
        return (Some(format!("`postmerge {verb} --help` says how it is written")), Code::USAGE);
    }
    if let Some(error) = cause.downcast_ref::<ReplicaError>() {
        return replica(error);
    }
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return store(error);
    }
    if let Some(error) = cause.downcast_ref::<NodeError>() {
        return node(error);
    }
    if let Some(error) = cause.downcast_ref::<TicketError>() {
        return ticket(error);
    }
    if let Some(MaildirError::NoMailbox { .. }) = cause.downcast_ref() {
        return failed("name the directory that holds cur and new, or a directory of such directories");
    }
    if let Some(error) = cause.downcast_ref::<BridgeError>() {
        return bridge(error);
    }
    if let Some(MboxError::NotMbox { .. }) = cause.downcast_ref() {
        return failed("import takes Maildir directories and mbox files; for a single message use append");
    }
    if let Some(ExportError::NotEmpty { .. }) = cause.downcast_ref() {
        return failed(
            "export writes into a new or empty directory; what one that was cut off left can be removed",
        );
    }
    (None, Code::FAILED)
}

fn bridge(error: &BridgeError) -> (Option<String>, Code) {
    let hint = match error {
        BridgeError::Marker { .. } => {
            "is it mounted? If it was put back from elsewhere, `postmerge maildir detach` and `attach` it: nothing is removed \
             then, on either side"
        }
        BridgeError::Attached { here: true, .. } => "`postmerge sync` or `postmerge serve` keeps it in step",
        BridgeError::Attached { here: false, .. } => {
            "detach it there first; if that replica is no more, remove the file `.postmerge` in it"
        }
        BridgeError::NotAttached { .. } => "`postmerge maildir list` lists those that are",
        BridgeError::Maildir(MaildirError::NoMailbox { .. }) => {
            "name the directory that holds cur and new, or a directory of such directories; for a new Maildir make these first: \
             mkdir -p DIR/cur DIR/new DIR/tmp"
        }
        BridgeError::Undecided { .. } => {
            "`postmerge sync` fetches them; files that are messages with other bytes are then recognised, and not added again"
        }
        BridgeError::Write { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            "make room there; what was done so far is safe, and the next run goes on"
        }
        BridgeError::Ledger(_) => {
            "remove maildirs.redb in the store and attach its Maildirs again: files and messages are then matched by content"
        }
        BridgeError::Replica(error) => return replica(error),
        _ => return (None, Code::FAILED),
    };
    (Some(hint.into()), Code::FAILED)
}

fn replica(error: &ReplicaError) -> (Option<String>, Code) {
    let hint = match error {
        ReplicaError::NoReplica { .. } => {
            let hint = "make one with `postmerge init`, or join an account with `postmerge join TICKET`; \
                        --store DIR names another directory";
            return (Some(hint.into()), Code::NO_REPLICA);
        }
        ReplicaError::Store(error) => return store(error),
        ReplicaError::Io { source, .. } => return (io(source), Code::FAILED),
        ReplicaError::Members { .. } => {
            "stop `serve` on another machine, copy the file `members` of its replica here, and start both; \
             on an observer `postmerge check --repair` keeps what is whole of it"
        }
        ReplicaError::Ticket(error) => return ticket(error),
        ReplicaError::NoMessage { mailbox, .. } => {
            return (Some(format!("`postmerge messages {mailbox:?}` lists the UIDs")), Code::FAILED);
        }
        ReplicaError::Owed { .. } => "`postmerge sync` fetches what peers have",
        ReplicaError::Account(AccountError::UidValidity { .. }) => {
            "`postmerge messages MAILBOX` lists the UIDs"
        }
        ReplicaError::NotJoined => "`postmerge join TICKET` again, while the inviting replica is served",
        ReplicaError::NotReady => "`postmerge sync` while the inviting replica is served",
        ReplicaError::Role { .. } => {
            "a server of the account can give it another: `postmerge role PEER ROLE`"
        }
        ReplicaError::NoPeer { .. } | ReplicaError::ManyPeers { .. } => "`postmerge peers` lists them",
        ReplicaError::Account(AccountError::NoMailbox { .. }) => "`postmerge mailboxes` lists them",
        ReplicaError::Member(MemberError::NoLane) => {
            "only a server that has UIDs to share can invite another server; invite an observer, or let the \
             account's first server invite"
        }
        _ => return (None, Code::FAILED),
    };
    (Some(hint.into()), Code::FAILED)
}

fn store(error: &StoreError) -> (Option<String>, Code) {
    match error {
        StoreError::Locked { .. } => {
            (Some("another postmerge is at work there; wait for it or stop it".into()), Code::LOCKED)
        }
        StoreError::NotAStore { .. } => {
            (Some("--store DIR names another directory".into()), Code::NO_REPLICA)
        }
        StoreError::NotEmpty { .. } => (Some("name a new or empty directory".into()), Code::FAILED),
        StoreError::Damaged { .. } | StoreError::Missing { .. } | StoreError::Index(_) => (
            Some("`postmerge check` looks at every file, `postmerge check --repair` repairs".into()),
            Code::FAILED,
        ),
        StoreError::Io { source, .. } => (io(source), Code::FAILED),
        StoreError::ReadOnly { .. } => (Some("leave out --read-only".into()), Code::FAILED),
        StoreError::InsideItself { .. } => (Some("name a directory elsewhere".into()), Code::FAILED),
        StoreError::Newer { .. } => (Some("a newer postmerge wrote it; use that one".into()), Code::FAILED),
        _ => (None, Code::FAILED),
    }
}

fn io(error: &std::io::Error) -> Option<String> {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let hint = match error.kind() {
        PermissionDenied | ReadOnlyFilesystem => {
            "a replica's directory and all in it must be writable by whoever uses it; `--read-only` shows what is in one \
             that is not"
        }
        StorageFull | QuotaExceeded => "make room there; what was confirmed so far is safe",
        _ => return None,
    };
    Some(hint.into())
}

fn ticket(error: &TicketError) -> (Option<String>, Code) {
    let hint = match error {
        TicketError::Expired { .. } => "ask for a new one: `postmerge invite`",
        TicketError::Version { .. } => "a newer postmerge wrote it",
        _ => "copy the ticket as a whole, from \"postmerge1-\" on",
    };
    (Some(hint.into()), Code::FAILED)
}

fn node(error: &NodeError) -> (Option<String>, Code) {
    let hint = match error {
        NodeError::Net(NetError::Bind { .. }) => {
            "another program may use the port; --listen ADDR:PORT names another"
        }
        NodeError::Net(NetError::Timeout { .. } | NetError::Lost(_) | NetError::Address { .. }) => {
            "is `postmerge serve` running there, and does its UDP port get through?"
        }
        NodeError::Net(NetError::WrongPeer { .. }) => "the address belongs to another machine now",
        NodeError::NoAddress(_) => "the peer says where it is with `postmerge peers set-address HOST:PORT`",
        NodeError::Link(LinkError::Revoked) => {
            "`postmerge export` still writes out what it holds; to take part again, join in another directory with a new \
             ticket"
        }
        NodeError::Link(LinkError::Session(SessionError::Refused {
            refusal:
                Refusal::TicketUsed | Refusal::TicketExpired | Refusal::TicketAltered | Refusal::TicketUnknown,
            ..
        })) => "a ticket is good for one replica and a limited time; ask for a new one: `postmerge invite`",
        _ => return (None, Code::FAILED),
    };
    (Some(hint.into()), Code::FAILED)
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn a_directory_that_cannot_be_written_to_is_named_with_what_to_do() {
        for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
            let store =
                || StoreError::Io { action: "open", path: "/mail/lock".into(), source: Error::from(kind) };
            for error in [anyhow::Error::from(store()), ReplicaError::Store(store()).into()] {
                let failure = Failure::of(&error, "serve");
                assert_eq!(
                    failure.causes,
                    ["cannot open /mail/lock".to_owned(), Error::from(kind).to_string()]
                );
                assert!(failure.hint.is_some_and(|hint| hint.contains("--read-only")), "{error:?}");
                assert_eq!(failure.code, Code::FAILED);
            }
        }
    }
}
