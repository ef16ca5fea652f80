//! Connections: slow, cut in the middle of a frame, deaf in one direction, and several between two sites.

use std::collections::VecDeque;

use super::world::World;
use super::{Outcome, Violation};
use crate::member::Status;
use crate::replica::{Link, LinkError, LinkEvent, Replica, Stay};
use crate::sync::{Refusal, SessionError};

/// A connection, and a conversation over it. Its bytes reach nobody else.
pub(super) struct Connection {
    pub(super) sites: [usize; 2],
    pub(super) ends: [Option<Link>; 2],
    /// What each end sent and when it arrives.
    wire: [VecDeque<(u64, Vec<u8>)>; 2],
    /// How often each site's store had been restored when it began.
    restored: [u32; 2],
    latency: u64,
}

impl Connection {
    pub(super) fn new(sites: [usize; 2], ends: [Link; 2], restored: [u32; 2], latency: u64) -> Connection {
        Connection { sites, ends: ends.map(Some), wire: Default::default(), restored, latency }
    }
}

impl World {
    /// The ends of conversations at a site.
    pub(super) fn ends_at(&self, n: usize) -> Vec<(usize, usize)> {
        let ends = self
            .connections
            .iter()
            .enumerate()
            .flat_map(|(c, connection)| [0, 1].map(|s| (c, s, connection)));
        let here =
            ends.filter(|(_, s, connection)| connection.sites[*s] == n && connection.ends[*s].is_some());
        here.map(|(c, s, _)| (c, s)).collect()
    }

    pub(super) fn dial_somebody(&mut self, n: usize) -> Outcome {
        let other = self.random.below(self.sites.len());
        if self.deaf.contains(&(n, other)) || self.deaf.contains(&(other, n)) {
            return Ok(());
        }
        let stay = if self.random.chance(60) { Stay::Live } else { Stay::Once };
        self.dial(n, other, stay).map(drop)
    }

    /// Opens a conversation, if both are up and the one knows the other.
    pub(super) fn dial(&mut self, from: usize, to: usize, stay: Stay) -> Result<bool, Violation> {
        let (Some(ours), Some(theirs)) = (self.sites[from].replica.clone(), self.sites[to].replica.clone())
        else {
            return Ok(false);
        };
        if from == to {
            return Ok(false);
        }
        let (own, endpoint) = (self.sites[from].endpoint, self.sites[to].endpoint);
        let peers = self.call(from, |replica| replica.peers())?.unwrap_or_default();
        let known = peers.iter().find(|p| p.member.endpoint == endpoint && p.member.status == Status::Active);
        let Some(peer) = known.map(|peer| peer.member.replica) else { return Ok(false) };
        let (now, mut binding) = (self.now(), [0; 32]);
        binding[..8].copy_from_slice(&self.random.next().to_le_bytes());
        self.enter(from);
        let initiated = Link::initiate(&ours, peer, Some(endpoint), binding, stay, now);
        drop(ours);
        let initiator = match initiated {
            Ok(link) => link,
            Err(error) => return self.failed(from, &error).map(|()| false),
        };
        self.note(|| format!("site {from} dials site {to}"));
        let responder = Link::respond(&theirs, binding, Some(own), now);
        let restored = [from, to].map(|n| self.sites[n].restored);
        let latency = [0, 5, 50, 400][self.random.below(4)];
        self.connections.push(Connection::new([from, to], [initiator, responder], restored, latency));
        Ok(true)
    }

    /// Something moves on one of the connections.
    pub(super) fn network(&mut self) -> Outcome {
        let c = self.random.below(self.connections.len());
        for _ in 0..1 + self.random.below(12) {
            if c >= self.connections.len() {
                break;
            }
            let side = self.random.below(2);
            let piece = [7, 100, 4 << 10, 16 << 10][self.random.below(4)];
            match self.random.below(20) {
                0 => self.time_out(c, side)?,
                1..11 => _ = self.send(c, side, piece)?,
                _ => _ = self.deliver(c, side, self.time)?,
            }
        }
        self.tidy();
        Ok(())
    }

    /// Moves all there is once, however slow the connection; whether there was anything.
    pub(super) fn pump_whole(&mut self, c: usize) -> Result<bool, Violation> {
        let mut moved = false;
        for side in [0, 1] {
            while self.send(c, side, 16 << 10)? {}
            while self.deliver(c, side, u64::MAX)? {
                moved = true;
            }
        }
        Ok(moved)
    }

    fn send(&mut self, c: usize, side: usize, piece: usize) -> Result<bool, Violation> {
        let n = self.connections[c].sites[side];
        self.enter(n);
        let (time, latency) = (self.time, self.connections[c].latency);
        let Some(link) = &mut self.connections[c].ends[side] else { return Ok(false) };
        match link.poll_send(piece) {
            Ok(Some(bytes)) => {
                let jitter = self.random.next() % (latency / 4 + 1);
                let wire = &mut self.connections[c].wire[side];
                let last = wire.back().map_or(0, |(due, _)| *due);
                wire.push_back((last.max(time + latency + jitter), bytes));
                self.happened(c, side)?;
                Ok(true)
            }
            Ok(None) => self.happened(c, side).map(|()| false),
            Err(error) => self.broke(c, side, error).map(|()| false),
        }
    }

    /// Hands the other end what `side` sent, if it is there by `time`.
    fn deliver(&mut self, c: usize, side: usize, time: u64) -> Result<bool, Violation> {
        let connection = &mut self.connections[c];
        let (from, to) = (connection.sites[side], connection.sites[1 - side]);
        if self.deaf.contains(&(from, to)) {
            return Ok(false);
        }
        let due = connection.wire[side].front().is_some_and(|(due, _)| *due <= time);
        if !due {
            // The other side hangs up once all it said has been heard.
            if connection.wire[side].is_empty()
                && connection.ends[side].is_none()
                && connection.ends[1 - side].is_some()
            {
                connection.ends[1 - side] = None;
            }
            return Ok(false);
        }
        let Some((_, bytes)) = connection.wire[side].pop_front() else { return Ok(false) };
        self.hand(c, 1 - side, &bytes)?;
        Ok(true)
    }

    fn hand(&mut self, c: usize, side: usize, bytes: &[u8]) -> Outcome {
        let (n, now) = (self.connections[c].sites[side], self.now());
        self.enter(n);
        let Some(link) = &mut self.connections[c].ends[side] else { return Ok(()) };
        match link.receive(bytes, now) {
            Ok(()) => self.happened(c, side),
            Err(error) => self.broke(c, side, error),
        }
    }

    pub(super) fn wake(&mut self, c: usize, side: usize) -> Outcome {
        let (n, now) = (self.connections[c].sites[side], self.now());
        self.enter(n);
        let Some(link) = &mut self.connections[c].ends[side] else { return Ok(()) };
        match link.wake(now) {
            Ok(()) => self.happened(c, side),
            Err(error) => self.broke(c, side, error),
        }
    }

    pub(super) fn time_out(&mut self, c: usize, side: usize) -> Outcome {
        let (n, now) = (self.connections[c].sites[side], self.now());
        self.enter(n);
        let Some(link) = &mut self.connections[c].ends[side] else { return Ok(()) };
        if link.poll_timeout().is_none_or(|at| at > now) {
            return Ok(());
        }
        match link.handle_timeout(now) {
            Ok(()) => self.happened(c, side),
            Err(error) => self.broke(c, side, error),
        }
    }

    /// After anything that an end did: what its peer has promised by now, and what its own site's commits set off.
    fn happened(&mut self, c: usize, side: usize) -> Outcome {
        let connection = &mut self.connections[c];
        let (n, peer) = (connection.sites[side], connection.sites[1 - side]);
        let restored = connection.restored[1 - side];
        if let Some(link) = &mut connection.ends[side] {
            let mut held = false;
            while let Some(event) = link.poll_event() {
                held |= event == LinkEvent::Held;
            }
            let replica = self.sites[n].replica.clone();
            let site = &mut self.sites[peer];
            if site.restored == restored && link.peer().is_some() {
                let promised = &mut site.promised;
                for (author, seq) in link.session.peer_said() {
                    let known = promised.known.entry(*author).or_default();
                    *known = (*known).max(*seq);
                }
                let state = link.held_ours.filter(|state| held && promised.held_at != Some(*state));
                if let Some(replica) =
                    replica.filter(|replica| state.is_some() && replica.digest().ok() == state)
                {
                    promised.held_at = state;
                    promised.held.extend(all_messages(&replica));
                }
            }
            if link.is_finished() {
                connection.ends[side] = None;
            }
        }
        self.hear_news(n)
    }

    /// An end gave up. What it says of that may still arrive.
    fn broke(&mut self, c: usize, side: usize, error: LinkError) -> Outcome {
        let n = self.connections[c].sites[side];
        let time = self.time;
        if let Some(link) = &mut self.connections[c].ends[side]
            && let Ok(Some(last)) = link.poll_send(16 << 10)
        {
            self.connections[c].wire[side].push_back((time, last));
        }
        self.happened(c, side)?;
        if let Some(connection) = self.connections.get_mut(c) {
            connection.ends[side] = None;
        }
        let refused = |refusal: Refusal| {
            matches!(
                refusal,
                Refusal::UnknownReplica
                    | Refusal::Revoked
                    | Refusal::Succeeded
                    | Refusal::Stalled
                    | Refusal::Unavailable
                    | Refusal::Replaced
            )
        };
        self.note(|| {
            format!(
                "site {n} ends a conversation with {:?}: {error}",
                self.connections.get(c).map(|c| c.sites)
            )
        });
        if self.ended.len() == 12 {
            self.ended.remove(0);
        }
        self.ended.push(format!("{:?}: site {n} says {error}", self.connections.get(c).map(|c| c.sites)));
        match &error {
            LinkError::Replica(error) => self.failed(n, error),
            LinkError::Revoked
            | LinkError::RolledBack
            | LinkError::Still
            | LinkError::SomebodyElse { .. } => Ok(()),
            LinkError::Refused { fault } if refused(fault.refusal) => Ok(()),
            LinkError::Session(SessionError::Timeout(_)) => Ok(()),
            LinkError::Session(SessionError::Refused { refusal, .. } | SessionError::Ended { refusal })
                if refused(*refusal) =>
            {
                Ok(())
            }
            _ if self.sites[n].fault.is_stopped() => self.crash(n),
            _ => Err(Violation(format!("an honest peer of site {n} was refused: {error}"))),
        }
    }

    /// A connection is cut; a part of what was on its way may have arrived.
    pub(super) fn cut_somewhere(&mut self) -> Outcome {
        let c = self.random.below(self.connections.len());
        if c >= self.connections.len() {
            return Ok(());
        }
        let side = self.random.below(2);
        if self.random.chance(50)
            && let Some((_, bytes)) = self.connections[c].wire[side].pop_front()
        {
            let part = self.random.below(bytes.len());
            self.hand(c, 1 - side, &bytes[..part])?;
        }
        self.sever(c);
        self.tidy();
        Ok(())
    }

    pub(super) fn sever(&mut self, c: usize) {
        if let Some(connection) = self.connections.get_mut(c) {
            connection.ends = [None, None];
            connection.wire = Default::default();
        }
    }

    /// Forgets connections that nobody is at.
    pub(super) fn tidy(&mut self) {
        self.connections.retain(|connection| connection.ends.iter().any(Option::is_some));
    }
}

/// All that a peer said to hold, when it said to be where this end is.
fn all_messages(replica: &Replica) -> Vec<(crate::mailbox::EntryId, crate::blob::BlobId)> {
    let snapshot = replica.view().unwrap();
    let mut all = Vec::new();
    for mailbox in snapshot.view().mailboxes().unwrap() {
        for entry in replica.entries_of(mailbox.id).unwrap() {
            all.extend(snapshot.locate(entry).unwrap().map(|located| (entry, located.blob)));
        }
    }
    all
}
