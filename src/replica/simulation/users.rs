//! What people do with their mail, by what their clients have cached: also by what is not true any more.

use std::collections::BTreeSet;

use super::Outcome;
use super::world::World;
use crate::mailbox::{EntryId, Keyword, MailboxName, Uid};
use crate::replica::{NewMessage, Selection};
use crate::uid::{KeywordChange, Seen};

const NAMES: [&str; 4] = ["INBOX", "Work", "Work/Old", "Lists"];

/// Messages as a client has them.
struct Cached {
    seen: Seen,
    messages: Vec<(Uid, EntryId)>,
}

impl Cached {
    fn uids(&self) -> Vec<Uid> {
        self.messages.iter().map(|(uid, _)| *uid).collect()
    }

    fn entry(&self, uid: Uid) -> Option<EntryId> {
        self.messages.iter().find(|(known, _)| *known == uid).map(|(_, entry)| *entry)
    }
}

impl World {
    pub(super) fn act(&mut self, n: usize) -> Outcome {
        match self.random.below(100) {
            0..40 => self.receive_mail(n),
            40..52 => self.flag(n),
            52..66 => self.relocate(n, true),
            66..71 => self.relocate(n, false),
            71..83 => self.expunge(n),
            83..86 => self.create(n),
            86..94 if !self.calm => self.change_mailboxes(n),
            94..97 => self.undo(n),
            _ => self.receive_mail(n),
        }
    }

    fn name(&mut self) -> MailboxName {
        NAMES[self.random.below(NAMES.len())].parse().unwrap()
    }

    fn receive_mail(&mut self, n: usize) -> Outcome {
        let name = self.name();
        let mut bodies = Vec::new();
        for _ in 0..1 + self.random.below(2) {
            self.bodies += 1;
            // Some are equal to others, and some are large enough to go in pieces.
            let number = if self.random.chance(90) { self.bodies } else { self.bodies / 2 };
            let length = if self.random.chance(1) { 300_000 } else { 10 };
            bodies.push([&number.to_be_bytes()[..], &vec![b'x'; length]].concat());
        }
        let date = self.random.below(50) as i64;
        let added = self.call(n, |replica| {
            let mut messages = Vec::new();
            for body in bodies {
                let (body, _) = replica.put_body(&body[..])?;
                messages.push(NewMessage { body, keywords: BTreeSet::new(), internal_date: Some(date) });
            }
            replica.append_all(&name, messages)
        })?;
        let Some(added) = added else { return Ok(()) };
        for message in &added.messages {
            self.sites[n].promised.entries.insert(message.entry, message.blob);
            if let (Some(seen), Some(uid)) = (added.into, message.uid) {
                self.told(n, &name, seen, uid, message.entry)?;
            }
        }
        Ok(())
    }

    /// Some of what a client has in one of its caches, the present one or an old one.
    fn cached(&mut self, n: usize) -> Option<Cached> {
        let keys: Vec<_> = self.sites[n].clients.caches.keys().cloned().collect();
        let key = self.random.pick(&keys)?;
        let cache = &self.sites[n].clients.caches[key];
        let all: Vec<(Uid, EntryId)> = cache.uids.iter().map(|(uid, entry)| (*uid, *entry)).collect();
        let seen = cache.seen;
        let mut messages = Vec::new();
        for _ in 0..1 + self.random.below(2) {
            messages.extend(self.random.pick(&all).copied().filter(|one| !messages.contains(one)));
        }
        (!messages.is_empty()).then_some(Cached { seen, messages })
    }

    fn flag(&mut self, n: usize) -> Outcome {
        let Some(cached) = self.cached(n) else { return Ok(()) };
        let keyword = [Keyword::seen(), Keyword::deleted()][self.random.below(2)].clone();
        let (one, none) = (BTreeSet::from([keyword.clone()]), BTreeSet::new());
        let sets = self.random.chance(60);
        let (set, clear) = if sets { (one, none) } else { (none, one) };
        let change = KeywordChange::Edit { set, clear };
        let uids = cached.uids();
        let done = self.call(n, |replica| {
            let stored = replica.store_keywords(cached.seen, &uids, &change, None)?;
            let snapshot = replica.view()?;
            let mut found = Vec::new();
            for message in stored.done {
                let entry = cached.entry(message.uid).expect("it was asked for");
                found.push((message.uid, snapshot.locate(entry)?));
            }
            Ok(found)
        })?;
        for (uid, located) in done.into_iter().flatten() {
            let right = located.is_some_and(|located| {
                located.place.is_some_and(|place| place.0 == cached.seen.mailbox)
                    && located.keywords.contains(&keyword) == sets
            });
            promise!(right, "P1 a flag for UID {uid} at site {n} went to another message");
        }
        Ok(())
    }

    fn relocate(&mut self, n: usize, moves: bool) -> Outcome {
        let Some(cached) = self.cached(n) else { return Ok(()) };
        let (target, uids) = (self.name(), cached.uids());
        let done = self.call(n, |replica| match moves {
            true => replica.move_to(cached.seen, &uids, &target),
            false => replica.copy(cached.seen, &uids, &target),
        })?;
        let Some(done) = done else { return Ok(()) };
        for message in done.messages {
            let meant = cached.entry(message.from) == Some(message.entry);
            promise!(!moves || meant, "P1 site {n} moved another message than UID {}", message.from);
            if let (Some(seen), Some(uid)) = (done.into, message.uid) {
                self.told(n, &target, seen, uid, message.entry)?;
            }
        }
        Ok(())
    }

    fn expunge(&mut self, n: usize) -> Outcome {
        let Some(cached) = self.cached(n) else { return Ok(()) };
        self.removed.extend(cached.messages.iter().map(|(_, entry)| *entry));
        let uids = cached.uids();
        let done = self.call(n, |replica| {
            let before = replica.view()?;
            let expunged = replica.expunge(cached.seen, &uids)?;
            let after = replica.view()?;
            let mut found = Vec::new();
            for uid in expunged {
                let entry = cached.entry(uid).expect("it was asked for");
                found.push((uid, before.locate(entry)?, after.locate(entry)?));
            }
            Ok(found)
        })?;
        for (uid, before, after) in done.into_iter().flatten() {
            let there =
                before.and_then(|located| located.place).map(|place| place.0) == Some(cached.seen.mailbox);
            let gone = after.is_some_and(|located| located.place.is_none());
            promise!(there && gone, "P1 site {n} expunged another message than UID {uid}");
        }
        Ok(())
    }

    fn create(&mut self, n: usize) -> Outcome {
        let name = self.name();
        self.call(n, |replica| replica.create_mailbox(&name, None)).map(drop)
    }

    fn change_mailboxes(&mut self, n: usize) -> Outcome {
        let (from, to) = (self.name(), self.name());
        if self.random.chance(60) {
            return self.call(n, |replica| replica.rename_mailbox(&from, &to)).map(drop);
        }
        if let Some(replica) = &self.sites[n].replica {
            let found = replica.view().unwrap().find(&from).unwrap();
            self.removed.extend(found.map_or(Vec::new(), |id| replica.entries_of(id).unwrap()));
        }
        self.call(n, |replica| replica.delete_mailbox(&from)).map(drop)
    }

    fn undo(&mut self, n: usize) -> Outcome {
        let span = [10, 1_000, 100_000][self.random.below(3)];
        let Some(from) = super::time().map(|time| time - span) else { return Ok(()) };
        let selection = Selection::Since { from, until: None, by: None };
        self.call(n, |replica| replica.undo(&selection)).map(drop)
    }
}
