//! The account's document and what it says: mailboxes, messages, keywords and UID claims.
//!
//! Nothing here does I/O, reads a clock or draws random numbers.

mod ids;
mod keyword;
mod name;

pub use ids::{
    AccountId, EntryId, IdError, MailboxId, ModSeq, Nonce, PackId, Placement, ReplicaId, Uid, UidValidity,
};
pub use keyword::{Keyword, KeywordError};
pub use name::{MailboxName, MailboxNameError};
