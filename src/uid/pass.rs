//! The pass itself: from what changes wrote to, to the rows of the index, in time proportional to the changes.
//!
//! It starts from the keys that the changes' operations wrote rather than from Automerge's patches: a concurrent write
//! that loses makes no patch, yet the pass must know of it (rule 3c).

use std::collections::{BTreeMap, BTreeSet};

use super::names;
use super::observer;
use super::rows::{Claim, EntryRow, MailboxRow, UidRow, after, arrival_key, space_key, uid_key};
use super::tables::{Table, TableError, TablesMut};
use super::validity::{self, uid_validity};
use crate::mailbox::{
    AccountId, Document, EntryId, Keyword, MailboxId, Message, ModSeq, Nonce, Origin, PackId, Placement,
    Places, Touched, Uid, UidValidity,
};
use crate::mutation::{Mutation, planted};

/// The rules of the pass. The only public value is all of them; tests take single ones out, to see that they are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A UID that two placements claim is burned (3a).
    pub(crate) contested: bool,
    /// A UID that lies between base and high of a run which does not hold the claim is burned (3b).
    pub(crate) spanned: bool,
    /// A UID that a merge hides, or would bring back, is burned by a record (3c).
    pub(crate) recorded: bool,
    /// Servers claim in lanes of their own.
    pub(crate) lanes: bool,
}

impl Rules {
    /// Those that accounts follow: every one.
    pub(crate) fn in_force() -> Rules {
        let on = |off: &[Mutation]| !off.iter().any(|mutation| planted(*mutation));
        Rules {
            contested: on(&[Mutation::Contested]),
            spanned: on(&[Mutation::Spanned]),
            recorded: on(&[Mutation::Recorded]),
            lanes: on(&[Mutation::Lanes, Mutation::Contested]),
        }
    }

    /// Every rule.
    pub const ALL: Rules = Rules { contested: true, spanned: true, recorded: true, lanes: true };
}

/// What a pass changed, for people and for connected clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message is shown under a UID.
    Shown {
        /// The mailbox.
        mailbox: MailboxId,
        /// Its new UID.
        uid: Uid,
        /// The message.
        entry: EntryId,
    },
    /// A UID is not shown any more.
    Vanished {
        /// The mailbox.
        mailbox: MailboxId,
        /// The UID.
        uid: Uid,
        /// The message that had it.
        entry: EntryId,
    },
    /// A message's keywords changed.
    Flags {
        /// The mailbox.
        mailbox: MailboxId,
        /// Its UID, if it has one.
        uid: Option<Uid>,
        /// The message.
        entry: EntryId,
    },
    /// A UID may never be shown again.
    Burned {
        /// The mailbox.
        mailbox: MailboxId,
        /// The UID.
        uid: Uid,
        /// The message that claimed it; nothing if the burn came before any claim.
        entry: Option<EntryId>,
        /// Why.
        rule: Burn,
    },
    /// Of two concurrent moves of a message, the one into this mailbox lost.
    MoveLost {
        /// The mailbox that lost.
        mailbox: MailboxId,
        /// The message.
        entry: EntryId,
    },
    /// A mailbox has another name, UIDVALIDITY or attribute, appeared or disappeared.
    Mailbox {
        /// The mailbox.
        mailbox: MailboxId,
    },
}

/// Why a UID was burned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Burn {
    /// Two messages claimed it (3a).
    Contested,
    /// Another server went past it without knowing of it (3b).
    Spanned,
    /// A merge hid the message that had it, or would bring back a UID that had vanished (3c).
    Recorded,
}

/// What the pass needs to know of its replica.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) account: AccountId,
    pub(crate) rules: Rules,
    pub(crate) era: u16,
    /// Whether clients are shown UIDs from a private map.
    pub(crate) observer: bool,
}

/// The name of the row that counts mod-sequences.
pub(crate) const COUNTER: &[u8] = b"modseq";

/// One run of the pass over a batch of changes. Rows are read once and written once.
pub(crate) struct Pass<'a, T> {
    pub(super) doc: &'a Document,
    pub(super) tables: &'a mut T,
    pub(super) context: Context,
    pub(super) modseq: ModSeq,
    pub(super) entries: BTreeMap<EntryId, Option<EntryRow>>,
    pub(super) uids: BTreeMap<(MailboxId, u32, Uid), Option<UidRow>>,
    pub(super) mailboxes: BTreeMap<MailboxId, MailboxRow>,
    pub(super) dirty: BTreeSet<EntryId>,
    changed: BTreeMap<(MailboxId, u32), BTreeSet<Uid>>,
    pub(super) names_changed: bool,
    pub(super) events: Vec<Event>,
}

/// The mod-sequence counter of the tables.
pub(crate) fn counter(tables: &impl super::Tables) -> Result<u64, TableError> {
    let value = tables.get(Table::Meta, COUNTER)?;
    Ok(value.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes))
}

/// Brings the index up to date with changes that the document holds already.
pub(crate) fn integrate<T: TablesMut>(
    doc: &Document,
    tables: &mut T,
    context: Context,
    touched: &Touched,
) -> Result<Vec<Event>, TableError> {
    let counter = counter(tables)? + 1;
    tables.put(Table::Meta, COUNTER, &counter.to_be_bytes())?;
    let mut pass = Pass {
        doc,
        tables,
        context,
        modseq: ModSeq::new(counter, context.era),
        entries: BTreeMap::new(),
        uids: BTreeMap::new(),
        mailboxes: BTreeMap::new(),
        dirty: BTreeSet::new(),
        changed: BTreeMap::new(),
        names_changed: false,
        events: Vec::new(),
    };
    pass.run(touched)?;
    Ok(pass.events)
}

impl<T: TablesMut> Pass<'_, T> {
    fn run(&mut self, touched: &Touched) -> Result<(), TableError> {
        for mailbox in touched.mailboxes.iter().chain([&MailboxId::inbox()]) {
            self.refresh_mailbox(*mailbox)?;
        }
        for (pack, time) in &touched.packs {
            self.add_pack(*pack, *time)?;
        }
        for (stay, began) in &touched.stays {
            if let Some(row) = self.entry(stay.entry)? {
                let known = row.stays.entry(stay.nonce).or_insert(*began);
                *known = (*known).min(*began);
            }
        }
        let keywords = touched.keywords.iter().map(|(entry, keyword)| (*entry, keyword));
        for (entry, keyword, set) in self.doc.keywords(keywords) {
            self.set_keyword(entry, keyword, set)?;
        }
        self.dirty.extend(&touched.places);
        for key in &touched.uids {
            self.add_record(key)?;
        }
        for entry in std::mem::take(&mut self.dirty) {
            self.refresh_entry(entry)?;
        }
        if self.names_changed {
            names::assign(self)?;
        }
        self.flush()
    }

    fn refresh_mailbox(&mut self, id: MailboxId) -> Result<(), TableError> {
        let fields = self.doc.mailbox(id);
        let is_new = self.tables.get(Table::Mailboxes, id.as_bytes())?.is_none();
        let row = self.mailbox(id)?;
        let name =
            if id == MailboxId::inbox() { Some(crate::mailbox::MailboxName::inbox()) } else { fields.name };
        let next = MailboxRow {
            name,
            subscribed: fields.subscribed,
            special_use: fields.special_use,
            deleted: fields.deleted,
            incarnation: fields.incarnation,
            epoch: fields.epoch,
            adopted: fields.adopted,
            ..row.clone()
        };
        if *row == next && !is_new {
            return Ok(());
        }
        let old_epoch = row.epoch;
        let rose = next.epoch != old_epoch;
        *row = next;
        self.names_changed = true;
        self.events.push(Event::Mailbox { mailbox: id });
        if rose {
            self.renumber(id, old_epoch)?;
        }
        Ok(())
    }

    /// After the epoch rose every message of the mailbox needs a claim of the new epoch. Costs O(mailbox).
    fn renumber(&mut self, id: MailboxId, old_epoch: u32) -> Result<(), TableError> {
        let prefix = space_key(id, old_epoch);
        for (_, value) in self.tables.range(Table::Uids, &prefix, &after(&prefix), usize::MAX)? {
            self.dirty.insert(UidRow::decode(&value)?.placement.entry);
        }
        // UIDs of a past epoch are shown to nobody, burned or not.
        for (key, _) in self.tables.range(Table::Pending, &prefix, &after(&prefix), usize::MAX)? {
            self.tables.remove(Table::Pending, &key)?;
        }
        Ok(())
    }

    fn add_pack(&mut self, id: PackId, time: i64) -> Result<(), TableError> {
        let Some(pack) = self.doc.pack(id) else { return Ok(()) };
        if self.tables.get(Table::Mailboxes, pack.mailbox.as_bytes())?.is_none() {
            self.refresh_mailbox(pack.mailbox)?;
        }
        let imported = matches!(pack.origin, Origin::Imported { .. });
        for (index, message) in pack.messages.iter().enumerate() {
            let entry = pack.entry_id(id, index);
            // Only imported entries can be in several packs.
            if imported && self.entry(entry)?.is_some() {
                self.meet_again(entry, message, time)?;
            } else {
                let row = EntryRow {
                    pack: id,
                    index: index as u32,
                    home: pack.mailbox,
                    blob: message.blob,
                    internal_date: message.internal_date,
                    arrived: time,
                    stays: BTreeMap::new(),
                    size: message.size,
                    keywords: message.keywords.clone(),
                    place: None,
                    shown: None,
                    claims: Vec::new(),
                    modseq: self.modseq,
                };
                self.entries.insert(entry, Some(row));
            }
            self.dirty.insert(entry);
        }
        Ok(())
    }

    /// Two replicas imported one folder: the message is there once. Marks that either folder had are kept, except
    /// `\Deleted`, which both must have; of two dates the earlier one is kept, of both kinds. So the order of arrival is no matter.
    fn meet_again(&mut self, entry: EntryId, message: &Message, time: i64) -> Result<(), TableError> {
        let doc = self.doc;
        let row = self.entry(entry)?.as_mut().expect("the caller has seen it");
        let (mut keywords, old_date) = (row.keywords.clone(), row.internal_date);
        keywords.extend(message.keywords.iter().filter(|k| !k.is_deleted()).cloned());
        if !message.keywords.contains(&Keyword::deleted()) {
            keywords.remove(&Keyword::deleted());
        }
        let (place, unclaimed) = (row.place, row.shown.is_none());
        row.internal_date = old_date.min(message.internal_date);
        row.arrived = row.arrived.min(time);
        let (before, date) = (row.keywords.clone(), row.internal_date);
        if let (Some((mailbox, nonce)), true) = (place, date != old_date) {
            let placement = Placement { entry, nonce };
            if unclaimed {
                self.tables.remove(Table::Unclaimed, &arrival_key(mailbox, old_date, placement))?;
                self.tables.put(Table::Unclaimed, &arrival_key(mailbox, date, placement), &[])?;
            }
            if self.context.observer {
                observer::redated(self.tables, mailbox, placement, old_date, date)?;
            }
        }
        for keyword in before.symmetric_difference(&keywords) {
            // What somebody said later stands above what the folders had.
            let set = doc.keyword(entry, keyword).unwrap_or(keywords.contains(keyword));
            self.set_keyword(entry, keyword, set)?;
        }
        Ok(())
    }

    fn set_keyword(&mut self, entry: EntryId, keyword: &Keyword, set: bool) -> Result<(), TableError> {
        let modseq = self.modseq;
        let Some(row) = self.entry(entry)? else { return Ok(()) };
        let changed = if set { row.keywords.insert(keyword.clone()) } else { row.keywords.remove(keyword) };
        if !changed {
            return Ok(());
        }
        row.modseq = modseq;
        let (place, shown) = (row.place, row.shown);
        let Some((mailbox, nonce)) = place else { return Ok(()) };
        if *keyword == Keyword::seen() {
            let unseen = &mut self.mailbox(mailbox)?.unseen;
            *unseen = if set { unseen.saturating_sub(1) } else { *unseen + 1 };
        }
        if keyword.is_deleted() {
            let marked = &mut self.mailbox(mailbox)?.marked;
            *marked = if set { *marked + 1 } else { marked.saturating_sub(1) };
        }
        if self.context.observer {
            if let Some(uid) = observer::private_uid(self.tables, Placement { entry, nonce })? {
                self.mark_changed(mailbox, observer::SPACE, uid)?;
            }
        } else if let Some((epoch, uid)) = shown {
            self.mark_changed(mailbox, epoch, uid)?;
        }
        self.mailbox(mailbox)?.highest_modseq = modseq;
        self.events.push(Event::Flags { mailbox, uid: shown.map(|(_, uid)| uid), entry });
        Ok(())
    }

    /// Decides anew where an entry is visible and under which UID (rules 3 and 4).
    fn refresh_entry(&mut self, entry: EntryId) -> Result<(), TableError> {
        let Some(row) = self.entry(entry)?.clone() else { return Ok(()) };
        let (place, hidden) = match self.doc.places(entry) {
            Places::Initial => (Some((row.home, Nonce::INITIAL)), Vec::new()),
            Places::Written { now, hidden } => (now.map(|place| (place.mailbox, place.nonce)), hidden),
        };
        let mut claims = Vec::with_capacity(row.claims.len());
        for claim in &row.claims {
            match self.uid_row(claim.mailbox, claim.epoch, claim.uid)?.as_ref().is_some_and(UidRow::is_burned)
            {
                true => self.hide(claim.mailbox, claim.epoch, claim.uid)?,
                false => claims.push(*claim),
            }
        }
        for lost in &hidden {
            self.events.push(Event::MoveLost { mailbox: lost.mailbox, entry });
            for claim in claims.iter().filter(|c| (c.mailbox, c.nonce) == (lost.mailbox, lost.nonce)) {
                self.must_burn(claim)?;
            }
        }
        let mut shown = None;
        if let Some((mailbox, nonce)) = place {
            let epoch = self.mailbox(mailbox)?.epoch;
            let owns = |claim: &&Claim| (claim.mailbox, claim.nonce, claim.epoch) == (mailbox, nonce, epoch);
            if let Some(claim) = claims.iter().filter(owns).max_by_key(|claim| claim.uid) {
                let was = row.place == place && row.shown == Some((epoch, claim.uid));
                let gone =
                    self.uid_row(mailbox, epoch, claim.uid)?.as_ref().is_some_and(|uid| uid.gone.is_some());
                // An observer's clients saw other UIDs vanish: of this one it only says what servers show.
                if gone && !was && self.context.rules.recorded && !self.context.observer {
                    self.must_burn(claim)?;
                } else {
                    shown = Some((epoch, claim.uid));
                }
            }
        }
        self.pass_over(place, shown, &claims)?;
        let next = EntryRow { place, shown, claims, ..row.clone() };
        self.show(entry, &row, next)
    }

    /// A claim that is known here and not shown lies below UIDNEXT from now on: it counts as vanished.
    fn pass_over(
        &mut self,
        place: Option<(MailboxId, Nonce)>,
        shown: Option<(u32, Uid)>,
        claims: &[Claim],
    ) -> Result<(), TableError> {
        for claim in claims {
            let is_shown =
                place == Some((claim.mailbox, claim.nonce)) && shown == Some((claim.epoch, claim.uid));
            if !is_shown {
                self.hide(claim.mailbox, claim.epoch, claim.uid)?;
            }
        }
        Ok(())
    }

    /// Notes since when a UID is known and not shown. A client may know it from another server, so it counts as changed:
    /// whoever asks what vanished since is told of it.
    pub(super) fn hide(&mut self, mailbox: MailboxId, epoch: u32, uid: Uid) -> Result<(), TableError> {
        let modseq = self.modseq;
        if let Some(row) = self.uid_row(mailbox, epoch, uid)?
            && row.gone.is_none()
        {
            row.gone = Some(modseq);
            self.mark_shared(mailbox, epoch, uid)?;
        }
        Ok(())
    }

    fn must_burn(&mut self, claim: &Claim) -> Result<(), TableError> {
        if self.context.rules.recorded {
            self.tables.put(Table::Pending, &uid_key(claim.mailbox, claim.epoch, claim.uid.value()), &[])?;
        }
        Ok(())
    }

    /// Writes what changed between two states of an entry into everything that lists it.
    fn show(&mut self, entry: EntryId, old: &EntryRow, mut new: EntryRow) -> Result<(), TableError> {
        let shown = |row: &EntryRow| row.place.zip(row.shown).map(|((m, _), (epoch, uid))| (m, epoch, uid));
        let (was, is) = (shown(old), shown(&new));
        if was != is {
            let modseq = self.modseq;
            if let Some((mailbox, epoch, uid)) = was {
                if let Some(row) = self.uid_row(mailbox, epoch, uid)? {
                    row.gone = Some(modseq);
                }
                if !planted(Mutation::Vanished) {
                    self.mark_shared(mailbox, epoch, uid)?;
                }
                self.events.push(Event::Vanished { mailbox, uid, entry });
            }
            if let Some((mailbox, epoch, uid)) = is {
                if let Some(row) = self.uid_row(mailbox, epoch, uid)? {
                    row.gone = None;
                }
                if !self.context.observer {
                    new.modseq = modseq;
                }
                self.mark_shared(mailbox, epoch, uid)?;
                self.events.push(Event::Shown { mailbox, uid, entry });
            }
        }
        let waits = |row: &EntryRow| {
            let (mailbox, nonce) = row.place.filter(|_| row.shown.is_none())?;
            Some(arrival_key(mailbox, row.internal_date, Placement { entry, nonce }))
        };
        let (waited, waits) = (waits(old), waits(&new));
        if waited != waits {
            if let Some(key) = waited {
                self.tables.remove(Table::Unclaimed, &key)?;
            }
            if let Some(key) = waits {
                self.tables.put(Table::Unclaimed, &key, &[])?;
            }
        }
        if old.place != new.place {
            self.count(old, new.place)?;
            if self.context.observer {
                let vanished = observer::moved(self.tables, entry, old, &new, self.modseq)?;
                if let Some((mailbox, uid)) = vanished {
                    self.mark_changed(mailbox, observer::SPACE, uid)?;
                }
            }
            new.modseq = self.modseq;
        }
        self.entries.insert(entry, Some(new));
        Ok(())
    }

    /// Keeps the counts of the mailboxes that an entry left and entered.
    fn count(&mut self, old: &EntryRow, new: Option<(MailboxId, Nonce)>) -> Result<(), TableError> {
        let unseen = u64::from(!old.keywords.contains(&Keyword::seen()));
        let marked = u64::from(old.keywords.contains(&Keyword::deleted()));
        let modseq = self.modseq;
        if let Some((mailbox, _)) = old.place {
            let row = self.mailbox(mailbox)?;
            row.messages = row.messages.saturating_sub(1);
            row.unseen = row.unseen.saturating_sub(unseen);
            row.marked = row.marked.saturating_sub(marked);
            row.bytes = row.bytes.saturating_sub(old.size);
            row.highest_modseq = modseq;
            self.names_changed |= self.mailbox(mailbox)?.messages == 0;
        }
        if let Some((mailbox, _)) = new {
            let row = self.mailbox(mailbox)?;
            row.messages += 1;
            row.unseen += unseen;
            row.marked += marked;
            row.bytes += old.size;
            row.highest_modseq = modseq;
            self.names_changed |= self.mailbox(mailbox)?.messages == 1;
        }
        Ok(())
    }

    /// The same for a UID that servers show; the clients of an observer do not see those.
    pub(super) fn mark_shared(&mut self, mailbox: MailboxId, epoch: u32, uid: Uid) -> Result<(), TableError> {
        if self.context.observer { Ok(()) } else { self.mark_changed(mailbox, epoch, uid) }
    }

    fn mark_changed(&mut self, mailbox: MailboxId, epoch: u32, uid: Uid) -> Result<(), TableError> {
        self.changed.entry((mailbox, epoch)).or_default().insert(uid);
        let modseq = self.modseq;
        self.mailbox(mailbox)?.highest_modseq = modseq;
        Ok(())
    }

    pub(super) fn entry(&mut self, id: EntryId) -> Result<&mut Option<EntryRow>, TableError> {
        use std::collections::btree_map::Entry::{Occupied, Vacant};
        match self.entries.entry(id) {
            Occupied(row) => Ok(row.into_mut()),
            Vacant(row) => {
                let bytes = self.tables.get(Table::Entries, id.as_bytes())?;
                Ok(row.insert(bytes.map(|bytes| EntryRow::decode(&bytes)).transpose()?))
            }
        }
    }

    pub(super) fn uid_row(
        &mut self,
        m: MailboxId,
        epoch: u32,
        uid: Uid,
    ) -> Result<&mut Option<UidRow>, TableError> {
        use std::collections::btree_map::Entry::{Occupied, Vacant};
        match self.uids.entry((m, epoch, uid)) {
            Occupied(row) => Ok(row.into_mut()),
            Vacant(row) => {
                let bytes = self.tables.get(Table::Uids, &uid_key(m, epoch, uid.value()))?;
                Ok(row.insert(bytes.map(|bytes| UidRow::decode(&bytes)).transpose()?))
            }
        }
    }

    pub(super) fn mailbox(&mut self, id: MailboxId) -> Result<&mut MailboxRow, TableError> {
        use std::collections::btree_map::Entry::{Occupied, Vacant};
        match self.mailboxes.entry(id) {
            Occupied(row) => Ok(row.into_mut()),
            Vacant(row) => {
                let bytes = self.tables.get(Table::Mailboxes, id.as_bytes())?;
                Ok(row.insert(bytes.map_or(Ok(MailboxRow::default()), |bytes| MailboxRow::decode(&bytes))?))
            }
        }
    }

    fn flush(&mut self) -> Result<(), TableError> {
        for (id, row) in &self.entries {
            if let Some(row) = row {
                self.tables.put(Table::Entries, id.as_bytes(), &row.encode())?;
            }
        }
        for ((mailbox, epoch, uid), row) in &self.uids {
            if let Some(row) = row {
                self.tables.put(Table::Uids, &uid_key(*mailbox, *epoch, uid.value()), &row.encode())?;
            }
        }
        let mut highest = UidValidity::MIN;
        for (id, row) in &self.mailboxes {
            row.put(self.tables, *id)?;
            highest = highest.max(uid_validity(self.context.account, *id, row));
        }
        validity::note_highest(self.tables, highest)?;
        for ((mailbox, epoch), uids) in &self.changed {
            let mut key = space_key(*mailbox, *epoch);
            key.extend(self.modseq.counter().to_be_bytes());
            let uids: Vec<u8> = uids.iter().flat_map(|uid| uid.value().to_be_bytes()).collect();
            self.tables.put(Table::ModSeqs, &key, &uids)?;
        }
        Ok(())
    }
}
