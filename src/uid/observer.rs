//! Private UIDs: what an observer shows its clients, so that it never has to claim any.
//!
//! Its rows stand in one table under three prefixes: placements that wait for a private UID, UIDs, and the way back from
//! a placement to its UID.

use std::collections::{BTreeMap, BTreeSet};

use super::rows::{EntryRow, after, arrival_key, key_placement, space_key};
use super::tables::{Table, TableError, Tables, TablesMut};
use crate::bytes::{Reader, put_number};
use crate::mailbox::{EntryId, MailboxId, MailboxName, ModSeq, Nonce, Placement, Uid, UidValidity};

/// The epoch under which changes of private UIDs are listed by mod-sequence: above every epoch that a mailbox can have.
pub(super) const SPACE: u32 = u32::MAX;

const WAITING: u8 = b'w';
const UID: u8 = b'u';
const BACK: u8 = b'b';
const NAME: u8 = b'n';

/// Private UIDs that a mailbox needs before an observer shows it. It is truth that nobody else has: it must be durable
/// before it is taken into the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateUids {
    mailbox: MailboxId,
    /// The name's UIDVALIDITY, where the mailbox was not shown under this name last.
    validity: Option<(MailboxName, UidValidity)>,
    /// The UID of the first placement.
    first: u32,
    placements: Vec<Placement>,
}

impl PrivateUids {
    /// For the log.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.mailbox.as_bytes().to_vec();
        let (name, validity) = match &self.validity {
            Some((name, validity)) => (name.as_str(), validity.value()),
            None => ("", 0),
        };
        put_number(&mut out, name.len() as u64);
        out.extend(name.as_bytes());
        put_number(&mut out, validity.into());
        put_number(&mut out, self.first.into());
        for placement in &self.placements {
            out.extend(placement.entry.as_bytes());
            put_number(&mut out, placement.nonce.0);
        }
        out
    }

    /// Nothing for bytes that [`PrivateUids::encode`] did not write.
    pub fn decode(bytes: &[u8]) -> Option<PrivateUids> {
        let mut reader = Reader(bytes);
        let mailbox = MailboxId::from_bytes(reader.array()?);
        let len = usize::try_from(reader.number()?).ok()?;
        let name = std::str::from_utf8(reader.take(len)?).ok()?.parse::<MailboxName>().ok();
        let validity = name.zip(UidValidity::new(reader.number32()?));
        let first = reader.number32()?;
        let mut placements = Vec::new();
        while !reader.is_empty() {
            let entry = EntryId::from_bytes(reader.array()?);
            placements.push(Placement { entry, nonce: Nonce(reader.number()?) });
        }
        Some(PrivateUids { mailbox, validity, first, placements })
    }

    /// What `mailbox` needs, `limit` placements at most; nothing if it can be shown as it is. A new UIDVALIDITY is the
    /// time in seconds, as servers have always drawn them, or more than the last one given.
    pub(crate) fn plan(
        tables: &impl Tables,
        mailbox: MailboxId,
        name: &MailboxName,
        time: i64,
        limit: usize,
    ) -> Result<Option<PrivateUids>, TableError> {
        let placements: Vec<Placement> =
            waiting(tables, mailbox, limit)?.into_iter().map(|(_, placement)| placement).collect();
        let bound = bound(tables, name)?.is_some_and(|(bearer, _)| bearer == mailbox);
        if bound && placements.is_empty() {
            return Ok(None);
        }
        let last = tables.get(Table::Meta, LAST_VALIDITY)?.and_then(|bytes| bytes.try_into().ok());
        let above = last.map_or(0, u32::from_be_bytes).saturating_add(1);
        let drawn = UidValidity::new(above.max(u32::try_from(time).unwrap_or(0)));
        let validity = drawn.filter(|_| !bound).map(|validity| (name.clone(), validity));
        Ok(Some(PrivateUids { mailbox, validity, first: next(tables, mailbox)?, placements }))
    }

    /// Takes it into the index.
    pub(crate) fn take(&self, tables: &mut impl TablesMut) -> Result<(), TableError> {
        if let Some((name, validity)) = &self.validity {
            let mut value = self.mailbox.as_bytes().to_vec();
            value.extend(validity.value().to_be_bytes());
            tables.put(Table::PrivateUids, &name_key(name), &value)?;
            tables.put(Table::Meta, LAST_VALIDITY, &validity.value().to_be_bytes())?;
        }
        assign(tables, self.mailbox, self.first, &self.placements)
    }
}

/// Forgets under which UIDVALIDITYs mailboxes were shown: after a restore every one needs a new one, above `time`.
pub(crate) fn forget_names(tables: &mut impl TablesMut, time: i64) -> Result<(), TableError> {
    for (key, _) in tables.range(Table::PrivateUids, &[NAME], &[NAME + 1], usize::MAX)? {
        tables.remove(Table::PrivateUids, &key)?;
    }
    let now = u32::try_from(time).unwrap_or(u32::MAX - 1);
    tables.put(Table::Meta, LAST_VALIDITY, &now.to_be_bytes())
}

const LAST_VALIDITY: &[u8] = b"private uidvalidity";

fn name_key(name: &MailboxName) -> Vec<u8> {
    let mut key = vec![NAME];
    key.extend(name.as_str().as_bytes());
    key
}

/// The mailbox that an observer showed under a name last, and the UIDVALIDITY it had.
pub(crate) fn bound(
    tables: &impl Tables,
    name: &MailboxName,
) -> Result<Option<(MailboxId, UidValidity)>, TableError> {
    let read = |bytes: Vec<u8>| {
        let mailbox = MailboxId::from_slice(bytes.get(..16)?)?;
        Some((mailbox, UidValidity::new(u32::from_be_bytes(bytes.get(16..20)?.try_into().ok()?))?))
    };
    Ok(tables.get(Table::PrivateUids, &name_key(name))?.and_then(read))
}

fn waiting_key(mailbox: MailboxId, date: i64, placement: Placement) -> Vec<u8> {
    let mut key = vec![WAITING];
    key.extend(arrival_key(mailbox, date, placement));
    key
}

fn mailbox_prefix(kind: u8, mailbox: MailboxId) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend(mailbox.as_bytes());
    key
}

fn uid_key(mailbox: MailboxId, uid: Uid) -> Vec<u8> {
    let mut key = mailbox_prefix(UID, mailbox);
    key.extend(uid.value().to_be_bytes());
    key
}

fn back_key(placement: Placement) -> Vec<u8> {
    let mut key = vec![BACK];
    key.extend(placement.entry.as_bytes());
    key.extend(placement.nonce.0.to_be_bytes());
    key
}

fn uid_value(placement: Placement, gone: ModSeq) -> Vec<u8> {
    let mut value = placement.entry.as_bytes().to_vec();
    value.extend(placement.nonce.0.to_be_bytes());
    value.extend(gone.value().to_be_bytes());
    value
}

/// Keeps the private map when an entry moves, arrives or is expunged. Gives the UID that vanished.
pub(super) fn moved(
    tables: &mut impl TablesMut,
    entry: EntryId,
    old: &EntryRow,
    new: &EntryRow,
    modseq: ModSeq,
) -> Result<Option<(MailboxId, Uid)>, TableError> {
    let mut vanished = None;
    if let Some((mailbox, nonce)) = old.place {
        let placement = Placement { entry, nonce };
        tables.remove(Table::PrivateUids, &waiting_key(mailbox, old.internal_date, placement))?;
        tables.remove(Table::PrivateUids, &waiting_key(mailbox, new.internal_date, placement))?;
        if let Some(uid) = private_uid(tables, placement)? {
            // A stay that is over never gets this UID again, should a merge bring it back.
            tables.put(Table::PrivateUids, &uid_key(mailbox, uid), &uid_value(placement, modseq))?;
            tables.remove(Table::PrivateUids, &back_key(placement))?;
            vanished = Some((mailbox, uid));
        }
    }
    if let Some((mailbox, nonce)) = new.place {
        let placement = Placement { entry, nonce };
        tables.put(Table::PrivateUids, &waiting_key(mailbox, new.internal_date, placement), &[])?;
    }
    Ok(vanished)
}

/// Keeps a placement that waits in its place when its message gets another date.
pub(super) fn redated(
    tables: &mut impl TablesMut,
    mailbox: MailboxId,
    placement: Placement,
    old: i64,
    new: i64,
) -> Result<(), TableError> {
    let key = waiting_key(mailbox, old, placement);
    if tables.get(Table::PrivateUids, &key)?.is_some() {
        tables.remove(Table::PrivateUids, &key)?;
        tables.put(Table::PrivateUids, &waiting_key(mailbox, new, placement), &[])?;
    }
    Ok(())
}

/// The private UID of a placement, if it has one and is visible.
pub(crate) fn private_uid(tables: &impl Tables, placement: Placement) -> Result<Option<Uid>, TableError> {
    let value = tables.get(Table::PrivateUids, &back_key(placement))?;
    Ok(value.and_then(|bytes| bytes.try_into().ok()).and_then(|bytes| Uid::new(u32::from_be_bytes(bytes))))
}

/// The placements of a mailbox that wait for a private UID, in the order in which they get one, with the keys of their
/// rows.
fn waiting(
    tables: &impl Tables,
    mailbox: MailboxId,
    limit: usize,
) -> Result<Vec<(Vec<u8>, Placement)>, TableError> {
    let prefix = mailbox_prefix(WAITING, mailbox);
    let rows = tables.range(Table::PrivateUids, &prefix, &after(&prefix), limit)?;
    let read = |(key, _): (Vec<u8>, Vec<u8>)| {
        let placement = key_placement(Table::PrivateUids, &key[1..])?;
        Ok((key, placement))
    };
    rows.into_iter().map(read).collect()
}

/// Whether some placement waits.
pub(crate) fn waits(tables: &impl Tables, mailbox: MailboxId) -> Result<bool, TableError> {
    Ok(!waiting(tables, mailbox, 1)?.is_empty())
}

/// The private UIDNEXT of a mailbox.
pub(crate) fn next(tables: &impl Tables, mailbox: MailboxId) -> Result<u32, TableError> {
    let prefix = mailbox_prefix(UID, mailbox);
    let last = tables.last(Table::PrivateUids, &prefix, &after(&prefix))?;
    let last = last.and_then(|(key, _)| key.get(17..21)?.try_into().ok());
    Ok(last.map_or(1, |bytes| u32::from_be_bytes(bytes).saturating_add(1)))
}

/// Gives placements their private UIDs: `first` and the following. Those that do not wait any more are skipped, their
/// UIDs too. A log can name a placement again that has its UID: once, a row outlived a change of its message's date.
fn assign(
    tables: &mut impl TablesMut,
    mailbox: MailboxId,
    first: u32,
    placements: &[Placement],
) -> Result<(), TableError> {
    // By the keys they were listed with: a row that says something else than its message must go too.
    let named: BTreeSet<&Placement> = placements.iter().collect();
    for (key, placement) in waiting(tables, mailbox, placements.len())? {
        if named.contains(&placement) {
            tables.remove(Table::PrivateUids, &key)?;
        }
    }
    let mut changed: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (uid, placement) in (first..).zip(placements) {
        let Some(uid) = Uid::new(uid) else { continue };
        if private_uid(tables, *placement)?.is_some() {
            continue;
        }
        let row = tables.get(Table::Entries, placement.entry.as_bytes())?;
        let Some(row) = row.map(|bytes| EntryRow::decode(&bytes)).transpose()? else { continue };
        let here = row.place == Some((mailbox, placement.nonce));
        let gone = if here { ModSeq::default() } else { row.modseq };
        tables.put(Table::PrivateUids, &uid_key(mailbox, uid), &uid_value(*placement, gone))?;
        if here {
            tables.put(Table::PrivateUids, &back_key(*placement), &uid.value().to_be_bytes())?;
        }
        changed.entry(row.modseq.counter()).or_default().extend(uid.value().to_be_bytes());
    }
    // The message changed when it came, and nobody was shown the mailbox since.
    for (counter, uids) in changed {
        let mut key = space_key(mailbox, SPACE);
        key.extend(counter.to_be_bytes());
        let mut row = tables.get(Table::ModSeqs, &key)?.unwrap_or_default();
        row.extend(uids);
        tables.put(Table::ModSeqs, &key, &row)?;
    }
    Ok(())
}

/// The placements of a mailbox with their private UIDs from `from` on, ascending; vanished ones with when.
pub(crate) fn listed(
    tables: &impl Tables,
    mailbox: MailboxId,
    from: Uid,
    limit: usize,
) -> Result<Vec<(Uid, Placement, Option<ModSeq>)>, TableError> {
    let rows = tables.range(
        Table::PrivateUids,
        &uid_key(mailbox, from),
        &after(&mailbox_prefix(UID, mailbox)),
        limit,
    )?;
    let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let uid = Uid::new(u32::from_be_bytes(key.get(17..21)?.try_into().ok()?))?;
        let entry = EntryId::from_slice(value.get(..16)?)?;
        let nonce = Nonce(u64::from_be_bytes(value.get(16..24)?.try_into().ok()?));
        let gone = u64::from_be_bytes(value.get(24..32)?.try_into().ok()?);
        Some((uid, Placement { entry, nonce }, (gone > 0).then(|| ModSeq::from_value(gone))))
    };
    let damaged =
        || TableError("a row of table PrivateUids is damaged; `check --repair` rebuilds the index".into());
    rows.iter().map(|row| read(row).ok_or_else(damaged)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::BlobId;
    use crate::mailbox::{AccountId, Document, Message, ReplicaId};
    use crate::uid::{Account, Block, Grant, Imported, MemoryTables, Written};

    const TIME: i64 = 1000;

    fn replica(n: u8, grant: Option<Grant>) -> (Account, MemoryTables) {
        let doc = Document::new(ReplicaId::from_bytes([n; 16]));
        let account = Account::new(AccountId::from_bytes([1; 16]), doc, grant, Block::STANDARD, 7);
        let mut tables = MemoryTables::default();
        account.prepare(&mut tables).unwrap();
        (account, tables)
    }

    /// A server that is alone imports the one folder that all of them have, with a date of its own.
    fn imported(n: u8, grant: Grant, date: i64) -> Written {
        let (mut account, mut tables) = replica(n, Some(grant));
        let message = Message {
            blob: BlobId::of(b"one body"),
            internal_date: date,
            size: 8,
            keywords: BTreeSet::new(),
        };
        let folder = [Imported { message, occurrence: 0, uid: None }];
        account.import(&mut tables, TIME, MailboxId::inbox(), &folder, None).unwrap()
    }

    /// An observer that met the folder with a later date, then with an earlier one.
    fn observer() -> (Account, MemoryTables) {
        let (keep, give) = Grant::whole().split(&BTreeMap::new()).unwrap();
        let (mut account, mut tables) = replica(3, None);
        for written in [imported(1, keep, 20), imported(2, give, 10)] {
            for batch in written.batches {
                account.receive(&mut tables, batch).unwrap();
            }
        }
        (account, tables)
    }

    fn plan(account: &Account, tables: &MemoryTables) -> Option<PrivateUids> {
        account.plan_private(tables, TIME, MailboxId::inbox()).unwrap()
    }

    fn uids(tables: &MemoryTables) -> Vec<u32> {
        let listed = listed(tables, MailboxId::inbox(), Uid::FIRST, usize::MAX).unwrap();
        listed.into_iter().map(|(uid, ..)| uid.value()).collect()
    }

    #[test]
    fn a_message_that_two_folders_had_gets_one_private_uid() {
        let (account, mut tables) = observer();
        let uids_of_one = plan(&account, &tables).unwrap();
        account.take_private(&mut tables, &uids_of_one).unwrap();
        assert_eq!(plan(&account, &tables), None);
        assert_eq!(uids(&tables), [1]);
    }

    #[test]
    fn a_row_that_waits_under_a_date_of_the_past_is_passed_over_and_goes() {
        let (account, mut tables) = observer();
        let first = plan(&account, &tables).unwrap();
        account.take_private(&mut tables, &first).unwrap();
        let stale = waiting_key(MailboxId::inbox(), 20, first.placements[0]);
        tables.put(Table::PrivateUids, &stale, &[]).unwrap();
        let second = plan(&account, &tables).unwrap();
        account.take_private(&mut tables, &second).unwrap();
        assert_eq!(plan(&account, &tables), None);
        assert_eq!(uids(&tables), [1]);
    }

    #[test]
    fn a_log_that_gave_one_message_many_uids_is_read_back_with_the_first() {
        let (account, mut tables) = observer();
        let first = plan(&account, &tables).unwrap();
        for uid in 1..4 {
            let again = PrivateUids { first: uid, ..first.clone() };
            account.take_private(&mut tables, &again).unwrap();
        }
        assert_eq!(plan(&account, &tables), None);
        assert_eq!(uids(&tables), [1]);
    }
}
