//! What the small line files beside a mailbox (`dovecot-uidlist`, `dovecot-keywords`, `subscriptions`) share.

use std::path::Path;
use std::{fs, io, io::Read};

/// Largest list file that is read: a uidlist has about 60 bytes a line, so this is four million messages.
const MAX_LIST: u64 = 256 << 20;

/// A line of a list file cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct LineError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: LineProblem,
}

/// What is wrong with a line of a list file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// The file has no complete first line.
    #[error("the header is missing")]
    NoHeader,
    /// Only version 3 of the uidlist is known.
    #[error("the version is not 3")]
    Version,
    /// The header lacks a field, or its value makes no sense.
    #[error("the header's {key:?} is missing or wrong")]
    Header {
        /// The field's letter.
        key: char,
    },
    /// The line does not start with a UID, or no UID would be left after it.
    #[error("no valid UID")]
    Uid,
    /// UIDs do not ascend.
    #[error("UID {uid} is not above the one before it")]
    Order {
        /// The UID.
        uid: u32,
    },
    /// A field is not a capital letter and a value.
    #[error("a field is not a capital letter with its value")]
    Field,
    /// The name after the `:` is missing or cannot be a file's.
    #[error(transparent)]
    Name(super::FileNameError),
    /// The index of a keyword is not 0 to 25, or stands there twice.
    #[error("the keyword's index is not a new number from 0 to 25")]
    Index,
    /// Keyword without an index, or not UTF-8.
    #[error("not a number, a space and a keyword")]
    KeywordLine,
    /// A line of `subscriptions` names no mailbox.
    #[error("no mailbox can have this name")]
    MailboxName,
}

impl LineProblem {
    /// Says where the problem is; `index` counts from 0.
    pub(super) fn at(self, index: usize) -> LineError {
        LineError { line: index + 1, problem: self }
    }
}

/// The complete lines of a list file. Dovecot appends to these files, so that an unfinished last line is one
/// that is being written: it is left for the next look.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"))
}

/// Reads a list file; nothing if there is none.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match path.metadata() {
        Ok(meta) if meta.is_file() => {}
        // Opening a pipe would wait for its writer.
        Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_LIST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_LIST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(Some(bytes)) }
}
