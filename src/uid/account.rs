//! One replica's account without its disk: the document, and what users do to it.
//!
//! Each operation writes one change (none, if nothing would change; several, if one would pass its limits), takes it into
//! the index and hands it back. The caller commits changes and index together before anybody is told. After an error the account must be loaded again.

mod adopt;
mod edit;
mod import;
mod mailboxes;
mod messages;
mod undo;

use std::collections::BTreeMap;

use super::lane::{Block, Lane};
use super::names;
use super::observer::{self, PrivateUids};
use super::pass::{self, Context, Event, Rules};
use super::settle;
use super::tables::{Table, TableError, Tables, TablesMut};
use super::validity;
use super::view::View;
use crate::mailbox::{
    AccountId, Change, Document, DocumentError, MailboxId, MailboxName, ModSeq, ReplicaId, Touched,
    UidValidity, Writer,
};
use crate::mutation::{Mutation, planted};

pub use adopt::{Arrival, Assigned, Assignment};
pub use edit::{EntryEdit, Fate};
pub use import::Imported;
pub use messages::KeywordChange;
pub use undo::{UndoPart, Undone};

/// What an operation wrote.
#[derive(Debug, Default)]
pub struct Written {
    /// The changes in the order in which they must be stored. Each batch was taken into the index at once; replaying
    /// the same batches gives the same index, mod-sequences included.
    pub batches: Vec<Vec<Change>>,
    /// What clients see of them.
    pub events: Vec<Event>,
}

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// There is no mailbox of this name.
    #[error("there is no mailbox {name:?}")]
    NoMailbox {
        /// The name.
        name: MailboxName,
    },
    /// There is a mailbox of this name already.
    #[error("mailbox {name:?} exists already")]
    Exists {
        /// The name.
        name: MailboxName,
    },
    /// INBOX cannot be deleted, nor can another mailbox take its name.
    #[error("INBOX cannot be deleted, and no other mailbox can be given its name")]
    Inbox,
    /// The mailbox's UIDVALIDITY has no higher value left.
    #[error("mailbox {name:?} has used up its UIDVALIDITYs; give the new mailbox another name")]
    ValidityExhausted {
        /// The name.
        name: MailboxName,
    },
    /// More in one operation than one change can hold.
    #[error("{what}: {count} in one operation, where {limit} is the most")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many were given.
        count: usize,
        /// How many are the most.
        limit: usize,
    },
    /// The mailbox has another UIDVALIDITY than the one that came with the UIDs: they may mean other messages now.
    #[error("the UIDs were seen with UIDVALIDITY {seen}, and mailbox {name:?} has {now} now; list it again")]
    UidValidity {
        /// The mailbox, by its present name.
        name: MailboxName,
        /// What came with the UIDs.
        seen: UidValidity,
        /// What holds now.
        now: UidValidity,
    },
    /// The mailbox was deleted since it was seen.
    #[error("the mailbox is not there any more")]
    MailboxGone {
        /// The mailbox.
        mailbox: MailboxId,
    },
    /// The document refused changes.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The index failed.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// A lane and what must be known before it is used: all that its giver knew when it gave the lane away. The giver may have
/// claimed UIDs of it before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The UIDs.
    pub lane: Lane,
    /// For each replica the number of its last change that the giver knew.
    pub after: BTreeMap<ReplicaId, u64>,
}

impl Grant {
    /// The grant of the replica that makes an account: everything, at once.
    pub fn whole() -> Grant {
        Grant { lane: Lane::WHOLE, after: BTreeMap::new() }
    }

    /// The half to keep and the half to give away by a replica that knows `version`; nothing if it cannot be halved.
    pub fn split(&self, version: &BTreeMap<ReplicaId, u64>) -> Option<(Grant, Grant)> {
        let (keep, give) = self.lane.split()?;
        let mut after = self.after.clone();
        for (replica, seq) in version {
            let known = after.entry(*replica).or_default();
            *known = (*known).max(*seq);
        }
        Some((Grant { lane: keep, after: self.after.clone() }, Grant { lane: give, after }))
    }

    /// Whether a replica that knows `version` may use the lane.
    pub fn is_ready(&self, version: &BTreeMap<ReplicaId, u64>) -> bool {
        if planted(Mutation::LaneTooEarly) {
            return true;
        }
        self.after.iter().all(|(replica, seq)| version.get(replica).is_some_and(|known| known >= seq))
    }
}

/// One replica of an account in memory.
pub struct Account {
    id: AccountId,
    doc: Document,
    /// Nothing on an observer.
    grant: Option<Grant>,
    block: Block,
    era: u16,
    rules: Rules,
}

impl Account {
    /// Most messages of one operation: their packs and claims fit one change.
    pub const MAX_BATCH: usize = 10_000;

    /// Takes a document that the index is up to date with. `grant` is nothing on an observer; `era` was drawn when the
    /// index was made.
    pub fn new(id: AccountId, doc: Document, grant: Option<Grant>, block: Block, era: u16) -> Account {
        Account { id, doc, grant, block, era, rules: Rules::in_force() }
    }

    #[cfg(test)]
    pub(super) fn with_rules(mut self, rules: Rules) -> Account {
        self.rules = rules;
        self
    }

    /// The document.
    pub fn document(&self) -> &Document {
        &self.doc
    }

    /// Which UIDs this replica claims; nothing on an observer.
    pub fn grant(&self) -> Option<&Grant> {
        self.grant.as_ref()
    }

    /// Takes another lane, after a part of it was given away.
    pub fn set_grant(&mut self, grant: Option<Grant>) {
        self.grant = grant;
    }

    /// From now on changes name another membership record.
    pub fn set_under(&mut self, record: Option<[u8; 8]>) {
        self.doc.set_under(record);
    }

    /// The era of mod-sequences that this replica gives now.
    pub fn era(&self) -> u16 {
        self.era
    }

    /// Gives mod-sequences another era from now on.
    pub fn set_era(&mut self, era: u16) {
        self.era = era;
    }

    /// Whether clients can be served: a server that does not know yet what its inviter knew cannot claim UIDs.
    pub fn is_ready(&self) -> bool {
        self.grant.as_ref().is_none_or(|grant| grant.is_ready(self.doc.version()))
    }

    fn lane(&self) -> Option<Lane> {
        let grant = self.grant.as_ref().filter(|grant| grant.is_ready(self.doc.version()))?;
        Some(if self.rules.lanes { grant.lane } else { Lane::WHOLE })
    }

    /// Reads the index.
    pub fn view<'a, T: Tables>(&self, tables: &'a T) -> View<'a, T> {
        View::new(tables, self.id, self.grant.is_none())
    }

    fn context(&self) -> Context {
        Context { account: self.id, rules: self.rules, era: self.era, observer: self.grant.is_none() }
    }

    /// Makes the rows that every index starts with.
    pub fn prepare(&self, tables: &mut impl TablesMut) -> Result<(), AccountError> {
        pass::integrate(&self.doc, tables, self.context(), &Touched::default())?;
        Ok(())
    }

    /// Applies changes of others, dependencies first. What was known already is skipped and not handed back.
    pub fn receive(
        &mut self,
        tables: &mut impl TablesMut,
        changes: Vec<Change>,
    ) -> Result<Written, AccountError> {
        let mut batch = Vec::new();
        let mut touched = Touched::default();
        for change in changes {
            if self.doc.apply(&change)? {
                touched.extend(change.touched());
                batch.push(change);
            }
        }
        if batch.is_empty() {
            return Ok(Written::default());
        }
        let events = pass::integrate(&self.doc, tables, self.context(), &touched)?;
        Ok(Written { batches: vec![batch], events })
    }

    /// Takes a batch of the log into the index: after a crash between log and index, or to build the index anew. Gives
    /// back changes whose dependencies are missing: the log was damaged and they wait for what a peer still has.
    pub fn replay(
        &mut self,
        tables: &mut impl TablesMut,
        batch: Vec<Change>,
    ) -> Result<Vec<Change>, AccountError> {
        let mut touched = Touched::default();
        let waiting = self.doc.apply_ready(batch, |change| touched.extend(change.touched()))?;
        pass::integrate(&self.doc, tables, self.context(), &touched)?;
        Ok(waiting)
    }

    /// Writes what must be written before `mailbox` is shown, or every mailbox: burns, epochs, claims. Nothing on an
    /// observer. Costs O(what waits).
    pub fn settle(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        mailbox: Option<MailboxId>,
    ) -> Result<Written, AccountError> {
        let mut all = Written::default();
        while let Some(lane) = self.lane() {
            let plan = settle::plan(tables, lane, self.block, mailbox)?;
            if plan.is_empty() {
                break;
            }
            let written = self.write(tables, time, |writer| plan.write(writer))?;
            if written.is_empty() {
                break;
            }
            all.append(written);
        }
        Ok(all)
    }

    /// After the store was copied back: what this replica showed since is unknown, so it shows no mailbox again under a
    /// UIDVALIDITY up to `floor`, the highest it ever had. An observer draws new ones above `time`. The caller makes both
    /// durable first, as they are part of the replay, and settles afterwards.
    pub fn restored(
        &self,
        tables: &mut impl TablesMut,
        floor: UidValidity,
        time: i64,
    ) -> Result<(), AccountError> {
        match self.grant {
            _ if planted(Mutation::FloorForgotten) => {}
            Some(_) => names::set_floor(tables, self.id, floor)?,
            None => observer::forget_names(tables, time)?,
        }
        Ok(())
    }

    /// Goes on from a peer's mod-sequence counter, if that is higher.
    pub fn go_on_from(tables: &mut impl TablesMut, counter: u64) -> Result<(), AccountError> {
        if counter > pass::counter(tables)? {
            tables.put(Table::Meta, pass::COUNTER, &counter.min(ModSeq::MAX_COUNTER).to_be_bytes())?;
        }
        Ok(())
    }

    /// The counter of this replica's mod-sequences.
    pub fn counter(tables: &impl Tables) -> Result<u64, AccountError> {
        Ok(pass::counter(tables)?)
    }

    /// The highest UIDVALIDITY that any mailbox ever had, hidden ones too; one look-up. What keeps track of it outside of the store can tell
    /// [`Account::restored`] later.
    pub fn highest_uid_validity(&self, tables: &impl Tables) -> Result<UidValidity, AccountError> {
        Ok(validity::highest(tables)?)
    }

    /// On an observer: the private UIDs that a mailbox needs before it is shown, [`Account::MAX_BATCH`] at most. The
    /// caller makes them durable, then calls [`Account::take_private`], until there is nothing left to plan.
    pub fn plan_private(
        &self,
        tables: &impl Tables,
        time: i64,
        mailbox: MailboxId,
    ) -> Result<Option<PrivateUids>, AccountError> {
        match self.view(tables).mailbox(mailbox)? {
            Some(shown) if self.grant.is_none() => {
                Ok(PrivateUids::plan(tables, mailbox, &shown.name, time, Account::MAX_BATCH)?)
            }
            _ => Ok(None),
        }
    }

    /// Takes private UIDs into the index, as they were planned.
    pub fn take_private(
        &self,
        tables: &mut impl TablesMut,
        planned: &PrivateUids,
    ) -> Result<(), AccountError> {
        Ok(planned.take(tables)?)
    }

    fn write(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        write: impl FnOnce(&mut Writer),
    ) -> Result<Written, AccountError> {
        let Some(change) = self.doc.write(time, write)? else { return Ok(Written::default()) };
        let events = pass::integrate(&self.doc, tables, self.context(), change.touched())?;
        Ok(Written { batches: vec![vec![change]], events })
    }
}

impl Written {
    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// All changes in order.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.batches.iter().flatten()
    }

    /// Adds what a later operation wrote.
    pub fn append(&mut self, mut later: Written) {
        self.batches.append(&mut later.batches);
        self.events.append(&mut later.events);
    }
}

fn limit(what: &'static str, count: usize, limit: usize) -> Result<(), AccountError> {
    if count > limit { Err(AccountError::TooMany { what, count, limit }) } else { Ok(()) }
}
