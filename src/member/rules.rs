//! What each membership record does, and when it is void: the rules that the fold applies in causal order.

use std::collections::BTreeMap;

use super::body::Body;
use super::fold::Past;
use super::keys::{PeerId, PublicKey};
use super::record::{MemberName, OfferId, Record, RecordId};
use super::role::Role;
use crate::mailbox::{AccountId, ReplicaId};
use crate::uid::{Block, Lane};

/// A member of the account, past or present.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its name in the document and on the wire.
    pub replica: ReplicaId,
    /// The key that proves it.
    pub key: PublicKey,
    /// Where it lives.
    pub endpoint: PeerId,
    /// What people call it.
    pub name: MemberName,
    /// What it does.
    pub role: Role,
    /// The record that gave it another role than the one it came with; its changes name it.
    pub assigned: Option<RecordId>,
    /// The UIDs that are its own to claim or to halve.
    pub lane: Option<Lane>,
    /// Where it can be reached, as it last said.
    pub addresses: Vec<String>,
    /// Who let it in; nobody for the founder.
    pub inviter: Option<ReplicaId>,
    /// Whether it still belongs.
    pub status: Status,
}

/// Whether a member still belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// It does.
    Active,
    /// It was revoked.
    Revoked {
        /// The number of its last change that counts; none of its changes if nothing.
        last: Option<u64>,
    },
    /// It went on as another replica.
    Succeeded {
        /// The replica that took its lane.
        by: ReplicaId,
    },
}

/// An offer of membership.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Who made it; nobody else can let the guest in.
    pub inviter: ReplicaId,
    /// What the guest will do.
    pub role: Role,
    /// The lane it gets.
    pub lane: Option<Lane>,
    /// Seconds since 1970.
    pub expires_at: u64,
    /// What became of it.
    pub state: OfferState,
}

/// What became of an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OfferState {
    /// Nobody took it yet.
    Open,
    /// Somebody took it.
    Taken {
        /// The new member.
        by: ReplicaId,
    },
    /// Its author offered the same lane anew.
    Replaced,
}

/// Why a record in the log has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Nobody's fault: a record that it follows has not arrived yet.
    #[error("it follows a record that has not arrived")]
    Incomplete,
    /// Nobody's fault: a kind of a later version.
    #[error("this program does not know its kind")]
    UnknownKind,
    /// It founds some other account.
    #[error("it founds another account")]
    OtherAccount,
    /// Its author was no member, as far as the record itself knows.
    #[error("its author is not a member")]
    NotAMember,
    /// It is signed with a key that is not the author's.
    #[error("it is signed with a key that is not its author's")]
    WrongKey,
    /// Its author was revoked by somebody who had not seen it.
    #[error("its author was revoked")]
    Revoked,
    /// Its author went on as another replica before.
    #[error("its author had already gone on as another replica")]
    Succeeded,
    /// Its author is an observer without a lane.
    #[error("only servers and owners of a lane may do this")]
    NotAllowed,
    /// The lanes are not the two halves of the author's, or the role and the lane do not fit.
    #[error("the lanes are not the halves of the author's lane")]
    Lane,
    /// The offer is unknown, somebody else's, taken or replaced.
    #[error("the offer is not the author's to give any more")]
    Offer,
    /// The id of the new replica or offer is in use.
    #[error("the id is already in use")]
    InUse,
    /// It would make a server of another member, or the other way round.
    #[error("a server stays one, and nobody else becomes one")]
    Server,
    /// It is about somebody who is no member.
    #[error("it is about somebody who is not a member")]
    UnknownTarget,
}

/// A member while the log is folded.
struct Seat {
    member: Member,
    /// The record that made it a member.
    since: usize,
    /// What it was let in as.
    came_as: Role,
    /// Which line of succession it belongs to: the line owns the lane.
    line: usize,
    /// The record that ended it by succession.
    until: Option<usize>,
}

/// The account as far as the records say that were applied so far.
pub(super) struct State {
    account: AccountId,
    pub(super) block: Option<Block>,
    seats: BTreeMap<ReplicaId, Seat>,
    lines: Vec<Option<Lane>>,
    pub(super) offers: BTreeMap<OfferId, Offer>,
    offered_by: BTreeMap<OfferId, usize>,
}

impl State {
    pub(super) fn new(account: AccountId) -> State {
        State {
            account,
            block: None,
            seats: BTreeMap::new(),
            lines: Vec::new(),
            offers: BTreeMap::new(),
            offered_by: BTreeMap::new(),
        }
    }

    /// Applies record number `at`, or says why it has no effect. A record is judged by what it follows; where
    /// two that do not follow each other compete, the earlier one in the fold's order wins.
    pub(super) fn apply(&mut self, at: usize, record: &Record, past: &Past) -> Result<(), Rejection> {
        match record.body() {
            Body::Found { .. } => return self.found(at, record),
            Body::Unknown(_) => return Err(Rejection::UnknownKind),
            _ => {}
        }
        let seat = self.seats.get(&record.author()).ok_or(Rejection::NotAMember)?;
        if !past.contains(at, seat.since) {
            return Err(Rejection::NotAMember);
        }
        if seat.member.key != record.key() {
            return Err(Rejection::WrongKey);
        }
        if seat.until.is_some_and(|end| past.contains(at, end)) {
            return Err(Rejection::Succeeded);
        }
        let line = seat.line;
        // Whoever may not even change mail does not decide who may.
        let may_invite = match seat.member.role {
            Role::Server => true,
            Role::Observer => self.lines[line].is_some(),
            Role::Reader | Role::Deliver => false,
        };
        match record.body() {
            Body::Offer { .. } | Body::Admit { .. } | Body::Revoke { .. } | Body::Assign { .. }
                if !may_invite =>
            {
                Err(Rejection::NotAllowed)
            }
            Body::Offer { .. } => self.offer(at, record, line, past),
            Body::Admit { .. } => self.admit(at, record, past),
            Body::Revoke { replica, .. } => {
                let target = self.seats.get(replica).ok_or(Rejection::UnknownTarget)?;
                if past.contains(at, target.since) { Ok(()) } else { Err(Rejection::UnknownTarget) }
            }
            Body::Assign { replica, role } => {
                let known = |seat: &&mut Seat| past.contains(at, seat.since);
                let target = self.seats.get_mut(replica).filter(known).ok_or(Rejection::UnknownTarget)?;
                if target.member.role == Role::Server || *role == Role::Server {
                    return Err(Rejection::Server);
                }
                target.member.role = *role;
                target.member.assigned = Some(record.id());
                Ok(())
            }
            Body::Succeed { replica, key, endpoint } => {
                self.succeed(at, record.author(), *replica, *key, *endpoint)
            }
            Body::Address { addresses } => {
                if let Some(seat) = self.seats.get_mut(&record.author()) {
                    seat.member.addresses = addresses.clone();
                }
                Ok(())
            }
            Body::Found { .. } | Body::Unknown(_) => Err(Rejection::UnknownKind),
        }
    }

    fn found(&mut self, at: usize, record: &Record) -> Result<(), Rejection> {
        let Body::Found { block, endpoint, name, role, .. } = record.body() else {
            return Err(Rejection::UnknownKind);
        };
        if record.account() != Some(self.account) {
            return Err(Rejection::OtherAccount);
        }
        self.block = Some(*block);
        self.lines.push(Some(Lane::WHOLE));
        let member = Member {
            replica: record.author(),
            key: record.key(),
            endpoint: *endpoint,
            name: name.clone(),
            role: *role,
            assigned: None,
            lane: None,
            addresses: Vec::new(),
            inviter: None,
            status: Status::Active,
        };
        self.seats.insert(record.author(), Seat { member, since: at, came_as: *role, line: 0, until: None });
        Ok(())
    }

    fn offer(&mut self, at: usize, record: &Record, line: usize, past: &Past) -> Result<(), Rejection> {
        let Body::Offer { offer, role, lane, expires_at, replaces } = record.body() else {
            return Err(Rejection::UnknownKind);
        };
        if self.offers.contains_key(offer) {
            return Err(Rejection::InUse);
        }
        if (*role == Role::Server) != lane.is_some() {
            return Err(Rejection::Lane);
        }
        let replaced = match replaces {
            Some(old) => Some((*old, self.open_offer(*old, record.author(), at, past)?.lane)),
            None => None,
        };
        let own = self.lines[line];
        match (*lane, replaced) {
            (None, _) => {}
            (Some((given, kept)), Some((_, old))) if old.is_some() => {
                if old != Some(given) || own != Some(kept) {
                    return Err(Rejection::Lane);
                }
            }
            (Some((given, kept)), _) => {
                if own.and_then(Lane::split) != Some((kept, given)) {
                    return Err(Rejection::Lane);
                }
                self.lines[line] = Some(kept);
            }
        }
        if let Some(old) = replaced.and_then(|(old, _)| self.offers.get_mut(&old)) {
            old.state = OfferState::Replaced;
        }
        let made = Offer {
            inviter: record.author(),
            role: *role,
            lane: lane.map(|(given, _)| given),
            expires_at: *expires_at,
            state: OfferState::Open,
        };
        self.offers.insert(*offer, made);
        self.offered_by.insert(*offer, at);
        Ok(())
    }

    /// An offer that `author` may still dispose of in record `at`.
    fn open_offer(
        &self,
        offer: OfferId,
        author: ReplicaId,
        at: usize,
        past: &Past,
    ) -> Result<&Offer, Rejection> {
        let known = self.offered_by.get(&offer).is_some_and(|made| past.contains(at, *made));
        let open = |o: &&Offer| known && o.inviter == author && o.state == OfferState::Open;
        self.offers.get(&offer).filter(open).ok_or(Rejection::Offer)
    }

    fn admit(&mut self, at: usize, record: &Record, past: &Past) -> Result<(), Rejection> {
        let Body::Admit { offer, replica, key, endpoint, name } = record.body() else {
            return Err(Rejection::UnknownKind);
        };
        let (role, lane) = {
            let made = self.open_offer(*offer, record.author(), at, past)?;
            (made.role, made.lane)
        };
        if self.seats.contains_key(replica) {
            return Err(Rejection::InUse);
        }
        if let Some(made) = self.offers.get_mut(offer) {
            made.state = OfferState::Taken { by: *replica };
        }
        self.lines.push(lane);
        let member = Member {
            replica: *replica,
            key: *key,
            endpoint: *endpoint,
            name: name.clone(),
            role,
            assigned: None,
            lane: None,
            addresses: Vec::new(),
            inviter: Some(record.author()),
            status: Status::Active,
        };
        let line = self.lines.len() - 1;
        self.seats.insert(*replica, Seat { member, since: at, came_as: role, line, until: None });
        Ok(())
    }

    /// One line has one bearer: of two successions that compete only the first counts.
    fn succeed(
        &mut self,
        at: usize,
        old: ReplicaId,
        new: ReplicaId,
        key: PublicKey,
        endpoint: PeerId,
    ) -> Result<(), Rejection> {
        if self.seats.contains_key(&new) {
            return Err(Rejection::InUse);
        }
        let seat = self.seats.get_mut(&old).ok_or(Rejection::NotAMember)?;
        if seat.until.is_some() {
            return Err(Rejection::Succeeded);
        }
        seat.until = Some(at);
        seat.member.status = Status::Succeeded { by: new };
        let member = Member {
            replica: new,
            key,
            endpoint,
            inviter: Some(old),
            assigned: None,
            status: Status::Active,
            ..seat.member.clone()
        };
        let (line, came_as) = (seat.line, member.role);
        self.seats.insert(new, Seat { member, since: at, came_as, line, until: None });
        Ok(())
    }

    /// What record `at`, which took effect, lets a replica do: whom it is about, and in which role.
    pub(super) fn conferred(&self, record: &Record) -> Option<(ReplicaId, Role)> {
        match record.body() {
            Body::Assign { replica, role } => Some((*replica, *role)),
            Body::Found { .. } => Some((record.author(), self.seats.get(&record.author())?.came_as)),
            Body::Admit { replica, .. } | Body::Succeed { replica, .. } => {
                Some((*replica, self.seats.get(replica)?.came_as))
            }
            _ => None,
        }
    }

    /// When the member came, for the order of competing revocations: founders before those they invited.
    pub(super) fn seniority(&self, replica: ReplicaId) -> usize {
        self.seats.get(&replica).map_or(usize::MAX, |seat| seat.since)
    }

    /// Marks `replica` as revoked; of several limits the lowest counts.
    pub(super) fn revoke(&mut self, replica: ReplicaId, last: Option<u64>) {
        if let Some(seat) = self.seats.get_mut(&replica) {
            let last = match seat.member.status {
                Status::Revoked { last: earlier } => earlier.min(last),
                _ => last,
            };
            seat.member.status = Status::Revoked { last };
        }
    }

    /// The members with their lanes. Who is gone owns nothing; its lane is not given to anybody else.
    pub(super) fn into_members(mut self) -> (BTreeMap<ReplicaId, Member>, BTreeMap<OfferId, Offer>) {
        for seat in self.seats.values_mut() {
            seat.member.lane = self.lines[seat.line].filter(|_| seat.member.status == Status::Active);
        }
        (self.seats.into_iter().map(|(replica, seat)| (replica, seat.member)).collect(), self.offers)
    }
}
