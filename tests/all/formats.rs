//! Stores that older versions wrote are read as they were meant.

use std::collections::BTreeMap;
use std::path::Path;

use data_encoding::BASE32_NOPAD;
use postmerge::mailbox::Uid;
use postmerge::member::Role;
use postmerge::replica::Replica;
use postmerge::store::{Level, Store};
use tempfile::TempDir;

use crate::pair::{Home, copy_dir, name};

/// UIDVALIDITY, UIDNEXT, whether it is subscribed; UID, internal date, flags and subject of each message.
type Mailbox = (u32, u32, bool, Vec<(u32, i64, String, String)>);

/// What the replica of `v1` showed when it was closed.
fn shown_in_v1() -> BTreeMap<String, Mailbox> {
    let message = |uid: u32, date: i64, flags: &str, subject: &str| (uid, date, flags.into(), subject.into());
    let adopted = "\\Flagged \\Seen work";
    let mailboxes = [
        (
            "Adopted",
            1_234_567,
            5000,
            false,
            vec![
                message(7, 1_000_000_007, adopted, "adopted 7"),
                message(9, 1_000_000_009, adopted, "adopted 9"),
                message(4000, 1_000_000_000, adopted, "adopted 4000"),
            ],
        ),
        (
            "Archive",
            103_872,
            4,
            true,
            vec![
                message(1, 1_000_000_003, "", "three"),
                message(2, 1_000_000_001, "\\Flagged", "one"),
                message(3, 1_000_000_002, "$Forwarded work", "two"),
            ],
        ),
        ("Entwürfe/日本", 70_681, 2, false, vec![message(1, -1, "\\Draft", "draft")]),
        (
            "INBOX",
            106_516,
            65,
            false,
            vec![
                message(1, 1_000_000_001, "\\Flagged", "one"),
                message(2, 1_000_000_002, "$Forwarded work", "two"),
                message(4, 1_000_000_004, "", "four"),
                message(64, 1_000_000_006, "", "six"),
            ],
        ),
        ("New", 130_677, 1, false, vec![]),
    ];
    mailboxes
        .into_iter()
        .map(|(mailbox, validity, next, subscribed, list)| {
            (mailbox.to_owned(), (validity, next, subscribed, list))
        })
        .collect()
}

fn shown(replica: &Replica) -> BTreeMap<String, Mailbox> {
    let mut mailboxes = BTreeMap::new();
    for mailbox in replica.mailboxes().unwrap() {
        let messages = replica.messages(&mailbox.name, Uid::FIRST, usize::MAX).unwrap().into_iter();
        let messages = messages.map(|message| {
            let flags: Vec<String> = message.keywords.iter().map(ToString::to_string).collect();
            let body = std::io::read_to_string(replica.body(message.entry).unwrap()).unwrap();
            assert_eq!(body.len() as u64, message.size);
            let subject = body.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap().to_owned();
            (message.uid.value(), message.internal_date, flags.join(" "), subject)
        });
        let seen = (mailbox.uid_validity.value(), mailbox.uid_next, mailbox.subscribed, messages.collect());
        mailboxes.insert(mailbox.name.to_string(), seen);
    }
    mailboxes
}

/// A copy of a fixture, with the empty directories that a repository cannot hold.
fn fixture(version: &str, dir: &Path) {
    copy_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version), dir);
    for empty in ["large", "partial", "tmp"] {
        std::fs::create_dir(dir.join("bodies").join(empty)).unwrap();
    }
}

/// Makes the copy the place that the replica lives in: else it is taken for a restored one, and rightly.
fn settle(dir: &Path) {
    let instance = Store::open(dir).unwrap().instance();
    let path = dir.join("identity");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines = text.lines().map(|line| match line.starts_with("instance ") {
        true => format!("instance {}\n", BASE32_NOPAD.encode(&instance.0).to_ascii_lowercase()),
        false => format!("{line}\n"),
    });
    std::fs::write(&path, lines.collect::<String>()).unwrap();
}

#[test]
fn version_1_shows_what_it_showed() {
    let dir = TempDir::new().unwrap();
    let store = dir.path().join("store");
    fixture("v1", &store);
    settle(&store);
    let report = Store::check(&store, Level::Full, &mut |_| {}).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let replica = Replica::open(&store, Some(&dir.path().join("state"))).unwrap();
    assert_eq!(shown(&replica), shown_in_v1());
    let four = replica.messages(&name("INBOX"), Uid::new(4).unwrap(), 1).unwrap()[0].entry;
    let body = std::io::read_to_string(replica.body(four).unwrap()).unwrap();
    let expected = format!("From: a@example.org\nSubject: four\n\n{}", "the same line again\n".repeat(200));
    assert_eq!(body, expected, "a body that is compressed on the disk");
    assert_eq!(replica.account().to_string(), "tcs3suk2ek3zastpb3by7lvszm");
    let peers: Vec<String> = replica
        .peers()
        .unwrap()
        .into_iter()
        .map(|peer| {
            format!("{} {} {:?} {}", peer.member.name, peer.member.role, peer.member.status, peer.oneself)
        })
        .collect();
    assert_eq!(peers.len(), 3, "{peers:?}");
    assert!(peers.contains(&"first server Active true".to_owned()), "{peers:?}");
    assert!(peers.contains(&"second server Active false".to_owned()), "{peers:?}");
    assert!(peers.iter().any(|peer| peer.starts_with("third observer Revoked")), "{peers:?}");
}

#[test]
fn version_1_goes_on_with_a_fresh_replica() {
    let dir = TempDir::new().unwrap();
    fixture("v1", &dir.path().join("store"));
    settle(&dir.path().join("store"));
    let replica = Replica::open(&dir.path().join("store"), Some(&dir.path().join("state"))).unwrap();
    let endpoint = replica
        .peers()
        .unwrap()
        .into_iter()
        .find(|peer| peer.oneself)
        .map(|peer| peer.member.endpoint)
        .unwrap();
    let old = Home { replica, endpoint, dir };
    let fresh = old.invite(Role::Server, 2);
    assert_eq!(shown(&fresh.replica), shown_in_v1());
    let there = fresh.append("INBOX", "Subject: there\n\n");
    let here = old.append("Archive", "Subject: here\n\n");
    fresh.sync(&old);
    fresh.sync(&old);
    assert_eq!(old.picture(), fresh.picture());
    assert!(old.uid_of("INBOX", there).is_some() && fresh.uid_of("Archive", here).is_some());
}

#[test]
fn version_1_that_was_copied_goes_on_as_another_replica() {
    let dir = TempDir::new().unwrap();
    let store = dir.path().join("store");
    fixture("v1", &store);
    let replica = Replica::open(&store, Some(&dir.path().join("state"))).unwrap();
    let now = shown(&replica);
    for (name, (validity, _, subscribed, messages)) in shown_in_v1() {
        let (newer, _, as_before, shown) = &now[&name];
        assert!(*newer > validity && *as_before == subscribed, "{name}");
        let without_uid = |messages: &[(u32, i64, String, String)]| {
            let mut messages: Vec<_> = messages
                .iter()
                .map(|(_, date, flags, subject)| (*date, flags.clone(), subject.clone()))
                .collect();
            messages.sort();
            messages
        };
        assert_eq!(without_uid(shown), without_uid(&messages), "{name}");
    }
}
