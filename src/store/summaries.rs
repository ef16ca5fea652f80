//! Summaries of bodies as they arrive: made while a body is in memory, kept with the next commit of the index.
//!
//! All bodies come in through the body store, whoever brings them, so this is the one place. What a summary says only
//! the [`Summarizer`] knows. Summaries are a cache; what holds is the mark beside them: while it is there, every small
//! body that the index knows was summarised, or its summary was too long to be kept. It comes with the first body, and
//! goes when one comes in without a summary.

use std::io::{self, BufRead};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::blob::BlobId;
use crate::uid::{Table, TableError};

use super::index::{Index, definition_of, failed};

/// Largest summary that is kept: an envelope and a body structure have some hundred bytes, and a cache page must not hold a
/// message that somebody built to have a large one.
pub(crate) const MAX_SUMMARY: usize = 16 << 10;

/// Bytes of summaries that wait for a commit: those of some thousand messages, after which an import commits anyway. Their
/// keys are hashes, so a smaller transaction would copy a page for each.
const MAX_WAITING: usize = 4 << 20;

/// The mark's key: no body has an empty name.
pub(crate) const MARK: &[u8] = b"";

/// Makes summaries of bodies.
#[derive(Clone, Copy, Debug)]
pub struct Summarizer {
    /// The version of what it makes.
    pub version: u8,
    /// Reads a body to its end.
    pub make: fn(&mut dyn BufRead) -> io::Result<Vec<u8>>,
}

/// What the body store knows of summaries.
#[derive(Debug, Default)]
pub(crate) struct Summaries {
    summarizer: OnceLock<Summarizer>,
    waiting: Mutex<Waiting>,
}

/// What the index is to learn with the next commit.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    made: Vec<(BlobId, Vec<u8>)>,
    bytes: usize,
    /// Of what was made.
    version: Option<u8>,
    /// A body came in without a summary: the mark does not hold.
    missed: bool,
}

impl Summaries {
    /// The first one holds: all that open a store at a time are one program.
    pub(crate) fn set(&self, summarizer: Summarizer) {
        let _ = self.summarizer.set(summarizer);
    }

    pub(crate) fn version(&self) -> Option<u8> {
        self.summarizer.get().map(|summarizer| summarizer.version)
    }

    /// Summarises a body that is new here. That it cannot be read is no error now: it is summarised when it is read.
    pub(crate) fn note(&self, id: BlobId, body: &mut dyn BufRead) {
        let made = self.summarizer.get().map(|summarizer| (summarizer.make)(body));
        let mut waiting = self.lock();
        waiting.version = self.version();
        match made {
            Some(Ok(summary)) if summary.len() <= MAX_SUMMARY => {
                waiting.bytes += summary.len();
                waiting.made.push((id, summary));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => waiting.missed = true,
        }
    }

    /// Notes that bodies came in some other way.
    pub(crate) fn miss(&self) {
        self.lock().missed = true;
    }

    /// Takes what waits, for a commit.
    pub(crate) fn take(&self) -> Waiting {
        std::mem::take(&mut *self.lock())
    }

    /// Does not wait for the next commit if much waits. The mark does: it speaks of bodies that the index knows.
    pub(crate) fn flush(&self, index: &Index) -> Result<(), TableError> {
        let made = {
            let mut waiting = self.lock();
            if waiting.bytes < MAX_WAITING {
                return Ok(());
            }
            waiting.bytes = 0;
            std::mem::take(&mut waiting.made)
        };
        index.cache(|write| put(write, &made))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// How much it writes into the index, roughly.
    pub(crate) fn row_bytes(&self) -> u64 {
        (self.bytes + self.made.len() * 32) as u64
    }

    /// Writes the rows; and the mark, if these are the first bodies.
    pub(crate) fn put(&self, write: &redb::WriteTransaction, are_first: bool) -> Result<(), TableError> {
        match self.version {
            _ if self.missed => forget_mark(write)?,
            Some(version) if are_first => {
                let mut table = write.open_table(definition_of(Table::Summaries)).map_err(failed)?;
                table.insert(MARK, [version].as_slice()).map_err(failed)?;
            }
            _ => {}
        }
        if self.made.is_empty() { Ok(()) } else { put(write, &self.made) }
    }
}

fn put(write: &redb::WriteTransaction, made: &[(BlobId, Vec<u8>)]) -> Result<(), TableError> {
    let mut table = write.open_table(definition_of(Table::Summaries)).map_err(failed)?;
    let mut made: Vec<_> = made.iter().collect();
    // Neighbours share pages.
    made.sort_unstable_by_key(|(id, _)| *id);
    for (id, summary) in made {
        table.insert(id.as_bytes().as_slice(), summary.as_slice()).map_err(failed)?;
    }
    Ok(())
}

/// Bodies are in the index now that may have no summary.
pub(crate) fn forget_mark(write: &redb::WriteTransaction) -> Result<(), TableError> {
    let mut table = write.open_table(definition_of(Table::Summaries)).map_err(failed)?;
    table.remove(MARK).map_err(failed)?;
    Ok(())
}
