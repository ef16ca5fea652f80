//! Response codes: what a program is to know of a status response (RFC 9051, section 7.1; RFC 5530).

use postmerge::mailbox::{Keyword, MailboxId, ModSeq, Uid, UidValidity};

use super::encode::{put_number, put_quoted_ascii, put_spaced};
use super::set::{NumberSet, put_runs};

/// A response code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code<'a> {
    /// Show the text to the user.
    Alert,
    /// The mailbox to be made is there already.
    AlreadyExists,
    /// What UIDs the appended messages got (RFC 4315).
    AppendUid(UidValidity, &'a NumberSet),
    /// The credentials are wrong.
    AuthenticationFailed,
    /// The credentials are right but may not act as that user.
    AuthorizationFailed,
    /// A charset that is not known, and those that are.
    BadCharset(&'a [&'a str]),
    /// A URL that CATENATE cannot take (RFC 4469), printable ASCII without `]`.
    BadUrl(&'a str),
    /// This can never be done.
    Cannot,
    /// What the server can do.
    Capability(&'a [&'a str]),
    /// The client did something wrong.
    ClientBug,
    /// What follows is of the newly selected mailbox (RFC 7162).
    Closed,
    /// The connection is compressed already (RFC 4978).
    CompressionActive,
    /// Tell the administrator.
    ContactAdmin,
    /// What UIDs copies got.
    CopyUid(CopyUid<'a>),
    /// Data of the server is damaged.
    Corruption,
    /// The password is too old.
    Expired,
    /// Somebody removed a message that the command speaks of.
    ExpungeIssued,
    /// A mailbox with mailboxes below it cannot be removed.
    HasChildren,
    /// The highest mod-sequence of the mailbox (RFC 7162).
    HighestModSeq(ModSeq),
    /// Somebody holds what the command needs.
    InUse,
    /// A limit of the server was reached.
    Limit,
    /// The id of the mailbox (RFC 8474).
    MailboxId(MailboxId),
    /// Messages that a conditional STORE left alone (RFC 7162).
    Modified(&'a NumberSet),
    /// The mailbox has no mod-sequences (RFC 7162).
    NoModSeq,
    /// There is no such mailbox.
    NonExistent,
    /// The user may not do this.
    NoPerm,
    /// `$` was emptied (RFC 5182).
    NotSaved,
    /// It would take more room than the user has.
    OverQuota,
    /// A message could not be parsed.
    Parse,
    /// The flags that can be changed, and whether keywords can be invented.
    PermanentFlags(&'a [Keyword], bool),
    /// This needs an encrypted connection.
    PrivacyRequired,
    /// The mailbox can only be read.
    ReadOnly,
    /// The mailbox can be changed.
    ReadWrite,
    /// The server did something wrong.
    ServerBug,
    /// The message is too large (RFC 4469).
    TooBig,
    /// Create the mailbox and try again.
    TryCreate,
    /// The next UID.
    UidNext(Uid),
    /// UIDs do not last (RFC 4315).
    UidNotSticky,
    /// The command needs UIDs (RFC 9586).
    UidRequired,
    /// The UIDVALIDITY.
    UidValidity(UidValidity),
    /// Something the server needs is down.
    Unavailable,
    /// A transfer encoding that cannot be decoded (RFC 3516).
    UnknownCte,
    /// The first message without `\Seen` (RFC 3501).
    Unseen(u32),
    /// A special use that cannot be had (RFC 6154).
    UseAttr,
}

/// The UIDs of messages and of their copies, both in the order of the sources; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyUid<'a> {
    /// The UIDVALIDITY of where the copies are.
    pub uid_validity: UidValidity,
    /// A message's UID and that of its copy.
    pub uids: &'a [(Uid, Uid)],
}

impl Code<'_> {
    /// Writes the code with its brackets and the space after; nothing if it holds a set without members, for which
    /// there is no syntax.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let empty = match self {
            Code::AppendUid(_, uids) => uids.is_empty(),
            Code::CopyUid(copies) => copies.uids.is_empty(),
            Code::Modified(messages) => messages.is_empty(),
            _ => false,
        };
        if !empty {
            out.push(b'[');
            out.extend_from_slice(self.name().as_bytes());
            self.put_arguments(out);
            out.extend_from_slice(b"] ");
        }
    }

    fn put_arguments(&self, out: &mut Vec<u8>) {
        let put_word = |out: &mut Vec<u8>, word: &str| {
            out.push(b' ');
            out.extend_from_slice(word.as_bytes());
        };
        let put_argument = |out: &mut Vec<u8>, number: u64| {
            out.push(b' ');
            put_number(out, number);
        };
        match *self {
            Code::AppendUid(uid_validity, uids) => {
                put_argument(out, uid_validity.value().into());
                out.push(b' ');
                uids.put(out);
            }
            Code::BadCharset([]) => {}
            Code::BadCharset(known) => {
                out.extend_from_slice(b" (");
                put_spaced(out, known, |out, charset| put_quoted_ascii(out, charset));
                out.push(b')');
            }
            Code::BadUrl(url) => put_word(out, url),
            Code::Capability(capabilities) => {
                capabilities.iter().for_each(|capability| put_word(out, capability));
            }
            Code::CopyUid(CopyUid { uid_validity, uids }) => {
                put_argument(out, uid_validity.value().into());
                out.push(b' ');
                put_runs(out, uids.iter().map(|(source, _)| source.value()));
                out.push(b' ');
                put_runs(out, uids.iter().map(|(_, copy)| copy.value()));
            }
            Code::HighestModSeq(mod_seq) => put_argument(out, mod_seq.value()),
            Code::MailboxId(id) => {
                out.extend_from_slice(b" (");
                out.extend_from_slice(id.to_string().as_bytes());
                out.push(b')');
            }
            Code::Modified(messages) => {
                out.push(b' ');
                messages.put(out);
            }
            Code::PermanentFlags(flags, any) => {
                out.extend_from_slice(b" (");
                let flags = flags.iter().map(Keyword::as_str).chain(any.then_some("\\*"));
                put_spaced(out, flags, |out, flag| out.extend_from_slice(flag.as_bytes()));
                out.push(b')');
            }
            Code::UidNext(uid) => put_argument(out, uid.value().into()),
            Code::UidValidity(uid_validity) => put_argument(out, uid_validity.value().into()),
            Code::Unseen(number) => put_argument(out, number.into()),
            _ => {}
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Code::Alert => "ALERT",
            Code::AlreadyExists => "ALREADYEXISTS",
            Code::AppendUid(..) => "APPENDUID",
            Code::AuthenticationFailed => "AUTHENTICATIONFAILED",
            Code::AuthorizationFailed => "AUTHORIZATIONFAILED",
            Code::BadCharset(_) => "BADCHARSET",
            Code::BadUrl(_) => "BADURL",
            Code::Cannot => "CANNOT",
            Code::Capability(_) => "CAPABILITY",
            Code::ClientBug => "CLIENTBUG",
            Code::Closed => "CLOSED",
            Code::CompressionActive => "COMPRESSIONACTIVE",
            Code::ContactAdmin => "CONTACTADMIN",
            Code::CopyUid(_) => "COPYUID",
            Code::Corruption => "CORRUPTION",
            Code::Expired => "EXPIRED",
            Code::ExpungeIssued => "EXPUNGEISSUED",
            Code::HasChildren => "HASCHILDREN",
            Code::HighestModSeq(_) => "HIGHESTMODSEQ",
            Code::InUse => "INUSE",
            Code::Limit => "LIMIT",
            Code::MailboxId(_) => "MAILBOXID",
            Code::Modified(_) => "MODIFIED",
            Code::NoModSeq => "NOMODSEQ",
            Code::NonExistent => "NONEXISTENT",
            Code::NoPerm => "NOPERM",
            Code::NotSaved => "NOTSAVED",
            Code::OverQuota => "OVERQUOTA",
            Code::Parse => "PARSE",
            Code::PermanentFlags(..) => "PERMANENTFLAGS",
            Code::PrivacyRequired => "PRIVACYREQUIRED",
            Code::ReadOnly => "READ-ONLY",
            Code::ReadWrite => "READ-WRITE",
            Code::ServerBug => "SERVERBUG",
            Code::TooBig => "TOOBIG",
            Code::TryCreate => "TRYCREATE",
            Code::UidNext(_) => "UIDNEXT",
            Code::UidNotSticky => "UIDNOTSTICKY",
            Code::UidRequired => "UIDREQUIRED",
            Code::UidValidity(_) => "UIDVALIDITY",
            Code::Unavailable => "UNAVAILABLE",
            Code::UnknownCte => "UNKNOWN-CTE",
            Code::Unseen(_) => "UNSEEN",
            Code::UseAttr => "USEATTR",
        }
    }
}
