//! All messages, wherever they are, in the order of their ids.

use super::rows::EntryRow;
use super::tables::{Table, TableError, Tables};
use super::view::{Located, View};
use crate::mailbox::EntryId;

impl Located {
    pub(super) fn read(row: EntryRow) -> Located {
        let EntryRow { place, blob, size, internal_date, keywords, shown, .. } = row;
        let shared_uid = shown.map(|(_, uid)| uid);
        Located { place, blob, size, internal_date, keywords, shared_uid }
    }
}

impl<T: Tables> View<'_, T> {
    /// What is known of the first `limit` entries after one, expunged ones too.
    pub fn located_after(
        &self,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, Located)>, TableError> {
        let rows = self.entry_rows(after, limit)?;
        Ok(rows.into_iter().map(|(entry, row)| (entry, Located::read(row))).collect())
    }

    /// The rows of the first `limit` entries after one.
    pub(super) fn entry_rows(
        &self,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, EntryRow)>, TableError> {
        let from = after.map_or(Vec::new(), |entry| [entry.as_bytes().as_slice(), &[0]].concat());
        let rows = self.tables().range(Table::Entries, &from, &[], limit)?;
        let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let entry = EntryId::from_slice(key);
            let entry = entry.ok_or_else(|| TableError("an entry's key is not 16 bytes".into()))?;
            Ok((entry, EntryRow::decode(value)?))
        };
        rows.iter().map(read).collect()
    }
}
