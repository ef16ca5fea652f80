//! Message bodies, in and out.

use std::io::{self, Read};

use super::{Replica, ReplicaError};
use crate::blob::BlobId;
use crate::mailbox::EntryId;
use crate::store::{BodyReader, BodyWriter, StoreError};

/// Remembers that it was the source that failed, and not the disk it went to.
pub(super) struct Watched<R> {
    pub(super) inner: R,
    pub(super) failed: Option<io::Error>,
}

impl<R: Read> Watched<R> {
    pub(super) fn new(inner: R) -> Watched<R> {
        Watched { inner, failed: None }
    }

    /// Whose fault an error is.
    pub(super) fn blame(&mut self, error: StoreError) -> ReplicaError {
        match self.failed.take() {
            Some(source) => ReplicaError::Source { source },
            None => error.into(),
        }
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.inner.read(out).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            kind.into()
        })
    }
}

impl Replica {
    /// Stores a body without having all of it in memory, for a message that is to be added with [`Replica::append_all`];
    /// gives its name and size. It is durable with that. A body that no message refers to is garbage and does no harm.
    pub fn put_body(&self, body: impl Read) -> Result<(BlobId, u64), ReplicaError> {
        let mut body = Watched::new(body);
        let put = self.0.handle.bodies().put_reader(&mut body);
        put.map_err(|error| body.blame(error))
    }

    /// The same for several, small ones compressed together; gives their names in order.
    pub fn put_bodies(&self, bodies: Vec<Vec<u8>>) -> Result<Vec<BlobId>, ReplicaError> {
        Ok(self.0.handle.bodies().put_many(bodies)?)
    }

    /// The same for a body that arrives in pieces which cannot be waited for. At most [`crate::blob::MAX_SMALL`] bytes of
    /// it are in memory; dropped before its end it leaves nothing.
    pub fn body_writer(&self) -> BodyWriter {
        self.0.handle.bodies().writer()
    }

    /// The body of a message, streamed. An expunged message's is given too, while it is here.
    pub fn body(&self, entry: EntryId) -> Result<BodyReader, ReplicaError> {
        let found = self.view()?.view().entry(entry)?;
        let (blob, _, _) = found.ok_or(ReplicaError::NoEntry { entry })?;
        self.open_body(blob, 0)
    }

    /// A body by its name, streamed from an offset on; [`ReplicaError::Owed`] if it is not here. One below 1 MiB is in
    /// memory as a whole, with what it was compressed with; in a larger one, bytes before the offset are inflated too, at
    /// about a gigabyte a second.
    pub fn open_body(&self, blob: BlobId, offset: u64) -> Result<BodyReader, ReplicaError> {
        self.0.handle.bodies().open_at(blob, offset).map_err(|error| match error {
            StoreError::NoBody(blob) => ReplicaError::Owed { blob },
            error => error.into(),
        })
    }

    /// Sorts things that have bodies, for who reads them all: small ones are compressed many together, and are faster read in
    /// the order in which they lie there. Costs a look-up each.
    pub fn sort_for_reading<T>(
        &self,
        items: &mut [T],
        blob: impl Fn(&T) -> Option<BlobId>,
    ) -> Result<(), ReplicaError> {
        let bodies = self.0.handle.bodies();
        let mut failed = None;
        let place = |item: &T| {
            let place = blob(item).map(|blob| bodies.place(blob)).transpose();
            place.unwrap_or_else(|error| {
                failed = Some(error);
                None
            })
        };
        items.sort_by_cached_key(place);
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Whether a body is here.
    pub fn has_body(&self, blob: BlobId) -> Result<bool, ReplicaError> {
        Ok(self.0.handle.bodies().contains(blob)?)
    }
}
