//! The account's machines, and what happens to them, at random.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::clients::{Everywhere, Traveller};
use super::network::Connection;
use super::site::Site;
use super::{Outcome, Random, Violation};
use crate::mailbox::{EntryId, MailboxId, Uid};
use crate::member::{MemberName, Role};
use crate::replica::core::Standing;
use crate::replica::{Founding, Invitation, Link, Replica, ReplicaError, Snapshot, Stay};
use crate::store::StoreError;
use crate::uid::{AccountError, Block, Mailbox};

/// Most replicas of an account here.
const MOST: usize = 10;

pub(super) struct World {
    pub(super) random: Random,
    dir: TempDir,
    pub(super) sites: Vec<Site>,
    pub(super) connections: Vec<Connection>,
    /// Directions in which no bytes go.
    pub(super) deaf: BTreeSet<(usize, usize)>,
    /// Milliseconds since the beginning.
    pub(super) time: u64,
    pub(super) steps: u64,
    /// Mailboxes are not renamed or deleted, stores not restored: no UIDVALIDITY has a reason to change.
    pub(super) calm: bool,
    /// Entries that somebody may have expunged.
    pub(super) removed: BTreeSet<EntryId>,
    pub(super) bodies: u32,
    /// Why the last conversations ended.
    pub(super) ended: Vec<String>,
    /// Whether what happens is written down, for whoever looks for a cause.
    pub(super) trace: bool,
    everywhere: Everywhere,
    travellers: [Traveller; 2],
}

/// On a file system in memory, where there is one.
fn place() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    made.unwrap()
}

impl World {
    /// With so many replicas, or as many as the seed says.
    pub(super) fn new(seed: u64, replicas: Option<usize>) -> Result<World, Violation> {
        let mut random = Random(seed);
        // Most schedules have few replicas, which are told apart more often.
        let most = 1 + random.below(MOST - 1);
        let count = replicas.unwrap_or(2 + random.below(most));
        let mut world = World {
            random,
            dir: place(),
            sites: Vec::new(),
            connections: Vec::new(),
            deaf: BTreeSet::new(),
            time: 0,
            steps: 0,
            calm: seed.is_multiple_of(3),
            removed: BTreeSet::new(),
            bodies: 0,
            ended: Vec::new(),
            trace: super::tests::asked_for("POSTMERGE_TRACE").is_some(),
            everywhere: Everywhere::default(),
            travellers: Default::default(),
        };
        world.found();
        while world.sites.len() < count {
            world.invite()?;
        }
        Ok(world)
    }

    pub(super) fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>6} {}", self.steps, what());
        }
    }

    pub(super) fn now(&self) -> Duration {
        Duration::from_millis(self.time)
    }

    pub(super) fn enter(&self, n: usize) {
        self.sites[n].enter(self.time);
    }

    fn found(&mut self) {
        let role = if self.random.chance(85) { Role::Server } else { Role::Observer };
        let mut site = Site::new(self.dir.path(), 0, role);
        site.enter(self.time);
        let (name, endpoint) = (MemberName::new("first").unwrap(), site.endpoint);
        let founding = Founding { role, name, block: Block::STANDARD, endpoint };
        site.up(Replica::found(&site.store(), Some(&site.state()), &founding).unwrap());
        self.sites.push(site);
    }

    /// Another machine joins. Sometimes the conversation ends as soon as it is a member.
    fn invite(&mut self) -> Outcome {
        let n = self.sites.len();
        let host = self.random.below(n);
        let role = if self.random.chance(75) { Role::Server } else { Role::Observer };
        let Some(inviter) = self.sites[host].replica.clone() else { return Ok(()) };
        let invitation = Invitation {
            role,
            addresses: vec!["a:1".into()],
            endpoint: self.sites[host].endpoint,
            valid_for: 1 << 33,
        };
        let Some(ticket) = self.call(host, |replica| replica.invite(&invitation))? else { return Ok(()) };
        let mut site = Site::new(self.dir.path(), n as u8, role);
        site.enter(self.time);
        site.up(Replica::prepare_join(&site.store(), Some(&site.state()), &ticket).unwrap());
        let (replica, endpoint) = (site.replica.clone().unwrap(), site.endpoint);
        self.sites.push(site);
        let guest = replica.guest(&ticket, endpoint, MemberName::new("guest").unwrap()).unwrap();
        let (now, binding) = (self.now(), [0; 32]);
        let from = Link::join(&replica, &ticket, &guest, binding, Stay::Live, now).unwrap();
        let to = Link::respond(&inviter, binding, Some(endpoint), now);
        self.connections.push(Connection::new([n, host], [from, to], [0, self.sites[host].restored], 0));
        let connection = self.connections.len() - 1;
        let short = self.random.chance(25);
        drop(inviter);
        for _ in 0..1000 {
            let moved = self.pump_whole(connection)?;
            let member = replica.is_member().unwrap();
            if (short && member) || !moved {
                break;
            }
        }
        drop(replica);
        // A founder whose disk failed may have let nobody in; such a machine is set up again.
        if !self.sites[n].replica.as_ref().is_some_and(|replica| replica.is_member().unwrap()) {
            self.sever(connection);
            self.retire_site(n);
        } else if short {
            self.sever(connection);
        }
        Ok(())
    }

    /// Does something at a site that is up; nothing if it failed for a reason that it may have.
    pub(super) fn call<R>(
        &mut self,
        n: usize,
        act: impl FnOnce(&Replica) -> Result<R, ReplicaError>,
    ) -> Result<Option<R>, Violation> {
        let Some(replica) = self.sites[n].replica.clone() else { return Ok(None) };
        self.enter(n);
        self.note(|| {
            format!(
                "at site {n}: {}",
                std::any::type_name_of_val(&act).rsplit("simulation::").next().unwrap_or_default()
            )
        });
        let result = act(&replica);
        drop(replica);
        match result {
            Ok(done) => {
                self.hear_news(n)?;
                Ok(Some(done))
            }
            Err(error) => self.failed(n, &error).map(|()| None),
        }
    }

    /// Judges an error: a disk that failed is no defect of the program, and neither is a user's mistake.
    pub(super) fn failed(&mut self, n: usize, error: &ReplicaError) -> Outcome {
        self.note(|| format!("site {n} says {error}"));
        let site = &self.sites[n];
        if site.fault.is_stopped() {
            return self.crash(n);
        }
        let users = matches!(
            error,
            ReplicaError::NotReady
                | ReplicaError::NotJoined
                | ReplicaError::Owed { .. }
                | ReplicaError::Member(_)
                | ReplicaError::Account(
                    AccountError::NoMailbox { .. }
                        | AccountError::Exists { .. }
                        | AccountError::Inbox
                        | AccountError::ValidityExhausted { .. }
                        | AccountError::UidValidity { .. }
                        | AccountError::MailboxGone { .. }
                )
        );
        if users {
            return Ok(());
        }
        promise!(site.was_full, "site {n} failed: {error}: {error:?}");
        match error {
            ReplicaError::Store(StoreError::Poisoned) => self.crash(n),
            _ => Ok(()),
        }
    }

    /// What a commit sets off: conversations go on, and clients in IDLE look.
    pub(super) fn hear_news(&mut self, n: usize) -> Outcome {
        if self.sites[n].fault.is_stopped() {
            return self.crash(n);
        }
        while self.sites[n].has_news() {
            for (c, side) in self.ends_at(n) {
                self.wake(c, side)?;
            }
            self.glance(n)?;
        }
        Ok(())
    }

    /// A client in IDLE looks at a mailbox as it is, if it can be shown: nothing is written for it.
    fn glance(&mut self, n: usize) -> Outcome {
        let Some(replica) = self.sites[n].replica.clone() else { return Ok(()) };
        if !matches!(replica.standing(), Standing::Server | Standing::Observer) {
            return Ok(());
        }
        self.enter(n);
        let snapshot = replica.view().unwrap();
        let mailboxes: Vec<MailboxId> = snapshot.view().mailboxes().unwrap().iter().map(|m| m.id).collect();
        let mailbox = self.random.pick(&mailboxes).copied().unwrap_or(MailboxId::inbox());
        match snapshot.mailbox(mailbox) {
            Ok(Some(mailbox)) => self.see(n, &snapshot, &mailbox),
            _ => Ok(()),
        }
    }

    /// All mailboxes of a site are opened, by everybody.
    pub(super) fn look(&mut self, n: usize) -> Outcome {
        let looked = self.call(n, |replica| {
            let snapshot = replica.snapshot()?;
            let mailboxes = snapshot.mailboxes()?;
            Ok((snapshot, mailboxes))
        })?;
        let Some((snapshot, mailboxes)) = looked else { return Ok(()) };
        for mailbox in &mailboxes {
            self.see(n, &snapshot, mailbox)?;
        }
        Ok(())
    }

    fn see(&mut self, n: usize, snapshot: &Snapshot, mailbox: &Mailbox) -> Outcome {
        let messages = snapshot.messages(mailbox.id, Uid::FIRST, usize::MAX).unwrap();
        let server = self.sites[n].role == Role::Server;
        let at = |Violation(what)| Violation(format!("{what} at site {n}"));
        let clients = &mut self.sites[n].clients;
        clients.look(snapshot, mailbox, &messages, self.calm && server).map_err(at)?;
        if server {
            clients.calm(snapshot, mailbox, &messages).map_err(at)?;
            self.everywhere.look(mailbox, &messages).map_err(at)?;
            let traveller = self.random.below(2 * self.travellers.len());
            if let Some(traveller) = self.travellers.get_mut(traveller) {
                traveller.look(snapshot, mailbox, &messages).map_err(at)?;
            }
        }
        Ok(())
    }

    /// A UID that an answer named.
    pub(super) fn told(
        &mut self,
        n: usize,
        name: &crate::mailbox::MailboxName,
        seen: crate::uid::Seen,
        uid: Uid,
        entry: EntryId,
    ) -> Outcome {
        let site = &mut self.sites[n];
        site.clients.told(name, seen, uid, entry)?;
        if site.role == Role::Server {
            self.everywhere.tell(name, seen.uid_validity, uid, entry)?;
        }
        Ok(())
    }

    pub(super) fn step(&mut self) -> Outcome {
        self.steps += 1;
        self.time += match self.random.below(200) {
            0 => self.random.next() % (3 * 86_400_000),
            1..10 => self.random.next() % 60_000,
            _ => self.random.next() % 100,
        };
        let n = self.random.below(self.sites.len());
        self.note(|| format!("site {n}"));
        if self.sites[n].retired {
            return self.network();
        }
        if self.sites[n].replica.is_none() {
            return if self.random.chance(50) { self.restart(n) } else { self.network() };
        }
        match self.random.below(100) {
            0..30 => self.act(n),
            30..38 => self.look(n),
            38..46 => self.dial_somebody(n),
            46..50 => self.trouble(n),
            50..52 => self.partition(n),
            52..54 => self.cut_somewhere(),
            54 => self.wrong_clock(n),
            55 if self.sites.len() < MOST && self.random.chance(40) => self.invite(),
            _ => self.network(),
        }
    }

    fn wrong_clock(&mut self, n: usize) -> Outcome {
        let span = [60, 7_200, 200_000, 100_000_000][self.random.below(4)];
        self.sites[n].skew = self.random.below(2 * span) as i64 - span as i64;
        Ok(())
    }

    /// No bytes from one site to another, or all partitions are over.
    fn partition(&mut self, n: usize) -> Outcome {
        let other = self.random.below(self.sites.len());
        if self.random.chance(40) {
            self.deaf.clear();
        } else {
            self.deaf.insert((n, other));
            if self.random.chance(50) {
                self.deaf.insert((other, n));
            }
        }
        Ok(())
    }
}
