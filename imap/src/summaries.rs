//! Summaries of bodies: made once, kept in the index, found again by the body's name.

use std::collections::BTreeMap;
use std::io;

use postmerge::blob::BlobId;
use postmerge::mailbox::Uid;
use postmerge::replica::{Replica, ReplicaError};
use postmerge::uid::Shown;

use crate::message::{self, Summary};

/// Messages that are looked at together. Their summaries, of some hundred bytes each, are in memory at once.
pub(crate) const BATCH: usize = 256;

/// The summary of each body, in order; nothing for a body that is not here. Missing ones are made, at about the cost of
/// reading the body, and kept for the next time.
pub(crate) fn summaries(replica: &Replica, blobs: &[BlobId]) -> Result<Vec<Option<Vec<u8>>>, ReplicaError> {
    let mut found = replica.summaries(blobs)?;
    let mut made = Vec::new();
    for (blob, summary) in blobs.iter().zip(&mut found) {
        if summary.as_ref().is_some_and(|bytes| Summary::read(bytes).is_ok()) {
            continue;
        }
        *summary = make(replica, *blob)?;
        made.extend(summary.clone().map(|bytes| (*blob, bytes)));
    }
    if !made.is_empty() {
        replica.put_summaries(made)?;
    }
    Ok(found)
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
}

impl Indexer {
    /// Does some of the work, 256 messages at most; says whether there may be more. Bodies that are not here are made
    /// when they are asked for.
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
            summaries(replica, &blobs)?;
            self.done.insert(mailbox.id, last);
            return Ok(true);
        }
        Ok(false)
    }
}

/// An error of a body's reader, as the replica's.
pub(crate) fn unreadable(source: io::Error) -> ReplicaError {
    ReplicaError::Source { source }
}
