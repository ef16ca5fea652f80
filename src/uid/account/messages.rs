//! What users do to messages.
//!
//! What does not fit one change is written as several; the caller commits them together.

use std::collections::BTreeSet;

use super::{Account, AccountError, Written, limit};
use crate::mailbox::{
    Change, EntryId, Keyword, MailboxId, Message, ModSeq, Nonce, Origin, Pack, PackId, Place, Placement,
    Places, Uid, UidRecord, Writer,
};
use crate::mutation::{Mutation, planted};
use crate::uid::claims::top;
use crate::uid::lane::{Block, Lane};
use crate::uid::rows::{EntryRow, MailboxRow};
use crate::uid::settle::{HIGHEST_UID, Unclaimed, claim_above};
use crate::uid::tables::{Table, Tables, TablesMut};
use crate::uid::view::{Seen, Shown};

/// Bytes of packs and claims in one change, by [`weight`]: a quarter of the largest change is left for what Automerge adds.
pub(super) const CHANGE_BYTES: usize = Change::MAX_SIZE / 4 * 3;

/// What becomes of the keywords of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeywordChange {
    /// Some are set and some are cleared; the others stay.
    Edit {
        /// To be set.
        set: BTreeSet<Keyword>,
        /// To be cleared.
        clear: BTreeSet<Keyword>,
    },
    /// These and no others (`STORE FLAGS`, RFC 9051, section 6.4.6).
    Exactly(BTreeSet<Keyword>),
}

impl Account {
    /// The messages that a caller means by UIDs it has seen, in its order. UIDs that show nothing any more are passed over.
    /// Fails if the mailbox has another UIDVALIDITY now.
    pub fn resolve(
        &self,
        tables: &impl Tables,
        seen: Seen,
        uids: &[Uid],
    ) -> Result<Vec<Shown>, AccountError> {
        let view = self.view(tables);
        let now = view.mailbox(seen.mailbox)?.ok_or(AccountError::MailboxGone { mailbox: seen.mailbox })?;
        if now.uid_validity != seen.uid_validity && !planted(Mutation::StaleUids) {
            let (name, seen, now) = (now.name, seen.uid_validity, now.uid_validity);
            return Err(AccountError::UidValidity { name, seen, now });
        }
        Ok(view.messages_of(seen.mailbox, uids)?)
    }

    /// Adds messages to a mailbox under ids that nobody else can have: a delivery, an APPEND.
    pub fn append(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        mailbox: MailboxId,
        messages: Vec<Message>,
    ) -> Result<(Vec<EntryId>, Written), AccountError> {
        limit("messages", messages.len(), Account::MAX_BATCH)?;
        limit_keywords(&messages)?;
        let (mut entries, mut written) = (Vec::with_capacity(messages.len()), Written::default());
        for part in parts(&messages, Pack::MAX_MESSAGES, CHANGE_BYTES, weight) {
            let space = self.space(tables, mailbox)?;
            written.append(self.write(tables, time, |writer| {
                entries.extend(space.put_arrived(writer, part.to_vec()));
            })?);
        }
        Ok((entries, written))
    }

    /// Adds a message to a mailbox and expunges another one, wherever that is, in one change. One that is expunged already
    /// stays so.
    pub fn replace(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        old: EntryId,
        mailbox: MailboxId,
        message: Message,
    ) -> Result<(Vec<EntryId>, Written), AccountError> {
        let message = vec![message];
        limit_keywords(&message)?;
        let visible = self.visible(tables, &[old])?;
        let space = self.space(tables, mailbox)?;
        let mut new = Vec::new();
        let written = self.write(tables, time, |writer| {
            new = space.put_arrived(writer, message);
            visible.iter().for_each(|(entry, _)| writer.place(*entry, None));
        })?;
        Ok((new, written))
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
        change: &KeywordChange,
    ) -> Result<Written, AccountError> {
        limit("messages", entries.len(), Account::MAX_BATCH)?;
        let visible = self.visible(tables, entries)?;
        let edit =
            |(entry, row): &(EntryId, EntryRow)| self.keyword_edit(tables, *entry, &row.keywords, change);
        let edits: Vec<Edit> = visible.iter().map(edit).collect::<Result<_, _>>()?;
        self.write_edits(tables, time, &edits, |_, _| {})
    }

    /// The same for messages that were just read from these tables. Gives them the keywords and mod-sequences that they have
    /// from then on.
    pub fn mark(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        messages: &mut [Shown],
        change: &KeywordChange,
    ) -> Result<Written, AccountError> {
        limit("messages", messages.len(), Account::MAX_BATCH)?;
        let edit = |message: &Shown| self.keyword_edit(tables, message.entry, &message.keywords, change);
        let edits: Vec<Edit> = messages.iter().map(edit).collect::<Result<_, _>>()?;
        self.write_edits(tables, time, &edits, |at, modseq| {
            for (keyword, set) in &edits[at].keywords {
                match set {
                    true => messages[at].keywords.insert(keyword.clone()),
                    false => messages[at].keywords.remove(keyword),
                };
            }
            messages[at].modseq = modseq;
        })
    }

    /// Tells of each edit that changes something its place in the list and its mod-sequence.
    fn write_edits(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        edits: &[Edit],
        mut done: impl FnMut(usize, ModSeq),
    ) -> Result<Written, AccountError> {
        let (mut all, mut at) = (Written::default(), 0);
        // An operation has more than 32 bytes, so that the bytes bound the operations too.
        for part in parts(edits, Account::MAX_BATCH, Change::MAX_OPS * 32, Edit::bytes) {
            let written = self.write(tables, time, |writer| Edit::write_all(part, writer))?;
            if !written.is_empty() {
                let modseq = ModSeq::new(Account::counter(tables)?, self.era);
                let changed = (at..).zip(part).filter(|(_, edit)| !edit.keywords.is_empty());
                changed.for_each(|(at, _)| done(at, modseq));
            }
            at += part.len();
            all.append(written);
        }
        Ok(all)
    }

    pub(super) fn keyword_edit(
        &self,
        tables: &impl Tables,
        entry: EntryId,
        keywords: &BTreeSet<Keyword>,
        change: &KeywordChange,
    ) -> Result<Edit, AccountError> {
        let (set, clear): (Vec<_>, Vec<_>) = match change {
            KeywordChange::Edit { set, clear } => {
                (set.difference(keywords).collect(), clear.intersection(keywords).collect())
            }
            KeywordChange::Exactly(all) => {
                (all.difference(keywords).collect(), keywords.difference(all).collect())
            }
        };
        let renewal = match clear.iter().any(|keyword| keyword.is_deleted()) {
            true => self.view(tables).entry_row(entry)?.and_then(|row| self.renewed(entry, &row)),
            false => None,
        };
        let set = set.into_iter().map(|keyword| (keyword.clone(), true));
        let clear = clear.into_iter().map(|keyword| (keyword.clone(), false));
        Ok(Edit { entry, keywords: set.chain(clear).collect(), renewal })
    }

    pub(super) fn renewed(&self, entry: EntryId, row: &EntryRow) -> Option<Place> {
        let (mailbox, nonce) = row.place?;
        let renewal = match self.doc.places(entry) {
            Places::Written { now: Some(place), .. } => place.renewal,
            _ => 0,
        };
        Some(Place { mailbox, nonce, renewal: renewal.saturating_add(1) })
    }

    /// Where this replica may claim UIDs of a mailbox at once.
    pub(super) fn space(&self, tables: &impl Tables, mailbox: MailboxId) -> Result<Space, AccountError> {
        let row = tables.get(Table::Mailboxes, mailbox.as_bytes())?;
        let row = row.map(|bytes| MailboxRow::decode(&bytes)).transpose()?.unwrap_or_default();
        // In an epoch that must end nothing may be claimed: a replica that was restored may have given the UID before.
        let lane = self.lane().filter(|_| row.raise_to.is_none());
        let base = top(tables, mailbox, row.epoch)?;
        Ok(Space { mailbox, epoch: row.epoch, base, lane, block: self.block })
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
}

/// What is to be written for one message.
pub(super) struct Edit {
    entry: EntryId,
    keywords: Vec<(Keyword, bool)>,
    renewal: Option<Place>,
}

impl Edit {
    /// A key is an entry's 22 letters and the keyword; a renewed place is about 60 bytes more.
    pub(super) fn bytes(&self) -> usize {
        let keywords = self.keywords.iter().map(|(keyword, _)| keyword.as_str().len() + 40);
        keywords.sum::<usize>() + 80 * usize::from(self.renewal.is_some())
    }

    /// For a message that goes elsewhere at the same time: that renews its place already.
    pub(super) fn write_keywords(&self, writer: &mut Writer) {
        for (keyword, set) in &self.keywords {
            writer.keyword(self.entry, keyword, *set);
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        Edit::write_all(std::slice::from_ref(self), writer);
    }

    fn write_all(edits: &[Edit], writer: &mut Writer) {
        writer.keywords(
            edits
                .iter()
                .flat_map(|edit| edit.keywords.iter().map(move |(keyword, set)| (edit.entry, keyword, *set))),
        );
        for edit in edits.iter().filter(|edit| edit.renewal.is_some()) {
            writer.place(edit.entry, edit.renewal);
        }
    }
}

/// The UIDs of a mailbox above which a change may claim.
pub(super) struct Space {
    mailbox: MailboxId,
    pub(super) epoch: u32,
    pub(super) base: u32,
    /// Nothing if the placements must wait for the pass.
    lane: Option<Lane>,
    block: Block,
}

impl Space {
    /// Writes messages that nobody else can have, with their claims.
    fn put_arrived(&self, writer: &mut Writer, messages: Vec<Message>) -> Vec<EntryId> {
        let pack = Pack { mailbox: self.mailbox, origin: Origin::Arrived { salt: writer.salt() }, messages };
        let id = writer.pack(&pack);
        let new: Vec<EntryId> = (0..pack.messages.len()).map(|index| pack.entry_id(id, index)).collect();
        self.claim(writer, &initial(id, &new));
        new
    }

    /// Claims UIDs for placements that the same change makes. Past [`HIGHEST_UID`] they wait for the pass, which raises
    /// the epoch first.
    pub(super) fn claim(&self, writer: &mut Writer, waiting: &[Unclaimed]) {
        let run = |lane| claim_above(self.mailbox, self.epoch, self.base, waiting, lane, self.block);
        if let Some(run) = self.lane.and_then(run).filter(|run| run.high() <= HIGHEST_UID) {
            writer.uid_record(&UidRecord::Run(run));
        }
    }
}

fn limit_keywords(messages: &[Message]) -> Result<(), AccountError> {
    let most = messages.iter().map(|message| message.keywords.len()).max().unwrap_or(0);
    limit("keywords of one message", most, Pack::MAX_KEYWORDS)
}

/// What a message adds to a change at most: hash, date, size and claim, and its keywords, which it may share with others.
pub(super) fn weight(message: &Message) -> usize {
    72 + message.keywords.iter().map(|keyword| keyword.as_str().len() + 2).sum::<usize>()
}

/// Cuts a list into parts of at most `count` items and `bytes` by their weight, but of one item at least.
pub(super) fn parts<T>(items: &[T], count: usize, bytes: usize, weigh: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let (mut parts, mut rest) = (Vec::new(), items);
    while !rest.is_empty() {
        let mut sum = 0;
        let fits = |item: &&T| {
            sum += weigh(item);
            sum <= bytes
        };
        let end = rest.iter().take(count).take_while(fits).count();
        let part;
        (part, rest) = rest.split_at(end.max(1));
        parts.push(part);
    }
    parts
}

pub(super) fn initial(pack: PackId, entries: &[EntryId]) -> Vec<Unclaimed> {
    let placed = |(index, entry): (usize, &EntryId)| Unclaimed {
        placement: Placement { entry: *entry, nonce: Nonce::INITIAL },
        pack,
        index: index as u32,
    };
    entries.iter().enumerate().map(placed).collect()
}
