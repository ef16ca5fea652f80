//! What a server must write before it shows a mailbox: burns, epochs, marked names, and claims for what has none.

use std::collections::BTreeSet;

use super::claims::top;
use super::lane::{Block, Lane};
use super::rows::{EntryRow, MailboxRow, UidRow, after, key_placement, key_uid};
use super::tables::{Table, TableError, Tables};
use crate::mailbox::{
    EntryId, MailboxId, MailboxName, Nonce, PackId, Placement, Run, Segment, Source, Uid, UidRecord, Writer,
};
use crate::mutation::{Mutation, planted};

/// UIDs above this make the epoch rise, long before the numbers end (rule 6).
pub(crate) const HIGHEST_UID: u32 = 1 << 31;

fn highest_uid() -> u32 {
    if planted(Mutation::Calm) { 1000 } else { HIGHEST_UID }
}

/// What is to be written, as data; empty if the mailboxes can be shown as they are.
#[derive(Debug, Default)]
pub(crate) struct Settlement {
    records: Vec<UidRecord>,
    epochs: Vec<(MailboxId, u32)>,
    names: Vec<(MailboxId, MailboxName)>,
}

impl Settlement {
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.epochs.is_empty() && self.names.is_empty()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        for record in &self.records {
            writer.uid_record(record);
        }
        for (mailbox, epoch) in &self.epochs {
            writer.epoch(*mailbox, *epoch);
        }
        for (mailbox, name) in &self.names {
            writer.rename_mailbox(*mailbox, name);
        }
    }
}

/// A placement to be claimed, with where its pack has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unclaimed {
    pub(crate) placement: Placement,
    pub(crate) pack: PackId,
    pub(crate) index: u32,
}

/// Plans what must be written before `mailbox` is shown; nothing names one: all of them. Run it again after writing, until
/// it is empty: at most [`Run::MAX_UIDS`] claims a mailbox are planned at a time.
pub(crate) fn plan(
    tables: &impl Tables,
    lane: Lane,
    block: Block,
    mailbox: Option<MailboxId>,
) -> Result<Settlement, TableError> {
    let mut settlement = Settlement::default();
    for id in waiting_mailboxes(tables)? {
        let Some(row) = tables.get(Table::Mailboxes, id.as_bytes())? else { continue };
        let row = MailboxRow::decode(&row)?;
        if let Some(epoch) = row.raise_to {
            settlement.epochs.push((id, epoch));
        }
        if let Some(marked) = row.marked_name() {
            settlement.names.push((id, marked.clone()));
        }
        if mailbox.is_some_and(|wanted| wanted != id) {
            continue;
        }
        let uids = pending_burns(tables, id, row.epoch)?;
        if !uids.is_empty() {
            settlement.records.push(UidRecord::Burn { mailbox: id, epoch: row.epoch, uids });
        }
        if row.raise_to.is_none() {
            let waiting = unclaimed(tables, id)?;
            match claim(tables, id, row.epoch, &waiting, lane, block)? {
                Some(run) if run.high() <= highest_uid() => settlement.records.push(UidRecord::Run(run)),
                Some(_) => settlement.epochs.push((id, row.epoch + 1)),
                None => {}
            }
        }
    }
    Ok(settlement)
}

/// The mailboxes for which something may be due. Costs O(their number), however many others there are.
fn waiting_mailboxes(tables: &impl Tables) -> Result<BTreeSet<MailboxId>, TableError> {
    let mut mailboxes = BTreeSet::new();
    for table in [Table::Pending, Table::Unclaimed] {
        let mut from = Vec::new();
        while let Some((key, _)) = tables.range(table, &from, &[], 1)?.pop() {
            let Some(mailbox) = key.get(..16).and_then(MailboxId::from_slice) else { break };
            mailboxes.insert(mailbox);
            from = after(mailbox.as_bytes());
            if from.is_empty() {
                break; // The id was the last there can be.
            }
        }
    }
    Ok(mailboxes)
}

fn pending_burns(tables: &impl Tables, mailbox: MailboxId, epoch: u32) -> Result<Vec<Uid>, TableError> {
    let prefix = super::rows::space_key(mailbox, epoch);
    let rows = tables.range(Table::Pending, &prefix, &after(&prefix), Run::MAX_UIDS as usize)?;
    let mut uids = Vec::new();
    for (key, _) in rows {
        let row = tables.get(Table::Uids, &key)?.map(|bytes| UidRow::decode(&bytes)).transpose()?;
        if row.is_some_and(|row| !row.recorded) {
            uids.push(key_uid(Table::Pending, &key)?);
        }
    }
    Ok(uids)
}

/// The visible placements of a mailbox that have no UID, in the order in which they get one.
fn unclaimed(tables: &impl Tables, mailbox: MailboxId) -> Result<Vec<Unclaimed>, TableError> {
    let prefix = mailbox.as_bytes();
    let rows = tables.range(Table::Unclaimed, prefix, &after(prefix), Run::MAX_UIDS as usize)?;
    let mut waiting = Vec::with_capacity(rows.len());
    for (key, _) in rows {
        let placement = key_placement(Table::Unclaimed, &key)?;
        waiting.push(locate(tables, placement)?);
    }
    Ok(waiting)
}

fn locate(tables: &impl Tables, placement: Placement) -> Result<Unclaimed, TableError> {
    let row = tables.get(Table::Entries, placement.entry.as_bytes())?;
    let row = row.ok_or_else(|| missing(placement.entry))?;
    let EntryRow { pack, index, .. } = EntryRow::decode(&row)?;
    Ok(Unclaimed { placement, pack, index })
}

fn missing(entry: EntryId) -> TableError {
    TableError(format!("entry {entry} waits for a UID and is not in the index; `check --repair` rebuilds it"))
}

/// A run that claims UIDs above the highest, in the lane, for placements in their order; nothing if there are none.
/// A run whose high is above [`HIGHEST_UID`] must not be written.
pub(crate) fn claim(
    tables: &impl Tables,
    mailbox: MailboxId,
    epoch: u32,
    waiting: &[Unclaimed],
    lane: Lane,
    block: Block,
) -> Result<Option<Run>, TableError> {
    let base = top(tables, mailbox, epoch)?;
    Ok(claim_above(mailbox, epoch, base, waiting, lane, block))
}

pub(crate) fn claim_above(
    mailbox: MailboxId,
    epoch: u32,
    base: u32,
    waiting: &[Unclaimed],
    lane: Lane,
    block: Block,
) -> Option<Run> {
    let mut last = base;
    let claims = waiting.iter().map(|waiting| {
        // Past the last number the run only has to be high enough to be refused.
        let uid = lane.next(last, block).unwrap_or(Uid::new(u32::MAX).expect("it is not 0"));
        last = uid.value();
        (uid, *waiting)
    });
    let segments = segments(claims);
    (!segments.is_empty()).then_some(Run { mailbox, epoch, base, floor: 0, segments })
}

/// Puts neighbours of one pack with consecutive UIDs together: 1,000 imported messages cost one segment, not 26 kB.
pub(crate) fn segments(claims: impl Iterator<Item = (Uid, Unclaimed)>) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for (uid, waiting) in claims {
        let initial = waiting.placement.nonce == Nonce::INITIAL;
        if let Some(Segment { first, count, source: Source::Pack { pack, first: index } }) =
            segments.last_mut()
            && initial
            && *pack == waiting.pack
            && first.value() + *count == uid.value()
            && *index + *count == waiting.index
        {
            *count += 1;
            continue;
        }
        let source = match initial {
            true => Source::Pack { pack: waiting.pack, first: waiting.index },
            false => Source::Placement(waiting.placement),
        };
        segments.push(Segment { first: uid, count: 1, source });
    }
    segments
}
