//! SELECT, EXAMINE, CLOSE and UNSELECT (RFC 9051, sections 6.3.2, 6.3.3, 6.4.1 and 6.4.2; RFC 7162, section 3.2.5).

use postmerge::mailbox::{Keyword, MailboxId, Uid};
use postmerge::replica::Snapshot;
use postmerge::uid::Mailbox;

use super::done::{Done, Failed};
use super::mailboxes::named;
use super::selected::{Selected, put_flags};
use super::{Session, State};
use crate::grammar::{Attribute, Code, Condition, Listing, NumberSet, Qresync, Select};
use crate::view::View;

/// UIDs stay below this; past it a mailbox starts a new epoch (`docs/uids.md`). A client that comes from another server of
/// the account may know any of them.
pub(super) const HIGHEST_UID: u32 = 1 << 31;
/// Messages that are read at once in the search for the first unseen one.
const PAGE: usize = 1000;

impl Session {
    pub(super) fn select(&mut self, select: Select, read_only: bool) -> Result<Done, Failed> {
        if select.qresync.is_some() && !self.enabled.qresync {
            return Ok(Done::bad("QRESYNC must be enabled first"));
        }
        if self.deselect().is_some() {
            // RFC 7162, section 3.2.11: what follows is about the other mailbox.
            self.out.status(None, Condition::Ok, Some(Code::Closed), "the mailbox before is closed");
        }
        let name = named(select.mailbox)?;
        self.enabled.condstore |= select.condstore;
        let replica = self.replica()?.clone();
        let (snapshot, mailbox) = replica.open_mailbox(&name)?;
        let uids = snapshot.uids(mailbox.id)?;
        let view = View::new(uids.into_iter().map(Uid::value).collect());
        let mut selected = Box::new(Selected::new(&mailbox, view, read_only));
        self.put_mailbox(&snapshot, &mailbox, &selected)?;
        if let Some(known) = select.qresync.filter(|known| known.uid_validity == mailbox.uid_validity) {
            self.resync(&snapshot, &mailbox, &known, &mut selected)?;
        }
        self.state = State::Selected(replica, selected);
        Ok(match read_only {
            true => Done::Ok(super::Reply::Plain(Code::ReadOnly), "selected, to be read only".into()),
            false => Done::Ok(super::Reply::Plain(Code::ReadWrite), "selected".into()),
        })
    }

    fn put_mailbox(
        &mut self,
        snapshot: &Snapshot,
        mailbox: &Mailbox,
        selected: &Selected,
    ) -> Result<(), Failed> {
        let out = &mut self.out;
        selected.put_flags(out);
        out.exists(selected.view.exists());
        if self.enabled.rev2 {
            let attributes: Vec<Attribute> = mailbox.special_use.map(Attribute::Use).into_iter().collect();
            let mailbox = &mailbox.name;
            out.list(&Listing { attributes: &attributes, mailbox, child_subscribed: false, old_name: None });
        } else {
            out.recent(0);
            if let Some(seq) = first_unseen(snapshot, mailbox, &selected.view)? {
                out.status(None, Condition::Ok, Some(Code::Unseen(seq)), "the first unseen message");
            }
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
        Ok(())
    }

    /// Tells a client what it does not know (RFC 7162, section 3.2.5.1): first what vanished, then what changed. A
    /// mod-sequence of another history says nothing of what the client knows, so it is told everything.
    fn resync(
        &mut self,
        snapshot: &Snapshot,
        mailbox: &Mailbox,
        known: &Qresync,
        selected: &mut Selected,
    ) -> Result<(), Failed> {
        let wanted = known.known_uids.as_ref().map(|uids| uids.resolve(HIGHEST_UID));
        let (vanished, changed) = match snapshot.changed_since(mailbox.id, known.mod_seq)? {
            Some(changes) => {
                let vanished = changes.vanished.iter().map(|uid| uid.value());
                (NumberSet::from_numbers(vanished), changes.changed)
            }
            None => {
                let all = snapshot.messages(mailbox.id, Uid::FIRST, usize::MAX)?;
                (hidden(snapshot, mailbox.id)?, all)
            }
        };
        let vanished = match &wanted {
            Some(wanted) => vanished.intersection(wanted),
            None => vanished,
        };
        self.out.vanished(true, &vanished);
        selected.name_keywords(&changed, &mut self.out);
        for message in &changed {
            let uid = message.uid.value();
            if wanted.as_ref().is_none_or(|wanted| wanted.contains(uid))
                && let Some(seq) = selected.view.seq(uid)
            {
                put_flags(&mut self.out, seq, message, self.enabled, true);
            }
        }
        Ok(())
    }

    /// Forgets the selected mailbox.
    pub(super) fn deselect(&mut self) -> Option<Box<Selected>> {
        match std::mem::replace(&mut self.state, State::NotAuthenticated) {
            State::Selected(replica, selected) => {
                self.state = State::Authenticated(replica);
                Some(selected)
            }
            other => {
                self.state = other;
                None
            }
        }
    }
}

/// UIDs that are not shown, up to the highest that a client of any server of the account can know.
pub(super) fn hidden(snapshot: &Snapshot, mailbox: MailboxId) -> Result<NumberSet, Failed> {
    let highest = Uid::new(HIGHEST_UID).expect("not 0");
    let ranges = snapshot.hidden(mailbox, highest)?;
    Ok(NumberSet::from_ranges(ranges.into_iter().map(|(first, last)| first.value()..=last.value())))
}

/// The sequence number of the first message without `\Seen`; clients of RFC 3501 jump there.
fn first_unseen(snapshot: &Snapshot, mailbox: &Mailbox, view: &View) -> Result<Option<u32>, Failed> {
    let seen = Keyword::seen();
    let mut from = (mailbox.unseen > 0).then_some(Uid::FIRST);
    while let Some(next) = from {
        let page = snapshot.messages(mailbox.id, next, PAGE)?;
        if let Some(unseen) = page.iter().find(|message| !message.keywords.contains(&seen)) {
            return Ok(view.seq(unseen.uid.value()));
        }
        from = page.last().and_then(|last| Uid::new(last.uid.value().checked_add(1)?));
    }
    Ok(None)
}
