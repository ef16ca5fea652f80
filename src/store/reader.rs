//! Reads one committed state of the index, and the changes in the log that belong to it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, OnceLock};

use data_encoding::HEXLOWER;
use redb::ReadableTable;

use crate::mailbox::ReplicaId;
use crate::uid::{Row, Table, TableError, Tables};

use super::frame::{Change, Group, Record, Span};
use super::index::{
    ACTORS, BODIES, CHANGES, Definition, GROUPS, HASHES, Index, IndexState, OpenTable, definition_of, failed,
};
use super::log::{LogEnd, LogFiles};
use super::pack::PackEnd;
use super::{Position, StoreError};

/// Sees the store as one commit left it, whatever is written later. Clones are cheap. While one lives, the
/// database keeps the pages it sees and the store stays locked.
#[derive(Clone)]
pub struct Reader(Arc<Inner>);

struct Inner {
    read: redb::ReadTransaction,
    tables: Vec<Lazy>,
    changes: Lazy,
    hashes: Lazy,
    actors: Lazy,
    groups: Lazy,
    bodies: Lazy,
    state: IndexState,
    log: Arc<LogFiles>,
    _index: Arc<Index>,
}

/// A table that is opened when it is first read: most readers read two or three, and opening one costs as much as a look-up.
struct Lazy {
    definition: Definition,
    table: OnceLock<OpenTable>,
}

impl Lazy {
    fn new(definition: Definition) -> Lazy {
        Lazy { definition, table: OnceLock::new() }
    }

    fn open(&self, read: &redb::ReadTransaction) -> Result<&OpenTable, TableError> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let table = read.open_table(self.definition).map_err(failed)?;
        Ok(self.table.get_or_init(|| table))
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("position", &self.position()).finish_non_exhaustive()
    }
}

impl Reader {
    pub(crate) fn new(index: &Arc<Index>, log: &Arc<LogFiles>) -> Result<Reader, TableError> {
        let read = index.read()?;
        Ok(Reader(Arc::new(Inner {
            tables: Table::ALL.iter().map(|table| Lazy::new(definition_of(*table))).collect(),
            changes: Lazy::new(CHANGES),
            hashes: Lazy::new(HASHES),
            actors: Lazy::new(ACTORS),
            groups: Lazy::new(GROUPS),
            bodies: Lazy::new(BODIES),
            state: index.state(&read)?,
            read,
            log: Arc::clone(log),
            _index: Arc::clone(index),
        })))
    }

    /// The last group that this state holds.
    pub fn position(&self) -> Position {
        self.0.state.log.position
    }

    /// The last change of an actor up to which none is missing; 0 if there is none.
    pub fn last_seq(&self, actor: ReplicaId) -> Result<u64, StoreError> {
        let row = self.open(&self.0.actors)?.get(actor.as_bytes().as_slice()).map_err(failed)?;
        Ok(row.map_or(0, |row| decode_seq(row.value())))
    }

    /// The last change of every actor, in order of the actors.
    pub fn vector(&self) -> Result<BTreeMap<ReplicaId, u64>, StoreError> {
        let mut vector = self.actors()?;
        vector.retain(|_, seq| *seq > 0);
        Ok(vector)
    }

    /// Whether the change is in the log.
    pub fn has_change(&self, hash: &[u8; 32]) -> Result<bool, StoreError> {
        Ok(self.open(&self.0.hashes)?.get(hash.as_slice()).map_err(failed)?.is_some())
    }

    /// Which change bears a hash.
    pub fn change_of(&self, hash: &[u8; 32]) -> Result<Option<(ReplicaId, u64)>, StoreError> {
        let row = self.open(&self.0.hashes)?.get(hash.as_slice()).map_err(failed)?;
        Ok(row.and_then(|row| decode_change_key(row.value())))
    }

    /// The first `limit` changes whose hash starts with these hexadecimal digits; none if there are no digits, or others.
    pub fn changes_named(&self, digits: &str, limit: usize) -> Result<Vec<(ReplicaId, u64)>, StoreError> {
        let digits = digits.to_ascii_lowercase();
        let bound = |fill: &str| {
            let padded = format!("{digits}{}", fill.repeat(64usize.saturating_sub(digits.len())));
            HEXLOWER.decode(padded.as_bytes()).ok().filter(|bytes| bytes.len() == 32)
        };
        let (Some(from), Some(to), false) = (bound("0"), bound("f"), digits.is_empty()) else {
            return Ok(Vec::new());
        };
        let named = self.open(&self.0.hashes)?.range(from.as_slice()..=to.as_slice()).map_err(failed)?;
        let mut found = Vec::new();
        for row in named.take(limit) {
            found.extend(decode_change_key(row.map_err(failed)?.1.value()));
        }
        Ok(found)
    }

    /// One change, verbatim.
    pub fn change(&self, actor: ReplicaId, seq: u64) -> Result<Option<Change>, StoreError> {
        let Some(row) = self.change_row(actor, seq)? else { return Ok(None) };
        self.0.log.change(row.segment, row.span).map(Some)
    }

    /// The changes that `vector` lacks, each after those it depends on, at a cost of O(missing).
    ///
    /// The order is that of the log. Where a repair had to cut a change out and it was fetched again, it
    /// comes after changes that depend on it.
    pub fn missing(&self, vector: &BTreeMap<ReplicaId, u64>) -> Result<Missing, StoreError> {
        let mut missing = Missing { reader: self.clone(), next: BinaryHeap::new() };
        for actor in self.actors()?.into_keys() {
            missing.push_after(actor, vector.get(&actor).copied().unwrap_or(0))?;
        }
        Ok(missing)
    }

    /// The groups after `position`, up to what this reader sees.
    pub fn groups_after(&self, position: Position) -> Result<Groups, StoreError> {
        let until = self.0.state.log;
        let mut at = until;
        if position < until.position {
            let key = position.next().0.to_be_bytes();
            let row = self.open(&self.0.groups)?.get(key.as_slice()).map_err(failed)?;
            let place = row.and_then(|row| decode_place(row.value()));
            let (segment, offset) =
                place.ok_or_else(|| failed(format!("group {position} is not in the index")))?;
            at = LogEnd { position, segment, offset };
        }
        Ok(Groups { log: Arc::clone(&self.0.log), at, until })
    }

    /// The changes in the groups after `position`: the tail behind a snapshot.
    pub fn changes_after(
        &self,
        position: Position,
    ) -> Result<impl Iterator<Item = Result<Change, StoreError>> + use<>, StoreError> {
        let groups = self.groups_after(position)?;
        Ok(groups.flat_map(|group| {
            let (records, error) = match group {
                Ok(group) => (group.records, None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            let changes = records.into_iter().filter_map(|record| match record {
                Record::Change(change) => Some(Ok(change)),
                Record::Local(_) | Record::Lost => None,
            });
            changes.chain(error)
        }))
    }

    /// The end of the packs as the index knows them.
    pub(crate) fn packs(&self) -> PackEnd {
        self.0.state.packs
    }

    /// The rows of small bodies.
    pub(crate) fn body_rows(&self) -> Result<&OpenTable, TableError> {
        self.open(&self.0.bodies)
    }

    fn open<'a>(&'a self, table: &'a Lazy) -> Result<&'a OpenTable, TableError> {
        table.open(&self.0.read)
    }

    /// Every actor, also one whose first change is missing.
    pub(crate) fn actors(&self) -> Result<BTreeMap<ReplicaId, u64>, StoreError> {
        let mut actors = BTreeMap::new();
        for row in self.open(&self.0.actors)?.iter().map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            actors.extend(ReplicaId::from_slice(key.value()).map(|actor| (actor, decode_seq(value.value()))));
        }
        Ok(actors)
    }

    pub(crate) fn change_row(&self, actor: ReplicaId, seq: u64) -> Result<Option<ChangeRow>, StoreError> {
        let row = self.open(&self.0.changes)?.get(change_key(actor, seq).as_slice()).map_err(failed)?;
        Ok(row.and_then(|row| ChangeRow::decode(row.value())))
    }

    pub(crate) fn table(&self, table: Table) -> Result<&OpenTable, TableError> {
        let place = Table::ALL.iter().position(|one| *one == table).expect("ALL names every table");
        self.open(&self.0.tables[place])
    }
}

impl Tables for Reader {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        Ok(self.table(table)?.get(key).map_err(failed)?.map(|row| row.value().to_vec()))
    }

    fn range(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, TableError> {
        rows(self.table(table)?, from, to)?.take(limit).collect()
    }

    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, TableError> {
        rows(self.table(table)?, from, to)?.next_back().transpose()
    }
}

/// The rows with `from` ≤ key < `to`; an empty `to` means the end of the table.
pub(crate) fn rows<'a>(
    table: &'a OpenTable,
    from: &[u8],
    to: &[u8],
) -> Result<impl DoubleEndedIterator<Item = Result<Row, TableError>> + use<'a>, TableError> {
    let range =
        if to.is_empty() { table.range::<&[u8]>(from..) } else { table.range::<&[u8]>(from.min(to)..to) };
    Ok(range.map_err(failed)?.map(|row| {
        let (key, value) = row.map_err(failed)?;
        Ok((key.value().to_vec(), value.value().to_vec()))
    }))
}

/// Iterates over changes that somebody lacks, in the order of the log.
#[derive(Debug)]
pub struct Missing {
    reader: Reader,
    /// The next change of each actor, by its place in the log.
    next: BinaryHeap<Reverse<Next>>,
}

/// A change to give, ordered by its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Next {
    segment: u32,
    offset: u64,
    length: u32,
    actor: ReplicaId,
    seq: u64,
}

impl Missing {
    fn push_after(&mut self, actor: ReplicaId, seq: u64) -> Result<(), StoreError> {
        let Some(from) = seq.checked_add(1).map(|seq| change_key(actor, seq)) else { return Ok(()) };
        let to = change_key(actor, u64::MAX);
        let found = rows(self.reader.open(&self.reader.0.changes)?, &from, &to)?.next().transpose()?;
        if let Some((key, value)) = found
            && let (Some((_, seq)), Some(row)) = (decode_change_key(&key), ChangeRow::decode(&value))
        {
            let Span { offset, length } = row.span;
            self.next.push(Reverse(Next { segment: row.segment, offset, length, actor, seq }));
        }
        Ok(())
    }
}

impl Iterator for Missing {
    type Item = Result<Change, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse(Next { segment, offset, length, actor, seq }) = self.next.pop()?;
        if let Err(error) = self.push_after(actor, seq) {
            return Some(Err(error));
        }
        Some(self.reader.0.log.change(segment, Span { offset, length }))
    }
}

/// Iterates over groups of the log; ends after an error.
#[derive(Debug)]
pub struct Groups {
    log: Arc<LogFiles>,
    at: LogEnd,
    until: LogEnd,
}

impl Iterator for Groups {
    type Item = Result<Group, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.log.next(self.at, self.until) {
            Ok(found) => found.map(|(end, read)| {
                self.at = end;
                Ok(read.group)
            }),
            Err(error) => {
                self.at = self.until;
                Some(Err(error))
            }
        }
    }
}

/// Where a change is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChangeRow {
    pub(crate) segment: u32,
    pub(crate) span: Span,
    pub(crate) hash: [u8; 32],
}

impl ChangeRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = place(self.segment, self.span.offset).to_vec();
        out.extend_from_slice(&self.span.length.to_le_bytes());
        out.extend_from_slice(&self.hash);
        out
    }

    fn decode(bytes: &[u8]) -> Option<ChangeRow> {
        let bytes: &[u8; 48] = bytes.try_into().ok()?;
        let (segment, offset) = decode_place(&bytes[..12])?;
        let length = u32::from_le_bytes(bytes[12..16].try_into().ok()?);
        Some(ChangeRow { segment, span: Span { offset, length }, hash: bytes[16..].try_into().ok()? })
    }
}

pub(crate) fn change_key(actor: ReplicaId, seq: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(actor.as_bytes());
    key[16..].copy_from_slice(&seq.to_be_bytes());
    key
}

fn decode_change_key(key: &[u8]) -> Option<(ReplicaId, u64)> {
    let (actor, seq) = key.split_at_checked(16)?;
    Some((ReplicaId::from_slice(actor)?, u64::from_be_bytes(seq.try_into().ok()?)))
}

pub(crate) fn place(segment: u32, offset: u64) -> [u8; 12] {
    let mut out = [0; 12];
    out[..4].copy_from_slice(&segment.to_le_bytes());
    out[4..].copy_from_slice(&offset.to_le_bytes());
    out
}

fn decode_place(bytes: &[u8]) -> Option<(u32, u64)> {
    let (segment, offset) = bytes.split_at_checked(4)?;
    Some((u32::from_le_bytes(segment.try_into().ok()?), u64::from_le_bytes(offset.try_into().ok()?)))
}

fn decode_seq(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}
