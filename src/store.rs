//! What a replica keeps on disk: the log of changes, message bodies, snapshots and the index.
//!
//! The log is the truth, and its fsync is the commit point. Bodies are durable before a commit that may
//! refer to them. The index is a projection of the log at some position and is rebuilt by replaying groups,
//! as after a power cut; the snapshot only saves time. The store knows nothing of the document: changes are
//! bytes with an actor, a number and a hash. Formats and the order of writes are in `docs/store.md`.
//!
//! ```no_run
//! use postmerge::store::Store;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut store = Store::open("mail".as_ref())?;
//! while let Some((groups, txn)) = store.replay()? {
//!     // Project `groups` through `txn`, as when they were logged.
//!     txn.commit()?;
//! }
//! let id = store.bodies().put(b"Subject: hello\r\n\r\n")?;
//! let mut txn = store.begin()?;
//! txn.log_local(id.as_bytes())?;
//! txn.commit()?; // The body and the record are durable.
//! store.close()?;
//! # Ok(())
//! # }
//! ```

mod backup;
mod bodies;
mod body_reader;
mod check;
pub(crate) mod disk;
mod error;
mod frame;
mod index;
mod large;
mod lock;
mod log;
mod marker;
mod open;
mod overlay;
mod pack;
mod partial;
mod reader;
mod repair;
mod scrub;
mod shelf;
mod snapshot;
mod summaries;
mod txn;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::ReadableTableMetadata as _;

use crate::uid::TableError;

pub use backup::{BackupReport, BackupSource};
pub use bodies::{BodyStore, SegmentUse};
pub use body_reader::BodyReader;
pub use check::{CheckReport, Checker, Level, Problem, Progress, Remedy};
pub use error::StoreError;
pub use frame::{Change, Group, Record};
pub use lock::InstanceId;
pub use marker::StoreId;
pub use partial::PartialBody;
pub use reader::{Groups, Missing, Reader};
pub use repair::{LostChanges, RepairReport};
pub use scrub::{DamagedBody, NoPlace, Scrub, ScrubPlace, Scrubbed};
pub use shelf::{Edits, Shelf};
pub use summaries::Summarizer;
pub use txn::Txn;
pub use writer::BodyWriter;

use disk::Disk;
use frame::GroupWriter;
use index::{ACTORS, BODIES, CHANGES, GROUPS, HASHES, Index, IndexState, definition_of, failed};
use log::{Log, LogEnd, LogFiles};
use reader::{change_key, place};
pub(crate) use summaries::{MARK, MAX_SUMMARY};
use txn::{Commit, Replayed};

/// The number of a group in the log, from 1; 0 is before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    pub(crate) fn next(self) -> Position {
        Position(self.0 + 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Groups after which the index is committed durably: a replay of as many takes well under a second.
const DURABLE_GROUPS: u64 = 256;
/// Logged bytes after which the index is committed durably, so that a replay reads no more than this.
const DURABLE_BYTES: u64 = 8 << 20;
/// Bytes of a row that says where a body is.
const BODY_ROW: usize = 52;
/// Groups that one replay transaction takes at most, and bytes of the log, to bound its memory.
const REPLAY_GROUPS: usize = 1024;
const REPLAY_BYTES: u64 = 8 << 20;

/// An open store: the only one of its directory in any process.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    disk: Disk,
    id: StoreId,
    instance: InstanceId,
    index: Arc<Index>,
    log: Log,
    bodies: BodyStore,
    /// What the index holds; it lags behind the log until a replay is done.
    state: IndexState,
    /// Groups and bytes since the index was last committed durably.
    since_durable: (u64, u64),
    /// Bytes of rows that were put into the index since the store was opened.
    written: u64,
    poisoned: bool,
}

/// Reads a store while it is written elsewhere. Clones are cheap; while one lives, the store stays locked.
#[derive(Clone, Debug)]
pub struct Handle {
    index: Arc<Index>,
    log: Arc<LogFiles>,
    bodies: BodyStore,
}

impl Handle {
    /// The state as of the last commit.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        Ok(Reader::new(&self.index, &self.log)?)
    }

    /// Message bodies.
    pub fn bodies(&self) -> &BodyStore {
        &self.bodies
    }
}

impl Store {
    /// The random id that the store got when it was made; a copy has the same.
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// Tells this directory from a copy of it: another value than the one remembered elsewhere means that
    /// the store was copied or restored.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the store was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.disk.is_read_only()
    }

    /// The last group in the log.
    pub fn position(&self) -> Position {
        self.log.end().position
    }

    /// Reads from other threads.
    pub fn handle(&self) -> Handle {
        let log = Arc::clone(self.log.files());
        Handle { index: Arc::clone(&self.index), log, bodies: self.bodies.clone() }
    }

    /// The state as of the last commit.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        Ok(Reader::new(&self.index, self.log.files())?)
    }

    /// Message bodies.
    pub fn bodies(&self) -> &BodyStore {
        &self.bodies
    }

    /// Rows that somebody keeps beside the store, in `<name>.redb`; made if they are not there. One at a time has it open.
    pub fn shelf(&self, name: &str) -> Result<Shelf, StoreError> {
        if self.is_read_only() {
            return Err(StoreError::ReadOnly { path: self.dir.clone() });
        }
        Shelf::open(&self.dir, name, self.index.lock())
    }

    /// Begins a transaction. Fails while groups wait to be replayed.
    pub fn begin(&mut self) -> Result<Txn<'_>, StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        let (index, log) = (self.state.log.position, self.log.end().position);
        if index != log {
            return Err(StoreError::ReplayPending { index, log });
        }
        let base = self.reader()?;
        Ok(Txn::new(self, base, log.next()))
    }

    /// The next groups that the index does not hold, and a transaction to project them with, which logs
    /// nothing and knows their changes already. Nothing when the index is complete. Call it until then.
    pub fn replay(&mut self) -> Result<Option<(Vec<Group>, Txn<'_>)>, StoreError> {
        let until = self.log.end();
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        if self.state.log.position == until.position {
            return Ok(None);
        }
        let files = Arc::clone(self.log.files());
        let (base, mut at) = (self.reader()?, self.state.log);
        let mut txn = Txn::new(self, base, at.position.next());
        let (mut groups, mut places, mut bytes) = (Vec::new(), Vec::new(), 0);
        while groups.len() < REPLAY_GROUPS
            && bytes < REPLAY_BYTES
            && let Some((end, read)) = files.next(at, until)?
        {
            let first = read.spans.first().map_or(log::SEGMENT_HEADER, |span| span.offset);
            let offset = if end.segment == at.segment { at.offset } else { first };
            let start = LogEnd { position: at.position, segment: end.segment, offset };
            places.push(Replayed { position: end.position, start });
            for (record, span) in read.group.records.iter().zip(&read.spans) {
                if let Record::Change(change) = record {
                    let row = reader::ChangeRow { segment: end.segment, span: *span, hash: change.hash };
                    txn.replay_change(change.actor, change.seq, row)?;
                }
            }
            bytes += end.offset - offset;
            groups.push(read.group);
            at = end;
        }
        txn.replay = Some((places, at));
        Ok(Some((groups, txn)))
    }

    /// The newest snapshot that is whole, and the position it folds. A damaged one is passed over.
    pub fn latest_snapshot(&self) -> Result<Option<(Position, Vec<u8>)>, StoreError> {
        self.snapshot_until(self.position())
    }

    /// The same of those that fold no more than the log up to `until`.
    pub fn snapshot_until(&self, until: Position) -> Result<Option<(Position, Vec<u8>)>, StoreError> {
        for position in snapshot::list(&self.dir)? {
            if position > self.position() {
                tracing::warn!(%position, "a snapshot is ahead of the log and is not used");
            }
            if position > until {
                continue;
            }
            match snapshot::read(&self.dir, self.id, position) {
                Ok(bytes) => return Ok(Some((position, bytes))),
                Err(error) => tracing::warn!(%position, %error, "a snapshot is damaged and is not used"),
            }
        }
        Ok(None)
    }

    /// Keeps a snapshot that folds the log up to `position`, and the one before. The caller has made sure
    /// that it loads.
    ///
    /// The index becomes durable first. It must not fall behind the newest snapshot in a power cut: the document as of
    /// the index would then have to be read from further back, and soon from the beginning.
    pub fn write_snapshot(&mut self, position: Position, bytes: &[u8]) -> Result<(), StoreError> {
        self.settle()?;
        snapshot::write(&self.dir, &self.disk, self.id, position, bytes)
    }

    /// Makes the index durable, so that the next open replays nothing; dropping a store tries the same. After much was
    /// written it also gives back the space that the index does not need, at some 20 MiB a second.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.settle()?;
        if self.is_read_only() {
            return Ok(());
        }
        if let Err(error) = self.index.compact(self.written) {
            tracing::warn!(%error, "the index was not compacted");
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        if self.poisoned || self.since_durable == (0, 0) || self.is_read_only() {
            return Ok(());
        }
        self.index.commit(self.state, true, |_| Ok(()))?;
        self.since_durable = (0, 0);
        Ok(())
    }

    /// Bodies, then the log, then the index: in this order, so that each refers only to what is durable.
    pub(crate) fn commit(&mut self, mut commit: Commit) -> Result<Position, StoreError> {
        if self.is_read_only() && commit.replay.is_none() && !commit.group.is_empty() {
            return Err(StoreError::ReadOnly { path: self.dir.clone() });
        }
        let synced = self.bodies.sync_for_commit()?;
        let mut state = IndexState { packs: synced.end, ..self.state };
        let mut places = Vec::new();
        if let Some((replayed, end)) = commit.replay.take() {
            debug_assert!(commit.group.is_empty(), "a replay logs nothing");
            places = replayed;
            state.log = end;
        } else if !commit.group.is_empty() {
            let position = commit.group.position();
            let group = std::mem::replace(&mut commit.group, GroupWriter::new(position.next()));
            let appended = self.log.append(group);
            self.poisoned = self.log.in_doubt();
            let (start, end) = appended?;
            commit.placed(start);
            places.push(Replayed { position, start });
            state.log = end;
        }
        self.since_durable.0 += places.len().max(1) as u64;
        self.since_durable.1 += state.log.offset.saturating_sub(self.state.log.offset);
        let durable = self.since_durable.0 >= DURABLE_GROUPS || self.since_durable.1 >= DURABLE_BYTES;
        let body_rows = (synced.locations.len() * BODY_ROW) as u64 + synced.summaries.row_bytes();
        self.written += commit.row_bytes() + body_rows;
        let result = self.index.commit(state, durable, |write| {
            fill_changes(write, &commit, &places)?;
            fill_rows(write, &commit)?;
            let mut table = write.open_table(BODIES).map_err(failed)?;
            let are_first = !synced.locations.is_empty() && table.is_empty().map_err(failed)?;
            synced.summaries.put(write, are_first)?;
            for (id, location) in &synced.locations {
                table.insert(id.as_bytes().as_slice(), location.encode().as_slice()).map_err(failed)?;
            }
            Ok(())
        });
        if let Err(error) = result {
            // The log may be ahead of the index now; opening the store again replays the difference.
            self.poisoned = true;
            return Err(error.into());
        }
        if durable {
            self.since_durable = (0, 0);
        }
        self.state = state;
        self.bodies.indexed(&synced);
        Ok(state.log.position)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.settle() {
            tracing::warn!(%error, "the index was not made durable; the next open replays");
        }
    }
}

fn fill_changes(
    write: &redb::WriteTransaction,
    commit: &Commit,
    places: &[Replayed],
) -> Result<(), TableError> {
    let mut groups = write.open_table(GROUPS).map_err(failed)?;
    for group in places {
        let value = place(group.start.segment, group.start.offset);
        groups.insert(group.position.0.to_be_bytes().as_slice(), value.as_slice()).map_err(failed)?;
    }
    let mut changes = write.open_table(CHANGES).map_err(failed)?;
    let mut hashes = write.open_table(HASHES).map_err(failed)?;
    for logged in &commit.changes {
        let key = change_key(logged.actor, logged.seq);
        changes.insert(key.as_slice(), logged.row.encode().as_slice()).map_err(failed)?;
        hashes.insert(logged.row.hash.as_slice(), key.as_slice()).map_err(failed)?;
    }
    let mut actors = write.open_table(ACTORS).map_err(failed)?;
    for (actor, seq) in &commit.heads {
        let (key, value) = (actor.as_bytes(), seq.to_le_bytes());
        actors.insert(key.as_slice(), value.as_slice()).map_err(failed)?;
    }
    Ok(())
}

fn fill_rows(write: &redb::WriteTransaction, commit: &Commit) -> Result<(), TableError> {
    for (table, rows) in &commit.rows {
        let mut table = write.open_table(definition_of(*table)).map_err(failed)?;
        for (key, value) in rows {
            match value {
                Some(value) => table.insert(key.as_slice(), value.as_slice()).map(drop),
                None => table.remove(key.as_slice()).map(drop),
            }
            .map_err(failed)?;
        }
    }
    Ok(())
}
