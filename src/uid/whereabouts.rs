//! All messages, wherever they are, in the order of their ids.

use super::rows::EntryRow;
use super::tables::{Table, TableError, Tables};
use super::view::{Located, View};
use crate::mailbox::EntryId;

impl<T: Tables> View<'_, T> {
    /// What is known of the first `limit` entries after one, expunged ones too.
    pub fn located_after(
        &self,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, Located)>, TableError> {
        let from = after.map_or(Vec::new(), |entry| [entry.as_bytes().as_slice(), &[0]].concat());
        let rows = self.tables().range(Table::Entries, &from, &[], limit)?;
        let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let EntryRow { place, blob, size, internal_date, keywords, shown, .. } = EntryRow::decode(value)?;
            let entry = EntryId::from_slice(key)
                .ok_or_else(|| TableError("an entry's key is not 16 bytes".into()))?;
            let shared_uid = shown.map(|(_, uid)| uid);
            Ok((entry, Located { place, blob, size, internal_date, keywords, shared_uid }))
        };
        rows.iter().map(read).collect()
    }
}
