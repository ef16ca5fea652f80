//! Faults stop. Everybody must come to the same, and then be quiet.

use std::collections::{BTreeMap, BTreeSet};

use super::world::World;
use super::{Outcome, Report, Violation};
use crate::mailbox::{EntryId, Keyword, Uid};
use crate::member::{Record, Role};
use crate::replica::core::Standing;
use crate::replica::{Replica, Stay, members};

/// Exchanges with its neighbours that a replica may need until it has what all have.
const ROUNDS: u64 = 3;

/// A message as everybody must have it: the UID that servers show, keywords, body, dates.
type Message = (Option<Uid>, Vec<Keyword>, crate::blob::BlobId, i64, i64);

/// A mailbox: UIDVALIDITY and UIDNEXT, which only servers share, and the messages.
#[derive(Debug, PartialEq, Eq)]
struct Picture {
    numbers: Option<(u32, u32)>,
    messages: BTreeMap<EntryId, Message>,
}

impl World {
    pub(super) fn heal(mut self) -> Result<Report, Violation> {
        self.deaf.clear();
        if self.random.chance(50) {
            (0..self.connections.len()).for_each(|c| self.sever(c));
        }
        for n in self.alive() {
            if self.sites[n].replica.is_some() && self.sites[n].fault.is_stopped() {
                self.crash(n)?;
            }
            self.sites[n].fault.resume();
            while self.sites[n].replica.is_none() {
                self.restart(n)?;
            }
            self.sites[n].fault.resume();
        }
        let neighbours = self.neighbours();
        let mut rounds = 0;
        loop {
            rounds += 1;
            self.exchange(&neighbours)?;
            if self.are_equal() {
                break;
            }
            promise!(rounds < ROUNDS, "P3 {rounds} exchanges were not enough: {}", self.states());
        }
        self.be_quiet()?;
        self.agree()?;
        let (steps, time) = (self.steps, self.time);
        let first = self.alive().next().and_then(|n| self.sites[n].replica.clone());
        let digest = first.map(|replica| replica.digest().unwrap()).unwrap_or_default();
        let end = u64::from_le_bytes(digest[..8].try_into().expect("eight of sixteen"));
        Ok(Report { steps, time, rounds, end })
    }

    fn alive(&self) -> impl Iterator<Item = usize> + use<> {
        let alive: Vec<usize> = (0..self.sites.len()).filter(|n| !self.sites[*n].retired).collect();
        alive.into_iter()
    }

    /// A random connected topology, in which each opens three conversations at most. Members who do not know each other, and cannot be
    /// introduced, do not talk: `docs/testing.md` says which stores that were put back are lost to the others.
    fn neighbours(&mut self) -> Vec<(usize, usize)> {
        let mut alive: Vec<usize> = self.alive().collect();
        for i in (1..alive.len()).rev() {
            let j = self.random.below(i + 1);
            alive.swap(i, j);
        }
        let mut reached: Vec<usize> = alive.iter().copied().take(1).collect();
        let mut pairs = Vec::new();
        loop {
            let meets =
                |n: &usize| !reached.contains(n) && reached.iter().any(|m| self.know_each_other(*n, *m));
            let Some(n) = alive.iter().copied().find(meets) else { break };
            let friends: Vec<usize> =
                reached.iter().copied().filter(|m| self.know_each_other(n, *m)).collect();
            for _ in 0..1 + self.random.below(3) {
                let pair = (n, friends[self.random.below(friends.len())]);
                if !pairs.contains(&pair) {
                    pairs.push(pair);
                }
            }
            reached.push(n);
        }
        for n in alive.into_iter().filter(|n| !reached.contains(n)) {
            self.ends_at(n).into_iter().for_each(|(c, _)| self.sever(c));
            self.retire_site(n);
        }
        pairs
    }

    fn know_each_other(&self, one: usize, other: usize) -> bool {
        let knows = |n: usize, m: usize| {
            let (Some(here), Some(there)) = (&self.sites[n].replica, &self.sites[m].replica) else {
                return false;
            };
            let said = there.with(|core| {
                let id = core.identity.replica;
                Ok((id, members::introduction(&core.members, id)))
            });
            let (id, introduction) = said.unwrap();
            let records = introduction.iter().map(|record| Record::decode(record).unwrap());
            let mut members = here.with(|core| Ok(core.members.clone())).unwrap();
            members.take_in(records).unwrap();
            members.is_active(id)
        };
        knows(one, other) && knows(other, one)
    }

    /// Everybody talks to its neighbours until nobody has anything to say.
    fn exchange(&mut self, neighbours: &[(usize, usize)]) -> Outcome {
        for (from, to) in neighbours {
            self.dial(*from, *to, Stay::Live)?;
        }
        self.settle_down()?;
        for n in self.alive() {
            self.look(n)?;
        }
        self.settle_down()
    }

    fn settle_down(&mut self) -> Outcome {
        for turn in 0.. {
            promise!(turn < 10_000, "no quiet after healing");
            let mut moved = false;
            let mut c = 0;
            while c < self.connections.len() {
                moved |= self.pump_whole(c)?;
                c += 1;
            }
            if !moved {
                self.tidy();
                return Ok(());
            }
        }
        Ok(())
    }

    fn replicas(&self) -> Vec<(usize, Replica)> {
        self.alive().filter_map(|n| Some((n, self.sites[n].replica.clone()?))).collect()
    }

    /// How everybody is, for whoever looks for the cause of a violation.
    fn states(&self) -> String {
        let state = |(n, replica): (usize, Replica)| {
            let (status, members) = (replica.status().unwrap(), replica.peers().unwrap().len());
            let (standing, changes, owed) = (replica.standing(), status.changes, status.owed_bodies);
            format!("site {n} {standing:?}: {changes} changes, {members} members, {owed} owed")
        };
        let states: Vec<String> = self.replicas().into_iter().map(state).collect();
        format!("{}; {}", states.join("; "), self.ended.join("; "))
    }

    fn are_equal(&self) -> bool {
        let digests: Vec<_> = self.replicas().iter().map(|(_, replica)| replica.digest().unwrap()).collect();
        digests.windows(2).all(|two| two[0] == two[1])
    }

    /// Nobody writes anything any more, whoever looks.
    fn be_quiet(&mut self) -> Outcome {
        let before: Vec<_> = self.replicas().iter().map(|(_, replica)| replica.digest().unwrap()).collect();
        for n in self.alive() {
            self.look(n)?;
        }
        let after: Vec<_> = self.replicas().iter().map(|(_, replica)| replica.digest().unwrap()).collect();
        promise!(before == after, "P3 replicas go on writing though all are equal");
        Ok(())
    }

    fn agree(&mut self) -> Outcome {
        let replicas = self.replicas();
        let mut all: Vec<(usize, BTreeMap<String, Picture>)> = Vec::new();
        for (n, replica) in &replicas {
            self.sites[*n].keeps_its_promises(*n)?;
            // Who waits for changes that died with their author's disk serves nobody; its operator invites it anew.
            if replica.standing() != Standing::Waiting {
                all.push((*n, picture(replica)));
            }
        }
        let servers = all.iter().filter(|(n, _)| self.sites[*n].role == Role::Server);
        for two in servers.collect::<Vec<_>>().windows(2) {
            let same = two[0].1 == two[1].1;
            promise!(same, "P3 sites {} and {} differ: {:?}, {:?}", two[0].0, two[1].0, two[0].1, two[1].1);
        }
        for two in all.windows(2) {
            let messages = |all: &BTreeMap<String, Picture>| {
                let all = all.iter().flat_map(|(name, all)| all.messages.iter().map(move |one| (name, one)));
                all.map(|(name, (entry, message))| format!("{name} {entry} {message:?}"))
                    .collect::<BTreeSet<_>>()
            };
            let (one, other) = (messages(&two[0].1), messages(&two[1].1));
            let differ: Vec<&String> = one.symmetric_difference(&other).collect();
            promise!(differ.is_empty(), "P3 sites {} and {} differ: {differ:?}", two[0].0, two[1].0);
        }
        self.nothing_is_lost(&replicas)
    }

    /// Messages that were accepted and not expunged are everywhere, and so are bodies that anybody has.
    fn nothing_is_lost(&self, replicas: &[(usize, Replica)]) -> Outcome {
        let promised = replicas.iter().flat_map(|(n, _)| &self.sites[*n].promised.entries);
        for (n, replica) in replicas {
            let snapshot = replica.view().unwrap();
            for (entry, _) in promised.clone().filter(|(entry, _)| !self.removed.contains(entry)) {
                let place = snapshot.locate(*entry).unwrap().and_then(|located| located.place);
                promise!(place.is_some(), "P6 message {entry} is lost at site {n}");
            }
            for mailbox in snapshot.view().mailboxes().unwrap() {
                for entry in replica.entries_of(mailbox.id).unwrap() {
                    let Some(located) = snapshot.locate(entry).unwrap() else { continue };
                    let has = |replica: &Replica| replica.has_body(located.blob).unwrap();
                    let fine = has(replica) || !replicas.iter().any(|(_, other)| has(other));
                    promise!(fine, "P6 the body of {entry} did not come to site {n}");
                }
            }
        }
        Ok(())
    }
}

fn picture(replica: &Replica) -> BTreeMap<String, Picture> {
    let server = replica.standing() == Standing::Server;
    let snapshot = replica.snapshot().unwrap();
    let picture = |mailbox: crate::uid::Mailbox| {
        let numbers = server.then_some((mailbox.uid_validity.value(), mailbox.uid_next));
        let messages = snapshot.messages(mailbox.id, Uid::FIRST, usize::MAX).unwrap().into_iter().map(|m| {
            let keywords = m.keywords.into_iter().collect();
            (m.entry, (m.shared_uid, keywords, m.blob, m.internal_date, m.saved))
        });
        (mailbox.name.to_string(), Picture { numbers, messages: messages.collect() })
    };
    snapshot.mailboxes().unwrap().into_iter().map(picture).collect()
}
