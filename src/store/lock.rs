//! One process has a store open.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::disk::{DiskFile, checksum};
use super::{StoreError, StoreId};

/// Tells one store directory from a copy of it: a hash of the store id and the identity of its lock file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub [u8; 16]);

/// The lock file, held while the value lives. The system releases it when the process dies; then the pid is
/// still in it.
#[derive(Debug)]
pub(crate) struct Lock {
    file: DiskFile,
    found_pid: bool,
    shared: bool,
}

impl Lock {
    /// Takes the lock or says at once who has it.
    pub(crate) fn take(path: &Path) -> Result<Lock, StoreError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = DiskFile { file: file.map_err(StoreError::io("open", path))?, path: path.to_owned() };
        lock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let found_pid = file.len()? > 0;
        // A disk that is full must not keep the store shut.
        let pid = format!("{}\n", std::process::id());
        let written = file
            .file
            .set_len(0)
            .and_then(|()| std::os::unix::fs::FileExt::write_all_at(&file.file, pid.as_bytes(), 0));
        match written {
            Err(error) if error.kind() != ErrorKind::StorageFull => Err(StoreError::io("write", path)(error)),
            _ => Ok(Lock { file, found_pid, shared: false }),
        }
    }

    /// Takes a share of the lock for reading: others may read too, and nobody writes. Changes nothing; where there is no
    /// lock file, nobody ever wrote, and the directory itself is locked.
    pub(crate) fn share(path: &Path) -> Result<Lock, StoreError> {
        let dir = path.parent().expect("the lock is in the store's directory");
        let file = DiskFile::open(if path.exists() { path } else { dir })?;
        lock(&file, FlockOperation::NonBlockingLockShared)?;
        Ok(Lock { file, found_pid: false, shared: true })
    }

    /// Whether the last holder died. What it wrote may be seen and yet not be durable, names included.
    pub(crate) fn holder_died(&self) -> bool {
        self.found_pid
    }

    pub(crate) fn instance(&self, id: StoreId) -> Result<InstanceId, StoreError> {
        let meta = self.file.file.metadata().map_err(StoreError::io("look at", &self.file.path))?;
        Ok(InstanceId(checksum(&[&id.0, &meta.dev().to_le_bytes(), &meta.ino().to_le_bytes()])))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !self.shared {
            // If this fails, the next open only takes longer.
            let _ = self.file.file.set_len(0);
        }
    }
}

fn lock(file: &DiskFile, operation: FlockOperation) -> Result<(), StoreError> {
    match flock(&file.file, operation) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let pid = fs::read_to_string(&file.path).ok().and_then(|text| text.trim().parse().ok());
            Err(StoreError::Locked { path: file.path.clone(), pid })
        }
        Err(error) => Err(StoreError::io("lock", &file.path)(error.into())),
    }
}
