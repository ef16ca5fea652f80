//! Imports that stream, and imports that a merge overtakes.

use std::io::{self, Read};

use postmerge::blob::BlobId;
use postmerge::mailbox::{Uid, UidValidity};
use postmerge::member::Role;
use postmerge::replica::{ImportMessage, ReplicaError};

use crate::pair::{Home, name};

fn message(uid: Option<u32>) -> ImportMessage {
    ImportMessage { internal_date: 5, keywords: Default::default(), uid: uid.and_then(Uid::new) }
}

fn files(home: &Home) -> usize {
    let mut dirs = vec![home.store().join("bodies")];
    let mut count = 0;
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { count += 1 }
        }
    }
    count
}

/// Fails after some bytes.
struct Broken(u64);

impl Read for Broken {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("the disk is gone"));
        }
        let length = out.len().min(usize::try_from(self.0).unwrap());
        out[..length].fill(b'x');
        self.0 -= length as u64;
        Ok(length)
    }
}

#[test]
fn large_bodies_are_streamed_and_a_reader_that_fails_costs_one_message() {
    let home = Home::found(Role::Server);
    let big = b"Subject: big\n\n0123456789abcdef\n".repeat(100_000);
    let mut importer = home.replica.import(&name("INBOX"), None, false, false).unwrap();
    for bytes in [10, 2 << 20] {
        let failed = importer.add(message(None), Broken(bytes));
        assert!(
            matches!(&failed, Err(ReplicaError::Source { source }) if source.to_string() == "the disk is gone")
        );
    }
    importer.add(message(None), &*big).unwrap();
    importer.add(message(None), &b"Subject: small\n\n"[..]).unwrap();
    let report = importer.finish().unwrap();
    assert_eq!((report.imported, report.bytes), (2, big.len() as u64 + 16));
    let mut body = Vec::new();
    home.replica.open_body(BlobId::of(&big), 0).unwrap().read_to_end(&mut body).unwrap();
    assert!(body == big);
    let before = files(&home);
    let mut again = home.replica.import(&name("INBOX"), None, false, false).unwrap();
    again.add(message(None), &*big).unwrap();
    let report = again.finish().unwrap();
    assert_eq!((report.imported, report.known, report.bodies), (0, 1, 0));
    assert_eq!(files(&home), before);
}

#[test]
fn a_dry_import_and_an_expunged_message_store_no_body() {
    let home = Home::found(Role::Server);
    let big = vec![b'x'; 2 << 20];
    let before = files(&home);
    let mut dry = home.replica.import(&name("Work"), None, false, true).unwrap();
    dry.add(message(None), &*big).unwrap();
    assert_eq!(dry.finish().unwrap().imported, 1);
    assert_eq!(files(&home), before);
}

#[test]
fn a_folder_that_a_peer_imports_meanwhile_is_there_once_and_keeps_its_uids() {
    let first = Home::found(Role::Server);
    let second = first.invite(Role::Server, 2);
    let folder = name("Folder");
    let adopt = Some((UidValidity::new(777_777).unwrap(), 31));
    let bodies: Vec<Vec<u8>> = (0..3).map(|n| format!("Subject: {n}\n\n").into_bytes()).collect();
    let mut slow = second.replica.import(&folder, adopt, false, false).unwrap();
    for (n, body) in (1..).zip(&bodies) {
        slow.add(message(Some(10 * n)), &**body).unwrap();
    }
    let mut quick = first.replica.import(&folder, adopt, false, false).unwrap();
    for (n, body) in (1..).zip(&bodies[..2]) {
        quick.add(message(Some(10 * n)), &**body).unwrap();
    }
    assert!(quick.finish().unwrap().adopts_uids);
    second.sync(&first);
    let report = slow.finish().unwrap();
    assert_eq!((report.imported, report.known, report.adopts_uids), (1, 2, false));
    second.sync(&first);
    for home in [&first, &second] {
        let (snapshot, mailbox) = home.replica.open_mailbox(&folder).unwrap();
        assert_eq!(mailbox.uid_validity.value(), 777_777);
        let uids: Vec<u32> = snapshot.uids(mailbox.id).unwrap().into_iter().map(Uid::value).collect();
        assert_eq!((uids.len(), &uids[..2]), (3, &[10, 20][..]), "nothing forces another UID");
        assert!(uids[2] > 30, "UIDs below the folder's UIDNEXT were shown once");
    }
}

#[test]
fn an_observer_that_imports_a_dovecots_folder_says_that_it_adopts_nothing() {
    let first = Home::found(Role::Server);
    let second = first.invite(Role::Observer, 2);
    let adopt = Some((UidValidity::new(777_777).unwrap(), 31));
    let mut importer = second.replica.import(&name("Folder"), adopt, false, false).unwrap();
    importer.add(message(Some(10)), &b"Subject: x\n\n"[..]).unwrap();
    assert!(!importer.finish().unwrap().adopts_uids);
    let shown = second.replica.messages(&name("Folder"), Uid::FIRST, 9).unwrap();
    assert_eq!(shown[0].shared_uid, None, "an observer never claims");
    second.sync(&first);
    assert_ne!(first.replica.mailbox(&name("Folder")).unwrap().uid_validity.value(), 777_777);
    assert_eq!(first.picture(), second.picture());
}
