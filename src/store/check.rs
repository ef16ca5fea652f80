//! Looks at every file of a store and says what is wrong with it; changes nothing but the index's own repair.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blob::{BlobId, Bundle};
use crate::mailbox::ReplicaId;

use super::bodies::Hold;
use super::body_reader::BodyReader;
use super::disk::{Disk, entries};
use super::frame::{self, ReadGroup, Record};
use super::index::Index;
use super::large;
use super::lock::Lock;
use super::log::{LogFiles, SEGMENT_HEADER};
use super::open::{BODY_DIR, INDEX, LOCK, LOG};
use super::pack::{self, Found, Location, PackEnd};
use super::reader::{ChangeRow, Reader, rows};
use super::{Position, Store, StoreError, StoreId, marker, snapshot};

/// How closely a check looks at bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Checksums of the log, packs, snapshots and index; headers of large bodies.
    Quick,
    /// Every body is inflated and hashed too.
    Full,
}

/// How far a check, repair or backup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The file that is done.
    pub path: PathBuf,
    /// Bytes that are done, over all files.
    pub done: u64,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// Nothing is wrong if this is empty.
    pub problems: Vec<Problem>,
    /// Groups of the log that are whole.
    pub groups: u64,
    /// Small bodies and large ones that are whole.
    pub bodies: u64,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A file is not as it was written.
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A change of the log is not in the index, or elsewhere: rebuild the index.
    NotIndexed {
        /// Who made it.
        actor: ReplicaId,
        /// Its number.
        seq: u64,
    },
    /// The index knows a body that is not there: fetch it from a peer.
    LostBody(BlobId),
    /// The index cannot be used: rebuild it.
    Index(String),
    /// The file that says who the replica is cannot be used.
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The membership log cannot be used as a whole.
    Members {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Records of the membership log follow one that is not here.
    MissingMembers {
        /// The file.
        path: PathBuf,
    },
    /// Changes of the log follow ones that are lost, and are not shown before those are here.
    Waiting {
        /// How many wait.
        changes: u64,
    },
}

/// What helps against a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// A repair. What it cannot bring back, the next conversation with a peer does.
    Repair,
    /// A conversation with a peer.
    Sync,
    /// The file as a backup has it.
    Restore,
}

impl Problem {
    /// What helps.
    pub fn remedy(&self) -> Remedy {
        match self {
            Problem::Damaged { .. }
            | Problem::NotIndexed { .. }
            | Problem::LostBody(_)
            | Problem::Index(_)
            | Problem::Members { .. } => Remedy::Repair,
            Problem::Waiting { .. } | Problem::MissingMembers { .. } => Remedy::Sync,
            Problem::Identity { .. } => Remedy::Restore,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Damaged { path, offset, what } => {
                write!(f, "{} is damaged at byte {offset}: {what}", path.display())
            }
            Problem::NotIndexed { actor, seq } => write!(f, "change {seq} of {actor} is not in the index"),
            Problem::LostBody(id) => write!(f, "the body {id} is lost"),
            Problem::Index(what) => write!(f, "the index cannot be used: {what}"),
            Problem::Identity { path, what } | Problem::Members { path, what } => {
                write!(f, "{} cannot be used: {what}", path.display())
            }
            Problem::MissingMembers { path } => {
                let path = path.display();
                write!(
                    f,
                    "{path} lacks a record that others follow; a peer that is still known brings it, or the file of \
                     another replica is copied"
                )
            }
            Problem::Waiting { changes } => {
                write!(f, "{changes} changes wait for ones that are lost and are not shown")
            }
        }
    }
}

impl CheckReport {
    fn damaged(&mut self, path: &Path, offset: u64, what: impl ToString) {
        self.problems.push(Problem::Damaged { path: path.to_owned(), offset, what: what.to_string() });
    }

    /// Takes damage as a finding and passes other errors on.
    fn note<T>(&mut self, result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::Damaged { path, offset, what }) => {
                self.damaged(&path, offset, what);
                Ok(None)
            }
            Err(StoreError::Missing { path }) => {
                self.damaged(&path, 0, "the file is missing");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Store {
    /// Checks a store that nobody writes to, and changes nothing. Where there is no index, as in a backup, none is missed.
    pub fn check(
        dir: &Path,
        level: Level,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<CheckReport, StoreError> {
        let (id, problem) = identify(dir)?;
        let lock = Arc::new(Lock::share(&dir.join(LOCK))?);
        let mut report = CheckReport::default();
        report.problems.extend(problem);
        let mut meter = Meter { done: 0, progress };
        let files = Arc::new(LogFiles::new(&dir.join(LOG), id));
        let path = dir.join(INDEX);
        let index = path.exists().then(|| Index::try_open(&path, &Disk::read_only(), id, &lock, true));
        let reader = match index.transpose() {
            Ok(None) => None,
            Ok(Some((index, _))) => Some(Reader::new(&Arc::new(index), &files)?),
            Err(error) => {
                report.problems.push(Problem::Index(error.to_string()));
                None
            }
        };
        // Nobody writes to it.
        let checker = Checker { dir: dir.to_owned(), id, files, reader, _hold: Hold::default() };
        checker.look(level, &mut report, &mut meter)?;
        Ok(report)
    }

    /// Checks this open store as of the last commit, beside whatever goes on.
    pub fn checker(&self) -> Result<Checker, StoreError> {
        let files = Arc::clone(self.log.files());
        let (hold, reader) = (self.bodies.hold(), Some(self.reader()?));
        Ok(Checker { dir: self.dir.clone(), id: self.id, files, reader, _hold: hold })
    }
}

/// What a check looks at.
#[derive(Debug)]
pub struct Checker {
    dir: PathBuf,
    id: StoreId,
    files: Arc<LogFiles>,
    reader: Option<Reader>,
    /// What the reader knows of must not be taken away meanwhile.
    _hold: Hold,
}

impl Checker {
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Looks at every file.
    pub fn check(&self, level: Level, progress: &mut dyn FnMut(Progress)) -> Result<CheckReport, StoreError> {
        let mut report = CheckReport::default();
        report.problems.extend(identify(&self.dir)?.1);
        self.look(level, &mut report, &mut Meter { done: 0, progress })?;
        Ok(report)
    }

    fn look(&self, level: Level, report: &mut CheckReport, meter: &mut Meter<'_>) -> Result<(), StoreError> {
        let (dir, reader) = (&self.dir, self.reader.as_ref());
        check_log(&self.files, reader, report, meter)?;
        check_packs(&dir.join(BODY_DIR), self.id, level, reader, report, meter)?;
        check_large(&dir.join(BODY_DIR), level, report, meter)?;
        for position in snapshot::list(dir)? {
            report.note(snapshot::read(dir, self.id, position))?;
            meter.file(&snapshot::path(dir, position));
        }
        Ok(())
    }
}

/// Which store this is. Where the file that says so is damaged, the log says it too.
pub(crate) fn identify(dir: &Path) -> Result<(StoreId, Option<Problem>), StoreError> {
    match marker::read(dir) {
        Ok(id) => Ok((id, None)),
        Err(StoreError::Damaged { path, offset, what }) => match super::log::id_in(&dir.join(LOG))? {
            Some(id) => Ok((id, Some(Problem::Damaged { path, offset, what }))),
            None => Err(StoreError::Damaged { path, offset, what }),
        },
        Err(error) => Err(error),
    }
}

/// Tells the caller after each file.
pub(crate) struct Meter<'a> {
    pub(crate) done: u64,
    pub(crate) progress: &'a mut dyn FnMut(Progress),
}

impl Meter<'_> {
    pub(crate) fn file(&mut self, path: &Path) {
        self.done += std::fs::metadata(path).map_or(0, |meta| meta.len());
        (self.progress)(Progress { path: path.to_owned(), done: self.done });
    }
}

fn check_log(
    files: &LogFiles,
    reader: Option<&Reader>,
    report: &mut CheckReport,
    meter: &mut Meter<'_>,
) -> Result<(), StoreError> {
    let known = reader.map_or(Position(0), Reader::position);
    let Some(segments) = report.note(files.segments())? else { return Ok(()) };
    let mut position = Position(0);
    for segment in &segments {
        let last = Some(segment) == segments.last();
        position = walk_segment(files, *segment, last, position, known, &mut |event| {
            match event {
                Walked::Damage { offset, what, .. } => report.damaged(&files.path(*segment), offset, what),
                Walked::Group(group) => {
                    report.groups += 1;
                    if let Some(reader) = reader.filter(|reader| reader.position() >= group.group.position) {
                        check_indexed(reader, *segment, &group, report)?;
                    }
                }
            }
            Ok(())
        })?;
        meter.file(&files.path(*segment));
    }
    if position < known {
        let what = format!("the log ends at group {position}, the index at {known}");
        report.damaged(&files.path(segments.len() as u32), 0, what);
    }
    Ok(())
}

fn check_indexed(
    reader: &Reader,
    segment: u32,
    read: &ReadGroup,
    report: &mut CheckReport,
) -> Result<(), StoreError> {
    for (record, span) in read.group.records.iter().zip(&read.spans) {
        if let Record::Change(change) = record {
            let expected = ChangeRow { segment, span: *span, hash: change.hash };
            let named = reader.change_of(&change.hash)? == Some((change.actor, change.seq));
            if !named || reader.change_row(change.actor, change.seq)? != Some(expected) {
                report.problems.push(Problem::NotIndexed { actor: change.actor, seq: change.seq });
            }
        }
    }
    Ok(())
}

/// What a walk over a segment meets.
pub(crate) enum Walked {
    Group(ReadGroup),
    /// Bytes `from..to` hold no whole group; the groups `first..=last` are gone.
    Damage {
        offset: u64,
        what: &'static str,
        from: u64,
        to: u64,
        first: Position,
        last: Position,
    },
}

/// Walks all groups of a segment, over damage. A torn end that the index never knew is no damage.
pub(crate) fn walk_segment(
    files: &LogFiles,
    segment: u32,
    last: bool,
    mut position: Position,
    known: Position,
    visit: &mut dyn FnMut(Walked) -> Result<(), StoreError>,
) -> Result<Position, StoreError> {
    let file = files.file(segment)?;
    let length = file.len()?;
    if let Err(StoreError::Damaged { .. }) = files.check_header(&file) {
        let (first, what) = (position.next(), "the header of the segment is damaged");
        visit(Walked::Damage { offset: 0, what, from: 0, to: SEGMENT_HEADER, first, last: position })?;
    }
    let mut at = SEGMENT_HEADER;
    while at < length {
        let first = position.next();
        let fault = match frame::read_group(&file, at, length, first)? {
            Ok(group) => {
                at = group.end;
                position = first;
                visit(Walked::Group(group))?;
                continue;
            }
            Err(fault) => fault,
        };
        let mut next = frame::next_good(&file, at, length)?;
        while let Some((found, _)) = next.filter(|(_, found)| *found <= first) {
            next = frame::next_good(&file, found + 1, length)?;
        }
        let (to, lost) = match next {
            Some((to, found)) => (to, Position(found.0 - 1)),
            None if last => (length, known),
            None => (length, files.first_position(segment + 1)?.map_or(first, |next| Position(next.0 - 1))),
        };
        if next.is_none() && last && known < first {
            break;
        }
        let (offset, what) = (fault.offset, fault.what);
        visit(Walked::Damage { offset, what, from: at, to, first, last: lost.max(first) })?;
        position = lost.max(first);
        at = to;
    }
    Ok(position)
}

fn check_packs(
    dir: &Path,
    id: StoreId,
    level: Level,
    reader: Option<&Reader>,
    report: &mut CheckReport,
    meter: &mut Meter<'_>,
) -> Result<(), StoreError> {
    let mut whole = BTreeSet::new();
    let mut segments = BTreeSet::new();
    let known = reader.map_or(PackEnd::START, Reader::packs);
    pack::scan(dir, id, PackEnd::START, known, |found| {
        match found {
            Found::Damage { path, offset, what } => report.damaged(path, offset, what),
            Found::Record { segment, offset, bundle } => {
                if segments.insert(segment) && segment > 1 {
                    meter.file(&pack::path(dir, segment - 1));
                }
                let result = match level {
                    Level::Quick => Bundle::index(bundle).map(|bodies| bodies.len()),
                    Level::Full => Bundle::decode(bundle).map(|bodies| bodies.len()),
                };
                match result {
                    Ok(count) => {
                        whole.insert((segment, offset));
                        report.bodies += count as u64;
                    }
                    Err(error) => report.damaged(&pack::path(dir, segment), offset, error),
                }
            }
        }
        Ok(())
    })?;
    let Some(reader) = reader else { return Ok(()) };
    for row in rows(reader.body_rows()?, &[], &[])? {
        let (key, value) = row?;
        let id = key.as_slice().try_into().map(BlobId::from_bytes);
        match (id, Location::decode(&value)) {
            (Ok(_), Some(location)) if whole.contains(&(location.segment, location.offset)) => {}
            (Ok(id), _) => report.problems.push(Problem::LostBody(id)),
            (Err(_), _) => report.problems.push(Problem::Index("a body's key is not 32 bytes".to_owned())),
        }
    }
    Ok(())
}

fn check_large(
    dir: &Path,
    level: Level,
    report: &mut CheckReport,
    meter: &mut Meter<'_>,
) -> Result<(), StoreError> {
    for id in large_bodies(dir)? {
        match verify_large(dir, id, level)? {
            None => report.bodies += 1,
            Some((offset, what)) => report.damaged(&large::path(dir, id), offset, what),
        }
        meter.file(&large::path(dir, id));
    }
    Ok(())
}

/// The ids of all large bodies, by their names.
pub(crate) fn large_bodies(dir: &Path) -> Result<Vec<BlobId>, StoreError> {
    let mut ids = Vec::new();
    let dir = dir.join("large");
    for bucket in entries(&dir)? {
        for entry in entries(&bucket?.path())? {
            let name = entry?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse::<BlobId>().ok()));
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

/// What is wrong with a large body.
pub(crate) fn verify_large(
    dir: &Path,
    id: BlobId,
    level: Level,
) -> Result<Option<(u64, String)>, StoreError> {
    let (file, header) = match large::open(dir, id) {
        Ok(Some(opened)) => opened,
        Ok(None) => return Ok(None),
        Err(StoreError::Damaged { offset, what, .. }) => return Ok(Some((offset, what))),
        Err(error) => return Err(error),
    };
    if level == Level::Quick {
        return Ok(None);
    }
    let read = BodyReader::large(file, header, 0).map(BodyReader::verify);
    Ok(match read {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some((0, error.to_string())),
        Err(error) => Some((0, error.to_string())),
    })
}
