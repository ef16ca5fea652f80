//! A copy of a store that can be opened as a store.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::bodies::Hold;
use super::check::{Meter, Progress, large_bodies};
use super::disk::{Disk, numbered};
use super::lock::Lock;
use super::log::{LogEnd, LogFiles};
use super::open::{BODY_DIR, INDEX, LOCK, LOG};
use super::pack::{self, PackEnd};
use super::{BodyStore, Handle, Position, Store, StoreError, StoreId, large, marker, snapshot};

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupReport {
    /// The last group in it.
    pub position: Position,
    /// Bytes that were copied; what an earlier backup held already is not.
    pub copied: u64,
}

/// The state of a store at one moment, to be copied while the store is used. It keeps the store locked.
#[derive(Debug)]
pub struct BackupSource {
    dir: PathBuf,
    id: StoreId,
    end: LogEnd,
    packs: PackEnd,
    /// No body goes before it was copied.
    _hold: Hold,
    _handle: Handle,
}

impl Store {
    /// Fixes what a backup is to hold: everything up to the last commit. Costs a sync of what bodies are not durable yet.
    pub fn backup_source(&self) -> Result<BackupSource, StoreError> {
        let hold = self.bodies().hold();
        let packs = self.bodies().sync_for_commit()?.end;
        let (dir, id, end) = (self.dir.clone(), self.id, self.log.end());
        Ok(BackupSource { dir, id, end, packs, _hold: hold, _handle: self.handle() })
    }
}

impl BackupSource {
    /// Copies the log, bodies and newest snapshot to a directory that is empty, new, or an earlier backup of
    /// this store, which is then brought up to date. The index is left out: opening the copy rebuilds it.
    /// The copy has this store's id and another [`Store::instance`].
    ///
    /// Needs no lock on the store's writer: files only grow up to their end, which is known, and none is removed meanwhile.
    pub fn copy(&self, to: &Path, progress: &mut dyn FnMut(Progress)) -> Result<BackupReport, StoreError> {
        let disk = Disk::default();
        self.prepare(to, &disk)?;
        let _lock = Lock::take(&to.join(LOCK))?;
        // From here on, what is in the directory is no backup until it is whole again.
        disk.remove(&to.join(INDEX))?;
        let mut copy = Copy { disk: &disk, copied: 0, meter: Meter { done: 0, progress } };
        self.copy_bodies(to, &mut copy)?;
        self.copy_snapshot(to, &disk)?;
        let files = LogFiles::new(&self.dir.join(LOG), self.id);
        for segment in 1..=self.end.segment {
            let from = files.path(segment);
            let length = if segment == self.end.segment { self.end.offset } else { length_of(&from)? };
            let target = to.join(LOG).join(from.file_name().expect("a segment has a name"));
            copy.file(&from, &target, length)?;
        }
        marker::write(to, &disk, self.id)?;
        Ok(BackupReport { position: self.end.position, copied: copy.copied })
    }

    fn copy_bodies(&self, to: &Path, copy: &mut Copy<'_>) -> Result<(), StoreError> {
        let (from_bodies, to_bodies) = (self.dir.join(BODY_DIR), to.join(BODY_DIR));
        let segments: Vec<u32> = numbered(&from_bodies, pack::EXTENSION)?
            .into_iter()
            .filter(|segment| *segment <= self.packs.segment)
            .collect();
        for segment in segments.iter().copied() {
            let path = pack::path(&from_bodies, segment);
            let last = segment == self.packs.segment;
            let length = if last { self.packs.offset } else { length_of(&path)? };
            copy.file(&path, &pack::path(&to_bodies, segment), length)?;
        }
        let large = large_bodies(&from_bodies)?;
        for id in large.iter().copied() {
            let (from, target) = (large::path(&from_bodies, id), large::path(&to_bodies, id));
            let bucket = target.parent().expect("a large body is in a bucket");
            if !bucket.exists() {
                copy.disk.create_dir(bucket)?;
                copy.disk.sync_dir(&to_bodies.join("large"))?;
            }
            copy.file(&from, &target, length_of(&from)?)?;
        }
        // What an earlier backup took and the store has forgotten since, or has elsewhere by now.
        for segment in numbered(&to_bodies, pack::EXTENSION)? {
            if !segments.contains(&segment) {
                copy.disk.remove(&pack::path(&to_bodies, segment))?;
            }
        }
        for id in large_bodies(&to_bodies)? {
            if large.binary_search(&id).is_err() {
                copy.disk.remove(&large::path(&to_bodies, id))?;
            }
        }
        Ok(())
    }

    /// The newest snapshot that does not reach beyond the log that is copied. While this looks, a newer one may take its
    /// place; a backup without any only takes longer to open.
    fn copy_snapshot(&self, to: &Path, disk: &Disk) -> Result<(), StoreError> {
        for position in snapshot::list(&self.dir)? {
            if position > self.end.position {
                continue;
            }
            match snapshot::read(&self.dir, self.id, position) {
                Ok(bytes) => return snapshot::write(to, disk, self.id, position, &bytes),
                Err(error) => tracing::debug!(%position, %error, "a snapshot is not copied"),
            }
        }
        Ok(())
    }

    /// Makes the directory one that a backup may write to.
    fn prepare(&self, to: &Path, disk: &Disk) -> Result<(), StoreError> {
        // The part of the path that exists says where the rest will be.
        let absolute = std::path::absolute(to).map_err(StoreError::io("find", to))?;
        let there = absolute.ancestors().find_map(|part| part.canonicalize().ok());
        let store = self.dir.canonicalize().map_err(StoreError::io("find", &self.dir))?;
        if there.is_some_and(|there| there.starts_with(&store)) {
            return Err(StoreError::InsideItself { path: to.to_owned() });
        }
        disk.create_dir(to)?;
        match marker::read(to) {
            Ok(id) if id == self.id => {}
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
}

fn length_of(path: &Path) -> Result<u64, StoreError> {
    Ok(fs::metadata(path).map_err(StoreError::io("measure", path))?.len())
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
