//! What users do to mailboxes.

use std::collections::BTreeMap;

use super::{Account, AccountError, Written};
use crate::mailbox::{MailboxId, MailboxName, SpecialUse, UidValidity};
use crate::uid::names::{all_mailboxes, name_row};
use crate::uid::rows::MailboxRow;
use crate::uid::tables::{Tables, TablesMut};
use crate::uid::validity::{epoch_above, uid_validity};

impl Account {
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

    /// Gives a mailbox, and all below it, another name. The name may be one that only those below imply. INBOX stays: its
    /// messages move into a new mailbox instead (RFC 9051, section 6.3.6).
    pub fn rename_mailbox(
        &mut self,
        tables: &mut impl TablesMut,
        time: i64,
        from: &MailboxName,
        to: &MailboxName,
    ) -> Result<Written, AccountError> {
        let id = self.view(tables).find(from)?;
        let missing = || AccountError::NoMailbox { name: from.clone() };
        if to.is_inbox() {
            return Err(AccountError::Inbox);
        }
        if self.view(tables).find(to)?.is_some() {
            return Err(AccountError::Exists { name: to.clone() });
        }
        if from.is_inbox() {
            let (target, mut written) = self.create_mailbox(tables, time, to, None)?;
            let entries = self.view(tables).entries_of(id.ok_or_else(missing)?)?;
            for part in entries.chunks(Account::MAX_BATCH) {
                written.append(self.move_to(tables, time, part, target)?);
            }
            return Ok(written);
        }
        let mailboxes = all_mailboxes(tables)?;
        let renames = self.renames(tables, &mailboxes, from, to)?;
        if renames.is_empty() {
            return Err(missing());
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

    /// The mailboxes that are or stand below `from`, with the name and the epoch that each gets.
    fn renames(
        &self,
        tables: &impl Tables,
        mailboxes: &BTreeMap<MailboxId, MailboxRow>,
        from: &MailboxName,
        to: &MailboxName,
    ) -> Result<Vec<(MailboxId, MailboxName, u32)>, AccountError> {
        let mut renames = Vec::new();
        for (id, row) in mailboxes {
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
            let epoch = self.epoch_after_rename(tables, mailboxes, *id, row, &name)?;
            renames.push((*id, name, epoch));
        }
        Ok(renames)
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
    pub(super) fn epoch_after_rename(
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
