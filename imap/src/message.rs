//! What IMAP tells of a message's text: bytes in, facts out.
//!
//! A body never changes, so what is told of it is found once: [`Maker`] reads it in pieces of any size and gives
//! the bytes of a [`Summary`], which the index keeps under the body's name. FETCH of ENVELOPE, BODYSTRUCTURE,
//! PREVIEW and the usual header fields, SORT and THREAD read summaries only; BODY\[...\] and BINARY\[...\] learn
//! from them which bytes of the body to read.
//!
//! | module | what it is |
//! |---|---|
//! | `scan` | lines to a tree of parts with offsets: the only parser of whole bodies |
//! | `summary`, `parts`, `wire` | what is kept of a body, and its bytes |
//! | `header`, `content`, `address`, `envelope`, `structure` | header fields to IMAP's text |
//! | `section`, `crlf`, `transfer` | which bytes a section is, and reading them |
//! | `words`, `charset`, `date`, `subject`, `preview` | what a person reads in them |
//! | `search`, `sort`, `thread` | what is asked of many messages |
//!
//! **Line ends.** Bodies are stored as they came; IMAP speaks CRLF. Every size and offset shown to a client counts
//! each line feed without a carriage return as two bytes. A [`Position`] holds both counts, so that a section is
//! found without reading what stands before it.
//!
//! Nothing here panics on any bytes, and memory has bounds: see [`limits`].

mod address;
mod charset;
mod content;
mod crlf;
mod date;
mod envelope;
mod header;
pub mod limits;
mod parts;
mod preview;
mod scan;
mod search;
mod section;
mod sort;
mod structure;
mod subject;
mod summary;
#[cfg(test)]
mod tests;
mod thread;
mod transfer;
mod wire;
mod words;

pub use crlf::Text;
pub use date::Sent;
pub use parts::{Position, Span};
pub use scan::{Maker, make};
pub use search::{Found, Target, Terms};
pub use section::{Partial, Section, SectionText, filter_fields};
pub use sort::Sorter;
pub use subject::base_subject;
pub use summary::{Summary, SummaryError, VERSION};
pub use thread::{Forest, Label, ThreadRow, by_references, by_subject};
pub use transfer::{Decoded, TransferError};
