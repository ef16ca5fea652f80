//! COPY, MOVE, EXPUNGE and CLOSE (RFC 9051, sections 6.4.1 to 6.4.8; RFC 4315, RFC 6851).

use postmerge::mailbox::{Keyword, Uid};
use postmerge::replica::{Relocated, Replica};

use super::done::{Done, Failed, Reply};
use super::mailboxes::named;
use super::selected::Selected;
use super::{Session, State};
use crate::grammar::{Code, Condition, MailboxArg, MessageSet, Numbering};

impl Session {
    /// COPY, or MOVE if the messages are not to stay.
    pub(super) fn transfer(
        &mut self,
        numbering: Numbering,
        messages: &MessageSet,
        to: MailboxArg,
        stay: bool,
    ) -> Result<Done, Failed> {
        let uids = self.target_uids(messages, numbering)?;
        let to = named(to)?;
        let State::Selected(account, selected) = &mut self.state else { return Err(Failed::unselected()) };
        let replica = account.replica();
        if selected.read_only && !stay {
            return Ok(read_only());
        }
        if replica.snapshot_of(selected.seen.mailbox)?.find(&to)?.is_none() {
            return Ok(Done::no(Code::TryCreate, "there is no such mailbox"));
        }
        let Relocated { into, messages } = match stay {
            true => replica.copy(selected.seen, &uids, &to)?,
            false => replica.move_to(selected.seen, &uids, &to)?,
        };
        let pairs = messages.iter().filter_map(|message| Some((message.from, message.uid?))).collect();
        let reply = into.map_or(Reply::None, |into| Reply::Copied(into.uid_validity, pairs));
        if stay {
            return Ok(Done::ok_with(reply, "copied"));
        }
        // RFC 6851, section 4.3: told before the EXPUNGEs, and the tagged answer comes after them.
        if let Some(code) = reply.code() {
            self.out.status(None, Condition::Ok, Some(code), "moved");
        }
        self.done_expunging("moved")
    }

    /// EXPUNGE: those with `\Deleted`, all or only some UIDs.
    pub(super) fn expunge(&mut self, only: Option<&MessageSet>) -> Result<Done, Failed> {
        let only = only.map(|set| self.target_uids(set, Numbering::Uid)).transpose()?;
        let State::Selected(account, selected) = &mut self.state else { return Err(Failed::unselected()) };
        let replica = account.replica();
        if selected.read_only {
            return Ok(read_only());
        }
        expunge_deleted(replica, selected, only)?;
        self.done_expunging("expunged")
    }

    /// The client has asked for it, so it is told, whatever else it has sent already.
    fn done_expunging(&mut self, text: &'static str) -> Result<Done, Failed> {
        self.tell(true, true)?;
        // Not a later one: the client may keep it, and would never ask again for what came in between.
        let told = self.selected()?.told;
        let reply = if self.enabled.condstore { Reply::HighestModSeq(told) } else { Reply::None };
        Ok(Done::ok_with(reply, text))
    }

    /// CLOSE expunges silently; UNSELECT does not.
    pub(super) fn close(&mut self, expunge: bool) -> Result<Done, Failed> {
        let State::Selected(account, selected) = &mut self.state else { return Err(Failed::unselected()) };
        let replica = account.replica();
        if expunge && !selected.read_only {
            expunge_deleted(replica, selected, None)?;
        }
        self.deselect();
        Ok(Done::ok("no mailbox is selected"))
    }
}

fn read_only() -> Done {
    Done::no(Code::ReadOnly, "the mailbox was selected to be read only")
}

/// Expunges messages with `\Deleted` that this client knows: one that it was never told of it did not mean.
fn expunge_deleted(replica: &Replica, selected: &Selected, only: Option<Vec<Uid>>) -> Result<(), Failed> {
    let id = selected.seen.mailbox;
    let snapshot = replica.snapshot_of(id)?;
    if snapshot.mailbox(id)?.is_none_or(|mailbox| mailbox.marked_deleted == 0) {
        return Ok(());
    }
    let marked = match only {
        Some(only) => only,
        None => {
            let (deleted, mut marked, mut from) = (Keyword::deleted(), Vec::new(), Some(Uid::FIRST));
            while let Some(next) = from {
                let page = snapshot.messages(id, next, 1000)?;
                from = page.last().and_then(|last| Uid::new(last.uid.value().checked_add(1)?));
                let known = page.iter().filter(|message| selected.view.seq(message.uid.value()).is_some());
                marked.extend(
                    known.filter(|message| message.keywords.contains(&deleted)).map(|message| message.uid),
                );
            }
            marked
        }
    };
    drop(snapshot);
    replica.expunge_deleted(selected.seen, &marked)?;
    Ok(())
}
