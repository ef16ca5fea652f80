//! What is wrong with a command.

use super::Tag;

/// A command that cannot be read; its display is fit for the text of a tagged BAD.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {at}")]
pub struct CommandError {
    /// The command's tag, if it had a readable one; without it the answer is an untagged BAD.
    pub tag: Option<Tag>,
    /// Bytes of the command before the trouble, from 0; octets of streamed messages do not count.
    pub at: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong at one place of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The grammar wants something else here.
    #[error("expected {0}")]
    Expected(&'static str),
    /// No command has this name.
    #[error("unknown command")]
    UnknownCommand,
    /// It is allowed, but not together with what came before.
    #[error("{0}")]
    Conflict(&'static str),
    /// More of something than this server takes.
    #[error("more than {max} {what}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// How many are allowed.
        max: usize,
    },
    /// The octets of a literal are not all there.
    #[error("a literal ends early")]
    Incomplete,
}

/// A problem and its place, before the command's tag is put to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) problem: Problem,
}

pub(super) type Parsed<T> = Result<T, Fault>;
