//! STORE (RFC 9051, section 6.4.6; RFC 7162, section 3.1.3).

use std::collections::{BTreeMap, BTreeSet};

use postmerge::mailbox::{Keyword, Uid};
use postmerge::replica::Stored;
use postmerge::uid::KeywordChange;

use super::done::{Done, Failed, Reply};
use super::fetch::read;
use super::selected::{put_flags, put_modseq};
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
        let mailbox = selected.seen.mailbox;
        // What the client will take the flags to be if it is told nothing; only where it knows what they are now.
        let mut believed: BTreeMap<Uid, BTreeSet<Keyword>> = BTreeMap::new();
        if store.silent {
            let before = read(&replica.snapshot_of(mailbox)?, mailbox, &targets)?;
            let known = before.iter().filter(|(_, m)| m.modseq.counter() <= selected.told.counter());
            believed.extend(known.map(|(_, message)| (message.uid, changed(&message.keywords, &change))));
        }
        let Stored { modified, .. } =
            replica.store_keywords(selected.seen, &uids, &change, store.unchanged_since)?;
        let stored = read(&replica.snapshot_of(mailbox)?, mailbox, &targets)?;
        let gone = stored.len() < targets.len();
        let with_uid = store.numbering == Numbering::Uid || self.enabled.qresync;
        for (seq, message) in &stored {
            if modified.binary_search(&message.uid).is_ok() {
                continue;
            }
            if !store.silent {
                selected.name_keywords(std::iter::once(message), &mut self.out);
                put_flags(&mut self.out, *seq, message, self.enabled, with_uid);
            } else if self.enabled.condstore {
                // RFC 7162, section 3.1.3: even a silent STORE tells the new mod-sequence.
                put_modseq(&mut self.out, *seq, message, self.enabled, with_uid);
            }
            if !store.silent || believed.get(&message.uid) == Some(&message.keywords) {
                selected.knows(message);
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
        // RFC 9051, section 6.4.9: a UID that means nothing is no error.
        Ok(match gone && store.numbering == Numbering::Sequence {
            true => Done::no(Code::ExpungeIssued, "some messages are expunged; the others are done"),
            false => Done::ok("done"),
        })
    }
}

/// Keywords after a change.
fn changed(keywords: &BTreeSet<Keyword>, change: &KeywordChange) -> BTreeSet<Keyword> {
    match change {
        KeywordChange::Edit { set, clear } => {
            keywords.iter().filter(|keyword| !clear.contains(*keyword)).chain(set).cloned().collect()
        }
        KeywordChange::Exactly(keywords) => keywords.clone(),
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
