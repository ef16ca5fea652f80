//! Peers that lie, stall, replay and shout.

use std::time::Duration;

use proptest::prelude::*;

use super::pair::*;
use crate::blob::BlobId;
use crate::mailbox::AccountId;
use crate::member::Signature;
use crate::sync::compact::Compactor;
use crate::sync::frame::Frame;
use crate::sync::*;

const NOW: Duration = Duration::ZERO;

fn differing() -> Pair {
    let (mut left, right) = (Node::new(1), Node::new(2));
    left.write(1, 1);
    Pair::new(left, right)
}

/// Settled: the attacker speaks as the right side, which asked for one body before.
fn open() -> Pair {
    let mut pair = differing();
    pair.settle();
    pair.assert_equal();
    pair
}

fn refused(pair: &Pair, refuser: usize, expected: Refusal) {
    assert!(
        matches!(&pair.errors[1 - refuser], Some(SessionError::Refused { refusal, .. }) if *refusal == expected),
        "{expected:?}: {:?}",
        pair.errors
    );
    assert!(pair.sessions.iter().all(Session::is_finished));
}

#[test]
fn strangers_are_told_why_and_learn_nothing_else() {
    let mut unknown = differing();
    unknown.nodes[1].keys.remove(&replica(1));
    unknown.settle();
    refused(&unknown, 1, Refusal::UnknownReplica);
    assert!(unknown.sent[1] < 40, "no hello went to a stranger");
    let text = unknown.errors[0].as_ref().unwrap().to_string();
    assert_eq!(text, "the peer ended the session: the replica is not a member of this account: who are you");

    let mut impostor = differing();
    impostor.nodes[1].keys.insert(replica(1), key(9).public());
    impostor.settle();
    refused(&impostor, 1, Refusal::BadProof);

    let mut false_server = differing();
    false_server.nodes[0].keys.insert(replica(2), key(9).public());
    false_server.settle();
    refused(&false_server, 0, Refusal::BadProof);

    let mut other = differing();
    let local = Local { account: AccountId::from_bytes([1; 16]), ..other.nodes[0].local() };
    other.sessions[0] = Session::initiate(local, &key(1), BINDING, NOW);
    other.settle();
    refused(&other, 1, Refusal::WrongAccount);
}

#[test]
fn a_copied_store_is_noticed() {
    let mut pair = differing();
    let local = Local { replica: replica(2), ..pair.nodes[0].local() };
    pair.sessions[0] = Session::initiate(local, &key(2), BINDING, NOW);
    pair.settle();
    refused(&pair, 1, Refusal::SameReplica);
}

#[test]
fn a_hello_holds_for_one_connection_and_one_side() {
    let mut replayed = differing();
    replayed.sessions[0] = Session::initiate(replayed.nodes[0].local(), &key(1), [8; 32], NOW);
    replayed.settle();
    refused(&replayed, 1, Refusal::BadProof);

    // The responder's own hello, sent back to another of its sessions.
    let mut pair = differing();
    let hello = pair.sessions[0].poll_send(usize::MAX).unwrap();
    let mut reflected = Session::initiate(pair.nodes[1].local(), &key(2), BINDING, NOW);
    reflected.receive(&hello, NOW).unwrap();
    assert!(matches!(reflected.poll_event(), Ok(Some(Event::Hello(_)))));
    assert_eq!(
        reflected.accept(&key(1).public(), NOW),
        Err(SessionError::Ended { refusal: Refusal::BadProof })
    );
}

#[test]
fn a_ticket_needs_its_secret_on_this_connection() {
    let mut right = Node::new(2);
    right.write(1, 1);
    for (secret, binding) in
        [(key(5).ticket_secret(offer()), BINDING), (key(2).ticket_secret(offer()), [0; 32])]
    {
        let mut left = Node::new(1);
        left.guest = true;
        let mut pair = Pair::new(left, right.clone());
        let join = Join {
            account: ACCOUNT,
            offer: offer(),
            replica: replica(1),
            key: key(1).public(),
            endpoint: key(1).peer_id(),
            name: crate::member::MemberName::new("guest").unwrap(),
        };
        pair.sessions[0] = Session::join(&join, &secret, &key(1), binding, NOW);
        pair.settle();
        refused(&pair, 1, if binding == BINDING { Refusal::TicketAltered } else { Refusal::BadProof });
    }
}

#[test]
fn versions_are_refused_by_name() {
    let mut session = Session::respond(BINDING, NOW);
    let result = session.receive(&Frame::OtherVersion(2).encode(), NOW);
    assert_eq!(result, Err(SessionError::Ended { refusal: Refusal::Version }));
    let mut peer = Session::initiate(Node::new(1).local(), &key(1), BINDING, NOW);
    let error = peer.receive(&session.poll_send(usize::MAX).unwrap(), NOW).unwrap_err();
    assert!(error.to_string().ends_with("you speak version 2, this side speaks 1"), "{error}");
}

/// Frames, and what the session holds against who sends them once the session is open.
#[test]
fn every_breach_is_named() {
    let (blob, list) = (BlobId::of(b"x"), vec![(BlobId::of(b"y"), 0); 2]);
    let many = (0..=MAX_WANTED as u64).map(|n| (BlobId::of(&n.to_be_bytes()), 0)).collect::<Vec<_>>();
    let want = |bodies: &[(BlobId, u64)], first| Frame::Want { first, bodies: bodies.to_vec() };
    let raw = |bytes: &[u8]| bytes.to_vec();
    let table: Vec<(Vec<u8>, Misbehaved)> = vec![
        (raw(&[0xff, 0xff, 0xff, 0x7f]), Misbehaved::FrameTooLarge { len: 0x1f_ffff, max: MAX_FRAME }),
        (raw(&[0, 0x7f]), Misbehaved::UnknownFrame { kind: 0x7f }),
        (raw(&[1, 0x13, 0xff]), Misbehaved::Malformed { kind: 0x13 }),
        (raw(&[1, 0x05, 0x00]), Misbehaved::Malformed { kind: 0x05 }),
        (
            Frame::Changes { packed: vec![9], signatures: vec![] }.encode(),
            Misbehaved::Malformed { kind: 0x12 },
        ),
        (
            Frame::Changes { packed: vec![0], signatures: vec![(0, Signature::from_bytes([0; 64]))] }
                .encode(),
            Misbehaved::Malformed { kind: 0x12 },
        ),
        (Frame::Have { changes: VersionVector::new() }.encode(), Misbehaved::OutOfTurn { kind: 0x11 }),
        (Frame::Welcome { records: vec![], last: true }.encode(), Misbehaved::OutOfTurn { kind: 0x03 }),
        (want(&list, 1).encode(), Misbehaved::AskedTwice { blob: list[0].0 }),
        (want(&[(blob, 0)], 9).encode(), Misbehaved::Unrequested),
        ([want(&many[1..], 1).encode(), want(&many[..1], 257).encode()].concat(), Misbehaved::TooManyWanted),
        (Frame::Missing { number: 0 }.encode(), Misbehaved::Unrequested),
        (Frame::Piece { bytes: vec![1] }.encode(), Misbehaved::Unrequested),
        (Frame::Bundle { numbers: vec![5], len: 1 }.encode(), Misbehaved::Unrequested),
        (Frame::Bundle { numbers: vec![5], len: u64::MAX }.encode(), Misbehaved::TooMuch),
        ([Frame::Bye.encode(), vec![0]].concat(), Misbehaved::AfterEnd),
    ];
    for (bytes, expected) in table {
        let mut pair = open();
        assert_eq!(pair.sessions[0].receive(&bytes, NOW), Err(SessionError::Peer(expected.clone())));
        pair.settle();
        let told = pair.errors[1].take().unwrap();
        let SessionError::Refused { refusal: Refusal::Protocol, text } = told else { panic!("{told:?}") };
        assert_eq!(text, expected.to_string());
    }
}

#[test]
fn answers_must_be_what_was_asked_for() {
    let blob = BlobId::of(b"x");
    let chunk = |offset, last, len| Frame::Chunk { number: 0, offset, last, bytes: vec![0; len] };
    let bundle = |len| Frame::Bundle { numbers: vec![0], len };
    let piece = |len| Frame::Piece { bytes: vec![0; len] };
    let table: Vec<(Vec<Frame>, Misbehaved)> = vec![
        (vec![chunk(4, false, 1)], Misbehaved::WrongOffset { blob, offset: 4, expected: 5 }),
        (vec![chunk(5, false, 95), chunk(100, true, 1)], Misbehaved::TooMuch),
        (vec![chunk(5, true, 1), chunk(6, true, 1)], Misbehaved::Unrequested),
        (vec![bundle(3)], Misbehaved::Unrequested),
        (vec![Frame::Missing { number: 0 }, Frame::Missing { number: 0 }], Misbehaved::Unrequested),
    ];
    for (frames, expected) in table {
        let mut pair = open();
        let first = Want { blob, offset: 5, at_most: 100 };
        // Requests are numbered over the whole session; this side has asked for nothing yet.
        pair.sessions[0].want(vec![first], NOW).unwrap();
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        assert_eq!(pair.sessions[0].receive(&bytes, NOW), Err(SessionError::Peer(expected)));
    }
    let mut pair = open();
    pair.sessions[0].want(vec![Want { blob, offset: 0, at_most: 100 }], NOW).unwrap();
    let bytes = [bundle(3), piece(2), piece(2)].iter().flat_map(Frame::encode).collect::<Vec<_>>();
    assert_eq!(pair.sessions[0].receive(&bytes, NOW), Err(SessionError::Peer(Misbehaved::TooMuch)));
}

/// What ends the membership of the change's author may be among them.
#[test]
fn a_session_that_a_change_ends_still_brings_the_membership_records() {
    for (refusal, brings) in [(Refusal::BadChange, true), (Refusal::Protocol, false)] {
        let mut pair = open();
        let record = vec![9; 40];
        pair.sessions[1].offer_members(vec![record.clone()]).unwrap();
        pair.sessions[1].fail(refusal);
        pair.settle();
        refused(&pair, 1, refusal);
        assert_eq!(pair.nodes[0].records.contains(&record), brings, "{refusal}");
    }
}

#[test]
fn what_a_few_bytes_unpack_to_is_held_one_frame_at_a_time() {
    let mut pair = open();
    let packed = Compactor::default().pack(&[vec![0; MAX_CHANGE]]);
    let frame = Frame::Changes { packed, signatures: vec![] }.encode();
    let count = PIECE / frame.len();
    assert!(count > 500, "{count} in one read");
    let session = &mut pair.sessions[0];
    session.receive(&frame.repeat(count), NOW).unwrap();
    let mut seen = 0;
    loop {
        assert!(session.held_changes() <= MAX_CHANGE, "{} bytes", session.held_changes());
        match session.poll_event().unwrap() {
            Some(Event::Changes(changes)) => seen += changes.len(),
            Some(event) => panic!("{event:?}"),
            None => break,
        }
    }
    assert_eq!(seen, count);

    // What is behind changes is heard once those are taken, in its place.
    let wrong = Frame::Close { code: Refusal::Revoked.code(), text: String::new() }.encode();
    let held = Frame::Held { digest: [1; 16] }.encode();
    let mut pair = open();
    let session = &mut pair.sessions[0];
    assert_eq!(session.receive(&[frame, held, wrong].concat(), NOW), Ok(()));
    assert!(!session.wants_input());
    assert!(matches!(session.poll_event(), Ok(Some(Event::Changes(_)))));
    assert_eq!(session.poll_event(), Ok(Some(Event::Held([1; 16]))));
    let refused = SessionError::Refused { refusal: Refusal::Revoked, text: String::new() };
    assert_eq!(session.poll_event(), Err(refused));
    assert_eq!(session.poll_event(), Ok(None));
}

#[test]
fn frames_of_later_versions_may_be_ignored() {
    let mut pair = open();
    pair.sessions[0].receive(&[3, 0x80, 1, 2, 3], NOW).unwrap();
    pair.sessions[0].receive(&[0, 0xff], NOW).unwrap();
    pair.part();
}

#[test]
fn a_stranger_gets_no_large_frames() {
    let mut session = Session::respond(BINDING, NOW);
    let large = [0x81, 0x20, 0x01];
    let expected = Misbehaved::FrameTooLarge { len: 0x1001, max: MAX_STRANGER_FRAME };
    assert_eq!(session.receive(&large, NOW), Err(SessionError::Peer(expected)));
}

#[test]
fn silence_ends_a_session_only_if_something_is_due() {
    let mut stranger = Session::respond(BINDING, NOW);
    assert_eq!(stranger.poll_timeout(), Some(HELLO_TIMEOUT));
    stranger.receive(&[1], Duration::from_secs(9)).unwrap();
    assert_eq!(stranger.handle_timeout(Duration::from_secs(9)), Ok(()));
    assert_eq!(stranger.handle_timeout(HELLO_TIMEOUT), Err(SessionError::Timeout(Waiting::Hello)));

    let mut pair = open();
    assert_eq!(pair.sessions.each_ref().map(Session::poll_timeout), [None, None]);
    let want = Want { blob: BlobId::of(b"x"), offset: 0, at_most: 9 };
    pair.sessions[0].want(vec![want], Duration::from_secs(100)).unwrap();
    assert_eq!(pair.sessions[0].poll_timeout(), Some(Duration::from_secs(160)));
    let late = pair.sessions[0].handle_timeout(Duration::from_secs(160));
    assert_eq!(late, Err(SessionError::Timeout(Waiting::Bodies)));
    pair.settle();
    refused(&pair, 0, Refusal::Stalled);
}

/// Any mix of frames that are well formed and bytes that are not.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let frame = (any::<u8>(), prop::collection::vec(any::<u8>(), 0..60))
        .prop_map(|(kind, body)| [&[body.len() as u8, kind & 0x37], &body[..]].concat());
    let known = prop_oneof![
        Just(Frame::Want { first: 0, bodies: vec![(BlobId::of(b"a"), 7)] }),
        Just(Frame::Bundle { numbers: vec![0], len: 10 }),
        Just(Frame::Piece { bytes: vec![1; 10] }),
        Just(Frame::ChangesEnd { digest: [1; 16], changes: VersionVector::new() }),
        Just(Frame::Chunk { number: 0, offset: 0, last: false, bytes: vec![1; 9] }),
        Just(Frame::Bye),
        Just(Frame::Close { code: 77, text: "x".to_owned() }),
    ];
    let known = known.prop_map(|frame| frame.encode());
    prop::collection::vec(prop_oneof![frame, known, prop::collection::vec(any::<u8>(), 0..40)], 0..12)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn noise_never_panics(bytes in noise(), opened in any::<bool>(), cut in 1..50usize) {
        let mut pair = if opened { open() } else { differing() };
        for session in &mut pair.sessions {
            for part in bytes.chunks(cut) {
                if session.receive(part, NOW).is_err() {
                    break;
                }
            }
            while session.poll_event().is_ok_and(|event| event.is_some()) {}
            while session.poll_send(1000).is_some() {}
        }
    }
}

#[test]
fn a_hello_names_its_account_once_it_is_whole() {
    let mut pair = differing();
    let account = pair.nodes[0].local().account;
    let hello = pair.sessions[0].poll_send(usize::MAX).unwrap();
    for len in 0..hello.len() {
        assert_eq!(naming(&hello[..len]), Naming::Incomplete, "{len}");
    }
    assert_eq!(naming(&hello), Naming::Account(account));
    assert_eq!(naming(&[&hello[..], b"more"].concat()), Naming::Account(account));
    for nonsense in [&[0xff; 64][..], &[0, 0x05], &[0, 0]] {
        assert_eq!(naming(nonsense), Naming::Nothing, "{nonsense:?}");
    }
}
