//! UIDs that never lie: the post-merge pass, and what a replica's clients are shown.
//!
//! A UID is a claim in the document; after a merge the pass decides which claims hold, from the set of claims alone, so
//! that all servers decide alike. `docs/uids.md` has the rules and why they hold. [`Account`] is one replica without its
//! disk; everything it derives stands in [`Tables`] and can be built anew.

mod account;
mod claims;
#[cfg(test)]
mod cost;
mod lane;
#[cfg(test)]
mod model;
mod names;
mod observer;
mod pass;
mod references;
mod rows;
mod settle;
mod tables;
mod validity;
mod view;
mod whereabouts;

pub use account::{
    Account, AccountError, Arrival, Assigned, Assignment, EntryEdit, Fate, Grant, Imported, KeywordChange,
    UndoPart, Undone, Written,
};
pub use lane::{Block, Lane};
pub use observer::PrivateUids;
pub use pass::{Burn, Event, Rules};
pub use references::Reference;
pub use tables::{MemoryTables, Row, Table, TableError, Tables, TablesMut};
pub use view::{ChangedUids, Changes, Known, Located, Mailbox, Seen, Shown, UidSpace, View};
