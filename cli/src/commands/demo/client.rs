//! A mail client that caches and believes what it is told, and the promises that it relies on.

use std::collections::{BTreeMap, BTreeSet};

use postmerge::mailbox::{EntryId, Keyword, Uid};
use postmerge::replica::{Replica, ReplicaError};
use serde::Serialize;

/// What a server shows of one mailbox at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sight {
    pub(super) validity: u32,
    pub(super) next: u32,
    pub(super) messages: BTreeMap<u32, (EntryId, BTreeSet<Keyword>)>,
}

/// Everything that a server shows, by mailbox.
pub(super) type View = BTreeMap<String, Sight>;

/// Looks at everything, as clients would.
pub(super) fn look(replica: &Replica) -> Result<View, ReplicaError> {
    let mut view = View::new();
    let snapshot = replica.snapshot()?;
    for mailbox in snapshot.mailboxes()? {
        let shown = snapshot.messages(mailbox.id, Uid::FIRST, usize::MAX)?;
        let messages = shown.into_iter().map(|m| (m.uid.value(), (m.entry, m.keywords))).collect();
        let (validity, next) = (mailbox.uid_validity.value(), mailbox.uid_next);
        view.insert(mailbox.name.to_string(), Sight { validity, next, messages });
    }
    Ok(view)
}

/// Where a view shows a message.
pub(super) fn place(view: &View, entry: EntryId) -> Option<(&str, u32)> {
    view.iter().find_map(|(name, sight)| {
        let uid = sight.messages.iter().find(|(_, (shown, _))| *shown == entry)?.0;
        Some((name.as_str(), *uid))
    })
}

/// What a server tells a client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase", tag = "told")]
pub(super) enum Told {
    /// UIDs that are gone.
    Vanished { mailbox: String, uids: Vec<u32> },
    /// A message under a UID that the client has not seen.
    New { mailbox: String, uid: u32, entry: String },
    /// A message's flags.
    Flags { mailbox: String, uid: u32, flags: Vec<String> },
}

/// A promise that was broken, and how.
pub(super) type Broken = (&'static str, String);

/// A client of one server: it never asks twice for what it has.
#[derive(Default)]
pub(super) struct Caching {
    cache: View,
    vanished: BTreeSet<(String, u32, u32)>,
    pub(super) broken: Vec<Broken>,
}

impl Caching {
    /// Takes what its server shows now; gives what it was told. Everything that its cache cannot bear is noted.
    pub(super) fn poll(&mut self, now: &View) -> Vec<Told> {
        let mut told = Vec::new();
        for (name, sight) in now {
            if let Some(old) = self.cache.get(name).cloned() {
                if sight.validity < old.validity {
                    self.broken.push(("P1", format!("the UIDVALIDITY of {name} fell")));
                }
                match sight.validity == old.validity {
                    true => self.compare(name, &old, sight, &mut told),
                    false => self.broken.push(("P5", format!("the UIDVALIDITY of {name} changed"))),
                }
            }
        }
        self.cache = now.clone();
        told
    }

    fn compare(&mut self, name: &str, old: &Sight, new: &Sight, told: &mut Vec<Told>) {
        let mailbox = || name.to_owned();
        if new.next < old.next {
            self.broken.push(("P2", format!("UIDNEXT of {name} fell from {} to {}", old.next, new.next)));
        }
        let gone: Vec<u32> =
            old.messages.keys().filter(|uid| !new.messages.contains_key(uid)).copied().collect();
        self.vanished.extend(gone.iter().map(|uid| (mailbox(), new.validity, *uid)));
        if !gone.is_empty() {
            told.push(Told::Vanished { mailbox: mailbox(), uids: gone });
        }
        for (uid, (entry, flags)) in &new.messages {
            let uid = *uid;
            match old.messages.get(&uid) {
                Some((known, _)) if known != entry => {
                    self.broken.push(("P1", format!("UID {uid} of {name} is another message now")));
                }
                Some((_, known)) if known != flags => {
                    let flags = flags.iter().map(ToString::to_string).collect();
                    told.push(Told::Flags { mailbox: mailbox(), uid, flags });
                }
                Some(_) => {}
                None => {
                    if uid < old.next {
                        let what = format!("UID {uid} of {name} appeared below UIDNEXT {}", old.next);
                        self.broken.push(("P2", what));
                    }
                    if self.vanished.contains(&(mailbox(), new.validity, uid)) {
                        self.broken.push(("P2", format!("UID {uid} of {name} came back")));
                    }
                    told.push(Told::New { mailbox: mailbox(), uid, entry: entry.to_string() });
                }
            }
        }
    }
}

/// A client that goes from server to server and keeps one cache for all.
#[derive(Default)]
pub(super) struct Roaming {
    known: BTreeMap<(String, u32, u32), EntryId>,
    pub(super) broken: Vec<Broken>,
}

impl Roaming {
    /// Takes what some server shows now.
    pub(super) fn poll(&mut self, now: &View) {
        for (name, sight) in now {
            for (uid, (entry, _)) in &sight.messages {
                let known = self.known.entry((name.clone(), sight.validity, *uid)).or_insert(*entry);
                if known != entry {
                    self.broken.push(("P4", format!("UID {uid} of {name} is two messages on two servers")));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(next: u32, messages: &[(u32, u8)]) -> View {
        let messages = messages
            .iter()
            .map(|(uid, entry)| (*uid, (EntryId::from_bytes([*entry; 16]), BTreeSet::new())))
            .collect();
        [("INBOX".to_owned(), Sight { validity: 1, next, messages })].into()
    }

    #[test]
    fn a_server_that_lies_is_caught() {
        for (then, promise) in [
            (view(4, &[(1, 9), (3, 3)]), "P1"),
            (view(4, &[(1, 1), (2, 2), (3, 3)]), "P2"),
            (view(3, &[(1, 1)]), "P2"),
        ] {
            let mut client = Caching::default();
            client.poll(&view(4, &[(1, 1), (3, 3)]));
            client.poll(&then);
            assert_eq!(client.broken.first().map(|broken| broken.0), Some(promise), "{then:?}");
        }
        let mut roaming = Roaming::default();
        roaming.poll(&view(3, &[(2, 1)]));
        roaming.poll(&view(3, &[(2, 2)]));
        assert_eq!(roaming.broken[0].0, "P4");
    }

    #[test]
    fn an_honest_server_is_not_blamed() {
        let mut client = Caching::default();
        client.poll(&view(4, &[(1, 1), (3, 3)]));
        let told = client.poll(&view(6, &[(1, 1), (5, 3)]));
        assert_eq!(told.len(), 2);
        assert!(client.broken.is_empty());
    }
}
