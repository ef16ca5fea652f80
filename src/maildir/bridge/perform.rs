//! Does what a round decided: first to the replica, where it is durable at once, then to the files, then to the ledger.
//!
//! A crash in between leaves both sides nearer to each other and the ledger behind. The next run then finds the change on
//! both sides, or a file and a message with one content, and only notes it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::decide::{DiskStep, ReplicaStep, State};
use super::files::{Outcome, Target};
use super::folders::sync;
use super::gather::{Body, Case, Plan};
use super::ledger::{FileRow, Intent, Notes, Place};
use super::{BridgeError, Report, Run, files, gather, served};
use crate::mailbox::{EntryId, MailboxId, MailboxName};
use crate::maildir::scan::{SkipReason, Skipped};
use crate::replica::NewMessage;
use crate::uid::{EntryEdit, Fate};

/// Directories that have to be synced before the ledger says what is in them.
type Dirty = BTreeSet<PathBuf>;

impl Run<'_> {
    /// Whether another round is needed.
    pub(super) fn perform(&mut self, mut plan: Plan, report: &mut Report) -> Result<bool, BridgeError> {
        let mut notes = Notes::default();
        let cases = std::mem::take(&mut plan.cases);
        let cases = self.edit_replica(cases, &mut plan, report)?;
        let (adds, cases): (Vec<Case>, Vec<Case>) =
            cases.into_iter().partition(|case| case.on_replica == ReplicaStep::Add);
        self.add(adds, &cases, &mut plan, &mut notes, report)?;
        let mut cases: Vec<Case> =
            cases.into_iter().filter_map(|case| self.unless_it_stayed(case, &mut plan)).collect();
        self.replica.sort_for_reading(&mut cases, Case::writes)?;
        let mut dirty = Dirty::new();
        if self.is_served() {
            self.give_letters(&cases, &mut plan, report)?;
        }
        // Where a Dovecot looks, a file must not appear before its UID is told.
        let (arrivals, cases): (Vec<Case>, Vec<Case>) =
            cases.into_iter().partition(|case| self.is_served() && served::is_arrival(case));
        for case in cases {
            self.on_disk(case, &mut plan, &mut notes, &mut dirty, report)?;
        }
        dirty.iter().try_for_each(|dir| sync(dir))?;
        if self.is_served() {
            self.ledger.commit(&std::mem::take(&mut notes))?;
            self.serve(arrivals, &mut plan, &mut notes, report)?;
        }
        for entry in std::mem::take(&mut plan.postponed) {
            self.ledger.put_waiting(&mut notes, entry, true);
            self.waiting.insert(entry);
        }
        self.note_folders(&plan, &mut notes);
        self.ledger.commit(&notes)?;
        report.waiting = self.waiting.len() as u64;
        if plan.more {
            return Ok(true);
        }
        let mut more = false;
        for folder in plan.folders.values().filter(|folder| folder.vanished || folder.mailbox.is_none()) {
            more |= self.remove_empty(folder, report)?;
        }
        if more {
            // Its messages were waiting for a folder.
            self.queue = gather::Queue::default();
        }
        Ok(more)
    }

    /// Changes flags, places and removals in the replica, in one change. Gives back the cases that are to go on.
    fn edit_replica(
        &self,
        cases: Vec<Case>,
        plan: &mut Plan,
        report: &mut Report,
    ) -> Result<Vec<Case>, BridgeError> {
        let edit = |case: &Case| {
            let ReplicaStep::Edit { set, clear, fate } = &case.on_replica else { return None };
            let (entry, seen_in) = (case.entry?, case.located.as_ref()?.place?.0);
            // A file that Dovecot's client moved has a UID already, with which it is moved.
            let fate = match fate {
                Fate::Move(_) if self.is_served() => Fate::Stay,
                fate => *fate,
            };
            Some(EntryEdit { entry, seen_in, set: set.clone(), clear: clear.clone(), fate })
        };
        let edits: Vec<EntryEdit> = cases.iter().filter_map(edit).collect();
        let done = match edits.is_empty() {
            true => BTreeSet::new(),
            false => self.replica.edit(&edits)?,
        };
        let mut left = Vec::with_capacity(cases.len());
        for case in cases {
            if let (ReplicaStep::Edit { set, clear, fate }, Some(entry)) = (&case.on_replica, case.entry) {
                if !done.contains(&entry) {
                    // A merge moved it since this run looked.
                    plan.postponed.push(entry);
                    continue;
                }
                let counts = &mut report.into_replica;
                counts.removed += u64::from(*fate == Fate::Expunge);
                counts.moved += u64::from(matches!(fate, Fate::Move(_)));
                counts.flagged += u64::from(!set.is_empty() || !clear.is_empty());
            }
            left.push(case);
        }
        Ok(left)
    }

    /// Adds files that are new messages.
    fn add(
        &mut self,
        adds: Vec<Case>,
        cases: &[Case],
        plan: &mut Plan,
        notes: &mut Notes,
        report: &mut Report,
    ) -> Result<(), BridgeError> {
        let mut by_mailbox: BTreeMap<MailboxId, Vec<(Case, Place, Body)>> = BTreeMap::new();
        let mut small = Vec::new();
        for mut case in adds {
            let Some(place) = case.disk.clone() else { continue };
            let Some(body) = self.body_of(&mut case, &place, &mut small, plan, report)? else {
                plan.again.insert(place.0);
                continue;
            };
            by_mailbox.entry(place.0).or_default().push((case, place, body));
        }
        self.replica.put_bodies(small)?;
        self.intend(
            by_mailbox
                .values()
                .flatten()
                .map(|(case, place, body)| (place, Intent { blob: body.blob, keywords: case.said.clone() })),
        )?;
        for mailbox in plan.lists.keys() {
            by_mailbox.entry(*mailbox).or_default();
        }
        for (mailbox, mut new) in by_mailbox {
            let Some(name) = plan.folders[&mailbox].mailbox.as_ref().map(|mailbox| mailbox.name.clone())
            else {
                // The mailbox was deleted, and new mail lies in its folder: it is made again once it is empty.
                plan.again.insert(mailbox);
                continue;
            };
            new.sort_by(|(_, a, a_body), (_, b, b_body)| (a_body.mtime, &a.1).cmp(&(b_body.mtime, &b.1)));
            let entries = match self.is_served() {
                true => {
                    let taken = self.take_in(mailbox, &new, cases, plan, report)?;
                    plan.taken.extend(taken.values());
                    new.iter().map(|(_, place, _)| taken.get(&place.1).copied()).collect()
                }
                false => self.append(&name, &new)?,
            };
            for ((case, place, body), entry) in new.into_iter().zip(entries) {
                let Some(entry) = entry else {
                    plan.again.insert(mailbox);
                    continue;
                };
                if let Some(((mailbox, base), row)) = &case.base {
                    self.ledger.remove_file(notes, *mailbox, base, row.entry);
                }
                let row = FileRow { entry: Some(entry), keywords: case.said, altered: None };
                self.ledger.put_file(notes, place.0, &place.1, &row);
                self.ledger.remove_intent(notes, &place);
                report.into_replica.added += 1;
                report.into_replica.bytes += body.size;
                self.step(body.size);
            }
        }
        Ok(())
    }

    /// A case, unless it is a message that was to be moved with its UID and could not be now.
    fn unless_it_stayed(&self, case: Case, plan: &mut Plan) -> Option<Case> {
        let moves = matches!(case.on_replica, ReplicaStep::Edit { fate: Fate::Move(_), .. });
        let moved = case.entry.is_some_and(|entry| plan.taken.contains(&entry));
        if !self.is_served() || !moves || moved {
            return Some(case);
        }
        plan.postponed.extend(case.entry);
        plan.again.extend(case.disk.map(|place| place.0));
        None
    }

    /// Adds new messages, under UIDs of ours.
    fn append(
        &self,
        name: &MailboxName,
        new: &[(Case, Place, Body)],
    ) -> Result<Vec<Option<EntryId>>, BridgeError> {
        let message = |(case, _, body): &(Case, Place, Body)| NewMessage {
            body: body.blob,
            keywords: case.said.clone(),
            internal_date: Some(body.mtime),
        };
        let added = self.replica.append_all(name, new.iter().map(message).collect())?;
        Ok(added.messages.into_iter().map(|added| Some(added.entry)).collect())
    }

    /// The body of a new message: a small one is added to those that are stored together, a large one is stored at once.
    fn body_of(
        &self,
        case: &mut Case,
        place: &Place,
        small: &mut Vec<Vec<u8>>,
        plan: &Plan,
        report: &mut Report,
    ) -> Result<Option<Body>, BridgeError> {
        let (file, dir) = (&plan.listed[&place.0].files[&place.1], &plan.folders[&place.0].dir);
        let mut failed = |reason| {
            report.skipped.push(Skipped { path: file.path(dir), reason });
            Ok(None)
        };
        let mut body = match case.body.take() {
            Some(body) => body,
            None => match file.open(dir) {
                Ok((mut source, at)) => match gather::read_body(&mut source, at.size, at.mtime) {
                    Ok(body) => body,
                    Err(error) => return failed(SkipReason::Io(error)),
                },
                Err(reason) => return failed(reason),
            },
        };
        match body.bytes.take() {
            Some(bytes) => small.push(bytes),
            None => match file.open(dir) {
                // The bytes that are stored are those that count, should the file have changed.
                Ok((source, _)) => (body.blob, body.size) = self.replica.put_body(source)?,
                Err(reason) => return failed(reason),
            },
        }
        Ok(Some(body))
    }

    /// Makes a file what it should be, and notes it.
    fn on_disk(
        &mut self,
        case: Case,
        plan: &mut Plan,
        notes: &mut Notes,
        dirty: &mut Dirty,
        report: &mut Report,
    ) -> Result<(), BridgeError> {
        let altered = case.altered();
        let Case { entry, base, disk, said, located, on_disk, .. } = case;
        let old = base.as_ref().map(|(place, row)| (place.clone(), row.entry));
        let now: Option<(Place, FileRow)> = match on_disk {
            DiskStep::Nothing => disk.map(|place| (place, FileRow { entry, keywords: said, altered })),
            DiskStep::Forget => None,
            DiskStep::Remove => {
                let Some(place) = disk else { return Ok(()) };
                let (file, dir) = (&plan.listed[&place.0].files[&place.1], &plan.folders[&place.0].dir);
                match files::remove(&file.path(dir))? {
                    Outcome::Done(()) => report.into_maildir.removed += 1,
                    Outcome::Changed => return self.postpone_case(plan, entry, place.0),
                }
                dirty.insert(dir.join(if file.in_new { "new" } else { "cur" }));
                plan.written.insert(place.0);
                None
            }
            DiskStep::Place(state) => {
                let (Some(entry), Some(located)) = (entry, located) else { return Ok(()) };
                let placed = match &disk {
                    Some(place) => self.relocate(place, &state, plan, dirty, report)?,
                    None => self.write(entry, &located, &state, plan, dirty, report)?,
                };
                match placed {
                    Outcome::Done((base, keywords)) => {
                        // One that was written now has the message's bytes.
                        let altered = altered.filter(|_| disk.is_some());
                        Some(((state.mailbox, base), FileRow { entry: Some(entry), keywords, altered }))
                    }
                    Outcome::Changed => {
                        let at = disk.map_or(state.mailbox, |place| place.0);
                        return self.postpone_case(plan, Some(entry), at);
                    }
                }
            }
        };
        if let Some((place, row)) = &base
            && now.as_ref() == Some(&(place.clone(), row.clone()))
        {
            self.no_longer_waits(entry, notes);
            return Ok(());
        }
        if let Some((place, entry)) = old
            && now.as_ref().is_none_or(|(at, _)| *at != place)
        {
            self.ledger.remove_file(notes, place.0, &place.1, entry);
        }
        if let Some((place, row)) = now {
            self.ledger.put_file(notes, place.0, &place.1, &row);
        }
        self.no_longer_waits(entry, notes);
        self.step(0);
        Ok(())
    }

    pub(super) fn no_longer_waits(&mut self, entry: Option<EntryId>, notes: &mut Notes) {
        if let Some(entry) = entry.filter(|entry| self.waiting.remove(entry)) {
            self.ledger.put_waiting(notes, entry, false);
        }
    }

    fn postpone_case(
        &mut self,
        plan: &mut Plan,
        entry: Option<EntryId>,
        mailbox: MailboxId,
    ) -> Result<(), BridgeError> {
        plan.postponed.extend(entry);
        plan.again.insert(mailbox);
        Ok(())
    }

    /// Renames a file: other flags, another folder, or both.
    fn relocate(
        &self,
        place: &Place,
        state: &State,
        plan: &mut Plan,
        dirty: &mut Dirty,
        report: &mut Report,
    ) -> Result<Outcome<files::Named>, BridgeError> {
        let Some(target) = self.target(state.mailbox, plan) else { return Ok(Outcome::Changed) };
        let (files, dir) = (&plan.listed[&place.0], &plan.folders[&place.0].dir);
        let done = files::relocate(&files.files[&place.1], dir, &files.keywords, &target, &state.keywords)?;
        if let Outcome::Done(moved) = &done {
            let counts = &mut report.into_maildir;
            match (moved.renamed, place.0 == state.mailbox) {
                (true, true) => counts.flagged += 1,
                (true, false) => counts.moved += 1,
                (false, _) => {}
            }
            if moved.renamed {
                dirty.extend([
                    dir.join("new"),
                    dir.join("cur"),
                    target.dir.join("cur"),
                    target.dir.join("new"),
                ]);
                plan.written.extend([place.0, state.mailbox]);
            }
        }
        Ok(done.map(|moved| moved.named))
    }

    /// Writes the file of a message.
    fn write(
        &mut self,
        entry: EntryId,
        located: &crate::uid::Located,
        state: &State,
        plan: &mut Plan,
        dirty: &mut Dirty,
        report: &mut Report,
    ) -> Result<Outcome<files::Named>, BridgeError> {
        let Some(target) = self.target(state.mailbox, plan) else { return Ok(Outcome::Changed) };
        let body = match self.replica.open_body(located.blob, 0) {
            Ok(body) => body,
            Err(crate::replica::ReplicaError::Owed { .. }) => return Ok(Outcome::Changed),
            Err(error) => return Err(error.into()),
        };
        let written = files::write(entry, located, body, &target, &state.keywords)?;
        dirty.extend([target.dir.join("new"), target.dir.join("cur")]);
        plan.written.insert(state.mailbox);
        report.into_maildir.added += 1;
        report.into_maildir.bytes += located.size;
        self.step(located.size);
        Ok(Outcome::Done(written))
    }

    /// Where files of a mailbox go; nothing if it has no folder now.
    pub(super) fn target(&self, mailbox: MailboxId, plan: &Plan) -> Option<Target> {
        let folder = plan.folders.get(&mailbox).filter(|folder| !folder.vanished)?;
        let keywords = match plan.listed.get(&mailbox) {
            Some(files) => files.keywords.clone(),
            None => super::look::read_keywords(&folder.dir, &mut Vec::new()),
        };
        Some(Target { dir: folder.dir.clone(), keywords })
    }

    /// What the next run need not look at again.
    fn note_folders(&self, plan: &Plan, notes: &mut Notes) {
        for (id, folder) in &plan.folders {
            let mut row = folder.row.clone();
            let doubtful = plan.again.contains(id) || plan.written.contains(id);
            if doubtful {
                row.stamp = None;
            } else if let Some(files) = plan.listed.get(id).filter(|_| plan.compared.contains(id)) {
                row.stamp = files.stamp;
            }
            if let Some(reached) = self.queue.reached(*id) {
                row.modseq = Some(reached);
            }
            if row != folder.row || plan.relisted.contains(id) {
                self.ledger.put_folder(notes, *id, &row);
            }
        }
    }
}
