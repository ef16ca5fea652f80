//! The account's document and what it says: mailboxes, messages, keywords and UID claims.
//!
//! One Automerge document holds five flat maps of scalars ([`Document`]); [`Change`] is what one replica did, vetted
//! before it is applied. Nothing here does I/O, reads a clock or draws random numbers.

mod change;
mod document;
mod history;
mod ids;
mod intake;
mod keyword;
mod name;
mod neighbours;
pub(crate) mod pack;
mod puts;
mod run;
mod scan;
mod schema;
mod special_use;
mod writer;

pub use change::{Change, ChangeFault, Touched};
pub use document::{Document, DocumentError, MailboxFields, Place, Places};
pub use history::{ChangeId, Key, Past, Stamp, Value, Without, Write, Writes};
pub use ids::{
    AccountId, EntryId, IdError, MailboxId, ModSeq, Nonce, PackId, Placement, ReplicaId, Uid, UidValidity,
};
pub use keyword::{Keyword, KeywordError};
pub use name::{MailboxName, MailboxNameError};
pub use pack::{Message, Origin, Pack, PackError};
pub use run::{Run, Segment, Source, UidRecord, UidRecordError};
pub use schema::Field as MailboxField;
pub use special_use::SpecialUse;
pub use writer::Writer;
