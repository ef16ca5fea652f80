//! Making and opening a store.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::blob::BlobId;

use super::bodies::BodyStore;
use super::disk::Disk;
use super::index::{BODIES, Index, IndexState, failed};
use super::lock::Lock;
use super::log::Log;
use super::pack::{self, Found, Location, PackEnd};
use super::summaries::forget_mark;
use super::{Store, StoreError, StoreId, marker};

pub(crate) const LOCK: &str = "lock";
pub(crate) const LOG: &str = "log";
pub(crate) const BODY_DIR: &str = "bodies";
pub(crate) const INDEX: &str = "index.redb";

/// Bodies found by a scan that are kept in memory before they go into the index.
const SCAN_BATCH: usize = 16 << 10;

impl Store {
    /// Makes a store in a directory that is empty or does not exist, and opens it.
    pub fn create(dir: &Path) -> Result<Store, StoreError> {
        Store::create_on(dir, Disk::default())
    }

    /// Opens a store. Groups that the index does not hold are then taken with [`Store::replay`].
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        Store::open_on(dir, Disk::default())
    }

    /// Opens a store and changes nothing of it: what is projected into the index stays in memory, and a transaction that
    /// logs something is refused. Costs the memory of all rows if there is no index, as in a backup. Others may read at the
    /// same time; nobody can write.
    pub fn open_read_only(dir: &Path) -> Result<Store, StoreError> {
        marker::read(dir)?;
        let lock = Lock::share(&dir.join(LOCK))?;
        Store::open_locked(dir, Disk::read_only(), lock)
    }

    #[expect(clippy::disallowed_methods, reason = "a store draws its id")]
    pub(crate) fn create_on(dir: &Path, disk: Disk) -> Result<Store, StoreError> {
        disk.create_dir(dir)?;
        let lock = Lock::take(&dir.join(LOCK))?;
        // The marker comes last: what an interrupted create left behind is no store and is made anew.
        for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
            let name = entry.map_err(StoreError::io("list", dir))?.file_name();
            let ours = [LOCK, LOG, BODY_DIR, INDEX, "STORE.tmp"].iter().any(|one| name == *one);
            if !ours {
                return Err(StoreError::NotEmpty { path: dir.to_owned() });
            }
        }
        disk.remove(&dir.join(INDEX))?;
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| StoreError::io("draw an id for", dir)(error.into()))?;
        let id = StoreId(random);
        BodyStore::create(&dir.join(BODY_DIR), &disk)?;
        Log::create(&dir.join(LOG), &disk, id)?;
        disk.sync_dir(dir)?;
        marker::write(dir, &disk, id)?;
        if let Some(parent) = dir.canonicalize().ok().as_deref().and_then(Path::parent) {
            disk.sync_dir(parent)?;
        }
        Store::open_locked(dir, disk, lock)
    }

    pub(crate) fn open_on(dir: &Path, disk: Disk) -> Result<Store, StoreError> {
        // Before the lock, which would leave a file in a directory that is no store.
        marker::read(dir)?;
        let lock = Lock::take(&dir.join(LOCK))?;
        Store::open_locked(dir, disk, lock)
    }

    fn open_locked(dir: &Path, disk: Disk, lock: Lock) -> Result<Store, StoreError> {
        let id = marker::read(dir)?;
        let instance = lock.instance(id)?;
        if lock.holder_died() {
            tracing::info!(dir = %dir.display(), "the store was not closed");
            disk.sync_all(dir)?;
        }
        let (index, state) = Index::open(&dir.join(INDEX), &disk, id, &Arc::new(lock))?;
        let index = Arc::new(index);
        let log = Log::open(&dir.join(LOG), &disk, id, state.log)?;
        if state.log.position != log.end().position && state == IndexState::EMPTY && !disk.is_read_only() {
            tracing::warn!(dir = %dir.display(), groups = log.end().position.0, "the index is built anew from the log");
        }
        let bodies = dir.join(BODY_DIR);
        let durable = state;
        let (state, end, pending) = scan_bodies(&bodies, id, &index, state)?;
        let bodies = BodyStore::open(&bodies, &disk, id, &index, end, pending)?;
        let dir = dir.to_owned();
        let since_durable = (u64::from(state != durable), 0);
        Ok(Store {
            dir,
            disk,
            id,
            instance,
            index,
            log,
            bodies,
            state,
            since_durable,
            written: 0,
            poisoned: false,
        })
    }
}

/// Finds the bodies that the index does not know. Most of them, if there are many, go into it at once.
fn scan_bodies(
    dir: &Path,
    id: StoreId,
    index: &Index,
    mut state: IndexState,
) -> Result<(IndexState, PackEnd, BTreeMap<BlobId, Location>), StoreError> {
    let mut pending = BTreeMap::new();
    let end = pack::scan(dir, id, state.packs, state.packs, |found| {
        match found {
            Found::Damage { path, offset, what } => {
                tracing::warn!(path = %path.display(), offset, what, "passed over damage in a pack segment");
            }
            Found::Record { segment, offset, bundle } => {
                match pack::locations(bundle, segment, offset) {
                    Ok(locations) => pending.extend(locations),
                    Err(error) => tracing::warn!(segment, offset, %error, "passed over a bundle"),
                }
                if pending.len() >= SCAN_BATCH {
                    state.packs = PackEnd { segment, offset: offset + pack::record_total(bundle.len()) };
                    flush(index, state, &mut pending)?;
                }
            }
        }
        Ok(())
    })?;
    Ok((state, end, pending))
}

fn flush(
    index: &Index,
    state: IndexState,
    pending: &mut BTreeMap<BlobId, Location>,
) -> Result<(), StoreError> {
    index.commit(state, false, |write| {
        let mut table = write.open_table(BODIES).map_err(failed)?;
        for (id, location) in std::mem::take(pending) {
            table.insert(id.as_bytes().as_slice(), location.encode().as_slice()).map_err(failed)?;
        }
        forget_mark(write)
    })?;
    Ok(())
}
