//! Summaries of bodies: made once, kept in the index, found again by the body's name.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use postmerge::blob::BlobId;
use postmerge::mailbox::Uid;
use postmerge::replica::{Replica, ReplicaError};
use postmerge::uid::Shown;

use crate::message::{self, Summary};

/// Messages that are looked at together. Their summaries are in memory at once: some hundred bytes each, but a megabyte of
/// a message that somebody made to have a large one.
pub(crate) const BATCH: usize = 64;
/// Bodies that are not here and whose summaries the indexer makes when they come; others are made when a client asks.
const MAX_WAITING: usize = 100_000;

/// The summary of each body, in order; nothing for a body that is not here or cannot be read, which the log says. Missing
/// ones are made, at about the cost of reading the body, and kept for the next time.
pub(crate) fn summaries(replica: &Replica, blobs: &[BlobId]) -> Result<Vec<Option<Vec<u8>>>, ReplicaError> {
    let mut found = replica.summaries(blobs)?;
    let mut made = Vec::new();
    for (blob, summary) in blobs.iter().zip(&mut found) {
        if summary.as_ref().is_some_and(|bytes| Summary::read(bytes).is_ok()) {
            continue;
        }
        *summary = match make(replica, *blob) {
            Ok(summary) => summary,
            // One that is damaged must not hide the others.
            Err(error) => {
                tracing::error!(%blob, %error, "a body cannot be read; `postmerge check` tells more");
                None
            }
        };
        made.extend(summary.clone().map(|bytes| (*blob, bytes)));
    }
    keep(replica, made);
    Ok(found)
}

/// Keeps summaries for the next time. They are a cache: what was asked for is done, whether they can be kept or not.
pub(crate) fn keep(replica: &Replica, made: Vec<(BlobId, Vec<u8>)>) {
    if !made.is_empty()
        && let Err(error) = replica.put_summaries(made)
    {
        tracing::warn!(%error, "summaries cannot be kept");
    }
}

fn make(replica: &Replica, blob: BlobId) -> Result<Option<Vec<u8>>, ReplicaError> {
    let body = match replica.open_body(blob, 0) {
        Ok(body) => body,
        Err(ReplicaError::Owed { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    message::make(body).map(Some).map_err(|source| ReplicaError::Source { source })
}

/// Makes the summaries of messages that came some other way than APPEND, before a client asks.
#[derive(Debug, Default)]
pub struct Indexer {
    /// For each mailbox the UID up to which all is done.
    done: BTreeMap<postmerge::mailbox::MailboxId, Uid>,
    /// Bodies that were not here when their turn came.
    waiting: BTreeSet<BlobId>,
}

impl Indexer {
    /// Does some of the work, some dozen messages at most; says whether there may be more. What arrives later, bodies of
    /// known messages too, is for a later call.
    pub fn step(&mut self, replica: &Replica) -> Result<bool, ReplicaError> {
        let snapshot = replica.snapshot()?;
        for mailbox in snapshot.mailboxes()? {
            let done = self.done.get(&mailbox.id).copied();
            let from = match done {
                Some(uid) => uid.value().checked_add(1).and_then(Uid::new),
                None => Some(Uid::FIRST),
            };
            let Some(from) = from.filter(|from| from.value() < mailbox.uid_next) else { continue };
            let messages: Vec<Shown> = snapshot.messages(mailbox.id, from, BATCH)?;
            let Some(last) = messages.last() else { continue };
            let last = last.uid;
            drop(snapshot);
            let blobs: Vec<BlobId> = messages.iter().map(|message| message.blob).collect();
            for (blob, summary) in blobs.iter().zip(summaries(replica, &blobs)?) {
                if summary.is_none() && self.waiting.len() < MAX_WAITING {
                    self.waiting.insert(*blob);
                }
            }
            self.done.insert(mailbox.id, last);
            return Ok(true);
        }
        let mut here = Vec::new();
        for blob in &self.waiting {
            if here.len() < BATCH && replica.has_body(*blob)? {
                here.push(*blob);
            }
        }
        if !here.is_empty() {
            self.waiting.retain(|blob| !here.contains(blob));
            summaries(replica, &here)?;
            return Ok(true);
        }
        Ok(false)
    }
}

/// An error of a body's reader, as the replica's.
pub(crate) fn unreadable(source: io::Error) -> ReplicaError {
    ReplicaError::Source { source }
}
