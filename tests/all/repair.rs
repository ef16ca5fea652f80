//! Damage: named, and mended from the rest of the store or from a peer.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use postmerge::member::Role;
use postmerge::store::{Level, Store};

use crate::pair::{Home, name};

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

#[test]
fn a_hole_in_the_log_is_mended_by_a_peer_where_there_is_no_snapshot() {
    let (mut first, second) = two();
    let before = first.picture();
    let validity = first.replica.mailbox(&name("INBOX")).unwrap().uid_validity;
    let spoil = |home: &Home| {
        for entry in fs::read_dir(home.store()).unwrap().map(Result::unwrap) {
            if entry.file_name().to_str().unwrap().starts_with("snapshot") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    };
    first.shut();
    spoil(&first);
    spoil_a_change(&first);
    first.open();
    second.sync(&first);
    first.shut();
    spoil(&first);
    Store::repair(&first.store(), &mut |_| {}).unwrap();
    first.open();
    // What it had claimed was in doubt for a while, so it went on as after a restore: the same mail under new UIDs.
    let bodies = |picture: crate::pair::Picture| -> Vec<_> {
        picture.into_values().flatten().map(|(entry, (_, keywords, body))| (entry, keywords, body)).collect()
    };
    assert_eq!(bodies(first.picture()), bodies(before));
    assert!(first.replica.mailbox(&name("INBOX")).unwrap().uid_validity > validity);
}
