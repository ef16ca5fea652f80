//! UIDs that a Dovecot beside this server has shown: they become claims, whatever else is known of its folder.

use super::messages::{CHANGE_BYTES, parts, weight};
use super::{Account, AccountError, Written, limit};
use crate::mailbox::{
    EntryId, MailboxId, Message, Nonce, Origin, Pack, Place, Placement, Run, Uid, UidRecord, UidValidity,
    Writer,
};
use crate::uid::rows::MailboxRow;
use crate::uid::settle::{HIGHEST_UID, Unclaimed, segments};
use crate::uid::tables::{Table, Tables, TablesMut};
use crate::uid::validity::{epoch_above, uid_validity};

/// UIDs of one mailbox that another program gave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The mailbox.
    pub mailbox: MailboxId,
    /// Its UIDVALIDITY there. If it has another one here, the UIDs mean nothing.
    pub uid_validity: UidValidity,
    /// The last UID that this replica told the program: what it gave out since, it gave out without knowing of any other
    /// above.
    pub base: u32,
    /// The UID before its UIDNEXT.
    pub floor: u32,
    /// What has the UIDs, by UID, ascending. Those it held on to above the base must be among them.
    pub messages: Vec<Assigned>,
}

/// A UID and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The UID.
    pub uid: Uid,
    /// The message.
    pub arrival: Arrival,
}

/// How a message came to be in the mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is new to the account.
    New(Message),
    /// It was moved there from another mailbox. If it is not there any more, nothing is done.
    Moved {
        /// The message.
        entry: EntryId,
        /// Where the caller saw it.
        seen_in: MailboxId,
    },
    /// It is there already, perhaps with another UID, which ends.
    Here(EntryId),
}

/// A mailbox's numbering as it is here.
struct Numbering {
    epoch: u32,
    /// Whether UIDs may be claimed in it now.
    open: bool,
}

impl Account {
    /// Adds and moves messages, and claims for them and for others the UIDs that another program gave them, in one change; in
    /// several, committed together, if one would pass its limits. Where they cannot be claimed, what needs a UID waits for the
    /// pass. Gives the entry of each message; nothing for one that was not where it was seen.
    pub fn adopt(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        assignment: &Assignment,
    ) -> Result<(Vec<Option<EntryId>>, Written), AccountError> {
        limit("messages", assignment.messages.len(), Run::MAX_UIDS as usize)?;
        let weigh = |assigned: &Assigned| match &assigned.arrival {
            Arrival::New(message) => weight(message),
            Arrival::Moved { .. } | Arrival::Here(_) => 160,
        };
        let mut parts = parts(&assignment.messages, Account::MAX_BATCH, CHANGE_BYTES, weigh);
        if parts.is_empty() {
            // There is still a floor to be set.
            parts.push(&[]);
        }
        let (mut entries, mut written, mut base) = (Vec::new(), Written::default(), assignment.base);
        let last = parts.len() - 1;
        for (number, part) in parts.into_iter().enumerate() {
            let floor = if number == last { assignment.floor } else { 0 };
            // Each run knows the one before.
            written.append(self.adopt_part(tables, time, assignment, part, (base, floor), &mut entries)?);
            base = part.last().map_or(base, |assigned| assigned.uid.value());
        }
        Ok((entries, written))
    }

    fn adopt_part(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        assignment: &Assignment,
        part: &[Assigned],
        (base, floor): (u32, u32),
        entries: &mut Vec<Option<EntryId>>,
    ) -> Result<Written, AccountError> {
        let mailbox = assignment.mailbox;
        let numbering = self.numbering(tables, mailbox, assignment.uid_validity)?;
        let (mut here, mut burned) = (Vec::with_capacity(part.len()), Vec::new());
        for assigned in part {
            let (entry, seen_in) = match assigned.arrival {
                Arrival::New(_) => {
                    here.push(None);
                    continue;
                }
                Arrival::Moved { entry, seen_in } => (entry, seen_in),
                Arrival::Here(entry) => (entry, mailbox),
            };
            let row = self.view(tables).entry_row(entry)?;
            let row = row.filter(|row| row.place.is_some_and(|(at, _)| at == seen_in));
            if let (Arrival::Here(_), Some(row)) = (&assigned.arrival, &row) {
                // Two UIDs would be good for it; the other one must never come back.
                let others = row.claims.iter().filter(|claim| {
                    Some((claim.mailbox, claim.nonce)) == row.place
                        && claim.epoch == numbering.epoch
                        && claim.uid != assigned.uid
                });
                burned.extend(others.map(|claim| claim.uid));
            }
            here.push(row);
        }
        burned.sort_unstable();
        burned.dedup();
        self.write(tables, time, |writer| {
            let new = write_new(writer, mailbox, part);
            let mut new = new.into_iter();
            let mut claims: Vec<(Uid, Unclaimed)> = Vec::with_capacity(part.len());
            for (assigned, row) in part.iter().zip(&here) {
                let placed = match (&assigned.arrival, row) {
                    (Arrival::New(_), _) => new.next(),
                    (_, None) => None,
                    (Arrival::Moved { entry, .. }, Some(row)) => {
                        let nonce = writer.nonce();
                        writer.place(*entry, Some(Place { mailbox, nonce, renewal: 0 }));
                        let placement = Placement { entry: *entry, nonce };
                        Some(Unclaimed { placement, pack: row.pack, index: row.index })
                    }
                    (Arrival::Here(entry), Some(row)) => row.place.map(|(_, nonce)| Unclaimed {
                        placement: Placement { entry: *entry, nonce },
                        pack: row.pack,
                        index: row.index,
                    }),
                };
                entries.push(placed.map(|placed| placed.placement.entry));
                claims.extend(placed.map(|placed| (assigned.uid, placed)));
            }
            if !numbering.open {
                return;
            }
            claims.retain(|(uid, _)| uid.value() > base);
            let segments = segments(claims.into_iter());
            let floor = if floor > base { floor } else { 0 };
            let run = Run { mailbox, epoch: numbering.epoch, base, floor, segments };
            if run.high() > 0 && run.high() <= HIGHEST_UID {
                writer.uid_record(&UidRecord::Run(run));
                if !burned.is_empty() {
                    writer.uid_record(&UidRecord::Burn { mailbox, epoch: numbering.epoch, uids: burned });
                }
            }
        })
    }

    fn numbering(
        &self,
        tables: &impl Tables,
        mailbox: MailboxId,
        validity: UidValidity,
    ) -> Result<Numbering, AccountError> {
        let row = tables.get(Table::Mailboxes, mailbox.as_bytes())?;
        let row = row.map(|bytes| MailboxRow::decode(&bytes)).transpose()?.unwrap_or_default();
        let same = uid_validity(self.id, mailbox, &row) == validity;
        Ok(Numbering { epoch: row.epoch, open: same && row.raise_to.is_none() && self.lane().is_some() })
    }

    /// Gives a mailbox a UIDVALIDITY above the one that another program has shown for it, unless it has.
    pub fn raise_uid_validity(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        mailbox: MailboxId,
        above: UidValidity,
    ) -> Result<Written, AccountError> {
        let row = tables.get(Table::Mailboxes, mailbox.as_bytes())?;
        let row = row.map(|bytes| MailboxRow::decode(&bytes)).transpose()?.unwrap_or_default();
        if uid_validity(self.id, mailbox, &row) > above {
            return Ok(Written::default());
        }
        let name = self.view(tables).mailbox(mailbox)?.map(|shown| shown.name);
        let name = name.ok_or(AccountError::MailboxGone { mailbox })?;
        let epoch = epoch_above(self.id, mailbox, &row, above);
        let epoch = epoch.ok_or(AccountError::ValidityExhausted { name })?;
        self.write(tables, time, |writer| writer.epoch(mailbox, epoch))
    }
}

/// Writes the messages that are new, in the order of their UIDs.
fn write_new(writer: &mut Writer, mailbox: MailboxId, part: &[Assigned]) -> Vec<Unclaimed> {
    let new: Vec<&Message> = part
        .iter()
        .filter_map(|assigned| match &assigned.arrival {
            Arrival::New(message) => Some(message),
            Arrival::Moved { .. } | Arrival::Here(_) => None,
        })
        .collect();
    let mut placed = Vec::with_capacity(new.len());
    for messages in new.chunks(Pack::MAX_MESSAGES) {
        let messages: Vec<Message> = messages.iter().map(|message| (*message).clone()).collect();
        let pack = Pack { mailbox, origin: Origin::Arrived { salt: writer.salt() }, messages };
        let id = writer.pack(&pack);
        for index in 0..pack.messages.len() {
            let placement = Placement { entry: pack.entry_id(id, index), nonce: Nonce::INITIAL };
            placed.push(Unclaimed { placement, pack: id, index: index as u32 });
        }
    }
    placed
}
