//! What makes, names and removes mailboxes, and STATUS (RFC 9051, sections 6.3.4 to 6.3.11).

use postmerge::blob::BlobId;
use postmerge::mailbox::{MailboxName, SpecialUse, Uid};
use postmerge::replica::{Replica, Snapshot};
use postmerge::uid::Mailbox;

use super::Session;
use super::done::{Done, Failed, Reply};
use crate::grammar::{Code, Condition, MailboxArg, StatusItem, StatusValue};
use crate::message::Summary;
use crate::summaries::{BATCH, summaries};

impl Session {
    pub(super) fn create(&mut self, name: MailboxArg, uses: &[Option<SpecialUse>]) -> Result<Done, Failed> {
        let name = named(name)?;
        // RFC 6154, section 3: a use that cannot be given fails the command.
        let special_use = match uses {
            [] => None,
            [Some(one)] => Some(*one),
            [None] => return Ok(Done::no(Code::UseAttr, "this special use is not known")),
            _ => return Ok(Done::no(Code::UseAttr, "a mailbox has one special use at most")),
        };
        let id = self.replica()?.create_mailbox(&name, special_use)?;
        Ok(Done::ok_with(Reply::MailboxId(id), "created"))
    }

    pub(super) fn delete(&mut self, name: MailboxArg) -> Result<Done, Failed> {
        let name = named(name)?;
        let replica = self.replica()?;
        let snapshot = replica.snapshot()?;
        let Some(id) = snapshot.find(&name)? else {
            let below = format!("{}/", name.as_str());
            let implied =
                snapshot.mailboxes()?.iter().any(|mailbox| mailbox.name.as_str().starts_with(&below));
            return Ok(match implied {
                true => Done::no(Code::HasChildren, "there are only mailboxes below it"),
                false => Done::no(Code::NonExistent, "there is no such mailbox"),
            });
        };
        replica.delete_mailbox(&name)?;
        if self.selected().is_ok_and(|selected| selected.seen.mailbox == id) && self.deselect().is_some() {
            self.out.status(None, Condition::Ok, Some(Code::Closed), "the selected mailbox is gone");
        }
        Ok(Done::ok("deleted"))
    }

    pub(super) fn rename(&mut self, from: MailboxArg, to: MailboxArg) -> Result<Done, Failed> {
        let (from, to) = (named(from)?, named(to)?);
        self.replica()?.rename_mailbox(&from, &to)?;
        Ok(Done::ok("renamed"))
    }

    pub(super) fn subscribe(&mut self, name: MailboxArg, subscribed: bool) -> Result<Done, Failed> {
        self.replica()?.set_subscribed(&named(name)?, subscribed)?;
        Ok(Done::ok("noted"))
    }

    pub(super) fn status(&mut self, name: MailboxArg, items: &[StatusItem]) -> Result<Done, Failed> {
        let (snapshot, mailbox) = self.replica()?.open_mailbox(&named(name)?)?;
        self.put_status(&snapshot, &mailbox, items)?;
        Ok(Done::ok("this is how it is"))
    }

    pub(super) fn put_status(
        &mut self,
        snapshot: &Snapshot,
        mailbox: &Mailbox,
        items: &[StatusItem],
    ) -> Result<(), Failed> {
        // RFC 7162, section 3.1.2.1: who asks for it wants to be told mod-sequences from now on.
        self.enabled.condstore |= items.contains(&StatusItem::HighestModSeq);
        let size = match items.contains(&StatusItem::Size) {
            true => size(self.replica()?, snapshot, mailbox)?,
            false => 0,
        };
        let values: Vec<StatusValue> = items.iter().map(|item| value(mailbox, *item, size)).collect();
        self.out.mailbox_status(&mailbox.name, &values);
        Ok(())
    }
}

/// The sum of RFC822.SIZE (RFC 8438). Costs about 15 µs a message: sizes with CRLF stand in the summaries.
fn size(replica: &Replica, snapshot: &Snapshot, mailbox: &Mailbox) -> Result<u64, Failed> {
    let (mut size, mut from) = (0, Some(Uid::FIRST));
    while let Some(next) = from {
        let page = snapshot.messages(mailbox.id, next, BATCH)?;
        from = page.last().and_then(|last| Uid::new(last.uid.value().checked_add(1)?));
        let blobs: Vec<BlobId> = page.iter().map(|message| message.blob).collect();
        for (message, summary) in page.iter().zip(summaries(replica, &blobs)?) {
            let summary = summary.as_deref().and_then(|bytes| Summary::read(bytes).ok());
            // Of a body that is not here no more can be said than that each line end may count once more.
            size += summary.map_or(message.size.saturating_mul(2), |summary| summary.size());
        }
    }
    Ok(size)
}

fn value(mailbox: &Mailbox, item: StatusItem, size: u64) -> StatusValue {
    let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    match item {
        StatusItem::Messages => StatusValue::Messages(count(mailbox.messages)),
        StatusItem::Recent => StatusValue::Recent(0),
        StatusItem::UidNext => StatusValue::UidNext(Uid::new(mailbox.uid_next).unwrap_or(Uid::FIRST)),
        StatusItem::UidValidity => StatusValue::UidValidity(mailbox.uid_validity),
        StatusItem::Unseen => StatusValue::Unseen(count(mailbox.unseen)),
        StatusItem::Deleted => StatusValue::Deleted(count(mailbox.marked_deleted)),
        StatusItem::Size => StatusValue::Size(size),
        StatusItem::HighestModSeq => StatusValue::HighestModSeq(mailbox.highest_modseq),
        StatusItem::MailboxId => StatusValue::MailboxId(mailbox.id),
    }
}

/// The name, or NO: no mailbox can be called so.
pub(super) fn named(name: MailboxArg) -> Result<MailboxName, Failed> {
    name.map_err(|error| Failed::No(Some(Code::Cannot), error.to_string()))
}
