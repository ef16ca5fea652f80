//! Damage: named, and mended from the rest of the store or from a peer.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use postmerge::mailbox::Uid;
use postmerge::member::Role;
use postmerge::replica::{Replica, ReplicaError};
use postmerge::store::{Level, Problem, Remedy, Store};
use postmerge::uid::Mailbox;

use crate::pair::{Home, exchange, name};

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.to_str().unwrap().ends_with(ending));
    found.sort();
    found
}

fn flip(path: &Path, at: u64) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    byte[0] ^= 0x40;
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&byte).unwrap();
}

/// A server and a member that has everything too.
fn two() -> (Home, Home) {
    let first = Home::found(Role::Server);
    for n in 0..20 {
        first.append("INBOX", &format!("Subject: {n}\n\n{}\n", "body ".repeat(50 + n)));
    }
    let second = first.invite(Role::Observer, 2);
    for n in 20..24 {
        first.append("INBOX", &format!("Subject: {n}\n\nlate\n"));
    }
    second.sync(&first);
    (first, second)
}

#[test]
fn a_damaged_body_is_named_and_comes_back_from_a_peer() {
    let (mut first, second) = two();
    let before = first.picture();
    first.replica.close().unwrap();
    let pack = files(&first.store().join("bodies"), ".pack").remove(0);
    flip(&pack, fs::metadata(&pack).unwrap().len() / 2);
    drop(std::mem::replace(&mut first.replica, second.replica.clone()));
    let report = Store::check(&first.store(), Level::Full, &mut |_| {}).unwrap();
    assert!(report.problems.iter().any(|problem| problem.to_string().contains(".pack")), "{report:?}");
    let repaired = Store::repair(&first.store(), &mut |_| {}).unwrap();
    assert_eq!(repaired.lost_bodies.len(), 1, "{repaired:?}");
    first.replica = postmerge::replica::Replica::open(&first.store(), Some(&first.state())).unwrap();
    assert_eq!(first.replica.note_lost_bodies().unwrap(), 1);
    second.sync(&first);
    assert_eq!(first.picture(), before);
}

#[test]
fn a_lost_index_is_built_anew_and_shows_the_same() {
    let (mut first, _second) = two();
    let before = first.picture();
    let mailbox = first.replica.mailbox(&name("INBOX")).unwrap();
    first.replica.close().unwrap();
    fs::remove_file(first.store().join("index.redb")).unwrap();
    first.reopen();
    assert_eq!(first.picture(), before);
    let again = first.replica.mailbox(&name("INBOX")).unwrap();
    assert_eq!((again.uid_validity, again.uid_next), (mailbox.uid_validity, mailbox.uid_next));
    assert_ne!(again.highest_modseq.era(), mailbox.highest_modseq.era(), "mod-sequences are of a new era");
}

/// Spoils a change in the middle of a closed replica's log and repairs the store.
fn spoil_a_change(home: &Home) {
    let log = files(&home.store().join("log"), ".log").remove(0);
    // Automerge's magic number begins each change; the tenth is neither the first nor the last.
    let bytes = fs::read(&log).unwrap();
    let mut changes = bytes.windows(4).enumerate().filter(|(_, four)| *four == [0x85, 0x6f, 0x4a, 0x83]);
    flip(&log, changes.nth(9).unwrap().0 as u64 + 60);
    let repaired = Store::repair(&home.store(), &mut |_| {}).unwrap();
    assert!(!repaired.lost_changes.is_empty(), "{repaired:?}");
}

#[test]
fn a_hole_in_the_log_is_mended_from_the_snapshot() {
    let (mut first, _second) = two();
    let before = first.picture();
    let mailbox = first.replica.mailbox(&name("INBOX")).unwrap();
    first.shut();
    spoil_a_change(&first);
    first.open();
    assert_eq!(first.picture(), before);
    let again = first.replica.mailbox(&name("INBOX")).unwrap();
    assert_eq!((again.uid_validity, again.uid_next), (mailbox.uid_validity, mailbox.uid_next));
}

fn lose_snapshots(home: &Home) {
    for entry in fs::read_dir(home.store()).unwrap().map(Result::unwrap) {
        if entry.file_name().to_str().unwrap().starts_with("snapshot") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

#[test]
fn a_hole_in_the_log_is_mended_by_a_peer_where_there_is_no_snapshot() {
    let (mut first, second) = two();
    let before = first.picture();
    let validity = first.replica.mailbox(&name("INBOX")).unwrap().uid_validity;
    first.shut();
    lose_snapshots(&first);
    spoil_a_change(&first);
    first.open();
    second.sync(&first);
    // What it had claimed was in doubt for a while, so it went on as after a restore: the same mail under new UIDs.
    let bodies = |picture: crate::pair::Picture| -> Vec<_> {
        picture.into_values().flatten().map(|(entry, (_, keywords, body))| (entry, keywords, body)).collect()
    };
    assert_eq!(bodies(first.picture()), bodies(before));
    assert!(first.replica.mailbox(&name("INBOX")).unwrap().uid_validity > validity);
    assert_eq!(first.replica.doubts().unwrap(), []);
}

#[test]
fn what_waits_for_a_lost_change_is_told_and_comes_in_with_it() {
    let (first, mut second) = two();
    // These follow what will be lost. The peer has them too, and has no reason to send them again.
    second.append("INBOX", "Subject: own\n\n");
    second.sync(&first);
    second.shut();
    lose_snapshots(&second);
    spoil_a_change(&second);
    second.open();
    let waiting = second.replica.status().unwrap().waiting_changes;
    assert!(waiting > 1);
    assert_eq!(second.replica.doubts().unwrap(), [Problem::Waiting { changes: waiting }]);
    assert!(second.replica.check(Level::Quick, &mut |_| {}).unwrap().problems.len() == 1);
    // It is not forgotten when the replica is opened again with nothing to replay.
    second.reopen();
    assert_eq!(second.replica.status().unwrap().waiting_changes, waiting);

    first.append("INBOX", "Subject: meanwhile\n\n");
    second.sync(&first);
    let shown = first.picture();
    for round in ["healed", "opened again", "with a new index"] {
        assert_eq!(second.picture(), shown, "{round}");
        assert_eq!(second.replica.status().unwrap().waiting_changes, 0, "{round}");
        assert_eq!(second.replica.doubts().unwrap(), [], "{round}");
        assert_eq!(second.replica.digest().unwrap(), first.replica.digest().unwrap(), "{round}");
        second.shut();
        if round == "opened again" {
            fs::remove_file(second.store().join("index.redb")).unwrap();
        }
        second.open();
    }
    second.append("INBOX", "Subject: and on it goes\n\n");
    second.sync(&first);
    assert_eq!(second.picture(), first.picture());
}

#[test]
fn a_pack_that_was_repaired_is_not_reported_again() {
    let (mut first, _second) = two();
    first.shut();
    let pack = files(&first.store().join("bodies"), ".pack").remove(0);
    let whole = fs::read(&pack).unwrap();
    flip(&pack, whole.len() as u64 / 2);
    let check = |home: &Home| Replica::check_dir(&home.store(), Level::Full, &mut |_| {}).unwrap().problems;
    assert!(check(&first).iter().any(|problem| problem.to_string().contains(".pack")));

    let image = contents(&first.store());
    let planned = Replica::plan_repair(&first.store(), &mut |_| {}).unwrap();
    assert!(contents(&first.store()) == image, "a plan changes nothing");
    let repaired = Replica::repair(&first.store(), &mut |_| {}).unwrap();
    assert_eq!(planned.repaired, repaired.repaired);
    assert_eq!(planned.lost_bodies, repaired.lost_bodies);
    assert_eq!(repaired.lost_bodies.len(), 1);
    let kept = fs::read(pack.with_extension("damaged")).unwrap();
    assert!(kept.len() == whole.len() && kept != whole, "the damaged file is kept");

    assert_eq!(check(&first), []);
    first.open();
    // Before anybody is asked for it, the message is without its body.
    let [Problem::LostBody(_)] = &first.replica.doubts().unwrap()[..] else { panic!("a body is lost") };
    assert_eq!(first.replica.note_lost_bodies().unwrap(), 1);
    assert_eq!(first.replica.doubts().unwrap(), []);
    first.shut();
    assert_eq!(check(&first), []);
    assert_eq!(Replica::repair(&first.store(), &mut |_| {}).unwrap().repaired, []);
}

#[test]
fn every_damaged_byte_of_who_the_replica_is_is_named() {
    let (mut first, _second) = two();
    first.shut();
    let problems = || Replica::check_dir(&first.store(), Level::Quick, &mut |_| {}).unwrap().problems;
    assert_eq!(problems(), []);
    for (file, remedy) in
        [("identity", Remedy::Restore), ("members", Remedy::Repair), ("STORE", Remedy::Repair)]
    {
        let path = first.store().join(file);
        let length = fs::metadata(&path).unwrap().len();
        for at in 0..length {
            flip(&path, at);
            let found = problems();
            let named = found.iter().any(|problem| problem.to_string().contains(&path.display().to_string()));
            assert!(named, "byte {at} of {length} of {file}: {found:?}");
            assert!(found.iter().any(|problem| problem.remedy() == remedy), "byte {at} of {file}: {found:?}");
            flip(&path, at);
        }
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        if file != "STORE" {
            assert_eq!(problems().len(), 1, "{file} is missing");
        }
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(problems(), []);
}

#[test]
fn damage_to_who_the_peers_are_is_repaired_on_an_observer_and_they_tell_the_rest() {
    let (second, mut first) = two();
    second.replica.announce(vec!["203.0.113.7:4143".into()]).unwrap();
    first.sync(&second);
    let before = first.picture();
    first.shut();
    let (members, marker) = (first.store().join("members"), first.store().join("STORE"));
    let whole = fs::read(&marker).unwrap();
    let address = fs::read(&members).unwrap().windows(11).position(|text| text == b"203.0.113.7").unwrap();
    flip(&members, address as u64);
    flip(&marker, 30);
    assert!(Replica::open(&first.store(), None).is_err());
    let repaired = Replica::repair(&first.store(), &mut |_| {}).unwrap();
    assert_eq!(repaired.repaired.len(), 2, "{repaired:?}");
    assert_eq!(fs::read(&marker).unwrap(), whole);
    first.open();
    assert_eq!(first.picture(), before);
    let addresses = |home: &Home| {
        let peers = home.replica.peers().unwrap();
        peers.into_iter().map(|peer| peer.member.addresses).collect::<Vec<_>>()
    };
    assert_ne!(addresses(&first), addresses(&second));
    first.sync(&second);
    assert_eq!(addresses(&first), addresses(&second));
    first.shut();
    assert_eq!(Replica::check_dir(&first.store(), Level::Quick, &mut |_| {}).unwrap().problems, []);
}

/// A server that forgot to whom it gave a part of its lane would give out another server's UIDs.
#[test]
fn a_server_does_not_go_on_with_a_part_of_the_membership_log() {
    let (mut first, _second) = two();
    first.shut();
    let members = first.store().join("members");
    flip(&members, fs::metadata(&members).unwrap().len() - 9);
    let refused = Replica::repair(&first.store(), &mut |_| {});
    assert!(matches!(refused, Err(ReplicaError::Members { .. })), "{refused:?}");
}

/// What every file of a directory holds.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(contents(&entry.path()));
        } else {
            found.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[test]
fn a_backup_is_looked_at_without_a_change() {
    for role in [Role::Server, Role::Observer] {
        let (server, observer) = two();
        let mut home = if role == Role::Server { server } else { observer };
        let to = home.dir.path().join("backup");
        home.replica.backup(&to, &mut |_| {}).unwrap();
        let id = home.replica.id().unwrap();
        let shown = home.replica.mailboxes().unwrap();
        let (image, picture) = (contents(&to), home.picture());
        home.shut();
        assert_eq!(Replica::check_dir(&to, Level::Full, &mut |_| {}).unwrap().problems, []);
        home.replica = Replica::open_read_only(&to).unwrap();
        assert_eq!(home.replica.id().unwrap(), id, "it is no other replica");
        assert_eq!(home.picture(), picture);
        let again = home.replica.mailboxes().unwrap();
        let validities = |list: &[Mailbox]| list.iter().map(|one| one.uid_validity).collect::<Vec<_>>();
        // An observer had shown nothing when it was backed up, and draws private ones by the clock.
        assert!(role == Role::Observer || validities(&again) == validities(&shown));
        assert_eq!(home.replica.doubts().unwrap(), []);

        let refused = home.replica.create_mailbox(&name("new"), None).unwrap_err();
        assert!(refused.to_string().contains("reading only"), "{refused}");
        assert!(home.replica.append(&name("INBOX"), &b"x"[..], Default::default(), None).is_err());
        assert!(home.replica.announce(vec!["127.0.0.1:9".into()]).is_err());
        home.replica.close().unwrap();
        assert!(contents(&to) == image, "{role:?}");
    }
}

#[test]
fn a_replica_is_used_while_it_is_backed_up() {
    let (home, _second) = two();
    let to = home.dir.path().join("backup");
    let mut entries = Vec::new();
    home.replica
        .backup(&to, &mut |_| entries.push(home.append("INBOX", &format!("Subject: {}\n\n", entries.len()))))
        .unwrap();
    assert!(entries.len() > 1);
    let copy = Replica::open_read_only(&to).unwrap();
    let inbox = copy.messages(&name("INBOX"), Uid::FIRST, usize::MAX).unwrap();
    assert!(inbox.iter().all(|message| !entries.contains(&message.entry)), "it holds the moment it began");
    assert_eq!(inbox.len(), 24);
    drop(copy);

    // A copy that went on as a replica of its own is not overwritten.
    home.replica.backup(&to, &mut |_| {}).unwrap();
    drop(Replica::open(&to, None).unwrap());
    assert!(home.replica.backup(&to, &mut |_| {}).is_err());
}

#[test]
fn a_scrub_heals_from_whoever_is_connected_and_goes_on_where_it_was() {
    let (mut first, second) = two();
    let before = first.picture();
    let large = first.append("INBOX", &"large ".repeat(1 << 18));
    second.sync(&first);
    let whole = |home: &Home| {
        let (mut pass, mut damaged) = (home.replica.scrub(), Vec::new());
        while !pass.is_done() {
            damaged.extend(home.replica.scrub_step(&mut pass, 1000).unwrap().damaged);
        }
        damaged
    };
    assert_eq!(whole(&first), []);
    first.reopen();
    let pack = files(&first.store().join("bodies"), ".pack").remove(0);
    flip(&pack, fs::metadata(&pack).unwrap().len() / 2);
    let bucket = fs::read_dir(first.store().join("bodies/large")).unwrap().next().unwrap().unwrap();
    let file = fs::read_dir(bucket.path()).unwrap().next().unwrap().unwrap().path();
    flip(&file, 100);
    let mut ends = first.live(&second);
    exchange(&mut ends, 1 << 20, || false);
    assert_eq!(whole(&first).len(), 2);
    let state = first.replica.scrub_state().unwrap();
    assert_eq!((state.damaged, state.unhealed.len()), (2, 2));
    assert!(state.finished.is_some());
    exchange(&mut ends, 1 << 20, || false);
    assert!(first.replica.scrub_state().unwrap().unhealed.is_empty(), "the peer that is there gave both");
    assert_eq!(whole(&first), []);
    let mut now = first.picture();
    assert!(now.get_mut("INBOX").unwrap().remove(&large).is_some());
    assert_eq!(now, before);
    assert_eq!(first.replica.status().unwrap().owed_bodies, 0);
    drop(ends);

    let mut pass = first.replica.resume_scrub();
    first.replica.scrub_step(&mut pass, 10).unwrap();
    assert!(!pass.is_done());
    first.reopen();
    let state = first.replica.scrub_state().unwrap();
    assert!(state.began.is_some() && state.damaged == 2, "{state:?}");
}
