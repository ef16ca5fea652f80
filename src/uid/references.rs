//! Which messages refer to which bodies, expunged ones too: what decides whether a body may go.

use super::rows::EntryRow;
use super::tables::{Table, TableError, Tables};
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
        let from = after.map_or(Vec::new(), |entry| [entry.as_bytes().as_slice(), &[0]].concat());
        let rows = self.tables().range(Table::Entries, &from, &[], limit)?;
        let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let row = EntryRow::decode(value)?;
            let entry = EntryId::from_slice(key)
                .ok_or_else(|| TableError("an entry's key is not 16 bytes".into()))?;
            Ok(Reference::read(entry, &row))
        };
        rows.iter().map(read).collect()
    }

    /// The reference of one entry.
    pub fn reference(&self, entry: EntryId) -> Result<Option<Reference>, TableError> {
        Ok(self.entry_row(entry)?.map(|row| Reference::read(entry, &row)))
    }
}
