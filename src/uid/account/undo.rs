//! Undoing: new changes that put back what earlier ones took away.
//!
//! Nothing is unwritten. A message that comes back gets a new stay, and with it a new UID; a mailbox that comes back is a new
//! one of its name, with a higher UIDVALIDITY. An undo only brings back: what the changes added stays, and so does whatever
//! somebody changed again afterwards. So a second undo of the same changes finds nothing to do.

use std::collections::{BTreeMap, BTreeSet};

use super::messages::parts;
use super::{Account, AccountError, Written};
use crate::blob::BlobId;
use crate::mailbox::{
    Change, ChangeId, EntryId, Key, Keyword, MailboxField, MailboxId, MailboxName, Past, Place, Placement,
    SpecialUse, Touched, Value, Without, Writes,
};
use crate::uid::names::all_mailboxes;
use crate::uid::rows::{EntryRow, MailboxRow};
use crate::uid::settle::Unclaimed;
use crate::uid::tables::{TableError, Tables, TablesMut};

/// What an undo did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Expunged messages that are there again, by mailbox. They are not marked `\Deleted`, whatever they were before.
    pub brought_back: BTreeMap<MailboxName, u64>,
    /// Messages that are in their earlier mailbox again, by mailbox.
    pub moved_back: BTreeMap<MailboxName, u64>,
    /// Messages that have their earlier keywords again.
    pub keywords: u64,
    /// Deleted mailboxes that are there again.
    pub made: BTreeSet<MailboxName>,
    /// Mailboxes that have their earlier name again: from, to.
    pub renamed: BTreeSet<(MailboxName, MailboxName)>,
    /// Mailboxes that have their earlier subscription or special use again.
    pub attributes: BTreeSet<MailboxName>,
    /// Earlier names that another mailbox bears now, so that they were not given back.
    pub taken: BTreeSet<MailboxName>,
    /// Messages that were left alone: somebody changed again what would be undone, or a concurrent change did the same.
    pub overwritten: u64,
    /// Messages that the changes added or kept. They stay.
    pub added: u64,
    /// Expunged messages that were left alone, because their bodies are not here.
    pub without_body: Vec<EntryId>,
}

/// Some of an undo, as much as fits one commit.
#[derive(Debug, Default)]
pub struct UndoPart {
    mailboxes: Vec<Restored>,
    messages: Vec<Returned>,
    done: Undone,
}

/// A mailbox as it is to be again.
#[derive(Debug)]
enum Restored {
    Made { name: MailboxName, special_use: Option<SpecialUse>, subscribed: bool },
    Renamed { id: MailboxId, name: MailboxName },
    Subscribed { name: MailboxName, subscribed: bool },
    SpecialUse { id: MailboxId, special_use: Option<SpecialUse> },
}

/// A message as it is to be again.
#[derive(Debug)]
struct Returned {
    entry: EntryId,
    row: EntryRow,
    to: Option<Target>,
    keywords: Vec<(Keyword, bool)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    There(MailboxId),
    /// The mailbox is gone, and another one takes its place.
    Again(MailboxName),
}

impl Undone {
    /// Adds what a later part did.
    pub fn add(&mut self, other: Undone) {
        for (all, more) in
            [(&mut self.brought_back, other.brought_back), (&mut self.moved_back, other.moved_back)]
        {
            more.into_iter().for_each(|(name, count)| *all.entry(name).or_default() += count);
        }
        self.keywords += other.keywords;
        self.made.extend(other.made);
        self.renamed.extend(other.renamed);
        self.attributes.extend(other.attributes);
        self.taken.extend(other.taken);
        self.overwritten += other.overwritten;
        self.added += other.added;
        self.without_body.extend(other.without_body);
    }

    /// Whether nothing was, or would be, changed.
    pub fn is_nothing(&self) -> bool {
        self.brought_back.is_empty()
            && self.moved_back.is_empty()
            && self.keywords == 0
            && self.made.is_empty()
            && self.renamed.is_empty()
            && self.attributes.is_empty()
    }
}

impl UndoPart {
    /// What it does.
    pub fn done(&self) -> &Undone {
        &self.done
    }
}

impl Account {
    /// What is to be written for the mailboxes that the undone changes deleted, renamed or gave other attributes.
    pub fn plan_undo_mailboxes<F: FnMut(&ChangeId) -> Option<Change>>(
        &self,
        tables: &impl Tables,
        past: &mut Past<'_, F>,
        touched: &Touched,
        undone: &BTreeSet<ChangeId>,
    ) -> Result<UndoPart, AccountError> {
        let rows = all_mailboxes(tables)?;
        let mut part = UndoPart::default();
        for id in touched.mailboxes.iter().filter(|id| **id != MailboxId::inbox()) {
            let Some(row) = rows.get(id) else { continue };
            let Some(name) = row.name.clone() else { continue };
            let mut field = |field| past.writes(&Key::Mailbox(*id, field));
            let by_them = |writes: &Writes| {
                writes.all().iter().filter(|write| undone.contains(&write.stamp.change)).count()
            };
            if by_them(&field(MailboxField::Incarnation)) > 0 {
                continue; // They made it; it stays as they made it.
            }
            if row.deleted {
                let deleted = field(MailboxField::Deleted);
                let lives_again =
                    rows.values().any(|one| one.name == row.name && one.incarnation > row.incarnation);
                let alone = by_them(&deleted) == deleted.all().len() && !deleted.all().is_empty();
                if alone && !lives_again && self.view(tables).find(&name)?.is_none() {
                    let MailboxRow { special_use, subscribed, .. } = *row;
                    part.done.made.insert(name.clone());
                    part.mailboxes.push(Restored::Made { name, special_use, subscribed });
                }
                continue;
            }
            let mut earlier = |of| match field(of) {
                writes if by_them(&writes) == 0 => None,
                writes => match writes.without(|stamp| undone.contains(&stamp.change)) {
                    Without::Values(values) => Some(values),
                    Without::Overwritten => None,
                },
            };
            self.plan_fields(tables, *id, row, &mut earlier, &mut part)?;
        }
        Ok(part)
    }

    fn plan_fields(
        &self,
        tables: &impl Tables,
        id: MailboxId,
        row: &MailboxRow,
        earlier: &mut impl FnMut(MailboxField) -> Option<Vec<Value>>,
        part: &mut UndoPart,
    ) -> Result<(), AccountError> {
        let Some(now) = row.display.clone() else { return Ok(()) };
        let text = |values: &[Value]| match values.last() {
            Some(Value::Text(text)) => text.clone(),
            _ => String::new(),
        };
        if let Some(values) = earlier(MailboxField::Subscribed) {
            let subscribed = values.contains(&Value::Set(true));
            if subscribed != row.subscribed {
                part.done.attributes.insert(now.clone());
                part.mailboxes.push(Restored::Subscribed { name: now.clone(), subscribed });
            }
        }
        if let Some(values) = earlier(MailboxField::SpecialUse) {
            let special_use = SpecialUse::from_name(&text(&values));
            if special_use != row.special_use {
                part.done.attributes.insert(now.clone());
                part.mailboxes.push(Restored::SpecialUse { id, special_use });
            }
        }
        let name = earlier(MailboxField::Name).and_then(|values| text(&values).parse::<MailboxName>().ok());
        if let Some(name) = name.filter(|name| Some(name) != row.name.as_ref()) {
            match self.view(tables).find(&name)? {
                Some(_) => _ = part.done.taken.insert(name),
                None => {
                    part.done.renamed.insert((now, name.clone()));
                    part.mailboxes.push(Restored::Renamed { id, name });
                }
            }
        }
        Ok(())
    }

    /// What is to be written for some of the messages that the undone changes moved, expunged or flagged. `is_here` tells
    /// whether a body is here: a message without it would come back as an empty shell.
    pub fn plan_undo_messages<F: FnMut(&ChangeId) -> Option<Change>>(
        &self,
        tables: &impl Tables,
        past: &mut Past<'_, F>,
        messages: &BTreeMap<EntryId, BTreeSet<Keyword>>,
        undone: &BTreeSet<ChangeId>,
        mut is_here: impl FnMut(BlobId) -> Result<bool, TableError>,
    ) -> Result<UndoPart, AccountError> {
        let rows = all_mailboxes(tables)?;
        let mut part = UndoPart::default();
        for (entry, touched) in messages {
            let Some(row) = self.view(tables).entry_row(*entry)? else { continue };
            let before = |past: &mut Past<'_, F>, key| {
                let writes = past.writes(&key);
                let theirs = writes.all().iter().any(|write| undone.contains(&write.stamp.change));
                theirs.then(|| writes.without(|stamp| undone.contains(&stamp.change)))
            };
            let mut overwritten = false;
            let mut to = None;
            match before(past, Key::Place(*entry)) {
                None => {}
                Some(Without::Overwritten) => overwritten = true,
                Some(Without::Values(values)) => match (place_of(&values, row.home), row.place) {
                    (Some(mailbox), now) if now.is_none_or(|(now, _)| now != mailbox) => to = Some(mailbox),
                    (Some(_), _) => {}
                    (None, None) => overwritten = true, // Somebody else expunged it too.
                    (None, Some(_)) => part.done.added += 1,
                },
            }
            let returns = row.place.is_none() && to.is_some();
            if returns && !is_here(row.blob)? {
                part.done.without_body.push(*entry);
                continue;
            }
            let mut keywords = Vec::new();
            for keyword in touched.iter().filter(|_| row.place.is_some() || returns) {
                match before(past, Key::Keyword(*entry, keyword.clone())) {
                    None => {}
                    Some(Without::Overwritten) => overwritten = true,
                    Some(Without::Values(values)) => {
                        let set = values.iter().map(|value| *value == Value::Set(true));
                        let set = keyword.winner(set).unwrap_or_else(|| self.came_with(&row, keyword));
                        if set != row.keywords.contains(keyword) {
                            keywords.push((keyword.clone(), set));
                        }
                    }
                }
            }
            if returns {
                // Else the next EXPUNGE of any client would take it away again.
                keywords.retain(|(keyword, _)| !keyword.is_deleted());
                let marked = row.keywords.contains(&Keyword::deleted());
                keywords.extend(marked.then(|| (Keyword::deleted(), false)));
            }
            part.done.overwritten += u64::from(overwritten);
            let to = to.map(|mailbox| self.target(tables, &rows, mailbox)).transpose()?;
            part.note(&rows, &row, to.as_ref(), !keywords.is_empty());
            if to.is_some() || !keywords.is_empty() {
                part.messages.push(Returned { entry: *entry, row, to, keywords });
            }
        }
        Ok(part)
    }

    /// Whether a message had a keyword when it arrived.
    fn came_with(&self, row: &EntryRow, keyword: &Keyword) -> bool {
        let pack = self.doc.pack(row.pack);
        let message = pack.as_ref().and_then(|pack| pack.messages.get(row.index as usize));
        message.is_some_and(|message| message.keywords.contains(keyword))
    }

    /// A deleted mailbox cannot be shown as it was: whoever emptied it would make it vanish. Its name's bearer stands for it.
    fn target(
        &self,
        tables: &impl Tables,
        rows: &BTreeMap<MailboxId, MailboxRow>,
        mailbox: MailboxId,
    ) -> Result<Target, AccountError> {
        match rows.get(&mailbox).filter(|row| row.deleted).and_then(|row| row.name.clone()) {
            None => Ok(Target::There(mailbox)),
            Some(name) => match self.view(tables).find(&name)? {
                Some(bearer) => Ok(Target::There(bearer)),
                None => Ok(Target::Again(name)),
            },
        }
    }

    /// Writes a part that was planned on this very state of the index.
    pub fn undo(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        part: &UndoPart,
    ) -> Result<Written, AccountError> {
        let mut written = Written::default();
        for mailbox in &part.mailboxes {
            written.append(self.restore(tables, time, mailbox)?);
        }
        let mut groups: BTreeMap<Option<&Target>, Vec<&Returned>> = BTreeMap::new();
        for message in &part.messages {
            groups.entry(message.to.as_ref()).or_default().push(message);
        }
        for (target, mut messages) in groups {
            // UIDs follow this order.
            messages.sort_by_key(|message| (message.row.internal_date, message.entry));
            let target = match target {
                None => None,
                Some(Target::There(mailbox)) => Some(*mailbox),
                Some(Target::Again(name)) => Some(match self.view(tables).find(name)? {
                    Some(mailbox) => mailbox,
                    None => {
                        let (mailbox, made) = self.create_mailbox(tables, time, name, None)?;
                        written.append(made);
                        mailbox
                    }
                }),
            };
            for few in parts(&messages, Account::MAX_BATCH, Change::MAX_OPS * 32, |one| one.bytes()) {
                written.append(self.put_back(tables, time, target, few)?);
            }
        }
        Ok(written)
    }

    fn put_back(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        target: Option<MailboxId>,
        messages: &[&Returned],
    ) -> Result<Written, AccountError> {
        let space = target.map(|mailbox| self.space(tables, mailbox)).transpose()?;
        let renewed: Vec<Option<Place>> = messages
            .iter()
            .map(|message| {
                let unmarked = message.keywords.iter().any(|(keyword, set)| keyword.is_deleted() && !set);
                (unmarked && target.is_none()).then(|| self.renewed(message.entry, &message.row)).flatten()
            })
            .collect();
        self.write(tables, time, |writer| {
            let mut waiting = Vec::new();
            for (message, renewed) in messages.iter().zip(renewed) {
                for (keyword, set) in &message.keywords {
                    writer.keyword(message.entry, keyword, *set);
                }
                if renewed.is_some() {
                    writer.place(message.entry, renewed);
                }
                let Some(mailbox) = target else { continue };
                let nonce = writer.nonce();
                writer.place(message.entry, Some(Place { mailbox, nonce, renewal: 0 }));
                let placement = Placement { entry: message.entry, nonce };
                waiting.push(Unclaimed { placement, pack: message.row.pack, index: message.row.index });
            }
            if let Some(space) = &space {
                space.claim(writer, &waiting);
            }
        })
    }

    fn restore(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        mailbox: &Restored,
    ) -> Result<Written, AccountError> {
        match mailbox {
            Restored::Made { name, special_use, subscribed } => {
                let (_, mut written) = self.create_mailbox(tables, time, name, *special_use)?;
                if *subscribed {
                    written.append(self.subscribe(tables, time, name, true)?);
                }
                Ok(written)
            }
            Restored::Subscribed { name, subscribed } => self.subscribe(tables, time, name, *subscribed),
            Restored::SpecialUse { id, special_use } => {
                self.write(tables, time, |writer| writer.special_use(*id, *special_use))
            }
            Restored::Renamed { id, name } => {
                let rows = all_mailboxes(tables)?;
                let row = rows.get(id).cloned().unwrap_or_default();
                let epoch = self.epoch_after_rename(tables, &rows, *id, &row, name)?;
                self.write(tables, time, |writer| {
                    writer.rename_mailbox(*id, name);
                    if epoch > row.epoch {
                        writer.epoch(*id, epoch);
                    }
                })
            }
        }
    }
}

impl UndoPart {
    fn note(
        &mut self,
        rows: &BTreeMap<MailboxId, MailboxRow>,
        row: &EntryRow,
        to: Option<&Target>,
        keywords: bool,
    ) {
        self.done.keywords += u64::from(keywords && to.is_none());
        let name = match to {
            None => return,
            Some(Target::Again(name)) => {
                self.done.made.insert(name.clone());
                name.clone()
            }
            // Nobody made it: only a broken peer puts messages there.
            Some(Target::There(id)) => {
                match rows.get(id).and_then(|row| row.display.clone().or(row.name.clone())) {
                    Some(name) => name,
                    None => return,
                }
            }
        };
        let all = if row.place.is_none() { &mut self.done.brought_back } else { &mut self.done.moved_back };
        *all.entry(name).or_default() += 1;
    }
}

impl Returned {
    /// What it adds to a change at most: a place, a claim and its keywords.
    fn bytes(&self) -> usize {
        let keywords = self.keywords.iter().map(|(keyword, _)| keyword.as_str().len() + 40);
        140 + keywords.sum::<usize>()
    }
}

/// Where concurrent values leave a message; its pack's mailbox, if there is none.
fn place_of(values: &[Value], home: MailboxId) -> Option<MailboxId> {
    if values.is_empty() {
        return Some(home);
    }
    let places = values.iter().filter_map(|value| match value {
        Value::Place(place) => *place,
        _ => None,
    });
    Some(Place::winner(&places.collect::<Vec<_>>())?.mailbox)
}
