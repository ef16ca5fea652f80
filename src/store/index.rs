//! The index: a redb database that projects the log and the pack segments. It can always be rebuilt.

use std::fmt;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use redb::{CompactionError, Database, Durability, ReadableDatabase, TableDefinition};

use crate::uid::{Table, TableError};

use super::disk::{Disk, DiskFile};
use super::lock::Lock;
use super::log::LogEnd;
use super::overlay::Overlay;
use super::pack::PackEnd;
use super::{Position, StoreError, StoreId};

pub(crate) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
pub(crate) type OpenTable = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

/// actor, seq → where the change is in the log, and its hash.
pub(crate) const CHANGES: Definition = TableDefinition::new("changes");
/// hash → actor, seq.
pub(crate) const HASHES: Definition = TableDefinition::new("hashes");
/// actor → the last sequence number up to which nothing is missing.
pub(crate) const ACTORS: Definition = TableDefinition::new("actors");
/// position → where its group begins.
pub(crate) const GROUPS: Definition = TableDefinition::new("groups");
/// blob → where its bundle is.
pub(crate) const BODIES: Definition = TableDefinition::new("bodies");
/// What the index itself is at.
const STATE: Definition = TableDefinition::new("state");

const OWN: [Definition; 6] = [CHANGES, HASHES, ACTORS, GROUPS, BODIES, STATE];
const STATE_KEY: &[u8] = b"state";
/// Version of the rows that the store itself keeps. Another version is rebuilt, not migrated.
pub(crate) const FORMAT: u32 = 3;

/// redb's cache. Its default of 1 GiB would be the largest part of the process; the upper levels of every
/// tree of a mailbox with a million messages fit into this.
const CACHE_BYTES: usize = 32 << 20;

/// Bytes of rows that a session must write before its end looks for space to give back: a short command never waits for it.
pub(crate) const COMPACT_WRITTEN: u64 = 1 << 20;
/// The largest file that is compacted. Moving its pages takes some 10 s, and whoever stops a service waits for no more
/// than a minute or two.
const COMPACT_LIMIT: u64 = 512 << 20;

/// How far the index projects the log and the packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexState {
    pub(crate) log: LogEnd,
    pub(crate) packs: PackEnd,
}

impl IndexState {
    pub(crate) const EMPTY: IndexState = IndexState { log: LogEnd::START, packs: PackEnd::START };

    fn encode(&self, id: StoreId) -> Vec<u8> {
        let mut out = FORMAT.to_le_bytes().to_vec();
        out.extend_from_slice(&id.0);
        out.extend_from_slice(&self.log.position.0.to_le_bytes());
        out.extend_from_slice(&self.log.segment.to_le_bytes());
        out.extend_from_slice(&self.log.offset.to_le_bytes());
        out.extend_from_slice(&self.packs.segment.to_le_bytes());
        out.extend_from_slice(&self.packs.offset.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8], id: StoreId) -> Option<IndexState> {
        let bytes: &[u8; 52] = bytes.try_into().ok()?;
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes[at..at + 4].try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(bytes[at..at + 8].try_into().ok()?));
        if u32_at(0)? != FORMAT || bytes[4..20] != id.0 {
            return None;
        }
        Some(IndexState {
            log: LogEnd { position: Position(u64_at(20)?), segment: u32_at(28)?, offset: u64_at(32)? },
            packs: PackEnd { segment: u32_at(40)?, offset: u64_at(44)? },
        })
    }
}

/// The open database.
pub(crate) struct Index {
    /// Written to only by compaction, which wants it alone.
    database: RwLock<Database>,
    path: PathBuf,
    id: StoreId,
    /// Whoever can still read keeps others out. Released after the database is closed.
    lock: Arc<Lock>,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

impl Index {
    /// Opens the index, or makes an empty one when there is none or it is damaged. On a disk that is only read, what is
    /// written stays in memory.
    pub(crate) fn open(
        path: &Path,
        disk: &Disk,
        id: StoreId,
        lock: &Arc<Lock>,
    ) -> Result<(Index, IndexState), StoreError> {
        if path.exists() {
            match Index::try_open(path, disk, id, lock, false) {
                Ok(opened) => return Ok(opened),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "the index is damaged and is rebuilt");
                    if !disk.is_read_only() {
                        disk.remove(path)?;
                    }
                }
            }
        }
        if disk.is_read_only() {
            return Ok(Index::start(path, id, lock, |builder| {
                builder.create_with_backend(Overlay::default())
            })?);
        }
        disk.create(path)?;
        Ok(Index::try_open(path, disk, id, lock, false)?)
    }

    /// Opens an index that is there; with `check`, every page of it is verified.
    pub(crate) fn try_open(
        path: &Path,
        disk: &Disk,
        id: StoreId,
        lock: &Arc<Lock>,
        check: bool,
    ) -> Result<(Index, IndexState), TableError> {
        if disk.is_read_only() {
            let overlay = Overlay::over(path).map_err(failed)?;
            return Index::start(path, id, lock, |builder| {
                builder.set_check_integrity_on_open(check).create_with_backend(overlay)
            });
        }
        let backend = Backend { disk: disk.clone(), file: disk.open_write(path).map_err(failed)? };
        Index::start(path, id, lock, |builder| {
            builder.set_check_integrity_on_open(check).create_with_backend(backend)
        })
    }

    fn start(
        path: &Path,
        id: StoreId,
        lock: &Arc<Lock>,
        create: impl FnOnce(&mut redb::Builder) -> Result<Database, redb::DatabaseError>,
    ) -> Result<(Index, IndexState), TableError> {
        let open = || -> Result<(Index, IndexState), TableError> {
            let database = create(Database::builder().set_cache_size(CACHE_BYTES)).map_err(failed)?;
            let (database, path) = (RwLock::new(database), path.to_owned());
            let index = Index { database, path, id, lock: Arc::clone(lock) };
            let state = index.load()?;
            Ok((index, state))
        };
        // redb may panic on a file that was altered behind its back.
        catch_unwind(AssertUnwindSafe(open))
            .unwrap_or_else(|_| Err(TableError("the database cannot be read".to_owned())))
    }

    /// The state; an empty database gets its tables first.
    fn load(&self) -> Result<IndexState, TableError> {
        let read = self.read()?;
        if read.open_table(STATE).is_ok() {
            return self.state(&read);
        }
        drop(read);
        let write = self.database().begin_write().map_err(failed)?;
        for definition in OWN {
            write.open_table(definition).map_err(failed)?;
        }
        for table in Table::ALL {
            write.open_table(definition_of(table)).map_err(failed)?;
        }
        self.set_state(&write, IndexState::EMPTY)?;
        write.commit().map_err(failed)?;
        Ok(IndexState::EMPTY)
    }

    /// The state as a read transaction sees it.
    pub(crate) fn state(&self, read: &redb::ReadTransaction) -> Result<IndexState, TableError> {
        let table = read.open_table(STATE).map_err(failed)?;
        let row = table.get(STATE_KEY).map_err(failed)?;
        let state = row.and_then(|row| IndexState::decode(row.value(), self.id));
        state.ok_or_else(|| TableError("the index is of another format or store".to_owned()))
    }

    /// What keeps other processes out.
    pub(crate) fn lock(&self) -> &Arc<Lock> {
        &self.lock
    }

    /// Sees what is committed now, whatever is written later.
    pub(crate) fn read(&self) -> Result<redb::ReadTransaction, TableError> {
        self.database().begin_read().map_err(failed)
    }

    /// Commits rows and the state they belong to; durably only if asked, else with the next durable commit.
    pub(crate) fn commit(
        &self,
        state: IndexState,
        durable: bool,
        fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), TableError>,
    ) -> Result<(), TableError> {
        let mut write = self.database().begin_write().map_err(failed)?;
        let durability = if durable { Durability::Immediate } else { Durability::None };
        write.set_durability(durability).map_err(failed)?;
        fill(&write)?;
        self.set_state(&write, state)?;
        write.commit().map_err(failed)
    }

    /// Commits rows of a cache, which belong to no state.
    pub(crate) fn cache(
        &self,
        fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), TableError>,
    ) -> Result<(), TableError> {
        let mut write = self.database().begin_write().map_err(failed)?;
        write.set_durability(Durability::None).map_err(failed)?;
        fill(&write)?;
        write.commit().map_err(failed)
    }

    fn database(&self) -> RwLockReadGuard<'_, Database> {
        // What a panic in redb left behind, redb itself refuses.
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free pages back to the file system, if they are a quarter of the file or more, nobody reads, and `written`
    /// bytes of rows are enough for the work to be in proportion. redb doubles its file when it is full, so after a large
    /// import half of it holds nothing.
    pub(crate) fn compact(&self, written: u64) -> Result<(), TableError> {
        let length = || std::fs::metadata(&self.path).map_or(0, |meta| meta.len());
        let before = length();
        if written < COMPACT_WRITTEN.max(before / 16) || before > COMPACT_LIMIT {
            return Ok(());
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let write = database.begin_write().map_err(failed)?;
        let stats = write.stats().map_err(failed)?;
        write.abort().map_err(failed)?;
        if stats.allocated_pages() * stats.page_size() as u64 > before / 4 * 3 {
            return Ok(());
        }
        let compacted = catch_unwind(AssertUnwindSafe(|| database.compact()));
        match compacted.map_err(|_| TableError("the database cannot be compacted".to_owned()))? {
            Ok(_) => tracing::debug!(before, after = length(), "compacted the index"),
            // Somebody reads; there will be another time.
            Err(CompactionError::TransactionInProgress) => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(())
    }

    fn set_state(&self, write: &redb::WriteTransaction, state: IndexState) -> Result<(), TableError> {
        let mut table = write.open_table(STATE).map_err(failed)?;
        table.insert(STATE_KEY, state.encode(self.id).as_slice()).map_err(failed)?;
        Ok(())
    }
}

/// The database table of a table of the pass. Its name is its number, which is never reused.
pub(crate) fn definition_of(table: Table) -> Definition {
    const NAMES: [&str; 33] = [
        "t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "t9", "t10", "t11", "t12", "t13", "t14", "t15",
        "t16", "t17", "t18", "t19", "t20", "t21", "t22", "t23", "t24", "t25", "t26", "t27", "t28", "t29",
        "t30", "t31", "t32",
    ];
    TableDefinition::new(NAMES[table as usize])
}

pub(crate) fn failed(error: impl fmt::Display) -> TableError {
    TableError(error.to_string())
}

/// redb's file, through our disk.
#[derive(Debug)]
struct Backend {
    disk: Disk,
    file: DiskFile,
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.file.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.file.file.read_exact_at(out, offset)
    }

    fn set_len(&self, length: u64) -> Result<(), std::io::Error> {
        self.disk.set_len_raw(&self.file, length)
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.disk.sync_raw(&self.file)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), std::io::Error> {
        self.disk.write_at_raw(&self.file, offset, bytes)
    }
}
