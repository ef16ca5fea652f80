//! What a run that was cut off left in doubt.
//!
//! Between the moment in which files have become messages and the one in which the ledger knows that, a crash would leave
//! messages without files. Their files are found by content, unless somebody moves or removes them before the next run.
//! So the ledger is told before of what is going to be added.

use std::collections::BTreeMap;

use super::ledger::{FileRow, Intent, Notes, Place};
use super::{BridgeError, Run};
use crate::blob::BlobId;
use crate::mailbox::{EntryId, MailboxId};
use crate::maildir::BaseName;
use crate::replica::Snapshot;

impl Run<'_> {
    /// Notes which files the messages came from that an earlier run added and could not note. `entries` are those to which
    /// something happened since.
    pub(super) fn recover(&mut self, entries: &[EntryId], snapshot: &Snapshot) -> Result<(), BridgeError> {
        let intents = self.ledger.intents()?;
        if intents.is_empty() || self.how.dry_run {
            return Ok(());
        }
        let files = self.ledger.files_of(entries)?;
        let mut unfiled: BTreeMap<BlobId, Vec<(EntryId, Option<MailboxId>)>> = BTreeMap::new();
        for (entry, _) in entries.iter().zip(files).filter(|(_, file)| file.is_none()) {
            if let Some(located) = snapshot.locate(*entry)? {
                let place = located.place.map(|(mailbox, _)| mailbox);
                unfiled.entry(located.blob).or_default().push((*entry, place));
            }
        }
        let mut notes = Notes::default();
        for (place, intent) in intents {
            let found = unfiled.get_mut(&intent.blob).filter(|entries| !entries.is_empty());
            if let Some(entries) = found {
                // One that is elsewhere by now was moved at the replica since.
                let here = entries.iter().position(|(_, mailbox)| *mailbox == Some(place.0));
                let (entry, _) = entries.swap_remove(here.unwrap_or(0));
                let row = FileRow { entry: Some(entry), keywords: intent.keywords, altered: None };
                self.ledger.put_file(&mut notes, place.0, &place.1, &row);
            }
            self.ledger.remove_intent(&mut notes, &place);
        }
        self.ledger.commit(&notes)
    }

    /// Says what is going to be added.
    pub(super) fn intend<'a>(
        &self,
        adds: impl Iterator<Item = (&'a Place, Intent)>,
    ) -> Result<(), BridgeError> {
        let mut notes = Notes::default();
        adds.for_each(|(place, intent)| self.ledger.put_intent(&mut notes, place, &intent));
        self.ledger.commit(&notes)
    }
}

/// The message whose file this program wrote under a name, if it did.
pub(super) fn entry_of(base: &BaseName) -> Option<EntryId> {
    let text = std::str::from_utf8(base.as_bytes()).ok()?;
    let token = text.split_once('.')?.1.split_once(".postmerge")?.0;
    token.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_we_gave_tell_their_message() {
        let entry = EntryId::from_bytes([7; 16]);
        for (name, ours) in [
            (format!("1700000000.{entry}.postmerge,S=1,W=2"), true),
            (format!("1700000000.{entry}-5af.postmerge-1,S=1,W=2"), true),
            (format!("1700000000.{entry}.host,S=1"), false),
            ("1700000000.M1P2.host,S=1".to_owned(), false),
            (".postmerge".to_owned(), false),
        ] {
            let base = BaseName::new(name.as_bytes());
            assert_eq!(base.ok().and_then(|base| entry_of(&base)), ours.then_some(entry), "{name}");
        }
    }
}
