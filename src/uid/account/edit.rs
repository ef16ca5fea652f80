//! Several things to several messages in one change: what a folder of another program has become since it was last seen.

use std::collections::{BTreeMap, BTreeSet};

use super::messages::{Edit, parts};
use super::{Account, AccountError, KeywordChange, Written, limit};
use crate::mailbox::{Change, EntryId, Keyword, MailboxId, Place, Placement};
use crate::uid::rows::EntryRow;
use crate::uid::settle::Unclaimed;
use crate::uid::tables::TablesMut;

/// What becomes of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryEdit {
    /// The message.
    pub entry: EntryId,
    /// Where the caller saw it. If it is elsewhere by now, nothing is done to it.
    pub seen_in: MailboxId,
    /// Keywords to be set.
    pub set: BTreeSet<Keyword>,
    /// Keywords to be cleared.
    pub clear: BTreeSet<Keyword>,
    /// Where it is to be.
    pub fate: Fate,
}

/// Where a message is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Where it is.
    Stay,
    /// In another mailbox.
    Move(MailboxId),
    /// Nowhere.
    Expunge,
}

/// An edit of a message that is where it was seen.
struct Meant {
    entry: EntryId,
    row: EntryRow,
    keywords: Edit,
    fate: Fate,
}

impl Account {
    /// Makes edits in one change; in several, committed together, if one would pass its limits. Gives the entries of those
    /// that were made, the ones that changed nothing among them.
    pub fn edit(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        edits: &[EntryEdit],
    ) -> Result<(BTreeSet<EntryId>, Written), AccountError> {
        limit("messages", edits.len(), Account::MAX_BATCH)?;
        let mut meant = Vec::with_capacity(edits.len());
        for edit in edits {
            let row = self.view(tables).entry_row(edit.entry)?;
            let here = |row: &EntryRow| row.place.is_some_and(|(mailbox, _)| mailbox == edit.seen_in);
            let Some(row) = row.filter(here) else { continue };
            let change = KeywordChange::Edit { set: edit.set.clone(), clear: edit.clear.clone() };
            let keywords = self.keyword_edit(tables, edit.entry, &row.keywords, &change)?;
            meant.push(Meant { entry: edit.entry, row, keywords, fate: edit.fate });
        }
        let mut written = Written::default();
        let weigh = |meant: &Meant| meant.keywords.bytes() + 160;
        for part in parts(&meant, Account::MAX_BATCH, Change::MAX_OPS * 32, weigh) {
            written.append(self.write_meant(tables, time, part)?);
        }
        Ok((meant.iter().map(|one| one.entry).collect(), written))
    }

    fn write_meant(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        part: &[Meant],
    ) -> Result<Written, AccountError> {
        let mut spaces = BTreeMap::new();
        for meant in part {
            if let Fate::Move(target) = meant.fate
                && !spaces.contains_key(&target)
            {
                spaces.insert(target, (self.space(tables, target)?, Vec::new()));
            }
        }
        self.write(tables, time, |writer| {
            for Meant { entry, row, keywords, fate } in part {
                match *fate {
                    Fate::Stay => keywords.write(writer),
                    Fate::Expunge => writer.place(*entry, None),
                    Fate::Move(target) => {
                        keywords.write_keywords(writer);
                        let nonce = writer.nonce();
                        writer.place(*entry, Some(Place { mailbox: target, nonce, renewal: 0 }));
                        let placement = Placement { entry: *entry, nonce };
                        let waiting = Unclaimed { placement, pack: row.pack, index: row.index };
                        spaces.get_mut(&target).expect("its space was just looked up").1.push(waiting);
                    }
                }
            }
            for (space, waiting) in spaces.values() {
                space.claim(writer, waiting);
            }
        })
    }
}
