//! Which mailbox bears which name, and with which UIDVALIDITY a name may be shown.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::pass::{Event, Pass};
use super::rows::{MailboxRow, NameRow};
use super::tables::{Table, TableError, Tables, TablesMut};
use super::validity::{epoch_above, uid_validity};
use crate::mailbox::{AccountId, MailboxId, MailboxName, UidValidity};

/// Every mailbox of the index, hidden ones too.
pub(crate) fn all_mailboxes(tables: &impl Tables) -> Result<BTreeMap<MailboxId, MailboxRow>, TableError> {
    let rows = tables.range(Table::Mailboxes, &[], &[], usize::MAX)?;
    rows.iter()
        .filter_map(|(key, value)| Some((MailboxId::from_slice(key)?, value)))
        .map(|(id, value)| Ok((id, MailboxRow::decode(value)?)))
        .collect()
}

/// The row of a name, if it was ever borne.
pub(crate) fn name_row(tables: &impl Tables, name: &MailboxName) -> Result<Option<NameRow>, TableError> {
    tables.get(Table::Names, name.as_str().as_bytes())?.map(|bytes| NameRow::decode(&bytes)).transpose()
}

/// No name starts with a zero byte, so these rows stand apart from those of [`name_row`].
fn bearer_key(name: &MailboxName) -> Vec<u8> {
    [&[0], name.as_str().as_bytes()].concat()
}

/// The mailbox that is shown under a name now. One look-up.
pub(crate) fn bearer(tables: &impl Tables, name: &MailboxName) -> Result<Option<MailboxId>, TableError> {
    Ok(tables.get(Table::Names, &bearer_key(name))?.and_then(|bytes| MailboxId::from_slice(&bytes)))
}

const FLOOR: &[u8] = b"uidvalidity floor";

/// The UIDVALIDITY that all shown here must be above: what this replica claimed under it and lower ones before it was
/// restored, it does not know.
fn validity_floor(tables: &impl Tables) -> Result<Option<UidValidity>, TableError> {
    let value = tables.get(Table::Meta, FLOOR)?;
    Ok(value
        .and_then(|bytes| bytes.try_into().ok())
        .and_then(|bytes| UidValidity::new(u32::from_be_bytes(bytes))))
}

/// Sets the floor; every mailbox that is not above it must rise before it is shown.
pub(crate) fn set_floor(
    tables: &mut impl TablesMut,
    account: AccountId,
    floor: UidValidity,
) -> Result<(), TableError> {
    tables.put(Table::Meta, FLOOR, &floor.value().to_be_bytes())?;
    for (id, mut row) in all_mailboxes(tables)? {
        if uid_validity(account, id, &row) <= floor {
            row.raise_to = epoch_above(account, id, &row, floor).max(row.raise_to);
            row.put(tables, id)?;
        }
    }
    Ok(())
}

/// Gives every visible mailbox a name of its own. Of two with one name the higher incarnation, then the lower id, keeps
/// it. Costs O(mailboxes), and runs only when a mailbox changed, filled or emptied.
pub(super) fn assign<T: TablesMut>(pass: &mut Pass<'_, T>) -> Result<(), TableError> {
    let mut rows = all_mailboxes(pass.tables)?;
    rows.extend(pass.mailboxes.iter().map(|(id, row)| (*id, row.clone())));
    let displays = displays(&rows);
    // All names are given up before any is taken: two mailboxes may change theirs.
    for (id, row) in &rows {
        if let Some(old) = row.display.as_ref().filter(|old| displays.get(id) != Some(old)) {
            pass.tables.remove(Table::Names, &bearer_key(old))?;
        }
    }
    for (id, row) in rows {
        let display = displays.get(&id).cloned();
        let raise_to = match &display {
            Some(name) => must_rise(pass, id, &row, name)?,
            None => None,
        };
        if row.display != display || row.raise_to != raise_to {
            if row.display != display {
                pass.events.push(Event::Mailbox { mailbox: id });
                if let Some(name) = &display {
                    pass.tables.put(Table::Names, &bearer_key(name), id.as_bytes())?;
                }
            }
            let row = pass.mailbox(id)?;
            row.display = display;
            row.raise_to = raise_to;
        }
    }
    Ok(())
}

fn displays(rows: &BTreeMap<MailboxId, MailboxRow>) -> BTreeMap<MailboxId, MailboxName> {
    let inbox = MailboxId::inbox();
    let mut visible: Vec<(&MailboxId, &MailboxRow)> =
        rows.iter().filter(|(id, row)| is_visible(**id, row)).collect();
    visible.sort_by_key(|(id, row)| (**id != inbox, Reverse(row.incarnation), **id));
    let mut bearers: BTreeMap<MailboxName, MailboxId> = BTreeMap::new();
    let mut losers = Vec::new();
    for (id, row) in visible {
        let name = row.name.clone().unwrap_or_else(|| lost_name(*id));
        match bearers.entry(name.clone()) {
            std::collections::btree_map::Entry::Vacant(free) => _ = free.insert(*id),
            std::collections::btree_map::Entry::Occupied(_) => losers.push((*id, name)),
        }
    }
    for (id, name) in losers {
        let marked =
            (6..=26).step_by(5).map(|len| marked_name(&name, id, len)).find(|n| !bearers.contains_key(n));
        bearers.insert(marked.unwrap_or_else(|| lost_name(id)), id);
    }
    bearers.into_iter().map(|(name, id)| (id, name)).collect()
}

fn is_visible(id: MailboxId, row: &MailboxRow) -> bool {
    // A message that was put into a mailbox while another replica deleted it must stay in sight.
    id == MailboxId::inbox() || row.messages > 0 || (!row.deleted && row.name.is_some())
}

/// A name that tells people which of two mailboxes this is: the old name and the start of its id.
fn marked_name(name: &MailboxName, id: MailboxId, len: usize) -> MailboxName {
    let mark = format!("~{}", &id.to_string()[..len]);
    let mut end = name.as_str().len().min(MailboxName::MAX_LEN - mark.len());
    while !name.as_str().is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{mark}", &name.as_str()[..end]).parse().unwrap_or_else(|_| lost_name(id))
}

/// Where messages are shown whose mailbox nobody made; only a broken peer can cause it.
fn lost_name(id: MailboxId) -> MailboxName {
    format!("Lost-{id}").parse().expect("letters and digits are a name")
}

/// The epoch that a mailbox must reach before it may be shown under `name`: a name's UIDVALIDITY never falls, and another
/// mailbox under the name must have a higher one. If it may be shown now, the name remembers it.
fn must_rise<T: TablesMut>(
    pass: &mut Pass<'_, T>,
    id: MailboxId,
    row: &MailboxRow,
    name: &MailboxName,
) -> Result<Option<u32>, TableError> {
    let account = pass.context.account;
    let validity = uid_validity(account, id, row);
    if row.epoch == 0
        && let Some(highest) = row.adopted.last().filter(|_| row.adopted.len() > 1)
    {
        return Ok(epoch_above(account, id, row, *highest));
    }
    if let Some(floor) = validity_floor(pass.tables)?.filter(|floor| validity <= *floor) {
        return Ok(epoch_above(account, id, row, floor));
    }
    let shown = name_row(pass.tables, name)?;
    if let Some(shown) = shown {
        let same = shown.mailbox == id;
        if validity < shown.validity || (validity == shown.validity && !same) {
            return Ok(epoch_above(account, id, row, shown.validity));
        }
        if validity == shown.validity {
            return Ok(None);
        }
    }
    let row = NameRow { mailbox: id, validity };
    pass.tables.put(Table::Names, name.as_str().as_bytes(), &row.encode())?;
    Ok(None)
}
