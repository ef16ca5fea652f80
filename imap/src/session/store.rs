//! STORE (RFC 9051, section 6.4.6; RFC 7162, section 3.1.3).

use std::collections::BTreeSet;

use postmerge::mailbox::{Keyword, Uid};
use postmerge::replica::Stored;
use postmerge::uid::KeywordChange;

use super::done::{Done, Failed, Reply};
use super::selected::put_flags;
use super::{Session, State};
use crate::grammar::{Code, Flag, NumberSet, Numbering, Store, StoreAction};

impl Session {
    pub(super) fn store(&mut self, store: Store) -> Result<Done, Failed> {
        self.enabled.condstore |= store.unchanged_since.is_some();
        let targets = self.targets(&store.messages, store.numbering)?;
        let flags = keywords(&store.flags);
        let State::Selected(account, selected) = &mut self.state else { return Err(Failed::unselected()) };
        let replica = account.replica();
        if selected.read_only {
            return Ok(Done::no(Code::ReadOnly, "the mailbox was selected to be read only"));
        }
        let uids: Vec<Uid> = targets.iter().filter_map(|(_, uid)| Uid::new(*uid)).collect();
        let change = match store.action {
            StoreAction::Add => KeywordChange::Edit { set: flags, clear: BTreeSet::new() },
            StoreAction::Remove => KeywordChange::Edit { set: BTreeSet::new(), clear: flags },
            StoreAction::Replace => KeywordChange::Exactly(flags),
        };
        let Stored { modified, .. } =
            replica.store_keywords(selected.seen, &uids, &change, store.unchanged_since)?;
        let snapshot = replica.snapshot_of(selected.seen.mailbox)?;
        let mut gone = false;
        for (seq, uid) in &targets {
            let Some(uid) = Uid::new(*uid) else { continue };
            let Some(message) = snapshot.message(selected.seen.mailbox, uid)? else {
                gone = true;
                continue;
            };
            let refused = modified.binary_search(&uid).is_ok();
            // With CONDSTORE even a silent STORE tells the new mod-sequence (RFC 7162, section 3.1.3).
            if !refused && (!store.silent || self.enabled.condstore) {
                selected.name_keywords(std::iter::once(&message), &mut self.out);
                let with_uid = store.numbering == Numbering::Uid;
                put_flags(&mut self.out, *seq, &message, self.enabled, with_uid);
            }
            if !refused {
                selected.knows(&message);
            }
        }
        if !modified.is_empty() {
            let numbers = modified.iter().filter_map(|uid| match store.numbering {
                Numbering::Uid => Some(uid.value()),
                Numbering::Sequence => selected.view.seq(uid.value()),
            });
            let reply = Reply::Modified(NumberSet::from_numbers(numbers));
            return Ok(Done::ok_with(reply, "done but for messages that were changed since"));
        }
        Ok(match gone {
            true => Done::no(Code::ExpungeIssued, "some messages are expunged; the others are done"),
            false => Done::ok("done"),
        })
    }
}

/// The flags that a message can have; `\Recent` and what no message can have is left out, as servers always did.
pub(super) fn keywords(flags: &[Flag]) -> BTreeSet<Keyword> {
    flags
        .iter()
        .filter_map(|flag| match flag {
            Flag::Keyword(keyword) => Some(keyword.clone()),
            Flag::Other(_) => None,
        })
        .collect()
}
