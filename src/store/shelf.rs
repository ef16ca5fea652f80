//! Rows that somebody above keeps beside the store, in a database of its own: durable with each commit, in no log, and
//! not rebuilt with the index.
//!
//! For truth that belongs to this machine and to nobody else, such as what a Maildir looked like when it was last in step.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, TableDefinition};

use super::StoreError;
use super::index::failed;
use super::lock::Lock;
use crate::uid::{Row, TableError};

const ROWS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("rows");

/// redb's cache: the upper levels of the tree of a million rows.
const CACHE_BYTES: usize = 4 << 20;

/// Ordered rows of bytes in a file of their own.
pub struct Shelf {
    database: Database,
    path: PathBuf,
    /// Whoever can still write here keeps others out of the store.
    _lock: Arc<Lock>,
}

/// Rows to be set, and keys to be removed, in one commit.
pub type Edits = Vec<(Vec<u8>, Option<Vec<u8>>)>;

impl Shelf {
    /// Opens the shelf of a store, or makes it.
    pub(crate) fn open(dir: &Path, name: &str, lock: &Arc<Lock>) -> Result<Shelf, StoreError> {
        let path = Shelf::file(dir, name);
        let open = || -> Result<Database, TableError> {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = file.open(&path).map_err(failed)?;
            let backend = FileBackend::new(file).map_err(failed)?;
            let mut builder = Database::builder();
            let database =
                builder.set_cache_size(CACHE_BYTES).create_with_backend(backend).map_err(failed)?;
            if database.begin_read().map_err(failed)?.open_table(ROWS).is_err() {
                let write = database.begin_write().map_err(failed)?;
                write.open_table(ROWS).map_err(failed)?;
                write.commit().map_err(failed)?;
            }
            Ok(database)
        };
        // redb may panic on a file that was altered behind its back.
        let opened = catch_unwind(AssertUnwindSafe(open))
            .unwrap_or_else(|_| Err(TableError("the database cannot be read".to_owned())));
        let database =
            opened.map_err(|error| StoreError::Damaged { path: path.clone(), offset: 0, what: error.0 })?;
        Ok(Shelf { database, path, _lock: Arc::clone(lock) })
    }

    fn file(dir: &Path, name: &str) -> PathBuf {
        dir.join(format!("{name}.redb"))
    }

    /// Whether a store has the shelf, without a look at the store.
    pub fn exists(dir: &Path, name: &str) -> bool {
        Shelf::file(dir, name).exists()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        let table = self.database.begin_read().map_err(failed)?.open_table(ROWS).map_err(failed)?;
        Ok(table.get(key).map_err(failed)?.map(|value| value.value().to_vec()))
    }

    /// The values of several keys, as one commit left them.
    pub fn get_all<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<Option<Vec<u8>>>, TableError> {
        let table = self.database.begin_read().map_err(failed)?.open_table(ROWS).map_err(failed)?;
        let value = |key| Ok(table.get(key).map_err(failed)?.map(|value| value.value().to_vec()));
        keys.into_iter().map(value).collect()
    }

    /// The rows whose keys start with `prefix`, ascending.
    pub fn starting_with(&self, prefix: &[u8]) -> Result<Vec<Row>, TableError> {
        let table = self.database.begin_read().map_err(failed)?.open_table(ROWS).map_err(failed)?;
        let mut rows = Vec::new();
        for row in table.range(prefix..).map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            if !key.value().starts_with(prefix) {
                break;
            }
            rows.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(rows)
    }

    /// Sets and removes rows, all or none; durable when this returns.
    pub fn commit(&self, edits: &Edits) -> Result<(), TableError> {
        if edits.is_empty() {
            return Ok(());
        }
        let mut write = self.database.begin_write().map_err(failed)?;
        // Opening after a crash must not read the whole file.
        write.set_quick_repair(true);
        {
            let mut table = write.open_table(ROWS).map_err(failed)?;
            for (key, value) in edits {
                match value {
                    Some(value) => drop(table.insert(key.as_slice(), value.as_slice()).map_err(failed)?),
                    None => drop(table.remove(key.as_slice()).map_err(failed)?),
                }
            }
        }
        write.commit().map_err(failed)
    }
}
