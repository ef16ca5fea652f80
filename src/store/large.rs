//! Bodies of a mebibyte and more: a file each, written and read as a stream.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::blob::{BlobHasher, BlobId, MAX_BLOB, saves};

use super::StoreError;
use super::disk::{Disk, DiskFile, checksum};

const MAGIC: [u8; 8] = *b"PMBODY\0\x01";
pub(crate) const HEADER: usize = 72;
const CODEC_RAW: u8 = 0;
const CODEC_ZSTD: u8 = 1;
const LEVEL: i32 = 3;

pub(crate) fn path(dir: &Path, id: BlobId) -> PathBuf {
    let hex = id.to_string();
    dir.join("large").join(&hex[..2]).join(&hex)
}

/// What the header of a large body says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LargeHeader {
    codec: u8,
    pub(crate) plain: u64,
    stored: u64,
    pub(crate) id: BlobId,
}

impl LargeHeader {
    pub(crate) fn is_raw(&self) -> bool {
        self.codec == CODEC_RAW
    }

    fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(&MAGIC);
        out[8] = self.codec;
        out[16..24].copy_from_slice(&self.plain.to_le_bytes());
        out[24..32].copy_from_slice(&self.stored.to_le_bytes());
        out[32..64].copy_from_slice(self.id.as_bytes());
        let check: [u8; 8] = checksum(&[&out[..64]]);
        out[64..].copy_from_slice(&check);
        out
    }

    fn decode(bytes: &[u8; HEADER]) -> Option<LargeHeader> {
        if bytes[..8] != MAGIC || bytes[64..] != checksum::<8>(&[&bytes[..64]]) {
            return None;
        }
        let number = |at: usize| Some(u64::from_le_bytes(bytes[at..at + 8].try_into().ok()?));
        let id = BlobId::from_bytes(bytes[32..64].try_into().ok()?);
        Some(LargeHeader { codec: bytes[8], plain: number(16)?, stored: number(24)?, id })
    }
}

/// The file and header of a large body; nothing if there is none.
pub(crate) fn open(dir: &Path, id: BlobId) -> Result<Option<(DiskFile, LargeHeader)>, StoreError> {
    let path = path(dir, id);
    let file = match File::open(&path) {
        Ok(file) => DiskFile { file, path },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", &path)(error)),
    };
    let mut header = [0; HEADER];
    file.read_at(0, &mut header)?;
    let header = LargeHeader::decode(&header)
        .filter(|header| header.id == id && header.codec <= CODEC_ZSTD)
        .ok_or_else(|| StoreError::damaged(&file.path, 0, "this is not the header of this body"))?;
    if file.len()? != HEADER as u64 + header.stored {
        return Err(StoreError::damaged(
            &file.path,
            file.len()?,
            "the body is not as long as its header says",
        ));
    }
    Ok(Some((file, header)))
}

/// Writes `start` and the rest of `source` to `tmp`, hashing on the way, and puts the file in place. With
/// `wanted`, another body is refused and nothing is kept. `pin` is told the name before it is looked for.
pub(crate) fn write(
    disk: &Disk,
    dir: &Path,
    tmp: &Path,
    start: &[u8],
    source: &mut dyn Read,
    wanted: Option<BlobId>,
    pin: &dyn Fn(BlobId),
) -> Result<(BlobId, u64), StoreError> {
    let result = spool(disk, tmp, start, source).and_then(|(file, header)| {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != header.id) {
            return Err(StoreError::WrongBody { wanted, found: header.id });
        }
        pin(header.id);
        let target = path(dir, header.id);
        let bucket = target.parent().expect("a large body is in a bucket");
        if open(dir, header.id).is_ok_and(|held| held.is_some()) {
            disk.remove(tmp)?;
            // An earlier attempt may have failed after its rename.
            disk.sync_dir(bucket)?;
            return Ok((header.id, header.plain));
        }
        disk.sync(&file)?;
        if !bucket.exists() {
            disk.create_dir(bucket)?;
            disk.sync_dir(&dir.join("large"))?;
        }
        disk.rename(tmp, &target)?;
        disk.sync_dir(bucket)?;
        Ok((header.id, header.plain))
    });
    if result.is_err() {
        let _ = fs::remove_file(tmp);
    }
    result
}

fn spool(
    disk: &Disk,
    tmp: &Path,
    start: &[u8],
    source: &mut dyn Read,
) -> Result<(DiskFile, LargeHeader), StoreError> {
    let file = disk.create(tmp)?;
    let sample = zstd::bulk::compress(start, LEVEL).map_or(start.len(), |packed| packed.len());
    let codec = if saves(sample, start.len()) { CODEC_ZSTD } else { CODEC_RAW };
    let mut out = At { disk, file: &file, offset: HEADER as u64 };
    let mut hasher = BlobHasher::new();
    let failed = StoreError::io("spool a body to", tmp);
    let plain = if codec == CODEC_ZSTD {
        let copied = zstd::stream::write::Encoder::new(&mut out, LEVEL).and_then(|mut encoder| {
            encoder.include_checksum(true)?;
            let plain = copy(start, source, &mut encoder, &mut hasher)?;
            encoder.finish()?;
            Ok(plain)
        });
        copied.map_err(failed)?
    } else {
        copy(start, source, &mut out, &mut hasher).map_err(failed)?
    };
    if plain > MAX_BLOB {
        return Err(StoreError::TooLarge { what: "a body", size: plain, limit: MAX_BLOB });
    }
    let stored = out.offset - HEADER as u64;
    let header = LargeHeader { codec, plain, stored, id: hasher.finish() };
    disk.write_at(&file, 0, &header.encode())?;
    Ok((file, header))
}

/// Copies until the end, or just past the largest length that is allowed.
fn copy(
    start: &[u8],
    source: &mut dyn Read,
    out: &mut impl Write,
    hasher: &mut BlobHasher,
) -> io::Result<u64> {
    hasher.update(start);
    out.write_all(start)?;
    let mut plain = start.len() as u64;
    let mut piece = vec![0; 128 << 10];
    while plain <= MAX_BLOB {
        let length = match source.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&piece[..length]);
        out.write_all(&piece[..length])?;
        plain += length as u64;
    }
    Ok(plain)
}

/// Writes at a growing offset of a file.
struct At<'a> {
    disk: &'a Disk,
    file: &'a DiskFile,
    offset: u64,
}

impl Write for At<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.write_at_raw(self.file, self.offset, bytes)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
