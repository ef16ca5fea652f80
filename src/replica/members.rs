//! Who else has the account: invitations, admissions, revocations, addresses.

use std::collections::BTreeSet;
use std::path::Path;

use super::core::{Core, Standing, restore_floor};
use super::identity::Identity;
use super::record::LocalRecord;
use super::{MEMBERS, Replica, ReplicaError, now, random, signatures};
use crate::bytes::{Reader, put_number};
use crate::mailbox::{AccountId, ReplicaId, UidValidity};
use crate::member::{
    Body, Member, Members, OfferId, OfferState, PeerId, Record, Role, SecretKey, Status, Ticket,
};
use crate::sync::{Fault, Join, MAX_INTRODUCTION, PeerHello, RecordName, Refusal};
use crate::uid::Written;

/// What an invitation is to say.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// What the guest will do.
    pub role: Role,
    /// Where this replica's endpoint may be reached, as `host:port`.
    pub addresses: Vec<String>,
    /// The endpoint's key.
    pub endpoint: PeerId,
    /// For how many seconds the ticket can be used.
    pub valid_for: u64,
}

/// A member of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its entry in the membership log.
    pub member: Member,
    /// Whether it is this replica.
    pub oneself: bool,
}

/// The membership log is a file of its own, rewritten as a whole: it is small, and needed before the log can be replayed.
pub(super) fn write(dir: &Path, members: &Members) -> Result<(), ReplicaError> {
    let mut bytes = Vec::new();
    for record in members.records() {
        put_number(&mut bytes, record.encoded().len() as u64);
        bytes.extend(record.encoded());
    }
    super::identity::replace(&dir.join(MEMBERS), &bytes)
}

/// Every record is signed, so damage cannot pass for a record.
pub(super) fn read(dir: &Path, account: AccountId) -> Result<Members, ReplicaError> {
    let Found { records, damage, .. } = find(dir)?;
    match damage {
        None => Ok(Members::fold(account, records)?),
        Some(what) => Err(ReplicaError::Members { path: dir.join(MEMBERS), what }),
    }
}

/// What the membership file holds.
pub(super) struct Found {
    /// Those that are whole.
    pub(super) records: Vec<Record>,
    /// The first thing that is wrong with the others.
    pub(super) damage: Option<String>,
    /// Whether every record is here that another one follows.
    pub(super) complete: bool,
}

pub(super) fn find(dir: &Path) -> Result<Found, ReplicaError> {
    let path = dir.join(MEMBERS);
    let bytes = std::fs::read(&path);
    let bytes = bytes.map_err(|source| ReplicaError::Io { action: "read", path: path.clone(), source })?;
    let mut reader = Reader(&bytes);
    let (mut records, mut damage) = (Vec::new(), None);
    while !reader.is_empty() {
        let at = bytes.len() - reader.0.len();
        let record = reader.number().and_then(|len| reader.take(usize::try_from(len).ok()?));
        let Some(record) = record else {
            damage.get_or_insert_with(|| format!("at byte {at}: it ends within a record"));
            break;
        };
        match Record::decode(record) {
            Ok(record) => records.push(record),
            Err(error) => {
                damage.get_or_insert_with(|| format!("at byte {at}: {error}"));
            }
        }
    }
    let known: BTreeSet<_> = records.iter().map(Record::id).collect();
    let complete = records.iter().all(|record| record.after().iter().all(|id| known.contains(id)));
    Ok(Found { records, damage, complete })
}

/// Adds records to the log, durably, but for those that strangers signed. True if there were new ones.
pub(super) fn add(core: &mut Core, records: Vec<Record>) -> Result<bool, ReplicaError> {
    let mut members = core.members.clone();
    if members.take_in(records)?.is_empty() {
        return Ok(false);
    }
    core.writable()?;
    write(core.store.dir(), &members)?;
    core.members = members;
    core.refresh_grant()?;
    Ok(true)
}

/// Signs a record of this replica and adds it, durably.
fn say(core: &mut Core, body: &Body) -> Result<(), ReplicaError> {
    let record = core.members.sign(core.identity.replica, &core.identity.key, body)?;
    add(core, vec![record]).map(drop)
}

/// Goes on as another replica after the store was copied back: what the old one did since is unknown, and the same number
/// must never stand for two changes.
pub(super) fn succeed(core: &mut Core) -> Result<(), ReplicaError> {
    let old = core.identity.replica;
    let Some(member) = core.members.get(old).filter(|member| member.status == Status::Active).cloned() else {
        return Ok(());
    };
    tracing::warn!(
        replica = %old,
        "the store is behind what this replica once wrote (copied, restored or damaged); going on as a new replica with new UIDVALIDITYs"
    );
    let reader = core.store.reader()?;
    let inside = core.account()?.highest_uid_validity(&reader)?;
    drop(reader);
    let floor = restore_floor(inside, core.outside());
    go_on(core, member.endpoint, Some(floor))?;
    core.change(&[], |account, txn| Ok(((), account.settle(txn, now(), None)?)))?;
    Ok(())
}

/// Goes on under another name with another key, with the same lane. After a restore UIDVALIDITYs rise above `floor`.
fn go_on(core: &mut Core, endpoint: PeerId, floor: Option<UidValidity>) -> Result<(), ReplicaError> {
    let (old, old_key) = (core.identity.replica, SecretKey::from_seed(*core.identity.key.seed()));
    let (replica, key) = (ReplicaId::from_bytes(random()?), SecretKey::from_seed(random()?));
    let body = Body::Succeed { replica, key: key.public(), endpoint };
    let record = core.members.sign(old, &old_key, &body)?;
    let mut records = Vec::new();
    if let Some(floor) = floor {
        records.push(LocalRecord::Restored { floor, time: now(), era: u16::from_be_bytes(random()?) });
    }
    // What the old replica was ready for, its successor is too; who invited it is of no matter any more.
    if core.is_ready()? {
        records.push(LocalRecord::Granted(core.store.reader()?.vector()?));
    }
    records.extend(signatures::sign_all(core)?);
    // In this order: a crash in between does it all again, or finds the record in the identity.
    core.change(&records, |_, _| Ok(((), Written::default())))?;
    let identity = Identity {
        account: core.identity.account,
        replica,
        key,
        instance: core.store.instance(),
        succession: Some(record.encoded().to_vec()),
    };
    core.hand_over(replica, floor)?;
    identity.write(core.store.dir())?;
    core.become_successor(identity);
    add(core, vec![record])?;
    Ok(())
}

/// After a crash between the two: a successor that is in its identity and not yet in the membership log. True if so: then
/// the log is to be written.
pub(super) fn finish_succession(members: &mut Members, identity: &Identity) -> Result<bool, ReplicaError> {
    let record = identity.succession.as_ref().filter(|_| members.get(identity.replica).is_none());
    let Some(record) = record else { return Ok(false) };
    members.union([Record::decode(record)?])?;
    Ok(true)
}

/// The records by which a restored store became `replica`, oldest first; none for most replicas.
pub(super) fn introduction(members: &Members, replica: ReplicaId) -> Vec<Vec<u8>> {
    let (mut records, mut next) = (Vec::new(), replica);
    while records.len() < MAX_INTRODUCTION {
        let made =
            |record: &&Record| matches!(record.body(), Body::Succeed { replica, .. } if *replica == next);
        let Some(record) = members.records().find(made) else { break };
        records.insert(0, record.encoded().to_vec());
        next = record.author();
    }
    records
}

/// Takes the records with which a peer says how it became who it is, if they make it a member. They are signed by members.
pub(super) fn introduce(core: &mut Core, hello: &PeerHello) -> Result<(), ReplicaError> {
    let records: Vec<Record> =
        hello.introduction.iter().filter_map(|bytes| Record::decode(bytes).ok()).collect();
    let mut trial = core.members.clone();
    if trial.union(records.clone()).is_ok() && trial.is_active(hello.replica) {
        add(core, records)?;
    }
    Ok(())
}

impl Replica {
    /// Makes a ticket with which one replica can join, once, and tells the others the addresses in it. Whatever it gives away is given away durably before this
    /// returns.
    pub fn invite(&self, invitation: &Invitation) -> Result<Ticket, ReplicaError> {
        let time = now().max(0) as u64;
        self.announce(invitation.addresses.clone())?;
        let ticket = self.with(|core| {
            let offer = OfferId::from_bytes(random()?);
            let (replica, expires_at) = (core.identity.replica, time + invitation.valid_for);
            let body = core.members.plan_offer(replica, offer, invitation.role, expires_at, time)?;
            let lane = match &body {
                Body::Offer { lane, .. } => lane.map(|(given, _)| given),
                _ => None,
            };
            say(core, &body)?;
            Ok(Ticket {
                account: core.identity.account,
                block: core.members.block().unwrap_or(crate::uid::Block::STANDARD),
                endpoint: invitation.endpoint,
                inviter: replica,
                addresses: invitation.addresses.clone(),
                role: invitation.role,
                lane,
                offer,
                secret: core.identity.key.ticket_secret(offer),
                expires_at,
            })
        })?;
        self.tell(&[]);
        Ok(ticket)
    }

    /// Judges a guest and lets it in; gives the membership records that it needs. A guest that was let in before and did
    /// not hear of it may ask again.
    pub(super) fn admit(&self, join: &Join, holds_ticket: bool) -> Result<Vec<Vec<u8>>, AdmitError> {
        let time = now().max(0) as u64;
        let records = self.with(|core| {
            let refuse = |refusal: Refusal| Ok(Err(AdmitError::Refused(refusal.into())));
            if join.account != core.identity.account {
                return refuse(Refusal::WrongAccount);
            }
            let Some(offer) = core.members.offers().get(&join.offer).cloned() else {
                return refuse(Refusal::TicketUnknown);
            };
            if offer.inviter != core.identity.replica {
                return refuse(Refusal::TicketUnknown);
            }
            if !holds_ticket {
                return refuse(Refusal::TicketAltered);
            }
            match offer.state {
                OfferState::Taken { by } if by == join.replica => {}
                OfferState::Taken { .. } | OfferState::Replaced => return refuse(Refusal::TicketUsed),
                OfferState::Open if offer.expires_at < time => return refuse(Refusal::TicketExpired),
                OfferState::Open => {
                    let (offer, replica, key) = (join.offer, join.replica, join.key);
                    let body =
                        Body::Admit { offer, replica, key, endpoint: join.endpoint, name: join.name.clone() };
                    say(core, &body)?;
                }
            }
            Ok(Ok(encoded(&core.members)))
        });
        let records = records.map_err(AdmitError::Replica)??;
        self.tell(&[]);
        Ok(records)
    }

    /// The members of the account, past ones too.
    pub fn peers(&self) -> Result<Vec<Peer>, ReplicaError> {
        self.with(|core| {
            let peer = |member: &Member| Peer {
                oneself: member.replica == core.identity.replica,
                member: member.clone(),
            };
            Ok(core.members.iter().map(peer).collect())
        })
    }

    /// The active member that `name` means: its name, or the start of its replica id or endpoint.
    pub fn peer(&self, name: &str) -> Result<Peer, ReplicaError> {
        let peers = self.peers()?;
        let means = |peer: &&Peer| {
            let member = &peer.member;
            let starts = |id: String| name.len() >= 4 && id.starts_with(&name.to_ascii_lowercase());
            let named = member.name.as_str() == name;
            let listed = starts(member.replica.to_string()) || starts(member.endpoint.to_string());
            member.status == Status::Active && (named || listed)
        };
        let mut found = peers.iter().filter(means);
        match (found.next(), found.next()) {
            (Some(peer), None) => Ok(peer.clone()),
            (None, _) => Err(ReplicaError::NoPeer { name: name.into() }),
            (Some(_), Some(_)) => Err(ReplicaError::ManyPeers { name: name.into() }),
        }
    }

    /// Ends the membership of a peer. Its sessions end at once; what it wrote so far stays.
    pub fn forget(&self, peer: ReplicaId) -> Result<(), ReplicaError> {
        self.with(|core| {
            if peer == core.identity.replica {
                return Err(ReplicaError::Oneself);
            }
            let last = core.store.reader()?.last_seq(peer)?;
            let body = Body::Revoke { replica: peer, last: (last > 0).then_some(last) };
            say(core, &body)
        })?;
        self.tell(&[]);
        Ok(())
    }

    /// Draws a new key for this replica, which goes on under another id, and says that its endpoint is `endpoint` from now on.
    /// Its lane and its UIDs stay. Peers hear of it when it speaks to them next, from others before that; no conversation may
    /// go on meanwhile. What was signed with the old key still counts, and nothing more is taken under it.
    pub fn rotate(&self, endpoint: PeerId) -> Result<ReplicaId, ReplicaError> {
        if self.standing() == Standing::Outsider {
            return Err(ReplicaError::NotJoined);
        }
        let replica = self.with(|core| {
            core.writable()?;
            go_on(core, endpoint, None)?;
            Ok(core.identity.replica)
        })?;
        self.tell(&[]);
        Ok(replica)
    }

    /// Gives a peer that is no server another role, which is no server's either. What it wrote so far stays, and so does what
    /// it writes before it hears of this: to stop a peer that does not obey, [`forget`](Replica::forget) it.
    pub fn assign(&self, peer: ReplicaId, role: Role) -> Result<(), ReplicaError> {
        self.with(|core| {
            if core.members.get(peer).is_some_and(|member| member.role == role) {
                return Ok(());
            }
            let body = Body::Assign { replica: peer, role };
            say(core, &body)
        })?;
        self.tell(&[]);
        Ok(())
    }

    /// Tells the others where this replica can be reached, as `host:port`.
    pub fn announce(&self, addresses: Vec<String>) -> Result<(), ReplicaError> {
        self.with(|core| {
            let known = core.members.get(core.identity.replica).map(|member| member.addresses.clone());
            if known.is_some_and(|known| known == addresses) {
                return Ok(());
            }
            say(core, &Body::Address { addresses })
        })?;
        self.tell(&[]);
        Ok(())
    }
}

/// The log as it is sent: in whatever parts it comes, each record after those that it follows.
pub(super) fn encoded(members: &Members) -> Vec<Vec<u8>> {
    members.in_order().into_iter().map(|record| record.encoded().to_vec()).collect()
}

/// The name of a record on the wire.
pub(super) fn name(record: &Record) -> RecordName {
    *record.id().as_bytes().first_chunk().expect("sixteen of thirty-two bytes")
}

/// The names of all records.
pub(super) fn names(members: &Members) -> Vec<RecordName> {
    members.records().map(name).collect()
}

/// The records that a peer lacks which has those of `known`; they are added there.
pub(super) fn lacking(members: &Members, known: &mut BTreeSet<RecordName>) -> Vec<Vec<u8>> {
    let lacks = members.in_order().into_iter().filter(|record| known.insert(name(record)));
    lacks.map(|record| record.encoded().to_vec()).collect()
}

/// Why a guest was not let in.
#[derive(Debug)]
pub(super) enum AdmitError {
    /// It is the guest's ticket.
    Refused(Fault),
    /// It is this replica.
    Replica(ReplicaError),
}
