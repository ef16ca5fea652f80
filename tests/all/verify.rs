//! Two sides compare what they have.

use std::time::Duration;

use postmerge::mailbox::Uid;
use postmerge::member::Role;
use postmerge::replica::{Unverified, Verdict};

use crate::pair::{Home, exchange, name};

/// Two that have the same, in a few mailboxes.
fn two(role: Role) -> (Home, Home) {
    let home = Home::found(Role::Server);
    for mailbox in ["Work", "Ärger", "Empty"] {
        home.replica.create_mailbox(&name(mailbox), None).unwrap();
    }
    for n in 0..60 {
        home.append(["INBOX", "Work", "Ärger"][n % 3], &format!("Subject: {n}\n\nhello\n"));
    }
    let guest = home.invite(role, 2);
    (home, guest)
}

fn verify(home: &Home, guest: &Home) -> Verdict {
    let request = home.replica.verify(guest.replica.id().unwrap());
    home.sync(guest);
    request.wait(Duration::ZERO).unwrap()
}

#[test]
fn two_that_have_the_same_are_proven_equal_with_their_uids() {
    let (home, guest) = two(Role::Server);
    let verdict = verify(&home, &guest);
    assert!(verdict.is_equal() && !verdict.without_uids, "{verdict:?}");
    assert_eq!((verdict.mailboxes.len(), verdict.bodies), (4, 60));
    assert_eq!(verdict.digest, home.replica.digest().unwrap());
    let inbox = &verdict.mailboxes[1];
    assert_eq!((inbox.name.as_str(), &inbox.here), ("INBOX", &inbox.there));
    assert_eq!(inbox.here.as_ref().unwrap().uids.unwrap().next, 21);
    assert!(home.replica.verified()[&guest.replica.id().unwrap()].1);
    // What one side did since comes over first, and then it is compared.
    let seen = guest.replica.mailbox(&name("Work")).unwrap().seen();
    guest.replica.expunge(seen, &[Uid::FIRST]).unwrap();
    guest.append("Ärger", "one more\n");
    let verdict = verify(&guest, &home);
    assert!(verdict.is_equal() && verdict.bodies == 60, "{verdict:?}");
}

#[test]
fn an_observer_is_compared_without_its_uids() {
    let (home, guest) = two(Role::Observer);
    for verdict in [verify(&home, &guest), verify(&guest, &home)] {
        assert!(verdict.is_equal() && verdict.without_uids, "{verdict:?}");
        assert_eq!(verdict.bodies, 60);
    }
}

#[test]
fn bodies_that_only_one_side_has_are_named() {
    let (mut home, guest) = two(Role::Server);
    let picture = home.picture();
    home.shut();
    // A pack that is gone, and nobody noticed.
    std::fs::remove_file(home.store().join("bodies/00000001.pack")).unwrap();
    std::fs::remove_file(home.store().join("index.redb")).unwrap();
    home.open();
    let verdict = verify(&guest, &home);
    assert!(!verdict.is_equal() && verdict.mailboxes.iter().all(|mailbox| mailbox.differs.is_empty()));
    assert_eq!((verdict.bodies, verdict.only_there.len()), (60, 0));
    let (named, parts) = (verdict.only_here.len() as u64, verdict.differing_buckets);
    assert!((16..60).contains(&named) && parts > 16 && parts <= 60, "{named} bodies of 16 of {parts} parts");
    assert!(!guest.replica.verified()[&home.replica.id().unwrap()].1);
    let verdict = verify(&home, &guest);
    assert_eq!((verdict.bodies, verdict.only_here.len(), verdict.only_there.len() as u64), (0, 0, named));
    home.replica.note_lost_bodies().unwrap();
    home.sync(&guest);
    assert_eq!(home.picture(), picture);
    assert!(verify(&guest, &home).is_equal());
}

#[test]
fn a_comparison_begins_anew_when_somebody_goes_on_and_says_so_if_nobody_ever_rests() {
    let (home, guest) = two(Role::Server);
    let mut ends = home.live(&guest);
    exchange(&mut ends, 1 << 20, || false);
    let request = home.replica.verify(guest.replica.id().unwrap());
    let mut left = 3;
    exchange(&mut ends, 100, || {
        if left > 0 {
            left -= 1;
            guest.append("INBOX", &format!("meanwhile {left}\n"));
        }
        false
    });
    let verdict = request.wait(Duration::ZERO).unwrap();
    assert!(verdict.is_equal() && verdict.bodies == 63, "{verdict:?}");

    let request = home.replica.verify(guest.replica.id().unwrap());
    let mut busy = 0;
    exchange(&mut ends, 1 << 20, || {
        busy += 1;
        guest.append("INBOX", &format!("busy {busy}\n"));
        busy == 20
    });
    assert_eq!(request.wait(Duration::ZERO), Err(Unverified::NoAnswer), "there may be a moment yet");
    ends[0].wake(Duration::from_secs(61)).unwrap();
    assert_eq!(request.wait(Duration::ZERO), Err(Unverified::NeverStill));
}
