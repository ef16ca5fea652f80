//! The grammar against tables, itself, and imap-codec.

mod invalid;
mod oracle;
mod print;
mod properties;
mod reader;
mod responses;
mod valid;
mod values;

use super::{Command, CommandError, NameEncoding};

fn parse(text: &[u8]) -> Result<Command, CommandError> {
    Command::parse(text, NameEncoding::ModifiedUtf7)
}
