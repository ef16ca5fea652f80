//! Undoing changes: what they took away comes back, by new changes.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Fetch, fetch};
use super::{Replica, ReplicaError, now};
use crate::blob::BlobId;
use crate::mailbox::{Change, ChangeId, DocumentError, EntryId, Keyword, Past, ReplicaId, Stamp, Touched};
use crate::store::{Reader, StoreError};
use crate::uid::{Account, AccountError, TableError, Tables, UndoPart, Undone};

/// Which changes are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// These.
    Changes(BTreeSet<ChangeId>),
    /// All from a time on, by their authors' clocks, in seconds since 1970.
    Since {
        /// The time from which on.
        from: i64,
        /// The time until which, if not until now.
        until: Option<i64>,
        /// Of this author only.
        by: Option<ReplicaId>,
    },
}

/// The changes that are to be undone, and all they wrote to.
#[derive(Default)]
struct Meant {
    changes: BTreeSet<ChangeId>,
    touched: Touched,
}

/// Messages that are planned and written together: a change holds what most of them need.
const AT_A_TIME: usize = 4096;

impl Replica {
    /// What undoing changes would do; changes nothing. Costs as much as these changes and later ones to the same messages;
    /// [`Selection::Since`] reads the whole log besides.
    pub fn plan_undo(&self, selection: &Selection) -> Result<Undone, ReplicaError> {
        let meant = self.meant(selection)?;
        let mut all = self.left_alone(&meant)?;
        let mut look = |part: &Part| -> Result<(), ReplicaError> {
            let planned = self.with(|core| {
                let reader = core.store.reader()?;
                let account = &*core.account()?;
                Ok(part.plan(self, account, &reader, &reader, &meant)?)
            })?;
            all.add(planned.done().clone());
            Ok(())
        };
        meant.parts().try_for_each(|part| look(&part))?;
        Ok(all)
    }

    /// Undoes changes, in a commit for each 4,096 messages: what they expunged, moved, flagged, deleted or renamed is as it was,
    /// where nobody changed it again. Messages that come back have new UIDs, and are not marked `\Deleted`. Doing it again
    /// does nothing; if it is cut off, doing it again finishes it.
    pub fn undo(&self, selection: &Selection) -> Result<Undone, ReplicaError> {
        let meant = self.meant(selection)?;
        let mut all = self.left_alone(&meant)?;
        let mut act = |part: &Part| -> Result<(), ReplicaError> {
            let reader = self.0.handle.reader()?;
            let done = self.change(|account, txn| {
                let planned = part.plan(self, account, txn, &reader, &meant)?;
                let written = account.undo(txn, now(), &planned)?;
                Ok((planned.done().clone(), written))
            })?;
            all.add(done);
            Ok(())
        };
        meant.parts().try_for_each(|part| act(&part))?;
        Ok(all)
    }

    /// The changes that a selection means, each after those its author knew.
    pub fn selected(&self, selection: &Selection) -> Result<Vec<Stamp>, ReplicaError> {
        let mut stamps = Vec::new();
        self.each_meant(selection, |change| stamps.push(change.stamp()))?;
        stamps.sort();
        Ok(stamps)
    }

    fn meant(&self, selection: &Selection) -> Result<Meant, ReplicaError> {
        let mut meant = Meant::default();
        self.each_meant(selection, |change| {
            meant.changes.insert(change.id());
            meant.touched.extend(change.touched());
        })?;
        Ok(meant)
    }

    fn each_meant(&self, selection: &Selection, mut take: impl FnMut(&Change)) -> Result<(), ReplicaError> {
        let reader = self.0.handle.reader()?;
        let vet = |bytes: &[u8]| Change::vet(bytes).map_err(DocumentError::from);
        match selection {
            Selection::Changes(ids) => {
                for id in ids {
                    if let Some((actor, seq)) = reader.change_of(&id.0)?
                        && let Some(change) = reader.change(actor, seq)?
                    {
                        take(&vet(&change.bytes)?);
                    }
                }
            }
            Selection::Since { from, until, by } => {
                for change in reader.changes_after(crate::store::Position(0))? {
                    let change = change?;
                    if by.is_some_and(|by| by != change.actor) {
                        continue;
                    }
                    let change = vet(&change.bytes)?;
                    if change.time() >= *from && until.is_none_or(|until| change.time() < until) {
                        take(&change);
                    }
                }
            }
        }
        Ok(())
    }

    /// What the changes added, which stays.
    fn left_alone(&self, meant: &Meant) -> Result<Undone, ReplicaError> {
        self.with(|core| {
            let doc = core.account()?.document();
            let added = meant.touched.packs.keys().filter_map(|pack| doc.pack(*pack));
            Ok(Undone { added: added.map(|pack| pack.messages.len() as u64).sum(), ..Undone::default() })
        })
    }
}

/// A part of an undo: first the mailboxes, then messages.
enum Part {
    Mailboxes,
    Messages(BTreeMap<EntryId, BTreeSet<Keyword>>),
}

impl Meant {
    fn parts(&self) -> impl Iterator<Item = Part> {
        let mut messages: BTreeMap<EntryId, BTreeSet<Keyword>> = BTreeMap::new();
        for entry in &self.touched.places {
            messages.entry(*entry).or_default();
        }
        for (entry, keyword) in &self.touched.keywords {
            messages.entry(*entry).or_default().insert(keyword.clone());
        }
        let mut messages = messages.into_iter();
        let chunks = std::iter::from_fn(move || {
            let part: BTreeMap<_, _> = messages.by_ref().take(AT_A_TIME).collect();
            (!part.is_empty()).then_some(Part::Messages(part))
        });
        std::iter::once(Part::Mailboxes).chain(chunks)
    }
}

impl Part {
    /// What is to be done, as things are in `tables`.
    fn plan(
        &self,
        replica: &Replica,
        account: &Account,
        tables: &impl Tables,
        log: &Reader,
        meant: &Meant,
    ) -> Result<UndoPart, AccountError> {
        let doc = account.document();
        let mut past: Past<'_, Fetch<'_>> = Past::new(doc, fetch(log, doc));
        let is_here = |blob: BlobId| {
            let here: Result<bool, StoreError> = replica.0.handle.bodies().contains(blob);
            here.map_err(|error| TableError(error.to_string()))
        };
        match self {
            Part::Mailboxes => account.plan_undo_mailboxes(tables, &mut past, &meant.touched, &meant.changes),
            Part::Messages(messages) => {
                account.plan_undo_messages(tables, &mut past, messages, &meant.changes, is_here)
            }
        }
    }
}
