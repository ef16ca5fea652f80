//! Which messages refer to which bodies, expunged ones too: what decides whether a body may go.

use super::rows::EntryRow;
use super::tables::{TableError, Tables};
use super::view::View;
use crate::blob::BlobId;
use crate::mailbox::EntryId;

/// A message and the body it has, or had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The message.
    pub entry: EntryId,
    /// Its body.
    pub blob: BlobId,
    /// The body's size in bytes.
    pub size: u64,
    /// Whether the message is in a mailbox.
    pub visible: bool,
    /// Of an expunged message: it went with the commit that had this counter of mod-sequences, or before it.
    pub counter: u64,
}

impl Reference {
    fn read(entry: EntryId, row: &EntryRow) -> Reference {
        let EntryRow { blob, size, modseq, .. } = *row;
        Reference { entry, blob, size, visible: row.place.is_some(), counter: modseq.counter() }
    }
}

impl<T: Tables> View<'_, T> {
    /// The references of the first `limit` entries after one, in the order of their ids.
    pub fn references(&self, after: Option<EntryId>, limit: usize) -> Result<Vec<Reference>, TableError> {
        let rows = self.entry_rows(after, limit)?;
        Ok(rows.iter().map(|(entry, row)| Reference::read(*entry, row)).collect())
    }

    /// The reference of one entry.
    pub fn reference(&self, entry: EntryId) -> Result<Option<Reference>, TableError> {
        Ok(self.entry_row(entry)?.map(|row| Reference::read(entry, &row)))
    }
}
