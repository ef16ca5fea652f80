//! Messages by what they are and not by UID: for an adapter that keeps other names for them, as a Maildir does.

use std::collections::BTreeSet;

use super::read::Snapshot;
use super::{NewMessage, Replica, ReplicaError, now};
use crate::mailbox::{EntryId, MailboxId, MailboxName, ModSeq, Uid, UidValidity};
use crate::store::Shelf;
use crate::uid::{Account, Arrival, Assigned, Assignment, Block, EntryEdit, Lane, Located};

/// UIDs of a mailbox that a Dovecot has shown; see [`Assignment`].
#[derive(Clone, Debug)]
pub struct Adoption {
    /// The mailbox.
    pub mailbox: MailboxId,
    /// Its UIDVALIDITY there.
    pub uid_validity: UidValidity,
    /// The UID before the UIDNEXT that it was told last.
    pub base: u32,
    /// The UID before its UIDNEXT now.
    pub floor: u32,
    /// The messages, UIDs ascending.
    pub messages: Vec<(Uid, Adopted)>,
}

/// A message that a Dovecot gave a UID; see [`Arrival`].
#[derive(Clone, Debug)]
pub enum Adopted {
    /// It is new to the account.
    New(NewMessage),
    /// It was moved there.
    Moved {
        /// The message.
        entry: EntryId,
        /// Where the caller saw it.
        seen_in: MailboxId,
    },
    /// It is there already.
    Here(EntryId),
}

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

    /// Which UIDs this server claims, and how many in a row; nothing if it claims none.
    pub fn lane(&self) -> Result<Option<(Lane, Block)>, ReplicaError> {
        self.with(|core| Ok(core.lane().zip(core.members.block())))
    }

    /// Takes over UIDs that a Dovecot has shown; see [`Account::adopt`]. Bodies of new messages must be here. One commit.
    pub fn adopt(&self, adoption: Adoption) -> Result<Vec<Option<EntryId>>, ReplicaError> {
        let time = now();
        let Adoption { mailbox, uid_validity, base, floor, messages } = adoption;
        let mut assigned = Vec::with_capacity(messages.len());
        for (uid, adopted) in messages {
            let arrival = match adopted {
                Adopted::New(message) => {
                    let message = self.arriving(vec![message], time)?.pop().expect("as many as were given");
                    Arrival::New(message)
                }
                Adopted::Moved { entry, seen_in } => Arrival::Moved { entry, seen_in },
                Adopted::Here(entry) => Arrival::Here(entry),
            };
            assigned.push(Assigned { uid, arrival });
        }
        let assignment = Assignment { mailbox, uid_validity, base, floor, messages: assigned };
        self.change(|account, txn| account.adopt(txn, time, &assignment))
    }

    /// Makes a mailbox that a Dovecot has made and numbered; see [`Account::adopt_mailbox`].
    pub fn adopt_mailbox(
        &self,
        name: &MailboxName,
        validity: UidValidity,
    ) -> Result<MailboxId, ReplicaError> {
        self.change(|account, txn| account.adopt_mailbox(txn, now(), name, validity))
    }

    /// Gives a mailbox a UIDVALIDITY above one that a Dovecot has shown for it; see [`Account::raise_uid_validity`].
    pub fn raise_uid_validity(&self, mailbox: MailboxId, above: UidValidity) -> Result<(), ReplicaError> {
        self.change(|account, txn| Ok(((), account.raise_uid_validity(txn, now(), mailbox, above)?)))
    }

    /// Rows that an adapter keeps in the store's directory, for this machine alone; see [`Shelf`].
    pub fn shelf(&self, name: &str) -> Result<Shelf, ReplicaError> {
        self.with(|core| Ok(core.store.shelf(name)?))
    }
}
