//! What users do.
//!
//! UIDs are resolved in the transaction that acts on them, together with the UIDVALIDITY that the caller saw: what a merge
//! changed in between can make an operation refuse, or do less, and never act on another message.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

use super::core::Standing;
use super::{Replica, ReplicaError, now};
use crate::blob::BlobId;
use crate::mailbox::{EntryId, Keyword, MailboxId, MailboxName, Message, ModSeq, SpecialUse, Uid};
use crate::member::{Overstep, Role};
use crate::store::Txn;
use crate::uid::{Account, AccountError, KeywordChange, Seen, Shown, Tables, Written};

/// A message to be added, whose body is here already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// The body, from [`Replica::put_body`] or [`Replica::body_writer`].
    pub body: BlobId,
    /// Its keywords, [`crate::mailbox::Pack::MAX_KEYWORDS`] at most.
    pub keywords: BTreeSet<Keyword>,
    /// Its internal date in seconds since 1970; now, if there is none.
    pub internal_date: Option<i64>,
}

/// A message that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The message.
    pub entry: EntryId,
    /// Its body.
    pub blob: BlobId,
    /// Its UID. Nothing on a server that cannot show UIDs yet, or if the message was moved away at once.
    pub uid: Option<Uid>,
}

/// Messages that were added together (APPENDUID, RFC 4315).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// The mailbox, with the UIDVALIDITY of the UIDs. Nothing on a server that cannot show UIDs yet.
    pub into: Option<Seen>,
    /// The messages in the order given.
    pub messages: Vec<Appended>,
}

/// A message that was copied or moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelocatedMessage {
    /// The UID by which the caller named it.
    pub from: Uid,
    /// The message in the target: after a move the same, after a copy another one.
    pub entry: EntryId,
    /// Its UID in the target. Nothing if it was moved away from there at once.
    pub uid: Option<Uid>,
}

/// Messages that were copied or moved (COPYUID, RFC 4315).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocated {
    /// The target, with the UIDVALIDITY of the new UIDs.
    pub into: Option<Seen>,
    /// The messages in the caller's order. UIDs that showed nothing any more are left out.
    pub messages: Vec<RelocatedMessage>,
}

/// A message that has the keywords that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its UID.
    pub uid: Uid,
    /// Its keywords now. Messages with the same ones share them.
    pub keywords: Arc<BTreeSet<Keyword>>,
    /// Its mod-sequence now.
    pub modseq: ModSeq,
    /// Its mod-sequence before; the same if nothing had to change.
    pub before: ModSeq,
}

/// What became of the messages whose keywords were to change. UIDs that showed nothing any more are in neither list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// They have the keywords that were asked for.
    pub done: Vec<StoredMessage>,
    /// They changed since the mod-sequence that the caller named, and were left alone (MODIFIED, RFC 7162).
    pub modified: Vec<Uid>,
}

impl Replica {
    /// Does something to the account and commits it as a whole.
    pub(super) fn change<R>(
        &self,
        act: impl FnOnce(&mut Account, &mut Txn<'_>) -> Result<(R, Written), AccountError>,
    ) -> Result<R, ReplicaError> {
        self.must_be_joined()?;
        let (result, events, wrote) = self.with(|core| {
            let before = core.commits;
            let (result, events) = core.change(&[], act)?;
            Ok((result, events, core.commits > before))
        })?;
        // An observer's clients see nothing of a message that has no private UID yet; its peers must hear of it.
        if wrote {
            self.tell(&events);
        }
        Ok(result)
    }

    /// What an outsider wrote nobody would take, and the store could never join with it. What a reader wrote neither.
    /// For the other roles it depends on what is written, and is found at the commit.
    pub(super) fn must_be_joined(&self) -> Result<(), ReplicaError> {
        match self.standing() {
            Standing::Outsider => Err(ReplicaError::NotJoined),
            Standing::Waiting | Standing::Server => Ok(()),
            Standing::Observer => match self.role()? {
                role @ Role::Reader => Err(ReplicaError::Role { role, overstep: Overstep::Write }),
                _ => Ok(()),
            },
        }
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
        self.must_be_joined()?;
        // Before the body is read: who misspelt the name need not send it first.
        named(&self.view()?.view(), mailbox)?;
        let (body, _) = self.put_body(body)?;
        let added = self.append_all(mailbox, vec![NewMessage { body, keywords, internal_date }])?;
        Ok(added.messages[0])
    }

    /// Adds messages to a mailbox, all or none (MULTIAPPEND, RFC 3502): one commit, of [`Account::MAX_BATCH`] messages at
    /// most. Their bodies must be here. An observer commits once more, to give them private UIDs.
    pub fn append_all(
        &self,
        mailbox: &MailboxName,
        messages: Vec<NewMessage>,
    ) -> Result<Added, ReplicaError> {
        let (time, blobs) = (now(), bodies(&messages));
        let new = self.arriving(messages, time)?;
        let (target, entries) = self.change(|account, txn| {
            let target = named(&account.view(txn), mailbox)?;
            let (entries, written) = account.append(txn, time, target, new)?;
            Ok(((target, entries), written))
        })?;
        Ok(self.added(target, &entries, &blobs))
    }

    /// Adds a message to a mailbox in the place of another one, which is expunged in the same commit (REPLACE, RFC 8508). If
    /// that one is gone already, it is added all the same. Its body must be here.
    pub fn replace(
        &self,
        seen: Seen,
        old: Uid,
        mailbox: &MailboxName,
        message: NewMessage,
    ) -> Result<Added, ReplicaError> {
        let (time, message) = (now(), vec![message]);
        let blobs = bodies(&message);
        let mut new = self.arriving(message, time)?;
        let (target, entries) = self.change(|account, txn| {
            let target = named(&account.view(txn), mailbox)?;
            let (entries, written) = match (account.resolve(txn, seen, &[old])?.pop(), new.pop()) {
                (Some(old), Some(new)) => account.replace(txn, time, old.entry, target, new)?,
                (_, new) => account.append(txn, time, target, new.into_iter().collect())?,
            };
            Ok(((target, entries), written))
        })?;
        Ok(self.added(target, &entries, &blobs))
    }

    pub(super) fn arriving(
        &self,
        messages: Vec<NewMessage>,
        time: i64,
    ) -> Result<Vec<Message>, ReplicaError> {
        let mut new = Vec::with_capacity(messages.len());
        for NewMessage { body, keywords, internal_date } in messages {
            // It may be on its way out.
            self.0.handle.bodies().pin(body);
            let size = self.0.handle.bodies().size(body)?.ok_or(ReplicaError::Owed { blob: body })?;
            let internal_date = internal_date.unwrap_or(time);
            new.push(Message { blob: body, internal_date, size, keywords });
        }
        Ok(new)
    }

    fn added(&self, target: MailboxId, entries: &[EntryId], blobs: &[BlobId]) -> Added {
        let (into, uids) = self.arrivals(target, entries.iter().copied());
        let all = entries.iter().zip(blobs).zip(uids);
        let messages = all.map(|((entry, blob), uid)| Appended { entry: *entry, blob: *blob, uid });
        Added { into, messages: messages.collect() }
    }

    /// Copies messages into a mailbox, with their keywords. Bodies are shared. One commit for each [`Account::MAX_BATCH`]
    /// messages, and so below.
    pub fn copy(&self, from: Seen, uids: &[Uid], to: &MailboxName) -> Result<Relocated, ReplicaError> {
        self.relocate(from, uids, to, |account, txn, entries, target| {
            account.copy(txn, now(), entries, target)
        })
    }

    /// Moves messages into a mailbox.
    pub fn move_to(&self, from: Seen, uids: &[Uid], to: &MailboxName) -> Result<Relocated, ReplicaError> {
        self.relocate(from, uids, to, |account, txn, entries, target| {
            Ok((entries.to_vec(), account.move_to(txn, now(), entries, target)?))
        })
    }

    fn relocate(
        &self,
        from: Seen,
        uids: &[Uid],
        to: &MailboxName,
        mut act: impl FnMut(
            &mut Account,
            &mut Txn<'_>,
            &[EntryId],
            MailboxId,
        ) -> Result<(Vec<EntryId>, Written), AccountError>,
    ) -> Result<Relocated, ReplicaError> {
        let (mut into, mut moved) = (None, Vec::new());
        self.each_part(from, uids, |account, txn, messages| {
            let target = named(&account.view(txn), to)?;
            let entries: Vec<EntryId> = messages.iter().map(|message| message.entry).collect();
            let (new, written) = act(account, txn, &entries, target)?;
            into = Some(target);
            moved.extend(messages.iter().map(|message| message.uid).zip(new));
            Ok(written)
        })?;
        let Some(target) = into else { return Ok(Relocated { into: None, messages: Vec::new() }) };
        let (into, uids) = self.arrivals(target, moved.iter().map(|(_, entry)| *entry));
        let all = moved.into_iter().zip(uids);
        let messages = all.map(|((from, entry), uid)| RelocatedMessage { from, entry, uid }).collect();
        Ok(Relocated { into, messages })
    }

    /// Expunges messages, whether they are marked `\Deleted` or not. Gives the UIDs that were expunged.
    pub fn expunge(&self, mailbox: Seen, uids: &[Uid]) -> Result<Vec<Uid>, ReplicaError> {
        self.expunge_if(mailbox, uids, |_| true)
    }

    /// Expunges those of the messages that are marked `\Deleted` at this moment (EXPUNGE and UID EXPUNGE): a mark that
    /// somebody took off in between keeps its message. Gives the UIDs that were expunged.
    pub fn expunge_deleted(&self, mailbox: Seen, uids: &[Uid]) -> Result<Vec<Uid>, ReplicaError> {
        self.expunge_if(mailbox, uids, |message| message.keywords.contains(&Keyword::deleted()))
    }

    fn expunge_if(
        &self,
        mailbox: Seen,
        uids: &[Uid],
        wanted: impl Fn(&Shown) -> bool,
    ) -> Result<Vec<Uid>, ReplicaError> {
        let mut expunged = Vec::new();
        self.each_part(mailbox, uids, |account, txn, messages| {
            let meant = || messages.iter().filter(|message| wanted(message));
            expunged.extend(meant().map(|message| message.uid));
            account.expunge(txn, now(), &meant().map(|message| message.entry).collect::<Vec<_>>())
        })?;
        Ok(expunged)
    }

    /// Changes keywords. With `unchanged_since`, messages that changed after that mod-sequence are left alone, and so are
    /// all if the value was given by another history (UNCHANGEDSINCE, RFC 7162, section 3.1.3).
    pub fn store_keywords(
        &self,
        mailbox: Seen,
        uids: &[Uid],
        change: &KeywordChange,
        unchanged_since: Option<ModSeq>,
    ) -> Result<Stored, ReplicaError> {
        let mut stored = Stored::default();
        let mut known: BTreeSet<Arc<BTreeSet<Keyword>>> = BTreeSet::new();
        self.each_part(mailbox, uids, |account, txn, messages| {
            let era = account.era();
            let may = |message: &Shown| {
                unchanged_since
                    .is_none_or(|since| since.era() == era && message.modseq.counter() <= since.counter())
            };
            let (mut meant, modified): (Vec<Shown>, Vec<Shown>) = messages.into_iter().partition(may);
            stored.modified.extend(modified.iter().map(|message| message.uid));
            let before: Vec<u64> = meant.iter().map(|message| message.modseq.counter()).collect();
            let written = account.mark(txn, now(), &mut meant, change)?;
            stored.done.extend(meant.into_iter().zip(before).map(|(message, before)| {
                let keywords = known.get(&message.keywords).cloned().unwrap_or_else(|| {
                    let keywords = Arc::new(message.keywords);
                    known.insert(keywords.clone());
                    keywords
                });
                let modseq = ModSeq::new(message.modseq.counter(), era);
                StoredMessage { uid: message.uid, keywords, modseq, before: ModSeq::new(before, era) }
            }));
            Ok(written)
        })?;
        Ok(stored)
    }

    /// Acts on the messages that UIDs mean when it is their turn, a commit for each [`Account::MAX_BATCH`].
    fn each_part(
        &self,
        seen: Seen,
        uids: &[Uid],
        mut act: impl FnMut(&mut Account, &mut Txn<'_>, Vec<Shown>) -> Result<Written, AccountError>,
    ) -> Result<(), ReplicaError> {
        // Named twice is meant once, in whichever parts it stands.
        let mut met = BTreeSet::new();
        let uids: Vec<Uid> = uids.iter().copied().filter(|uid| met.insert(*uid)).collect();
        // A target or UIDVALIDITY that is wrong is an error for no UIDs too.
        let parts = uids.chunks(Account::MAX_BATCH).chain(uids.is_empty().then_some(&[][..]));
        for part in parts {
            self.change(|account, txn| {
                let messages = account.resolve(txn, seen, part)?;
                Ok(((), act(account, txn, messages)?))
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

    /// Gives a mailbox, and all below it, another name, in one commit; the name may be one that only those below imply.
    /// Renaming INBOX moves its messages into a new mailbox.
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
}

fn bodies(messages: &[NewMessage]) -> Vec<BlobId> {
    messages.iter().map(|message| message.body).collect()
}

/// The mailbox that bears a name.
fn named(view: &crate::uid::View<'_, impl Tables>, name: &MailboxName) -> Result<MailboxId, AccountError> {
    view.find(name)?.ok_or_else(|| AccountError::NoMailbox { name: name.clone() })
}
