//! Peers that lie. Each ends its own conversation, changes nothing, and leaves the replica serving.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postmerge::blob::{BlobId, Bundle};
use postmerge::mailbox::{
    Change, Document, EntryId, Keyword, MailboxId, Message, Origin, Pack, Place, ReplicaId,
};
use postmerge::member::{Body, ChainHead, Record, Role, SecretKey};
use postmerge::replica::{Link, LinkError};
use postmerge::sync::{Event, Local, OutgoingChange, Session, SessionError, State, VersionVector};
use sha2::{Digest, Sha256};

use crate::pair::{Home, name};

/// A member that speaks the protocol and sends whatever it likes.
struct Rogue {
    session: Session,
    changes: Vec<OutgoingChange>,
    records: Vec<Vec<u8>>,
    bundle: Option<Vec<u8>>,
}

impl Rogue {
    /// Takes over the identity of `guest`.
    fn new(guest: &Home, account: Option<[u8; 16]>, changes: Vec<OutgoingChange>) -> Rogue {
        Rogue::that_has(guest, account, changes, BTreeMap::new())
    }

    /// One that says that it has `vector`.
    fn that_has(
        guest: &Home,
        account: Option<[u8; 16]>,
        changes: Vec<OutgoingChange>,
        vector: VersionVector,
    ) -> Rogue {
        let key = key_of(guest);
        let own = guest.replica.id().unwrap();
        let sign =
            |change: OutgoingChange| if change.replica == own { signed(guest, change) } else { change };
        let changes = changes.into_iter().map(sign).collect();
        let account = account.map_or(guest.replica.account(), postmerge::mailbox::AccountId::from_bytes);
        let local = Local {
            account,
            replica: guest.replica.id().unwrap(),
            state: State { changes: vector, ..State::default() },
            members: [0; 8],
            records: Vec::new(),
            counter: 0,
            owes: false,
            introduction: Vec::new(),
        };
        let session = Session::initiate(local, &key, [4; 32], Duration::ZERO);
        Rogue { session, changes, records: Vec::new(), bundle: None }
    }

    /// Talks to `victim` until its side of the conversation ends; says how.
    fn attack(mut self, victim: &Home, guest: &Home) -> LinkError {
        let mut link = Link::respond(&victim.replica, [4; 32], Some(guest.endpoint), Duration::ZERO);
        for _ in 0..10_000 {
            while let Some(bytes) = self.session.poll_send(32 << 10) {
                if let Err(error) = link.receive(&bytes, Duration::ZERO) {
                    return error;
                }
            }
            while let Some(bytes) = link.poll_send(32 << 10).unwrap() {
                match self.session.receive(&bytes, Duration::ZERO) {
                    Ok(()) => {}
                    Err(error @ SessionError::Refused { .. }) => return LinkError::Session(error),
                    Err(error) => panic!("the victim broke the protocol: {error}"),
                }
            }
            loop {
                match self.session.poll_event() {
                    Ok(Some(event)) => self.handle(event, victim),
                    Ok(None) => break,
                    Err(error @ SessionError::Refused { .. }) => return LinkError::Session(error),
                    Err(error) => panic!("the victim broke the protocol: {error}"),
                }
            }
        }
        panic!("the victim listens for ever");
    }

    fn handle(&mut self, event: Event, victim: &Home) {
        match event {
            Event::Hello(_) => {
                let victim_id = victim.replica.id().unwrap();
                let peers = victim.replica.peers().unwrap();
                let key = peers.iter().find(|peer| peer.member.replica == victim_id).unwrap().member.key;
                self.session.accept(&key, Duration::ZERO).unwrap();
            }
            Event::MembersWanted { .. } => {
                self.session.offer_members(std::mem::take(&mut self.records)).unwrap();
            }
            Event::ChangesWanted { .. } => {
                let state = State { digest: [7; 16], ..State::default() };
                self.session.offer_changes(std::mem::take(&mut self.changes), Some(state)).unwrap();
            }
            Event::BodiesWanted(wanted) => {
                let bundle = self.bundle.clone().unwrap();
                self.session.send_bundle(&[wanted[0].blob], &bundle).unwrap();
            }
            _ => {}
        }
    }
}

/// Not signed by anybody.
fn outgoing(change: &Change) -> OutgoingChange {
    let bytes = change.bytes().to_vec();
    OutgoingChange { replica: change.replica(), seq: change.seq(), bytes, signature: None }
}

/// With the signature of whoever owns the key of `home`.
fn signed(home: &Home, change: OutgoingChange) -> OutgoingChange {
    let OutgoingChange { replica, seq, .. } = change;
    let hash = Sha256::digest(&change.bytes[8..]).into();
    let head = ChainHead { account: home.replica.account(), replica, seq, hash };
    OutgoingChange { signature: Some(head.sign(&key_of(home))), ..change }
}

fn key_of(home: &Home) -> SecretKey {
    let text = std::fs::read_to_string(home.store().join("identity")).unwrap();
    let field = text.lines().find_map(|line| line.strip_prefix("key")).unwrap().trim().to_uppercase();
    let seed = data_encoding::BASE32_NOPAD.decode(field.as_bytes()).unwrap();
    SecretKey::from_seed(seed.try_into().unwrap())
}

/// A victim with some mail, and a member that will turn on it.
fn victim() -> (Home, Home) {
    let victim = Home::found(Role::Server);
    victim.append("INBOX", "Subject: precious\n\n");
    let guest = victim.invite(Role::Server, 2);
    (victim, guest)
}

fn assert_unharmed(victim: &mut Home, before: &crate::pair::Picture) {
    assert_eq!(&victim.picture(), before);
    victim.append("Work", "Subject: still serving\n\n");
    victim.reopen();
    assert_eq!(victim.picture()["INBOX"], before["INBOX"]);
}

fn attack_with_changes(changes: impl FnOnce(&Home) -> Vec<OutgoingChange>) -> LinkError {
    let (mut victim, guest) = victim();
    victim.replica.create_mailbox(&name("Work"), None).unwrap();
    let before = victim.picture();
    let error = Rogue::new(&guest, None, changes(&guest)).attack(&victim, &guest);
    assert_unharmed(&mut victim, &before);
    error
}

/// A change by the guest's replica on a document of its own that knows nothing of the account.
fn forged(guest: &Home, write: impl FnOnce(&mut postmerge::mailbox::Writer)) -> Change {
    Document::new(guest.replica.id().unwrap()).write(0, write).unwrap().unwrap()
}

fn message(body: &str) -> Message {
    Message {
        blob: BlobId::of(body.as_bytes()),
        internal_date: 0,
        size: body.len() as u64,
        keywords: BTreeSet::new(),
    }
}

#[test]
fn a_damaged_change_ends_the_session_and_changes_nothing() {
    let error = attack_with_changes(|guest| {
        let mut change = outgoing(&forged(guest, |writer| writer.place(EntryId::from_bytes([1; 16]), None)));
        *change.bytes.last_mut().unwrap() ^= 1;
        vec![change]
    });
    assert!(matches!(&error, LinkError::Peer { what } if what.contains("damaged")), "{error}");
}

#[test]
fn a_change_of_a_stranger_ends_the_session_and_changes_nothing() {
    let error = attack_with_changes(|_| {
        let mut doc = Document::new(ReplicaId::from_bytes([66; 16]));
        vec![outgoing(
            &doc.write(0, |writer| writer.place(EntryId::from_bytes([1; 16]), None)).unwrap().unwrap(),
        )]
    });
    assert!(error.to_string().contains("who is no member"), "{error}");
}

#[test]
fn a_change_without_its_authors_signature_ends_the_session_and_changes_nothing() {
    let (mut victim, guest) = victim();
    victim.replica.create_mailbox(&name("Work"), None).unwrap();
    let third = victim.invite(Role::Observer, 3);
    third.append("INBOX", "Subject: honest\n\n");
    third.sync(&victim);
    let before = victim.picture();
    let write = |home: &Home| {
        let mut doc = Document::new(home.replica.id().unwrap());
        let entry = EntryId::from_bytes([1; 16]);
        let first = doc.write(0, |writer| writer.place(entry, None)).unwrap().unwrap();
        let second = doc.write(0, |writer| writer.keyword(entry, &Keyword::seen(), true)).unwrap().unwrap();
        [outgoing(&first), outgoing(&second)]
    };
    let [first, second] = write(&guest);
    let of_third = write(&third);
    let attacks = [
        ("own, not signed", vec![first.clone()], "without its author's signature"),
        ("own, the last of two not signed", vec![signed(&guest, first.clone()), second.clone()], "without"),
        (
            "own, signed as another one",
            vec![OutgoingChange { signature: signed(&guest, second).signature, ..first }],
            "not its author's",
        ),
        ("of another member, not signed", of_third.to_vec(), "without its author's signature"),
        (
            "of another member, signed by the peer",
            of_third.iter().map(|change| signed(&guest, change.clone())).collect(),
            "not its author's",
        ),
    ];
    for (what, changes, expected) in attacks {
        let mut rogue = Rogue::new(&guest, None, Vec::new());
        rogue.changes = changes;
        let error = rogue.attack(&victim, &guest);
        assert!(error.to_string().contains(expected), "{what}: {error}");
        assert_eq!(victim.picture(), before, "{what}");
    }
    assert_unharmed(&mut victim, &before);
}

#[test]
fn a_change_with_a_gap_before_it_ends_the_session_and_changes_nothing() {
    let error = attack_with_changes(|guest| {
        let mut doc = Document::new(guest.replica.id().unwrap());
        let entry = EntryId::from_bytes([1; 16]);
        doc.write(0, |writer| writer.place(entry, None)).unwrap();
        let place = Place { mailbox: MailboxId::inbox(), nonce: postmerge::mailbox::Nonce(1), renewal: 0 };
        vec![outgoing(&doc.write(0, |writer| writer.place(entry, Some(place))).unwrap().unwrap())]
    });
    assert!(error.to_string().contains("not known here"), "{error}");
}

#[test]
fn two_different_changes_with_one_number_end_the_session_and_change_nothing() {
    let (mut victim, guest) = victim();
    victim.replica.create_mailbox(&name("Work"), None).unwrap();
    guest.append("INBOX", "Subject: honest\n\n");
    guest.sync(&victim);
    let before = victim.picture();
    let other = forged(&guest, |writer| writer.place(EntryId::from_bytes([1; 16]), None));
    let error = Rogue::new(&guest, None, vec![outgoing(&other)]).attack(&victim, &guest);
    assert!(error.to_string().contains("two different changes"), "{error}");
    assert_unharmed(&mut victim, &before);
}

#[test]
fn another_account_is_refused_by_name() {
    let (mut victim, guest) = victim();
    victim.replica.create_mailbox(&name("Work"), None).unwrap();
    let before = victim.picture();
    let error = Rogue::new(&guest, Some([9; 16]), Vec::new()).attack(&victim, &guest);
    assert!(error.to_string().contains("no replica of this account"), "{error}");
    assert_unharmed(&mut victim, &before);
}

#[test]
fn a_forgotten_member_is_refused_by_name() {
    let (victim, guest) = victim();
    victim.replica.forget(guest.replica.id().unwrap()).unwrap();
    let error = Rogue::new(&guest, None, Vec::new()).attack(&victim, &guest);
    assert!(error.to_string().contains("revoked"), "{error}");
}

#[test]
fn a_peer_that_says_that_it_has_more_of_our_changes_must_bring_them() {
    let (mut victim, guest) = victim();
    victim.replica.create_mailbox(&name("Work"), None).unwrap();
    let (before, id) = (victim.picture(), victim.replica.id().unwrap());
    let rogue = Rogue::that_has(&guest, None, Vec::new(), BTreeMap::from([(id, 99)]));
    let error = rogue.attack(&victim, &guest);
    assert!(matches!(&error, LinkError::Peer { what } if what.contains("change 99")), "{error}");
    assert_eq!(victim.replica.id().unwrap(), id, "a number is no evidence");
    assert_unharmed(&mut victim, &before);
    assert_eq!(victim.replica.id().unwrap(), id);
}

#[test]
fn a_change_in_our_name_that_does_not_follow_ours_is_no_evidence() {
    let (mut victim, guest) = victim();
    victim.replica.create_mailbox(&name("Work"), None).unwrap();
    let (before, id) = (victim.picture(), victim.replica.id().unwrap());
    let status = victim.replica.status().unwrap();
    let mut doc = Document::new(id);
    let entry = EntryId::from_bytes([1; 16]);
    for n in 1..=status.changes + 1 {
        let place = Place { mailbox: MailboxId::inbox(), nonce: postmerge::mailbox::Nonce(n), renewal: 0 };
        let change = doc.write(0, |writer| writer.place(entry, Some(place))).unwrap().unwrap();
        // All that the victim wrote is its own but what the guest did when it joined.
        for deps in [None, Some(Document::genesis_heads())] {
            let mut forged = outgoing(&change);
            if let Some(deps) = deps {
                let honest = automerge::Change::from_bytes(forged.bytes).unwrap();
                let mut opened = honest.decode();
                opened.deps = deps.into_iter().map(automerge::ChangeHash).collect();
                forged.bytes = automerge::Change::from(opened).raw_bytes().to_vec();
            }
            // Not even with its signature, as from a backup of its keys.
            let forged = signed(&victim, forged);
            let error = Rogue::new(&guest, None, vec![forged]).attack(&victim, &guest);
            assert!(!matches!(error, LinkError::RolledBack), "{n}: {error}");
            assert_eq!(victim.replica.id().unwrap(), id, "{n}: {error}");
        }
    }
    assert_unharmed(&mut victim, &before);
}

#[test]
fn membership_records_of_strangers_are_not_kept() {
    let (victim, guest) = victim();
    let log = || std::fs::read(victim.store().join("members")).unwrap();
    let (before, stranger) = (log(), SecretKey::from_seed([66; 32]));
    let sign = |author: ReplicaId| {
        let body = Body::Address { addresses: vec!["mallory:1".into()] };
        Record::sign(author, &stranger, &[], &body).unwrap().encoded().to_vec()
    };
    let mut rogue = Rogue::new(&guest, None, Vec::new());
    rogue.records = vec![sign(ReplicaId::from_bytes([66; 16])), sign(guest.replica.id().unwrap())];
    // What it is ended for comes after the records.
    rogue.changes =
        vec![outgoing(&forged(&guest, |writer| writer.place(EntryId::from_bytes([1; 16]), None)))];
    *rogue.changes[0].bytes.last_mut().unwrap() ^= 1;
    let error = rogue.attack(&victim, &guest);
    assert!(matches!(error, LinkError::Peer { .. }), "{error}");
    assert_eq!(log(), before);
}

#[test]
fn a_body_that_is_another_one_ends_the_session_and_is_not_stored() {
    let (mut victim, guest) = victim();
    victim.replica.create_mailbox(&name("Work"), None).unwrap();
    let change = forged(&guest, |writer| {
        let origin = Origin::Arrived { salt: writer.salt() };
        writer.pack(&Pack { mailbox: MailboxId::inbox(), origin, messages: vec![message("promised")] });
    });
    let lie = BlobId::of(b"a lie");
    let mut rogue = Rogue::new(&guest, None, vec![outgoing(&change)]);
    rogue.bundle = Some(Bundle::encode(&[(lie, b"a lie")]).unwrap());
    let error = rogue.attack(&victim, &guest);
    assert!(error.to_string().contains("without the body"), "{error}");
    assert!(!victim.replica.has_body(BlobId::of(b"promised")).unwrap());
    // The message itself is there, its body is owed, and the rest goes on.
    assert_eq!(victim.replica.status().unwrap().owed_bodies, 1);
    victim.reopen();
    victim.append("Work", "Subject: still serving\n\n");
}

#[test]
fn forged_changes_never_panic_and_never_spoil_the_document() {
    let author = ReplicaId::from_bytes([3; 16]);
    let mut doc = Document::new(author);
    let seen: Keyword = "\\Seen".parse().unwrap();
    let honest: Vec<Change> = (0..4u8)
        .map(|n| {
            let written = doc.write(i64::from(n), |writer| {
                let origin = Origin::Arrived { salt: writer.salt() };
                let pack =
                    Pack { mailbox: MailboxId::inbox(), origin, messages: vec![message("x"), message("y")] };
                let id = writer.pack(&pack);
                writer.keyword(pack.entry_id(id, 0), &seen, n % 2 == 0);
                writer.place(pack.entry_id(id, 1), None);
            });
            written.unwrap().unwrap()
        })
        .collect();
    let (mut accepted, mut seed) = (0, 1u64);
    for round in 0..8_000 {
        let mut bytes = honest[3].bytes().to_vec();
        for _ in 0..1 + round % 3 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = 9 + (seed >> 33) as usize % (bytes.len() - 9);
            bytes[at] = (seed >> 20) as u8;
        }
        // Without an honest checksum the test would only try the checksum.
        let checksum = Sha256::digest(&bytes[8..]);
        bytes[4..8].copy_from_slice(&checksum[..4]);
        let Ok(change) = Change::vet(&bytes) else { continue };
        let mut victim = Document::new(ReplicaId::from_bytes([4; 16]));
        for change in &honest[..3] {
            victim.apply(change).unwrap();
        }
        if victim.apply(&change).is_ok() {
            accepted += 1;
            let saved = victim.save();
            let loaded = Document::load(&saved, ReplicaId::from_bytes([5; 16])).unwrap();
            assert_eq!(loaded.heads(), victim.heads(), "round {round}");
        }
    }
    // Some mutations only change a date or a size: the document takes those, and must not be spoiled by them.
    assert!(accepted > 0, "no forgery got as far as the document");
}

#[test]
fn a_few_bytes_that_stand_for_a_world_of_operations_are_refused_at_once() {
    let mut doc = Document::new(ReplicaId::from_bytes([3; 16]));
    let entry = EntryId::from_bytes([1; 16]);
    let honest = doc.write(0, |writer| writer.place(entry, None)).unwrap().unwrap();
    let mut bombs = 0;
    for at in 9..honest.bytes().len() {
        // A run length of 2^62 in the place of each byte in turn.
        let mut bytes = honest.bytes()[..at].to_vec();
        bytes.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0xc0, 0x00]);
        bytes.extend(&honest.bytes()[at + 1..]);
        let mut chunk = bytes[..9].to_vec();
        let len = bytes.len() - 9 - 1;
        let mut value = len;
        while value >= 0x80 {
            chunk.push(value as u8 | 0x80);
            value >>= 7;
        }
        chunk.push(value as u8);
        let skip = if honest.bytes()[9] & 0x80 == 0 { 10 } else { 11 };
        if at < skip {
            continue;
        }
        chunk.extend(&bytes[skip..]);
        let checksum = Sha256::digest(&chunk[8..]);
        chunk[4..8].copy_from_slice(&checksum[..4]);
        bombs += usize::from(Change::vet(&chunk).is_err());
    }
    assert!(bombs > 50);
}
