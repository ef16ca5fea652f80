//! A copy of a store that can be opened as a store.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use super::check::{Meter, Progress, large_bodies};
use super::disk::{Disk, numbered};
use super::lock::Lock;
use super::open::{BODY_DIR, INDEX, LOCK, LOG};
use super::{BodyStore, Position, Store, StoreError, large, marker, pack, snapshot};

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupReport {
    /// The last group in it.
    pub position: Position,
    /// Bytes that were copied; what an earlier backup held already is not.
    pub copied: u64,
}

impl Store {
    /// Copies the log, bodies and newest snapshot to a directory that is empty, new, or an earlier backup of
    /// this store, which is then brought up to date. The index is left out: opening the copy rebuilds it.
    /// The copy has this store's id and another [`Store::instance`].
    pub fn backup(&self, to: &Path, progress: &mut dyn FnMut(Progress)) -> Result<BackupReport, StoreError> {
        let disk = Disk::default();
        self.bodies().sync()?;
        prepare(self, to, &disk)?;
        let _lock = Lock::take(&to.join(LOCK))?;
        let mut copy = Copy { disk: &disk, copied: 0, meter: Meter { done: 0, progress } };
        let (from_bodies, to_bodies) = (self.bodies().dir().to_owned(), to.join(BODY_DIR));
        for segment in numbered(&from_bodies, pack::EXTENSION)? {
            let path = pack::path(&from_bodies, segment);
            let length = fs::metadata(&path).map_err(StoreError::io("measure", &path))?.len();
            copy.file(&path, &pack::path(&to_bodies, segment), length)?;
        }
        for id in large_bodies(&from_bodies)? {
            let (from, target) = (large::path(&from_bodies, id), large::path(&to_bodies, id));
            let bucket = target.parent().expect("a large body is in a bucket");
            if !bucket.exists() {
                disk.create_dir(bucket)?;
                disk.sync_dir(&to_bodies.join("large"))?;
            }
            let length = fs::metadata(&from).map_err(StoreError::io("measure", &from))?.len();
            copy.file(&from, &target, length)?;
        }
        if let Some((position, bytes)) = self.latest_snapshot()? {
            snapshot::write(to, &disk, self.id(), position, &bytes)?;
        }
        let end = self.log.end();
        for segment in 1..=end.segment {
            let from = self.log.files().path(segment);
            let length = if segment == end.segment {
                end.offset
            } else {
                fs::metadata(&from).map_err(StoreError::io("measure", &from))?.len()
            };
            let target = to.join(LOG).join(from.file_name().expect("a segment has a name"));
            copy.file(&from, &target, length)?;
        }
        marker::write(to, &disk, self.id())?;
        Ok(BackupReport { position: end.position, copied: copy.copied })
    }
}

/// Makes the directory one that a backup may write to.
fn prepare(store: &Store, to: &Path, disk: &Disk) -> Result<(), StoreError> {
    disk.create_dir(to)?;
    match marker::read(to) {
        Ok(id) if id == store.id() => disk.remove(&to.join(INDEX))?,
        Ok(_) => return Err(StoreError::NotEmpty { path: to.to_owned() }),
        Err(StoreError::NotAStore { .. }) => {
            let list = || fs::read_dir(to).and_then(|mut entries| entries.next().transpose());
            // A lock and directories may be what an interrupted backup left.
            let empty = list().map_err(StoreError::io("list", to))?.is_none();
            if !empty && !to.join(BODY_DIR).exists() {
                return Err(StoreError::NotEmpty { path: to.to_owned() });
            }
        }
        Err(error) => return Err(error),
    }
    BodyStore::create(&to.join(BODY_DIR), disk)?;
    disk.create_dir(&to.join(LOG))?;
    disk.sync_dir(to)
}

struct Copy<'a> {
    disk: &'a Disk,
    copied: u64,
    meter: Meter<'a>,
}

impl Copy<'_> {
    /// Copies the first `length` bytes. Files of a store only grow, so a copy of that length is complete.
    fn file(&mut self, from: &Path, to: &Path, length: u64) -> Result<(), StoreError> {
        if fs::metadata(to).is_ok_and(|meta| meta.len() == length) {
            self.meter.file(to);
            return Ok(());
        }
        let tmp = to.with_extension("tmp");
        let target = self.disk.create(&tmp)?;
        let source = File::open(from).map_err(StoreError::io("open", from))?;
        let copied = io::copy(&mut source.take(length), &mut &target.file);
        self.copied += copied.map_err(StoreError::io("copy to", &tmp))?;
        self.disk.sync(&target)?;
        self.disk.rename(&tmp, to)?;
        self.disk.sync_dir(to.parent().expect("files of a store are in its directories"))?;
        self.meter.file(to);
        Ok(())
    }
}
