//! Snapshots of the document: a fold of the log up to some position. They save time and are never truth.

use std::fs;
use std::path::{Path, PathBuf};

use super::disk::{Disk, DiskFile, checksum};
use super::{Position, StoreError, StoreId};

/// Snapshots that are kept: the newest, and the one before in case the newest is damaged.
const KEEP: usize = 2;
/// Longest snapshot that is read: 20 times the document of a million messages.
const MAX_BYTES: u64 = 1 << 30;
const MAGIC: [u8; 8] = *b"PMSNAP\0\x01";
const HEADER: usize = 48;
const CHECK: usize = 32;
const PREFIX: &str = "snapshot-";

pub(crate) fn path(dir: &Path, position: Position) -> PathBuf {
    dir.join(format!("{PREFIX}{:016}", position.0))
}

/// The positions of the snapshots, newest first.
pub(crate) fn list(dir: &Path) -> Result<Vec<Position>, StoreError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let name = entry.map_err(StoreError::io("list", dir))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        found.extend(number.and_then(|number| number.parse().ok()).map(Position));
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

pub(crate) fn write(
    dir: &Path,
    disk: &Disk,
    id: StoreId,
    position: Position,
    bytes: &[u8],
) -> Result<(), StoreError> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(StoreError::TooLarge { what: "a snapshot", size: bytes.len() as u64, limit: MAX_BYTES });
    }
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..24].copy_from_slice(&id.0);
    header[24..32].copy_from_slice(&position.0.to_le_bytes());
    header[32..40].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    let check: [u8; 8] = checksum(&[&header[..40]]);
    header[40..].copy_from_slice(&check);
    disk.replace(&path(dir, position), &[&header, bytes, &checksum::<CHECK>(&[bytes])])?;
    for old in list(dir)?.into_iter().skip(KEEP) {
        disk.remove(&path(dir, old))?;
    }
    Ok(())
}

/// One snapshot, if every byte of it is as it was written.
pub(crate) fn read(dir: &Path, id: StoreId, position: Position) -> Result<Vec<u8>, StoreError> {
    let file = DiskFile::open(&path(dir, position))?;
    let mut header = [0; HEADER];
    file.read_at(0, &mut header)?;
    let damaged = |offset: usize, what| Err(StoreError::damaged(&file.path, offset as u64, what));
    if header[..8] != MAGIC || header[40..] != checksum::<8>(&[&header[..40]]) {
        return damaged(0, "this is not the header of a snapshot");
    }
    if header[8..24] != id.0 || header[24..32] != position.0.to_le_bytes() {
        return damaged(8, "the snapshot is of another store or position");
    }
    let length = header[32..40].try_into().map_or(0, u64::from_le_bytes);
    if length > MAX_BYTES || file.len()? != (HEADER + CHECK) as u64 + length {
        return damaged(32, "the snapshot has another length");
    }
    let mut bytes = vec![0; length as usize + CHECK];
    file.read_at(HEADER as u64, &mut bytes)?;
    let check = bytes.split_off(length as usize);
    if checksum::<CHECK>(&[&bytes]) != check[..] {
        return damaged(HEADER, "the snapshot has a wrong checksum");
    }
    Ok(bytes)
}
