//! One transaction: what it logs and what it changes in the index come into force together.
//!
//! A transaction reads a committed state and keeps its own writes in memory. So dropping it undoes
//! everything, a failed commit leaves the index untouched, and rows reach the database sorted.

use std::collections::BTreeMap;
use std::iter::Peekable;

use crate::mailbox::ReplicaId;
use crate::uid::{Row, Table, TableError, Tables, TablesMut};

use super::frame::{GroupWriter, Span};
use super::log::LogEnd;
use super::reader::{ChangeRow, Reader, rows};
use super::{Position, Store, StoreError};

/// Rows that a transaction set, or removed.
pub(crate) type Overlay = BTreeMap<Table, BTreeMap<Vec<u8>, Option<Vec<u8>>>>;

/// A change that came into the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logged {
    pub(crate) actor: ReplicaId,
    pub(crate) seq: u64,
    pub(crate) row: ChangeRow,
}

/// A group that is in the log already and is projected again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replayed {
    pub(crate) position: Position,
    pub(crate) start: LogEnd,
}

/// The only writer of a store. Dropped without a commit, it leaves no trace.
#[derive(Debug)]
pub struct Txn<'a> {
    store: &'a mut Store,
    base: Reader,
    pub(crate) rows: Overlay,
    pub(crate) group: GroupWriter,
    /// Offsets are relative to the group, except in a replay.
    pub(crate) changes: Vec<Logged>,
    logged: BTreeMap<[u8; 32], (ReplicaId, u64)>,
    by_seq: BTreeMap<(ReplicaId, u64), [u8; 32]>,
    /// The last number without a gap, of actors that changed.
    pub(crate) heads: BTreeMap<ReplicaId, u64>,
    pub(crate) replay: Option<(Vec<Replayed>, LogEnd)>,
}

impl<'a> Txn<'a> {
    pub(crate) fn new(store: &'a mut Store, base: Reader, position: Position) -> Txn<'a> {
        Txn {
            store,
            base,
            rows: Overlay::new(),
            group: GroupWriter::new(position),
            changes: Vec::new(),
            logged: BTreeMap::new(),
            by_seq: BTreeMap::new(),
            heads: BTreeMap::new(),
            replay: None,
        }
    }

    /// Logs a change, after the changes it depends on, with its author's signature if it came with one. False if it is in
    /// the log already.
    pub fn log_change(
        &mut self,
        actor: ReplicaId,
        seq: u64,
        hash: [u8; 32],
        bytes: &[u8],
        signature: Option<&[u8; 64]>,
    ) -> Result<bool, StoreError> {
        let held = match self.by_seq.get(&(actor, seq)) {
            Some(hash) => Some(*hash),
            None => self.base.change_row(actor, seq)?.map(|row| row.hash),
        };
        match held {
            Some(held) if held == hash => return Ok(false),
            Some(_) => return Err(StoreError::Fork { actor, seq }),
            None => {}
        }
        let expected = self.last_seq(actor)? + 1;
        if seq != expected {
            return Err(StoreError::Gap { actor, seq, expected });
        }
        let span = self.group.change(actor, seq, &hash, bytes, signature)?;
        self.note(actor, seq, ChangeRow { segment: 0, span, hash })?;
        Ok(true)
    }

    /// Logs truth that is not shared. The store does not look into it; a replay gives it back.
    pub fn log_local(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.group.local(bytes).map(drop)
    }

    /// Bytes in this transaction's group so far; a group is limited to 64 MiB.
    pub fn logged_bytes(&self) -> usize {
        self.group.len()
    }

    /// The last change of an actor up to which none is missing, with those logged here; 0 if there is none.
    pub fn last_seq(&self, actor: ReplicaId) -> Result<u64, StoreError> {
        match self.heads.get(&actor) {
            Some(seq) => Ok(*seq),
            None => self.base.last_seq(actor),
        }
    }

    /// Whether the change is in the log or was logged here.
    pub fn has_change(&self, hash: &[u8; 32]) -> Result<bool, StoreError> {
        Ok(self.logged.contains_key(hash) || self.base.has_change(hash)?)
    }

    /// The state that the transaction began with.
    pub fn base(&self) -> &Reader {
        &self.base
    }

    /// Makes everything durable, bodies first, and gives the position of the log.
    ///
    /// Rows of a transaction that logged nothing come into force too, but only with the next durable commit
    /// do they survive a power cut: they are a cache. After an error either nothing happened, or the store
    /// is [`StoreError::Poisoned`] and tells the truth when it is opened again.
    pub fn commit(self) -> Result<Position, StoreError> {
        let Txn { store, rows, group, changes, heads, replay, .. } = self;
        store.commit(Commit { rows, group, changes, heads, replay })
    }

    /// Takes up a change that is in the log already.
    pub(crate) fn replay_change(
        &mut self,
        actor: ReplicaId,
        seq: u64,
        row: ChangeRow,
    ) -> Result<(), StoreError> {
        self.note(actor, seq, row)
    }

    /// The number moves over changes that are here already: those behind a gap that is now filled.
    fn note(&mut self, actor: ReplicaId, seq: u64, row: ChangeRow) -> Result<(), StoreError> {
        let mut last = self.last_seq(actor)?;
        self.logged.insert(row.hash, (actor, seq));
        self.by_seq.insert((actor, seq), row.hash);
        self.changes.push(Logged { actor, seq, row });
        while self.by_seq.contains_key(&(actor, last + 1)) || self.base.change_row(actor, last + 1)?.is_some()
        {
            last += 1;
        }
        self.heads.insert(actor, last);
        Ok(())
    }
}

/// What a transaction asks the store to do.
pub(crate) struct Commit {
    pub(crate) rows: Overlay,
    pub(crate) group: GroupWriter,
    pub(crate) changes: Vec<Logged>,
    pub(crate) heads: BTreeMap<ReplicaId, u64>,
    pub(crate) replay: Option<(Vec<Replayed>, LogEnd)>,
}

impl Commit {
    /// How much it writes into the index, roughly: what its keys and values have together.
    pub(crate) fn row_bytes(&self) -> u64 {
        let row = |(key, value): (&Vec<u8>, &Option<Vec<u8>>)| key.len() + value.as_ref().map_or(0, Vec::len);
        let rows: usize = self.rows.values().flatten().map(row).sum();
        // A change has a row by its number and one by its hash.
        (rows + self.changes.len() * 128) as u64
    }

    /// Gives relative places their segment and offset.
    pub(crate) fn placed(&mut self, start: LogEnd) {
        for change in &mut self.changes {
            let span = change.row.span;
            change.row.segment = start.segment;
            change.row.span = Span { offset: start.offset + span.offset, ..span };
        }
    }
}

impl Tables for Txn<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        match self.rows.get(&table).and_then(|rows| rows.get(key)) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(table, key),
        }
    }

    fn range(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, TableError> {
        if !to.is_empty() && from >= to {
            return Ok(Vec::new());
        }
        let base = rows(self.base.table(table)?, from, to)?.peekable();
        let merged = Merged { base, over: self.over(table, from, to).peekable(), ascending: true };
        merged.take(limit).collect()
    }

    fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, TableError> {
        if !to.is_empty() && from >= to {
            return Ok(None);
        }
        let base = rows(self.base.table(table)?, from, to)?.rev().peekable();
        Merged { base, over: self.over(table, from, to).rev().peekable(), ascending: false }
            .next()
            .transpose()
    }
}

impl TablesMut for Txn<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), TableError> {
        self.rows.entry(table).or_default().insert(key.to_vec(), Some(value.to_vec()));
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), TableError> {
        self.rows.entry(table).or_default().insert(key.to_vec(), None);
        Ok(())
    }
}

type Over<'a> = (&'a Vec<u8>, &'a Option<Vec<u8>>);

impl Txn<'_> {
    fn over(&self, table: Table, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = Over<'_>> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let end = if to.is_empty() { Unbounded } else { Excluded(to) };
        self.rows.get(&table).into_iter().flat_map(move |rows| rows.range::<[u8], _>((Included(from), end)))
    }
}

/// Two sorted sources as one; the transaction's own rows hide those below.
struct Merged<B: Iterator, O: Iterator> {
    base: Peekable<B>,
    over: Peekable<O>,
    ascending: bool,
}

impl<'a, B, O> Iterator for Merged<B, O>
where
    B: Iterator<Item = Result<Row, TableError>>,
    O: Iterator<Item = Over<'a>>,
{
    type Item = Result<Row, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        use std::cmp::Ordering::{Equal, Greater, Less};
        loop {
            let order = match (self.base.peek(), self.over.peek()) {
                (Some(Err(_)), _) | (Some(_), None) => Less,
                (None, None) => return None,
                (None, Some(_)) => Greater,
                (Some(Ok((base, _))), Some((over, _))) if self.ascending => base.cmp(over),
                (Some(Ok((base, _))), Some((over, _))) => (*over).cmp(base),
            };
            if order == Less {
                return self.base.next();
            }
            if order == Equal {
                self.base.next();
            }
            if let (key, Some(value)) = self.over.next()? {
                return Some(Ok((key.clone(), value.clone())));
            }
        }
    }
}
