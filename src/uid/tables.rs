//! The ordered byte tables that the index is made of.
//!
//! The pass is pure: it reads and writes rows through these two traits. The store implements them on its
//! database, [`MemoryTables`] in memory. The index can be rebuilt from the log at any time.

use std::collections::BTreeMap;
use std::ops::Bound;

/// A table of the index. The number is part of the store's format: never reuse one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Table {
    /// entry → what is known of it.
    Entries = 1,
    /// mailbox, epoch, UID → the claim and what clients are shown.
    Uids = 2,
    /// mailbox, epoch, UID → how many runs cover the UIDs from here on.
    Cover = 3,
    /// mailbox → its row.
    Mailboxes = 4,
    /// name → the mailbox that was shown under it with the highest UIDVALIDITY, and that; behind a zero byte: name → the
    /// mailbox that bears it now.
    Names = 5,
    /// mailbox, epoch, mod-sequence → UIDs that changed. On an observer private UIDs, under an epoch of their own.
    ModSeqs = 6,
    /// mailbox, internal date, placement → waits for a UID.
    Unclaimed = 7,
    /// mailbox, epoch, UID → must be burned by a server before it shows the mailbox again; mailbox alone → its epoch or
    /// its name must be written first.
    Pending = 8,
    /// mailbox, private UID → placement and back, on an observer.
    PrivateUids = 9,
    /// mailbox, epoch → the highest UID claimed; and with a record's key behind it, that it is known.
    Runs = 10,
    /// Single values by name.
    Meta = 11,
    /// urgency, mailbox, date, blob, entry → size: a body that is shown and not held.
    Owed = 12,
    /// blob → what a reader derived from the body. A cache that is in no log.
    Summaries = 13,
}

impl Table {
    /// Every table, in order of its number.
    pub const ALL: [Table; 13] = [
        Table::Entries,
        Table::Uids,
        Table::Cover,
        Table::Mailboxes,
        Table::Names,
        Table::ModSeqs,
        Table::Unclaimed,
        Table::Pending,
        Table::PrivateUids,
        Table::Runs,
        Table::Meta,
        Table::Owed,
        Table::Summaries,
    ];
}

/// The index could not be read or written; it can be rebuilt.
#[derive(Debug, thiserror::Error)]
#[error("the index failed: {0}")]
pub struct TableError(pub String);

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Reads rows.
pub trait Tables {
    /// The value of one key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError>;

    /// The first `limit` rows with `from` ≤ key < `to`, ascending. An empty `to` means the end of the table.
    fn range(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, TableError>;

    /// The last row with `from` ≤ key < `to`. An empty `to` means the end of the table.
    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, TableError>;
}

/// Writes rows. Nothing is seen by other readers before the transaction commits.
pub trait TablesMut: Tables {
    /// Sets the value of one key.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), TableError>;

    /// Removes one key, if it is there.
    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), TableError>;
}

/// Tables in memory: for simulations, and for an account that is not stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryTables {
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
}

type Key = (Table, Vec<u8>);

impl MemoryTables {
    /// Nothing if the range is empty.
    fn bounds(table: Table, from: &[u8], to: &[u8]) -> Option<(Bound<Key>, Bound<Key>)> {
        let end = match (to, Table::ALL.iter().find(|next| **next > table)) {
            ([], Some(next)) => Bound::Excluded((*next, Vec::new())),
            ([], None) => Bound::Unbounded,
            (to, _) if to <= from => return None,
            (to, _) => Bound::Excluded((table, to.to_vec())),
        };
        Some((Bound::Included((table, from.to_vec())), end))
    }
}

impl Tables for MemoryTables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        Ok(self.rows.get(&(table, key.to_vec())).cloned())
    }

    fn range(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, TableError> {
        let Some(bounds) = Self::bounds(table, from, to) else { return Ok(Vec::new()) };
        Ok(self.rows.range(bounds).take(limit).map(|((_, k), v)| (k.clone(), v.clone())).collect())
    }

    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, TableError> {
        let Some(bounds) = Self::bounds(table, from, to) else { return Ok(None) };
        Ok(self.rows.range(bounds).next_back().map(|((_, k), v)| (k.clone(), v.clone())))
    }
}

impl TablesMut for MemoryTables {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), TableError> {
        self.rows.insert((table, key.to_vec()), value.to_vec());
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), TableError> {
        self.rows.remove(&(table, key.to_vec()));
        Ok(())
    }
}
