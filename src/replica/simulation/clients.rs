//! Mail clients: one that believes everything it was ever told, one that asks only for what changed, and those who travel.

use std::collections::{BTreeMap, BTreeSet};

use super::Outcome;
use crate::mailbox::{EntryId, Keyword, MailboxId, MailboxName, ModSeq, Uid, UidValidity};
use crate::replica::Snapshot;
use crate::uid::{Mailbox, Seen, Shown};

/// What the clients of one site remember.
#[derive(Default)]
pub(super) struct Clients {
    pub(super) caches: BTreeMap<(MailboxName, UidValidity), Cache>,
    highest: BTreeMap<MailboxName, UidValidity>,
    followers: BTreeMap<(MailboxId, UidValidity), Follower>,
    /// What was shown last, to see that a UID changes only when it was burned.
    shown: BTreeMap<(MailboxId, UidValidity, EntryId), Uid>,
}

/// What was told under a name and a UIDVALIDITY.
pub(super) struct Cache {
    pub(super) seen: Seen,
    pub(super) uids: BTreeMap<Uid, EntryId>,
    gone: BTreeSet<Uid>,
    uid_next: u32,
}

impl Cache {
    fn new(seen: Seen) -> Cache {
        Cache { seen, uids: BTreeMap::new(), gone: BTreeSet::new(), uid_next: 0 }
    }

    fn tell(&mut self, name: &MailboxName, uid: Uid, entry: EntryId) -> Outcome {
        match self.uids.insert(uid, entry) {
            Some(known) => {
                promise!(known == entry, "P1 {name} UID {uid} is two messages");
                promise!(!self.gone.contains(&uid), "P2 {name} UID {uid} vanished and came back");
            }
            None => {
                let next = self.uid_next;
                promise!(uid.value() >= next, "P2 {name} UID {uid} is new below UIDNEXT {next}");
            }
        }
        Ok(())
    }

    fn look(&mut self, mailbox: &Mailbox, messages: &[Shown]) -> Outcome {
        let (name, next) = (&mailbox.name, mailbox.uid_next);
        for message in messages {
            self.tell(name, message.uid, message.entry)?;
            promise!(message.uid.value() < next, "P2 {name} UID {} is not below UIDNEXT {next}", message.uid);
        }
        let now: BTreeSet<Uid> = messages.iter().map(|message| message.uid).collect();
        self.gone.extend(self.uids.keys().filter(|uid| !now.contains(uid)));
        promise!(next >= self.uid_next, "P2 the UIDNEXT of {name} fell from {} to {next}", self.uid_next);
        self.uid_next = next;
        Ok(())
    }
}

/// A client that reads everything once and then only what changed since its mod-sequence (RFC 7162).
#[derive(Default)]
pub(super) struct Follower {
    since: Option<ModSeq>,
    messages: BTreeMap<Uid, BTreeSet<Keyword>>,
}

impl Follower {
    /// QRESYNC: what the answer makes of its cache is what a client sees that reads all.
    pub(super) fn look(&mut self, snapshot: &Snapshot, mailbox: &Mailbox, messages: &[Shown]) -> Outcome {
        let name = &mailbox.name;
        let changes = match self.since {
            Some(since) => snapshot.changed_since(mailbox.id, since).unwrap(),
            None => None,
        };
        match (changes, self.messages.keys().next_back()) {
            (Some(changes), _) => {
                for message in changes.changed {
                    self.messages.insert(message.uid, message.keywords);
                }
                changes.vanished.iter().for_each(|uid| _ = self.messages.remove(uid));
            }
            (None, last) => {
                for (first, last) in
                    last.map_or(Vec::new(), |last| snapshot.hidden(mailbox.id, *last).unwrap())
                {
                    self.messages.retain(|uid, _| *uid < first || *uid > last);
                }
                self.messages.extend(messages.iter().map(|message| (message.uid, message.keywords.clone())));
            }
        }
        let now: BTreeMap<Uid, _> = messages.iter().map(|m| (m.uid, m.keywords.clone())).collect();
        let since = self.since;
        promise!(
            self.messages == now,
            "the changes of {name} since {since:?} are not all: {:?}, {now:?}",
            self.messages
        );
        self.since = Some(mailbox.highest_modseq);
        Ok(())
    }
}

/// Every way to read a mailbox gives the same (P6).
fn counts(snapshot: &Snapshot, mailbox: &Mailbox, messages: &[Shown]) -> Outcome {
    let name = &mailbox.name;
    let count = |keyword: Keyword| messages.iter().filter(|m| m.keywords.contains(&keyword)).count() as u64;
    let (seen, marked) = (count(Keyword::seen()), count(Keyword::deleted()));
    promise!(messages.len() as u64 == mailbox.messages, "P6 {name} counts {}", mailbox.messages);
    promise!(mailbox.messages - seen == mailbox.unseen, "P6 {name} counts {} unseen", mailbox.unseen);
    promise!(marked == mailbox.marked_deleted, "P6 {name} counts {} deleted", mailbox.marked_deleted);
    let uids: Vec<Uid> = messages.iter().map(|m| m.uid).collect();
    promise!(snapshot.uids(mailbox.id).unwrap() == uids, "P6 {name} lists other UIDs than it shows");
    let highest = mailbox.highest_modseq.counter();
    promise!(messages.iter().all(|m| m.modseq.counter() <= highest), "{name} has a higher mod-sequence");
    Ok(())
}

impl Clients {
    /// All clients of a site look at a mailbox. In a `calm` schedule no UIDVALIDITY has a reason to change.
    pub(super) fn look(
        &mut self,
        snapshot: &Snapshot,
        mailbox: &Mailbox,
        messages: &[Shown],
        calm: bool,
    ) -> Outcome {
        let (name, validity) = (&mailbox.name, mailbox.uid_validity);
        let highest = self.highest.entry(name.clone()).or_insert(validity);
        promise!(validity >= *highest, "P1 the UIDVALIDITY of {name} fell from {highest} to {validity}");
        promise!(
            !calm || validity == *highest,
            "P5 the UIDVALIDITY of {name} changed from {highest} to {validity}"
        );
        *highest = validity;
        let cache = self.caches.entry((name.clone(), validity));
        cache.or_insert_with(|| Cache::new(mailbox.seen())).look(mailbox, messages)?;
        self.followers.entry((mailbox.id, validity)).or_default().look(snapshot, mailbox, messages)?;
        counts(snapshot, mailbox, messages)
    }

    /// An answer that names a UID (APPENDUID, COPYUID).
    pub(super) fn told(&mut self, name: &MailboxName, seen: Seen, uid: Uid, entry: EntryId) -> Outcome {
        let cache = self.caches.entry((name.clone(), seen.uid_validity));
        cache.or_insert_with(|| Cache::new(seen)).tell(name, uid, entry)
    }

    /// At a server a UID changes only if it was burned (P5), or if the message left and came back.
    pub(super) fn calm(&mut self, snapshot: &Snapshot, mailbox: &Mailbox, messages: &[Shown]) -> Outcome {
        for message in messages {
            let key = (mailbox.id, mailbox.uid_validity, message.entry);
            let was = self.shown.insert(key, message.uid).unwrap_or(message.uid);
            if was == message.uid {
                continue;
            }
            let known = snapshot.view().known_uids(mailbox.id).unwrap();
            let find = |uid: Uid| known.iter().find(|known| known.uid == uid);
            let stay = |uid: Uid| find(uid).map(|known| known.placement);
            let fine = find(was).is_some_and(|known| known.burned) || stay(was) != stay(message.uid);
            promise!(fine, "P5 {} UID {was} became {}", mailbox.name, message.uid);
        }
        Ok(())
    }
}

/// A client with one cache, wherever it goes: what it brings to a server is from another one's history.
#[derive(Default)]
pub(super) struct Traveller {
    mailboxes: BTreeMap<(MailboxName, UidValidity), Follower>,
}

impl Traveller {
    pub(super) fn look(&mut self, snapshot: &Snapshot, mailbox: &Mailbox, messages: &[Shown]) -> Outcome {
        let key = (mailbox.name.clone(), mailbox.uid_validity);
        self.mailboxes.entry(key).or_default().look(snapshot, mailbox, messages)
    }
}

/// What anybody was shown at any server (P4).
#[derive(Default)]
pub(super) struct Everywhere(BTreeMap<(MailboxName, UidValidity, Uid), EntryId>);

impl Everywhere {
    pub(super) fn look(&mut self, mailbox: &Mailbox, messages: &[Shown]) -> Outcome {
        for message in messages {
            self.tell(&mailbox.name, mailbox.uid_validity, message.uid, message.entry)?;
        }
        Ok(())
    }

    pub(super) fn tell(
        &mut self,
        name: &MailboxName,
        validity: UidValidity,
        uid: Uid,
        entry: EntryId,
    ) -> Outcome {
        let first = *self.0.entry((name.clone(), validity, uid)).or_insert(entry);
        promise!(first == entry, "P4 {name} UID {uid} is two messages");
        Ok(())
    }
}
