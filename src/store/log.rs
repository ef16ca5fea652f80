//! The log: numbered segments of groups. It is the truth, and its fsync is the commit point.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::disk::{Disk, DiskFile, checksum, number_path, numbered};
use super::frame::{self, Change, GroupWriter, ReadGroup, Span};
use super::{Position, StoreError, StoreId};
use crate::mutation::{Mutation, planted};

/// Length at which a new segment begins: short enough to copy and to check in one go.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 20;
pub(crate) const SEGMENT_HEADER: u64 = 40;
const MAGIC: [u8; 8] = *b"PMLOG\0\0\x01";
const EXTENSION: &str = "log";

/// A place between two groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogEnd {
    /// The last group before it.
    pub(crate) position: Position,
    pub(crate) segment: u32,
    pub(crate) offset: u64,
}

impl LogEnd {
    pub(crate) const START: LogEnd = LogEnd { position: Position(0), segment: 1, offset: SEGMENT_HEADER };
}

/// Reads the log; any number of threads may.
#[derive(Debug)]
pub(crate) struct LogFiles {
    dir: PathBuf,
    id: StoreId,
    open: Mutex<BTreeMap<u32, Arc<DiskFile>>>,
}

/// Segments kept open for reading, to bound file descriptors.
const MAX_OPEN: usize = 16;

impl LogFiles {
    pub(crate) fn new(dir: &Path, id: StoreId) -> LogFiles {
        LogFiles { dir: dir.to_owned(), id, open: Mutex::default() }
    }

    pub(crate) fn path(&self, segment: u32) -> PathBuf {
        number_path(&self.dir, segment, EXTENSION)
    }

    pub(crate) fn file(&self, segment: u32) -> Result<Arc<DiskFile>, StoreError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&segment) {
            return Ok(Arc::clone(file));
        }
        if open.len() >= MAX_OPEN {
            open.pop_first();
        }
        let file = Arc::new(DiskFile::open(&self.path(segment))?);
        open.insert(segment, Arc::clone(&file));
        Ok(file)
    }

    pub(crate) fn change(&self, segment: u32, span: Span) -> Result<Change, StoreError> {
        frame::read_change(&*self.file(segment)?, span)
    }

    /// The group after `end`, or nothing when `end` is `until`. Moves over the end of a segment.
    pub(crate) fn next(&self, end: LogEnd, until: LogEnd) -> Result<Option<(LogEnd, ReadGroup)>, StoreError> {
        if end.position >= until.position {
            return Ok(None);
        }
        let mut at = end;
        let mut file = self.file(at.segment)?;
        let mut length = file.len()?;
        if at.offset >= length && at.segment < until.segment {
            at = LogEnd { segment: at.segment + 1, offset: SEGMENT_HEADER, ..at };
            file = self.file(at.segment)?;
            length = file.len()?;
        }
        let position = at.position.next();
        match frame::read_group(&file, at.offset, length, position)? {
            Ok(group) => Ok(Some((LogEnd { position, segment: at.segment, offset: group.end }, group))),
            Err(fault) => Err(StoreError::damaged(&file.path, fault.offset, fault.what)),
        }
    }

    pub(crate) fn segments(&self) -> Result<Vec<u32>, StoreError> {
        let numbers = numbered(&self.dir, EXTENSION)?;
        for (expected, number) in (1..).zip(&numbers) {
            if expected != *number {
                return Err(StoreError::Missing { path: self.path(expected) });
            }
        }
        Ok(numbers)
    }

    /// The first group of a segment, if its header is whole.
    pub(crate) fn first_position(&self, segment: u32) -> Result<Option<Position>, StoreError> {
        let file = self.file(segment)?;
        if file.len()? < SEGMENT_HEADER || self.check_header(&file).is_err() {
            return Ok(None);
        }
        let mut number = [0; 8];
        file.read_at(24, &mut number)?;
        Ok(Some(Position(u64::from_le_bytes(number))))
    }

    pub(crate) fn check_header(&self, file: &DiskFile) -> Result<(), StoreError> {
        let mut header = [0; SEGMENT_HEADER as usize];
        file.read_at(0, &mut header)?;
        let check: [u8; 8] = checksum(&[&header[..32]]);
        let what = if header[..8] != MAGIC || header[32..] != check {
            "this is not the header of a log segment"
        } else if header[8..24] != self.id.0 {
            "the segment belongs to another store"
        } else {
            return Ok(());
        };
        Err(StoreError::damaged(&file.path, 0, what))
    }
}

/// The store that the log says it belongs to, by the first header that is whole.
pub(crate) fn id_in(dir: &Path) -> Result<Option<StoreId>, StoreError> {
    for segment in numbered(dir, EXTENSION)? {
        let file = DiskFile::open(&number_path(dir, segment, EXTENSION))?;
        let mut header = [0; SEGMENT_HEADER as usize];
        let whole = file.len()? >= SEGMENT_HEADER && file.read_at(0, &mut header).is_ok();
        if whole && header[..8] == MAGIC && header[32..] == checksum::<8>(&[&header[..32]]) {
            return Ok(header[8..24].try_into().ok().map(StoreId));
        }
    }
    Ok(None)
}

/// Appends to the log.
#[derive(Debug)]
pub(crate) struct Log {
    disk: Disk,
    id: StoreId,
    files: Arc<LogFiles>,
    current: DiskFile,
    end: LogEnd,
    segment_bytes: u64,
    in_doubt: bool,
}

impl Log {
    /// Makes the first segment.
    pub(crate) fn create(dir: &Path, disk: &Disk, id: StoreId) -> Result<(), StoreError> {
        disk.create_dir(dir)?;
        create_segment(disk, dir, id, LogEnd::START).map(drop)
    }

    /// Finds the end of the log, starting at a place that the index knows, and cuts a torn group off.
    /// A group that was there once and is no longer whole is an error.
    pub(crate) fn open(dir: &Path, disk: &Disk, id: StoreId, known: LogEnd) -> Result<Log, StoreError> {
        let files = Arc::new(LogFiles::new(dir, id));
        let mut last =
            *files.segments()?.last().ok_or_else(|| StoreError::Missing { path: files.path(1) })?;
        if last > 1 && files.file(last)?.len()? < SEGMENT_HEADER {
            tracing::warn!(path = %files.path(last).display(), "dropped a log segment without a header");
            if !disk.is_read_only() {
                disk.remove(&files.path(last))?;
            }
            last -= 1;
        }
        if known.segment > last {
            return Err(StoreError::Missing { path: files.path(known.segment) });
        }
        let mut end = known;
        loop {
            let file = files.file(end.segment)?;
            files.check_header(&file)?;
            let length = file.len()?;
            if end.offset > length {
                return Err(StoreError::damaged(&file.path, length, "the log ends before the index does"));
            }
            end = scan_segment(&file, length, end, end.segment == last)?;
            if end.segment == last {
                break;
            }
            end = LogEnd { segment: end.segment + 1, offset: SEGMENT_HEADER, ..end };
        }
        let current = disk.open_write(&files.path(last))?;
        let length = current.len()?;
        if disk.is_read_only() {
            let in_doubt = false;
            return Ok(Log {
                disk: disk.clone(),
                id,
                files,
                current,
                end,
                segment_bytes: SEGMENT_BYTES,
                in_doubt,
            });
        }
        if length > end.offset {
            tracing::warn!(path = %current.path.display(), from = end.offset, to = length, "cut a torn group off the log");
            disk.set_len(&current, end.offset)?;
        }
        if length > end.offset || end != known {
            // A process that was killed may have written these groups without a sync, and the index must
            // never be durable before them.
            disk.sync(&current)?;
        }
        Ok(Log { disk: disk.clone(), id, files, current, end, segment_bytes: SEGMENT_BYTES, in_doubt: false })
    }

    pub(crate) fn end(&self) -> LogEnd {
        self.end
    }

    pub(crate) fn files(&self) -> &Arc<LogFiles> {
        &self.files
    }

    /// Whether a failed append may or may not have reached the disk.
    pub(crate) fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    #[cfg(test)]
    pub(crate) fn set_segment_bytes(&mut self, bytes: u64) {
        self.segment_bytes = bytes;
    }

    /// Writes a group and makes it durable. Gives where it begins and where it ends.
    ///
    /// After an error the log is as before, or [`Log::in_doubt`]: only opening the store again tells.
    pub(crate) fn append(&mut self, group: GroupWriter) -> Result<(LogEnd, LogEnd), StoreError> {
        let position = group.position();
        debug_assert_eq!(position, self.end.position.next(), "a single writer numbers groups in a row");
        let bytes = group.finish();
        let over = self.end.offset + bytes.len() as u64 > self.segment_bytes;
        if over && self.end.offset > SEGMENT_HEADER {
            let next = LogEnd { segment: self.end.segment + 1, offset: SEGMENT_HEADER, ..self.end };
            self.current = create_segment(&self.disk, &self.files.dir, self.id, next)?;
            self.end = next;
        }
        self.in_doubt = true;
        if let Err(error) = self.disk.write_at(&self.current, self.end.offset, &bytes) {
            // Usually a full disk. Without the part that was written, the log is as before.
            let undo = self.disk.set_len(&self.current, self.end.offset);
            self.in_doubt = undo.is_err();
            return Err(error);
        }
        if !planted(Mutation::UnsyncedLog) {
            self.disk.sync(&self.current)?;
        }
        self.in_doubt = false;
        let start = self.end;
        self.end = LogEnd { position, offset: start.offset + bytes.len() as u64, ..start };
        Ok((start, self.end))
    }
}

/// Makes a segment durable before anything is in it. Its header comes into place with its name.
fn create_segment(disk: &Disk, dir: &Path, id: StoreId, end: LogEnd) -> Result<DiskFile, StoreError> {
    let path = number_path(dir, end.segment, EXTENSION);
    disk.replace(&path, &[&segment_header(id, end.position)])?;
    disk.open_write(&path)
}

/// Header of the segment whose first group comes after `position`.
pub(crate) fn segment_header(id: StoreId, position: Position) -> [u8; SEGMENT_HEADER as usize] {
    let mut header = [0; SEGMENT_HEADER as usize];
    header[..8].copy_from_slice(&MAGIC);
    header[8..24].copy_from_slice(&id.0);
    header[24..32].copy_from_slice(&position.next().0.to_le_bytes());
    let check: [u8; 8] = checksum(&[&header[..32]]);
    header[32..].copy_from_slice(&check);
    header
}

/// Walks the groups of one segment from `end`. Only the last segment may end in a torn group, and only if
/// nothing later follows it there.
fn scan_segment(file: &DiskFile, length: u64, mut end: LogEnd, last: bool) -> Result<LogEnd, StoreError> {
    while end.offset < length {
        let position = end.position.next();
        match frame::read_group(file, end.offset, length, position)? {
            Ok(group) => end = LogEnd { position, offset: group.end, ..end },
            Err(fault) => {
                let mut from = end.offset;
                let mut later = !last;
                while !later && let Some((at, found)) = frame::next_good(file, from, length)? {
                    later = found > position;
                    from = at + 1;
                }
                if later {
                    return Err(StoreError::damaged(&file.path, fault.offset, fault.what));
                }
                return Ok(end);
            }
        }
    }
    Ok(end)
}
