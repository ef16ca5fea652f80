//! Pack segments: append-only files of bundles, each record telling what it is.

use std::path::{Path, PathBuf};

use crate::blob::{BlobId, Bundle, MAX_BUNDLE};

use super::disk::{Disk, DiskFile, checksum, number_path, numbered};
use super::{StoreError, StoreId};

/// Length at which a new segment begins, so that one can be copied or repacked in one go.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 20;
pub(crate) const SEGMENT_HEADER: u64 = 32;
pub(crate) const EXTENSION: &str = "pack";
const MAGIC: [u8; 8] = *b"PMPACK\0\x01";
const RECORD_MAGIC: [u8; 4] = [0xf7, b'P', b'M', b'B'];
pub(crate) const RECORD_HEADER: usize = 12;
pub(crate) const RECORD_CHECK: usize = 8;

/// A place between two records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PackEnd {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
}

impl PackEnd {
    pub(crate) const START: PackEnd = PackEnd { segment: 1, offset: SEGMENT_HEADER };
}

/// Where a small body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) segment: u32,
    /// Where its record begins.
    pub(crate) offset: u64,
    /// Length of the bundle in the record.
    pub(crate) length: u32,
    /// Length of the body itself.
    pub(crate) plain: u32,
}

impl Location {
    pub(crate) fn encode(&self) -> [u8; 20] {
        let mut out = [0; 20];
        out[..4].copy_from_slice(&self.segment.to_le_bytes());
        out[4..12].copy_from_slice(&self.offset.to_le_bytes());
        out[12..16].copy_from_slice(&self.length.to_le_bytes());
        out[16..].copy_from_slice(&self.plain.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Location> {
        let bytes: &[u8; 20] = bytes.try_into().ok()?;
        let word = |at: usize| Some(u32::from_le_bytes(bytes[at..at + 4].try_into().ok()?));
        let offset = u64::from_le_bytes(bytes[4..12].try_into().ok()?);
        Some(Location { segment: word(0)?, offset, length: word(12)?, plain: word(16)? })
    }
}

pub(crate) fn path(dir: &Path, segment: u32) -> PathBuf {
    number_path(dir, segment, EXTENSION)
}

/// Makes an empty segment.
pub(crate) fn create(disk: &Disk, dir: &Path, id: StoreId, segment: u32) -> Result<DiskFile, StoreError> {
    let path = path(dir, segment);
    // An attempt that failed after its rename left a header; records are never written over.
    if std::fs::metadata(&path).is_ok_and(|meta| meta.len() > SEGMENT_HEADER) {
        return Err(StoreError::damaged(&path, SEGMENT_HEADER, "a segment that should not be there"));
    }
    disk.replace(&path, &[&segment_header(id)])?;
    disk.open_write(&path)
}

pub(crate) fn segment_header(id: StoreId) -> [u8; SEGMENT_HEADER as usize] {
    let mut header = [0; SEGMENT_HEADER as usize];
    header[..8].copy_from_slice(&MAGIC);
    header[8..24].copy_from_slice(&id.0);
    let check: [u8; 8] = checksum(&[&header[..24]]);
    header[24..].copy_from_slice(&check);
    header
}

/// The record of one bundle.
pub(crate) fn encode_record(bundle: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(RECORD_HEADER + bundle.len() + RECORD_CHECK);
    out.extend_from_slice(&RECORD_MAGIC);
    out.extend_from_slice(&(bundle.len() as u32).to_le_bytes());
    let check: [u8; 4] = checksum(&[&out]);
    out.extend_from_slice(&check);
    out.extend_from_slice(bundle);
    out.extend_from_slice(&checksum::<RECORD_CHECK>(&[bundle]));
    out
}

/// The length of the bundle in the record at `offset`; nothing if no record begins there, or ends behind `end`.
pub(crate) fn record_at(file: &DiskFile, offset: u64, end: u64) -> Result<Option<usize>, StoreError> {
    let mut header = [0; RECORD_HEADER];
    if offset + RECORD_HEADER as u64 > end {
        return Ok(None);
    }
    file.read_at(offset, &mut header)?;
    Ok(record_length(&header).filter(|length| offset + record_total(*length) <= end))
}

/// The bundle of the record at `offset`, if that is whole; else what is wrong with it.
pub(crate) fn read_record(
    file: &DiskFile,
    offset: u64,
    end: u64,
) -> Result<Result<Vec<u8>, &'static str>, StoreError> {
    let mut header = [0; RECORD_HEADER];
    if offset + RECORD_HEADER as u64 > end {
        return Ok(Err("the segment ends inside a record"));
    }
    file.read_at(offset, &mut header)?;
    let Some(length) = record_length(&header) else { return Ok(Err("no record begins here")) };
    if offset + record_total(length) > end {
        return Ok(Err("the segment ends inside a record"));
    }
    let mut bundle = vec![0; length + RECORD_CHECK];
    file.read_at(offset + RECORD_HEADER as u64, &mut bundle)?;
    let check = bundle.split_off(length);
    if checksum::<RECORD_CHECK>(&[&bundle]) != check[..] {
        return Ok(Err("a record has a wrong checksum"));
    }
    Ok(Ok(bundle))
}

pub(crate) fn record_total(length: usize) -> u64 {
    (RECORD_HEADER + length + RECORD_CHECK) as u64
}

/// What a scan of the segments finds.
pub(crate) enum Found<'a> {
    /// A whole record, and the bundle in it.
    Record { segment: u32, offset: u64, bundle: &'a [u8] },
    /// Bytes that are no record, although records or segments follow.
    Damage { path: &'a Path, offset: u64, what: &'a str },
}

/// Walks all records from `from` to the end, over damage. Gives the end of the last whole record. A torn end
/// beyond `known`, which is what the index knows, is no damage.
pub(crate) fn scan(
    dir: &Path,
    id: StoreId,
    from: PackEnd,
    known: PackEnd,
    mut visit: impl FnMut(Found<'_>) -> Result<(), StoreError>,
) -> Result<PackEnd, StoreError> {
    let segments = numbered(dir, EXTENSION)?;
    let mut end = from;
    for segment in segments.iter().copied().filter(|segment| *segment >= from.segment) {
        if segment > end.segment {
            end = PackEnd { segment, offset: SEGMENT_HEADER };
        }
        let file = DiskFile::open(&path(dir, segment))?;
        let length = file.len()?;
        if let Err(what) = check_header(&file, length, id)? {
            visit(Found::Damage { path: &file.path, offset: 0, what })?;
        }
        let mut at = end.offset;
        while at < length {
            match read_record(&file, at, length)? {
                Ok(bundle) => {
                    visit(Found::Record { segment, offset: at, bundle: &bundle })?;
                    at += record_total(bundle.len());
                    end.offset = at;
                }
                Err(what) => {
                    let next = next_record(&file, at + 1, length)?;
                    let was_whole = PackEnd { segment, offset: at } < known;
                    if next.is_some() || was_whole || Some(&segment) != segments.last() {
                        visit(Found::Damage { path: &file.path, offset: at, what })?;
                    }
                    at = next.unwrap_or(length);
                }
            }
        }
    }
    Ok(end)
}

fn check_header(file: &DiskFile, length: u64, id: StoreId) -> Result<Result<(), &'static str>, StoreError> {
    let mut header = [0; SEGMENT_HEADER as usize];
    if length < SEGMENT_HEADER {
        return Ok(Err("the segment ends inside its header"));
    }
    file.read_at(0, &mut header)?;
    if header[..8] != MAGIC || header[24..] != checksum::<8>(&[&header[..24]]) {
        return Ok(Err("this is not the header of a pack segment"));
    }
    if header[8..24] != id.0 {
        return Ok(Err("the segment belongs to another store"));
    }
    Ok(Ok(()))
}

fn record_length(header: &[u8]) -> Option<usize> {
    let (fields, check) = header.split_at(8);
    let length = u32::from_le_bytes(fields[4..].try_into().ok()?) as usize;
    let whole = fields[..4] == RECORD_MAGIC && checksum::<4>(&[fields]) == check && length <= MAX_BUNDLE;
    whole.then_some(length)
}

/// The next offset at or after `from` where a record's header is whole.
pub(crate) fn next_record(file: &DiskFile, from: u64, end: u64) -> Result<Option<u64>, StoreError> {
    const WINDOW: u64 = 1 << 16;
    let mut start = from;
    while start + RECORD_HEADER as u64 <= end {
        let mut window = vec![0; WINDOW.min(end - start) as usize];
        file.read_at(start, &mut window)?;
        for at in 0..=window.len() - RECORD_HEADER {
            if window[at..].starts_with(&RECORD_MAGIC)
                && record_length(&window[at..at + RECORD_HEADER]).is_some()
            {
                return Ok(Some(start + at as u64));
            }
        }
        start += (window.len() - RECORD_HEADER + 1) as u64;
    }
    Ok(None)
}

/// Where the bodies of one bundle are.
pub(crate) fn locations(
    bundle: &[u8],
    segment: u32,
    offset: u64,
) -> Result<Vec<(BlobId, Location)>, crate::blob::BundleError> {
    let length = bundle.len() as u32;
    let place = |(id, plain)| (id, Location { segment, offset, length, plain: plain as u32 });
    Ok(Bundle::index(bundle)?.into_iter().map(place).collect())
}
