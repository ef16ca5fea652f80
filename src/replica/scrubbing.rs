//! Scrubbing: bodies are read again, and those that are damaged are asked for from any peer.
//!
//! A damaged body is taken out, so that it counts as not here, and owed for every message that needs it; peers that are connected
//! are asked at once, others when they come. What a pass found is kept in a file of the store, with its place, so that the next
//! process goes on there. Nothing depends on the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::forgetting::each_reference;
use super::{Replica, ReplicaError, lock, now, owed};
use crate::blob::BlobId;
use crate::mailbox::{EntryId, MailboxId};
use crate::store::{Scrub, ScrubPlace, Scrubbed};

const FILE: &str = "scrub";
const HEAD: &str = "postmerge scrub 1\n";
const END: &str = "end\n";
/// Damaged bodies that are remembered until they are here again: a disk that has lost more is not healed body by body.
const MAX_DAMAGED: usize = 1024;
/// Bytes that a pass reads before its place is noted anew: a restart reads no more than this again.
const NOTE_BYTES: u64 = 64 << 20;

/// How scrubbing stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubState {
    /// When the present pass began, or the last one, in seconds since 1970.
    pub began: Option<i64>,
    /// When the last whole pass ended.
    pub finished: Option<i64>,
    /// Damaged bodies that were found ever.
    pub damaged: u64,
    /// Of those, the ones that are needed and not here yet.
    pub unhealed: Vec<BlobId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    place: ScrubPlace,
    state: ScrubState,
}

impl Default for Note {
    fn default() -> Note {
        Note { place: ScrubPlace::Segment(0), state: ScrubState::default() }
    }
}

/// What a replica remembers of its scrubs.
pub(super) struct Scrubs {
    path: PathBuf,
    note: std::sync::Mutex<Note>,
}

impl Scrubs {
    pub(super) fn read(dir: &Path) -> Scrubs {
        let path = dir.join(FILE);
        let note = std::fs::read_to_string(&path).ok().and_then(|text| parse(&text)).unwrap_or_default();
        Scrubs { path, note: note.into() }
    }

    fn update(&self, act: impl FnOnce(&mut Note)) {
        let mut note = lock(&self.note);
        act(&mut note);
        let write = || {
            let new = self.path.with_extension("new");
            std::fs::write(&new, text(&note))?;
            std::fs::rename(&new, &self.path)
        };
        if let Err(error) = write() {
            tracing::warn!(path = %self.path.display(), %error, "how far the scrub is cannot be noted");
        }
    }
}

/// A pass over all bodies, cut into steps.
pub struct ScrubPass {
    scrub: Scrub,
    /// Whether it is the one whose place is kept.
    kept: bool,
    since_note: u64,
}

impl ScrubPass {
    /// Whether the pass is at its end.
    pub fn is_done(&self) -> bool {
        self.scrub.is_done()
    }
}

impl Replica {
    /// A pass over all bodies from the beginning.
    pub fn scrub(&self) -> ScrubPass {
        ScrubPass { scrub: Scrub::from(ScrubPlace::Segment(0)), kept: false, since_note: 0 }
    }

    /// The pass that goes on over restarts; a new one, if the last one came to its end.
    pub fn resume_scrub(&self) -> ScrubPass {
        let note = lock(&self.0.scrubs.note).clone();
        if note.place == ScrubPlace::Segment(0) {
            self.0.scrubs.update(|note| note.state.began = Some(now()));
        }
        ScrubPass { scrub: Scrub::from(note.place), kept: true, since_note: 0 }
    }

    /// Goes on with a pass until about `budget` bytes were read. Damaged bodies are taken out and asked for; each is logged.
    pub fn scrub_step(&self, pass: &mut ScrubPass, budget: u64) -> Result<Scrubbed, ReplicaError> {
        let before = pass.scrub.place();
        let found = pass.scrub.step(self.0.handle.bodies(), budget)?;
        if !found.damaged.is_empty() {
            self.heal(&found)?;
        }
        pass.since_note += found.bytes;
        if pass.is_done() {
            self.0.scrubs.update(|note| {
                note.state.finished = Some(now());
                if pass.kept {
                    note.place = ScrubPlace::Segment(0);
                }
            });
        } else if pass.kept && pass.since_note >= NOTE_BYTES && pass.scrub.place() != before {
            pass.since_note = 0;
            self.0.scrubs.update(|note| note.place = pass.scrub.place());
        }
        Ok(found)
    }

    /// How scrubbing stands.
    pub fn scrub_state(&self) -> Result<ScrubState, ReplicaError> {
        let mut state = lock(&self.0.scrubs.note).state.clone();
        let mut unhealed = Vec::new();
        for blob in std::mem::take(&mut state.unhealed) {
            if !self.has_body(blob)? {
                unhealed.push(blob);
            }
        }
        state.unhealed = unhealed;
        Ok(state)
    }

    fn heal(&self, found: &Scrubbed) -> Result<(), ReplicaError> {
        for body in &found.damaged {
            let path = body.path.display();
            tracing::error!(blob = %body.blob, %path, offset = body.offset, what = body.what, "a body is damaged");
        }
        let damaged: BTreeSet<BlobId> = found.damaged.iter().map(|body| body.blob).collect();
        let snapshot = self.view()?;
        let mut needed: BTreeMap<MailboxId, Vec<EntryId>> = BTreeMap::new();
        let mut needed_blobs = BTreeSet::new();
        each_reference(&snapshot, |one| {
            if one.visible
                && damaged.contains(&one.blob)
                && let Some(mailbox) = snapshot.view().home(one.entry)?
            {
                needed.entry(mailbox).or_default().push(one.entry);
                needed_blobs.insert(one.blob);
            }
            Ok(())
        })?;
        self.with(|core| {
            core.writable()?;
            // First it is gone, then it is owed: a debt for what is here would be struck.
            core.store.drop_damaged(&found.damaged)?;
            let bodies = core.store.bodies().clone();
            let mut txn = core.store.begin()?;
            for (mailbox, entries) in &needed {
                owed::note_entries(&mut txn, &bodies, self.account(), *mailbox, entries)?;
            }
            txn.commit()?;
            Ok(())
        })?;
        self.0.scrubs.update(|note| {
            note.state.damaged += found.damaged.len() as u64;
            let room = MAX_DAMAGED.saturating_sub(note.state.unhealed.len());
            note.state.unhealed.extend(needed_blobs.iter().take(room));
        });
        for blob in needed_blobs {
            self.want(blob)?;
        }
        Ok(())
    }
}

fn text(note: &Note) -> String {
    let Note { place, state: ScrubState { began, finished, damaged, unhealed } } = note;
    let (began, finished) = (began.unwrap_or_default(), finished.unwrap_or_default());
    let mut text = format!("{HEAD}pass {place} {began} {finished} {damaged}\n");
    for blob in unhealed {
        writeln!(text, "damaged {blob}").expect("a string takes text");
    }
    text + END
}

fn parse(text: &str) -> Option<Note> {
    let mut note = Note::default();
    for line in text.strip_prefix(HEAD)?.strip_suffix(END)?.lines() {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "pass" => {
                let mut fields = rest.split(' ');
                note.place = fields.next()?.parse().ok()?;
                let mut time = || Some(Some(fields.next()?.parse().ok()?).filter(|time| *time != 0i64));
                (note.state.began, note.state.finished) = (time()?, time()?);
                note.state.damaged = fields.next()?.parse().ok()?;
            }
            "damaged" => note.state.unhealed.push(rest.parse().ok()?),
            _ => return None,
        }
    }
    Some(note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_back() {
        let blob = BlobId::of(b"x");
        let state = ScrubState { began: Some(5), finished: None, damaged: 7, unhealed: vec![blob] };
        for place in [ScrubPlace::Segment(3), ScrubPlace::Large(None), ScrubPlace::Large(Some(blob))] {
            let note = Note { place, state: state.clone() };
            assert_eq!(parse(&text(&note)), Some(note.clone()));
            assert_eq!(parse(&text(&note).replace("end", "")), None);
        }
        assert_eq!(parse(&text(&Note::default())), Some(Note::default()));
    }
}
