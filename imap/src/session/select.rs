//! SELECT, EXAMINE, CLOSE and UNSELECT (RFC 9051, sections 6.3.2, 6.3.3, 6.4.1 and 6.4.2; RFC 7162, section 3.2.5).

use postmerge::mailbox::{MailboxId, Uid};
use postmerge::replica::Snapshot;
use postmerge::uid::Mailbox;

use super::done::{Done, Failed, Reply};
use super::mailboxes::named;
use super::selected::{Selected, put_flags};
use super::{Session, State};
use crate::grammar::{Attribute, Code, Condition, Listing, NumberSet, Qresync, Select};
use crate::view::View;

/// UIDs stay below this; past it a mailbox starts a new epoch (`docs/uids.md`). A client that comes from another server of
/// the account may know any of them.
pub(super) const HIGHEST_UID: u32 = 1 << 31;

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
        let account = self.account()?.clone();
        let (snapshot, mailbox) = account.replica().open_mailbox(&name)?;
        let view = View::new(account.uids(&snapshot, &mailbox)?);
        let mut selected = Box::new(Selected::new(&mailbox, view, read_only));
        self.put_mailbox(&mailbox, &selected);
        if let Some(known) = select.qresync.filter(|known| known.uid_validity == mailbox.uid_validity) {
            self.resync(&snapshot, &mailbox, &known, &mut selected)?;
        }
        self.state = State::Selected(account, selected);
        Ok(match read_only {
            true => Done::Ok(Reply::Plain(Code::ReadOnly), "selected, to be read only".into()),
            false => Done::Ok(Reply::Plain(Code::ReadWrite), "selected".into()),
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

/// Those UIDs of a set that the client does not count. One that it counts must vanish with its sequence number, so never
/// by VANISHED (EARLIER) (RFC 7162, section 3.2.10).
pub(super) fn uncounted(set: &NumberSet, view: &View) -> NumberSet {
    let mut ranges = Vec::new();
    for range in set.ranges() {
        let (mut first, last) = range.into_inner();
        for (_, uid) in view.by_uid(first..=last) {
            ranges.extend((first < uid).then_some(first..=uid - 1));
            first = uid + 1;
        }
        ranges.extend((first <= last).then_some(first..=last));
    }
    NumberSet::from_ranges(ranges)
}

/// UIDs that are not shown, up to the highest that a client of any server of the account can know.
pub(super) fn hidden(snapshot: &Snapshot, mailbox: MailboxId) -> Result<NumberSet, Failed> {
    let highest = Uid::new(HIGHEST_UID).expect("not 0");
    let ranges = snapshot.hidden(mailbox, highest)?;
    Ok(NumberSet::from_ranges(ranges.into_iter().map(|(first, last)| first.value()..=last.value())))
}
