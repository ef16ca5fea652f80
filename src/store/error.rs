//! What can go wrong with a store, and where.

use std::io;
use std::path::{Path, PathBuf};

use crate::blob::{BlobId, BundleError};
use crate::mailbox::ReplicaId;
use crate::uid::TableError;

use super::Position;

/// Why an operation of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store was opened for reading only.
    #[error("{path} is open for reading only", path = path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
    },
    /// A backup of a store cannot be inside of it.
    #[error("{path} is inside of the store that is to be copied", path = path.display())]
    InsideItself {
        /// Where the backup was to go.
        path: PathBuf,
    },
    /// Another process, or another handle of this one, has the store open.
    #[error("{path} is locked by process {pid}", path = path.display(), pid = pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string()))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who wrote itself into it.
        pid: Option<u32>,
    },
    /// There is no store here.
    #[error("{path} is not a store", path = path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// There is something here already.
    #[error("{path} is not empty", path = path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// A later program made the store.
    #[error("{path} has format {found}; this program knows up to {known}", path = path.display())]
    Newer {
        /// The marker file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// Bytes that were once right no longer are.
    #[error("{path} is damaged at byte {offset}: {what}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A log or pack segment that must be there is not.
    #[error("{path} is missing", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The index failed; it can be rebuilt.
    #[error(transparent)]
    Index(#[from] TableError),
    /// Groups of the log wait to be replayed before anything new is written.
    #[error("the index is at position {index} and the log at {log}: replay first")]
    ReplayPending {
        /// Where the index is.
        index: Position,
        /// Where the log is.
        log: Position,
    },
    /// An earlier commit failed in a way that leaves memory and disk in doubt. Open the store again.
    #[error("an earlier commit failed; the store must be opened again")]
    Poisoned,
    /// A change skips earlier changes of its actor.
    #[error("change {seq} of {actor} came where {expected} was expected")]
    Gap {
        /// The actor.
        actor: ReplicaId,
        /// The sequence number that came.
        seq: u64,
        /// The next one that is allowed.
        expected: u64,
    },
    /// Two different changes carry the same actor and sequence number: a replica was copied or rolled back.
    #[error("{actor} made two different changes {seq}")]
    Fork {
        /// The actor.
        actor: ReplicaId,
        /// The sequence number of both.
        seq: u64,
    },
    /// Something is larger than the store takes.
    #[error("{what} of {size} bytes is above the limit of {limit}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// How large it is, or would become.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The body is not here.
    #[error("the body {0} is not in the store")]
    NoBody(BlobId),
    /// A body that was fetched in pieces is not the one that was asked for. The pieces are gone.
    #[error("the body {wanted} arrived as {found}")]
    WrongBody {
        /// What was asked for.
        wanted: BlobId,
        /// What came.
        found: BlobId,
    },
    /// A bundle that came from elsewhere was refused.
    #[error("the bundle was refused")]
    Bundle(#[from] BundleError),
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        move |source| StoreError::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn damaged(path: &Path, offset: u64, what: impl ToString) -> StoreError {
        StoreError::Damaged { path: path.to_owned(), offset, what: what.to_string() }
    }
}
