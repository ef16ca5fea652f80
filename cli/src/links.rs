//! How it stands with each peer: what the daemon sees now, and what is remembered of the last contact.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use postmerge::member::{Member, Status};
use postmerge::net::{Node, PeerState, Traffic};
use postmerge::replica::{Contact, Replica};

/// How it stands with a peer.
pub(crate) struct PeerLink {
    pub(crate) member: Member,
    /// What the daemon sees, if there is one and it has seen the peer.
    pub(crate) state: Option<PeerState>,
    /// The last contact ever, if it is remembered.
    pub(crate) contact: Option<Contact>,
    /// When both were compared last by this process, and whether they had the same.
    pub(crate) verified: Option<(i64, bool)>,
}

impl PeerLink {
    /// How it stands with each active peer.
    pub(crate) fn all(replica: &Replica, node: Option<&Node>) -> anyhow::Result<Vec<PeerLink>> {
        let states = node.map(Node::states).unwrap_or_default();
        let (contacts, verified) = (replica.contacts()?, replica.verified());
        let active = replica
            .peers()?
            .into_iter()
            .filter(|peer| !peer.oneself && peer.member.status == Status::Active)
            .map(|peer| peer.member);
        let link = |member: Member| PeerLink {
            state: states.iter().find(|state| state.replica == member.replica).cloned(),
            contact: contacts.get(&member.replica).copied(),
            verified: verified.get(&member.replica).copied(),
            member,
        };
        Ok(active.map(link).collect())
    }

    pub(crate) fn connected(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.connected)
    }

    /// Whether both are known to have the same now, bodies included.
    pub(crate) fn in_sync(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.in_sync)
    }

    /// Since when it is connected, or is not, in seconds since 1970. Nothing if it never was, as far as is remembered.
    pub(crate) fn since(&self) -> Option<i64> {
        match &self.state {
            Some(state) if state.connected => state.since.map(seconds_at),
            _ => self.contact.map(|contact| contact.at),
        }
    }

    /// When the peer was there last: now, if it is.
    pub(crate) fn last_contact(&self) -> Option<i64> {
        if self.connected() {
            return Some(now().as_secs() as i64);
        }
        self.contact.map(|contact| contact.at)
    }

    /// What went over the wire since the daemon was started.
    pub(crate) fn traffic(&self) -> Traffic {
        self.state.as_ref().map(|state| state.traffic).unwrap_or_default()
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn seconds_at(moment: Instant) -> i64 {
    now().saturating_sub(moment.elapsed()).as_secs() as i64
}
