use proptest::prelude::*;

use super::*;
use crate::member::{MemberName, PublicKey};

fn replica(n: u8) -> ReplicaId {
    ReplicaId::from_bytes([n; 16])
}

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

fn offer(n: u8) -> OfferId {
    OfferId::from_bytes([n; 16])
}

fn name(n: u8) -> MemberName {
    MemberName::new(&format!("replica {n}")).unwrap()
}

fn founded(role: Role) -> Members {
    let body = Body::Found {
        salt: [1; 16],
        block: Block::STANDARD,
        endpoint: key(1).peer_id(),
        name: name(1),
        role,
    };
    let record = Record::sign(replica(1), &key(1), &[], &body).unwrap();
    Members::fold(record.account().unwrap(), [record]).unwrap()
}

fn add(members: &mut Members, author: u8, body: &Body) -> Result<RecordId, MemberError> {
    let record = members.sign(replica(author), &key(author), body)?;
    members.union([record.clone()])?;
    Ok(record.id())
}

fn admission(of: u8, by_offer: u8) -> Body {
    Body::Admit {
        offer: offer(by_offer),
        replica: replica(of),
        key: key(of).public(),
        endpoint: key(of).peer_id(),
        name: name(of),
    }
}

/// `inviter` offers and admits `guest`; the offer has the guest's number.
fn invite(members: &mut Members, inviter: u8, guest: u8, role: Role) -> Result<(), MemberError> {
    let plan = members.plan_offer(replica(inviter), offer(guest), role, 100, 0)?;
    add(members, inviter, &plan)?;
    add(members, inviter, &admission(guest, guest)).map(drop)
}

#[test]
fn what_strangers_signed_is_left_out_and_what_members_did_is_kept() {
    let mut log = founded(Role::Server);
    invite(&mut log, 1, 2, Role::Server).unwrap();
    invite(&mut log, 2, 3, Role::Observer).unwrap();
    let whole = log.clone();
    let address = Body::Address { addresses: vec!["somewhere:1".into()] };
    let heads: Vec<RecordId> = log.heads.iter().copied().collect();
    let by_stranger = Record::sign(replica(9), &key(9), &heads, &address).unwrap();
    let wrong_key = Record::sign(replica(2), &key(9), &heads, &address).unwrap();
    let too_early = Record::sign(replica(2), &key(2), &[], &address).unwrap();
    let on_stranger = Record::sign(replica(2), &key(2), &[by_stranger.id()], &address).unwrap();
    let junk = [by_stranger, wrong_key, too_early, on_stranger];
    assert_eq!(log.take_in(junk).unwrap(), []);
    assert_eq!(log.digest(), whole.digest());

    // Two that were let in go on, and somebody revokes the one who let the other in without having seen the admission.
    let mut other = founded(Role::Server);
    let early: Vec<Record> = whole.in_order().into_iter().take(3).cloned().collect();
    other.take_in(early).unwrap();
    add(&mut other, 1, &Body::Revoke { replica: replica(2), last: None }).unwrap();
    add(&mut log, 3, &address).unwrap();
    let (ours, theirs): (Vec<Record>, Vec<Record>) =
        (log.records().cloned().collect(), other.records().cloned().collect());
    log.take_in(theirs).unwrap();
    other.take_in(ours).unwrap();
    assert_eq!(log.digest(), other.digest(), "what is void is kept by all or by none");
    assert!(log.rejected().values().any(|reason| *reason == Rejection::NotAMember));
}

fn rejected(result: Result<RecordId, MemberError>) -> Rejection {
    match result {
        Err(MemberError::Rejected { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn inviting_servers_halves_the_lane() {
    let mut members = founded(Role::Observer);
    assert_eq!(members.lane_of(replica(1)), Some(Lane::WHOLE));
    invite(&mut members, 1, 2, Role::Server).unwrap();
    invite(&mut members, 2, 3, Role::Server).unwrap();
    invite(&mut members, 3, 4, Role::Observer).unwrap();
    let lanes: Vec<_> = (1..=4).map(|n| members.lane_of(replica(n)).map(|l| (l.bits(), l.index()))).collect();
    assert_eq!(lanes, [Some((1, 0)), Some((2, 1)), Some((2, 3)), None]);
    assert_eq!(invite(&mut members, 4, 5, Role::Server), Err(MemberError::NoLane));
    let refused = members.plan_offer(replica(4), offer(5), Role::Observer, 9, 0).unwrap();
    assert_eq!(rejected(add(&mut members, 4, &refused)), Rejection::NotAllowed);
    assert!(members.rejected().is_empty());
    assert_eq!(members.by_endpoint(key(3).peer_id()).map(|m| m.replica).collect::<Vec<_>>(), [replica(3)]);
}

#[test]
fn an_offer_is_used_once_and_only_by_its_author() {
    let mut members = founded(Role::Server);
    invite(&mut members, 1, 2, Role::Server).unwrap();
    assert_eq!(rejected(add(&mut members, 1, &admission(3, 2))), Rejection::Offer);
    let plan = members.plan_offer(replica(1), offer(9), Role::Observer, 10, 0).unwrap();
    add(&mut members, 1, &plan).unwrap();
    assert_eq!(rejected(add(&mut members, 2, &admission(3, 9))), Rejection::Offer);
    assert_eq!(rejected(add(&mut members, 1, &admission(2, 9))), Rejection::InUse);
    assert_eq!(rejected(add(&mut members, 1, &plan)), Rejection::InUse);
    let stranger = members.sign(replica(7), &key(7), &Body::Address { addresses: Vec::new() });
    assert_eq!(stranger, Err(MemberError::Rejected { reason: Rejection::NotAMember }));
    let forged = members.sign(replica(2), &key(7), &Body::Address { addresses: Vec::new() });
    assert_eq!(forged, Err(MemberError::Rejected { reason: Rejection::WrongKey }));
}

#[test]
fn an_expired_offer_gives_its_lane_back() {
    let mut members = founded(Role::Server);
    let plan = members.plan_offer(replica(1), offer(1), Role::Server, 100, 0).unwrap();
    add(&mut members, 1, &plan).unwrap();
    let again = members.plan_offer(replica(1), offer(2), Role::Server, 300, 200).unwrap();
    add(&mut members, 1, &again).unwrap();
    let kept = members.lane_of(replica(1)).unwrap();
    assert_eq!(kept.bits(), 1, "the lane was halved once");
    assert_eq!(rejected(add(&mut members, 1, &admission(2, 1))), Rejection::Offer);
    add(&mut members, 1, &admission(2, 2)).unwrap();
    assert!(!members.lane_of(replica(2)).unwrap().overlaps(kept));
}

#[test]
fn lanes_that_are_not_the_halves_are_refused() {
    let mut members = founded(Role::Server);
    let (kept, given) = Lane::WHOLE.split().unwrap();
    for lane in [None, Some((kept, given)), Some((Lane::WHOLE, Lane::WHOLE)), Some((given, given))] {
        let body = Body::Offer { offer: offer(1), role: Role::Server, lane, expires_at: 1, replaces: None };
        assert_eq!(rejected(add(&mut members, 1, &body)), Rejection::Lane, "{lane:?}");
    }
}

#[test]
fn a_revocation_voids_what_its_author_had_not_seen() {
    let mut members = founded(Role::Server);
    invite(&mut members, 1, 2, Role::Server).unwrap();
    invite(&mut members, 2, 3, Role::Observer).unwrap();
    let mut thief = members.clone();
    invite(&mut thief, 2, 4, Role::Server).unwrap();
    add(&mut thief, 2, &Body::Revoke { replica: replica(1), last: None }).unwrap();
    assert!(!thief.is_active(replica(1)) && thief.is_active(replica(4)));
    add(&mut members, 1, &Body::Revoke { replica: replica(2), last: Some(7) }).unwrap();
    members.union(thief.records().cloned()).unwrap();
    thief.union(members.records().cloned()).unwrap();
    for log in [&members, &thief] {
        let active: Vec<_> = log.iter().filter(|m| m.status == Status::Active).map(|m| m.replica).collect();
        assert_eq!(active, [replica(1), replica(3)], "the founder's revocation comes first");
        assert_eq!(log.get(replica(2)).unwrap().status, Status::Revoked { last: Some(7) });
        assert_eq!(log.lane_of(replica(2)), None);
    }
    assert_eq!(members.digest(), thief.digest());
}

#[test]
fn a_successor_keeps_the_lane_and_only_one_can() {
    let mut members = founded(Role::Server);
    invite(&mut members, 1, 2, Role::Server).unwrap();
    let lane = members.lane_of(replica(2));
    let mut twin = members.clone();
    let successor =
        |n: u8| Body::Succeed { replica: replica(n), key: key(n).public(), endpoint: key(n).peer_id() };
    add(&mut members, 2, &successor(3)).unwrap();
    add(&mut twin, 2, &successor(4)).unwrap();
    assert_eq!((members.lane_of(replica(3)), members.lane_of(replica(2))), (lane, None));
    let late = add(&mut members, 2, &Body::Address { addresses: Vec::new() });
    assert_eq!(rejected(late), Rejection::Succeeded);
    members.union(twin.records().cloned()).unwrap();
    twin.union(members.records().cloned()).unwrap();
    for log in [&members, &twin] {
        assert!(log.is_active(replica(3)) != log.is_active(replica(4)));
        assert_eq!(log.rejected().len(), 1);
    }
}

#[test]
fn a_role_that_somebody_gave_is_a_role_for_all_even_if_its_giver_was_revoked() {
    let mut members = founded(Role::Server);
    invite(&mut members, 1, 2, Role::Server).unwrap();
    invite(&mut members, 1, 3, Role::Reader).unwrap();
    let mut apart = members.clone();
    let given = add(&mut apart, 2, &Body::Assign { replica: replica(3), role: Role::Observer }).unwrap();
    assert_eq!(apart.under(replica(3)), Some(given.role_name()));
    add(&mut members, 1, &Body::Revoke { replica: replica(2), last: None }).unwrap();
    assert_eq!(members.role_under(replica(3), Some(given.role_name())), None);
    members.union(apart.records().cloned()).unwrap();
    // It writes as a reader from now on, and what it wrote in between is judged as it was meant.
    assert_eq!(members.get(replica(3)).unwrap().role, Role::Reader);
    assert_eq!(members.under(replica(3)), None);
    assert_eq!(members.role_under(replica(3), Some(given.role_name())), Some(Role::Observer));
    assert_eq!(members.role_under(replica(3), None), Some(Role::Reader));

    for (author, target, role) in [(1, 2, Role::Reader), (1, 3, Role::Server), (3, 3, Role::Observer)] {
        let body = Body::Assign { replica: replica(target), role };
        assert!(add(&mut apart.clone(), author, &body).is_err(), "{author} {target} {role}");
    }
}

#[test]
fn a_record_waits_for_what_it_follows() {
    let mut members = founded(Role::Server);
    invite(&mut members, 1, 2, Role::Server).unwrap();
    let records: Vec<_> = members.records().cloned().collect();
    let founding = records.iter().position(|r| r.account().is_some()).unwrap();
    let late =
        Members::fold(members.account(), records[..founding].iter().chain(&records[founding + 1..]).cloned());
    let mut late = late.unwrap();
    assert_eq!((late.rejected().len(), late.iter().count()), (2, 0));
    late.union([records[founding].clone()]).unwrap();
    assert_eq!((late.rejected().len(), late.iter().count()), (0, 2));
    let other = Members::fold(AccountId::from_bytes([0; 16]), records).unwrap();
    assert_eq!(other.iter().count(), 0);
}

/// Who owns what, and who belongs.
fn disjoint(members: &Members) -> bool {
    let mut lanes: Vec<Lane> = members.iter().filter_map(|m| m.lane).collect();
    lanes.extend(members.offers().values().filter(|o| o.state == OfferState::Open).filter_map(|o| o.lane));
    (0..lanes.len()).all(|a| (0..a).all(|b| !lanes[a].overlaps(lanes[b])))
}

proptest! {
    /// Copies of stores, thieves and partitions included: whatever is written by whoever holds a key, lanes
    /// stay disjoint and every order of arrival gives the same account, and what a record conferred for somebody it confers for all.
    #[test]
    fn any_history_folds_alike(steps in prop::collection::vec((0..3usize, 1..6u8, 0..7u8, 1..12u8), 1..40)) {
        let genesis = founded(Role::Server);
        let mut logs = [genesis.clone(), genesis.clone(), genesis];
        let mut conferred = Vec::new();
        for (at, author, action, subject) in steps {
            let log = &mut logs[at];
            let _ = match action {
                0 => invite(log, author, subject, Role::Server),
                1 => add(log, author, &admission(subject, author)).map(drop),
                2 => add(log, author, &Body::Revoke { replica: replica(subject), last: None }).map(drop),
                3 => {
                    let (key, endpoint): (PublicKey, PeerId) = (key(subject).public(), key(subject).peer_id());
                    add(log, author, &Body::Succeed { replica: replica(subject), key, endpoint }).map(drop)
                }
                4 => invite(log, author, subject, Role::Observer),
                5 => {
                    let role = [Role::Observer, Role::Reader, Role::Deliver][usize::from(subject) % 3];
                    add(log, author, &Body::Assign { replica: replica(subject % 6), role }).map(drop)
                }
                _ => {
                    let other = logs[(at + 1) % 3].clone();
                    logs[at].union(other.records().cloned()).map(drop)
                }
            };
            prop_assert!(disjoint(&logs[at]));
            conferred.extend(logs[at].roles.clone());
        }
        let all: Vec<Record> = logs.iter().flat_map(|log| log.records().cloned()).collect();
        let forward = Members::fold(logs[0].account(), all.iter().cloned()).unwrap();
        let backward = Members::fold(logs[0].account(), all.iter().rev().cloned()).unwrap();
        prop_assert!(disjoint(&forward));
        prop_assert_eq!(&forward.members, &backward.members);
        prop_assert_eq!(&forward.rejected, &backward.rejected);
        prop_assert_eq!(forward.digest, backward.digest);
        prop_assert_eq!(&forward.roles, &backward.roles);
        // Here two inviters let the same replica in, which draws its id at random elsewhere.
        let let_in = |who: ReplicaId| {
            let news = all.iter().filter_map(|record| Some((newcomer(forward.account(), record)?.0, record.id())));
            news.filter(|(replica, _)| *replica == who).map(|(_, id)| id).collect::<BTreeSet<_>>().len()
        };
        for ((who, under), role) in conferred {
            if let_in(who) == 1 {
                prop_assert_eq!(forward.role_under(who, under), Some(role), "of {} under {:?}", who, under);
            }
        }
    }
}
