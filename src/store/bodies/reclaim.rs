//! Giving space back: bodies that nobody needs go, and segments that hold little else are written anew.
//!
//! A large body is unlinked. A small one loses its row in the index, and is not here from then on; its bytes go when its
//! segment is compacted: what lives in there is appended again, as if it had just come, and once the index that says so is
//! durable the file is removed. So at every moment the index names a place where the body is, a reader that was a moment too
//! late looks again, and a crash leaves a segment too many at worst. Numbers of segments are never used again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use crate::blob::{BlobId, Bundle, Bundler, MAX_BUNDLE_BODIES, OpenBundle};
use crate::uid::Table;

use super::super::disk::{DiskFile, numbered};
use super::super::index::{BODIES, IndexState, definition_of, failed};
use super::super::large;
use super::super::pack::{self, Location, PackEnd, SEGMENT_HEADER};
use super::super::{Store, StoreError};
use super::{BodyStore, lock};

/// Bytes of a bundle's list of bodies, at most: four before it, 35 for each.
const LIST: usize = 4 + MAX_BUNDLE_BODIES * 35;

/// While one lives, no file is removed: a check or a backup reads what its index knew when it began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hold(Arc<()>);

/// How much of a pack segment is still needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentUse {
    /// Its number.
    pub segment: u32,
    /// Its length in bytes.
    pub bytes: u64,
    /// Bytes that would be given back.
    pub dead: u64,
}

impl SegmentUse {
    /// A quarter of it must be dead, and a mebibyte: writing the rest anew then costs at most three bytes for each that is
    /// given back, and small stores are not rewritten for nothing.
    pub fn is_worth_compacting(&self) -> bool {
        self.dead >= (self.bytes / 4).max(1 << 20)
    }
}

/// What one step of a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Where the next step begins; nothing at the end of the segment.
    pub(crate) next: Option<u64>,
    /// Bytes of bundles that were read.
    pub(crate) read: u64,
}

impl BodyStore {
    /// Has all files stay while it lives.
    pub(crate) fn hold(&self) -> Hold {
        self.0.holds.clone()
    }

    fn is_held(&self) -> bool {
        Arc::strong_count(&self.0.holds.0) > 1
    }

    /// Somebody is about to refer to a body that is here, or is not.
    pub(crate) fn pin(&self, id: BlobId) {
        lock(&self.0.pins).pin(id);
    }

    /// A round of forgetting begins: what was pinned before the last one counts no more.
    pub(crate) fn turn_pins(&self) {
        lock(&self.0.pins).turn();
    }

    /// Which segments there are and how much of each is needed. Costs O(small bodies), and a read for each bundle.
    pub fn segments(&self) -> Result<Vec<SegmentUse>, StoreError> {
        let mut live: BTreeMap<(u32, u64), u64> = BTreeMap::new();
        let mut count = |location: Location| {
            *live.entry((location.segment, location.offset)).or_default() += u64::from(location.plain);
        };
        let pending = self.0.pending.read().unwrap_or_else(PoisonError::into_inner).clone();
        let read = self.0.index.read()?;
        let table = read.open_table(BODIES).map_err(failed)?;
        for row in redb::ReadableTable::iter(&table).map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            let moved = key.value().try_into().is_ok_and(|id| pending.contains_key(&BlobId::from_bytes(id)));
            Location::decode(value.value()).filter(|_| !moved).into_iter().for_each(&mut count);
        }
        pending.into_values().for_each(&mut count);
        let mut segments = Vec::new();
        for segment in numbered(&self.0.dir, pack::EXTENSION)? {
            let file = DiskFile::open(&pack::path(&self.0.dir, segment))?;
            let end = self.end_of(segment, &file)?;
            let (mut at, mut dead) = (SEGMENT_HEADER, 0);
            while let Some((length, bodies)) = list(&file, at, end)? {
                let plain: u64 = bodies.iter().map(|(_, plain)| *plain as u64).sum();
                let needed = live.get(&(segment, at)).copied().unwrap_or(0).min(plain);
                let total = pack::record_total(length);
                // Of an empty body nothing can be saved.
                dead += total * (plain - needed) / plain.max(1);
                at += total;
            }
            segments.push(SegmentUse { segment, bytes: end, dead });
        }
        Ok(segments)
    }

    /// Where the records of a segment end.
    fn end_of(&self, segment: u32, file: &DiskFile) -> Result<u64, StoreError> {
        let PackEnd { segment: current, offset } = lock(&self.0.writer).end;
        if segment == current { Ok(offset) } else { file.len() }
    }

    /// Appends what lives in a segment again, from an offset on, until `budget` bytes were read. The segment must be whole:
    /// damage is an error, and is left where it is.
    pub(crate) fn evacuate(&self, segment: u32, from: u64, budget: u64) -> Result<Moved, StoreError> {
        self.leave(segment)?;
        let file = self.file(segment)?;
        let (end, mut at) = (file.len()?, from.max(SEGMENT_HEADER));
        let mut bundler = Bundler::new();
        while at < end && at - from.min(at) < budget {
            let bundle = match pack::read_record(&file, at, end)? {
                Ok(bundle) => bundle,
                // What is damaged was taken out by a scrub, or has to be first.
                Err(what) => {
                    let next = pack::next_record(&file, at + 1, end)?.unwrap_or(end);
                    if self.lives_within(segment, at..next)? {
                        return Err(StoreError::damaged(&file.path, at, what));
                    }
                    at = next;
                    continue;
                }
            };
            let damaged =
                |error: crate::blob::BundleError| StoreError::damaged(&file.path, at, error.to_string());
            let bodies = Bundle::index(&bundle).map_err(damaged)?;
            let mut living = Vec::new();
            for (id, _) in &bodies {
                let here = |location: &Location| (location.segment, location.offset) == (segment, at);
                living.extend(self.locate(*id)?.filter(here).map(|_| *id));
            }
            if living.len() == bodies.len() {
                self.append(&bundle)?;
            } else if !living.is_empty() {
                let opened = OpenBundle::open(&bundle).map_err(damaged)?;
                for id in living {
                    let body = opened.checked(id).map_err(damaged)?;
                    if !bundler.fits(body.len()) {
                        self.append_all(bundler.finish()?)?;
                    }
                    bundler.push(id, body.to_vec());
                }
            }
            at += pack::record_total(bundle.len());
        }
        self.append_all(bundler.finish()?)?;
        Ok(Moved { next: (at < end).then_some(at), read: at - from.min(at) })
    }

    /// Goes on in another segment, if this is the one that is written to. Its successor is there before the segment can go:
    /// else a store whose index is lost could use the number again.
    fn leave(&self, segment: u32) -> Result<(), StoreError> {
        let inner = &*self.0;
        let mut writer = lock(&inner.writer);
        if writer.in_doubt {
            return Err(StoreError::Poisoned);
        }
        if writer.end.segment == segment {
            writer.sync(&inner.disk)?;
            let next = segment + 1;
            let file = pack::create(&inner.disk, &inner.dir, inner.id, next)?;
            writer.current = Some(file);
            writer.end = PackEnd { segment: next, offset: SEGMENT_HEADER };
        }
        Ok(())
    }

    /// Forgets bodies, except those that are pinned; gives the names and plain sizes of those that are gone. While files are
    /// held, none goes. The caller holds the store's only writer.
    fn forget(&self, ids: &[BlobId], state: IndexState) -> Result<Vec<(BlobId, u64)>, StoreError> {
        let inner = &*self.0;
        // Who puts one of them now waits, and then finds it gone.
        let pins = lock(&inner.pins);
        if self.is_held() {
            return Ok(Vec::new());
        }
        let mut gone = Vec::new();
        let mut buckets = BTreeSet::new();
        for id in ids.iter().filter(|id| !pins.holds(id)) {
            if let Some(location) = self.locate(*id)? {
                gone.push((*id, u64::from(location.plain)));
            } else if let Ok(Some((_, header))) = large::open(&inner.dir, *id) {
                let path = large::path(&inner.dir, *id);
                inner.disk.remove(&path)?;
                buckets.extend(path.parent().map(std::path::Path::to_owned));
                gone.push((*id, header.plain));
            }
        }
        for bucket in buckets {
            inner.disk.sync_dir(&bucket)?;
        }
        self.drop_rows(gone.iter().map(|(id, _)| *id), state)?;
        Ok(gone)
    }

    /// From now on these small bodies are not here.
    fn drop_rows(
        &self,
        ids: impl Iterator<Item = BlobId> + Clone,
        state: IndexState,
    ) -> Result<(), StoreError> {
        let inner = &*self.0;
        inner.index.commit(state, false, |write| {
            let mut bodies = write.open_table(BODIES).map_err(failed)?;
            let mut summaries = write.open_table(definition_of(Table::Summaries)).map_err(failed)?;
            for id in ids.clone() {
                bodies.remove(id.as_bytes().as_slice()).map_err(failed)?;
                summaries.remove(id.as_bytes().as_slice()).map_err(failed)?;
            }
            Ok(())
        })?;
        let mut pending = inner.pending.write().unwrap_or_else(PoisonError::into_inner);
        ids.for_each(|id| {
            pending.remove(&id);
        });
        // What was read last may be one of them.
        *lock(&inner.recent) = None;
        Ok(())
    }

    /// Whether the index has a body in some records of a segment. Costs O(small bodies).
    fn lives_within(&self, segment: u32, records: std::ops::Range<u64>) -> Result<bool, StoreError> {
        Ok(self.records_of(segment)?.iter().any(|(offset, _)| records.contains(offset)))
    }

    /// Removes a segment in which nothing lives according to an index that is durable; false if something does, or if
    /// somebody needs it to stay.
    fn remove_segment(&self, segment: u32) -> Result<bool, StoreError> {
        let inner = &*self.0;
        let path = pack::path(&inner.dir, segment);
        let file = DiskFile::open(&path)?;
        let (end, mut at) = (file.len()?, SEGMENT_HEADER);
        while let Some((length, bodies)) = list(&file, at, end)? {
            for (id, _) in bodies {
                if self.locate(id)?.is_some_and(|location| location.segment == segment) {
                    return Ok(false);
                }
            }
            at += pack::record_total(length);
        }
        if at != end && self.lives_within(segment, 0..end)? {
            return Ok(false);
        }
        if self.is_held() || lock(&inner.writer).end.segment == segment {
            return Ok(false);
        }
        inner.disk.remove(&path)?;
        lock(&inner.files).remove(&segment);
        inner.disk.sync_dir(&inner.dir)?;
        Ok(true)
    }
}

impl Store {
    /// Forgets bodies that nobody needs: the caller knows that no message does. Gives those that went, with their sizes;
    /// what was put a moment ago stays. A power cut may bring small ones back, which does no harm.
    pub(crate) fn forget_bodies(&mut self, ids: &[BlobId]) -> Result<Vec<(BlobId, u64)>, StoreError> {
        if self.is_read_only() {
            return Err(StoreError::ReadOnly { path: self.dir.clone() });
        }
        self.since_durable.0 += 1;
        self.written += (ids.len() * super::super::BODY_ROW) as u64;
        let forgotten = self.bodies.forget(ids, self.state);
        // The index may be ahead of what is known here, or behind it; opening the store again tells.
        self.poisoned |= matches!(forgotten, Err(StoreError::Index(_)));
        forgotten
    }

    /// The same for bodies that are damaged, whoever needs them.
    pub(crate) fn drop_rows(&mut self, ids: &[BlobId]) -> Result<(), StoreError> {
        self.since_durable.0 += 1;
        let dropped = self.bodies.drop_rows(ids.iter().copied(), self.state);
        self.poisoned |= dropped.is_err();
        dropped
    }

    /// Removes a segment that [`BodyStore::evacuate`] has gone through; false if it has to stay for now.
    pub(crate) fn remove_segment(&mut self, segment: u32) -> Result<bool, StoreError> {
        // What moved is durable, and the index that says where to, before the old place goes.
        self.begin()?.commit()?;
        self.settle()?;
        self.bodies.remove_segment(segment)
    }
}

/// The length of a bundle, and its bodies with their plain lengths.
type Listed = (usize, Vec<(BlobId, usize)>);

/// The bundle in the record at `offset`; nothing at the end, or where no whole record is. Only
/// the list is read.
fn list(file: &DiskFile, offset: u64, end: u64) -> Result<Option<Listed>, StoreError> {
    let Some(length) = pack::record_at(file, offset, end)? else { return Ok(None) };
    let mut head = vec![0; length.min(LIST)];
    file.read_at(offset + pack::RECORD_HEADER as u64, &mut head)?;
    Ok(Bundle::index(&head).ok().map(|bodies| (length, bodies)))
}
