//! The grammar of IMAP: commands from bytes, responses to bytes. Pure: no I/O, no clock.
//!
//! [`Reader`] cuts what a client sends into [`Command`]s and the pieces of APPEND; [`Responses`] writes what it is
//! told. Both hold little: the reader what [`Limits`] allows, the writer what was not taken from it yet.
//!
//! Commands are read as RFC 3501 and RFC 9051 have them, with the extensions of RFC 2177, 2342, 2971, 3502, 3516,
//! 3691, 4315, 4469, 4731, 4959, 4978, 5032, 5161, 5182, 5256, 5258, 5267 (ESORT), 5819, 5957, 6154, 6851, 6855, 7162,
//! 7888, 8438, 8474, 8508, 8514, 8970, 9394 and 9586. Whether an extension is offered is the session's decision.

mod append;
mod code;
mod command;
mod date;
mod encode;
mod error;
mod fetch;
mod fetch_row;
mod list;
mod names;
mod pattern;
mod reader;
mod response;
mod scanner;
mod search;
mod search_key;
mod section;
mod select;
mod session;
mod set;
mod status;
#[cfg(test)]
mod tests;
mod url;

pub use append::{Append, AppendItem, MessageHead, TextHead};
pub use code::{Code, CopyUid};
pub use command::{Command, CommandBody, Numbering, Store, StoreAction};
pub use date::{Date, DateTime, put_date_time};
pub use encode::{
    put_astring, put_literal_header, put_literal8_header, put_mailbox, put_nstring, put_number, put_string,
};
pub use error::{CommandError, Problem};
pub use fetch::{Fetch, FetchItem, PartialRange};
pub use fetch_row::FetchRow;
pub use list::{List, ListReturn, ListSelect, Lsub};
pub use names::{Flag, MailboxArg, MailboxArgError, NameEncoding, Tag};
pub use pattern::ListPattern;
pub use reader::{Item, Limits, Reader};
pub use response::{Attribute, Condition, ESearch, Found, Listing, Responses, StatusValue};
pub use search::{Criteria, Search, SearchReturn, Sort, SortCriterion, SortKey, Thread, ThreadAlgorithm};
pub use search_key::{DateOf, EnvelopeField, Relation, SearchKey};
pub use section::{Partial, Section, SectionText};
pub use select::{Qresync, Select, SequenceMatch};
pub use session::{Extension, Mechanism, Secret};
pub use set::{MessageSet, NumberSet, SequenceNumber, SequenceSet};
pub use status::StatusItem;
pub use url::MessageUrl;
