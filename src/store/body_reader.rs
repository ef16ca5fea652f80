//! Reads one body, large or small, without copying what is in memory already.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use crate::blob::{BlobHasher, BlobId, OpenBundle};

use super::StoreError;
use super::disk::DiskFile;
use super::large::{self, LargeHeader};

/// Bytes of a large body that are read at once.
const PIECE: usize = 64 << 10;

/// Reads a body from some offset on. A read of a large body from its start ends in an error if the body is not what its id
/// says; a read from the middle cannot tell. A small one comes from a record whose checksum was compared.
pub struct BodyReader {
    source: Source,
    id: BlobId,
    left: u64,
    hashing: Option<Hashing>,
}

enum Source {
    /// The bytes of a bundle that are the rest of the body.
    Bundle(Arc<OpenBundle>, Range<usize>),
    File(BufReader<Box<dyn Read + Send>>),
}

struct Hashing {
    hasher: BlobHasher,
    /// Bytes that were hashed and not consumed yet.
    ahead: usize,
}

impl BodyReader {
    pub(crate) fn small(id: BlobId, bundle: Arc<OpenBundle>, body: Range<usize>, offset: u64) -> BodyReader {
        let start = body.start + body.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let rest = start..body.end;
        BodyReader { id, left: rest.len() as u64, source: Source::Bundle(bundle, rest), hashing: None }
    }

    pub(crate) fn large(file: DiskFile, header: LargeHeader, offset: u64) -> Result<BodyReader, StoreError> {
        let offset = offset.min(header.plain);
        let failed = StoreError::io("read", &file.path);
        let open = || -> io::Result<Box<dyn Read + Send>> {
            let mut stored = file.file;
            let skip = if header.is_raw() { offset } else { 0 };
            stored.seek(SeekFrom::Start(large::HEADER as u64 + skip))?;
            if header.is_raw() {
                return Ok(Box::new(stored));
            }
            let mut plain = zstd::stream::read::Decoder::new(stored)?;
            io::copy(&mut (&mut plain).take(offset), &mut io::sink())?;
            Ok(Box::new(plain))
        };
        let source = Source::File(BufReader::with_capacity(PIECE, open().map_err(failed)?));
        let hashing = (offset == 0).then(|| Hashing { hasher: BlobHasher::new(), ahead: 0 });
        Ok(BodyReader { source, id: header.id, left: header.plain - offset, hashing })
    }

    /// Reads to the end and makes sure that nothing follows, which also compares zstd's own checksum.
    pub(crate) fn verify(mut self) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink())?;
        if let Source::File(file) = &mut self.source
            && !file.fill_buf()?.is_empty()
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more follows than the header says"));
        }
        Ok(())
    }

    /// Bytes that are still to come.
    pub fn remaining(&self) -> u64 {
        self.left
    }
}

impl BufRead for BodyReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let bytes = match &mut self.source {
            _ if self.left == 0 => return Ok(&[]),
            Source::Bundle(bundle, rest) => &bundle.plain()[rest.clone()],
            Source::File(file) => file.fill_buf()?,
        };
        let bytes = &bytes[..bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))];
        if bytes.is_empty() {
            let what = format!("the body {} is cut short", self.id);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        if let Some(Hashing { hasher, ahead }) = &mut self.hashing
            && let Some(new) = bytes.get(*ahead..).filter(|new| !new.is_empty())
        {
            hasher.update(new);
            *ahead = bytes.len();
            // Before the last piece is given: who read all of it knows that it is right.
            if bytes.len() as u64 == self.left && hasher.finish() != self.id {
                let what = format!("the body {} has another hash", self.id);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
        Ok(bytes)
    }

    fn consume(&mut self, len: usize) {
        match &mut self.source {
            Source::Bundle(_, rest) => rest.start = rest.end.min(rest.start + len),
            Source::File(file) => file.consume(len),
        }
        self.left = self.left.saturating_sub(len as u64);
        if let Some(hashing) = &mut self.hashing {
            hashing.ahead = hashing.ahead.saturating_sub(len);
        }
    }
}

impl Read for BodyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let bytes = self.fill_buf()?;
        let len = bytes.len().min(out.len());
        out[..len].copy_from_slice(&bytes[..len]);
        self.consume(len);
        Ok(len)
    }
}
