//! STORE (RFC 9051, section 6.4.6; RFC 7162, section 3.1.3).

use std::collections::BTreeSet;

use postmerge::mailbox::{Keyword, Uid};
use postmerge::replica::{Stored, StoredMessage};
use postmerge::uid::KeywordChange;

use super::done::{Done, Failed, Reply};
use super::selected::{Line, Selected};
use super::{OUTPUT, Running, Session, State};
use crate::grammar::{Code, Flag, NumberSet, Numbering, Store, StoreAction, Tag};

/// A STORE that is done and whose answer is under way.
pub(super) struct StoreRun {
    tag: Tag,
    pub(super) numbering: Numbering,
    silent: bool,
    /// What is still to be told.
    done: std::vec::IntoIter<StoredMessage>,
    modified: Vec<Uid>,
    /// Whether some messages were expunged before their turn.
    gone: bool,
}

impl Session {
    pub(super) fn store(&mut self, tag: Tag, store: Store) -> Result<Done, Failed> {
        self.enabled.condstore |= store.unchanged_since.is_some();
        let uids = self.target_uids(&store.messages, store.numbering)?;
        let flags = keywords(&store.flags);
        let State::Selected(account, selected) = &mut self.state else { return Err(Failed::unselected()) };
        if selected.read_only {
            return Ok(Done::no(Code::ReadOnly, "the mailbox was selected to be read only"));
        }
        let change = match store.action {
            StoreAction::Add => KeywordChange::Edit { set: flags, clear: BTreeSet::new() },
            StoreAction::Remove => KeywordChange::Edit { set: BTreeSet::new(), clear: flags },
            StoreAction::Replace => KeywordChange::Exactly(flags),
        };
        let Stored { done, modified } =
            account.replica().store_keywords(selected.seen, &uids, &change, store.unchanged_since)?;
        let gone = done.len() + modified.len() < uids.len();
        let (numbering, silent, done) = (store.numbering, store.silent, done.into_iter());
        let run = StoreRun { tag, numbering, silent, done, modified, gone };
        self.running = Some(Running::Store(Box::new(run)));
        Ok(Done::Runs)
    }

    /// Tells what became of the messages until enough waits for the client, or all is told.
    pub(super) fn store_on(&mut self, mut run: Box<StoreRun>) -> (Tag, Result<Done, Failed>) {
        let tag = run.tag.clone();
        let done = self.put_stored(&mut run);
        if matches!(done, Ok(Done::Runs)) {
            self.running = Some(Running::Store(run));
        }
        (tag, done)
    }

    fn put_stored(&mut self, run: &mut StoreRun) -> Result<Done, Failed> {
        let State::Selected(_, selected) = &mut self.state else { return Err(Failed::unselected()) };
        let with_uid = run.numbering == Numbering::Uid || self.enabled.qresync;
        while self.out.len() < OUTPUT {
            let Some(message) = run.done.next() else { return Ok(run.answer(selected)) };
            // RFC 7162, section 3.1.3: even a silent STORE tells the new mod-sequence.
            let (flags, modseq) = (
                (!run.silent).then_some(&*message.keywords),
                self.enabled.condstore.then_some(message.modseq),
            );
            if let Some(flags) = flags {
                selected.name(flags, &mut self.out);
            }
            if let Some(seq) = selected.view.seq(message.uid.value())
                && (flags.is_some() || modseq.is_some())
            {
                let line = Line { seq, uid: message.uid, flags, modseq };
                line.put(&mut self.out, self.enabled, with_uid);
            }
            // A client that is told nothing is right only if it knew what the flags were before.
            if !run.silent || message.before.counter() <= selected.told.counter() {
                selected.knows(message.uid, message.modseq);
            }
        }
        Ok(Done::Runs)
    }
}

impl StoreRun {
    fn answer(&self, selected: &Selected) -> Done {
        if !self.modified.is_empty() {
            let numbers = self.modified.iter().filter_map(|uid| match self.numbering {
                Numbering::Uid => Some(uid.value()),
                Numbering::Sequence => selected.view.seq(uid.value()),
            });
            let reply = Reply::Modified(NumberSet::from_numbers(numbers));
            return Done::ok_with(reply, "done but for messages that were changed since");
        }
        // RFC 9051, section 6.4.9: a UID that means nothing is no error.
        match self.gone && self.numbering == Numbering::Sequence {
            true => Done::no(Code::ExpungeIssued, "some messages are expunged; the others are done"),
            false => Done::ok("done"),
        }
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
