//! Reads of the index: what a replica shows its clients.

use std::collections::{BTreeMap, BTreeSet};

use super::claims::top;
use super::names::{self, all_mailboxes};
use super::observer;
use super::pass::Burn;
use super::rows::{EntryRow, MailboxRow, UidRow, after, key_placement, key_uid, space_key, uid_key};
use super::tables::{Table, TableError, Tables};
use super::validity::uid_validity;
use crate::blob::BlobId;
use crate::mailbox::{
    AccountId, EntryId, Keyword, MailboxId, MailboxName, Message, ModSeq, Nonce, PackId, Placement,
    SpecialUse, Uid, UidValidity,
};
use crate::mutation::{Mutation, planted};

/// A mailbox as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// Its id (MAILBOXID, RFC 8474).
    pub id: MailboxId,
    /// Its name.
    pub name: MailboxName,
    /// Its UIDVALIDITY.
    pub uid_validity: UidValidity,
    /// Its UIDNEXT.
    pub uid_next: u32,
    /// How many messages it has.
    pub messages: u64,
    /// How many of them are not `\Seen`.
    pub unseen: u64,
    /// How many of them are marked `\Deleted`.
    pub marked_deleted: u64,
    /// Their size in bytes, together.
    pub size: u64,
    /// Its HIGHESTMODSEQ (RFC 7162).
    pub highest_modseq: ModSeq,
    /// Whether it is subscribed.
    pub subscribed: bool,
    /// Its special use.
    pub special_use: Option<SpecialUse>,
}

/// A mailbox as a caller saw it. UIDs mean something only together with this: an operation that names UIDs takes it, and
/// is refused if the mailbox has another UIDVALIDITY by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The mailbox, whatever its name is by now.
    pub mailbox: MailboxId,
    /// The UIDVALIDITY that came with the UIDs.
    pub uid_validity: UidValidity,
}

impl Mailbox {
    /// What operations on its messages take.
    pub fn seen(&self) -> Seen {
        Seen { mailbox: self.id, uid_validity: self.uid_validity }
    }
}

/// What changed in a mailbox since some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Messages that are new or have other keywords, by ascending UID.
    pub changed: Vec<Shown>,
    /// UIDs that are not shown and were or became known since, ascending: those that vanished here, and those that
    /// arrived already burned or expunged, which clients of other servers may have seen.
    pub vanished: Vec<Uid>,
}

/// The UIDs of a mailbox to which something happened since some moment; together they are those of [`Changes`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedUids {
    /// UIDs of messages that are new or have other keywords, ascending.
    pub shown: Vec<Uid>,
    /// The same UIDs as in [`Changes::vanished`].
    pub vanished: Vec<Uid>,
}

/// A message as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The UID that this replica's clients see: on an observer its private one.
    pub uid: Uid,
    /// The UID that servers show, if one has claimed it; the same as `uid` on a server.
    pub shared_uid: Option<Uid>,
    /// The message.
    pub entry: EntryId,
    /// Its body (EMAILID, RFC 8474).
    pub blob: BlobId,
    /// Its keywords.
    pub keywords: BTreeSet<Keyword>,
    /// Its internal date in seconds since 1970.
    pub internal_date: i64,
    /// When it came into this mailbox (SAVEDATE, RFC 8514), in seconds since 1970, by the clock of the replica that added,
    /// copied or moved it.
    pub saved: i64,
    /// Its size in bytes.
    pub size: u64,
    /// Its mod-sequence.
    pub modseq: ModSeq,
}

/// A message, wherever it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The mailbox it is in, and which of its stays that is; nothing once it is expunged.
    pub place: Option<(MailboxId, Nonce)>,
    /// Its body.
    pub blob: BlobId,
    /// Its size in bytes.
    pub size: u64,
    /// Its internal date in seconds since 1970.
    pub internal_date: i64,
    /// Its keywords.
    pub keywords: BTreeSet<Keyword>,
    /// The UID that servers show it under.
    pub shared_uid: Option<Uid>,
}

/// What the document knows of a UID, for tests and explanations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The UID.
    pub uid: Uid,
    /// Whose it is, or was.
    pub placement: Placement,
    /// Whether it may never be shown again.
    pub burned: bool,
    /// When it vanished here.
    pub gone: Option<ModSeq>,
}

/// The UIDs of a mailbox in one of its epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UidSpace {
    /// The mailbox.
    pub mailbox: MailboxId,
    /// The epoch.
    pub epoch: u32,
}

/// Reads one replica's index.
pub struct View<'a, T> {
    tables: &'a T,
    account: AccountId,
    observer: bool,
}

impl<'a, T: Tables> View<'a, T> {
    /// Reads `tables` as the index of a replica of `account`.
    pub fn new(tables: &'a T, account: AccountId, observer: bool) -> View<'a, T> {
        View { tables, account, observer }
    }

    pub(super) fn tables(&self) -> &'a T {
        self.tables
    }

    /// The mailboxes by name. Costs O(mailboxes).
    pub fn mailboxes(&self) -> Result<Vec<Mailbox>, TableError> {
        let mut mailboxes = Vec::new();
        for (id, row) in all_mailboxes(self.tables)? {
            if let Some(name) = row.display.clone() {
                mailboxes.push(self.describe(id, name, &row)?);
            }
        }
        mailboxes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(mailboxes)
    }

    /// The id of the mailbox that bears a name now. One look-up.
    pub fn find(&self, name: &MailboxName) -> Result<Option<MailboxId>, TableError> {
        names::bearer(self.tables, name)
    }

    /// The mailboxes that were first made under a name, deleted and renamed ones too, oldest first.
    pub fn incarnations(&self, name: &MailboxName) -> Result<Vec<MailboxId>, TableError> {
        let mut ids = Vec::new();
        loop {
            let id = MailboxId::derive(name, ids.len() as u32);
            if self.mailbox_row(id)?.is_none() {
                return Ok(ids);
            }
            ids.push(id);
        }
    }

    /// One mailbox; nothing if it is not shown.
    pub fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>, TableError> {
        let Some(row) = self.mailbox_row(id)? else { return Ok(None) };
        let Some(name) = row.display.clone() else { return Ok(None) };
        self.describe(id, name, &row).map(Some)
    }

    fn mailbox_row(&self, id: MailboxId) -> Result<Option<MailboxRow>, TableError> {
        self.tables.get(Table::Mailboxes, id.as_bytes())?.map(|bytes| MailboxRow::decode(&bytes)).transpose()
    }

    fn describe(&self, id: MailboxId, name: MailboxName, row: &MailboxRow) -> Result<Mailbox, TableError> {
        let shared = uid_validity(self.account, id, row);
        let (uid_next, uid_validity) = match self.observer {
            // Until the mailbox is shown under this name for the first time, it has no UIDVALIDITY of its own.
            true => (
                observer::next(self.tables, id)?,
                observer::bound(self.tables, &name)?.filter(|b| b.0 == id).map_or(shared, |b| b.1),
            ),
            false if planted(Mutation::UidNext) => {
                (self.uids(id)?.last().map_or(1, |uid| uid.value() + 1), shared)
            }
            false => (top(self.tables, id, row.epoch)?.saturating_add(1), shared),
        };
        Ok(Mailbox {
            id,
            name,
            uid_validity,
            uid_next,
            messages: row.messages,
            unseen: row.unseen,
            marked_deleted: row.marked,
            size: row.bytes,
            highest_modseq: row.highest_modseq,
            subscribed: row.subscribed,
            special_use: row.special_use,
        })
    }

    /// Messages of a mailbox from UID `from` on, ascending, `limit` at most. Costs about 10 µs each.
    pub fn messages(&self, id: MailboxId, from: Uid, limit: usize) -> Result<Vec<Shown>, TableError> {
        let Some(mailbox) = self.mailbox_row(id)? else { return Ok(Vec::new()) };
        let mut shown = Vec::new();
        let mut next = from;
        while shown.len() < limit {
            let batch = self.placements(id, mailbox.epoch, next, (limit - shown.len()).saturating_add(1))?;
            let Some((last, _, _)) = batch.last().copied() else { break };
            for (uid, placement, gone) in batch {
                if !gone && let Some(message) = self.shown(id, mailbox.epoch, uid, placement)? {
                    shown.push(message);
                }
            }
            match last.value().checked_add(1).and_then(Uid::new) {
                Some(after) => next = after,
                None => break,
            }
        }
        shown.truncate(limit);
        Ok(shown)
    }

    /// The UIDs of all messages of a mailbox, ascending. Reads one row, in order, for each UID that was ever claimed there,
    /// vanished ones included, and no message.
    pub fn uids(&self, id: MailboxId) -> Result<Vec<Uid>, TableError> {
        const PAGE: usize = 8192;
        let Some(mailbox) = self.mailbox_row(id)? else { return Ok(Vec::new()) };
        let mut uids = Vec::with_capacity(mailbox.messages.min(u64::from(u32::MAX)) as usize);
        let mut from = Some(Uid::FIRST);
        while let Some(next) = from {
            let page = self.placements(id, mailbox.epoch, next, PAGE)?;
            uids.extend(page.iter().filter(|(_, _, gone)| !gone).map(|(uid, _, _)| *uid));
            let last = page.last().filter(|_| page.len() == PAGE);
            from = last.and_then(|(uid, _, _)| Uid::new(uid.value().checked_add(1)?));
        }
        Ok(uids)
    }

    /// UIDs, whose they are, and whether they are known and not shown.
    fn placements(
        &self,
        id: MailboxId,
        epoch: u32,
        from: Uid,
        limit: usize,
    ) -> Result<Vec<(Uid, Placement, bool)>, TableError> {
        if self.observer {
            let rows = observer::listed(self.tables, id, from, limit)?;
            return Ok(rows
                .into_iter()
                .map(|(uid, placement, gone)| (uid, placement, gone.is_some()))
                .collect());
        }
        let (from, to) = (uid_key(id, epoch, from.value()), after(&space_key(id, epoch)));
        let rows = self.tables.range(Table::Uids, &from, &to, limit)?;
        let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let row = UidRow::decode(value)?;
            Ok((key_uid(Table::Uids, key)?, row.placement, row.gone.is_some() || row.is_burned()))
        };
        rows.iter().map(read).collect()
    }

    /// A message under a UID, if that is the one it is shown under.
    fn shown(
        &self,
        id: MailboxId,
        epoch: u32,
        uid: Uid,
        placement: Placement,
    ) -> Result<Option<Shown>, TableError> {
        let Some(row) = self.entry_row(placement.entry)? else { return Ok(None) };
        if row.place != Some((id, placement.nonce)) {
            return Ok(None);
        }
        let shared_uid = row.shown.filter(|(at, _)| *at == epoch).map(|(_, uid)| uid);
        if !self.observer && shared_uid != Some(uid) {
            return Ok(None);
        }
        let saved = row.saved();
        let EntryRow { blob, internal_date, size, keywords, modseq, .. } = row;
        Ok(Some(Shown {
            uid,
            shared_uid,
            entry: placement.entry,
            blob,
            keywords,
            internal_date,
            saved,
            size,
            modseq,
        }))
    }

    /// One message by its UID.
    pub fn message(&self, id: MailboxId, uid: Uid) -> Result<Option<Shown>, TableError> {
        let Some(mailbox) = self.mailbox_row(id)? else { return Ok(None) };
        match self.placements(id, mailbox.epoch, uid, 1)?.first() {
            Some((found, placement, false)) if *found == uid => {
                self.shown(id, mailbox.epoch, uid, *placement)
            }
            _ => Ok(None),
        }
    }

    /// Messages by their UIDs, in the order given; UIDs that show nothing are passed over. Ascending ones that stand close
    /// together are read in one go.
    pub fn messages_of(&self, id: MailboxId, uids: &[Uid]) -> Result<Vec<Shown>, TableError> {
        let Some(mailbox) = self.mailbox_row(id)? else { return Ok(Vec::new()) };
        let mut messages = Vec::with_capacity(uids.len());
        self.each_placement(id, mailbox.epoch, uids, |uid, placement| {
            messages.extend(self.shown(id, mailbox.epoch, uid, placement)?);
            Ok(())
        })?;
        Ok(messages)
    }

    /// Tells whose UIDs are, in the order given, and passes over those that are unknown or gone.
    fn each_placement(
        &self,
        id: MailboxId,
        epoch: u32,
        uids: &[Uid],
        mut tell: impl FnMut(Uid, Placement) -> Result<(), TableError>,
    ) -> Result<(), TableError> {
        /// So many UIDs, and up to [`SPREAD`] times as many rows, are in memory at a time.
        const PART: usize = 1000;
        /// A row that is passed over costs so much less than one that is looked up.
        const SPREAD: usize = 4;
        for part in uids.chunks(PART) {
            let span = part[part.len() - 1].value().saturating_sub(part[0].value()) as usize + 1;
            let together = span <= part.len() * SPREAD && part.is_sorted();
            let rows = if together { self.placements(id, epoch, part[0], span)? } else { Vec::new() };
            for uid in part {
                let row = match rows.binary_search_by_key(uid, |(uid, ..)| *uid) {
                    Ok(at) => Some(rows[at]),
                    Err(_) if together => None,
                    Err(_) => self.placements(id, epoch, *uid, 1)?.first().copied(),
                };
                match row {
                    Some((found, placement, false)) if found == *uid => tell(*uid, placement)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The UID under which this replica's clients see an entry in a mailbox, if they do.
    pub fn uid_in(&self, id: MailboxId, entry: EntryId) -> Result<Option<Uid>, TableError> {
        let Some(row) = self.entry_row(entry)? else { return Ok(None) };
        match row.place {
            Some((mailbox, nonce)) if mailbox == id && self.observer => {
                observer::private_uid(self.tables, Placement { entry, nonce })
            }
            Some((mailbox, _)) if mailbox == id => Ok(row.shown.map(|(_, uid)| uid)),
            _ => Ok(None),
        }
    }

    /// Every entry that is visible in a mailbox, claimed or not; in no order that clients know.
    pub fn entries_of(&self, id: MailboxId) -> Result<Vec<EntryId>, TableError> {
        let Some(mailbox) = self.mailbox_row(id)? else { return Ok(Vec::new()) };
        let prefix = space_key(id, mailbox.epoch);
        let mut entries = BTreeSet::new();
        for (_, value) in self.tables.range(Table::Uids, &prefix, &after(&prefix), usize::MAX)? {
            let row = UidRow::decode(&value)?;
            if row.gone.is_none() {
                entries.insert(row.placement.entry);
            }
        }
        for (key, _) in
            self.tables.range(Table::Unclaimed, id.as_bytes(), &after(id.as_bytes()), usize::MAX)?
        {
            entries.insert(key_placement(Table::Unclaimed, &key)?.entry);
        }
        let mut visible = Vec::with_capacity(entries.len());
        for entry in entries {
            if self.entry_row(entry)?.is_some_and(|row| row.place.is_some_and(|(mailbox, _)| mailbox == id)) {
                visible.push(entry);
            }
        }
        Ok(visible)
    }

    /// Whether an entry was ever in the account, its body, and where it is now.
    pub fn entry(&self, entry: EntryId) -> Result<Option<(BlobId, u64, Option<MailboxId>)>, TableError> {
        let row = self.entry_row(entry)?;
        Ok(row.map(|row| (row.blob, row.size, row.place.map(|(mailbox, _)| mailbox))))
    }

    /// What is known of an entry, and where it is now.
    pub fn located(&self, entry: EntryId) -> Result<Option<Located>, TableError> {
        Ok(self.entry_row(entry)?.map(Located::read))
    }

    /// What its pack says of an entry, with its keywords of now.
    pub fn message_of(&self, entry: EntryId) -> Result<Option<Message>, TableError> {
        let row = self.entry_row(entry)?;
        Ok(row.map(|row| {
            let EntryRow { blob, internal_date, size, keywords, .. } = row;
            Message { blob, internal_date, size, keywords }
        }))
    }

    /// What the index knows of every claimed UID of a mailbox, burned ones too.
    pub fn known_uids(&self, id: MailboxId) -> Result<Vec<Known>, TableError> {
        let Some(mailbox) = self.mailbox_row(id)? else { return Ok(Vec::new()) };
        let prefix = space_key(id, mailbox.epoch);
        let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let row = UidRow::decode(value)?;
            let uid = key_uid(Table::Uids, key)?;
            Ok(Known { uid, placement: row.placement, burned: row.is_burned(), gone: row.gone })
        };
        self.tables.range(Table::Uids, &prefix, &after(&prefix), usize::MAX)?.iter().map(read).collect()
    }

    /// The names of all mailboxes that there ever were: those that are gone by the last name they had. Costs O(mailboxes).
    pub fn names(&self) -> Result<BTreeMap<MailboxId, MailboxName>, TableError> {
        let rows = all_mailboxes(self.tables)?;
        Ok(rows.into_iter().filter_map(|(id, row)| Some((id, row.display.or(row.name)?))).collect())
    }

    /// The mailboxes that are shown under another name than the one they were given, because somebody else bears it, with
    /// that name. Costs O(mailboxes).
    pub fn clashes(&self) -> Result<BTreeMap<MailboxId, MailboxName>, TableError> {
        let rows = all_mailboxes(self.tables)?;
        let clashes = rows.into_iter().filter(|(_, row)| row.marked_name().is_some());
        Ok(clashes.filter_map(|(id, row)| Some((id, row.name?))).collect())
    }

    /// The mailbox in which a message arrived.
    pub fn home(&self, entry: EntryId) -> Result<Option<MailboxId>, TableError> {
        Ok(self.entry_row(entry)?.map(|row| row.home))
    }

    /// The pack that a message arrived with, and its number there.
    pub fn pack_of(&self, entry: EntryId) -> Result<Option<(PackId, u32)>, TableError> {
        Ok(self.entry_row(entry)?.map(|row| (row.pack, row.index)))
    }

    /// The message that a UID of a mailbox stands for, or stood for before it vanished.
    pub fn bearer(&self, id: MailboxId, uid: Uid) -> Result<Option<EntryId>, TableError> {
        let Some(mailbox) = self.mailbox_row(id)? else { return Ok(None) };
        let found = self.placements(id, mailbox.epoch, uid, 1)?;
        let found = found.into_iter().find(|(at, _, _)| *at == uid);
        Ok(found.map(|(_, placement, _)| placement.entry).filter(|entry| entry.as_bytes() != &[0; 16]))
    }

    /// The UID spaces of a mailbox in which UIDs were claimed: one for each of its epochs, oldest first.
    pub fn uid_spaces(&self, mailbox: MailboxId) -> Result<Vec<UidSpace>, TableError> {
        let epoch = self.mailbox_row(mailbox)?.map_or(0, |row| row.epoch);
        let known = |epoch: &u32| {
            let row = self.tables.get(Table::Runs, &space_key(mailbox, *epoch));
            row.map(|row| row.map(|_| UidSpace { mailbox, epoch: *epoch })).transpose()
        };
        (0..=epoch).filter_map(|epoch| known(&epoch)).collect()
    }

    /// The keys of the UID records of a space. Costs O(records).
    pub fn uid_records(&self, space: UidSpace) -> Result<Vec<[u8; 16]>, TableError> {
        let prefix = space_key(space.mailbox, space.epoch);
        let rows = self.tables.range(Table::Runs, &prefix, &after(&prefix), usize::MAX)?;
        Ok(rows.iter().filter_map(|(key, _)| key.get(prefix.len()..)?.try_into().ok()).collect())
    }

    /// Which rules burned the UIDs from `first` to `last` of a space; those that hold are left out. Costs O(claimed UIDs
    /// among them).
    pub fn burned(&self, space: UidSpace, first: Uid, last: Uid) -> Result<Vec<(Uid, Burn)>, TableError> {
        let UidSpace { mailbox, epoch } = space;
        let from = uid_key(mailbox, epoch, first.value());
        let to = match last.value().checked_add(1) {
            Some(end) => uid_key(mailbox, epoch, end),
            None => after(&space_key(mailbox, epoch)),
        };
        let mut burned = Vec::new();
        for (key, value) in self.tables.range(Table::Uids, &from, &to, usize::MAX)? {
            let (uid, row) = (key_uid(Table::Uids, &key)?, UidRow::decode(&value)?);
            let rules = [
                (row.contested, Burn::Contested),
                (row.spanned, Burn::Spanned),
                (row.recorded, Burn::Recorded),
            ];
            burned.extend(rules.into_iter().filter(|(holds, _)| *holds).map(|(_, rule)| (uid, rule)));
        }
        Ok(burned)
    }

    /// What changed in a mailbox after a counter of this replica's mod-sequences. Costs O(changes since then), about 10 µs
    /// each.
    pub fn changed_since(&self, id: MailboxId, counter: u64) -> Result<Changes, TableError> {
        let touched = self.touched_since(id, counter)?;
        let changed = self.messages_of(id, &touched)?;
        let vanished = without(touched, changed.iter().map(|message| message.uid));
        Ok(Changes { changed, vanished })
    }

    /// Where something changed in a mailbox after a counter of this replica's mod-sequences. Reads no message, but one row
    /// for each UID of the answer, which takes 4 bytes of memory each.
    pub fn uids_changed_since(&self, id: MailboxId, counter: u64) -> Result<ChangedUids, TableError> {
        let Some(mailbox) = self.mailbox_row(id)? else { return Ok(ChangedUids::default()) };
        let touched = self.touched_since(id, counter)?;
        let mut shown = Vec::with_capacity(touched.len());
        self.each_placement(id, mailbox.epoch, &touched, |uid, _| {
            shown.push(uid);
            Ok(())
        })?;
        let vanished = without(touched, shown.iter().copied());
        Ok(ChangedUids { shown, vanished })
    }

    /// The UIDs to which something happened after a counter, ascending.
    fn touched_since(&self, id: MailboxId, counter: u64) -> Result<Vec<Uid>, TableError> {
        const PAGE: usize = 256;
        let Some(mailbox) = self.mailbox_row(id)? else { return Ok(Vec::new()) };
        let prefix = space_key(id, if self.observer { observer::SPACE } else { mailbox.epoch });
        let mut from = prefix.clone();
        from.extend(counter.saturating_add(1).to_be_bytes());
        let mut uids = BTreeSet::new();
        loop {
            let rows = self.tables.range(Table::ModSeqs, &from, &after(&prefix), PAGE)?;
            let numbers = rows.iter().flat_map(|(_, value)| value.chunks_exact(4));
            uids.extend(numbers.filter_map(|bytes| Uid::new(u32::from_be_bytes(bytes.try_into().ok()?))));
            let Some((last, _)) = rows.last().filter(|_| rows.len() == PAGE) else { break };
            from = [last, &[0][..]].concat();
        }
        Ok(uids.into_iter().collect())
    }

    pub(super) fn entry_row(&self, entry: EntryId) -> Result<Option<EntryRow>, TableError> {
        self.tables.get(Table::Entries, entry.as_bytes())?.map(|bytes| EntryRow::decode(&bytes)).transpose()
    }

    /// The mailboxes that cannot be shown as they are. Costs O(mailboxes).
    pub fn unsettled(&self) -> Result<Vec<MailboxId>, TableError> {
        let mut unsettled = Vec::new();
        for (id, row) in all_mailboxes(self.tables)? {
            if !self.is_row_settled(id, &row)? {
                unsettled.push(id);
            }
        }
        Ok(unsettled)
    }

    /// Whether a mailbox can be shown as it is, or is not shown at all; otherwise UIDs must be given, or burned, first.
    pub fn is_settled(&self, id: MailboxId) -> Result<bool, TableError> {
        self.mailbox_row(id)?.map_or(Ok(true), |row| self.is_row_settled(id, &row))
    }

    fn is_row_settled(&self, id: MailboxId, row: &MailboxRow) -> Result<bool, TableError> {
        let Some(name) = &row.display else { return Ok(true) };
        if self.observer {
            let bound = observer::bound(self.tables, name)?.is_some_and(|(bearer, _)| bearer == id);
            return Ok(bound && !observer::waits(self.tables, id)?);
        }
        let waits = |table, prefix: &[u8]| {
            self.tables.range(table, prefix, &after(prefix), 1).map(|rows| !rows.is_empty())
        };
        let claimed = !waits(Table::Unclaimed, id.as_bytes())?;
        let burned = !waits(Table::Pending, &space_key(id, row.epoch))?;
        Ok(row.raise_to.is_none() && row.display == row.name && claimed && burned)
    }
}

/// What is left of ascending UIDs without some of them, which ascend too.
fn without(uids: Vec<Uid>, some: impl Iterator<Item = Uid>) -> Vec<Uid> {
    let mut some = some.peekable();
    uids.into_iter().filter(|uid| some.next_if_eq(uid).is_none()).collect()
}
