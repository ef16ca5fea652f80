//! Summaries of bodies: made once, when a body arrives, kept in the index, found again by the body's name.

use std::collections::BTreeMap;
use std::io::{self, BufReader};

use postmerge::blob::BlobId;
use postmerge::mailbox::{MailboxId, Uid};
use postmerge::replica::{Replica, ReplicaError};
use postmerge::store::Summarizer;

use crate::message::{self, Summary};

/// Messages that are looked at together. Their summaries are in memory at once: some hundred bytes each, but a megabyte of
/// a message that somebody made to have a large one.
pub(crate) const BATCH: usize = 64;

/// Has a replica make the summaries of bodies as they arrive, so that no client waits for them. A program that serves IMAP
/// calls it wherever it opens a replica, also where it only imports.
pub fn summarize_arrivals(replica: &Replica) {
    replica.summarize_bodies(Summarizer { version: message::VERSION, make: message::make });
}

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
    // They are a cache: what was asked for is done, whether they can be kept or not.
    if !made.is_empty()
        && let Err(error) = replica.put_summaries(made)
    {
        tracing::warn!(%error, "summaries cannot be kept");
    }
    Ok(found)
}

fn make(replica: &Replica, blob: BlobId) -> Result<Option<Vec<u8>>, ReplicaError> {
    let body = match replica.open_body(blob, 0) {
        Ok(body) => body,
        Err(ReplicaError::Owed { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    message::make(&mut BufReader::with_capacity(64 << 10, body))
        .map(Some)
        .map_err(|source| ReplicaError::Source { source })
}

/// Makes the summaries that are missing, before a client asks: of bodies that were here before this version of the program,
/// or before the index was lost. Once it is done, that is noted, and the next one has nothing to do.
#[derive(Debug, Default)]
pub struct Indexer {
    /// For each mailbox the UID up to which all is done.
    done: BTreeMap<MailboxId, Uid>,
}

impl Indexer {
    /// Does some of the work, some dozen messages at most; says whether there may be more. Bodies that have not arrived are
    /// passed over: they are summarised as they do.
    pub fn step(&mut self, replica: &Replica) -> Result<bool, ReplicaError> {
        if replica.are_all_summarized()? {
            return Ok(false);
        }
        let snapshot = replica.snapshot()?;
        for mailbox in snapshot.mailboxes()? {
            let from = match self.done.get(&mailbox.id) {
                Some(uid) => uid.value().checked_add(1).and_then(Uid::new),
                None => Some(Uid::FIRST),
            };
            let Some(from) = from.filter(|from| from.value() < mailbox.uid_next) else { continue };
            let messages = snapshot.messages(mailbox.id, from, BATCH)?;
            let Some(last) = messages.last() else { continue };
            drop(snapshot);
            let blobs: Vec<BlobId> = messages.iter().map(|message| message.blob).collect();
            summaries(replica, &blobs)?;
            self.done.insert(mailbox.id, last.uid);
            return Ok(true);
        }
        replica.note_all_summarized()?;
        Ok(false)
    }
}

/// An error of a body's reader, as the replica's.
pub(crate) fn unreadable(source: io::Error) -> ReplicaError {
    ReplicaError::Source { source }
}
