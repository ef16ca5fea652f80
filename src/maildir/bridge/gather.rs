//! From two looks to a plan: the messages that changed on either side, each with its decision. Nothing is changed here.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use super::compare::Difference;
use super::decide::{DiskStep, ReplicaStep, State, decide};
use super::folders::{Folder, Folders};
use super::ledger::{FileRow, Place};
use super::look::Files;
use super::served::ReadList;
use super::{BridgeError, Report, Run, recover};
use crate::blob::{BlobHasher, BlobId, MAX_SMALL};
use crate::mailbox::{EntryId, Keyword, MailboxId, ModSeq};
use crate::maildir::scan::{SkipReason, Skipped};
use crate::replica::Snapshot;
use crate::uid::{Fate, Located};

/// Files that one round reads at most, and their bytes, small bodies being kept in memory until they are stored.
const ROUND_FILES: usize = 4000;
const ROUND_BYTES: u64 = 32 << 20;
/// Messages of the replica that one round looks at.
const ROUND_ENTRIES: usize = 4000;

/// One message, and what is to be done about it.
pub(super) struct Case {
    /// Nothing for a file that is no message yet.
    pub(super) entry: Option<EntryId>,
    /// What was remembered.
    pub(super) base: Option<(Place, FileRow)>,
    /// Its file.
    pub(super) disk: Option<Place>,
    /// What the file's name says.
    pub(super) said: BTreeSet<Keyword>,
    pub(super) located: Option<Located>,
    pub(super) on_replica: ReplicaStep,
    pub(super) on_disk: DiskStep,
    /// The body of a file that is no message yet.
    pub(super) body: Option<Body>,
}

impl Case {
    /// A message of which only `entry` is known, undecided.
    fn of(entry: Option<EntryId>) -> Case {
        Case {
            entry,
            base: None,
            disk: None,
            said: BTreeSet::new(),
            located: None,
            on_replica: ReplicaStep::Nothing,
            on_disk: DiskStep::Nothing,
            body: None,
        }
    }

    /// The name of the file's bytes, if they are not the message's.
    pub(super) fn altered(&self) -> Option<BlobId> {
        match (&self.body, &self.located) {
            (Some(body), Some(at)) => Some(body.blob).filter(|blob| *blob != at.blob),
            (Some(_), None) => None,
            (None, _) => self.base.as_ref().and_then(|(_, row)| row.altered),
        }
    }

    /// The body of a file that is to be written.
    pub(super) fn writes(&self) -> Option<BlobId> {
        let writes = self.disk.is_none() && matches!(self.on_disk, DiskStep::Place(_));
        self.located.as_ref().filter(|_| writes).map(|located| located.blob)
    }
}

/// What was read of a file that nobody knew.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) blob: BlobId,
    pub(super) size: u64,
    pub(super) mtime: i64,
    /// Nothing for a large one.
    pub(super) bytes: Option<Vec<u8>>,
}

/// What a round is to do.
pub(super) struct Plan {
    pub(super) cases: Vec<Case>,
    pub(super) folders: BTreeMap<MailboxId, Folder>,
    pub(super) listed: BTreeMap<MailboxId, Files>,
    /// Folders that must be looked through again.
    pub(super) again: BTreeSet<MailboxId>,
    /// Folders whose files were held against what was remembered; the others were at most listed.
    pub(super) compared: BTreeSet<MailboxId>,
    /// Lists of UIDs, read before their folders were listed.
    pub(super) lists: BTreeMap<MailboxId, ReadList>,
    /// Folders whose list was told something, or looked at.
    pub(super) relisted: BTreeSet<MailboxId>,
    /// Messages that were added or moved together with a UID that a Dovecot gave them.
    pub(super) taken: BTreeSet<EntryId>,
    /// Folders in which this round wrote.
    pub(super) written: BTreeSet<MailboxId>,
    /// Messages about which nothing could be decided or done now: the next run looks at them.
    pub(super) postponed: Vec<EntryId>,
    /// Whether another round is needed.
    pub(super) more: bool,
    /// How many messages the account has.
    pub(super) messages: u64,
}

/// Messages of the replica that are still to be looked at in this run, and up to where that brings each folder.
#[derive(Default)]
pub(super) struct Queue {
    entries: Vec<EntryId>,
    reached: BTreeMap<MailboxId, ModSeq>,
    filled: bool,
    /// How many of them are expunged and have files, where they are more than one round takes.
    pub(super) expunged: u64,
}

impl Queue {
    /// Up to which mod-sequence a folder has everything, once the queue is empty.
    pub(super) fn reached(&self, mailbox: MailboxId) -> Option<ModSeq> {
        self.reached.get(&mailbox).copied().filter(|_| self.entries.is_empty())
    }
}

impl Run<'_> {
    pub(super) fn gather(&mut self, folders: Folders, report: &mut Report) -> Result<Plan, BridgeError> {
        let Folders { all: folders, snapshot } = folders;
        self.fill_queue(&folders, &snapshot)?;
        // A plan is told as a whole.
        let most = if self.how.dry_run { usize::MAX } else { ROUND_ENTRIES };
        let take = self.queue.entries.len().saturating_sub(most);
        let touched: Vec<EntryId> = self.queue.entries.split_off(take);
        let messages = folders.values().filter_map(|folder| Some(folder.mailbox.as_ref()?.messages)).sum();
        let mut plan = Plan {
            cases: Vec::new(),
            folders,
            listed: BTreeMap::new(),
            again: BTreeSet::new(),
            compared: BTreeSet::new(),
            lists: BTreeMap::new(),
            relisted: BTreeSet::new(),
            taken: BTreeSet::new(),
            written: BTreeSet::new(),
            postponed: Vec::new(),
            more: !self.queue.entries.is_empty(),
            messages,
        };
        let mut difference = self.difference(&mut plan, report)?;
        let unknown = std::mem::take(&mut difference.unknown);
        let bodies = self.read_unknown(unknown, &mut plan, report);
        // A file that this program wrote may have been moved before that was noted.
        let written = bodies.iter().filter_map(|((_, base), _)| recover::entry_of(base));
        let touched = touched.into_iter().chain(written).collect();
        let known = self.known(&mut plan, touched, &difference, &snapshot, report)?;
        self.cases(&mut plan, difference, known, bodies);
        Ok(plan)
    }

    /// Once in a run: the messages to which something happened since the folders were last in step.
    fn fill_queue(
        &mut self,
        folders: &BTreeMap<MailboxId, Folder>,
        snapshot: &Snapshot,
    ) -> Result<(), BridgeError> {
        if std::mem::replace(&mut self.queue.filled, true) {
            return Ok(());
        }
        self.waiting = self.ledger.waiting()?;
        let mut entries = self.waiting.clone();
        for folder in folders.values() {
            let Some(mailbox) = &folder.mailbox else {
                entries.extend(self.ledger.files(folder.id)?.into_iter().filter_map(|(_, row)| row.entry));
                continue;
            };
            if folder.row.modseq == Some(mailbox.highest_modseq) {
                continue;
            }
            self.queue.reached.insert(folder.id, mailbox.highest_modseq);
            let since = folder.row.modseq.map(|since| snapshot.entries_changed_since(folder.id, since));
            match since.transpose()?.flatten() {
                Some(changed) => entries.extend(changed),
                None => {
                    entries.extend(snapshot.entries(folder.id)?);
                    entries
                        .extend(self.ledger.files(folder.id)?.into_iter().filter_map(|(_, row)| row.entry));
                }
            }
        }
        let entries: Vec<EntryId> = entries.into_iter().collect();
        self.recover(&entries, snapshot)?;
        self.queue.entries = entries;
        if self.queue.entries.len() > ROUND_ENTRIES {
            // In no other order, or each round would inflate nearly every bundle, for the few of its bodies that it writes.
            let (mut blobs, mut expunged) = (BTreeMap::new(), Vec::new());
            for entry in &self.queue.entries {
                let Some(located) = snapshot.locate(*entry)? else { continue };
                blobs.insert(*entry, located.blob);
                expunged.extend(located.place.is_none().then_some(*entry));
            }
            // The brake judges the run, and not each of its rounds.
            self.queue.expunged = self.ledger.files_of(&expunged)?.iter().flatten().count() as u64;
            self.replica.sort_for_reading(&mut self.queue.entries, |entry| blobs.get(entry).copied())?;
        }
        Ok(())
    }

    /// Reads files that nobody knew, as many as one round takes.
    fn read_unknown(
        &mut self,
        unknown: Vec<Place>,
        plan: &mut Plan,
        report: &mut Report,
    ) -> Vec<(Place, Body)> {
        let (mut bodies, mut bytes) = (Vec::new(), 0);
        for place in unknown {
            let full = !self.how.dry_run && (bodies.len() == ROUND_FILES || bytes >= ROUND_BYTES);
            if full {
                plan.more = true;
                plan.again.insert(place.0);
                continue;
            }
            let file = &plan.listed[&place.0].files[&place.1];
            let dir = &plan.folders[&place.0].dir;
            let read = file.open(dir).and_then(|(mut source, measured)| {
                read_body(&mut source, measured.size, measured.mtime).map_err(SkipReason::Io)
            });
            match read {
                Ok(mut body) => {
                    if self.how.dry_run {
                        body.bytes = None;
                    }
                    bytes += body.size.min(MAX_SMALL as u64);
                    bodies.push((place, body));
                }
                Err(SkipReason::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                    plan.again.insert(place.0);
                }
                Err(reason) => report.skipped.push(Skipped { path: file.path(dir), reason }),
            }
        }
        bodies
    }

    /// The messages of this round that are known to one side at least, with what was remembered of them.
    fn known(
        &self,
        plan: &mut Plan,
        touched: Vec<EntryId>,
        difference: &Difference,
        snapshot: &Snapshot,
        report: &mut Report,
    ) -> Result<BTreeMap<EntryId, Case>, BridgeError> {
        let seen = difference.gone.iter().chain(&difference.changed);
        let seen: BTreeMap<EntryId, &(Place, FileRow)> =
            seen.filter_map(|one| Some((one.1.entry?, one))).collect();
        let entries: BTreeSet<EntryId> = touched.into_iter().chain(seen.keys().copied()).collect();
        let entries: Vec<EntryId> = entries.into_iter().collect();
        let rows = self.ledger.files_of(&entries)?;
        let gone: BTreeSet<EntryId> = difference.gone.iter().filter_map(|(_, row)| row.entry).collect();
        let mut known = BTreeMap::new();
        for (entry, row) in entries.into_iter().zip(rows) {
            let base = row.map(|(mailbox, base, row)| ((mailbox, base), row));
            let mut disk = base.as_ref().map(|(place, _)| place.clone()).filter(|_| !gone.contains(&entry));
            let mut said = base.as_ref().map(|(_, row)| row.keywords.clone()).unwrap_or_default();
            if let Some(place) = disk.clone() {
                if plan.folders.get(&place.0).is_none_or(|folder| folder.vanished)
                    || !self.list(place.0, plan, report)
                {
                    // It cannot be looked at now, so nothing is decided.
                    plan.postpone(entry, place.0);
                    continue;
                }
                let files = &plan.listed[&place.0];
                match files.files.get(&place.1) {
                    Some(file) => said = file.name.letters.keywords(&files.keywords),
                    // Its folder was not compared, or not believed.
                    None if plan.again.contains(&place.0) || !seen.contains_key(&entry) => {
                        plan.postpone(entry, place.0);
                        continue;
                    }
                    None => disk = None,
                }
            }
            let located = snapshot.locate(entry)?;
            known.insert(entry, Case { base, disk, said, located, ..Case::of(Some(entry)) });
        }
        Ok(known)
    }

    /// Finds for each new file the message it is, and decides about all.
    fn cases(
        &self,
        plan: &mut Plan,
        difference: Difference,
        mut known: BTreeMap<EntryId, Case>,
        bodies: Vec<(Place, Body)>,
    ) {
        let (mut lost, mut expunged): (BTreeMap<BlobId, Vec<EntryId>>, BTreeMap<BlobId, Vec<EntryId>>) =
            Default::default();
        let mut unfiled: BTreeMap<(MailboxId, BlobId), Vec<EntryId>> = BTreeMap::new();
        for (entry, case) in &known {
            let Some(located) = &case.located else { continue };
            let bytes = case.altered().unwrap_or(located.blob);
            match (&case.base, &case.disk, located.place) {
                (Some(_), None, Some(_)) => lost.entry(bytes).or_default().push(*entry),
                (Some(_), None, None) => expunged.entry(bytes).or_default().push(*entry),
                (None, None, Some((mailbox, _))) => {
                    unfiled.entry((mailbox, located.blob)).or_default().push(*entry);
                }
                _ => {}
            }
        }
        for (place, body) in bodies {
            let files = &plan.listed[&place.0];
            let said = files.files[&place.1].name.letters.keywords(&files.keywords);
            let entry = take_lost(&mut lost, &known, body.blob, &place)
                .or_else(|| written_here(&known, &place, body.blob))
                // Before what was expunged: it may be that one, added again by a run that was cut off.
                .or_else(|| unfiled.get_mut(&(place.0, body.blob)).and_then(Vec::pop))
                .or_else(|| take_lost(&mut expunged, &known, body.blob, &place));
            if let Some(case) = entry.and_then(|entry| known.get_mut(&entry)) {
                if let (None, Some((mailbox, _))) =
                    (&case.base, case.located.as_ref().and_then(|at| at.place))
                    && mailbox != place.0
                {
                    // It was written where the message is, and moved since.
                    let row = FileRow { entry: case.entry, keywords: said.clone(), altered: None };
                    case.base = Some(((mailbox, place.1.clone()), row));
                }
                (case.disk, case.said) = (Some(place), said);
                // If its message was expunged, the file is a message of its own again.
                case.body = Some(body);
                continue;
            }
            let mut case = Case { disk: Some(place), said, body: Some(body), ..Case::of(None) };
            settle(&mut case);
            plan.cases.push(case);
        }
        for (_, mut case) in known {
            let gone = case.base.is_some() && case.disk.is_none();
            // It may be among the files that the next round reads.
            if gone && plan.more {
                if let (Some(entry), Some(((mailbox, _), _))) = (case.entry, &case.base) {
                    plan.postpone(entry, *mailbox);
                }
                continue;
            }
            settle(&mut case);
            plan.cases.push(case);
        }
        // Files that were left alone and are gone now.
        for ((mailbox, base), row) in difference.gone.into_iter().filter(|(_, row)| row.entry.is_none()) {
            let mut case = Case { base: Some(((mailbox, base), row)), ..Case::of(None) };
            settle(&mut case);
            plan.cases.push(case);
        }
    }
}

fn take_lost(
    lost: &mut BTreeMap<BlobId, Vec<EntryId>>,
    known: &BTreeMap<EntryId, Case>,
    blob: BlobId,
    place: &Place,
) -> Option<EntryId> {
    let entries = lost.get_mut(&blob)?;
    let base_of = |entry: &EntryId| known[entry].base.as_ref().map(|(place, _)| place);
    // The same name elsewhere, else another name in the same folder, else any.
    let by_name = entries.iter().position(|entry| base_of(entry).is_some_and(|base| base.1 == place.1));
    let by_folder = || entries.iter().position(|entry| base_of(entry).is_some_and(|base| base.0 == place.0));
    let at = by_name.or_else(by_folder).or(Some(0).filter(|_| !entries.is_empty()))?;
    Some(entries.swap_remove(at))
}

/// The message whose file was written under this name, and not noted before it was moved here.
fn written_here(known: &BTreeMap<EntryId, Case>, place: &Place, blob: BlobId) -> Option<EntryId> {
    let entry = recover::entry_of(&place.1)?;
    let case = known.get(&entry).filter(|case| case.base.is_none() && case.disk.is_none())?;
    case.located.as_ref().filter(|at| at.blob == blob && at.place.is_some()).map(|_| entry)
}

fn settle(case: &mut Case) {
    let state =
        |mailbox: MailboxId, keywords: &BTreeSet<Keyword>| State { mailbox, keywords: keywords.clone() };
    let base = case.base.as_ref().filter(|_| case.entry.is_some());
    let base = base.map(|((mailbox, _), row)| state(*mailbox, &row.keywords));
    let disk = case.disk.as_ref().map(|(mailbox, _)| state(*mailbox, &case.said));
    let replica = case.located.as_ref();
    let replica = replica.and_then(|at| Some(state(at.place?.0, &at.keywords)));
    // A message that this replica does not know is not one that it expunged: the file is new.
    let unknown = case.entry.is_some() && case.located.is_none();
    let base = base.filter(|_| !unknown);
    (case.on_replica, case.on_disk) = decide(base.as_ref(), disk.as_ref(), replica.as_ref());
}

/// Reads a body that is small, names one that is not.
pub(super) fn read_body(source: &mut impl Read, size: u64, mtime: i64) -> io::Result<Body> {
    let mut start = Vec::with_capacity(size.min(MAX_SMALL as u64) as usize + 1);
    source.by_ref().take(MAX_SMALL as u64).read_to_end(&mut start)?;
    if start.len() < MAX_SMALL {
        return Ok(Body { blob: BlobId::of(&start), size: start.len() as u64, mtime, bytes: Some(start) });
    }
    let (mut hasher, mut size, mut piece) = (BlobHasher::new(), start.len() as u64, vec![0; 128 << 10]);
    hasher.update(&start);
    loop {
        match source.read(&mut piece) {
            Ok(0) => return Ok(Body { blob: hasher.finish(), size, mtime, bytes: None }),
            Ok(length) => {
                hasher.update(&piece[..length]);
                size += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Plan {
    fn postpone(&mut self, entry: EntryId, mailbox: MailboxId) {
        self.postponed.push(entry);
        self.again.insert(mailbox);
    }

    /// What would be done.
    pub(super) fn count(&self, report: &mut Report) {
        for case in &self.cases {
            let there = &mut report.into_replica;
            match &case.on_replica {
                ReplicaStep::Nothing => {}
                ReplicaStep::Add => {
                    there.added += 1;
                    there.bytes += case.body.as_ref().map_or(0, |body| body.size);
                }
                ReplicaStep::Edit { fate: Fate::Expunge, .. } => there.removed += 1,
                ReplicaStep::Edit { set, clear, fate } => {
                    there.moved += u64::from(*fate != Fate::Stay);
                    there.flagged += u64::from(!set.is_empty() || !clear.is_empty());
                }
            }
            let here = &mut report.into_maildir;
            match (&case.on_disk, &case.disk) {
                (DiskStep::Place(_), None) => {
                    here.added += 1;
                    here.bytes += case.located.as_ref().map_or(0, |located| located.size);
                }
                (DiskStep::Place(state), Some((mailbox, _))) if state.mailbox != *mailbox => here.moved += 1,
                (DiskStep::Place(state), Some(place)) => {
                    // A keyword that no letter stands for changes no file.
                    let files = &self.listed[&place.0];
                    let mut letters = files.files[&place.1].name.letters.clone();
                    letters.set_keywords(&state.keywords, &files.keywords);
                    here.flagged += u64::from(letters != files.files[&place.1].name.letters);
                }
                (DiskStep::Remove, _) => here.removed += 1,
                (DiskStep::Nothing | DiskStep::Forget, _) => {}
            }
        }
    }
}
