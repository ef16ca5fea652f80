//! Makes a damaged store usable again and says what has to be fetched from a peer.
//!
//! Nothing is thrown away: a log segment, a pack or a large body that is damaged is kept under another name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::blob::{BlobId, Bundle};
use crate::mailbox::ReplicaId;

use super::check::{
    Level, Meter, Problem, Progress, Walked, identify, large_bodies, verify_large, walk_segment,
};
use super::disk::{Disk, DiskFile, numbered};
use super::frame::{self, GroupWriter, Record};
use super::index::Index;
use super::lock::Lock;
use super::log::{LogFiles, segment_header};
use super::open::{BODY_DIR, INDEX, LOCK, LOG};
use super::pack::{self, Found, PackEnd};
use super::reader::{Reader, rows};
use super::{Position, Store, StoreError, StoreId, large, marker, snapshot};

/// What a repair did, and what is gone.
#[derive(Debug, Default)]
pub struct RepairReport {
    /// What was wrong and is now right or cut out.
    pub repaired: Vec<Problem>,
    /// Changes that have to be fetched from a peer.
    pub lost_changes: Vec<LostChanges>,
    /// Bodies that have to be fetched from a peer.
    pub lost_bodies: Vec<BlobId>,
    /// Whether groups may have lost records that are not shared: nobody else has those.
    pub lost_local: bool,
}

/// Changes `first..=last` of one actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostChanges {
    /// Who made them.
    pub actor: ReplicaId,
    /// The first that is gone.
    pub first: u64,
    /// The last that is gone.
    pub last: u64,
}

impl Store {
    /// Repairs a store that nobody has open: damaged groups are cut out of the log and damaged records out of the packs,
    /// damaged large bodies are put aside, damaged snapshots are removed, and the index is rebuilt. The next
    /// [`Store::open`] replays everything. A second repair finds nothing.
    pub fn repair(dir: &Path, progress: &mut dyn FnMut(Progress)) -> Result<RepairReport, StoreError> {
        let (id, _) = identify(dir)?;
        let lock = Lock::take(&dir.join(LOCK))?;
        let report = Repair::new(dir, Disk::default(), id, progress).run(lock)?;
        // Also makes sure that it does open.
        drop(Store::open(dir)?);
        Ok(report)
    }

    /// What [`Store::repair`] would do; changes nothing.
    pub fn plan_repair(dir: &Path, progress: &mut dyn FnMut(Progress)) -> Result<RepairReport, StoreError> {
        let (id, _) = identify(dir)?;
        let lock = Lock::share(&dir.join(LOCK))?;
        Repair::new(dir, Disk::read_only(), id, progress).run(lock)
    }
}

/// A repair, or the plan of one where the disk is only read.
struct Repair<'a> {
    dir: &'a Path,
    disk: Disk,
    id: StoreId,
    files: Arc<LogFiles>,
    report: RepairReport,
    meter: Meter<'a>,
}

impl<'a> Repair<'a> {
    fn new(dir: &'a Path, disk: Disk, id: StoreId, progress: &'a mut dyn FnMut(Progress)) -> Repair<'a> {
        let files = Arc::new(LogFiles::new(&dir.join(LOG), id));
        Repair { dir, disk, id, files, report: RepairReport::default(), meter: Meter { done: 0, progress } }
    }

    fn acts(&self) -> bool {
        !self.disk.is_read_only()
    }

    fn run(mut self, lock: Lock) -> Result<RepairReport, StoreError> {
        let lock = Arc::new(lock);
        if let Some(problem) = identify(self.dir)?.1 {
            self.report.repaired.push(problem);
            if self.acts() {
                marker::write(self.dir, &self.disk, self.id)?;
            }
        }
        let before = if self.dir.join(INDEX).exists() {
            Before::read(self.dir, self.id, &lock, &self.files).unwrap_or_else(|error| {
                self.report.repaired.push(Problem::Index(error.to_string()));
                Before::default()
            })
        } else {
            Before::default()
        };
        self.log(&before)?;
        let whole = self.packs(&before)?;
        self.large()?;
        self.report.lost_bodies.extend(before.bodies.difference(&whole));
        self.snapshots()?;
        if self.acts() {
            self.disk.remove(&self.dir.join(INDEX))?;
            self.disk.sync_dir(self.dir)?;
        }
        Ok(self.report)
    }

    fn large(&mut self) -> Result<(), StoreError> {
        let bodies = self.dir.join(BODY_DIR);
        for id in large_bodies(&bodies)? {
            let path = large::path(&bodies, id);
            if let Some((offset, what)) = verify_large(&bodies, id, Level::Full)? {
                if self.acts() {
                    self.disk.rename(&path, &path.with_extension("damaged"))?;
                }
                self.report.repaired.push(Problem::Damaged { path: path.clone(), offset, what });
                self.report.lost_bodies.push(id);
            }
            self.meter.file(&path);
        }
        Ok(())
    }

    fn snapshots(&mut self) -> Result<(), StoreError> {
        for position in snapshot::list(self.dir)? {
            let path = snapshot::path(self.dir, position);
            if let Err(StoreError::Damaged { offset, what, .. }) = snapshot::read(self.dir, self.id, position)
            {
                if self.acts() {
                    self.disk.remove(&path)?;
                }
                self.report.repaired.push(Problem::Damaged { path, offset, what });
            }
        }
        Ok(())
    }

    /// Writes packs that hold damage anew without it. Gives the bodies of all whole records.
    fn packs(&mut self, before: &Before) -> Result<BTreeSet<BlobId>, StoreError> {
        let dir = self.dir.join(BODY_DIR);
        let mut whole = BTreeSet::new();
        let mut records: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
        let mut damaged = BTreeMap::new();
        pack::scan(&dir, self.id, PackEnd::START, before.packs, |found| {
            match found {
                Found::Damage { path, offset, what } => {
                    damaged.entry(path.to_owned()).or_insert_with(Vec::new).push((offset, what.to_owned()));
                }
                Found::Record { segment, offset, bundle } => match Bundle::decode(bundle) {
                    Ok(bodies) => {
                        whole.extend(bodies.into_iter().map(|(id, _)| id));
                        let end = offset + pack::record_total(bundle.len());
                        records.entry(segment).or_default().push((offset, end));
                    }
                    Err(error) => {
                        let path = pack::path(&dir, segment);
                        damaged.entry(path).or_default().push((offset, error.to_string()));
                    }
                },
            }
            Ok(())
        })?;
        for segment in numbered(&dir, pack::EXTENSION)? {
            let path = pack::path(&dir, segment);
            if let Some(damaged) = damaged.remove(&path) {
                if self.acts() {
                    let old = DiskFile::open(&path)?;
                    let records = records.remove(&segment).unwrap_or_default();
                    let parts = records.into_iter().map(|(from, to)| copied(&old, from, to));
                    replace_damaged(&self.disk, &path, &pack::segment_header(self.id), parts)?;
                }
                let problem = |(offset, what)| Problem::Damaged { path: path.clone(), offset, what };
                self.report.repaired.extend(damaged.into_iter().map(problem));
            }
            self.meter.file(&path);
        }
        Ok(whole)
    }

    fn log(&mut self, before: &Before) -> Result<(), StoreError> {
        let mut seen = Seen::default();
        let mut position = Position(0);
        let segments = self.files.segments()?;
        for segment in &segments {
            let last = Some(segment) == segments.last();
            let (first, path) = (position, self.files.path(*segment));
            let mut parts = Vec::new();
            let file = self.files.file(*segment)?;
            let report = &mut self.report;
            position = walk_segment(&self.files, *segment, last, position, before.position, &mut |event| {
                match event {
                    Walked::Group(read) => {
                        let start = read.spans.first().map_or(read.end, |span| span.offset);
                        seen.add(&read.group.records);
                        parts.push(Part::Keep(start, read.end));
                    }
                    Walked::Damage { offset, what, from, to, first, last } => {
                        let path = path.clone();
                        report.repaired.push(Problem::Damaged { path, offset, what: what.to_owned() });
                        let found = frame::salvage(&file, from, to)?;
                        seen.add(found.iter().map(|(_, record)| record));
                        report.lost_local |= first <= last;
                        parts.push(Part::Replace { first, last, found });
                    }
                }
                Ok(())
            })?;
            if self.acts() && parts.iter().any(|part| matches!(part, Part::Replace { .. })) {
                let parts = parts.iter().map(|part| match part {
                    Part::Keep(from, to) => copied(&file, *from, *to),
                    Part::Replace { first, last, found } => stand_ins(*first, *last, found),
                });
                replace_damaged(&self.disk, &path, &segment_header(self.id, first), parts)?;
            }
            self.meter.file(&path);
        }
        self.report.lost_changes = seen.gaps(&before.actors);
        Ok(())
    }
}

/// What the old index knew.
struct Before {
    position: Position,
    actors: BTreeMap<ReplicaId, u64>,
    bodies: BTreeSet<BlobId>,
    packs: PackEnd,
}

impl Default for Before {
    fn default() -> Before {
        let (actors, bodies) = (BTreeMap::new(), BTreeSet::new());
        Before { position: Position(0), actors, bodies, packs: PackEnd::START }
    }
}

impl Before {
    fn read(dir: &Path, id: StoreId, lock: &Arc<Lock>, files: &Arc<LogFiles>) -> Result<Before, StoreError> {
        let (index, _) = Index::try_open(&dir.join(INDEX), &Disk::read_only(), id, lock, true)?;
        let reader = Reader::new(&Arc::new(index), files)?;
        let mut bodies = BTreeSet::new();
        for row in rows(reader.body_rows()?, &[], &[])? {
            bodies.extend(row?.0.as_slice().try_into().map(BlobId::from_bytes));
        }
        let (position, packs) = (reader.position(), reader.packs());
        Ok(Before { position, actors: reader.actors()?, bodies, packs })
    }
}

/// A piece of the segment that replaces a damaged one.
enum Part {
    Keep(u64, u64),
    Replace { first: Position, last: Position, found: Vec<(Position, Record)> },
}

fn copied(file: &DiskFile, from: u64, to: u64) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; (to - from) as usize];
    file.read_at(from, &mut bytes)?;
    Ok(bytes)
}

/// Puts a header and parts in the place of a file, which is kept under another name.
fn replace_damaged(
    disk: &Disk,
    path: &Path,
    header: &[u8],
    parts: impl Iterator<Item = Result<Vec<u8>, StoreError>>,
) -> Result<(), StoreError> {
    let new = disk.create(&path.with_extension("repaired"))?;
    disk.write_at(&new, 0, header)?;
    let mut at = header.len() as u64;
    for part in parts {
        let bytes = part?;
        disk.write_at(&new, at, &bytes)?;
        at += bytes.len() as u64;
    }
    disk.sync(&new)?;
    // The damaged file keeps a second name until the new one has taken its place.
    let kept = path.with_extension("damaged");
    disk.remove(&kept)?;
    std::fs::hard_link(path, &kept).map_err(StoreError::io("keep", path))?;
    disk.rename(&new.path, path)?;
    disk.sync_dir(path.parent().expect("a file of a store is in a directory"))
}

/// Groups in place of damaged ones: what could be saved of each, and the note that something is lost.
fn stand_ins(first: Position, last: Position, found: &[(Position, Record)]) -> Result<Vec<u8>, StoreError> {
    let mut out = Vec::new();
    for number in first.0..=last.0 {
        let mut group = GroupWriter::new(Position(number));
        for (_, record) in found.iter().filter(|(position, _)| position.0 == number) {
            match record {
                Record::Change(change) => {
                    let (hash, signature) = (&change.hash, change.signature.as_ref());
                    group.change(change.actor, change.seq, hash, &change.bytes, signature)?;
                }
                Record::Local(bytes) => group.local(bytes).map(drop)?,
                Record::Lost => {}
            }
        }
        group.lost()?;
        out.extend_from_slice(&group.finish());
    }
    Ok(out)
}

/// Which changes are in the log.
#[derive(Default)]
struct Seen(BTreeMap<ReplicaId, BTreeSet<u64>>);

impl Seen {
    fn add<'a>(&mut self, records: impl IntoIterator<Item = &'a Record>) {
        for record in records {
            if let Record::Change(change) = record {
                self.0.entry(change.actor).or_default().insert(change.seq);
            }
        }
    }

    fn gaps(&self, known: &BTreeMap<ReplicaId, u64>) -> Vec<LostChanges> {
        let actors: BTreeSet<ReplicaId> = self.0.keys().chain(known.keys()).copied().collect();
        let mut gaps = Vec::new();
        for actor in actors {
            let mut expected = 1;
            let seen = self.0.get(&actor).into_iter().flatten().copied();
            let end = known.get(&actor).map_or(0, |last| last + 1);
            for seq in seen.chain(Some(end)) {
                if seq > expected {
                    gaps.push(LostChanges { actor, first: expected, last: seq - 1 });
                }
                expected = expected.max(seq + 1);
            }
        }
        gaps
    }
}
