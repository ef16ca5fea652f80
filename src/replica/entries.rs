//! Messages by what they are and not by UID: for an adapter that keeps other names for them, as a Maildir does.

use std::collections::BTreeSet;

use super::read::Snapshot;
use super::{Replica, ReplicaError, now};
use crate::mailbox::{EntryId, MailboxId, MailboxName, ModSeq};
use crate::store::Shelf;
use crate::uid::{Account, EntryEdit, Located};

impl Snapshot {
    /// A message by its entry; nothing for one that was never in the account. One look-up.
    pub fn locate(&self, entry: EntryId) -> Result<Option<Located>, ReplicaError> {
        Ok(self.view().located(entry)?)
    }

    /// The messages to which something happened in a mailbox after a mod-sequence, gone ones among them: nothing at all if
    /// the value was given by another history, and then all of [`Snapshot::entries`] may have changed. Costs O(changes
    /// since then).
    pub fn entries_changed_since(
        &self,
        mailbox: MailboxId,
        since: ModSeq,
    ) -> Result<Option<BTreeSet<EntryId>>, ReplicaError> {
        let Some(changed) = self.uids_changed_since(mailbox, since)? else { return Ok(None) };
        let mut entries = BTreeSet::new();
        for uid in changed.shown.iter().chain(&changed.vanished) {
            entries.extend(self.view().bearer(mailbox, *uid)?);
        }
        Ok(Some(entries))
    }

    /// The mailboxes that were first made under a name, deleted and renamed ones too, oldest first.
    pub fn incarnations(&self, name: &MailboxName) -> Result<Vec<MailboxId>, ReplicaError> {
        Ok(self.view().incarnations(name)?)
    }

    /// The messages of a mailbox, in no particular order. Costs O(UIDs ever given out there).
    pub fn entries(&self, mailbox: MailboxId) -> Result<Vec<EntryId>, ReplicaError> {
        Ok(self.view().entries_of(mailbox)?)
    }
}

impl Replica {
    /// Does several things to several messages in one commit and, up to [`Account::MAX_BATCH`], in one change. An edit of a
    /// message that is not where the caller saw it is left out; gives the entries of those that were made.
    pub fn edit(&self, edits: &[EntryEdit]) -> Result<BTreeSet<EntryId>, ReplicaError> {
        let mut done = BTreeSet::new();
        for part in edits.chunks(Account::MAX_BATCH) {
            done.extend(self.change(|account, txn| account.edit(txn, now(), part))?);
        }
        Ok(done)
    }

    /// Rows that an adapter keeps in the store's directory, for this machine alone; see [`Shelf`].
    pub fn shelf(&self, name: &str) -> Result<Shelf, ReplicaError> {
        self.with(|core| Ok(core.store.shelf(name)?))
    }
}
