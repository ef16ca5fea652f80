//! One replica of the model, what its clients believe, and what is checked whenever they look.

use std::collections::{BTreeMap, BTreeSet};

use super::Outcome;
use crate::mailbox::{
    AccountId, Change, Document, EntryId, Keyword, MailboxId, MailboxName, ReplicaId, Uid, UidValidity,
};
use crate::uid::pass::Rules;
use crate::uid::{Account, Block, Grant, Mailbox, MemoryTables, PrivateUids, Shown, View, Written};

pub(super) const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);

/// What is durable, in the order of its commits.
#[derive(Clone)]
pub(super) enum Group {
    Changes(Vec<Change>),
    Private(PrivateUids),
    Restored(UidValidity, i64),
}

/// One client's memory of one mailbox: what it was told under a name and a UIDVALIDITY.
#[derive(Default)]
pub(super) struct Cache {
    uids: BTreeMap<u32, EntryId>,
    gone: BTreeSet<u32>,
    uid_next: u32,
}

/// A client that reads everything once and then only what changed since its mod-sequence (RFC 7162).
#[derive(Default)]
pub(super) struct Follower {
    counter: u64,
    messages: BTreeMap<Uid, BTreeSet<Keyword>>,
}

/// A store: the log, and the index as it was at some earlier commit.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) replica: ReplicaId,
    pub(super) grant: Option<Grant>,
    pub(super) log: Vec<Group>,
    pub(super) indexed: (usize, MemoryTables),
}

impl Store {
    pub(super) fn empty(replica: ReplicaId) -> Store {
        Store { replica, grant: None, log: Vec::new(), indexed: (0, MemoryTables::default()) }
    }

    /// The same replica with nothing in its index.
    pub(super) fn blank(&self) -> Store {
        Store { grant: self.grant.clone(), ..Store::empty(self.replica) }
    }
}

pub(super) struct Node {
    pub(super) account: Account,
    pub(super) tables: MemoryTables,
    pub(super) store: Store,
    pub(super) caches: BTreeMap<(MailboxName, UidValidity), Cache>,
    pub(super) highest: BTreeMap<MailboxName, UidValidity>,
    /// What clients that ask only for changes have.
    pub(super) followers: BTreeMap<(MailboxId, UidValidity), Follower>,
    /// What was shown last, to see that a UID changes only when it was burned.
    pub(super) shown: BTreeMap<(MailboxId, UidValidity, EntryId), Uid>,
    /// The highest UIDVALIDITY it ever had, kept outside of the store.
    pub(super) outside: UidValidity,
}

impl Node {
    pub(super) fn open(store: Store, rules: Rules, outside: UidValidity) -> Node {
        let mut doc = Document::new(store.replica);
        let (at, mut tables) = store.indexed.clone();
        for group in &store.log[..at] {
            if let Group::Changes(changes) = group {
                changes.iter().for_each(|change| _ = doc.apply(change).unwrap());
            }
        }
        let mut account =
            Account::new(ACCOUNT, doc, store.grant.clone(), Block::STANDARD, 7).with_rules(rules);
        if tables == MemoryTables::default() {
            account.prepare(&mut tables).unwrap();
        }
        for group in &store.log[at..] {
            match group {
                Group::Changes(changes) => {
                    assert!(account.replay(&mut tables, changes.clone()).unwrap().is_empty())
                }
                Group::Private(uids) => account.take_private(&mut tables, uids).unwrap(),
                Group::Restored(floor, time) => account.restored(&mut tables, *floor, *time).unwrap(),
            }
        }
        let (caches, highest, shown) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let followers = BTreeMap::new();
        let outside = outside.max(account.highest_uid_validity(&tables).unwrap());
        Node { account, tables, store, caches, highest, followers, shown, outside }
    }

    pub(super) fn fresh(replica: ReplicaId, grant: Option<Grant>, rules: Rules) -> Node {
        let store = Store { grant, ..Store::empty(replica) };
        Node::open(store, rules, UidValidity::MIN)
    }

    pub(super) fn commit(&mut self, written: Written) {
        self.store.log.extend(written.batches.into_iter().map(Group::Changes));
        self.outside = self.outside.max(self.account.highest_uid_validity(&self.tables).unwrap());
    }

    pub(super) fn is_server(&self) -> bool {
        self.store.grant.is_some()
    }

    pub(super) fn mailbox(&self, name: &str) -> Option<MailboxId> {
        self.account.view(&self.tables).find(&name.parse().unwrap()).unwrap()
    }

    pub(super) fn entries(&self, mailbox: MailboxId) -> Vec<EntryId> {
        self.account.view(&self.tables).entries_of(mailbox).unwrap()
    }
}

/// The UID of an entry that left the mailbox and came back is another stay's.
pub(super) fn view_left(tables: &MemoryTables, was: Uid, mailbox: &Mailbox) -> bool {
    let view = View::new(tables, ACCOUNT, false);
    view.known_uids(mailbox.id).unwrap().iter().any(|known| {
        let now = view.messages(mailbox.id, Uid::FIRST, usize::MAX).unwrap();
        known.uid == was && known.gone.is_some() && now.iter().all(|m| m.uid != was)
    })
}

pub(super) type Picture = BTreeMap<String, (u32, BTreeMap<EntryId, (Option<Uid>, BTreeSet<Keyword>, i64)>)>;

pub(super) fn picture(node: &Node) -> Picture {
    let view = node.account.view(&node.tables);
    let mailbox = |mailbox: Mailbox| {
        let messages = view.messages(mailbox.id, Uid::FIRST, usize::MAX).unwrap();
        let messages = messages.into_iter().map(|m| (m.entry, (m.shared_uid, m.keywords, m.saved))).collect();
        (mailbox.name.to_string(), (mailbox.uid_validity.value(), messages))
    };
    view.mailboxes().unwrap().into_iter().map(mailbox).collect()
}

pub(super) fn changes(node: &Node) -> impl Iterator<Item = &Change> {
    node.store.log.iter().flat_map(|group| match group {
        Group::Changes(changes) => changes.as_slice(),
        Group::Private(_) | Group::Restored(..) => &[],
    })
}

/// A client that believes everything it was ever told (P1, P2).
pub(super) fn check_cache(
    cache: &mut Cache,
    messages: &[Shown],
    uid_next: u32,
    name: &MailboxName,
) -> Outcome {
    let now: BTreeMap<u32, EntryId> = messages.iter().map(|m| (m.uid.value(), m.entry)).collect();
    for (uid, entry) in &now {
        match cache.uids.get(uid) {
            Some(known) => {
                promise!(known == entry, "P1 {name} UID {uid} is two messages");
                promise!(!cache.gone.contains(uid), "P2 {name} UID {uid} vanished and came back");
            }
            None => promise!(
                *uid >= cache.uid_next,
                "P2 {name} UID {uid} is new below UIDNEXT {}",
                cache.uid_next
            ),
        }
        promise!(*uid < uid_next, "P2 {name} UID {uid} is not below UIDNEXT {uid_next}");
    }
    cache.gone.extend(cache.uids.keys().filter(|uid| !now.contains_key(uid)));
    cache.uids.extend(now);
    promise!(uid_next >= cache.uid_next, "P2 the UIDNEXT of {name} fell");
    cache.uid_next = uid_next;
    Ok(())
}

/// Every way to read a mailbox gives the same: its row, its messages, its UIDs, its changes since any moment.
pub(super) fn check_reads(
    follower: &mut Follower,
    view: &View<'_, MemoryTables>,
    mailbox: &Mailbox,
    messages: &[Shown],
) -> Outcome {
    let name = &mailbox.name;
    let count = |keyword: Keyword| messages.iter().filter(|m| m.keywords.contains(&keyword)).count() as u64;
    let (seen, marked) = (count(Keyword::seen()), count(Keyword::deleted()));
    let size: u64 = messages.iter().map(|m| m.size).sum();
    promise!(messages.len() as u64 == mailbox.messages, "P6 {name} counts {}", mailbox.messages);
    promise!(mailbox.messages - seen == mailbox.unseen, "{name} counts {} unseen", mailbox.unseen);
    promise!(marked == mailbox.marked_deleted, "{name} counts {} deleted", mailbox.marked_deleted);
    promise!(size == mailbox.size, "{name} has {} bytes", mailbox.size);
    promise!(view.find(name).unwrap() == Some(mailbox.id), "{name} is not found by its name");
    let uids: Vec<Uid> = messages.iter().map(|m| m.uid).collect();
    promise!(view.uids(mailbox.id).unwrap() == uids, "{name} lists other UIDs than it shows");
    let highest = mailbox.highest_modseq.counter();
    promise!(messages.iter().all(|m| m.modseq.counter() <= highest), "{name} has a higher mod-sequence");
    let changes = view.changed_since(mailbox.id, follower.counter).unwrap();
    for message in changes.changed {
        follower.messages.insert(message.uid, message.keywords);
    }
    for uid in changes.vanished {
        promise!(uid.value() < mailbox.uid_next, "{name} UID {uid} vanished before it was given");
        follower.messages.remove(&uid);
    }
    follower.counter = highest;
    let now: BTreeMap<Uid, _> = messages.iter().map(|m| (m.uid, m.keywords.clone())).collect();
    promise!(follower.messages == now, "the changes of {name} since {highest} are not all");
    Ok(())
}
