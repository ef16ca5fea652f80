//! One conversation with each peer: who may dial, and which of two goes on.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{NodeError, PeerState};
use crate::mailbox::ReplicaId;
use crate::net::connection::Meter;
use crate::net::{HANDSHAKE_TIMEOUT, Traffic};
use crate::sync::{Digest, HELLO_TIMEOUT, Side};

/// What a node knows of its peers.
pub(super) struct Places {
    peers: Mutex<BTreeMap<ReplicaId, Place>>,
    /// Counts what happens.
    moves: watch::Sender<u64>,
}

impl Default for Places {
    fn default() -> Places {
        Places { peers: Mutex::default(), moves: watch::channel(0).0 }
    }
}

#[derive(Default)]
struct Place {
    /// Somebody dials, and nobody else need.
    dialling: bool,
    conversation: Option<Conversation>,
    /// When the last one ended.
    ended: Option<Instant>,
    /// Why, if badly.
    error: Option<String>,
    /// What the conversations that are over have sent and received.
    traffic: Traffic,
    /// Those that are not, with whose sender: also one that gives way to another.
    meters: Vec<(watch::Sender<bool>, Meter)>,
}

struct Conversation {
    opener: ReplicaId,
    since: Instant,
    /// What the peer has; see [`crate::replica::Link::peer_state`].
    peer_state: Option<Digest>,
    /// When the peer said something last.
    heard: Instant,
    /// Told when another one takes its place.
    replaced: watch::Sender<bool>,
}

/// What opening a conversation takes at most: two that were opened at the same time meet within it.
const AT_ONCE: Duration = HANDSHAKE_TIMEOUT.saturating_add(HELLO_TIMEOUT);

/// Whether a conversation opened by `new` takes the place of one opened by `old`, which is `age` old.
///
/// Two servers that dial each other at once make two, and meet them in any order; the lower replica id decides, so that both
/// keep the same one. But nobody dials a peer that it is connected with. So if the opener is the same, or the old one is too
/// old to have been opened at the same time, the other side has lost it, and the new one goes on.
fn takes_over(new: ReplicaId, old: ReplicaId, age: Duration) -> bool {
    new <= old || age > AT_ONCE
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Place>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self) {
        self.moves.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Changes whenever a conversation begins or ends, or a peer is in another state.
    pub(super) fn moves(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }

    /// `ours` is the state of this replica.
    pub(super) fn states(&self, ours: Option<Digest>) -> Vec<PeerState> {
        let state = |(replica, place): (&ReplicaId, &Place)| PeerState {
            replica: *replica,
            connected: place.conversation.is_some(),
            since: place.conversation.as_ref().map(|conversation| conversation.since).or(place.ended),
            traffic: place.traffic(),
            in_sync: ours.is_some_and(|ours| place.has(ours)),
            error: place.error.clone(),
        };
        self.lock().iter().map(state).collect()
    }

    pub(super) fn in_sync(&self, peer: ReplicaId, ours: Digest) -> bool {
        self.lock().get(&peer).is_some_and(|place| place.has(ours))
    }

    /// When nobody waits for the peer any more who began at `begun`: `still` after that, or after it was heard last.
    pub(super) fn silent_at(&self, peer: ReplicaId, begun: Instant, still: Duration) -> Instant {
        let peers = self.lock();
        let conversation = peers.get(&peer).and_then(|place| place.conversation.as_ref());
        conversation.map_or(begun, |conversation| begun.max(conversation.heard)) + still
    }

    /// The right to dial a peer; nothing while somebody does, or is connected with it.
    pub(super) fn dial(&self, peer: ReplicaId) -> Option<Dialling<'_>> {
        let mut peers = self.lock();
        let place = peers.entry(peer).or_default();
        if place.dialling || place.conversation.is_some() {
            return None;
        }
        place.dialling = true;
        Some(Dialling { places: self, peer })
    }

    /// A peer could not be reached.
    pub(super) fn failed(&self, peer: ReplicaId, error: &NodeError) {
        self.lock().entry(peer).or_default().error = Some(error.to_string());
        self.moved();
    }
}

impl Place {
    fn traffic(&self) -> Traffic {
        let mut traffic = self.traffic;
        self.meters.iter().for_each(|(_, meter)| traffic += meter.traffic());
        traffic
    }

    fn has(&self, state: Digest) -> bool {
        self.conversation.as_ref().is_some_and(|conversation| conversation.peer_state == Some(state))
    }
}

/// The right to dial a peer.
pub(super) struct Dialling<'a> {
    places: &'a Places,
    peer: ReplicaId,
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.places.lock().get_mut(&self.peer) {
            place.dialling = false;
        }
        self.places.moved();
    }
}

/// A conversation, as its node sees it.
pub(super) struct Host<'a> {
    places: &'a Places,
    own: ReplicaId,
    /// Until the peer has accepted.
    dialling: Option<Dialling<'a>>,
    peer: Option<ReplicaId>,
    replaced: watch::Receiver<bool>,
    replace: watch::Sender<bool>,
}

impl<'a> Host<'a> {
    /// `own` is this replica.
    pub(super) fn new(places: &'a Places, own: ReplicaId, dialling: Option<Dialling<'a>>) -> Host<'a> {
        let (replace, replaced) = watch::channel(false);
        Host { places, own, dialling, peer: None, replaced, replace }
    }

    /// The peer and this side have accepted each other: of two conversations one ends now.
    #[expect(clippy::disallowed_methods, reason = "connections age")]
    pub(super) fn meet(&mut self, peer: ReplicaId, side: Side, meter: Meter) {
        let opener = match side {
            Side::Initiator => self.own,
            Side::Responder => peer,
        };
        self.peer = Some(peer);
        {
            let mut peers = self.places.lock();
            let place = peers.entry(peer).or_default();
            place.meters.push((self.replace.clone(), meter));
            match &place.conversation {
                Some(old) if !takes_over(opener, old.opener, old.since.elapsed()) => {
                    self.replace.send_replace(true);
                    return;
                }
                Some(old) => drop(old.replaced.send_replace(true)),
                None => {}
            }
            let (since, replaced) = (Instant::now(), self.replace.clone());
            place.conversation =
                Some(Conversation { opener, since, peer_state: None, heard: since, replaced });
            place.error = None;
        }
        self.dialling = None;
        self.places.moved();
    }

    /// The state of the peer, who was heard last at `heard`.
    pub(super) fn note(&self, peer_state: Option<Digest>, heard: Instant) {
        let mut peers = self.places.lock();
        let place = self.peer.and_then(|peer| peers.get_mut(&peer));
        if let Some(own) = place.and_then(|place| place.conversation.as_mut()).filter(|it| self.is(it)) {
            own.heard = heard;
            let news = std::mem::replace(&mut own.peer_state, peer_state) != peer_state;
            drop(peers);
            if news {
                self.places.moved();
            }
        }
    }

    fn is(&self, conversation: &Conversation) -> bool {
        conversation.replaced.same_channel(&self.replace)
    }

    /// Ready once another conversation has taken the place of this one.
    pub(super) async fn replaced(host: &mut Option<Host<'_>>) {
        if let Some(host) = host {
            // Its sender is in the host itself.
            let _ = host.replaced.wait_for(|replaced| *replaced).await;
        } else {
            std::future::pending().await
        }
    }

    /// The conversation is over.
    pub(super) fn ended(self, result: &Result<(), NodeError>) {
        let Some(peer) = self.peer.or(self.dialling.as_ref().map(|dialling| dialling.peer)) else { return };
        let mut peers = self.places.lock();
        let place = peers.entry(peer).or_default();
        let own = place.conversation.as_ref().is_some_and(|conversation| self.is(conversation));
        if own || self.dialling.is_some() {
            place.error = result.as_ref().err().filter(|e| !e.means_replaced()).map(ToString::to_string);
        }
    }
}

impl Drop for Host<'_> {
    #[expect(clippy::disallowed_methods, reason = "when a conversation ended")]
    fn drop(&mut self) {
        let mut peers = self.places.lock();
        if let Some(place) = self.peer.and_then(|peer| peers.get_mut(&peer)) {
            let own = |conversation: &mut Conversation| conversation.replaced.same_channel(&self.replace);
            if place.conversation.take_if(own).is_some() {
                place.ended = Some(Instant::now());
            }
            let over = place.meters.extract_if(.., |(replace, _)| replace.same_channel(&self.replace));
            over.for_each(|(_, meter)| place.traffic += meter.traffic());
        }
        drop(peers);
        self.places.moved();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: ReplicaId = ReplicaId::from_bytes([1; 16]);
    const HIGH: ReplicaId = ReplicaId::from_bytes([2; 16]);
    const STILL: Duration = Duration::from_secs(90);

    /// Whether the conversations that `LOW` and `HIGH` opened go on at `own`, which met them in this order.
    fn meet(own: ReplicaId, order: [ReplicaId; 2]) -> [bool; 2] {
        let places = Places::default();
        let peer = if own == LOW { HIGH } else { LOW };
        let mut hosts = order.map(|opener| {
            let mut host = Host::new(&places, own, None);
            let side = if opener == own { Side::Initiator } else { Side::Responder };
            host.meet(peer, side, Meter::default());
            (opener, host)
        });
        hosts.sort_by_key(|(opener, _)| *opener);
        hosts.map(|(_, host)| !*host.replaced.borrow())
    }

    #[test]
    fn of_two_conversations_both_sides_keep_the_same_one() {
        for order in [[LOW, HIGH], [HIGH, LOW]] {
            assert_eq!(meet(LOW, order), [true, false]);
            assert_eq!(meet(HIGH, order), [true, false]);
        }
    }

    #[test]
    fn a_conversation_that_the_other_side_has_lost_gives_way() {
        assert!(takes_over(LOW, LOW, Duration::ZERO), "its opener dials again");
        assert!(takes_over(HIGH, LOW, AT_ONCE + Duration::from_secs(1)));
        assert!(!takes_over(HIGH, LOW, AT_ONCE), "it may have been opened at the same time");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "connections age")]
    fn nobody_dials_a_peer_that_is_connected_or_being_dialled() {
        let places = Places::default();
        let dialling = places.dial(HIGH);
        assert!(dialling.is_some() && places.dial(HIGH).is_none());
        let mut host = Host::new(&places, LOW, dialling);
        host.meet(HIGH, Side::Initiator, Meter::default());
        assert!(places.dial(HIGH).is_none());
        host.note(Some([3; 16]), Instant::now());
        assert!(places.in_sync(HIGH, [3; 16]) && !places.in_sync(HIGH, [4; 16]));
        host.ended(&Err(NodeError::Cut));
        let state = &places.states(Some([3; 16]))[0];
        assert!(!state.connected && !state.in_sync && state.error.is_some());
        assert!(places.dial(HIGH).is_some());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "connections age")]
    fn only_news_wakes_who_waits() {
        let places = Places::default();
        let mut host = Host::new(&places, LOW, None);
        host.meet(HIGH, Side::Initiator, Meter::default());
        let mut moves = places.moves();
        let heard = Instant::now();
        host.note(Some([3; 16]), heard);
        assert!(moves.has_changed().unwrap());
        moves.mark_unchanged();
        host.note(Some([3; 16]), heard + STILL);
        assert!(!moves.has_changed().unwrap(), "nothing happened");
        assert_eq!(places.silent_at(HIGH, heard, STILL), heard + 2 * STILL, "it is still heard");
        let other = ReplicaId::from_bytes([3; 16]);
        assert_eq!(places.silent_at(other, heard, STILL), heard + STILL, "whatever the others say");
    }
}
