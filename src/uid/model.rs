//! The promise, tried on random schedules of the real document and the real pass.
//!
//! Replicas deliver, move, copy, expunge, flag, rename, delete and adopt, exchange some of what they have, crash, are
//! restored and made anew. Each has a strict caching client; one more client roams between all servers. P1 to P5 are
//! checked whenever a mailbox is shown; in the end all must agree and be quiet. The same schedules find a violation as
//! soon as one rule is taken out.

use std::collections::{BTreeMap, BTreeSet};

use super::pass::Rules;
use super::{Account, Block, Grant, Imported, KeywordChange, MemoryTables, PrivateUids, Shown, Written};
use crate::blob::BlobId;
use crate::mailbox::{
    AccountId, Change, Document, EntryId, Keyword, MailboxId, MailboxName, Message, ReplicaId, Uid,
    UidValidity,
};

const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);
const NAMES: [&str; 4] = ["INBOX", "Work", "Work/Old", "Lists"];

/// A violated promise and where.
#[derive(Debug)]
struct Violation(String);

macro_rules! promise {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err(Violation(format!($($what)*)));
        }
    };
}

/// SplitMix64: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { Some(&from[self.below(from.len())]) }
    }
}

/// What is durable, in the order of its commits.
#[derive(Clone)]
enum Group {
    Changes(Vec<Change>),
    Private(PrivateUids),
    Restored(UidValidity, i64),
}

/// One client's memory of one mailbox: what it was told under a name and a UIDVALIDITY.
#[derive(Default)]
struct Cache {
    uids: BTreeMap<u32, EntryId>,
    gone: BTreeSet<u32>,
    uid_next: u32,
}

/// A store: the log, and the index as it was at some earlier commit.
#[derive(Clone)]
struct Store {
    replica: ReplicaId,
    grant: Option<Grant>,
    log: Vec<Group>,
    indexed: (usize, MemoryTables),
}

impl Store {
    fn empty(replica: ReplicaId) -> Store {
        Store { replica, grant: None, log: Vec::new(), indexed: (0, MemoryTables::default()) }
    }

    /// The same replica with nothing in its index.
    fn blank(&self) -> Store {
        Store { grant: self.grant.clone(), ..Store::empty(self.replica) }
    }
}

struct Node {
    account: Account,
    tables: MemoryTables,
    store: Store,
    caches: BTreeMap<(MailboxName, UidValidity), Cache>,
    highest: BTreeMap<MailboxName, UidValidity>,
    /// What was shown last, to see that a UID changes only when it was burned.
    shown: BTreeMap<(MailboxId, UidValidity, EntryId), Uid>,
    /// The highest UIDVALIDITY it ever had, kept outside of the store.
    outside: UidValidity,
}

struct World {
    random: Random,
    rules: Rules,
    nodes: Vec<Node>,
    /// What the roaming client was shown anywhere.
    roaming: BTreeMap<(MailboxName, UidValidity, u32), EntryId>,
    replicas: u8,
    bodies: u32,
    time: i64,
    /// Whether mailboxes are renamed, deleted, adopted and stores restored: only then may a UIDVALIDITY change.
    mailboxes_change: bool,
}

type Outcome = Result<(), Violation>;

impl Node {
    fn open(store: Store, rules: Rules, outside: UidValidity) -> Node {
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
        let outside = outside.max(account.highest_uid_validity(&tables).unwrap());
        Node { account, tables, store, caches, highest, shown, outside }
    }

    fn fresh(replica: ReplicaId, grant: Option<Grant>, rules: Rules) -> Node {
        let store = Store { grant, ..Store::empty(replica) };
        Node::open(store, rules, UidValidity::MIN)
    }

    fn commit(&mut self, written: Written) {
        self.store.log.extend(written.batches.into_iter().map(Group::Changes));
        self.outside = self.outside.max(self.account.highest_uid_validity(&self.tables).unwrap());
    }

    fn is_server(&self) -> bool {
        self.store.grant.is_some()
    }

    fn mailbox(&self, name: &str) -> Option<MailboxId> {
        self.account.view(&self.tables).find(&name.parse().unwrap()).unwrap()
    }

    fn entries(&self, mailbox: MailboxId) -> Vec<EntryId> {
        self.account.view(&self.tables).entries_of(mailbox).unwrap()
    }
}

impl World {
    fn new(seed: u64, rules: Rules) -> World {
        let mut random = Random(seed);
        let servers = 2 + random.below(5);
        let observers = random.below(3);
        let mut grants = vec![Grant::whole()];
        while grants.len() < servers {
            let at = random.below(grants.len());
            let (keep, give) = grants[at].split(&BTreeMap::new()).unwrap();
            grants[at] = keep;
            grants.push(give);
        }
        let grants = grants.into_iter().map(Some).chain(std::iter::repeat_n(None, observers));
        let node = |(n, grant)| Node::fresh(ReplicaId::from_bytes([n as u8 + 1; 16]), grant, rules);
        let nodes: Vec<Node> = grants.enumerate().map(node).collect();
        let replicas = nodes.len() as u8;
        let mailboxes_change = !seed.is_multiple_of(3);
        World {
            random,
            rules,
            nodes,
            roaming: BTreeMap::new(),
            replicas,
            bodies: 0,
            time: 1000,
            mailboxes_change,
        }
    }

    fn message(&mut self) -> Message {
        self.bodies += 1;
        let keywords = if self.random.chance(30) { [Keyword::seen()].into() } else { BTreeSet::new() };
        let internal_date = self.random.below(50) as i64;
        Message { blob: BlobId::of(&self.bodies.to_le_bytes()), internal_date, size: 10, keywords }
    }

    fn step(&mut self) -> Outcome {
        self.time += 1;
        let n = self.random.below(self.nodes.len());
        match self.random.below(100) {
            0..20 => self.deliver(n),
            20..32 => self.move_some(n),
            32..40 => self.expunge_some(n),
            40..45 => self.copy_some(n),
            45..52 => self.flag_some(n),
            52..57 if self.mailboxes_change => self.change_mailboxes(n),
            57..60 if self.mailboxes_change => self.adopt(n),
            60..63 => self.crash(n),
            63..65 if self.mailboxes_change => self.restore(n),
            65 if self.mailboxes_change => self.make_anew(n),
            66..82 => return self.serve(n),
            _ => self.pull_some(n),
        }
        Ok(())
    }

    fn deliver(&mut self, n: usize) {
        let messages = vec![self.message()];
        let name = *self.random.pick(&NAMES).unwrap();
        self.with(n, |node, time| {
            let mailbox = node.mailbox(name).unwrap_or(MailboxId::inbox());
            node.account.append(&mut node.tables, time, mailbox, messages).unwrap().1
        });
    }

    /// Does something to a replica and commits it.
    fn with(&mut self, n: usize, act: impl FnOnce(&mut Node, i64) -> Written) {
        let node = &mut self.nodes[n];
        let written = act(node, self.time);
        node.commit(written);
    }

    fn some_entries(&mut self, n: usize) -> Vec<EntryId> {
        let mailboxes = self.nodes[n].account.view(&self.nodes[n].tables).mailboxes().unwrap();
        let Some(mailbox) = self.random.pick(&mailboxes) else { return Vec::new() };
        let mut entries = self.nodes[n].entries(mailbox.id);
        let keep = 1 + self.random.below(2);
        while entries.len() > keep {
            entries.swap_remove(self.random.below(entries.len()));
        }
        entries
    }

    fn move_some(&mut self, n: usize) {
        let (entries, name) = (self.some_entries(n), *self.random.pick(&NAMES).unwrap());
        self.with(n, |node, time| match node.mailbox(name) {
            Some(target) => node.account.move_to(&mut node.tables, time, &entries, target).unwrap(),
            None => Written::default(),
        });
    }

    fn copy_some(&mut self, n: usize) {
        let (entries, name) = (self.some_entries(n), *self.random.pick(&NAMES).unwrap());
        self.with(n, |node, time| match node.mailbox(name) {
            Some(target) => node.account.copy(&mut node.tables, time, &entries, target).unwrap().1,
            None => Written::default(),
        });
    }

    fn expunge_some(&mut self, n: usize) {
        let entries = self.some_entries(n);
        self.with(n, |node, time| node.account.expunge(&mut node.tables, time, &entries).unwrap());
    }

    fn flag_some(&mut self, n: usize) {
        let entries = self.some_entries(n);
        let keyword = [Keyword::seen(), Keyword::deleted()][self.random.below(2)].clone();
        let (set, clear) = match self.random.chance(50) {
            true => (BTreeSet::from([keyword]), BTreeSet::new()),
            false => (BTreeSet::new(), BTreeSet::from([keyword])),
        };
        self.with(n, |node, t| {
            let change = KeywordChange::Edit { set, clear };
            node.account.store_keywords(&mut node.tables, t, &entries, &change).unwrap()
        });
    }

    fn change_mailboxes(&mut self, n: usize) {
        let name =
            |random: &mut Random| NAMES[1 + random.below(NAMES.len() - 1)].parse::<MailboxName>().unwrap();
        let (from, to, what) = (name(&mut self.random), name(&mut self.random), self.random.below(4));
        self.with(n, |node, time| {
            let tables = &mut node.tables;
            // Errors are those of a user who names what is not there.
            let done = match what {
                0 => node.account.delete_mailbox(tables, time, &from),
                1 => node.account.rename_mailbox(tables, time, &from, &to),
                _ => node.account.create_mailbox(tables, time, &from, None).map(|(_, written)| written),
            };
            done.unwrap_or_default()
        });
    }

    /// Several servers had one folder under a Dovecot before, each perhaps with another end of it.
    fn adopt(&mut self, n: usize) {
        let name: MailboxName = "Adopted".parse().unwrap();
        let count = 3 + self.random.below(3) as u32;
        let other_validity = self.random.chance(15);
        let node = &mut self.nodes[n];
        if node.account.view(&node.tables).find(&name).unwrap().is_some() {
            return;
        }
        let Ok((mailbox, mut written)) =
            node.account.create_mailbox(&mut node.tables, self.time, &name, None)
        else {
            return;
        };
        let row = node.account.view(&node.tables).mailbox(mailbox).unwrap();
        let adopts = mailbox == MailboxId::derive(&name, 0) && row.is_some_and(|row| row.uid_next == 1);
        let view = node.account.view(&node.tables);
        let messages: Vec<Imported> = (0..count)
            .map(|i| Imported {
                message: Message {
                    blob: BlobId::of(&[i as u8; 7]),
                    internal_date: i64::from(i),
                    size: 7,
                    keywords: BTreeSet::new(),
                },
                occurrence: 0,
                uid: Uid::new(3 * i + 1),
            })
            .filter(|m| {
                let id = crate::mailbox::Pack::imported_id(mailbox, &m.message.blob, 0);
                view.entry(id).unwrap().is_none()
            })
            .collect();
        let validity = UidValidity::new(if other_validity { 900_000 } else { 800_000 }).unwrap();
        // A folder's UIDVALIDITY is only adopted where the name is new to this replica.
        // The floor may be the very UID that a longer end of the list has for its next message.
        let floor = if self.random.chance(50) { 3 * count + 1 } else { 3 * count + 5 };
        let adopted = adopts.then_some((validity, floor));
        written
            .append(node.account.import(&mut node.tables, self.time, mailbox, &messages, adopted).unwrap());
        node.commit(written);
    }

    /// Power fails: what is durable is there again, the index from an earlier commit on.
    fn crash(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let mut store = node.store.clone();
        if self.random.chance(50) {
            store.indexed = (store.log.len(), node.tables.clone());
        }
        let mut opened = Node::open(store, self.rules, node.outside);
        std::mem::swap(&mut opened.caches, &mut node.caches);
        std::mem::swap(&mut opened.highest, &mut node.highest);
        std::mem::swap(&mut opened.shown, &mut node.shown);
        assert_eq!(opened.tables, node.tables, "an index built anew differs");
        *node = opened;
    }

    /// The store is copied back from a backup and notices it: a new replica id, and epochs that were never used.
    fn restore(&mut self, n: usize) {
        let keep = self.random.below(self.nodes[n].store.log.len() + 1);
        let replica = self.new_replica();
        let node = &mut self.nodes[n];
        let mut log = node.store.log[..keep].to_vec();
        log.push(Group::Restored(node.outside, self.time));
        let store = Store { replica, log, ..node.store.blank() };
        let mut opened = Node::open(store, self.rules, node.outside);
        std::mem::swap(&mut opened.caches, &mut node.caches);
        std::mem::swap(&mut opened.highest, &mut node.highest);
        *node = opened;
    }

    /// A server's store is lost for good; another replica takes its place, with half of somebody's lane.
    fn make_anew(&mut self, n: usize) {
        if !self.nodes[n].is_server() {
            return;
        }
        let giver = self.random.below(self.nodes.len());
        let account = &mut self.nodes[giver].account;
        let halves = account.grant().and_then(|grant| grant.split(account.document().version()));
        let Some((keep, give)) = halves.filter(|_| giver != n) else { return };
        account.set_grant(Some(keep.clone()));
        self.nodes[giver].store.grant = Some(keep);
        let replica = self.new_replica();
        self.nodes[n] = Node::fresh(replica, Some(give), self.rules);
    }

    fn new_replica(&mut self) -> ReplicaId {
        self.replicas += 1;
        ReplicaId::from_bytes([self.replicas; 16])
    }

    /// One replica gets what another one has, or some of it that is closed under dependencies.
    fn pull_some(&mut self, n: usize) {
        let from = self.random.below(self.nodes.len());
        let partial = self.random.chance(40);
        self.pull(n, from, partial);
    }

    fn pull(&mut self, to: usize, from: usize, partial: bool) {
        if to == from {
            return;
        }
        let known: BTreeSet<[u8; 32]> = changes(&self.nodes[to]).map(Change::hash).collect();
        let theirs: Vec<Change> =
            changes(&self.nodes[from]).filter(|c| !known.contains(&c.hash())).cloned().collect();
        if theirs.is_empty() {
            return;
        }
        let mut wanted = BTreeSet::new();
        if partial {
            wanted.insert(theirs[self.random.below(theirs.len())].hash());
        }
        let mut batch: Vec<Change> = Vec::new();
        for change in theirs.into_iter().rev() {
            if !partial || wanted.contains(&change.hash()) {
                wanted.extend(change.deps());
                batch.push(change);
            }
        }
        batch.reverse();
        let node = &mut self.nodes[to];
        let written = node.account.receive(&mut node.tables, batch).unwrap();
        node.commit(written);
    }

    /// A client looks at every mailbox of a replica; so does the one that roams.
    fn serve(&mut self, n: usize) -> Outcome {
        let time = self.time;
        self.with(n, |node, time| node.account.settle(&mut node.tables, time, None).unwrap());
        let node = &mut self.nodes[n];
        if !node.account.is_ready() {
            return Ok(());
        }
        let mailboxes = node.account.view(&node.tables).mailboxes().unwrap();
        for mailbox in &mailboxes {
            while let Some(uids) = node.account.plan_private(&node.tables, time, mailbox.id).unwrap() {
                node.account.take_private(&mut node.tables, &uids).unwrap();
                node.store.log.push(Group::Private(uids));
            }
        }
        let view = node.account.view(&node.tables);
        for mailbox in view.mailboxes().unwrap() {
            let messages = view.messages(mailbox.id, Uid::FIRST, usize::MAX).unwrap();
            promise!(
                messages.len() as u64 == mailbox.messages,
                "P6 {} counts {}",
                mailbox.name,
                mailbox.messages
            );
            let unseen = messages.iter().filter(|m| !m.keywords.contains(&Keyword::seen())).count();
            promise!(unseen as u64 == mailbox.unseen, "{} counts {} unseen", mailbox.name, mailbox.unseen);
            let highest = node.highest.entry(mailbox.name.clone()).or_insert(mailbox.uid_validity);
            let (now, was) = (mailbox.uid_validity, *highest);
            promise!(
                now >= was,
                "P1 replica {n}: the UIDVALIDITY of {} fell from {was} to {now}",
                mailbox.name
            );
            if !self.mailboxes_change && node.store.grant.is_some() {
                promise!(mailbox.uid_validity == *highest, "P5 the UIDVALIDITY of {} changed", mailbox.name);
            }
            *highest = mailbox.uid_validity;
            let key = (mailbox.name.clone(), mailbox.uid_validity);
            check_cache(node.caches.entry(key).or_default(), &messages, mailbox.uid_next, &mailbox.name)?;
            if node.store.grant.is_some() {
                let burned: BTreeSet<Uid> =
                    view.known_uids(mailbox.id).unwrap().iter().filter(|k| k.burned).map(|k| k.uid).collect();
                for message in &messages {
                    let roaming = (mailbox.name.clone(), mailbox.uid_validity, message.uid.value());
                    let first = *self.roaming.entry(roaming).or_insert(message.entry);
                    promise!(
                        first == message.entry,
                        "P4 {} UID {} is two messages",
                        mailbox.name,
                        message.uid
                    );
                    let key = (mailbox.id, mailbox.uid_validity, message.entry);
                    let was = node.shown.insert(key, message.uid).unwrap_or(message.uid);
                    let calm =
                        was == message.uid || burned.contains(&was) || view_left(&node.tables, was, &mailbox);
                    promise!(calm, "P5 {} UID {was} became {}", mailbox.name, message.uid);
                }
            }
        }
        Ok(())
    }

    /// Faults stop; everybody hears of everything.
    fn heal(&mut self) -> Outcome {
        for round in 0.. {
            promise!(round < 100, "no quiet after healing");
            self.time += 1;
            for n in 0..self.nodes.len() {
                let from = self.random.below(self.nodes.len());
                self.pull(n, from, false);
                if self.random.chance(70) {
                    self.serve(n)?;
                }
            }
            let heads = self.nodes[0].account.document().heads();
            if self.nodes.iter().all(|node| node.account.document().heads() == heads) {
                for n in 0..self.nodes.len() {
                    self.serve(n)?;
                }
                if self.nodes.iter().all(|node| node.account.document().heads() == heads) {
                    break;
                }
            }
        }
        self.agree()
    }

    fn agree(&mut self) -> Outcome {
        // Who waits for changes that died with their author's disk serves nobody; its operator invites it anew.
        let ready = self.nodes.iter().filter(|node| node.account.is_ready());
        let all: Vec<_> = ready.map(|node| (node.is_server(), picture(node))).collect();
        let Some((_, server)) = all.iter().find(|(is_server, _)| *is_server) else { return Ok(()) };
        for (n, (is_server, picture)) in all.iter().enumerate() {
            for (name, mailbox) in picture {
                let theirs = server.get(name);
                let same = match is_server {
                    true => theirs == Some(mailbox),
                    false => theirs.is_some_and(|theirs| theirs.1 == mailbox.1),
                };
                promise!(same, "P3 replica {n} shows {name} otherwise: {mailbox:?} and {theirs:?}");
            }
            promise!(picture.len() == server.len(), "P3 replica {n} shows other mailboxes");
        }
        Ok(())
    }
}

/// The UID of an entry that left the mailbox and came back is another stay's.
fn view_left(tables: &MemoryTables, was: Uid, mailbox: &super::Mailbox) -> bool {
    let view = super::View::new(tables, ACCOUNT, false);
    view.known_uids(mailbox.id).unwrap().iter().any(|known| {
        let now = view.messages(mailbox.id, Uid::FIRST, usize::MAX).unwrap();
        known.uid == was && known.gone.is_some() && now.iter().all(|m| m.uid != was)
    })
}

type Picture = BTreeMap<String, (u32, BTreeMap<EntryId, (Option<Uid>, BTreeSet<Keyword>)>)>;

fn picture(node: &Node) -> Picture {
    let view = node.account.view(&node.tables);
    let mailbox = |mailbox: super::Mailbox| {
        let messages = view.messages(mailbox.id, Uid::FIRST, usize::MAX).unwrap();
        let messages = messages.into_iter().map(|m| (m.entry, (m.shared_uid, m.keywords))).collect();
        (mailbox.name.to_string(), (mailbox.uid_validity.value(), messages))
    };
    view.mailboxes().unwrap().into_iter().map(mailbox).collect()
}

fn changes(node: &Node) -> impl Iterator<Item = &Change> {
    node.store.log.iter().flat_map(|group| match group {
        Group::Changes(changes) => changes.as_slice(),
        Group::Private(_) | Group::Restored(..) => &[],
    })
}

/// A client that believes everything it was ever told (P1, P2).
fn check_cache(cache: &mut Cache, messages: &[Shown], uid_next: u32, name: &MailboxName) -> Outcome {
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

fn run(seed: u64, rules: Rules) -> Outcome {
    let mut world = World::new(seed, rules);
    for _ in 0..60 {
        world.step()?;
    }
    world.heal()
}

/// Seeds that once failed: a floor that did not burn itself (19), UIDVALIDITYs after a restore (88, 281), lanes given away
/// too early (550), a claim that came with its expunge (3455).
const KEPT: [u64; 5] = [19, 88, 281, 550, 3455];

#[expect(clippy::disallowed_methods, reason = "a longer run is asked for by hand")]
fn schedules() -> u64 {
    std::env::var("POSTMERGE_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

#[test]
fn the_promise_holds_on_random_schedules() {
    for seed in KEPT.into_iter().chain(0..schedules()) {
        if let Err(Violation(what)) = run(seed, Rules::ALL) {
            panic!("seed {seed}: {what}");
        }
    }
}

/// The first violation that some seed finds without a rule.
fn caught(rules: Rules, promise: &str) -> bool {
    (0..4000).any(|seed| run(seed, rules).is_err_and(|Violation(what)| what.starts_with(promise)))
}

#[test]
fn without_rule_3b_a_uid_appears_below_uidnext() {
    assert!(caught(Rules { spanned: false, ..Rules::ALL }, "P2"));
}

#[test]
fn without_rule_3c_a_vanished_uid_comes_back() {
    assert!(caught(Rules { recorded: false, ..Rules::ALL }, "P2"));
}

#[test]
fn without_lanes_a_roaming_client_sees_two_messages_under_one_uid() {
    assert!(caught(Rules { lanes: false, ..Rules::ALL }, "P4"));
}

#[test]
fn without_lanes_and_rule_3a_one_uid_is_two_messages() {
    assert!(caught(Rules { lanes: false, contested: false, ..Rules::ALL }, "P"));
}
