//! Two and more replicas: pairing, exchange, splits and healing.

use std::sync::mpsc;

use postmerge::member::Role;
use postmerge::replica::{Link, LinkError, LinkEvent, Stay};
use postmerge::uid::KeywordChange;

use crate::pair::{Home, copy_dir, exchange, name, pump};

#[test]
fn a_guest_joins_and_has_everything_with_the_same_uids() {
    let first = Home::found(Role::Server);
    first.replica.create_mailbox(&name("Work"), None).unwrap();
    for n in 0..300 {
        first.append(if n % 3 == 0 { "Work" } else { "INBOX" }, &format!("Subject: {n}\n\nbody {n}\n"));
    }
    let second = first.invite(Role::Server, 2);
    assert_eq!(first.picture(), second.picture());
    assert_eq!(first.picture()["INBOX"].len(), 200);
}

#[test]
fn what_both_did_apart_heals_and_no_uid_is_two_messages() {
    let first = Home::found(Role::Server);
    let shared = first.append("INBOX", "Subject: shared\n\nbody\n");
    let second = first.invite(Role::Server, 2);
    let (a, b) = (first.append("INBOX", "Subject: a\n\n1\n"), second.append("INBOX", "Subject: b\n\n2\n"));
    let (uid_a, uid_b) = (first.uid_of("INBOX", a).unwrap(), second.uid_of("INBOX", b).unwrap());
    assert_ne!(uid_a, uid_b, "lanes keep UIDs apart");
    let validity = first.replica.mailbox(&name("INBOX")).unwrap().uid_validity;
    second.sync(&first);
    assert_eq!(first.picture(), second.picture());
    assert_eq!(first.uid_of("INBOX", shared), second.uid_of("INBOX", shared));
    // The lower of the two was passed by: it is burned, and its message has a new UID above both.
    let lower = if uid_a < uid_b { a } else { b };
    let higher = if uid_a < uid_b { b } else { a };
    assert_eq!(first.uid_of("INBOX", higher), Some(uid_a.max(uid_b)));
    assert!(first.uid_of("INBOX", lower).unwrap() > uid_a.max(uid_b));
    assert_eq!(first.replica.mailbox(&name("INBOX")).unwrap().uid_validity, validity);
}

#[test]
fn a_no_op_says_little_and_is_in_sync() {
    let first = Home::found(Role::Server);
    first.append("INBOX", "Subject: x\n\n");
    let second = first.invite(Role::Observer, 2);
    second.sync(&first);
    let events = second.sync(&first);
    assert!(matches!(events[..], [LinkEvent::Accepted { in_sync: true, .. }]), "{events:?}");
}

#[test]
fn an_observer_shows_private_uids_and_never_claims() {
    let first = Home::found(Role::Server);
    let second = first.invite(Role::Observer, 2);
    let entry = second.append("INBOX", "Subject: from the laptop\n\n");
    let private = second.uid_of("INBOX", entry);
    assert!(private.is_some());
    let shown = second.replica.messages(&name("INBOX"), postmerge::mailbox::Uid::FIRST, 9).unwrap();
    assert_eq!(shown[0].shared_uid, None);
    second.sync(&first);
    assert_eq!(first.picture(), second.picture());
    let shown = second.replica.messages(&name("INBOX"), postmerge::mailbox::Uid::FIRST, 9).unwrap();
    assert_eq!(shown[0].shared_uid, first.uid_of("INBOX", entry));
    assert_eq!(Some(shown[0].uid), private);
    let (ours, theirs) = (second.replica.mailbox(&name("INBOX")), first.replica.mailbox(&name("INBOX")));
    assert_ne!(ours.unwrap().uid_validity, theirs.unwrap().uid_validity);
}

#[test]
fn what_an_observer_adds_is_told_to_whoever_pushes_it() {
    let first = Home::found(Role::Server);
    let second = first.invite(Role::Observer, 2);
    let (tell, told) = mpsc::channel();
    let _subscription = second.replica.subscribe(move |_| tell.send(()).unwrap());
    second.append("INBOX", "Subject: from the laptop\n\n");
    assert!(told.try_recv().is_ok(), "its peers would hear of it with the next change");
}

#[test]
fn a_chain_carries_what_its_ends_do() {
    let first = Home::found(Role::Server);
    let second = first.invite(Role::Observer, 2);
    // The third is let in by the first, and talks to the second only from then on.
    let third = first.invite(Role::Server, 3);
    first.sync(&second);
    let entry = third.append("INBOX", "Subject: from the end of the chain\n\n");
    third.sync(&second);
    second.sync(&first);
    assert_eq!(first.picture(), third.picture());
    assert!(first.uid_of("INBOX", entry).is_some());
}

#[test]
fn large_bodies_stream_and_go_on_after_a_cut() {
    let first = Home::found(Role::Server);
    let big: String =
        (0..200_000u64).map(|n| format!("{:016x}\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let entry = first.append("INBOX", &format!("Subject: big\n\n{big}"));
    let (guest, (mut from, mut to)) = first.invite_linked(Role::Observer, 2);
    // Cut it after the first pieces.
    let (mut carried, mut now) = (0, std::time::Duration::ZERO);
    while carried < 1 << 20 {
        now += std::time::Duration::from_millis(1);
        while let Some(bytes) = from.poll_send(4096).unwrap() {
            to.receive(&bytes, now).unwrap();
        }
        if let Some(bytes) = to.poll_send(64 << 10).unwrap() {
            carried += bytes.len();
            from.receive(&bytes, now).unwrap();
        }
    }
    drop((from, to));
    let owed = guest.replica.status().unwrap();
    assert_eq!(
        (owed.owed_bodies, guest.replica.has_body(postmerge::blob::BlobId::of(b"x")).unwrap()),
        (1, false)
    );
    let shown = guest.replica.messages(&name("INBOX"), postmerge::mailbox::Uid::FIRST, 9).unwrap();
    assert_eq!(shown[0].entry, entry, "a message is shown before its body is here");
    let (from, to) = guest.links(&first);
    let events = pump(from, to).unwrap();
    assert!(
        events.iter().any(|event| matches!(event, LinkEvent::Bodies { count: 1, left: 0, .. })),
        "{events:?}"
    );
    assert_eq!(first.picture(), guest.picture());
}

#[test]
fn a_store_that_was_copied_back_goes_on_as_another_replica() {
    let mut first = Home::found(Role::Server);
    let mut old = Vec::new();
    for n in 0..3 {
        old.push(first.append("INBOX", &format!("Subject: {n}\n\n")));
    }
    first.replica.close().unwrap();
    let backup = tempfile::TempDir::new().unwrap();
    copy_dir(&first.store(), backup.path());
    first.reopen();
    let lost = first.append("INBOX", "Subject: lost with the disk\n\n");
    let before = first.replica.mailbox(&name("INBOX")).unwrap();
    let uid = first.uid_of("INBOX", lost).unwrap();
    let id = first.replica.id().unwrap();
    first.replica.close().unwrap();
    std::fs::remove_dir_all(first.store()).unwrap();
    copy_dir(backup.path(), &first.store());
    first.replica = postmerge::replica::Replica::open(&first.store(), Some(&first.state())).unwrap();
    assert_ne!(first.replica.id().unwrap(), id);
    let after = first.replica.mailbox(&name("INBOX")).unwrap();
    assert!(after.uid_validity > before.uid_validity, "a client must not believe its cache");
    let new = first.append("INBOX", "Subject: new\n\n");
    assert!(first.uid_of("INBOX", new).is_some());
    assert_eq!(old.len() + 1, first.picture()["INBOX"].len());
    let _ = uid;
}

#[test]
fn bodies_that_are_more_urgent_than_those_before_are_fetched_in_the_same_conversation() {
    let first = Home::found(Role::Server);
    let second = first.invite(Role::Observer, 2);
    let (_, mut to) = second.links(&first);
    let (peer, now) = (first.replica.id().unwrap(), std::time::Duration::ZERO);
    let from = Link::initiate(&second.replica, peer, Some(first.endpoint), [9; 32], Stay::Live, now);
    let mut from = from.unwrap();
    let turn = |from: &mut Link, to: &mut Link| {
        for _ in 0..20 {
            to.wake(now).unwrap();
            while let Some(bytes) = from.poll_send(16 << 10).unwrap() {
                to.receive(&bytes, now).unwrap();
            }
            while let Some(bytes) = to.poll_send(16 << 10).unwrap() {
                from.receive(&bytes, now).unwrap();
            }
        }
    };
    turn(&mut from, &mut to);
    for date in [1_000, 3_000, 2_000] {
        let body = format!("Subject: {date}\n\n");
        let added =
            first.replica.append(&name("INBOX"), body.as_bytes(), Default::default(), Some(date)).unwrap();
        turn(&mut from, &mut to);
        assert!(second.replica.has_body(added.blob).unwrap(), "the body of {date}");
    }
}

#[test]
fn a_rollback_that_only_a_peer_can_notice_is_noticed_by_the_peer() {
    let mut first = Home::found(Role::Server);
    let second = first.invite(Role::Server, 2);
    first.append("INBOX", "Subject: kept\n\n");
    first.replica.close().unwrap();
    let backup = tempfile::TempDir::new().unwrap();
    copy_dir(&first.store(), &backup.path().join("store"));
    copy_dir(&first.state(), &backup.path().join("state"));
    first.reopen();
    let late = first.append("INBOX", "Subject: since the backup\n\n");
    second.sync(&first);
    let id = first.replica.id().unwrap();
    // The whole machine goes back, notes and inodes and all: files are put back in place.
    first.shut();
    for part in ["store", "state"] {
        restore_in_place(&backup.path().join(part), &first.dir.path().join(part));
    }
    first.open();
    assert_eq!(first.replica.id().unwrap(), id, "nobody can tell yet");
    let (from, to) = first.links(&second);
    assert!(pump(from, to).is_err());
    assert_ne!(first.replica.id().unwrap(), id);
    first.sync(&second);
    assert_eq!(first.picture(), second.picture());
    assert!(first.uid_of("INBOX", late).is_some());
}

/// A guest that has all changes of `first` and no body.
fn without_bodies(first: &Home, role: Role, seed: u8) -> Home {
    let (guest, (mut from, to)) = first.invite_linked(role, seed);
    from.leave_bodies();
    pump(from, to).unwrap();
    guest
}

#[test]
fn a_one_shot_waits_for_a_peer_that_fetches_the_bodies_of_an_earlier_sync() {
    let first = Home::found(Role::Server);
    for n in 0..300 {
        first.append("INBOX", &format!("Subject: {n}\n\n"));
    }
    let second = without_bodies(&first, Role::Observer, 2);
    assert_eq!(second.replica.status().unwrap().owed_bodies, 300);
    assert_eq!(first.replica.digest().unwrap(), second.replica.digest().unwrap());
    let events = first.sync(&second);
    assert!(matches!(events[0], LinkEvent::Accepted { in_sync: true, .. }), "{events:?}");
    assert_eq!(second.replica.status().unwrap().owed_bodies, 0);
}

#[test]
fn a_body_that_a_peer_gets_later_is_passed_on_in_the_same_conversation() {
    let first = Home::found(Role::Server);
    let second = without_bodies(&first, Role::Server, 2);
    let third = first.invite(Role::Observer, 3);
    let late =
        first.replica.append(&name("INBOX"), &b"Subject: late\n\n"[..], Default::default(), None).unwrap();
    let (mut from, to) = second.links(&first);
    from.leave_bodies();
    pump(from, to).unwrap();
    let mut live = third.live(&second);
    exchange(&mut live, 16 << 10, || false);
    assert!(!third.replica.has_body(late.blob).unwrap() && !second.replica.has_body(late.blob).unwrap());
    second.sync(&first);
    exchange(&mut live, 16 << 10, || false);
    assert!(third.replica.has_body(late.blob).unwrap());
    assert_eq!(third.replica.status().unwrap().owed_bodies, 0);
    assert_eq!(live[0].peer_state(), Some(third.replica.digest().unwrap()));
}

#[test]
fn a_body_that_came_before_a_cut_is_passed_on_after_it() {
    let first = Home::found(Role::Server);
    let second = without_bodies(&first, Role::Server, 2);
    let third = first.invite(Role::Observer, 3);
    let append = |body: &str, date| {
        first.replica.append(&name("INBOX"), body.as_bytes(), Default::default(), Some(date)).unwrap().blob
    };
    let large: String =
        (0..200_000u64).map(|n| format!("{:016x}\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let (large, small) = (append(&large, 1_000), append("Subject: small\n\n", 2_000));
    let (mut from, to) = second.links(&first);
    from.leave_bodies();
    pump(from, to).unwrap();
    let mut live = third.live(&second);
    exchange(&mut live, 16 << 10, || false);
    // The small one comes, and the conversation is cut in the large one.
    let (mut cut, replica) = (second.live(&first), second.replica.clone());
    exchange(&mut cut, 4096, || replica.has_body(small).unwrap());
    drop(cut);
    assert!(!replica.has_body(large).unwrap() && !third.replica.has_body(small).unwrap());
    second.sync(&first);
    exchange(&mut live, 16 << 10, || false);
    assert!(third.replica.has_body(large).unwrap());
    assert!(third.replica.has_body(small).unwrap(), "nobody was told of what came before the cut");
}

#[test]
fn a_body_that_somebody_waits_for_comes_before_the_others() {
    let first = Home::found(Role::Server);
    let entries: Vec<_> = (0..400)
        .map(|n| {
            let body = format!("Subject: {n}\n\n");
            first.replica.append(&name("INBOX"), body.as_bytes(), Default::default(), Some(n)).unwrap()
        })
        .collect();
    let second = without_bodies(&first, Role::Observer, 2);
    let oldest = entries[0].blob;
    let called = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (told, replica) = (called.clone(), second.replica.clone());
    let _subscription = second.replica.subscribe(move |_| {
        told.fetch_or(replica.has_body(oldest).unwrap(), std::sync::atomic::Ordering::Relaxed);
    });
    let mut live = second.live(&first);
    let replica = second.replica.clone();
    exchange(&mut live, 256, || replica.has_body(entries[399].blob).unwrap());
    assert!(!second.replica.want(oldest).unwrap());
    exchange(&mut live, 256, || replica.has_body(oldest).unwrap());
    assert!(called.load(std::sync::atomic::Ordering::Relaxed), "who waits is told at once");
    let left = second.replica.status().unwrap().owed_bodies;
    assert!(left > 80, "{left} others are left");
    assert!(second.replica.want(oldest).unwrap(), "it is here");
    exchange(&mut live, 16 << 10, || false);
    assert_eq!(second.replica.status().unwrap().owed_bodies, 0);
    assert_eq!(live[0].peer_state(), Some(second.replica.digest().unwrap()));
}

#[test]
fn one_flag_change_weighs_little() {
    let first = Home::found(Role::Server);
    first.append("INBOX", "Subject: x\n\n");
    let second = first.invite(Role::Server, 2);
    second.sync(&first);
    let mut live = second.live(&first);
    exchange(&mut live, 16 << 10, || false);
    let uid = first.replica.messages(&name("INBOX"), postmerge::mailbox::Uid::FIRST, 9).unwrap()[0].uid;
    let seen = first.replica.mailbox(&name("INBOX")).unwrap().seen();
    let change =
        KeywordChange::Edit { set: ["\\Flagged".parse().unwrap()].into(), clear: Default::default() };
    first.replica.store_keywords(seen, &[uid], &change, None).unwrap();
    let sent = exchange(&mut live, 16 << 10, || false);
    assert_eq!(first.replica.digest().unwrap(), second.replica.digest().unwrap());
    assert_eq!(live[1].peer_state(), Some(first.replica.digest().unwrap()));
    assert!(sent[0] <= 25 && sent.iter().sum::<usize>() <= 280, "{sent:?}");
}

#[test]
fn a_peer_is_sent_only_the_membership_records_that_it_lacks() {
    let first = Home::found(Role::Server);
    let second = first.invite(Role::Server, 2);
    let _others = [first.invite(Role::Observer, 3), first.invite(Role::Observer, 4)];
    let log = std::fs::metadata(first.store().join("members")).unwrap().len() as usize;
    let mut live = second.live(&first);
    let sent = exchange(&mut live, 16 << 10, || false);
    assert!(sent[0] < log / 2, "{} bytes of records and more, for nothing that {sent:?} lacks", log);
    first.replica.announce(vec!["127.0.0.1:2".into()]).unwrap();
    let sent = exchange(&mut live, 16 << 10, || false);
    assert!(sent.iter().sum::<usize>() < log / 2, "{sent:?} of a log of {log}");
    assert_eq!(first.replica.peers().unwrap().len(), second.replica.peers().unwrap().len());
    assert_eq!(first.replica.digest().unwrap(), second.replica.digest().unwrap());
    second.sync(&first);
}

#[test]
fn a_replica_that_was_forgotten_hears_so() {
    let first = Home::found(Role::Server);
    let second = first.invite(Role::Observer, 2);
    first.replica.forget(second.replica.id().unwrap()).unwrap();
    let [mut from, mut to] = second.live(&first);
    let now = std::time::Duration::ZERO;
    let hello = from.poll_send(16 << 10).unwrap().unwrap();
    assert!(to.receive(&hello, now).is_err());
    let close = to.poll_send(16 << 10).unwrap().unwrap();
    let error = from.receive(&close, now).unwrap_err();
    assert!(matches!(error, LinkError::Revoked) && error.to_string().contains("was forgotten"), "{error}");
    assert_eq!(from.poll_event(), Some(LinkEvent::Revoked));
}

/// A guest whose admission a revocation voids has no seat, yet others hold what it wrote, and what they write follows that.
#[test]
fn what_a_guest_wrote_whose_inviter_is_forgotten_still_goes_round() {
    let first = Home::found(Role::Server);
    let second = first.invite_named(Role::Server, 2, "second");
    let third = first.invite_named(Role::Server, 3, "third");
    second.sync(&first);
    // The first hears nothing of this.
    let guest = second.invite(Role::Observer, 4);
    guest.append("INBOX", "Subject: of the guest\n\n");
    guest.sync(&second);
    third.sync(&second);
    third.append("INBOX", "Subject: later\n\n");
    first.replica.forget(second.replica.id().unwrap()).unwrap();
    third.sync(&first);
    assert_eq!(first.picture(), third.picture());
    assert_eq!(first.picture()["INBOX"].len(), 2);
    for home in [&first, &third] {
        let mut active = home.replica.peers().unwrap();
        active.retain(|peer| peer.member.status == postmerge::member::Status::Active);
        assert_eq!(active.len(), 2, "the forgotten one and its guest are out");
    }
    let (from, to) = third.links(&guest);
    assert!(pump(from, to).is_err(), "nobody talks to the guest");
}

/// Overwrites files without making new ones, and removes what the backup does not have.
fn restore_in_place(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(to).unwrap().map(Result::unwrap) {
        let source = from.join(entry.file_name());
        match (entry.file_type().unwrap().is_dir(), source.exists()) {
            (true, true) => restore_in_place(&source, &entry.path()),
            (false, true) => std::fs::write(entry.path(), std::fs::read(source).unwrap()).unwrap(),
            (true, false) => std::fs::remove_dir_all(entry.path()).unwrap(),
            (false, false) => std::fs::remove_file(entry.path()).unwrap(),
        }
    }
}

/// Rule 1: of the servers that are connected the one with the lowest lane claims for the messages of others.
#[test]
fn a_server_waits_a_moment_for_the_claims_of_a_lower_lane() {
    let first = Home::found(Role::Server);
    let second = first.invite(Role::Server, 2);
    let laptop = second.invite(Role::Observer, 3);
    second.sync(&first);
    first.append("INBOX", "Subject: here\n\n");
    second.sync(&first);
    laptop.sync(&second);
    let shown = laptop.replica.mailbox(&name("INBOX")).unwrap();
    laptop.replica.copy(shown.seen(), &[postmerge::mailbox::Uid::FIRST], &name("INBOX")).unwrap();

    // The second server has the copy, and shows it while the first, which owns the lower lane, is connected.
    let mut live = second.live(&first);
    exchange(&mut live, 16 << 10, || false);
    let (from, to) = laptop.links(&second);
    exchange(&mut [from, to], 16 << 10, || false);
    let uids = |home: &Home| -> Vec<u32> {
        let messages = home.replica.messages(&name("INBOX"), postmerge::mailbox::Uid::FIRST, 9).unwrap();
        messages.iter().map(|message| message.uid.value()).collect()
    };
    let shown = std::thread::scope(|scope| {
        let shown = scope.spawn(|| uids(&second));
        while !shown.is_finished() {
            exchange(&mut live, 16 << 10, || false);
        }
        shown.join().unwrap()
    });
    assert_eq!(shown, [1, 2], "the first server's lane goes on at 2");
    assert_eq!(uids(&first), shown);
}
