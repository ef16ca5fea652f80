//! Takes the messages of a folder into a replica, and finds those that are there already, also where a program that kept the
//! folder altered its files.
//!
//! What a file can be shown to have been is taken as that: its body need not come from elsewhere. What is left is compared
//! with what is left of the mailbox, and that only when all bodies are here: until then nobody can tell what is new.

use std::collections::BTreeMap;

use super::adopt::{Form, Suspect};
use super::scan::{Folder, FoundMessage, SkipReason, Skipped};
use crate::blob::BlobId;
use crate::replica::{ImportMessage, Importer, ReplicaError, Unmet};

/// What became of a folder's files.
#[derive(Debug, Default)]
pub struct Intake {
    /// By their position in the folder, with the body that the message has.
    pub taken: BTreeMap<usize, BlobId>,
    /// Files that may be messages whose bodies are not here, or new ones: nothing was done about them.
    pub undecided: u64,
    /// What could not be read.
    pub skipped: Vec<Skipped>,
}

impl Folder {
    /// Gives all messages to an importer, which is still to be finished. `progress` is called with the size of each.
    pub fn take_in(
        &self,
        importer: &mut Importer<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Intake, ReplicaError> {
        let mut intake = Intake::default();
        let mut unknown = Vec::new();
        for (index, message) in self.messages.iter().enumerate() {
            let taken = match importer.is_first() {
                true => self.add(importer, message).map(Some),
                false => self.recognise(importer, message),
            };
            match taken.transpose() {
                Some(taken) => intake.note(index, message, taken)?,
                None => unknown.push(index),
            }
            progress(message.size);
        }
        if unknown.is_empty() {
            return Ok(intake);
        }
        let unmet = importer.unmet()?;
        if unmet.iter().any(|unmet| !unmet.here) {
            intake.undecided = unknown.len() as u64;
            return Ok(intake);
        }
        for index in self.pair_altered(importer, unmet, unknown, &mut intake)? {
            let message = &self.messages[index];
            let added = self.add(importer, message);
            intake.note(index, message, added)?;
        }
        Ok(intake)
    }

    fn add(&self, importer: &mut Importer<'_>, message: &FoundMessage) -> Result<BlobId, ReplicaError> {
        let body = self.open(message).map_err(|source| ReplicaError::Source { source })?;
        importer.add(described(message), body)
    }

    /// Takes a message that is known, as it is or with what was added undone.
    fn recognise(
        &self,
        importer: &mut Importer<'_>,
        message: &FoundMessage,
    ) -> Result<Option<BlobId>, ReplicaError> {
        let failed = |source| ReplicaError::Source { source };
        let open = || self.open(message);
        let suspect = Suspect::open(&open).map_err(failed)?;
        for candidate in suspect.candidates() {
            let (undo, body) = candidate.map_err(failed)?;
            if importer.knows(body)? {
                let original = suspect.original(undo).map_err(failed)?;
                return importer.add(described(message), original).map(Some);
            }
        }
        Ok(None)
    }

    /// Finds files and messages that say the same; gives back the files that are alone. Where several say the same, they
    /// are paired by size: programs change little.
    fn pair_altered(
        &self,
        importer: &mut Importer<'_>,
        unmet: Vec<Unmet>,
        unknown: Vec<usize>,
        intake: &mut Intake,
    ) -> Result<Vec<usize>, ReplicaError> {
        if unmet.is_empty() {
            return Ok(unknown);
        }
        let mut messages: BTreeMap<Form, Vec<Unmet>> = BTreeMap::new();
        for one in unmet {
            let form = importer.replica().open_body(one.body, 0).map(Form::of)?;
            messages.entry(form.map_err(|source| ReplicaError::Source { source })?).or_default().push(one);
        }
        messages.values_mut().for_each(|alike| alike.sort_by_key(|one| std::cmp::Reverse(one.size)));
        let (mut by_size, mut alone) = (unknown, Vec::new());
        by_size.sort_by_key(|index| self.messages[*index].size);
        for index in by_size {
            // One that cannot be read is left to the attempt to add it.
            let form = self.open(&self.messages[index]).and_then(Form::of).ok();
            match form.and_then(|form| messages.get_mut(&form)?.pop()) {
                Some(one) => {
                    importer.meet_altered(&one);
                    intake.taken.insert(index, one.body);
                }
                None => alone.push(index),
            }
        }
        alone.sort_unstable();
        Ok(alone)
    }
}

impl Intake {
    /// A file that cannot be read is left out, and nothing else fails for it.
    fn note(
        &mut self,
        index: usize,
        message: &FoundMessage,
        taken: Result<BlobId, ReplicaError>,
    ) -> Result<(), ReplicaError> {
        match taken {
            Ok(body) => drop(self.taken.insert(index, body)),
            Err(ReplicaError::Source { source }) => {
                self.skipped.push(Skipped { path: message.path.clone(), reason: SkipReason::Io(source) });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn described(message: &FoundMessage) -> ImportMessage {
    let FoundMessage { internal_date, uid, .. } = *message;
    ImportMessage { internal_date, keywords: message.keywords.clone(), uid }
}
