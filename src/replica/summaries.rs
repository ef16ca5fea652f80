//! A cache of what readers derive from bodies, so that listing a mailbox opens none.

use super::{Replica, ReplicaError};
use crate::blob::BlobId;
use crate::uid::{Table, Tables, TablesMut};

/// Largest summary that is kept: an envelope and a body structure have some hundred bytes, and a cache page must not hold a
/// message that somebody built to have a large one.
const MAX_SUMMARY: usize = 16 << 10;

impl Replica {
    /// What [`Replica::put_summaries`] kept for bodies, in their order. One look-up each. The bytes are opaque, so whoever
    /// writes them puts a version of their own in front.
    pub fn summaries(&self, blobs: &[BlobId]) -> Result<Vec<Option<Vec<u8>>>, ReplicaError> {
        let reader = self.0.handle.reader()?;
        let summary = |blob: &BlobId| Ok(reader.get(Table::Summaries, blob.as_bytes())?);
        blobs.iter().map(summary).collect()
    }

    /// Keeps bytes that were derived from bodies, beside the bodies' names. It is a cache: not in the log, not sent to
    /// peers, not durable by itself, and gone when the index is rebuilt. More than 16 KiB for one body are not kept. One
    /// commit of the index, so that many at once cost less.
    pub fn put_summaries(&self, summaries: Vec<(BlobId, Vec<u8>)>) -> Result<(), ReplicaError> {
        self.with(|core| {
            let mut txn = core.store.begin()?;
            for (blob, summary) in summaries.iter().filter(|(_, summary)| summary.len() <= MAX_SUMMARY) {
                txn.put(Table::Summaries, blob.as_bytes(), summary)?;
            }
            txn.commit()?;
            Ok(())
        })
    }
}
