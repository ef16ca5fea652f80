//! A body that is pushed in pieces by somebody who cannot wait for the next one.

use std::io::{BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use crate::blob::{BlobHasher, BlobId, MAX_BLOB, MAX_SMALL};

use super::disk::DiskFile;
use super::{BodyStore, StoreError};

/// Takes a body piece by piece. A small one stays in memory; a larger one goes to a file of its own, which is read once more
/// at the end. Dropped before [`BodyWriter::finish`] it leaves nothing; after a crash the next open removes the file. After
/// an error it must be dropped.
pub struct BodyWriter {
    bodies: BodyStore,
    path: PathBuf,
    /// The pieces while they are few.
    start: Vec<u8>,
    file: Option<DiskFile>,
    length: u64,
    hasher: BlobHasher,
}

impl BodyWriter {
    pub(crate) fn new(bodies: BodyStore, path: PathBuf) -> BodyWriter {
        BodyWriter { bodies, path, start: Vec::new(), file: None, length: 0, hasher: BlobHasher::new() }
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The name of the body, if nothing follows: who knows it by then need not store it.
    pub fn id(&self) -> BlobId {
        self.hasher.finish()
    }

    /// Adds the next piece. Fails past [`MAX_BLOB`], before anything is written.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        let size = self.length + piece.len() as u64;
        if size > MAX_BLOB {
            return Err(StoreError::TooLarge { what: "a body", size, limit: MAX_BLOB });
        }
        if self.file.is_none() && size < MAX_SMALL as u64 {
            self.start.extend_from_slice(piece);
        } else {
            let disk = self.bodies.disk();
            if self.file.is_none() {
                let file = self.file.insert(disk.create(&self.path)?);
                disk.write_at(file, 0, &self.start)?;
                self.start = Vec::new();
            }
            if let Some(file) = &self.file {
                disk.write_at(file, self.length, piece)?;
            }
        }
        self.hasher.update(piece);
        self.length = size;
        Ok(())
    }

    /// Stores the body and gives its name and length. A large one is durable when this returns, a small one with the next
    /// commit.
    pub fn finish(mut self) -> Result<(BlobId, u64), StoreError> {
        match &mut self.file {
            None => Ok((self.bodies.put(&self.start)?, self.length)),
            Some(file) => {
                file.file.seek(SeekFrom::Start(0)).map_err(StoreError::io("read", &self.path))?;
                self.bodies.put_reader(BufReader::new(&file.file))
            }
        }
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        if self.file.is_some() {
            // What stays is removed when the store is opened next.
            let _ = self.bodies.disk().remove(&self.path);
        }
    }
}
