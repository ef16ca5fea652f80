//! The membership log and its fold.

use std::collections::{BTreeMap, BTreeSet};

use super::body::Body;
use super::keys::{PeerId, PublicKey, SecretKey};
use super::record::{MAX_AFTER, OfferId, Record, RecordError, RecordId, RoleName};
use super::role::Role;
use super::rules::{Member, Offer, OfferState, Rejection, State, Status};
use crate::mailbox::{AccountId, ReplicaId};
use crate::uid::{Block, Lane};

/// Most records of an account: a thousand members with a few changes each, 4 MiB at worst, folded in
/// milliseconds.
pub const MAX_RECORDS: usize = 4096;

/// The membership log of one account and what it says.
///
/// The log only grows, by [`union`](Members::union). Everything else is folded from it, the same on every
/// replica that has the same records, whatever the order they came in. A record is judged by the records that it
/// follows, so one that was valid when it was written stays valid, with two exceptions: a revocation voids what
/// the revoked member wrote and its author had not seen; and where two records compete (an offer used twice, by
/// a store that was copied) the same one wins everywhere.
#[derive(Clone, Debug)]
pub struct Members {
    account: AccountId,
    records: BTreeMap<RecordId, Record>,
    members: BTreeMap<ReplicaId, Member>,
    offers: BTreeMap<OfferId, Offer>,
    rejected: BTreeMap<RecordId, Rejection>,
    heads: BTreeSet<RecordId>,
    /// Who was ever let in, by a record in effect or void, and with which key.
    introduced: BTreeSet<(ReplicaId, PublicKey)>,
    /// In which role changes are judged: by their author and the record that they name.
    roles: BTreeMap<(ReplicaId, Option<RoleName>), Role>,
    /// What records without effect conferred as far as they knew. It depends on a record's past alone, so it is found once.
    outdated: BTreeMap<RecordId, Option<(ReplicaId, Role)>>,
    block: Option<Block>,
    digest: [u8; 16],
}

impl Members {
    /// Folds `records`; those that mean nothing for `account` are kept and listed as rejected.
    pub fn fold(
        account: AccountId,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Members, MemberError> {
        let mut members = Members {
            account,
            records: BTreeMap::new(),
            members: BTreeMap::new(),
            offers: BTreeMap::new(),
            rejected: BTreeMap::new(),
            heads: BTreeSet::new(),
            introduced: BTreeSet::new(),
            roles: BTreeMap::new(),
            outdated: BTreeMap::new(),
            block: None,
            digest: [0; 16],
        };
        members.union(records)?;
        members.refold();
        Ok(members)
    }

    /// Adds records and returns the new ones, to be stored and passed on. At the limit it changes nothing.
    pub fn union(&mut self, records: impl IntoIterator<Item = Record>) -> Result<Vec<RecordId>, MemberError> {
        let mut added = BTreeMap::new();
        for record in records {
            if !self.records.contains_key(&record.id()) {
                added.insert(record.id(), record);
                if self.records.len() + added.len() > MAX_RECORDS {
                    return Err(MemberError::TooManyRecords);
                }
            }
        }
        let ids: Vec<RecordId> = added.keys().copied().collect();
        if !ids.is_empty() {
            self.records.append(&mut added);
            self.refold();
        }
        Ok(ids)
    }

    /// As [`union`](Members::union), for records that somebody sent: those are left out whose predecessors are not all here,
    /// and those signed with a key that nobody let in, effective or not. That is settled by a record and what it follows,
    /// so all replicas leave out the same, whatever they hear when; and strangers cannot fill the log.
    pub fn take_in(
        &mut self,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Vec<RecordId>, MemberError> {
        let mut all = self.records.clone();
        for record in records {
            all.insert(record.id(), record);
            if all.len() > 2 * MAX_RECORDS {
                return Err(MemberError::TooManyRecords);
            }
        }
        let sound = vouched(self.account, &causal_order(&all));
        all.retain(|id, _| sound.contains(id) && !self.records.contains_key(id));
        self.union(all.into_values())
    }

    /// The whole log, each record after those that it follows.
    pub fn in_order(&self) -> Vec<&Record> {
        causal_order(&self.records)
    }

    /// The account that the log is about.
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// The account's block of UIDs; nothing until the founding record is here.
    pub fn block(&self) -> Option<Block> {
        self.block
    }

    /// A member, past or present.
    pub fn get(&self, replica: ReplicaId) -> Option<&Member> {
        self.members.get(&replica)
    }

    /// Whether a record of the log let `replica` in, be it void since. Such a one may be no member, neither past nor present,
    /// though others took its changes while it was one for them, and follow those with their own.
    pub fn has_introduced(&self, replica: ReplicaId) -> bool {
        self.keys_of(replica).next().is_some()
    }

    /// The keys with which `replica` was let in: one, unless somebody let it in twice.
    pub fn keys_of(&self, replica: ReplicaId) -> impl Iterator<Item = PublicKey> {
        let none = PublicKey::from_bytes([0; 32]);
        let of = self.introduced.range((replica, none)..).take_while(move |(who, _)| *who == replica);
        of.map(|(_, key)| *key)
    }

    /// The role in which a change of `replica` is judged that names the record `under`, or none: that of the record which let
    /// it in. A record counts as it did for whoever followed it: so all replicas judge alike, whatever they hear when.
    pub fn role_under(&self, replica: ReplicaId, under: Option<RoleName>) -> Option<Role> {
        self.roles.get(&(replica, under)).copied()
    }

    /// The record that changes of `replica` are to name.
    pub fn under(&self, replica: ReplicaId) -> Option<RoleName> {
        self.get(replica)?.assigned.map(|record| record.role_name())
    }

    /// All members, past and present, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// The active members that live at `endpoint`.
    pub fn by_endpoint(&self, endpoint: PeerId) -> impl Iterator<Item = &Member> {
        self.iter().filter(move |member| member.endpoint == endpoint && member.status == Status::Active)
    }

    /// The lane of an active member.
    pub fn lane_of(&self, replica: ReplicaId) -> Option<Lane> {
        self.get(replica)?.lane
    }

    /// Whether `replica` is a member now.
    pub fn is_active(&self, replica: ReplicaId) -> bool {
        self.get(replica).is_some_and(|member| member.status == Status::Active)
    }

    /// All offers, open or not.
    pub fn offers(&self) -> &BTreeMap<OfferId, Offer> {
        &self.offers
    }

    /// The records without effect, and why.
    pub fn rejected(&self) -> &BTreeMap<RecordId, Rejection> {
        &self.rejected
    }

    /// The whole log, by id.
    pub fn records(&self) -> impl ExactSizeIterator<Item = &Record> {
        self.records.values()
    }

    /// One record.
    pub fn record(&self, id: RecordId) -> Option<&Record> {
        self.records.get(&id)
    }

    /// Names the set of records: the BLAKE3 of their sorted ids, cut to 16 bytes.
    pub fn digest(&self) -> [u8; 16] {
        self.digest
    }

    /// Writes a record that follows all that is known here, and checks that it would take effect. The log is
    /// unchanged: store the record, then add it.
    pub fn sign(&self, author: ReplicaId, key: &SecretKey, body: &Body) -> Result<Record, MemberError> {
        let mut after: Vec<RecordId> = self.heads.iter().copied().collect();
        // With too many heads the author's own must be among them: its records are a chain.
        after.sort_by_key(|id| (self.records.get(id).is_none_or(|r| r.author() != author), *id));
        after.truncate(MAX_AFTER);
        let record = Record::sign(author, key, &after, body)?;
        let mut trial = self.clone();
        trial.union([record.clone()])?;
        match trial.rejected.get(&record.id()) {
            Some(reason) => Err(MemberError::Rejected { reason: *reason }),
            None => Ok(record),
        }
    }

    /// Plans an offer by `author`. For a server it halves the author's lane, unless an earlier offer expired
    /// before `now` (seconds since 1970): then it offers that lane again.
    pub fn plan_offer(
        &self,
        author: ReplicaId,
        offer: OfferId,
        role: Role,
        expires_at: u64,
        now: u64,
    ) -> Result<Body, MemberError> {
        if role != Role::Server {
            return Ok(Body::Offer { offer, role, lane: None, expires_at, replaces: None });
        }
        let own = self.lane_of(author).ok_or(MemberError::NoLane)?;
        let stale = self.offers.iter().find_map(|(id, old)| {
            let unused = old.inviter == author && old.state == OfferState::Open && old.expires_at < now;
            Some((*id, old.lane.filter(|_| unused)?))
        });
        let (lane, replaces) = match stale {
            Some((id, given)) => ((given, own), Some(id)),
            None => {
                let (kept, given) = own.split().ok_or(MemberError::NoLane)?;
                ((given, kept), None)
            }
        };
        Ok(Body::Offer { offer, role, lane: Some(lane), expires_at, replaces })
    }

    fn refold(&mut self) {
        let order = causal_order(&self.records);
        let past = Past::of(&order);
        let (state, rejected) = fold(self.account, &order, &past, |_| true);
        let roles = roles(self.account, &order, &past, (&state, &rejected), &mut self.outdated);
        self.block = state.block;
        self.heads = self.records.keys().copied().collect();
        for record in &order {
            for id in record.after() {
                self.heads.remove(id);
            }
        }
        let mut all: BTreeMap<_, _> = self.records.keys().map(|id| (*id, Rejection::Incomplete)).collect();
        for (record, reason) in order.iter().zip(rejected) {
            match reason {
                Some(reason) => all.insert(record.id(), reason),
                None => all.remove(&record.id()),
            };
        }
        // A record may only name heads that every reader can place.
        self.heads.retain(|id| all.get(id) != Some(&Rejection::Incomplete));
        self.rejected = all;
        (self.members, self.offers) = state.into_members();
        let newcomers = self.records.values().filter_map(|record| newcomer(self.account, record));
        self.introduced = newcomers.collect();
        let mut hasher = blake3::Hasher::new_derive_key("postmerge 1 membership digest");
        for id in self.records.keys() {
            hasher.update(id.as_bytes());
        }
        self.digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        self.roles = roles;
    }
}

/// What each record confers, or conferred for whoever followed it. `now` is what the whole log comes to.
fn roles(
    account: AccountId,
    order: &[&Record],
    past: &Past,
    now: (&State, &[Option<Rejection>]),
    outdated: &mut BTreeMap<RecordId, Option<(ReplicaId, Role)>>,
) -> BTreeMap<(ReplicaId, Option<RoleName>), Role> {
    let mut roles = BTreeMap::new();
    for (at, record) in order.iter().enumerate() {
        let name = match record.body() {
            Body::Assign { .. } => Some(record.id().role_name()),
            Body::Found { .. } | Body::Admit { .. } | Body::Succeed { .. } => None,
            _ => continue,
        };
        let conferred = match now.1[at] {
            None => now.0.conferred(record),
            Some(_) => *outdated.entry(record.id()).or_insert_with(|| {
                let (then, rejected) =
                    fold(account, order, past, |other| other == at || past.contains(at, other));
                then.conferred(record).filter(|_| rejected[at].is_none())
            }),
        };
        if let Some((replica, role)) = conferred {
            roles.entry((replica, name)).or_insert(role);
        }
    }
    roles
}

/// The records whose predecessors are all here, each after what it follows, else by id.
fn causal_order(records: &BTreeMap<RecordId, Record>) -> Vec<&Record> {
    let mut missing: BTreeMap<RecordId, usize> = BTreeMap::new();
    let mut followers: BTreeMap<RecordId, Vec<RecordId>> = BTreeMap::new();
    let mut ready = BTreeSet::new();
    for (id, record) in records {
        let after: BTreeSet<_> = record.after().iter().copied().collect();
        for before in &after {
            followers.entry(*before).or_default().push(*id);
        }
        if after.is_empty() {
            ready.insert(*id);
        }
        missing.insert(*id, after.len());
    }
    let mut order = Vec::with_capacity(records.len());
    while let Some(id) = ready.pop_first() {
        order.extend(records.get(&id));
        for follower in followers.remove(&id).unwrap_or_default() {
            if let Some(count) = missing.get_mut(&follower) {
                *count -= 1;
                if *count == 0 {
                    ready.insert(follower);
                }
            }
        }
    }
    order
}

/// The records that somebody signed who was let in, as far as the record knows: the founder, or whom such a record admitted
/// or made a successor. Whether that still counts is another matter.
fn vouched(account: AccountId, order: &[&Record]) -> BTreeSet<RecordId> {
    let past = Past::of(order);
    let mut sound = BTreeSet::new();
    let mut introduced: BTreeMap<(ReplicaId, PublicKey), Vec<usize>> = BTreeMap::new();
    for (at, record) in order.iter().enumerate() {
        let signer = (record.author(), record.key());
        let known = introduced.get(&signer).is_some_and(|by| by.iter().any(|by| past.contains(at, *by)));
        let founds = record.account() == Some(account);
        if !(founds || known) || !record.after().iter().all(|id| sound.contains(id)) {
            continue;
        }
        sound.insert(record.id());
        if let Some(newcomer) = newcomer(account, record) {
            introduced.entry(newcomer).or_default().push(at);
        }
    }
    sound
}

/// Whom a record lets in, and with which key, if it takes effect.
fn newcomer(account: AccountId, record: &Record) -> Option<(ReplicaId, PublicKey)> {
    match record.body() {
        Body::Found { .. } if record.account() == Some(account) => Some((record.author(), record.key())),
        Body::Admit { replica, key, .. } | Body::Succeed { replica, key, .. } => Some((*replica, *key)),
        _ => None,
    }
}

/// Which records each record follows, directly or not: a bit for each pair, 2 MiB for a full log.
pub(super) struct Past {
    words: usize,
    bits: Vec<u64>,
}

impl Past {
    fn of(order: &[&Record]) -> Past {
        let words = order.len().div_ceil(64);
        let mut past = Past { words, bits: vec![0; words * order.len()] };
        let place: BTreeMap<_, _> = order.iter().enumerate().map(|(at, record)| (record.id(), at)).collect();
        for (at, record) in order.iter().enumerate() {
            for before in record.after().iter().filter_map(|id| place.get(id)) {
                let (earlier, own) = past.bits.split_at_mut(at * words);
                for (word, from) in own.iter_mut().zip(&earlier[before * words..(before + 1) * words]) {
                    *word |= from;
                }
                own[before / 64] |= 1 << (before % 64);
            }
        }
        past
    }

    /// Whether record `at` follows record `earlier`.
    pub(super) fn contains(&self, at: usize, earlier: usize) -> bool {
        self.bits[at * self.words + earlier / 64] >> (earlier % 64) & 1 == 1
    }
}

/// Applies the records in order. Each revocation that takes effect voids what its target wrote and its author
/// had not seen, so the fold starts again with those records void; competing revocations take effect by the
/// seniority of their authors. At most one round for each revoked member. Records that are not `known` are left out.
fn fold(
    account: AccountId,
    order: &[&Record],
    past: &Past,
    known: impl Fn(usize) -> bool,
) -> (State, Vec<Option<Rejection>>) {
    let mut void = vec![false; order.len()];
    let mut effective: Vec<(ReplicaId, Option<u64>)> = Vec::new();
    let mut counted = BTreeSet::new();
    loop {
        let mut state = State::new(account);
        let reasons: Vec<Option<Rejection>> = order
            .iter()
            .enumerate()
            .map(|(at, record)| match void[at] {
                true => Some(Rejection::Revoked),
                false if !known(at) => Some(Rejection::Incomplete),
                false => state.apply(at, record, past).err(),
            })
            .collect();
        let next = order
            .iter()
            .enumerate()
            .filter(|(at, _)| reasons[*at].is_none() && !counted.contains(at))
            .filter_map(|(at, record)| match record.body() {
                Body::Revoke { replica, last } => {
                    Some((state.seniority(record.author()), at, *replica, *last))
                }
                _ => None,
            })
            .min();
        let Some((_, revocation, target, last)) = next else {
            for (replica, last) in effective {
                state.revoke(replica, last);
            }
            return (state, reasons);
        };
        counted.insert(revocation);
        effective.push((target, last));
        for (at, record) in order.iter().enumerate() {
            void[at] |= record.author() == target && at != revocation && !past.contains(revocation, at);
        }
    }
}

/// Why the log cannot take or make a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// A limit.
    #[error("an account has at most {MAX_RECORDS} membership records")]
    TooManyRecords,
    /// Ours: the record would have no effect.
    #[error("the membership record would have no effect: {reason}")]
    Rejected {
        /// Why.
        reason: Rejection,
    },
    /// Ours: only who owns a lane that can be halved can invite a server.
    #[error("this replica owns no lane that it could share with another server")]
    NoLane,
    /// The record itself.
    #[error(transparent)]
    Record(#[from] RecordError),
}

#[cfg(test)]
mod tests;
