//! Commands, and which grammar follows which name.

use postmerge::mailbox::{ModSeq, SpecialUse, UidValidity};

use super::error::{CommandError, Parsed, Problem};
use super::fetch::{Fetch, fetch};
use super::list::{List, Lsub, list, lsub};
use super::names::{Flag, MailboxArg, NameEncoding, Tag, flag, flag_list, mailbox, new_mailbox, tag};
use super::scanner::Scanner;
use super::search::{Search, Sort, Thread, search, sort, thread};
use super::select::{Select, select};
use super::session::{self, Extension, Mechanism, Secret};
use super::set::{MessageSet, message_set};
use super::status::{StatusItem, status_items};

/// One command of a client, all but APPEND and REPLACE, which [`Reader`](super::Reader) hands out in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What the client calls it.
    pub tag: Tag,
    /// What it wants.
    pub body: CommandBody,
}

/// What the numbers of a command, and those of its answers, are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Numbering {
    /// Message sequence numbers.
    Sequence,
    /// UIDs: the command came with `UID`.
    Uid,
}

/// What a command wants.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the arguments under their own names")]
pub enum CommandBody {
    /// CAPABILITY
    Capability,
    /// NOOP
    Noop,
    /// LOGOUT
    Logout,
    /// STARTTLS. Whatever follows it in the clear has to be thrown away ([`Reader::take_input`](super::Reader::take_input)).
    StartTls,
    /// AUTHENTICATE, with the initial response of SASL-IR (RFC 4959) in base64, or `=` for an empty one.
    Authenticate { mechanism: Mechanism, initial_response: Option<Secret> },
    /// LOGIN
    Login { user: Vec<u8>, password: Secret },
    /// COMPRESS DEFLATE (RFC 4978)
    Compress,
    /// ENABLE (RFC 5161); extensions that this server does not know are left out.
    Enable(Vec<Extension>),
    /// ID (RFC 2971); NIL has no fields.
    Id(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    /// NAMESPACE (RFC 2342)
    Namespace,
    /// SELECT
    Select(Select),
    /// EXAMINE
    Examine(Select),
    /// CREATE; a special use that is not known is nothing (RFC 6154).
    Create { mailbox: MailboxArg, uses: Vec<Option<SpecialUse>> },
    /// DELETE
    Delete(MailboxArg),
    /// RENAME
    Rename { from: MailboxArg, to: MailboxArg },
    /// SUBSCRIBE
    Subscribe(MailboxArg),
    /// UNSUBSCRIBE
    Unsubscribe(MailboxArg),
    /// LIST (RFC 5258)
    List(List),
    /// LSUB
    Lsub(Lsub),
    /// STATUS
    Status { mailbox: MailboxArg, items: Vec<StatusItem> },
    /// IDLE (RFC 2177); the next line is to be read as it is ([`Reader::expect_line`](super::Reader::expect_line)).
    Idle,
    /// CHECK
    Check,
    /// CLOSE
    Close,
    /// UNSELECT (RFC 3691)
    Unselect,
    /// EXPUNGE, all of it or (UID EXPUNGE, RFC 4315) only some UIDs.
    Expunge { uids: Option<MessageSet> },
    /// SEARCH
    Search(Search),
    /// SORT (RFC 5256)
    Sort(Sort),
    /// THREAD (RFC 5256)
    Thread(Thread),
    /// FETCH
    Fetch(Fetch),
    /// STORE
    Store(Store),
    /// COPY
    Copy { numbering: Numbering, messages: MessageSet, to: MailboxArg },
    /// MOVE (RFC 6851)
    Move { numbering: Numbering, messages: MessageSet, to: MailboxArg },
}

/// STORE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// What `messages` and the answers count in.
    pub numbering: Numbering,
    /// Whose flags change.
    pub messages: MessageSet,
    /// Change only messages that did not change after this mod-sequence, which may be 0 (RFC 7162).
    pub unchanged_since: Option<ModSeq>,
    /// How the flags change.
    pub action: StoreAction,
    /// Whether the client wants no FETCH of the new flags.
    pub silent: bool,
    /// The flags.
    pub flags: Vec<Flag>,
}

/// How flags change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreAction {
    /// `FLAGS`: these and no others.
    Replace,
    /// `+FLAGS`: these too.
    Add,
    /// `-FLAGS`: not these.
    Remove,
}

impl Command {
    /// Reads one command: its whole text with its literals (headers included), without the line end after it.
    ///
    /// APPEND and REPLACE are unknown here: their messages may be too large to gather.
    pub fn parse(text: &[u8], names: NameEncoding) -> Result<Command, CommandError> {
        let mut scanner = Scanner::new(text);
        let mut read_tag = None;
        let mut read = || {
            let tag = read_tag.insert(tag(&mut scanner)?).clone();
            scanner.space()?;
            let body = body(&mut scanner, names)?;
            scanner.end()?;
            Ok(Command { tag, body })
        };
        read().map_err(|fault: super::error::Fault| CommandError {
            tag: read_tag,
            at: fault.at,
            problem: fault.problem,
        })
    }
}

fn body(scanner: &mut Scanner<'_>, names: NameEncoding) -> Parsed<CommandBody> {
    let start = scanner.clone();
    let name = scanner.atom("the name of a command")?.to_ascii_uppercase();
    Ok(match name.as_str() {
        "CAPABILITY" => CommandBody::Capability,
        "NOOP" => CommandBody::Noop,
        "LOGOUT" => CommandBody::Logout,
        "STARTTLS" => CommandBody::StartTls,
        "NAMESPACE" => CommandBody::Namespace,
        "IDLE" => CommandBody::Idle,
        "CHECK" => CommandBody::Check,
        "CLOSE" => CommandBody::Close,
        "UNSELECT" => CommandBody::Unselect,
        "EXPUNGE" => CommandBody::Expunge { uids: None },
        "AUTHENTICATE" => session::authenticate(scanner)?,
        "LOGIN" => session::login(scanner)?,
        "COMPRESS" => session::compress(scanner)?,
        "ENABLE" => session::enable(scanner)?,
        "ID" => session::id(scanner)?,
        "SELECT" => CommandBody::Select(select(scanner, names)?),
        "EXAMINE" => CommandBody::Examine(select(scanner, names)?),
        "CREATE" => create(scanner, names)?,
        "DELETE" => CommandBody::Delete(one_mailbox(scanner, names)?),
        "RENAME" => rename(scanner, names)?,
        "SUBSCRIBE" => CommandBody::Subscribe(one_mailbox(scanner, names)?),
        "UNSUBSCRIBE" => CommandBody::Unsubscribe(one_mailbox(scanner, names)?),
        "LIST" => CommandBody::List(list(scanner, names)?),
        "LSUB" => CommandBody::Lsub(lsub(scanner, names)?),
        "STATUS" => status(scanner, names)?,
        "UID" => {
            scanner.space()?;
            if scanner.eat_word("EXPUNGE") {
                scanner.space()?;
                CommandBody::Expunge { uids: Some(message_set(scanner)?) }
            } else {
                numbered(scanner, names, Numbering::Uid)?
            }
        }
        _ => {
            *scanner = start;
            numbered(scanner, names, Numbering::Sequence)?
        }
    })
}

/// The commands that name messages, by sequence numbers or UIDs.
fn numbered(scanner: &mut Scanner<'_>, names: NameEncoding, numbering: Numbering) -> Parsed<CommandBody> {
    let unknown = scanner.fault(Problem::UnknownCommand);
    let name = scanner.atom("the name of a command")?.to_ascii_uppercase();
    Ok(match name.as_str() {
        "SEARCH" => CommandBody::Search(search(scanner, numbering)?),
        "SORT" => CommandBody::Sort(sort(scanner, numbering)?),
        "THREAD" => CommandBody::Thread(thread(scanner, numbering)?),
        "FETCH" => CommandBody::Fetch(fetch(scanner, numbering)?),
        "STORE" => CommandBody::Store(store(scanner, numbering)?),
        "COPY" => {
            let (messages, to) = transfer(scanner, names)?;
            CommandBody::Copy { numbering, messages, to }
        }
        "MOVE" => {
            let (messages, to) = transfer(scanner, names)?;
            CommandBody::Move { numbering, messages, to }
        }
        _ => return Err(unknown),
    })
}

fn one_mailbox(scanner: &mut Scanner<'_>, names: NameEncoding) -> Parsed<MailboxArg> {
    scanner.space()?;
    mailbox(scanner, names)
}

fn create(scanner: &mut Scanner<'_>, names: NameEncoding) -> Parsed<CommandBody> {
    scanner.space()?;
    let mailbox = new_mailbox(scanner, names)?;
    let mut uses = Vec::new();
    if scanner.eat(b' ') {
        scanner.open()?;
        if !scanner.eat_word("USE") {
            return Err(scanner.expected("USE"));
        }
        scanner.space()?;
        uses = scanner.list_or_empty(|scanner| {
            scanner.expect(b'\\', "a special use such as \\Sent")?;
            let name = scanner.atom("a special use")?;
            Ok(SpecialUse::from_name(&format!("\\{name}")))
        })?;
        scanner.close()?;
    }
    Ok(CommandBody::Create { mailbox, uses })
}

fn rename(scanner: &mut Scanner<'_>, names: NameEncoding) -> Parsed<CommandBody> {
    let from = one_mailbox(scanner, names)?;
    scanner.space()?;
    Ok(CommandBody::Rename { from, to: new_mailbox(scanner, names)? })
}

fn status(scanner: &mut Scanner<'_>, names: NameEncoding) -> Parsed<CommandBody> {
    let mailbox = one_mailbox(scanner, names)?;
    scanner.space()?;
    Ok(CommandBody::Status { mailbox, items: status_items(scanner)? })
}

fn transfer(scanner: &mut Scanner<'_>, names: NameEncoding) -> Parsed<(MessageSet, MailboxArg)> {
    scanner.space()?;
    let messages = message_set(scanner)?;
    Ok((messages, one_mailbox(scanner, names)?))
}

fn store(scanner: &mut Scanner<'_>, numbering: Numbering) -> Parsed<Store> {
    scanner.space()?;
    let messages = message_set(scanner)?;
    scanner.space()?;
    let mut unchanged_since = None;
    if scanner.eat(b'(') {
        if !scanner.eat_word("UNCHANGEDSINCE") {
            return Err(scanner.expected("UNCHANGEDSINCE"));
        }
        scanner.space()?;
        unchanged_since = Some(ModSeq::from_value(scanner.number64("a mod-sequence")?));
        scanner.close()?;
        scanner.space()?;
    }
    let (action, silent) = scanner.one_of(
        "FLAGS, +FLAGS or -FLAGS, perhaps with .SILENT",
        &[
            ("FLAGS", (StoreAction::Replace, false)),
            ("+FLAGS", (StoreAction::Add, false)),
            ("-FLAGS", (StoreAction::Remove, false)),
            ("FLAGS.SILENT", (StoreAction::Replace, true)),
            ("+FLAGS.SILENT", (StoreAction::Add, true)),
            ("-FLAGS.SILENT", (StoreAction::Remove, true)),
        ],
    )?;
    scanner.space()?;
    let flags = if scanner.peek() == Some(b'(') { flag_list(scanner)? } else { bare_flags(scanner)? };
    Ok(Store { numbering, messages, unchanged_since, action, silent, flags })
}

fn bare_flags(scanner: &mut Scanner<'_>) -> Parsed<Vec<Flag>> {
    let mut flags = vec![flag(scanner)?];
    while scanner.eat(b' ') {
        flags.push(flag(scanner)?);
    }
    Ok(flags)
}

/// A mod-sequence that is not 0 (mod-sequence-value).
pub(super) fn mod_sequence(scanner: &mut Scanner<'_>) -> Parsed<ModSeq> {
    let what = "a mod-sequence above 0";
    let fault = scanner.expected(what);
    match scanner.number64(what)? {
        0 => Err(fault),
        value => Ok(ModSeq::from_value(value)),
    }
}

/// A UIDVALIDITY.
pub(super) fn uid_validity(scanner: &mut Scanner<'_>) -> Parsed<UidValidity> {
    let number = scanner.nz_number("a UIDVALIDITY")?;
    UidValidity::new(number).ok_or_else(|| scanner.expected("a UIDVALIDITY"))
}
