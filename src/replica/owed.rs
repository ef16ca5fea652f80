//! Bodies that are owed: messages are shown here, their bodies are elsewhere yet.

use std::collections::VecDeque;

use super::{Replica, ReplicaError, lock};
use crate::blob::BlobId;
use crate::mailbox::{AccountId, Change, EntryId, MailboxId, ReplicaId};
use crate::mutation::{Mutation, planted};
use crate::store::{BodyStore, Txn};
use crate::uid::{Account, Table, Tables, TablesMut, View};

/// A body to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owed {
    key: Vec<u8>,
    pub(super) blob: BlobId,
    /// A message that needs it.
    pub(super) entry: EntryId,
    pub(super) size: u64,
}

/// INBOX before the rest, mailbox by mailbox, then the newest first. Bundles hold neighbours of one mailbox, so that what is
/// asked for together is mostly sent as it is stored; by date alone nearly every body had to be taken out of its bundle.
fn key(mailbox: MailboxId, internal_date: i64, blob: &BlobId, entry: EntryId) -> Vec<u8> {
    let mut key = vec![u8::from(mailbox != MailboxId::inbox())];
    key.extend(mailbox.as_bytes());
    key.extend((!(internal_date as u64 ^ 1 << 63)).to_be_bytes());
    key.extend(blob.as_bytes());
    key.extend(entry.as_bytes());
    key
}

/// Notes the bodies that packs bring and that are not here. What this replica itself wrote has its bodies, unless it copied
/// a message whose body is owed.
pub(super) fn note(
    account: &Account,
    txn: &mut Txn<'_>,
    bodies: &BodyStore,
    own: ReplicaId,
    batch: &[Change],
) -> Result<(), ReplicaError> {
    if planted(Mutation::OwedForgotten) {
        return Ok(());
    }
    let owes = !txn.range(Table::Owed, &[], &[], 1)?.is_empty();
    for change in batch.iter().filter(|change| owes || change.replica() != own) {
        note_returned(account, txn, bodies, change)?;
        for id in change.touched().packs.keys() {
            let Some(pack) = account.document().pack(*id) else { continue };
            for (index, message) in pack.messages.iter().enumerate() {
                if bodies.contains_sized(message.blob, message.size)? {
                    continue;
                }
                let entry = pack.entry_id(*id, index);
                let key = key(pack.mailbox, message.internal_date, &message.blob, entry);
                txn.put(Table::Owed, &key, &message.size.to_be_bytes())?;
            }
        }
    }
    Ok(())
}

/// Notes the bodies of messages that a change moved, and that are not here: an expunged one may have been forgotten here, and
/// somebody brought the message back.
fn note_returned(
    account: &Account,
    txn: &mut Txn<'_>,
    bodies: &BodyStore,
    change: &Change,
) -> Result<(), ReplicaError> {
    for entry in &change.touched().places {
        let Some(message) = account.view(&*txn).located(*entry)? else { continue };
        if message.place.is_some()
            && !bodies.contains_sized(message.blob, message.size)?
            // As where its pack is noted: one debt for one message.
            && let Some(mailbox) = account.view(&*txn).home(*entry)?
        {
            let key = key(mailbox, message.internal_date, &message.blob, *entry);
            txn.put(Table::Owed, &key, &message.size.to_be_bytes())?;
        }
    }
    Ok(())
}

/// Notes those of a mailbox's entries whose bodies are not here; gives how many.
pub(super) fn note_entries(
    txn: &mut Txn<'_>,
    bodies: &BodyStore,
    account: AccountId,
    mailbox: MailboxId,
    entries: &[EntryId],
) -> Result<u64, ReplicaError> {
    let mut count = 0;
    for entry in entries {
        let Some(message) = View::new(&*txn, account, false).message_of(*entry)? else { continue };
        if !bodies.contains_sized(message.blob, message.size)? {
            let key = key(mailbox, message.internal_date, &message.blob, *entry);
            txn.put(Table::Owed, &key, &message.size.to_be_bytes())?;
            count += 1;
        }
    }
    Ok(count)
}

/// The first `limit` owed bodies after `after`, most urgent first.
pub(super) fn list(
    tables: &impl Tables,
    after: Option<&Owed>,
    limit: usize,
) -> Result<Vec<Owed>, ReplicaError> {
    let from = after.map_or(Vec::new(), |owed| [owed.key.as_slice(), &[0]].concat());
    let read = |(key, value): (Vec<u8>, Vec<u8>)| {
        let blob = BlobId::from_bytes(key.get(25..57)?.try_into().ok()?);
        let entry = EntryId::from_slice(key.get(57..73)?)?;
        let size = u64::from_be_bytes(value.get(..8)?.try_into().ok()?);
        Some(Owed { key, blob, entry, size })
    };
    Ok(tables.range(Table::Owed, &from, &[], limit)?.into_iter().filter_map(read).collect())
}

/// Whether a body that is owed is needed now. An expunged message's is not; a merge may bring the message back, so the debt
/// stays.
pub(super) fn is_needed(view: &View<'_, impl Tables>, owed: &Owed) -> Result<bool, ReplicaError> {
    Ok(view.entry(owed.entry)?.is_some_and(|(_, _, mailbox)| mailbox.is_some()))
}

/// A debt that is settled.
pub(super) fn settle(tables: &mut impl TablesMut, owed: &Owed) -> Result<(), ReplicaError> {
    Ok(tables.remove(Table::Owed, &owed.key)?)
}

/// What the conversations of a replica tell each other of bodies.
#[derive(Default)]
pub(super) struct Notices {
    /// Bodies that somebody waits for, the longest wait first.
    wanted: VecDeque<BlobId>,
    /// The bodies that came last.
    arrived: VecDeque<BlobId>,
    /// How many came before those.
    before: u64,
}

/// Most bodies that are hurried at a time: more than a mail client asks for at once. The longest wait gives way.
const MAX_HURRIED: usize = 1024;
/// Arrivals that are remembered: a few times what is noted at once, so that a conversation seldom misses one.
const MAX_ARRIVED: usize = 4096;

impl Replica {
    /// Asks for a body before all others, from every peer that is connected now or later and has it; true if it is here
    /// already. At most 256 requests are ahead of it in each conversation. When it has come, subscribers are called; until
    /// then it stays wanted, unless 1,023 others are wanted after it.
    pub fn want(&self, blob: BlobId) -> Result<bool, ReplicaError> {
        if self.has_body(blob)? {
            return Ok(true);
        }
        {
            let mut notices = lock(&self.0.notices);
            if notices.wanted.contains(&blob) {
                return Ok(false);
            }
            if notices.wanted.len() == MAX_HURRIED {
                notices.wanted.pop_front();
            }
            notices.wanted.push_back(blob);
        }
        self.tell(&[]);
        Ok(false)
    }

    /// What is wanted and not here, the longest wait first.
    pub(super) fn wanted(&self) -> Result<Vec<BlobId>, ReplicaError> {
        let mut wanted: Vec<BlobId> = lock(&self.0.notices).wanted.iter().copied().collect();
        let mut here = Vec::new();
        for blob in &wanted {
            if self.has_body(*blob)? {
                here.push(*blob);
            }
        }
        if !here.is_empty() {
            lock(&self.0.notices).wanted.retain(|blob| !here.contains(blob));
            wanted.retain(|blob| !here.contains(blob));
        }
        Ok(wanted)
    }

    pub(super) fn is_wanted(&self, blob: BlobId) -> bool {
        lock(&self.0.notices).wanted.contains(&blob)
    }

    /// Bodies came: tells the subscribers, other conversations among them.
    pub(super) fn tell_arrived(&self, blobs: impl IntoIterator<Item = BlobId>) {
        {
            let mut notices = lock(&self.0.notices);
            notices.arrived.extend(blobs);
            let over = notices.arrived.len().saturating_sub(MAX_ARRIVED);
            notices.arrived.drain(..over);
            notices.before += over as u64;
        }
        self.tell(&[]);
    }

    /// What came since the reader's last look, which is moved on; nothing if that is too much to be remembered.
    pub(super) fn arrived_since(&self, look: &mut u64) -> Option<Vec<BlobId>> {
        let notices = lock(&self.0.notices);
        let seen = std::mem::replace(look, notices.before + notices.arrived.len() as u64);
        let passed = usize::try_from(seen.checked_sub(notices.before)?).ok()?;
        Some(notices.arrived.iter().skip(passed).copied().collect())
    }
}
