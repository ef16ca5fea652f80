//! What the files are now against what the ledger says of them. Folders that stood still are not listed.

use std::collections::{BTreeMap, BTreeSet};

use super::folders::Folder;
use super::gather::Plan;
use super::ledger::{FileRow, Place};
use super::{BridgeError, Report, Run, look, served};
use crate::mailbox::{Keyword, MailboxId};
use crate::maildir::{BaseName, Letters};

/// A folder's files against what was remembered of them.
#[derive(Default)]
pub(super) struct Difference {
    pub(super) gone: Vec<(Place, FileRow)>,
    pub(super) changed: Vec<(Place, FileRow)>,
    pub(super) unknown: Vec<Place>,
}

impl Run<'_> {
    /// Lists the folders that changed. What seems gone is looked for once more.
    pub(super) fn difference(
        &mut self,
        plan: &mut Plan,
        report: &mut Report,
    ) -> Result<Difference, BridgeError> {
        let mut difference = Difference::default();
        // While messages wait to be written, what this run itself writes is not looked through each time.
        if plan.more && std::mem::replace(&mut self.looked, true) {
            return Ok(difference);
        }
        self.looked = true;
        let ids: Vec<MailboxId> = plan.folders.keys().copied().collect();
        for id in ids {
            let folder = &plan.folders[&id];
            if folder.vanished {
                let rows = self.ledger.files(id)?.into_iter();
                difference.gone.extend(rows.map(|(base, row)| ((id, base), row)));
                continue;
            }
            match look::stamp(&folder.dir) {
                Ok(stamp) if folder.row.stamp == Some(stamp) && !self.is_list_due(folder) => continue,
                Ok(_) => {}
                Err(skip) => {
                    report.skipped.push(skip);
                    continue;
                }
            }
            self.compare(id, plan, &mut difference, report)?;
        }
        self.look_again(plan, &mut difference, report)?;
        Ok(difference)
    }

    fn compare(
        &self,
        id: MailboxId,
        plan: &mut Plan,
        difference: &mut Difference,
        report: &mut Report,
    ) -> Result<(), BridgeError> {
        if !self.list(id, plan, report) {
            return Ok(());
        }
        plan.compared.insert(id);
        let files = &plan.listed[&id];
        let mut rows: BTreeMap<BaseName, FileRow> = self.ledger.files(id)?.into_iter().collect();
        // A folder has few combinations of flags.
        let mut said: BTreeMap<&Letters, BTreeSet<Keyword>> = BTreeMap::new();
        for (base, file) in &files.files {
            match rows.remove(base) {
                None => difference.unknown.push((id, base.clone())),
                Some(row) if row.entry.is_some() => {
                    let letters = &file.name.letters;
                    if *said.entry(letters).or_insert_with(|| letters.keywords(&files.keywords))
                        != row.keywords
                    {
                        difference.changed.push(((id, base.clone()), row));
                    }
                }
                Some(_) => {}
            }
        }
        difference.gone.extend(rows.into_iter().map(|(base, row)| ((id, base), row)));
        Ok(())
    }

    /// Lists a folder, unless that was done; false if it cannot be believed now.
    pub(super) fn list(&self, id: MailboxId, plan: &mut Plan, report: &mut Report) -> bool {
        if plan.listed.contains_key(&id) {
            return true;
        }
        let Some(folder) = plan.folders.get(&id).filter(|folder| !folder.vanished) else { return false };
        if self.is_served() {
            match served::read_list(&folder.dir) {
                Ok(read) => drop(plan.lists.insert(id, read)),
                Err(skip) => {
                    report.skipped.push(skip);
                    return false;
                }
            }
        }
        match look::list(&folder.dir, self.clock, &mut report.skipped) {
            Ok(Some(files)) => drop(plan.listed.insert(id, files)),
            Ok(None) => {
                report.busy.push(folder.row.name.clone());
                return false;
            }
            Err(skip) => {
                report.skipped.push(skip);
                return false;
            }
        }
        true
    }

    /// A file is gone only if a second look, begun after the first one was over, does not see it either. Then folders that
    /// changed meanwhile are looked at once more: one of them may have it.
    fn look_again(
        &self,
        plan: &mut Plan,
        difference: &mut Difference,
        report: &mut Report,
    ) -> Result<(), BridgeError> {
        let ids: BTreeSet<MailboxId> = difference.gone.iter().map(|((id, _), _)| *id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        for id in ids {
            let Some(folder) = plan.folders.get(&id).filter(|folder| !folder.vanished) else { continue };
            let missed = difference.gone.iter().filter(|((at, _), _)| *at == id);
            let missed = missed.map(|((_, base), _)| base.as_bytes()).collect();
            let again = look::find(&folder.dir, &missed).ok().flatten();
            let is_gone =
                |base: &BaseName| again.as_ref().is_some_and(|again| !again.contains(base.as_bytes()));
            let before = difference.gone.len();
            difference.gone.retain(|((at, base), _)| *at != id || is_gone(base));
            if difference.gone.len() < before {
                report.busy.push(folder.row.name.clone());
                plan.again.insert(id);
            }
        }
        let changed = |folder: &&Folder| {
            let then = plan.listed.get(&folder.id).map_or(folder.row.stamp, |files| Some(files.seen));
            !folder.vanished && then.is_some() && look::stamp(&folder.dir).ok() != then
        };
        let changed: Vec<MailboxId> = plan.folders.values().filter(changed).map(|folder| folder.id).collect();
        for id in changed {
            let confirmed: BTreeSet<BaseName> = difference
                .gone
                .iter()
                .filter(|((at, _), _)| *at == id)
                .map(|((_, base), _)| base.clone())
                .collect();
            plan.listed.remove(&id);
            difference.gone.retain(|((at, _), _)| *at != id);
            difference.changed.retain(|((at, _), _)| *at != id);
            difference.unknown.retain(|(at, _)| *at != id);
            self.compare(id, plan, difference, report)?;
            // What only this look misses is for the next run.
            difference.gone.retain(|((at, base), _)| *at != id || confirmed.contains(base));
            plan.again.insert(id);
        }
        Ok(())
    }
}
