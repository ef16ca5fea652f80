//! One replica's account without its disk: the document, and what users do to it.
//!
//! Each operation writes one change (or none, if nothing would change), takes it into the index and hands it back. The
//! caller commits change and index together before anybody is told. After an error the account must be loaded again.

use std::collections::{BTreeMap, BTreeSet};

use super::claims::top;
use super::lane::{Block, Lane};
use super::names::{self, all_mailboxes, name_row};
use super::observer::{self, PrivateUids};
use super::pass::{self, Context, Event, Rules};
use super::rows::{EntryRow, MailboxRow};
use super::settle::{self, HIGHEST_UID, Unclaimed, claim_above, segments};
use super::tables::{Table, TableError, Tables, TablesMut};
use super::validity::{self, epoch_above, uid_validity};
use super::view::View;
use crate::mailbox::{
    AccountId, Change, Document, DocumentError, EntryId, Keyword, MailboxId, MailboxName, Message, ModSeq,
    Nonce, Origin, Pack, PackId, Place, Placement, ReplicaId, Run, SpecialUse, Touched, Uid, UidRecord,
    UidValidity, Writer,
};

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
    /// The document refused changes.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The index failed.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// A message of a folder that is imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The message.
    pub message: Message,
    /// How many equal bodies stand before it in its folder.
    pub occurrence: u32,
    /// The UID it has there, to be adopted with the folder's UIDVALIDITY.
    pub uid: Option<Uid>,
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

    /// How many messages may have `set` and `clear` keywords changed in one operation, so that the change keeps its limits.
    pub fn keyword_batch(set: &BTreeSet<Keyword>, clear: &BTreeSet<Keyword>) -> usize {
        // A key is an entry's 22 letters and the keyword; a renewed place is about 60 bytes more.
        let keywords = || set.iter().chain(clear);
        let renewal = usize::from(clear.iter().any(Keyword::is_deleted));
        let operations = keywords().count() + renewal;
        let bytes: usize =
            keywords().map(|keyword| keyword.as_str().len() + 40).sum::<usize>() + 80 * renewal;
        let most = (Change::MAX_OPS / operations.max(1)).min(Change::MAX_SIZE / 2 / bytes.max(1));
        most.clamp(1, Account::MAX_BATCH)
    }

    /// Takes a document that the index is up to date with. `grant` is nothing on an observer; `era` was drawn when the
    /// index was made.
    pub fn new(id: AccountId, doc: Document, grant: Option<Grant>, block: Block, era: u16) -> Account {
        Account { id, doc, grant, block, era, rules: Rules::ALL }
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

    /// Adds messages to a mailbox under ids that nobody else can have: a delivery, an APPEND.
    pub fn append(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        mailbox: MailboxId,
        messages: Vec<Message>,
    ) -> Result<(Vec<EntryId>, Written), AccountError> {
        limit("messages", messages.len(), Pack::MAX_MESSAGES)?;
        let keywords = messages.iter().map(|message| message.keywords.len()).max().unwrap_or(0);
        limit("keywords of one message", keywords, Pack::MAX_KEYWORDS)?;
        let space = self.space(tables, mailbox)?;
        let mut entries = Vec::new();
        let written = self.write(tables, time, |writer| {
            let pack = Pack { mailbox, origin: Origin::Arrived { salt: writer.salt() }, messages };
            let id = writer.pack(&pack);
            entries = (0..pack.messages.len()).map(|index| pack.entry_id(id, index)).collect();
            space.claim(writer, &initial(id, &entries));
        })?;
        Ok((entries, written))
    }

    /// Adds a folder's messages, each of which must be new here. With `adopted`, which only the import that makes the
    /// mailbox has, they keep their UIDs unless the mailbox's epoch has risen; without, a server claims UIDs for them. `floor` is the UID before the folder's
    /// UIDNEXT.
    pub fn import(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        mailbox: MailboxId,
        messages: &[Imported],
        adopted: Option<(UidValidity, u32)>,
    ) -> Result<Written, AccountError> {
        limit("messages", messages.len(), Account::MAX_BATCH)?;
        let space = self.space(tables, mailbox)?;
        let adopted = adopted.filter(|_| space.epoch == 0);
        self.write(tables, time, |writer| {
            let mut waiting = Vec::new();
            for part in messages.chunks(Pack::MAX_MESSAGES) {
                let pack = Pack {
                    mailbox,
                    origin: Origin::Imported { occurrences: part.iter().map(|m| m.occurrence).collect() },
                    messages: part.iter().map(|m| m.message.clone()).collect(),
                };
                let id = writer.pack(&pack);
                let entries: Vec<EntryId> = (0..part.len()).map(|index| pack.entry_id(id, index)).collect();
                waiting.extend(initial(id, &entries));
            }
            match adopted {
                Some((validity, floor)) => {
                    writer.adopt_uid_validity(mailbox, validity);
                    if let Some(run) = adopted_run(mailbox, space.base, floor, &waiting, messages) {
                        writer.uid_record(&UidRecord::Run(run));
                    }
                }
                None => space.claim(writer, &waiting),
            }
        })
    }

    /// Copies messages into a mailbox, with their keywords. Bodies are shared.
    pub fn copy(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        entries: &[EntryId],
        target: MailboxId,
    ) -> Result<(Vec<EntryId>, Written), AccountError> {
        let mut messages = Vec::new();
        for entry in entries {
            messages.extend(self.view(tables).message_of(*entry)?);
        }
        if messages.is_empty() {
            return Ok((Vec::new(), Written::default()));
        }
        self.append(tables, time, target, messages)
    }

    /// Moves messages into a mailbox; one write each. Expunged ones are left alone.
    pub fn move_to(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        entries: &[EntryId],
        target: MailboxId,
    ) -> Result<Written, AccountError> {
        limit("messages", entries.len(), Account::MAX_BATCH)?;
        let visible = self.visible(tables, entries)?;
        let space = self.space(tables, target)?;
        self.write(tables, time, |writer| {
            let mut waiting = Vec::new();
            for (entry, row) in &visible {
                let nonce = writer.nonce();
                writer.place(*entry, Some(Place { mailbox: target, nonce, renewal: 0 }));
                let placement = Placement { entry: *entry, nonce };
                waiting.push(Unclaimed { placement, pack: row.pack, index: row.index });
            }
            space.claim(writer, &waiting);
        })
    }

    /// Expunges messages wherever they are.
    pub fn expunge(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        entries: &[EntryId],
    ) -> Result<Written, AccountError> {
        limit("messages", entries.len(), Account::MAX_BATCH)?;
        let visible = self.visible(tables, entries)?;
        self.write(tables, time, |writer| visible.iter().for_each(|(entry, _)| writer.place(*entry, None)))
    }

    /// Sets and clears keywords. Taking `\Deleted` off keeps the message against a concurrent expunge.
    pub fn store_keywords(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        entries: &[EntryId],
        set: &BTreeSet<Keyword>,
        clear: &BTreeSet<Keyword>,
    ) -> Result<Written, AccountError> {
        limit("messages", entries.len(), Account::keyword_batch(set, clear))?;
        let visible = self.visible(tables, entries)?;
        let renewals: Vec<Option<Place>> = visible
            .iter()
            .map(|(entry, row)| {
                let kept =
                    clear.iter().any(Keyword::is_deleted) && row.keywords.contains(&Keyword::deleted());
                kept.then(|| self.renewed(*entry, row)).flatten()
            })
            .collect();
        self.write(tables, time, |writer| {
            for ((entry, row), renewal) in visible.iter().zip(&renewals) {
                for keyword in set.difference(&row.keywords) {
                    writer.keyword(*entry, keyword, true);
                }
                for keyword in clear.intersection(&row.keywords) {
                    writer.keyword(*entry, keyword, false);
                }
                if renewal.is_some() {
                    writer.place(*entry, *renewal);
                }
            }
        })
    }

    fn renewed(&self, entry: EntryId, row: &EntryRow) -> Option<Place> {
        let (mailbox, nonce) = row.place?;
        let renewal = match self.doc.places(entry) {
            crate::mailbox::Places::Written { now: Some(place), .. } => place.renewal,
            _ => 0,
        };
        Some(Place { mailbox, nonce, renewal: renewal.saturating_add(1) })
    }

    /// Makes a mailbox. One that was deleted before under this name stays another mailbox.
    pub fn create_mailbox(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        name: &MailboxName,
        special_use: Option<SpecialUse>,
    ) -> Result<(MailboxId, Written), AccountError> {
        self.make_mailbox(tables, time, name, special_use, None)
    }

    /// Makes a mailbox for an import. It has the folder's UIDVALIDITY from the start, however low, unless the name bore a
    /// higher one: were it adopted later, it would fall.
    pub fn adopt_mailbox(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        name: &MailboxName,
        validity: UidValidity,
    ) -> Result<(MailboxId, Written), AccountError> {
        self.make_mailbox(tables, time, name, None, Some(validity))
    }

    fn make_mailbox(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        name: &MailboxName,
        special_use: Option<SpecialUse>,
        adopted: Option<UidValidity>,
    ) -> Result<(MailboxId, Written), AccountError> {
        if self.view(tables).find(name)?.is_some() {
            return Err(AccountError::Exists { name: name.clone() });
        }
        let mailboxes = all_mailboxes(tables)?;
        let incarnation = (0..).find(|n| !mailboxes.contains_key(&MailboxId::derive(name, *n)));
        let incarnation = incarnation.expect("there are fewer mailboxes than numbers");
        let id = MailboxId::derive(name, incarnation);
        let row = MailboxRow { incarnation, adopted: adopted.into_iter().collect(), ..MailboxRow::default() };
        let epoch = self.epoch_for(tables, id, &row, name)?.max(self.epoch_of_new(tables, &row, id, name)?);
        let written = self.write(tables, time, |writer| {
            writer.make_mailbox(id, name, incarnation);
            if let Some(validity) = adopted {
                writer.adopt_uid_validity(id, validity);
            }
            if epoch > 0 {
                writer.epoch(id, epoch);
            }
            if special_use.is_some() {
                writer.special_use(id, special_use);
            }
        })?;
        Ok((id, written))
    }

    /// Gives a mailbox, and all below it, another name. INBOX stays: its messages move into a new mailbox instead
    /// (RFC 9051, section 6.3.6).
    pub fn rename_mailbox(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        from: &MailboxName,
        to: &MailboxName,
    ) -> Result<Written, AccountError> {
        let id =
            self.view(tables).find(from)?.ok_or_else(|| AccountError::NoMailbox { name: from.clone() })?;
        if to.is_inbox() {
            return Err(AccountError::Inbox);
        }
        if self.view(tables).find(to)?.is_some() {
            return Err(AccountError::Exists { name: to.clone() });
        }
        if from.is_inbox() {
            let (target, mut written) = self.create_mailbox(tables, time, to, None)?;
            let entries = self.view(tables).entries_of(id)?;
            for part in entries.chunks(Account::MAX_BATCH) {
                written.append(self.move_to(tables, time, part, target)?);
            }
            return Ok(written);
        }
        let mailboxes = all_mailboxes(tables)?;
        let mut renames = Vec::new();
        for (id, row) in &mailboxes {
            let Some(display) = &row.display else { continue };
            let below = display.below(from);
            if display != from && below.is_none() {
                continue;
            }
            let name: MailboxName = match below {
                None => to.clone(),
                Some(rest) => format!("{to}/{rest}").parse().map_err(|_| AccountError::TooMany {
                    what: "bytes or levels of a mailbox name",
                    count: to.as_str().len() + rest.len() + 1,
                    limit: MailboxName::MAX_LEN,
                })?,
            };
            if below.is_some() && self.view(tables).find(&name)?.is_some() {
                return Err(AccountError::Exists { name });
            }
            renames.push((*id, name.clone(), self.epoch_after_rename(tables, &mailboxes, *id, row, &name)?));
        }
        self.write(tables, time, |writer| {
            for (id, name, epoch) in &renames {
                writer.rename_mailbox(*id, name);
                if *epoch > mailboxes[id].epoch {
                    writer.epoch(*id, *epoch);
                }
            }
        })
    }

    /// Expunges what is in a mailbox and sets its tombstone. What others put into it meanwhile stays in sight.
    pub fn delete_mailbox(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        name: &MailboxName,
    ) -> Result<Written, AccountError> {
        if name.is_inbox() {
            return Err(AccountError::Inbox);
        }
        let id =
            self.view(tables).find(name)?.ok_or_else(|| AccountError::NoMailbox { name: name.clone() })?;
        let entries = self.view(tables).entries_of(id)?;
        let mut written = Written::default();
        for part in entries.chunks(Account::MAX_BATCH) {
            written.append(self.expunge(tables, time, part)?);
        }
        written.append(self.write(tables, time, |writer| writer.delete_mailbox(id))?);
        Ok(written)
    }

    /// Subscribes to a mailbox, or not.
    pub fn subscribe(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        name: &MailboxName,
        subscribed: bool,
    ) -> Result<Written, AccountError> {
        let id =
            self.view(tables).find(name)?.ok_or_else(|| AccountError::NoMailbox { name: name.clone() })?;
        self.write(tables, time, |writer| writer.subscribe(id, subscribed))
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
        write: impl FnOnce(&mut Writer<'_>),
    ) -> Result<Written, AccountError> {
        let Some(change) = self.doc.write(time, write) else { return Ok(Written::default()) };
        let events = pass::integrate(&self.doc, tables, self.context(), change.touched())?;
        Ok(Written { batches: vec![vec![change]], events })
    }

    /// Where this replica may claim UIDs of a mailbox at once.
    fn space(&self, tables: &impl Tables, mailbox: MailboxId) -> Result<Space, AccountError> {
        let row = tables.get(Table::Mailboxes, mailbox.as_bytes())?;
        let row = row.map(|bytes| MailboxRow::decode(&bytes)).transpose()?.unwrap_or_default();
        // In an epoch that must end nothing may be claimed: a replica that was restored may have given the UID before.
        let lane = self.lane().filter(|_| row.raise_to.is_none());
        Ok(Space {
            mailbox,
            epoch: row.epoch,
            base: top(tables, mailbox, row.epoch)?,
            lane,
            block: self.block,
        })
    }

    fn visible(
        &self,
        tables: &impl Tables,
        entries: &[EntryId],
    ) -> Result<Vec<(EntryId, EntryRow)>, AccountError> {
        let view = self.view(tables);
        let mut visible = Vec::with_capacity(entries.len());
        for entry in entries {
            if let Some(row) = view.entry_row(*entry)?.filter(|row| row.place.is_some()) {
                visible.push((*entry, row));
            }
        }
        Ok(visible)
    }

    /// Where a replica was restored INBOX rose above all that it may have shown. A mailbox made since starts above INBOX,
    /// so that it need not rise when that replica shows it.
    fn epoch_of_new(
        &self,
        tables: &impl Tables,
        row: &MailboxRow,
        id: MailboxId,
        name: &MailboxName,
    ) -> Result<u32, AccountError> {
        let inbox = all_mailboxes(tables)?.remove(&MailboxId::inbox()).unwrap_or_default();
        let floor = uid_validity(self.id, MailboxId::inbox(), &inbox);
        if inbox.epoch == 0 || uid_validity(self.id, id, row) > floor {
            return Ok(0);
        }
        epoch_above(self.id, id, row, floor)
            .ok_or_else(|| AccountError::ValidityExhausted { name: name.clone() })
    }

    /// The epoch at which a mailbox may be shown under a name that another one bore.
    fn epoch_for(
        &self,
        tables: &impl Tables,
        id: MailboxId,
        row: &MailboxRow,
        name: &MailboxName,
    ) -> Result<u32, AccountError> {
        match name_row(tables, name)? {
            Some(shown) if shown.mailbox != id && shown.validity >= uid_validity(self.id, id, row) => {
                epoch_above(self.id, id, row, shown.validity)
                    .ok_or_else(|| AccountError::ValidityExhausted { name: name.clone() })
            }
            _ => Ok(row.epoch),
        }
    }

    /// A renamed mailbox keeps its UIDVALIDITY, unless the name had a higher one, or another mailbox has the same one:
    /// that one might get this name elsewhere at the same time.
    fn epoch_after_rename(
        &self,
        tables: &impl Tables,
        mailboxes: &BTreeMap<MailboxId, MailboxRow>,
        id: MailboxId,
        row: &MailboxRow,
        name: &MailboxName,
    ) -> Result<u32, AccountError> {
        let validity = uid_validity(self.id, id, row);
        let twin = mailboxes
            .iter()
            .any(|(other, row)| *other != id && uid_validity(self.id, *other, row) == validity);
        let mut row = row.clone();
        if twin {
            row.epoch = epoch_above(self.id, id, &row, validity)
                .ok_or_else(|| AccountError::ValidityExhausted { name: name.clone() })?;
        }
        self.epoch_for(tables, id, &row, name)
    }
}

/// The UIDs of a mailbox above which a change may claim.
struct Space {
    mailbox: MailboxId,
    epoch: u32,
    base: u32,
    /// Nothing if the placements must wait for the pass.
    lane: Option<Lane>,
    block: Block,
}

impl Space {
    /// Claims UIDs for placements that the same change makes. Past [`HIGHEST_UID`] they wait for the pass, which raises
    /// the epoch first.
    fn claim(&self, writer: &mut Writer<'_>, waiting: &[Unclaimed]) {
        let run = |lane| claim_above(self.mailbox, self.epoch, self.base, waiting, lane, self.block);
        if let Some(run) = self.lane.and_then(run).filter(|run| run.high() <= HIGHEST_UID) {
            writer.uid_record(&UidRecord::Run(run));
        }
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

fn initial(pack: PackId, entries: &[EntryId]) -> Vec<Unclaimed> {
    let placed = |(index, entry): (usize, &EntryId)| Unclaimed {
        placement: Placement { entry: *entry, nonce: Nonce::INITIAL },
        pack,
        index: index as u32,
    };
    entries.iter().enumerate().map(placed).collect()
}

/// The claims of UIDs that a Dovecot has shown. Messages without a UID wait for the pass.
fn adopted_run(
    mailbox: MailboxId,
    base: u32,
    floor: u32,
    waiting: &[Unclaimed],
    messages: &[Imported],
) -> Option<Run> {
    let mut claims: Vec<(Uid, Unclaimed)> = messages
        .iter()
        .zip(waiting)
        .filter_map(|(message, waiting)| Some((message.uid?, *waiting)))
        .collect();
    claims.sort_by_key(|(uid, _)| *uid);
    claims.retain(|(uid, _)| uid.value() > base);
    let floor = if floor > base { floor } else { 0 };
    let segments = segments(claims.into_iter());
    (!segments.is_empty() || floor > 0).then_some(Run { mailbox, epoch: 0, base, floor, segments })
}
