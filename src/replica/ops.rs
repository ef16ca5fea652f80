//! What users do.

use std::collections::BTreeSet;
use std::io::Read;

use super::record::LocalRecord;
use super::{Replica, ReplicaError, now};
use crate::blob::BlobId;
use crate::mailbox::{EntryId, Keyword, MailboxId, MailboxName, Message, SpecialUse, Uid};
use crate::store::Txn;
use crate::uid::{Account, AccountError, Written};

/// A message that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The message.
    pub entry: EntryId,
    /// Its body.
    pub blob: BlobId,
    /// Its UID; nothing on an observer before it is shown.
    pub uid: Option<Uid>,
}

impl Replica {
    pub(super) fn change<R>(
        &self,
        act: impl FnOnce(&mut Account, &mut Txn<'_>) -> Result<(R, Written), AccountError>,
    ) -> Result<R, ReplicaError> {
        let (result, events) = self.with(|core| core.change(&[], act))?;
        if !events.is_empty() {
            self.tell(&events);
        }
        Ok(result)
    }

    /// Adds a message to a mailbox. The body is streamed; message and UID are durable when this returns. The internal date
    /// is in seconds since 1970.
    pub fn append(
        &self,
        mailbox: &MailboxName,
        body: impl Read,
        keywords: BTreeSet<Keyword>,
        internal_date: Option<i64>,
    ) -> Result<Appended, ReplicaError> {
        let id = self.mailbox_id(mailbox)?;
        let (blob, size) = self.0.handle.bodies().put_reader(body)?;
        let internal_date = internal_date.unwrap_or_else(now);
        let message = Message { blob, internal_date, size, keywords };
        let entry = self.change(|account, txn| {
            let (entries, written) = account.append(txn, now(), id, vec![message])?;
            Ok((entries[0], written))
        })?;
        let uid = self.view()?.view().shown_uid(entry)?;
        Ok(Appended { entry, blob, uid })
    }

    /// Copies messages into a mailbox, with their keywords. Bodies are shared. One commit for each 1,000 messages.
    pub fn copy(
        &self,
        from: &MailboxName,
        uids: &[Uid],
        to: &MailboxName,
    ) -> Result<Vec<EntryId>, ReplicaError> {
        let (entries, target) = (self.entries(from, uids)?, self.mailbox_id(to)?);
        let mut copies = Vec::new();
        for part in entries.chunks(crate::mailbox::Pack::MAX_MESSAGES) {
            copies.extend(self.change(|account, txn| account.copy(txn, now(), part, target))?);
        }
        Ok(copies)
    }

    /// Moves messages into a mailbox. One commit for each 10,000 messages, and so below.
    pub fn move_to(&self, from: &MailboxName, uids: &[Uid], to: &MailboxName) -> Result<(), ReplicaError> {
        let (entries, target) = (self.entries(from, uids)?, self.mailbox_id(to)?);
        self.in_parts(from, &entries, Account::MAX_BATCH, |account, txn, part| {
            account.move_to(txn, now(), part, target)
        })
    }

    /// Expunges messages, whether they are marked `\Deleted` or not.
    pub fn expunge(&self, mailbox: &MailboxName, uids: &[Uid]) -> Result<(), ReplicaError> {
        let entries = self.entries(mailbox, uids)?;
        self.in_parts(mailbox, &entries, Account::MAX_BATCH, |account, txn, part| {
            account.expunge(txn, now(), part)
        })
    }

    /// Sets and clears keywords.
    pub fn store_keywords(
        &self,
        mailbox: &MailboxName,
        uids: &[Uid],
        set: &BTreeSet<Keyword>,
        clear: &BTreeSet<Keyword>,
    ) -> Result<(), ReplicaError> {
        let entries = self.entries(mailbox, uids)?;
        let size = Account::keyword_batch(set, clear);
        self.in_parts(mailbox, &entries, size, |account, txn, part| {
            account.store_keywords(txn, now(), part, set, clear)
        })
    }

    /// Acts on those messages that are still in the mailbox when it is their turn: a push may have moved them.
    fn in_parts(
        &self,
        mailbox: &MailboxName,
        entries: &[EntryId],
        size: usize,
        mut act: impl FnMut(&mut Account, &mut Txn<'_>, &[EntryId]) -> Result<Written, AccountError>,
    ) -> Result<(), ReplicaError> {
        let id = self.mailbox_id(mailbox)?;
        for part in entries.chunks(size) {
            self.change(|account, txn| {
                let mut here = Vec::with_capacity(part.len());
                for entry in part {
                    let place = account.view(txn).entry(*entry)?.and_then(|(_, _, mailbox)| mailbox);
                    here.extend((place == Some(id)).then_some(*entry));
                }
                Ok(((), act(account, txn, &here)?))
            })?;
        }
        Ok(())
    }

    /// Makes a mailbox.
    pub fn create_mailbox(
        &self,
        name: &MailboxName,
        special_use: Option<SpecialUse>,
    ) -> Result<MailboxId, ReplicaError> {
        self.change(|account, txn| account.create_mailbox(txn, now(), name, special_use))
    }

    /// Gives a mailbox, and all below it, another name. Renaming INBOX moves its messages into a new mailbox.
    pub fn rename_mailbox(&self, from: &MailboxName, to: &MailboxName) -> Result<(), ReplicaError> {
        self.change(|account, txn| Ok(((), account.rename_mailbox(txn, now(), from, to)?)))
    }

    /// Deletes a mailbox and expunges what is in it. Mailboxes below it stay.
    pub fn delete_mailbox(&self, name: &MailboxName) -> Result<(), ReplicaError> {
        self.change(|account, txn| Ok(((), account.delete_mailbox(txn, now(), name)?)))
    }

    /// Subscribes to a mailbox, or not.
    pub fn set_subscribed(&self, name: &MailboxName, subscribed: bool) -> Result<(), ReplicaError> {
        self.change(|account, txn| Ok(((), account.subscribe(txn, now(), name, subscribed)?)))
    }

    pub(super) fn mailbox_id(&self, name: &MailboxName) -> Result<MailboxId, ReplicaError> {
        let found = self.view()?.view().find(name)?;
        Ok(found.ok_or_else(|| AccountError::NoMailbox { name: name.clone() })?)
    }

    fn entries(&self, mailbox: &MailboxName, uids: &[Uid]) -> Result<Vec<EntryId>, ReplicaError> {
        let id = self.show(mailbox)?;
        let reader = self.view()?;
        let mut entries = Vec::with_capacity(uids.len());
        for uid in uids {
            let message = reader.view().message(id, *uid)?;
            let missing = || ReplicaError::NoMessage { mailbox: mailbox.clone(), uid: *uid };
            entries.push(message.ok_or_else(missing)?.entry);
        }
        Ok(entries)
    }

    /// Makes sure that every message of a mailbox has the UID it is shown under, durably.
    pub(super) fn show(&self, name: &MailboxName) -> Result<MailboxId, ReplicaError> {
        let id = self.mailbox_id(name)?;
        self.settle(Some(id))?;
        Ok(id)
    }

    /// The same for one mailbox, or all. On a server it claims; an observer gives private UIDs.
    pub fn settle(&self, mailbox: Option<MailboxId>) -> Result<(), ReplicaError> {
        let (is_server, ready) =
            self.with(|core| Ok((core.role() == crate::member::Role::Server, core.is_ready()?)))?;
        if !ready {
            return Err(ReplicaError::NotReady);
        }
        let reader = self.view()?;
        let shown = match mailbox {
            Some(id) => vec![id],
            None => reader.view().mailboxes()?.into_iter().map(|mailbox| mailbox.id).collect(),
        };
        let mut waiting = Vec::new();
        for id in shown {
            if !reader.view().is_settled(id)? {
                waiting.push(id);
            }
        }
        drop(reader);
        if waiting.is_empty() {
            return Ok(());
        }
        if is_server {
            let settle =
                |account: &mut Account, txn: &mut Txn<'_>| Ok(((), account.settle(txn, now(), mailbox)?));
            let ((), events) = self.with(|core| core.show(&[], settle))?;
            if !events.is_empty() {
                self.tell(&events);
            }
            return Ok(());
        }
        for id in waiting {
            self.give_private_uids(id)?;
        }
        Ok(())
    }

    fn give_private_uids(&self, mailbox: MailboxId) -> Result<(), ReplicaError> {
        self.with(|core| {
            loop {
                let reader = core.store.reader()?;
                let planned = core.account()?.plan_private(&reader, now(), mailbox)?;
                drop(reader);
                let Some(planned) = planned else { return Ok(()) };
                core.show(&[LocalRecord::Private(planned)], |_, _| Ok(((), Written::default())))?;
            }
        })
    }
}
