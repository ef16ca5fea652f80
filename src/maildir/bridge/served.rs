//! Folders that a Dovecot serves: its UIDs become claims, and its `dovecot-uidlist` says ours.
//!
//! A file that nobody has numbered gets the UID that Dovecot would give it next, in the list first and in the account then. So
//! whatever a run leaves half done looks as if Dovecot had done it, and the next one takes it over. A file that the bridge brings
//! appears after its line, while Dovecot's lock is held.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use super::decide::{DiskStep, ReplicaStep};
use super::files::{self, Prepared};
use super::gather::{Body, Case, Plan};
use super::ledger::{FileRow, ListRow, Notes, Place};
use super::lock::{DotLock, replace};
use super::uids::{self, Numbers, Want};
use super::{BridgeError, Report, Run, UidLists, failed, look};
use crate::mailbox::{EntryId, Keyword, MailboxId, Uid, UidValidity};
use crate::maildir::file_name::has_fixed_letter;
use crate::maildir::scan::{SkipReason, Skipped};
use crate::maildir::{BaseName, KeywordTable, UidList, list};
use crate::replica::{Adopted, Adoption, NewMessage};
use crate::uid::Fate;

const UID_LIST: &str = "dovecot-uidlist";
const KEYWORDS: &str = "dovecot-keywords";

/// A list as it was read, and when it had changed last.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadList {
    pub(super) list: Option<UidList>,
    stamp: (u64, u64),
}

/// A mailbox's numbers now.
struct Numbered {
    validity: UidValidity,
    top: u32,
    uids: BTreeMap<EntryId, Uid>,
}

/// A list that was looked at or written under its lock.
struct Settled {
    list: UidList,
    /// The UID before the UIDNEXT that Dovecot had told by then.
    spent: u32,
}

fn stamp(dir: &Path) -> (u64, u64) {
    dir.join(UID_LIST).symlink_metadata().map(|meta| look::changed(&meta)).unwrap_or_default()
}

/// Reads a folder's list. One that is damaged is left to Dovecot, which makes another.
pub(super) fn read_list(dir: &Path) -> Result<ReadList, Skipped> {
    let (path, stamp) = (dir.join(UID_LIST), stamp(dir));
    let skip = |reason| Skipped { path: path.clone(), reason };
    let bytes = list::read(&path).map_err(SkipReason::Io).map_err(skip)?;
    let list = bytes.map(|bytes| UidList::parse(&bytes)).transpose();
    Ok(ReadList { list: list.map_err(SkipReason::Damaged).map_err(skip)?, stamp })
}

/// Whether a file is to appear in a folder where it is not.
pub(super) fn is_arrival(case: &Case) -> bool {
    match (&case.on_disk, &case.disk) {
        (DiskStep::Place(state), Some((mailbox, _))) => state.mailbox != *mailbox,
        (DiskStep::Place(_), None) => true,
        _ => false,
    }
}

impl Run<'_> {
    pub(super) fn is_served(&self) -> bool {
        self.attachment.uid_lists == UidLists::Dovecot
    }

    /// Whether a folder's list may say something new, or be wrong.
    pub(super) fn is_list_due(&self, folder: &super::folders::Folder) -> bool {
        self.is_served()
            && (folder.row.list.is_none_or(|row| row.stamp != stamp(&folder.dir))
                || folder.mailbox.as_ref().map(|mailbox| mailbox.highest_modseq) != folder.row.modseq)
    }

    /// Adds new files as messages, moves those that Dovecot's clients moved, and claims what Dovecot has shown. Gives the
    /// messages of the new files that were taken.
    pub(super) fn take_in(
        &self,
        mailbox: MailboxId,
        new: &[(Case, Place, Body)],
        cases: &[Case],
        plan: &mut Plan,
        report: &mut Report,
    ) -> Result<BTreeMap<BaseName, EntryId>, BridgeError> {
        let Some(ReadList { list, stamp }) = plan.lists.get(&mailbox).cloned() else {
            return Ok(BTreeMap::new());
        };
        let numbered = self.numbered(mailbox)?;
        let Some(numbered) = numbered else { return Ok(BTreeMap::new()) };
        if let Some(above) = list.as_ref().map(|list| list.validity).filter(|it| *it > numbered.validity) {
            // Dovecot made the list anew: its clients must not see a UIDVALIDITY fall.
            self.replica.raise_uid_validity(mailbox, above)?;
            plan.again.insert(mailbox);
            plan.more = true;
            return Ok(BTreeMap::new());
        }
        let mut resolved = self.known_here(mailbox, cases)?;
        let mut any = BTreeSet::new();
        for (case, (_, base), body) in new {
            let (body, keywords, internal_date) = (body.blob, case.said.clone(), Some(body.mtime));
            resolved.insert(base.clone(), Adopted::New(NewMessage { body, keywords, internal_date }));
            any.insert(base.clone());
        }
        for case in cases {
            if let (ReplicaStep::Edit { fate: Fate::Move(to), .. }, Some((at, base))) =
                (&case.on_replica, &case.disk)
                && (*to, *at) == (mailbox, mailbox)
                && let (Some(entry), Some((seen_in, _))) =
                    (case.entry, case.located.as_ref().and_then(|located| located.place))
            {
                resolved.insert(base.clone(), Adopted::Moved { entry, seen_in });
                any.insert(base.clone());
            }
        }
        let same = list.filter(|list| list.validity == numbered.validity);
        let lines = uids::names(same.as_ref());
        let settled = if any.iter().all(|base| lines.contains(base)) {
            let Some(list) = same.clone() else { return Ok(BTreeMap::new()) };
            let spent = list.next.value() - 1;
            self.first_told(mailbox, Some(&list), &numbered, stamp, plan)?;
            Settled { list, spent }
        } else {
            let wants = self.wants(mailbox, &numbered, &any, &[], plan)?;
            let written = self.write_list(mailbox, &numbered, &wants, plan, report, || Ok(()))?;
            let Some((settled, ())) = written else { return Ok(BTreeMap::new()) };
            settled
        };
        self.adopt(mailbox, &settled, &numbered, resolved, plan)
    }

    /// What is in the folder and the mailbox both, by the name of its file.
    fn known_here(
        &self,
        mailbox: MailboxId,
        cases: &[Case],
    ) -> Result<BTreeMap<BaseName, Adopted>, BridgeError> {
        let rows = self.ledger.files(mailbox)?;
        let mut known: BTreeMap<BaseName, Adopted> =
            rows.into_iter().filter_map(|(base, row)| Some((base, Adopted::Here(row.entry?)))).collect();
        for case in cases {
            let place = case.located.as_ref().and_then(|located| located.place);
            if let (Some(entry), Some((at, base)), Some((there, _))) = (case.entry, &case.disk, place)
                && *at == mailbox
                && there == mailbox
            {
                known.insert(base.clone(), Adopted::Here(entry));
            }
        }
        Ok(known)
    }

    fn numbered(&self, mailbox: MailboxId) -> Result<Option<Numbered>, BridgeError> {
        let snapshot = self.replica.snapshot_of(mailbox)?;
        let Some(shown) = snapshot.mailbox(mailbox)? else { return Ok(None) };
        let messages = snapshot.messages(mailbox, Uid::FIRST, usize::MAX)?;
        let uids = messages.into_iter().map(|message| (message.entry, message.uid)).collect();
        Ok(Some(Numbered { validity: shown.uid_validity, top: shown.uid_next.saturating_sub(1), uids }))
    }

    /// What the folder's files need. `any` are about to become messages of the mailbox, `arrivals` are about to appear.
    fn wants(
        &self,
        mailbox: MailboxId,
        numbered: &Numbered,
        any: &BTreeSet<BaseName>,
        arrivals: &[(Case, Prepared)],
        plan: &Plan,
    ) -> Result<BTreeMap<BaseName, Want>, BridgeError> {
        let mut wants: BTreeMap<BaseName, Want> = BTreeMap::new();
        let listed = plan.listed.get(&mailbox);
        wants.extend(
            listed.iter().flat_map(|files| files.files.keys()).map(|base| (base.clone(), Want::AsIs)),
        );
        let want = |entry: Option<EntryId>| {
            entry.and_then(|entry| numbered.uids.get(&entry)).map_or(Want::AsIs, |uid| Want::Uid(*uid))
        };
        for (base, row) in self.ledger.files(mailbox)? {
            wants.insert(base, want(row.entry));
        }
        wants.extend(any.iter().map(|base| (base.clone(), Want::Any)));
        wants.extend(arrivals.iter().map(|(case, prepared)| (prepared.base.clone(), want(case.entry))));
        Ok(wants)
    }

    /// Notes, before a list is touched for the first time, from where on its UIDs are Dovecot's.
    fn first_told(
        &self,
        mailbox: MailboxId,
        now: Option<&UidList>,
        numbered: &Numbered,
        stamp: (u64, u64),
        plan: &mut Plan,
    ) -> Result<Uid, BridgeError> {
        let folder = plan.folders.get_mut(&mailbox).expect("its list was read");
        if let Some(row) = folder.row.list.filter(|row| row.validity == numbered.validity) {
            return Ok(row.told);
        }
        let same = now.filter(|list| list.validity == numbered.validity);
        let told = same.map_or(Uid::FIRST, |list| list.next);
        folder.row.list = Some(ListRow { validity: numbered.validity, told, stamp });
        let mut notes = Notes::default();
        self.ledger.put_folder(&mut notes, mailbox, &folder.row);
        self.ledger.commit(&notes)?;
        Ok(told)
    }

    /// Under Dovecot's lock: makes the list what it must be, then lets files appear. Nothing if Dovecot holds the lock.
    fn write_list<T>(
        &self,
        mailbox: MailboxId,
        numbered: &Numbered,
        wants: &BTreeMap<BaseName, Want>,
        plan: &mut Plan,
        report: &mut Report,
        publish: impl FnOnce() -> Result<T, BridgeError>,
    ) -> Result<Option<(Settled, T)>, BridgeError> {
        let folder = &plan.folders[&mailbox];
        let (dir, name) = (folder.dir.clone(), folder.row.name.clone());
        let path = dir.join(UID_LIST);
        let Some(lock) = DotLock::take(&path, self.clock).map_err(failed("lock", &path))? else {
            report.busy.push(name);
            plan.again.insert(mailbox);
            return Ok(None);
        };
        let read = match read_list(&dir) {
            Ok(read) if read.list.as_ref().is_none_or(|list| list.validity <= numbered.validity) => read,
            _ => {
                plan.again.insert(mailbox);
                return Ok(None);
            }
        };
        let now = read.list.as_ref();
        let told = self.first_told(mailbox, now, numbered, read.stamp, plan)?;
        let lane = self.replica.lane()?;
        let next = |above| lane.and_then(|(lane, block)| lane.next_for_dovecot(above, block));
        let numbers = Numbers { validity: numbered.validity, told, top: numbered.top, next: &next };
        let Some(list) = uids::plan(now, wants, &numbers) else { return Ok(None) };
        let mut stamp = read.stamp;
        if now != Some(&list) {
            stamp = replace(&path, &list.to_bytes(), look::changed).map_err(failed("write", &path))?;
        }
        let published = publish()?;
        if now != Some(&list) {
            // Dovecot reads the list again if `cur` has changed.
            let cur = dir.join("cur");
            let touch = || File::open(&cur)?.set_modified((self.clock)());
            touch().map_err(failed("touch", &cur))?;
            plan.written.insert(mailbox);
        }
        drop(lock);
        let spent =
            now.filter(|list| list.validity == numbered.validity).map_or(0, |list| list.next.value() - 1);
        let row = &mut plan.folders.get_mut(&mailbox).expect("its list was written").row;
        row.list = Some(ListRow { validity: numbered.validity, told, stamp });
        plan.relisted.insert(mailbox);
        Ok(Some((Settled { list, spent }, published)))
    }

    /// Claims what Dovecot gave out since it was last told a UIDNEXT, or what was given out in its place.
    fn adopt(
        &self,
        mailbox: MailboxId,
        settled: &Settled,
        numbered: &Numbered,
        mut resolved: BTreeMap<BaseName, Adopted>,
        plan: &mut Plan,
    ) -> Result<BTreeMap<BaseName, EntryId>, BridgeError> {
        let folder = &plan.folders[&mailbox];
        let row = folder.row.list.filter(|row| row.validity == settled.list.validity);
        let Some(row) = row else { return Ok(BTreeMap::new()) };
        let read = plan.lists.get(&mailbox).and_then(|read| read.list.as_ref());
        let seen_before = uids::names(read);
        let listed = plan.listed.get(&mailbox);
        let (mut messages, mut names, mut cut, mut is_news) = (Vec::new(), Vec::new(), None, false);
        for line in uids::assigned(&settled.list, row.told) {
            let Some(adopted) = resolved.remove(&line.base) else {
                let is_listed = listed.is_some_and(|files| files.files.contains_key(&line.base));
                // It is read in another round, or came after this one looked. Any other file is gone.
                if is_listed && plan.more || !is_listed && !seen_before.contains(&line.base) {
                    cut = Some(line.uid);
                    break;
                }
                continue;
            };
            is_news |= match &adopted {
                Adopted::Here(entry) => numbered.uids.get(entry).is_some_and(|uid| *uid != line.uid),
                Adopted::New(_) | Adopted::Moved { .. } => true,
            };
            names.push(line.base.clone());
            messages.push((line.uid, adopted));
        }
        let last = messages.last().map_or(0, |(uid, _)| uid.value());
        let floor = cut.map_or(settled.spent.max(last), |uid| uid.value() - 1);
        let base = row.told.value() - 1;
        let mut taken = BTreeMap::new();
        if is_news || floor > numbered.top.max(base) {
            let adoption = Adoption { mailbox, uid_validity: row.validity, base, floor, messages };
            let entries = self.replica.adopt(adoption)?;
            taken.extend(names.into_iter().zip(entries).filter_map(|(name, entry)| Some((name, entry?))));
        }
        let row = ListRow { told: cut.unwrap_or(settled.list.next), ..row };
        plan.folders.get_mut(&mailbox).expect("it was just looked at").row.list = Some(row);
        plan.relisted.insert(mailbox);
        if cut.is_some() {
            plan.again.insert(mailbox);
            plan.more = true;
        }
        Ok(taken)
    }

    /// Makes the lists of folders say what the account shows, and lets the files appear that are to.
    pub(super) fn serve(
        &mut self,
        arrivals: Vec<Case>,
        plan: &mut Plan,
        notes: &mut Notes,
        report: &mut Report,
    ) -> Result<(), BridgeError> {
        let mut by_mailbox: BTreeMap<MailboxId, Vec<Case>> =
            plan.lists.keys().map(|id| (*id, Vec::new())).collect();
        for case in arrivals {
            if let DiskStep::Place(state) = &case.on_disk {
                by_mailbox.entry(state.mailbox).or_default().push(case);
            }
        }
        for (mailbox, arrivals) in by_mailbox {
            let is_there =
                plan.folders.get(&mailbox).is_some_and(|folder| folder.mailbox.is_some() && !folder.vanished);
            let numbered = self.numbered(mailbox)?.filter(|_| is_there);
            let Some(numbered) = numbered.filter(|_| is_there && self.list(mailbox, plan, report)) else {
                self.put_off(arrivals, plan);
                continue;
            };
            let prepared = self.prepare(arrivals, plan)?;
            self.serve_one(mailbox, &numbered, prepared, plan, notes, report)?;
        }
        Ok(())
    }

    fn serve_one(
        &mut self,
        mailbox: MailboxId,
        numbered: &Numbered,
        arrivals: Vec<(Case, Prepared)>,
        plan: &mut Plan,
        notes: &mut Notes,
        report: &mut Report,
    ) -> Result<(), BridgeError> {
        let wants = self.wants(mailbox, numbered, &BTreeSet::new(), &arrivals, plan)?;
        if arrivals.is_empty() && self.is_as_it_must_be(mailbox, numbered, &wants, plan)? {
            return Ok(());
        }
        let publish = || {
            let done = arrivals.iter().map(|(_, prepared)| files::publish(prepared));
            let done: Vec<bool> = done.collect::<Result<_, _>>()?;
            let dirs: BTreeSet<&Path> = arrivals
                .iter()
                .flat_map(|(_, prepared)| [&prepared.from, &prepared.to])
                .filter_map(|path| path.parent())
                .collect();
            dirs.into_iter().try_for_each(super::folders::sync)?;
            Ok(done)
        };
        let written = self.write_list(mailbox, numbered, &wants, plan, report, publish)?;
        let Some((settled, published)) = written else {
            self.put_off(arrivals.into_iter().map(|(case, _)| case).collect(), plan);
            return Ok(());
        };
        let mut resolved = self.known_here(mailbox, &[])?;
        let here =
            |(case, prepared): &(Case, Prepared)| Some((prepared.base.clone(), Adopted::Here(case.entry?)));
        resolved.extend(arrivals.iter().filter_map(here));
        self.adopt(mailbox, &settled, numbered, resolved, plan)?;
        for ((case, prepared), published) in arrivals.into_iter().zip(published) {
            match published {
                true => self.note_arrival(mailbox, case, prepared, plan, notes, report),
                false => self.put_off(vec![case], plan),
            }
        }
        Ok(())
    }

    /// Without the lock, since most of the time it is.
    fn is_as_it_must_be(
        &self,
        mailbox: MailboxId,
        numbered: &Numbered,
        wants: &BTreeMap<BaseName, Want>,
        plan: &mut Plan,
    ) -> Result<bool, BridgeError> {
        let folder = plan.folders.get_mut(&mailbox).expect("it is one of the round's");
        let Ok(read) = read_list(&folder.dir) else { return Ok(true) };
        let Some(row) = folder.row.list.filter(|row| row.validity == numbered.validity) else {
            return Ok(false);
        };
        let lane = self.replica.lane()?;
        let next = |above| lane.and_then(|(lane, block)| lane.next_for_dovecot(above, block));
        let numbers = Numbers { validity: numbered.validity, told: row.told, top: numbered.top, next: &next };
        let is = read.list.is_some()
            && read.list == uids::plan(read.list.as_ref(), wants, &numbers)
            && read.list.is_some_and(|list| list.next == row.told);
        if is && row.stamp != read.stamp {
            folder.row.list = Some(ListRow { stamp: read.stamp, ..row });
            plan.relisted.insert(mailbox);
        }
        Ok(is)
    }

    fn put_off(&self, cases: Vec<Case>, plan: &mut Plan) {
        for case in cases {
            plan.postponed.extend(case.entry);
            plan.again.extend(case.disk.map(|place| place.0));
        }
    }

    /// Writes the bodies of arrivals into `tmp`, and says what their files will be called.
    fn prepare(
        &mut self,
        arrivals: Vec<Case>,
        plan: &mut Plan,
    ) -> Result<Vec<(Case, Prepared)>, BridgeError> {
        let mut prepared = Vec::with_capacity(arrivals.len());
        for case in arrivals {
            let (Some(entry), Some(located), DiskStep::Place(state)) =
                (case.entry, &case.located, &case.on_disk)
            else {
                continue;
            };
            let target = self.target(state.mailbox, plan).expect("the folder is there");
            let taken = |base: &BaseName| plan.listed[&state.mailbox].files.contains_key(base);
            let done = match &case.disk {
                Some(place) => {
                    let (files, dir) = (&plan.listed[&place.0], &plan.folders[&place.0].dir);
                    let file = &files.files[&place.1];
                    Some(files::prepare_move(file, dir, &files.keywords, &target, &state.keywords, &taken))
                }
                None => match self.replica.open_body(located.blob, 0) {
                    Ok(body) => Some(files::prepare(entry, located, body, &target, &state.keywords, &taken)?),
                    Err(crate::replica::ReplicaError::Owed { .. }) => None,
                    Err(error) => return Err(error.into()),
                },
            };
            match done {
                Some(done) => prepared.push((case, done)),
                None => self.put_off(vec![case], plan),
            }
        }
        Ok(prepared)
    }

    fn note_arrival(
        &mut self,
        mailbox: MailboxId,
        case: Case,
        prepared: Prepared,
        plan: &mut Plan,
        notes: &mut Notes,
        report: &mut Report,
    ) {
        if let Some(((at, base), row)) = &case.base {
            self.ledger.remove_file(notes, *at, base, row.entry);
        }
        // A file that moves has the bytes that it had.
        let altered = case.altered().filter(|_| case.disk.is_some());
        let row = FileRow { entry: case.entry, keywords: prepared.said, altered };
        self.ledger.put_file(notes, mailbox, &prepared.base, &row);
        self.no_longer_waits(case.entry, notes);
        plan.written.insert(mailbox);
        plan.written.extend(case.disk.as_ref().map(|place| place.0));
        let (counts, size) = (&mut report.into_maildir, case.located.map_or(0, |located| located.size));
        match case.disk {
            Some(_) => counts.moved += 1,
            None => (counts.added, counts.bytes) = (counts.added + 1, counts.bytes + size),
        }
        self.step(size);
    }

    /// Gives letters to keywords that files are about to get, as long as there are letters. Those that were given stay.
    pub(super) fn give_letters(
        &self,
        cases: &[Case],
        plan: &mut Plan,
        report: &mut Report,
    ) -> Result<(), BridgeError> {
        let mut needed: BTreeMap<MailboxId, BTreeSet<Keyword>> = BTreeMap::new();
        for case in cases {
            if let DiskStep::Place(state) = &case.on_disk {
                needed.entry(state.mailbox).or_default().extend(state.keywords.iter().cloned());
            }
        }
        for (mailbox, keywords) in needed {
            let keywords: Vec<Keyword> =
                keywords.into_iter().filter(|keyword| !has_fixed_letter(keyword)).collect();
            if keywords.is_empty() || !self.list(mailbox, plan, report) {
                continue;
            }
            let table = &plan.listed[&mailbox].keywords;
            if keywords.iter().all(|keyword| table.letter(keyword).is_some()) {
                continue;
            }
            let path = plan.folders[&mailbox].dir.join(KEYWORDS);
            // Without the lock the keywords stay with us until the next change.
            let lock = DotLock::take(&path, self.clock).map_err(failed("lock", &path))?;
            let bytes = list::read(&path).map_err(failed("read", &path))?.unwrap_or_default();
            let (Some(_lock), Ok(now)) = (lock, KeywordTable::parse(&bytes)) else { continue };
            let mut table = now.clone();
            for keyword in &keywords {
                table.add(keyword);
            }
            if table != now {
                replace(&path, &table.to_bytes(), |_| ()).map_err(failed("write", &path))?;
            }
            plan.listed.get_mut(&mailbox).expect("it was listed").keywords = table;
        }
        Ok(())
    }
}
