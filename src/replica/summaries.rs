//! A cache of what readers derive from bodies, so that listing a mailbox opens none.

use super::{Replica, ReplicaError};
use crate::blob::BlobId;
use crate::store::{MARK, MAX_SUMMARY, Summarizer};
use crate::uid::{Table, Tables, TablesMut};

impl Replica {
    /// Has every body that arrives from now on summarised while it is in memory, whichever way it comes; the summary is
    /// kept with the commit that makes the body known. The first one that is given holds while the replica is open.
    pub fn summarize_bodies(&self, summarizer: Summarizer) {
        self.0.handle.bodies().summarize(summarizer);
    }

    /// Whether [`Replica::note_all_summarized`] holds still, for the version that bodies are summarised to.
    pub fn are_all_summarized(&self) -> Result<bool, ReplicaError> {
        let Some(version) = self.0.handle.bodies().summary_version() else { return Ok(false) };
        Ok(self.0.handle.reader()?.get(Table::Summaries, MARK)?.is_some_and(|mark| mark == [version]))
    }

    /// Notes that all bodies which are here have summaries of that version. It holds until the summaries are gone, with
    /// the index, or a body arrives while none are made.
    pub fn note_all_summarized(&self) -> Result<(), ReplicaError> {
        let Some(version) = self.0.handle.bodies().summary_version() else { return Ok(()) };
        self.with(|core| {
            let mut txn = core.store.begin()?;
            txn.put(Table::Summaries, MARK, &[version])?;
            txn.commit()?;
            Ok(())
        })
    }

    /// What was kept for bodies, in their order. One look-up each. The bytes are opaque, so whoever writes them puts a
    /// version of their own in front.
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
