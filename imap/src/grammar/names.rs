//! Mailbox names, tags and flags as commands write them.

use std::fmt;

use postmerge::mailbox::{Keyword, MailboxName, MailboxNameError};
use postmerge::maildir::{Mutf7Error, decode_mutf7};

use super::error::Parsed;
use super::scanner::{Scanner, is_astring_char, is_atom_char};

/// How mailbox names are spelled on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameEncoding {
    /// Modified UTF-7 (RFC 3501, section 5.1.3): what every session starts with.
    #[default]
    ModifiedUtf7,
    /// UTF-8: after `ENABLE IMAP4rev2` or `ENABLE UTF8=ACCEPT`.
    Utf8,
}

impl NameEncoding {
    pub(super) fn decode(self, spelled: &[u8]) -> Result<String, MailboxArgError> {
        match self {
            NameEncoding::ModifiedUtf7 => Ok(decode_mutf7(spelled)?),
            NameEncoding::Utf8 => match str::from_utf8(spelled) {
                Ok(name) => Ok(name.to_owned()),
                Err(_) => Err(MailboxArgError::Utf8),
            },
        }
    }
}

/// The mailbox that a command names.
///
/// A name that no mailbox can have is no error of syntax: the command is answered with NO, not BAD.
pub type MailboxArg = Result<MailboxName, MailboxArgError>;

/// Why no mailbox can have the name that a command gives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailboxArgError {
    /// It is not the one spelling in modified UTF-7 that some name has.
    #[error("the mailbox name is not modified UTF-7: {0}")]
    ModifiedUtf7(#[from] Mutf7Error),
    /// It is not UTF-8.
    #[error("the mailbox name is not UTF-8")]
    Utf8,
    /// It is readable, but not a name.
    #[error(transparent)]
    Name(#[from] MailboxNameError),
}

pub(super) fn mailbox(scanner: &mut Scanner<'_>, names: NameEncoding) -> Parsed<MailboxArg> {
    let spelled = scanner.astring("a mailbox name")?;
    Ok(mailbox_name(&spelled, names))
}

/// The new name of CREATE or RENAME: a separator at the end says that mailboxes below will follow, and is no part of the
/// name (RFC 9051, section 6.3.4).
pub(super) fn new_mailbox(scanner: &mut Scanner<'_>, names: NameEncoding) -> Parsed<MailboxArg> {
    let spelled = scanner.astring("a mailbox name")?;
    Ok(mailbox_name(spelled.strip_suffix(b"/").unwrap_or(&spelled), names))
}

fn mailbox_name(spelled: &[u8], names: NameEncoding) -> MailboxArg {
    Ok(names.decode(spelled)?.parse()?)
}

/// What a client calls one of its commands, to be put before the answer.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Tag(Box<str>);

impl Tag {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag that `line` starts with, if a space or the line's end follows it.
    pub(super) fn of_line(line: &[u8]) -> Option<Tag> {
        let mut scanner = Scanner::new(line);
        let tag = tag(&mut scanner).ok()?;
        matches!(scanner.peek(), Some(b' ' | b'\r' | b'\n')).then_some(tag)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn tag(scanner: &mut Scanner<'_>) -> Parsed<Tag> {
    let text = scanner.text("a tag", |byte| is_astring_char(byte) && byte != b'+')?;
    Ok(Tag(text.into()))
}

/// A flag in a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flag {
    /// One that a message can have.
    Keyword(Keyword),
    /// One that none can have here: `\Recent`, a system flag of an extension, a keyword that is too long.
    Other(Box<str>),
}

pub(super) fn flag(scanner: &mut Scanner<'_>) -> Parsed<Flag> {
    let what = "a flag";
    let system = scanner.eat(b'\\');
    let name = scanner.atom(what)?;
    let text = if system { format!("\\{name}") } else { name.to_owned() };
    Ok(text.parse().map_or_else(|_| Flag::Other(text.into()), Flag::Keyword))
}

/// A flag without a backslash (flag-keyword).
pub(super) fn keyword(scanner: &mut Scanner<'_>) -> Parsed<Flag> {
    match scanner.peek() {
        Some(byte) if is_atom_char(byte) => flag(scanner),
        _ => Err(scanner.expected("a keyword")),
    }
}

pub(super) fn flag_list(scanner: &mut Scanner<'_>) -> Parsed<Vec<Flag>> {
    scanner.list_or_empty(flag)
}
