//! SELECT and EXAMINE (RFC 9051, sections 6.3.2 and 6.3.3).

use postmerge::mailbox::Uid;
use postmerge::uid::Mailbox;

use super::done::{Done, Failed, Reply};
use super::mailboxes::named;
use super::resync::ResyncRun;
use super::selected::Selected;
use super::{Running, Session, State};
use crate::grammar::{Attribute, Code, Condition, Listing, Select, Tag};
use crate::view::View;

impl Session {
    pub(super) fn select(&mut self, tag: &Tag, select: Select, read_only: bool) -> Result<Done, Failed> {
        if select.qresync.is_some() && !self.enabled.qresync {
            return Ok(Done::bad("QRESYNC must be enabled first"));
        }
        if self.deselect().is_some() {
            // RFC 7162, section 3.2.11: what follows is about the other mailbox.
            self.out.status(None, Condition::Ok, Some(Code::Closed), "the mailbox before is closed");
        }
        let name = named(select.mailbox)?;
        self.enabled.condstore |= select.condstore;
        let account = self.account()?.clone();
        let (snapshot, mailbox) = account.replica().open_mailbox(&name)?;
        let view = View::new(account.uids(&snapshot, &mailbox)?);
        let selected = Box::new(Selected::new(&mailbox, view, read_only));
        let known = select.qresync.filter(|known| known.uid_validity == mailbox.uid_validity);
        let resync = known.map(|known| {
            ResyncRun::new(tag.clone(), &snapshot, &mailbox, &known, &selected.view).map(Box::new)
        });
        let resync = resync.transpose()?;
        self.put_mailbox(&mailbox, &selected);
        self.state = State::Selected(account, selected);
        Ok(match resync {
            None => selected_as(read_only),
            Some(run) => {
                self.running = Some(Running::Resync(run));
                Done::Runs
            }
        })
    }

    fn put_mailbox(&mut self, mailbox: &Mailbox, selected: &Selected) {
        let out = &mut self.out;
        selected.put_flags(out);
        out.exists(selected.view.exists());
        if self.enabled.rev2 {
            let attributes: Vec<Attribute> = mailbox.special_use.map(Attribute::Use).into_iter().collect();
            let mailbox = &mailbox.name;
            out.list(&Listing { attributes: &attributes, mailbox, child_subscribed: false, old_name: None });
        } else {
            // UNSEEN, which RFC 3501 allows to be left out, would take a look at every message before the first.
            out.recent(0);
        }
        let uid_next = Uid::new(mailbox.uid_next).unwrap_or(Uid::FIRST);
        for (code, text) in [
            (Code::UidValidity(mailbox.uid_validity), "UIDs are valid"),
            (Code::UidNext(uid_next), "the next UID"),
            (Code::HighestModSeq(mailbox.highest_modseq), "the highest mod-sequence"),
            (Code::MailboxId(mailbox.id), "the mailbox, whatever its name"),
        ] {
            out.status(None, Condition::Ok, Some(code), text);
        }
    }

    /// Forgets the selected mailbox.
    pub(super) fn deselect(&mut self) -> Option<Box<Selected>> {
        match std::mem::replace(&mut self.state, State::NotAuthenticated) {
            State::Selected(account, selected) => {
                self.state = State::Authenticated(account);
                Some(selected)
            }
            other => {
                self.state = other;
                None
            }
        }
    }
}

/// The answer to a SELECT or EXAMINE that succeeded.
pub(super) fn selected_as(read_only: bool) -> Done {
    match read_only {
        true => Done::Ok(Reply::Plain(Code::ReadOnly), "selected, to be read only".into()),
        false => Done::Ok(Reply::Plain(Code::ReadWrite), "selected".into()),
    }
}
