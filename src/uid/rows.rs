//! The rows of the index and their keys. Numbers in keys are big-endian, so that rows stand in their order.

use std::collections::{BTreeMap, BTreeSet};

use super::tables::{Table, TableError, TablesMut};
use crate::blob::BlobId;
use crate::bytes::{Reader, put_number, put_signed};
use crate::mailbox::{
    EntryId, Keyword, MailboxId, MailboxName, ModSeq, Nonce, PackId, Placement, SpecialUse, Uid, UidValidity,
};

/// A claim of a UID for one stay of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) mailbox: MailboxId,
    pub(crate) nonce: Nonce,
    pub(crate) epoch: u32,
    pub(crate) uid: Uid,
}

/// What is known of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryRow {
    /// The first pack seen with it, and its number there: claims name runs of a pack.
    pub(crate) pack: PackId,
    pub(crate) index: u32,
    /// The mailbox that its pack placed it in.
    pub(crate) home: MailboxId,
    pub(crate) blob: BlobId,
    pub(crate) internal_date: i64,
    /// When its pack was added, and when each stay that a move made began: by the clocks of those who did it.
    pub(crate) arrived: i64,
    pub(crate) stays: BTreeMap<Nonce, i64>,
    pub(crate) size: u64,
    pub(crate) keywords: BTreeSet<Keyword>,
    /// Where it is visible now.
    pub(crate) place: Option<(MailboxId, Nonce)>,
    /// The claim under which it is shown there.
    pub(crate) shown: Option<(u32, Uid)>,
    /// Its claims that are not burned, in any of its stays.
    pub(crate) claims: Vec<Claim>,
    /// When something a client can see of it changed last.
    pub(crate) modseq: ModSeq,
}

/// A UID that somebody claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UidRow {
    pub(crate) placement: Placement,
    /// Another placement claims it too (rule 3a).
    pub(crate) contested: bool,
    /// Some run spans it without holding this claim (rule 3b).
    pub(crate) spanned: bool,
    /// A record burned it (rule 3c).
    pub(crate) recorded: bool,
    /// How many runs hold the claim below their high.
    pub(crate) inside: u32,
    /// Since when it is known here and not shown; nothing exactly while it is shown.
    pub(crate) gone: Option<ModSeq>,
}

impl UidRow {
    pub(crate) fn is_burned(&self) -> bool {
        self.contested || self.spanned || self.recorded
    }

    /// Of a UID that was burned before anybody was known to claim it.
    pub(crate) fn unclaimed(gone: ModSeq) -> UidRow {
        let placement = Placement { entry: EntryId::from_bytes([0; 16]), nonce: Nonce::INITIAL };
        UidRow { placement, contested: false, spanned: false, recorded: true, inside: 0, gone: Some(gone) }
    }

    /// The message that claimed it, if one is known.
    pub(crate) fn claimant(&self) -> Option<EntryId> {
        Some(self.placement.entry).filter(|entry| entry.as_bytes() != &[0; 16])
    }
}

/// A mailbox as this replica has it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct MailboxRow {
    /// The name the document gives it; nothing for a mailbox that nobody made.
    pub(crate) name: Option<MailboxName>,
    /// The name it is shown under: another one if two mailboxes have the same. Nothing while it is not shown.
    pub(crate) display: Option<MailboxName>,
    pub(crate) subscribed: bool,
    pub(crate) special_use: Option<SpecialUse>,
    pub(crate) deleted: bool,
    pub(crate) incarnation: u32,
    pub(crate) epoch: u32,
    pub(crate) adopted: BTreeSet<UidValidity>,
    /// The epoch that a server must raise it to before it is shown.
    pub(crate) raise_to: Option<u32>,
    pub(crate) messages: u64,
    pub(crate) unseen: u64,
    /// How many of the messages are marked `\Deleted`.
    pub(crate) marked: u64,
    /// Bytes of all messages.
    pub(crate) bytes: u64,
    pub(crate) highest_modseq: ModSeq,
}

/// Who bears a name, and the highest UIDVALIDITY that was ever shown with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameRow {
    pub(crate) mailbox: MailboxId,
    pub(crate) validity: UidValidity,
}

fn damaged(table: Table) -> TableError {
    TableError(format!("a row of table {table:?} is damaged; `check --repair` rebuilds the index"))
}

fn put_keywords(out: &mut Vec<u8>, keywords: &BTreeSet<Keyword>) {
    put_number(out, keywords.len() as u64);
    for keyword in keywords {
        put_text(out, keyword.as_str());
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend(text.as_bytes());
}

fn text<'a>(reader: &mut Reader<'a>) -> Option<&'a str> {
    let len = usize::try_from(reader.number()?).ok()?;
    std::str::from_utf8(reader.take(len)?).ok()
}

fn uid(reader: &mut Reader<'_>) -> Option<Uid> {
    Uid::new(reader.number32()?)
}

impl EntryRow {
    /// When the stay in which it is visible now began.
    pub(crate) fn saved(&self) -> i64 {
        let moved = self.place.and_then(|(_, nonce)| self.stays.get(&nonce));
        moved.copied().unwrap_or(self.arrived)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.extend(self.pack.as_bytes());
        put_number(&mut out, self.index.into());
        out.extend(self.home.as_bytes());
        out.extend(self.blob.as_bytes());
        put_signed(&mut out, self.internal_date);
        put_number(&mut out, self.size);
        put_keywords(&mut out, &self.keywords);
        put_number(&mut out, self.modseq.value());
        match self.place {
            None => out.push(0),
            // Most entries stay at home; the mailbox is written only for the others.
            Some((mailbox, nonce)) => {
                out.push(if mailbox == self.home { 1 } else { 2 });
                if mailbox != self.home {
                    out.extend(mailbox.as_bytes());
                }
                put_number(&mut out, nonce.0);
            }
        }
        let (epoch, shown) = self.shown.map_or((0, 0), |(epoch, uid)| (epoch, uid.value()));
        put_number(&mut out, shown.into());
        put_number(&mut out, epoch.into());
        put_signed(&mut out, self.arrived);
        put_number(&mut out, self.stays.len() as u64);
        for (nonce, began) in &self.stays {
            put_number(&mut out, nonce.0);
            put_signed(&mut out, *began);
        }
        for claim in &self.claims {
            let elsewhere = claim.mailbox != self.home;
            out.push(if elsewhere { 2 } else { 1 });
            if elsewhere {
                out.extend(claim.mailbox.as_bytes());
            }
            put_number(&mut out, claim.nonce.0);
            put_number(&mut out, claim.epoch.into());
            put_number(&mut out, claim.uid.value().into());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<EntryRow, TableError> {
        EntryRow::read(&mut Reader(bytes)).ok_or_else(|| damaged(Table::Entries))
    }

    fn read(reader: &mut Reader<'_>) -> Option<EntryRow> {
        let pack = PackId::from_bytes(reader.array()?);
        let index = reader.number32()?;
        let home = MailboxId::from_bytes(reader.array()?);
        let blob = BlobId::from_bytes(reader.array()?);
        let internal_date = reader.signed()?;
        let size = reader.number()?;
        let mut keywords = BTreeSet::new();
        for _ in 0..reader.number()? {
            keywords.insert(text(reader)?.parse().ok()?);
        }
        let modseq = ModSeq::from_value(reader.number()?);
        let mailbox = |reader: &mut Reader<'_>, tag| match tag {
            1 => Some(home),
            2 => Some(MailboxId::from_bytes(reader.array()?)),
            _ => None,
        };
        let place = match reader.byte()? {
            0 => None,
            tag => Some((mailbox(reader, tag)?, Nonce(reader.number()?))),
        };
        let shown = Uid::new(reader.number32()?);
        let epoch = reader.number32()?;
        let arrived = reader.signed()?;
        let mut stays = BTreeMap::new();
        for _ in 0..reader.number()? {
            stays.insert(Nonce(reader.number()?), reader.signed()?);
        }
        let mut claims = Vec::new();
        while !reader.is_empty() {
            let tag = reader.byte()?;
            claims.push(Claim {
                mailbox: mailbox(reader, tag)?,
                nonce: Nonce(reader.number()?),
                epoch: reader.number32()?,
                uid: uid(reader)?,
            });
        }
        let shown = shown.map(|uid| (epoch, uid));
        Some(EntryRow {
            pack,
            index,
            home,
            blob,
            internal_date,
            arrived,
            stays,
            size,
            keywords,
            place,
            shown,
            claims,
            modseq,
        })
    }
}

impl UidRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        let flag = |set: bool, bit: u8| u8::from(set) << bit;
        out.push(flag(self.contested, 0) | flag(self.spanned, 1) | flag(self.recorded, 2));
        out.extend(self.placement.entry.as_bytes());
        put_number(&mut out, self.placement.nonce.0);
        put_number(&mut out, self.inside.into());
        put_number(&mut out, self.gone.map_or(0, ModSeq::value));
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<UidRow, TableError> {
        UidRow::read(&mut Reader(bytes)).ok_or_else(|| damaged(Table::Uids))
    }

    fn read(reader: &mut Reader<'_>) -> Option<UidRow> {
        let flags = reader.byte()?;
        Some(UidRow {
            placement: Placement {
                entry: EntryId::from_bytes(reader.array()?),
                nonce: Nonce(reader.number()?),
            },
            contested: flags & 1 != 0,
            spanned: flags & 2 != 0,
            recorded: flags & 4 != 0,
            inside: reader.number32()?,
            gone: match reader.number()? {
                0 => None,
                value => Some(ModSeq::from_value(value)),
            },
        })
    }
}

impl MailboxRow {
    /// Writes the row, and whether the mailbox waits for its epoch or its name.
    pub(crate) fn put(&self, tables: &mut impl TablesMut, id: MailboxId) -> Result<(), TableError> {
        tables.put(Table::Mailboxes, id.as_bytes(), &self.encode())?;
        let waits = self.raise_to.is_some() || self.marked_name().is_some();
        match (tables.get(Table::Pending, id.as_bytes())?.is_some(), waits) {
            (false, true) => tables.put(Table::Pending, id.as_bytes(), &[]),
            (true, false) => tables.remove(Table::Pending, id.as_bytes()),
            _ => Ok(()),
        }
    }

    /// The name it is shown under, where that is not the one it has.
    pub(crate) fn marked_name(&self) -> Option<&MailboxName> {
        self.display.as_ref().filter(|display| self.name.as_ref() != Some(*display))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let name = |name: &Option<MailboxName>| name.as_ref().map_or("", |name| name.as_str()).to_owned();
        put_text(&mut out, &name(&self.name));
        put_text(&mut out, &name(&self.display));
        put_text(&mut out, self.special_use.map_or("", SpecialUse::name));
        out.push(u8::from(self.subscribed) | u8::from(self.deleted) << 1);
        put_number(&mut out, self.incarnation.into());
        put_number(&mut out, self.epoch.into());
        put_number(&mut out, self.raise_to.unwrap_or(0).into());
        put_number(&mut out, self.messages);
        put_number(&mut out, self.unseen);
        put_number(&mut out, self.marked);
        put_number(&mut out, self.bytes);
        put_number(&mut out, self.highest_modseq.value());
        for validity in &self.adopted {
            put_number(&mut out, validity.value().into());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<MailboxRow, TableError> {
        MailboxRow::read(&mut Reader(bytes)).ok_or_else(|| damaged(Table::Mailboxes))
    }

    fn read(reader: &mut Reader<'_>) -> Option<MailboxRow> {
        let name = |reader: &mut Reader<'_>| match text(reader)? {
            "" => Some(None),
            name => Some(Some(name.parse().ok()?)),
        };
        let mut row = MailboxRow { name: name(reader)?, display: name(reader)?, ..MailboxRow::default() };
        row.special_use = SpecialUse::from_name(text(reader)?);
        let flags = reader.byte()?;
        row.subscribed = flags & 1 != 0;
        row.deleted = flags & 2 != 0;
        row.incarnation = reader.number32()?;
        row.epoch = reader.number32()?;
        row.raise_to = Some(reader.number32()?).filter(|epoch| *epoch > 0);
        row.messages = reader.number()?;
        row.unseen = reader.number()?;
        row.marked = reader.number()?;
        row.bytes = reader.number()?;
        row.highest_modseq = ModSeq::from_value(reader.number()?);
        while !reader.is_empty() {
            row.adopted.insert(UidValidity::new(reader.number32()?)?);
        }
        Some(row)
    }
}

impl NameRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.mailbox.as_bytes().to_vec();
        put_number(&mut out, self.validity.value().into());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<NameRow, TableError> {
        let mut reader = Reader(bytes);
        let mut read = || {
            let mailbox = MailboxId::from_bytes(reader.array()?);
            Some(NameRow { mailbox, validity: UidValidity::new(reader.number32()?)? })
        };
        read().ok_or_else(|| damaged(Table::Names))
    }
}

/// Mailbox and epoch: the start of all keys of one UID space.
pub(crate) fn space_key(mailbox: MailboxId, epoch: u32) -> Vec<u8> {
    let mut key = mailbox.as_bytes().to_vec();
    key.extend(epoch.to_be_bytes());
    key
}

/// Mailbox, epoch and UID, or where the UIDs from `uid` on start.
pub(crate) fn uid_key(mailbox: MailboxId, epoch: u32, uid: u32) -> Vec<u8> {
    let mut key = space_key(mailbox, epoch);
    key.extend(uid.to_be_bytes());
    key
}

/// The UID at the end of a key.
pub(crate) fn key_uid(table: Table, key: &[u8]) -> Result<Uid, TableError> {
    let tail = key.get(20..24).and_then(|tail| tail.try_into().ok());
    tail.and_then(|tail| Uid::new(u32::from_be_bytes(tail))).ok_or_else(|| damaged(table))
}

/// Mailbox, internal date, entry and nonce: the order in which UIDs are given.
pub(crate) fn arrival_key(mailbox: MailboxId, internal_date: i64, placement: Placement) -> Vec<u8> {
    let mut key = mailbox.as_bytes().to_vec();
    key.extend((internal_date as u64 ^ 1 << 63).to_be_bytes());
    key.extend(placement.entry.as_bytes());
    key.extend(placement.nonce.0.to_be_bytes());
    key
}

/// The placement at the end of an arrival's key.
pub(crate) fn key_placement(table: Table, key: &[u8]) -> Result<Placement, TableError> {
    let read = || {
        let entry = EntryId::from_slice(key.get(24..40)?)?;
        Some(Placement { entry, nonce: Nonce(u64::from_be_bytes(key.get(40..48)?.try_into().ok()?)) })
    };
    read().ok_or_else(|| damaged(table))
}

/// The smallest key above every key that starts with `prefix`.
pub(crate) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        let (home, other) = (MailboxId::from_bytes([1; 16]), MailboxId::from_bytes([2; 16]));
        let row = EntryRow {
            pack: PackId::from_bytes([3; 16]),
            index: 9,
            home,
            blob: BlobId::of(b"x"),
            internal_date: -5,
            arrived: 6,
            stays: [(Nonce(77), -7), (Nonce(1), i64::MIN)].into(),
            size: 70_000,
            keywords: [Keyword::seen(), Keyword::deleted()].into(),
            place: Some((other, Nonce(77))),
            shown: Some((2, Uid::FIRST)),
            claims: vec![
                Claim { mailbox: home, nonce: Nonce::INITIAL, epoch: 0, uid: Uid::FIRST },
                Claim { mailbox: other, nonce: Nonce(77), epoch: 2, uid: Uid::new(900).unwrap() },
            ],
            modseq: ModSeq::new(5, 6),
        };
        assert_eq!(EntryRow::decode(&row.encode()).unwrap(), row);
        assert_eq!(row.saved(), -7);
        let row = EntryRow { place: None, shown: None, claims: vec![], ..row };
        assert_eq!(row.saved(), 6, "a stay that began with the pack began when it was added");
        assert_eq!(EntryRow::decode(&row.encode()).unwrap(), row);
        let mailbox = MailboxRow {
            name: Some(MailboxName::inbox()),
            special_use: Some(SpecialUse::Sent),
            deleted: true,
            adopted: [UidValidity::new(5).unwrap()].into(),
            raise_to: Some(4),
            messages: 7,
            marked: 3,
            bytes: 70_000,
            ..MailboxRow::default()
        };
        assert_eq!(MailboxRow::decode(&mailbox.encode()).unwrap(), mailbox);
    }

    #[test]
    fn arrivals_stand_in_order_of_date() {
        let placement = Placement { entry: EntryId::from_bytes([9; 16]), nonce: Nonce(4) };
        let key = |date| arrival_key(MailboxId::inbox(), date, placement);
        assert!(key(-1) < key(0) && key(0) < key(i64::MAX));
        assert_eq!(key_placement(Table::Unclaimed, &key(3)).unwrap(), placement);
        assert_eq!(after(&[1, 255]), vec![2]);
    }
}
