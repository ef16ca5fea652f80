//! What happens to the replicas of a model, at random.

use std::collections::{BTreeMap, BTreeSet};

use super::node::{Group, Node, Store, changes, check_cache, check_reads, picture, view_left};
use super::{Outcome, Random};
use crate::blob::BlobId;
use crate::mailbox::{
    Change, EntryId, Keyword, MailboxId, MailboxName, Message, Pack, ReplicaId, Uid, UidValidity,
};
use crate::uid::pass::Rules;
use crate::uid::{Grant, Imported, KeywordChange, Written};

const NAMES: [&str; 4] = ["INBOX", "Work", "Work/Old", "Lists"];

pub(super) struct World {
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

impl World {
    pub(super) fn new(seed: u64, rules: Rules) -> World {
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

    pub(super) fn step(&mut self) -> Outcome {
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
                    // Each copy of the folder got dates of its own.
                    internal_date: (i64::from(i) + 5 * n as i64 + self.time) % 11,
                    size: 7,
                    keywords: BTreeSet::new(),
                },
                occurrence: 0,
                uid: Uid::new(3 * i + 1),
            })
            .filter(|m| {
                let id = Pack::imported_id(mailbox, &m.message.blob, 0);
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
        std::mem::swap(&mut opened.followers, &mut node.followers);
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
            // The model never has more messages than one plan takes.
            for round in 0.. {
                let planned = node.account.plan_private(&node.tables, time, mailbox.id).unwrap();
                let Some(uids) = planned else { break };
                promise!(round == 0, "replica {n} gives private UIDs of {} without end", mailbox.name);
                node.account.take_private(&mut node.tables, &uids).unwrap();
                node.store.log.push(Group::Private(uids));
            }
        }
        let view = node.account.view(&node.tables);
        for mailbox in view.mailboxes().unwrap() {
            let messages = view.messages(mailbox.id, Uid::FIRST, usize::MAX).unwrap();
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
            let follower = node.followers.entry((mailbox.id, mailbox.uid_validity)).or_default();
            check_reads(follower, &view, &mailbox, &messages)?;
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
    pub(super) fn heal(&mut self) -> Outcome {
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
