//! Message bodies: small ones in pack segments, large ones in files of their own.

mod pins;
mod reclaim;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::blob::{BlobId, Bundle, Bundler, MAX_BLOB, MAX_SMALL, OpenBundle};
use crate::mutation::{Mutation, planted};

use super::body_reader::BodyReader;
use super::disk::{Disk, DiskFile, entries};
use super::index::{BODIES, Index, failed};
use super::large;
use super::pack::{self, Location, PackEnd, SEGMENT_BYTES, SEGMENT_HEADER};
use super::partial::PartialBody;
use super::summaries::{Summaries, Summarizer, Waiting};
use super::writer::BodyWriter;
use super::{StoreError, StoreId, scrub};

use pins::Pins;
pub(crate) use reclaim::Hold;
pub use reclaim::SegmentUse;

/// Reads and writes bodies; clones share one store and may be used from several threads.
///
/// A body that was put can be read at once. It is durable after [`BodyStore::sync`] or the next commit; a
/// large one when its put returns. A body that is there already is not written again. After a failed sync
/// everything is refused as [`StoreError::Poisoned`] until the store is opened again.
#[derive(Clone, Debug)]
pub struct BodyStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Disk,
    dir: PathBuf,
    id: StoreId,
    index: Arc<Index>,
    /// Bodies that the index does not know yet.
    pending: RwLock<BTreeMap<BlobId, Location>>,
    writer: Mutex<Writer>,
    files: Mutex<BTreeMap<u32, Arc<DiskFile>>>,
    /// The bundle that was read last: mail is mostly read in the order it came.
    recent: Mutex<Option<Arc<OpenBundle>>>,
    summaries: Summaries,
    spools: AtomicU64,
    pins: Mutex<Pins>,
    /// Counts who needs every file to stay.
    holds: Hold,
}

#[derive(Debug)]
struct Writer {
    current: Option<DiskFile>,
    end: PackEnd,
    dirty: bool,
    /// A sync failed: the system may have dropped what was not written, and a second sync would not say so.
    in_doubt: bool,
}

impl Writer {
    fn sync(&mut self, disk: &Disk) -> Result<(), StoreError> {
        if self.in_doubt {
            return Err(StoreError::Poisoned);
        }
        if self.dirty
            && let Some(file) = &self.current
        {
            self.in_doubt = true;
            if !planted(Mutation::UnsyncedBodies) {
                disk.sync(file)?;
            }
            self.in_doubt = false;
        }
        self.dirty = false;
        Ok(())
    }
}

/// What a commit puts into the index: bodies that are durable now.
pub(crate) struct Synced {
    pub(crate) end: PackEnd,
    pub(crate) locations: Vec<(BlobId, Location)>,
    pub(crate) summaries: Waiting,
}

/// Segments kept open for reading, to bound file descriptors.
const MAX_OPEN: usize = 32;

/// What is beside the packs. Each may be empty, and what copies a store may leave empty directories out.
const DIRS: [&str; 3] = ["large", "partial", "tmp"];

impl BodyStore {
    pub(crate) fn create(dir: &Path, disk: &Disk) -> Result<(), StoreError> {
        disk.create_dir(dir)?;
        for name in DIRS {
            disk.create_dir(&dir.join(name))?;
        }
        disk.sync_dir(dir)
    }

    /// Takes over after a scan that found `end`; what follows there is a torn record and is cut off.
    pub(crate) fn open(
        dir: &Path,
        disk: &Disk,
        id: StoreId,
        index: &Arc<Index>,
        end: PackEnd,
        pending: BTreeMap<BlobId, Location>,
    ) -> Result<BodyStore, StoreError> {
        let writes = !disk.is_read_only();
        let tmp = dir.join("tmp");
        if writes {
            if !DIRS.iter().all(|name| dir.join(name).is_dir()) {
                BodyStore::create(dir, disk)?;
            }
            for entry in entries(&tmp)? {
                disk.remove(&entry?.path())?;
            }
        }
        // A process that was killed may have written records without a sync.
        let mut writer = Writer { current: None, end, dirty: writes, in_doubt: false };
        let path = pack::path(dir, end.segment);
        if writes && path.exists() {
            let file = disk.open_write(&path)?;
            let length = file.len()?;
            if length > end.offset {
                tracing::warn!(path = %path.display(), from = end.offset, to = length, "cut a torn record off");
                disk.set_len(&file, end.offset)?;
                disk.sync(&file)?;
            }
            if length < end.offset || length < SEGMENT_HEADER {
                // The index knows of more than there is. A new segment keeps its places apart from ours.
                writer.end = PackEnd { segment: end.segment + 1, offset: SEGMENT_HEADER };
            } else {
                writer.current = Some(file);
            }
        }
        let summaries = Summaries::default();
        if !pending.is_empty() {
            summaries.miss();
        }
        Ok(BodyStore(Arc::new(Inner {
            disk: disk.clone(),
            dir: dir.to_owned(),
            id,
            index: Arc::clone(index),
            pending: RwLock::new(pending),
            writer: Mutex::new(writer),
            files: Mutex::default(),
            recent: Mutex::default(),
            summaries,
            spools: AtomicU64::new(0),
            pins: Mutex::default(),
            holds: Hold::default(),
        })))
    }

    /// Has all bodies that arrive from now on summarised.
    pub(crate) fn summarize(&self, summarizer: Summarizer) {
        self.0.summaries.set(summarizer);
    }

    /// The version of what bodies are summarised to, if they are.
    pub(crate) fn summary_version(&self) -> Option<u8> {
        self.0.summaries.version()
    }

    /// Stores one body.
    pub fn put(&self, body: &[u8]) -> Result<BlobId, StoreError> {
        if body.len() >= MAX_SMALL {
            return Ok(self.put_reader(body)?.0);
        }
        let id = BlobId::of(body);
        self.pin(id);
        if self.locate(id)?.is_none() {
            self.append(&Bundle::encode(&[(id, body)])?)?;
            self.summarized(id, body)?;
        }
        Ok(id)
    }

    /// Stores many bodies, the small ones compressed together in the order given.
    pub fn put_many<B: AsRef<[u8]>>(
        &self,
        bodies: impl IntoIterator<Item = B>,
    ) -> Result<Vec<BlobId>, StoreError> {
        let mut ids = Vec::new();
        let mut bundler = Bundler::new();
        let mut collected = BTreeSet::new();
        for body in bodies {
            let body = body.as_ref();
            if body.len() >= MAX_SMALL {
                ids.push(self.put_reader(body)?.0);
                continue;
            }
            let id = BlobId::of(body);
            self.pin(id);
            ids.push(id);
            if collected.contains(&id) || self.locate(id)?.is_some() {
                continue;
            }
            if !bundler.fits(body.len()) {
                collected.clear();
                self.append_all(bundler.finish()?)?;
            }
            collected.insert(id);
            self.summarized(id, body)?;
            bundler.push(id, body.to_vec());
        }
        self.append_all(bundler.finish()?)?;
        Ok(ids)
    }

    /// Stores a body of unknown length without having all of it in memory. A large one is durable when this
    /// returns.
    pub fn put_reader(&self, source: impl Read) -> Result<(BlobId, u64), StoreError> {
        self.put_checked(source, None)
    }

    /// Stores a body that is pushed in pieces.
    pub fn writer(&self) -> BodyWriter {
        BodyWriter::new(self.clone(), self.spool())
    }

    /// A file for a body on its way in, which nobody else uses.
    fn spool(&self) -> PathBuf {
        self.0.dir.join("tmp").join(self.0.spools.fetch_add(1, Ordering::Relaxed).to_string())
    }

    pub(crate) fn put_checked(
        &self,
        mut source: impl Read,
        wanted: Option<BlobId>,
    ) -> Result<(BlobId, u64), StoreError> {
        let inner = &*self.0;
        let tmp = self.spool();
        let mut start = Vec::new();
        let read = (&mut source).take(MAX_SMALL as u64).read_to_end(&mut start);
        read.map_err(StoreError::io("read a body for", &inner.dir))?;
        if start.len() >= MAX_SMALL {
            let pin = |id| self.pin(id);
            let written = large::write(&inner.disk, &inner.dir, &tmp, &start, &mut source, wanted, &pin)?;
            // From its file, which is read once more for it: only now it is known to be what was wanted.
            inner.summaries.note(written.0, &mut self.open_at(written.0, 0)?);
            return Ok(written);
        }
        let found = BlobId::of(&start);
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
            return Err(StoreError::WrongBody { wanted, found });
        }
        Ok((self.put(&start)?, start.len() as u64))
    }

    /// Stores a bundle as it came from a peer, after checking every body in it.
    pub fn import_bundle(&self, bundle: &[u8]) -> Result<Vec<(BlobId, u64)>, StoreError> {
        let bodies = Bundle::decode(bundle)?;
        let ids: Vec<(BlobId, u64)> = bodies.iter().map(|(id, body)| (*id, body.len() as u64)).collect();
        let mut new = Vec::new();
        for (id, body) in &bodies {
            if self.locate(*id)?.is_none() {
                new.push((*id, body));
            }
        }
        if !new.is_empty() {
            self.append(bundle)?;
        }
        for (id, body) in new {
            self.summarized(id, body)?;
        }
        Ok(ids)
    }

    /// The stored bundle that holds a small body, ready to be sent; nothing for a large one.
    pub fn bundle_of(&self, id: BlobId) -> Result<Option<Vec<u8>>, StoreError> {
        self.located(id, |location| self.bundle_at(location))
    }

    /// A whole body. For a large one rather use [`BodyStore::open_at`].
    pub fn read(&self, id: BlobId) -> Result<Vec<u8>, StoreError> {
        let mut reader = self.open_at(id, 0)?;
        let mut body = Vec::with_capacity(reader.remaining().min(MAX_BLOB) as usize);
        let read = reader.read_to_end(&mut body);
        let path = large::path(&self.0.dir, id);
        read.map(|_| body).map_err(StoreError::io("read", &path))
    }

    /// The bundle at a location, inflated, and where in it the body is. That it is this body was made sure when it was
    /// written; that it is still what was written, the record's checksum says.
    fn open_small(
        &self,
        id: BlobId,
        location: Location,
    ) -> Result<(Arc<OpenBundle>, Range<usize>), StoreError> {
        let damaged = |what: &dyn ToString| {
            StoreError::damaged(&pack::path(&self.0.dir, location.segment), location.offset, what.to_string())
        };
        let opened = OpenBundle::open(&self.bundle_at(location)?).map_err(|error| damaged(&error))?;
        let range = opened.place(id).map_err(|error| damaged(&error))?;
        let bundle = Arc::new(opened);
        *lock(&self.0.recent) = Some(Arc::clone(&bundle));
        Ok((bundle, range))
    }

    /// Streams a body from an offset on. A compressed large body is inflated up to there first, at about a
    /// gigabyte a second.
    pub fn open_at(&self, id: BlobId, offset: u64) -> Result<BodyReader, StoreError> {
        let recent = lock(&self.0.recent).clone();
        if let Some(bundle) = recent
            && let Ok(range) = bundle.place(id)
        {
            return Ok(BodyReader::small(id, bundle, range, offset));
        }
        if let Some((bundle, range)) = self.located(id, |location| self.open_small(id, location))? {
            return Ok(BodyReader::small(id, bundle, range, offset));
        }
        match large::open(&self.0.dir, id)? {
            Some((file, header)) => BodyReader::large(file, header, offset),
            None => Err(StoreError::NoBody(id)),
        }
    }

    /// Where a small body lies: who reads many in this order inflates each bundle once.
    pub(crate) fn place(&self, id: BlobId) -> Result<Option<impl Ord + use<>>, StoreError> {
        Ok(self.locate(id)?.map(|location| (location.segment, location.offset)))
    }

    /// Whether the body is here.
    pub fn contains(&self, id: BlobId) -> Result<bool, StoreError> {
        Ok(self.locate(id)?.is_some() || large::path(&self.0.dir, id).exists())
    }

    /// The same for a body whose plain length is known: for a small one nothing is asked of the file system.
    pub fn contains_sized(&self, id: BlobId, plain: u64) -> Result<bool, StoreError> {
        if plain < MAX_SMALL as u64 { Ok(self.locate(id)?.is_some()) } else { self.contains(id) }
    }

    /// The plain length of a body, or nothing if it is not here.
    pub fn size(&self, id: BlobId) -> Result<Option<u64>, StoreError> {
        if let Some(location) = self.locate(id)? {
            return Ok(Some(u64::from(location.plain)));
        }
        Ok(large::open(&self.0.dir, id)?.map(|(_, header)| header.plain))
    }

    /// The pieces of a body that is being fetched, also those from before a restart.
    pub fn partial(&self, id: BlobId) -> Result<PartialBody, StoreError> {
        PartialBody::open(self.clone(), self.0.dir.join("partial").join(id.to_string()), id)
    }

    /// Bodies of which pieces are here, and how many bytes.
    pub fn partials(&self) -> Result<Vec<(BlobId, u64)>, StoreError> {
        let dir = self.0.dir.join("partial");
        let mut found = Vec::new();
        for entry in entries(&dir)? {
            let entry = entry?;
            let length = entry.metadata().map_err(StoreError::io("measure", &dir))?.len();
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
            found.extend(id.map(|id| (id, length)));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Makes everything that was put durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        lock(&self.0.writer).sync(&self.0.disk)
    }

    /// Makes everything durable and gives what the index does not know yet. The summaries are given once.
    pub(crate) fn sync_for_commit(&self) -> Result<Synced, StoreError> {
        let mut writer = lock(&self.0.writer);
        writer.sync(&self.0.disk)?;
        let pending = self.0.pending.read().unwrap_or_else(PoisonError::into_inner);
        let locations = pending.iter().map(|(id, location)| (*id, *location)).collect();
        Ok(Synced { end: writer.end, locations, summaries: self.0.summaries.take() })
    }

    /// Forgets what the index knows now.
    pub(crate) fn indexed(&self, synced: &Synced) {
        let mut pending = self.0.pending.write().unwrap_or_else(PoisonError::into_inner);
        for (id, location) in &synced.locations {
            if pending.get(id) == Some(location) {
                pending.remove(id);
            }
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0.dir
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.0.disk
    }

    fn append_all(&self, bundle: Option<Vec<u8>>) -> Result<(), StoreError> {
        bundle.map_or(Ok(()), |bundle| self.append(&bundle))
    }

    fn append(&self, bundle: &[u8]) -> Result<(), StoreError> {
        let inner = &*self.0;
        let record = pack::encode_record(bundle);
        let mut writer = lock(&inner.writer);
        if writer.in_doubt {
            return Err(StoreError::Poisoned);
        }
        if writer.end.offset + record.len() as u64 > SEGMENT_BYTES && writer.current.is_some() {
            writer.sync(&inner.disk)?;
            writer.current = None;
            writer.end = PackEnd { segment: writer.end.segment + 1, offset: SEGMENT_HEADER };
        }
        let current = match writer.current.take() {
            Some(file) => file,
            None => pack::create(&inner.disk, &inner.dir, inner.id, writer.end.segment)?,
        };
        let written = inner.disk.write_at(&current, writer.end.offset, &record);
        writer.current = Some(current);
        // A part that was written is overwritten by the next record, or cut off when the store is opened.
        written?;
        let found = pack::locations(bundle, writer.end.segment, writer.end.offset)?;
        writer.end.offset += record.len() as u64;
        writer.dirty = true;
        inner.pending.write().unwrap_or_else(PoisonError::into_inner).extend(found);
        Ok(())
    }

    fn summarized(&self, id: BlobId, mut body: &[u8]) -> Result<(), StoreError> {
        self.0.summaries.note(id, &mut body);
        Ok(self.0.summaries.flush(&self.0.index)?)
    }

    /// Whether a small body is in this record.
    pub(crate) fn is_at(&self, id: BlobId, segment: u32, offset: u64) -> Result<bool, StoreError> {
        Ok(self.locate(id)?.is_some_and(|location| (location.segment, location.offset) == (segment, offset)))
    }

    /// The records of a segment in which the index has bodies. Costs O(small bodies).
    pub(crate) fn records_of(&self, segment: u32) -> Result<Vec<(u64, Vec<BlobId>)>, StoreError> {
        let read = self.0.index.read()?;
        let table = read.open_table(BODIES).map_err(failed)?;
        let mut rows = Vec::new();
        for row in redb::ReadableTable::iter(&table).map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            let here = Location::decode(value.value()).filter(|location| location.segment == segment);
            if let (Some(location), Ok(id)) = (here, key.value().try_into()) {
                rows.push((location.offset, BlobId::from_bytes(id)));
            }
        }
        Ok(scrub::by_offset(rows))
    }

    /// Reads a small body where it is; once more, if it was moved and its old segment removed in between.
    fn located<R>(
        &self,
        id: BlobId,
        read: impl Fn(Location) -> Result<R, StoreError>,
    ) -> Result<Option<R>, StoreError> {
        let Some(location) = self.locate(id)? else { return Ok(None) };
        match read(location) {
            Err(error) => match self.locate(id)? {
                Some(moved) if moved == location => Err(error),
                moved => moved.map(read).transpose(),
            },
            done => done.map(Some),
        }
    }

    fn locate(&self, id: BlobId) -> Result<Option<Location>, StoreError> {
        if let Some(location) = self.0.pending.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Some(*location));
        }
        let table = self.0.index.read()?.open_table(BODIES).map_err(failed)?;
        let row = table.get(id.as_bytes().as_slice()).map_err(failed)?;
        Ok(row.and_then(|row| Location::decode(row.value())))
    }

    fn bundle_at(&self, location: Location) -> Result<Vec<u8>, StoreError> {
        let file = self.file(location.segment)?;
        let end = location.offset + pack::record_total(location.length as usize);
        pack::read_record(&file, location.offset, end)?
            .map_err(|what| StoreError::damaged(&file.path, location.offset, what))
    }

    fn file(&self, segment: u32) -> Result<Arc<DiskFile>, StoreError> {
        let mut files = lock(&self.0.files);
        if let Some(file) = files.get(&segment) {
            return Ok(Arc::clone(file));
        }
        if files.len() >= MAX_OPEN {
            files.pop_first();
        }
        let file = Arc::new(DiskFile::open(&pack::path(&self.0.dir, segment))?);
        files.insert(segment, Arc::clone(&file));
        Ok(file)
    }
}

/// A panic elsewhere leaves these values as they were before or after one assignment, never half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
