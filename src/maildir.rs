//! Maildir and mbox, both ways: reads what is there without touching it, and writes a Maildir++ tree that an
//! unmodified Dovecot serves under our UIDs.
//!
//! Everything that can be wrong in somebody else's mail store is reported with its path and left where it is;
//! a tree that is missing or holds no mailbox is an error, never "no messages". Writing is a pure
//! [`ExportPlan`], then its plain application. No clock and no entropy: dates and tokens are passed in.

mod adopt;
mod apply;
mod body_size;
mod bridge;
mod export;
mod file_name;
mod folder_name;
mod from_line;
mod intake;
mod keywords;
mod list;
mod listing;
mod mbox;
mod mutf7;
mod scan;
mod subscriptions;
mod tree;
mod uidlist;

pub use apply::{ExportError, Exported, Progress};
pub use bridge::{
    Attached, Attachment, AttachmentId, Brake, BridgeError, Clock, Counts, How, Maildirs, RemovalLimit,
    Report, Stopped, UidLists,
};
pub use export::{ExportMailbox, ExportMessage, ExportNote, ExportPlan, PlanError};
pub use file_name::{BaseName, FileName, FileNameError, Letters};
pub use intake::{Intake, Taken};
pub use keywords::KeywordTable;
pub use list::{LineError, LineProblem};
pub use mbox::{Mbox, MboxDialect, MboxError, MboxMessage};
pub use mutf7::{Mutf7Error, decode as decode_mutf7, encode as encode_mutf7};
pub use scan::{Folder, FoundMessage, Layout, MaildirError, Scan, SkipReason, Skipped, scan};
pub use uidlist::{UidEntry, UidList};
