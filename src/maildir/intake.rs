//! Takes the messages of a folder into a replica, and finds those that are there already, also where a program that kept the
//! folder altered its files.
//!
//! What a file can be shown to have been is taken as that: its body need not come from elsewhere. What is left is compared
//! with what is left of the mailbox, and that only when all bodies are here: until then nobody can tell what is new.

use std::collections::{BTreeMap, BTreeSet};

use super::adopt::{Form, Suspect};
use super::scan::{Folder, FoundMessage, Layout, Scan, SkipReason, Skipped};
use crate::blob::BlobId;
use crate::mailbox::MailboxName;
use crate::replica::{ImportMessage, Importer, Replica, ReplicaError, Unmet};

/// What became of a folder's files.
#[derive(Debug, Default)]
pub struct Intake {
    /// By their position in the folder.
    pub taken: BTreeMap<usize, Taken>,
    /// Files that may be messages whose bodies are not here, or new ones: nothing was done about them.
    pub undecided: u64,
    /// What could not be read.
    pub skipped: Vec<Skipped>,
}

/// A file that is a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The message's body.
    pub body: BlobId,
    /// The name of the file's own bytes: another one, if a program altered them.
    pub file: BlobId,
}

/// What a file is at the first look.
enum Look {
    Known(Taken),
    /// No message that is known; the name of its bytes.
    Unknown(BlobId),
}

impl Folder {
    /// Gives all messages to an importer, which is still to be finished. `progress` is called with the size of each.
    pub fn take_in(
        &self,
        importer: &mut Importer<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Intake, ReplicaError> {
        let mut intake = Intake::default();
        let mut unknown: Vec<(usize, BlobId)> = Vec::new();
        for (index, message) in self.messages.iter().enumerate() {
            let looked = match importer.is_first() {
                true => self.add(importer, message).map(Look::Known),
                false => self.recognise(importer, message),
            };
            match looked {
                Ok(Look::Unknown(file)) => unknown.push((index, file)),
                Ok(Look::Known(taken)) => drop(intake.taken.insert(index, taken)),
                Err(error) => intake.skip(message, error)?,
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
            match self.add(importer, message) {
                Ok(taken) => drop(intake.taken.insert(index, taken)),
                Err(error) => intake.skip(message, error)?,
            }
        }
        Ok(intake)
    }

    fn add(&self, importer: &mut Importer<'_>, message: &FoundMessage) -> Result<Taken, ReplicaError> {
        let file = importer.add(described(message), self.open(message).map_err(unreadable)?)?;
        Ok(Taken { body: file, file })
    }

    /// Takes a message that is known, as it is or with what was added undone.
    fn recognise(&self, importer: &mut Importer<'_>, message: &FoundMessage) -> Result<Look, ReplicaError> {
        let open = || self.open(message);
        let suspect = Suspect::open(&open).map_err(unreadable)?;
        let mut file = None;
        for candidate in suspect.candidates() {
            let (undo, body) = candidate.map_err(unreadable)?;
            // The first one is the file as it is.
            let file = *file.get_or_insert(body);
            if importer.knows(body)? {
                let body = importer.add(described(message), suspect.original(undo).map_err(unreadable)?)?;
                return Ok(Look::Known(Taken { body, file }));
            }
        }
        Ok(Look::Unknown(file.expect("a file is itself, if nothing else")))
    }

    /// Finds files and messages that say the same; gives back the files that are alone. Where several say the same, they
    /// are paired by size: programs change little.
    fn pair_altered(
        &self,
        importer: &mut Importer<'_>,
        unmet: Vec<Unmet>,
        mut unknown: Vec<(usize, BlobId)>,
        intake: &mut Intake,
    ) -> Result<Vec<usize>, ReplicaError> {
        let mut messages: BTreeMap<Form, Vec<Unmet>> = BTreeMap::new();
        for one in unmet {
            let form = Form::of(importer.replica().open_body(one.body, 0)?).map_err(unreadable)?;
            messages.entry(form).or_default().push(one);
        }
        messages.values_mut().for_each(|alike| alike.sort_by_key(|one| one.size));
        unknown.sort_by_key(|(index, _)| std::cmp::Reverse(self.messages[*index].size));
        let mut alone = Vec::new();
        for (index, file) in unknown {
            // Without messages to compare with, nothing is read. What cannot be read fails when it is added.
            let open = || self.open(&self.messages[index]).and_then(Form::of).ok();
            let form = Some(()).filter(|()| !messages.is_empty()).and_then(|()| open());
            match form.and_then(|form| messages.get_mut(&form)?.pop()) {
                Some(one) => {
                    importer.meet_altered(&one);
                    intake.taken.insert(index, Taken { body: one.body, file });
                }
                None => alone.push(index),
            }
        }
        // Equal bodies are told apart by their order in the folder.
        alone.sort_unstable();
        Ok(alone)
    }
}

impl Intake {
    /// A file that cannot be read is left out, and nothing else fails for it.
    fn skip(&mut self, message: &FoundMessage, error: ReplicaError) -> Result<(), ReplicaError> {
        let ReplicaError::Source { source } = error else { return Err(error) };
        self.skipped.push(Skipped { path: message.path.clone(), reason: SkipReason::Io(source) });
        Ok(())
    }
}

impl Scan {
    /// Gives folders the names that the replica's mailboxes have. OfflineIMAP, and mbsync with `Flatten .`, write `Lists.rust`
    /// for `Lists/rust`; a dot means nothing in other trees of directories, so it is believed only where the replica has the one mailbox and
    /// not the other.
    pub fn follow_names(&mut self, replica: &Replica) -> Result<(), ReplicaError> {
        if self.layout == Layout::MaildirPlusPlus {
            return Ok(());
        }
        let snapshot = replica.snapshot()?;
        let mut taken: BTreeSet<MailboxName> =
            self.folders.iter().map(|folder| folder.name.clone()).collect();
        for folder in &mut self.folders {
            let Ok(name) = folder.name.as_str().replace('.', "/").parse::<MailboxName>() else { continue };
            let follows = snapshot.find(&folder.name)?.is_none() && snapshot.find(&name)?.is_some();
            if follows && taken.insert(name.clone()) {
                folder.name = name;
            }
        }
        Ok(())
    }
}

fn unreadable(source: std::io::Error) -> ReplicaError {
    ReplicaError::Source { source }
}

fn described(message: &FoundMessage) -> ImportMessage {
    let FoundMessage { internal_date, uid, .. } = *message;
    ImportMessage { internal_date, keywords: message.keywords.clone(), uid }
}
