//! Makes a damaged store usable again and says what has to be fetched from a peer.
//!
//! Nothing is thrown away: a log segment or a large body that is damaged is kept under another name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::blob::BlobId;
use crate::mailbox::ReplicaId;

use super::check::{Level, Meter, Problem, Progress, Walked, large_bodies, verify_large, walk_segment};
use super::disk::Disk;
use super::frame::{self, GroupWriter, Record};
use super::index::Index;
use super::lock::Lock;
use super::log::{LogFiles, SEGMENT_HEADER, segment_header};
use super::open::{BODY_DIR, INDEX, LOCK, LOG};
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
    /// Repairs a store that nobody has open: damaged groups are cut out of the log, damaged bodies are put
    /// aside, damaged snapshots are removed, and the index is rebuilt. The next [`Store::open`] replays
    /// everything.
    pub fn repair(dir: &Path, progress: &mut dyn FnMut(Progress)) -> Result<RepairReport, StoreError> {
        let id = marker::read(dir)?;
        let lock = Arc::new(Lock::take(&dir.join(LOCK))?);
        let disk = Disk::default();
        let mut report = RepairReport::default();
        let mut meter = Meter { done: 0, progress };
        let files = Arc::new(LogFiles::new(&dir.join(LOG), id));
        let before = Before::read(dir, &disk, id, &lock, &files).unwrap_or_else(|error| {
            report.repaired.push(Problem::Index(error.to_string()));
            Before::default()
        });
        repair_log(&files, &disk, id, &before, &mut report, &mut meter)?;
        let bodies = dir.join(BODY_DIR);
        for id in large_bodies(&bodies)? {
            let path = large::path(&bodies, id);
            if let Some((offset, what)) = verify_large(&bodies, id, Level::Full)? {
                disk.rename(&path, &path.with_extension("damaged"))?;
                report.repaired.push(Problem::Damaged { path: path.clone(), offset, what });
                report.lost_bodies.push(id);
            }
            meter.file(&path);
        }
        for position in snapshot::list(dir)? {
            let path = snapshot::path(dir, position);
            if let Err(StoreError::Damaged { offset, what, .. }) = snapshot::read(dir, id, position) {
                disk.remove(&path)?;
                report.repaired.push(Problem::Damaged { path, offset, what });
            }
        }
        disk.remove(&dir.join(INDEX))?;
        disk.sync_dir(dir)?;
        drop((lock, files));
        let store = Store::open(dir)?;
        for id in before.bodies {
            if !store.bodies().contains(id)? {
                report.lost_bodies.push(id);
            }
        }
        Ok(report)
    }
}

/// What the old index knew.
#[derive(Default)]
struct Before {
    position: Position,
    actors: BTreeMap<ReplicaId, u64>,
    bodies: BTreeSet<BlobId>,
}

impl Before {
    fn read(
        dir: &Path,
        disk: &Disk,
        id: StoreId,
        lock: &Arc<Lock>,
        files: &Arc<LogFiles>,
    ) -> Result<Before, StoreError> {
        let (index, _) = Index::try_open(&dir.join(INDEX), disk, id, lock, true)?;
        let reader = Reader::new(&Arc::new(index), files)?;
        let mut bodies = BTreeSet::new();
        for row in rows(reader.body_rows(), &[], &[])? {
            bodies.extend(row?.0.as_slice().try_into().map(BlobId::from_bytes));
        }
        Ok(Before { position: reader.position(), actors: reader.actors()?, bodies })
    }
}

fn repair_log(
    files: &LogFiles,
    disk: &Disk,
    id: StoreId,
    before: &Before,
    report: &mut RepairReport,
    meter: &mut Meter<'_>,
) -> Result<(), StoreError> {
    let mut seen = Seen::default();
    let mut position = Position(0);
    let segments = files.segments()?;
    for segment in &segments {
        let last = Some(segment) == segments.last();
        let first = position;
        let mut parts = Vec::new();
        let file = files.file(*segment)?;
        position = walk_segment(files, *segment, last, position, before.position, &mut |event| {
            match event {
                Walked::Group(read) => {
                    let start = read.spans.first().map_or(read.end, |span| span.offset);
                    seen.add(&read.group.records);
                    parts.push(Part::Keep(start, read.end));
                }
                Walked::Damage { offset, what, from, to, first, last } => {
                    let path = files.path(*segment);
                    report.repaired.push(Problem::Damaged { path, offset, what: what.to_owned() });
                    let found = frame::salvage(&file, from, to)?;
                    seen.add(found.iter().map(|(_, record)| record));
                    report.lost_local |= first <= last;
                    parts.push(Part::Replace { first, last, found });
                }
            }
            Ok(())
        })?;
        if parts.iter().any(|part| matches!(part, Part::Replace { .. })) {
            rewrite(files, disk, *segment, &segment_header(id, first), &parts)?;
        }
        meter.file(&files.path(*segment));
    }
    report.lost_changes = seen.gaps(&before.actors);
    Ok(())
}

/// A piece of the segment that replaces a damaged one.
enum Part {
    Keep(u64, u64),
    Replace { first: Position, last: Position, found: Vec<(Position, Record)> },
}

fn rewrite(
    files: &LogFiles,
    disk: &Disk,
    segment: u32,
    header: &[u8; SEGMENT_HEADER as usize],
    parts: &[Part],
) -> Result<(), StoreError> {
    let path = files.path(segment);
    let old = files.file(segment)?;
    let new = disk.create(&path.with_extension("repaired"))?;
    disk.write_at(&new, 0, header)?;
    let mut at = SEGMENT_HEADER;
    for part in parts {
        let bytes = match part {
            Part::Keep(from, to) => {
                let mut bytes = vec![0; (to - from) as usize];
                old.read_at(*from, &mut bytes)?;
                bytes
            }
            Part::Replace { first, last, found } => stand_ins(*first, *last, found)?,
        };
        disk.write_at(&new, at, &bytes)?;
        at += bytes.len() as u64;
    }
    disk.sync(&new)?;
    // The damaged segment keeps a second name until the new one has taken its place.
    let kept = path.with_extension("damaged");
    disk.remove(&kept)?;
    std::fs::hard_link(&path, &kept).map_err(StoreError::io("keep", &path))?;
    disk.rename(&new.path, &path)?;
    disk.sync_dir(path.parent().expect("a segment is in the log directory"))
}

/// Groups in place of damaged ones: what could be saved of each, and the note that something is lost.
fn stand_ins(first: Position, last: Position, found: &[(Position, Record)]) -> Result<Vec<u8>, StoreError> {
    let mut out = Vec::new();
    for number in first.0..=last.0 {
        let mut group = GroupWriter::new(Position(number));
        for (_, record) in found.iter().filter(|(position, _)| position.0 == number) {
            match record {
                Record::Change(change) => {
                    group.change(change.actor, change.seq, &change.hash, &change.bytes).map(drop)?;
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
