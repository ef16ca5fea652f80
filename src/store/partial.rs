//! A body that arrives in pieces and may be cut off: what came is kept for the next attempt.

use std::fs::OpenOptions;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use crate::blob::{BlobId, MAX_BLOB};

use super::disk::DiskFile;
use super::{BodyStore, StoreError};

/// The pieces of one body so far. Dropping it keeps them.
#[derive(Debug)]
pub struct PartialBody {
    bodies: BodyStore,
    file: DiskFile,
    id: BlobId,
    length: u64,
}

impl PartialBody {
    pub(crate) fn open(bodies: BodyStore, path: PathBuf, id: BlobId) -> Result<PartialBody, StoreError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = DiskFile { file: file.map_err(StoreError::io("open", &path))?, path };
        let length = file.len()?;
        Ok(PartialBody { bodies, file, id, length })
    }

    /// Bytes that are here: where to resume.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Adds the next piece. Pieces are not synced: a power cut may spoil them, which the hash will show.
    pub fn append(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        let size = self.length + piece.len() as u64;
        if size > MAX_BLOB {
            return Err(StoreError::TooLarge { what: "a body", size, limit: MAX_BLOB });
        }
        self.bodies.disk().write_at(&self.file, self.length, piece)?;
        self.length = size;
        Ok(())
    }

    /// Hashes all pieces and stores the body. If it is another one, the pieces are removed and the body must
    /// be fetched anew. After any other error they are still there.
    pub fn finish(mut self) -> Result<u64, StoreError> {
        self.file.file.seek(SeekFrom::Start(0)).map_err(StoreError::io("read", &self.file.path))?;
        let stored = self.bodies.put_checked(BufReader::new(&self.file.file), Some(self.id));
        if matches!(stored, Ok(_) | Err(StoreError::WrongBody { .. })) {
            self.bodies.disk().remove(&self.file.path)?;
        }
        stored.map(|(_, length)| length)
    }

    /// Removes the pieces.
    pub fn discard(self) -> Result<(), StoreError> {
        self.bodies.disk().remove(&self.file.path)
    }
}
