//! What the face promises to whoever serves clients through it: reads of one commit, operations that act on what was seen.

use std::collections::BTreeSet;
use std::io::{BufRead, Read};

use postmerge::blob::BlobId;
use postmerge::mailbox::{Keyword, ModSeq, Uid, UidValidity};
use postmerge::member::{MemberName, Role};
use postmerge::replica::{ImportMessage, Invitation, NewMessage, Replica, ReplicaError, Stored};
use postmerge::store::Summarizer;
use postmerge::uid::{AccountError, KeywordChange, Seen};

use crate::pair::{Home, endpoint, name, pump};

fn uid(value: u32) -> Uid {
    Uid::new(value).unwrap()
}

fn words(texts: &[&str]) -> BTreeSet<Keyword> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn set(texts: &[&str]) -> KeywordChange {
    KeywordChange::Edit { set: words(texts), clear: BTreeSet::new() }
}

/// A server with messages 1 to `count` in INBOX, and an empty mailbox Work.
fn filled(count: u32) -> Home {
    let home = Home::found(Role::Server);
    home.replica.create_mailbox(&name("Work"), None).unwrap();
    for n in 1..=count {
        home.append("INBOX", &format!("Subject: {n}\n\n"));
    }
    home
}

fn seen(home: &Home, mailbox: &str) -> Seen {
    home.replica.mailbox(&name(mailbox)).unwrap().seen()
}

fn uids(home: &Home, mailbox: &str) -> Vec<u32> {
    let (snapshot, mailbox) = home.replica.open_mailbox(&name(mailbox)).unwrap();
    snapshot.uids(mailbox.id).unwrap().into_iter().map(Uid::value).collect()
}

#[test]
fn a_snapshot_stays_as_it_was_whatever_is_written_later() {
    let home = filled(2);
    let (snapshot, mailbox) = home.replica.open_mailbox(&name("INBOX")).unwrap();
    home.append("INBOX", "Subject: later\n\n");
    home.replica.expunge(mailbox.seen(), &[uid(1)]).unwrap();
    home.replica.rename_mailbox(&name("Work"), &name("Play")).unwrap();
    assert_eq!(snapshot.mailbox(mailbox.id).unwrap().unwrap(), mailbox);
    assert_eq!(snapshot.uids(mailbox.id).unwrap(), [uid(1), uid(2)]);
    assert_eq!(snapshot.message(mailbox.id, uid(1)).unwrap().unwrap().uid, uid(1));
    assert!(snapshot.find(&name("Work")).unwrap().is_some());
    assert_eq!(uids(&home, "INBOX"), [2, 3]);
    assert_eq!(home.replica.snapshot().unwrap().find(&name("Work")).unwrap(), None);
}

#[test]
fn a_mailbox_that_waits_for_uids_cannot_be_read_from_a_snapshot_of_another_one() {
    let first = filled(0);
    let second = first.invite(Role::Observer, 2);
    let work = second.replica.mailbox(&name("Work")).unwrap();
    let inbox = second.replica.mailbox(&name("INBOX")).unwrap();
    first.append("INBOX", "Subject: pushed\n\n");
    second.sync(&first);
    let snapshot = second.replica.snapshot_of(work.id).unwrap();
    assert!(snapshot.messages(work.id, Uid::FIRST, 9).unwrap().is_empty());
    let refused = |error| matches!(error, ReplicaError::Unsettled { mailbox } if mailbox == inbox.id);
    assert!(snapshot.messages(inbox.id, Uid::FIRST, 9).is_err_and(refused));
    assert!(snapshot.uids(inbox.id).is_err_and(refused));
    assert!(snapshot.mailboxes().is_err_and(refused));
    assert_eq!(second.replica.snapshot().unwrap().uids(inbox.id).unwrap(), [uid(1)]);
}

#[test]
fn no_push_shows_a_mailbox_half_settled() {
    let first = filled(0);
    let second = first.invite(Role::Observer, 2);
    let inbox = name("INBOX");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| {
            for n in 0..25 {
                first.append("INBOX", &format!("Subject: {n}\n\n"));
                second.sync(&first);
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        while !done.load(std::sync::atomic::Ordering::Acquire) && !pushing.is_finished() {
            let (snapshot, mailbox) = second.replica.open_mailbox(&inbox).unwrap();
            let messages = snapshot.messages(mailbox.id, Uid::FIRST, usize::MAX).unwrap();
            assert_eq!(messages.len() as u64, mailbox.messages);
            assert_eq!(mailbox.uid_next, messages.len() as u32 + 1);
        }
    });
    assert_eq!(uids(&second, "INBOX"), (1..=25).collect::<Vec<_>>());
}

#[test]
fn an_operation_with_another_uidvalidity_is_refused_and_does_nothing() {
    let home = filled(2);
    let good = seen(&home, "INBOX");
    let bad = Seen { uid_validity: UidValidity::new(good.uid_validity.value() + 1).unwrap(), ..good };
    let refused = |error| matches!(error, ReplicaError::Account(AccountError::UidValidity { .. }));
    let (replica, one) = (&home.replica, [uid(1)]);
    assert!(replica.expunge(bad, &one).is_err_and(refused));
    assert!(replica.move_to(bad, &one, &name("Work")).is_err_and(refused));
    assert!(replica.copy(bad, &one, &name("Work")).is_err_and(refused));
    assert!(replica.store_keywords(bad, &one, &set(&["\\Seen"]), None).is_err_and(refused));
    let mailbox = replica.mailbox(&name("INBOX")).unwrap();
    assert_eq!((mailbox.messages, mailbox.unseen), (2, 2));
    replica.delete_mailbox(&name("Work")).unwrap();
    let gone = replica.move_to(good, &one, &name("Work"));
    assert!(matches!(gone, Err(ReplicaError::Account(AccountError::NoMailbox { .. }))));
}

#[test]
fn an_operation_finds_its_mailbox_under_another_name_and_not_in_its_successor() {
    let home = filled(1);
    let replica = &home.replica;
    replica.move_to(seen(&home, "INBOX"), &[uid(1)], &name("Work")).unwrap();
    let work = seen(&home, "Work");
    replica.rename_mailbox(&name("Work"), &name("Play")).unwrap();
    replica.create_mailbox(&name("Work"), None).unwrap();
    home.append("Work", "Subject: another\n\n");
    assert_eq!(replica.expunge(work, &[uid(1)]).unwrap(), [uid(1)]);
    assert_eq!((uids(&home, "Play"), uids(&home, "Work")), (vec![], vec![1]));
    replica.delete_mailbox(&name("Play")).unwrap();
    let gone = replica.expunge(work, &[uid(1)]);
    assert!(matches!(gone, Err(ReplicaError::Account(AccountError::MailboxGone { .. }))));
}

fn done(stored: &Stored) -> Vec<Uid> {
    stored.done.iter().map(|message| message.uid).collect()
}

#[test]
fn uids_that_are_gone_are_passed_over_in_silence() {
    let home = filled(3);
    let (replica, inbox) = (&home.replica, seen(&home, "INBOX"));
    assert_eq!(replica.expunge(inbox, &[uid(2), uid(2), uid(9)]).unwrap(), [uid(2)]);
    let all = [uid(1), uid(2), uid(3)];
    let stored = replica.store_keywords(inbox, &all, &set(&["\\Seen"]), None).unwrap();
    assert_eq!((done(&stored), stored.modified), (vec![uid(1), uid(3)], vec![]));
    let copied = replica.copy(inbox, &[uid(2)], &name("Work")).unwrap();
    assert!(copied.messages.is_empty());
}

#[test]
fn unchangedsince_leaves_alone_what_changed_and_all_for_a_foreign_mod_sequence() {
    let home = filled(3);
    let (replica, inbox) = (&home.replica, seen(&home, "INBOX"));
    let since = replica.mailbox(&name("INBOX")).unwrap().highest_modseq;
    replica.store_keywords(inbox, &[uid(2)], &set(&["\\Flagged"]), None).unwrap();
    let all = [uid(1), uid(2), uid(3), uid(7)];
    let stored = replica.store_keywords(inbox, &all, &set(&["\\Seen"]), Some(since)).unwrap();
    assert_eq!((done(&stored), stored.modified), (vec![uid(1), uid(3)], vec![uid(2)]));
    let (snapshot, mailbox) = replica.open_mailbox(&name("INBOX")).unwrap();
    let message = snapshot.message(mailbox.id, uid(2)).unwrap().unwrap();
    assert_eq!(message.keywords, words(&["\\Flagged"]));
    let foreign = ModSeq::new(mailbox.highest_modseq.counter() + 100, mailbox.highest_modseq.era() ^ 1);
    let stored = replica.store_keywords(inbox, &all, &set(&["\\Draft"]), Some(foreign)).unwrap();
    assert_eq!((stored.done, stored.modified), (vec![], vec![uid(1), uid(2), uid(3)]));
}

#[test]
fn exactly_these_keywords_are_set_and_all_others_cleared() {
    let home = filled(2);
    let (replica, inbox) = (&home.replica, seen(&home, "INBOX"));
    replica.store_keywords(inbox, &[uid(1)], &set(&["\\Seen", "work"]), None).unwrap();
    let exactly = KeywordChange::Exactly(words(&["work", "$Junk"]));
    replica.store_keywords(inbox, &[uid(1), uid(2)], &exactly, None).unwrap();
    let messages = replica.messages(&name("INBOX"), Uid::FIRST, 9).unwrap();
    assert!(messages.iter().all(|message| message.keywords == words(&["work", "$Junk"])));
    assert_eq!(replica.mailbox(&name("INBOX")).unwrap().unseen, 2);
}

#[test]
fn what_a_store_says_is_what_is_there_afterwards() {
    let first = filled(5);
    let second = first.invite(Role::Observer, 2);
    for home in [&first, &second] {
        let replica = &home.replica;
        let known = uids(home, "INBOX");
        let all: Vec<Uid> = known.iter().rev().map(|n| uid(*n)).collect();
        let inbox = seen(home, "INBOX");
        replica.store_keywords(inbox, &all[1..3], &set(&["\\Deleted", "work"]), None).unwrap();
        replica.expunge(inbox, &all[4..]).unwrap();
        let exactly = KeywordChange::Exactly(words(&["work", "\\Seen"]));
        let clear = KeywordChange::Edit { set: words(&["\\Seen"]), clear: words(&["\\Deleted"]) };
        for change in [set(&["work"]), clear, exactly] {
            let before = replica.messages(&name("INBOX"), Uid::FIRST, 9).unwrap();
            let stored = replica.store_keywords(inbox, &all, &change, None).unwrap();
            assert_eq!(done(&stored), all[..4]);
            let now = replica.messages(&name("INBOX"), Uid::FIRST, 9).unwrap();
            for (message, (before, now)) in stored.done.iter().rev().zip(before.iter().zip(&now)) {
                assert_eq!((&*message.keywords, message.modseq), (&now.keywords, now.modseq), "{change:?}");
                assert_eq!(message.before, before.modseq);
                assert_eq!(message.before == message.modseq, before.keywords == now.keywords);
            }
        }
        first.sync(&second);
    }
}

#[test]
fn a_message_is_replaced_in_one_change_and_added_where_there_is_nothing_to_replace() {
    let home = filled(2);
    let (replica, inbox) = (&home.replica, seen(&home, "INBOX"));
    let (body, _) = replica.put_body(&b"Subject: second\n\n"[..]).unwrap();
    let second = NewMessage { body, keywords: words(&["\\Draft"]), internal_date: Some(7) };
    let before = replica.status().unwrap().changes;
    let added = replica.replace(inbox, uid(1), &name("Work"), second.clone()).unwrap();
    assert_eq!((added.into.unwrap(), added.messages[0].uid), (seen(&home, "Work"), Some(uid(1))));
    assert_eq!((uids(&home, "INBOX"), uids(&home, "Work")), (vec![2], vec![1]));
    assert_eq!(replica.status().unwrap().changes, before + 1);
    replica.replace(inbox, uid(1), &name("INBOX"), second.clone()).unwrap();
    assert_eq!(uids(&home, "INBOX"), [2, 3]);
    let bad = Seen { uid_validity: UidValidity::MIN, ..inbox };
    assert!(replica.replace(bad, uid(2), &name("INBOX"), second).is_err());
    assert_eq!(uids(&home, "INBOX"), [2, 3]);
}

#[test]
fn a_level_that_is_only_implied_is_renamed_in_one_change() {
    let home = filled(1);
    let replica = &home.replica;
    for below in ["a/b", "a/b/c", "a/d"] {
        replica.create_mailbox(&name(below), None).unwrap();
    }
    let before = replica.status().unwrap().changes;
    replica.rename_mailbox(&name("a"), &name("z")).unwrap();
    let names: Vec<String> = replica.mailboxes().unwrap().iter().map(|m| m.name.to_string()).collect();
    assert!(["z/b", "z/b/c", "z/d"].iter().all(|below| names.iter().any(|name| name == below)), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("a/")), "{names:?}");
    assert_eq!(replica.status().unwrap().changes, before + 1);
    let gone = replica.rename_mailbox(&name("a"), &name("y"));
    assert!(matches!(gone, Err(ReplicaError::Account(AccountError::NoMailbox { .. }))));
}

#[test]
fn only_what_is_marked_at_that_moment_is_expunged() {
    let home = filled(3);
    let (replica, inbox) = (&home.replica, seen(&home, "INBOX"));
    replica.store_keywords(inbox, &[uid(1), uid(3)], &set(&["\\Deleted"]), None).unwrap();
    let mailbox = replica.mailbox(&name("INBOX")).unwrap();
    assert_eq!((mailbox.marked_deleted, mailbox.size), (2, 36));
    replica.store_keywords(inbox, &[uid(1)], &KeywordChange::Exactly(BTreeSet::new()), None).unwrap();
    assert_eq!(replica.expunge_deleted(inbox, &[uid(1), uid(2), uid(3)]).unwrap(), [uid(3)]);
    let mailbox = replica.mailbox(&name("INBOX")).unwrap();
    assert_eq!((mailbox.messages, mailbox.marked_deleted, mailbox.size), (2, 0, 24));
}

#[test]
fn copies_and_moves_say_the_new_uids_on_servers_and_observers() {
    let first = filled(3);
    let second = first.invite(Role::Observer, 2);
    for home in [&first, &second] {
        let inbox = seen(home, "INBOX");
        let known = uids(home, "INBOX");
        let copied = home.replica.copy(inbox, &[uid(known[1]), uid(known[0])], &name("Work")).unwrap();
        let moved = home.replica.move_to(inbox, &[uid(known[2])], &name("Work")).unwrap();
        let (snapshot, work) = home.replica.open_mailbox(&name("Work")).unwrap();
        assert_eq!((copied.into, moved.into), (Some(work.seen()), Some(work.seen())));
        let from = copied.messages.iter().map(|message| message.from.value());
        assert_eq!(from.collect::<Vec<_>>(), [known[1], known[0]]);
        for message in copied.messages.iter().chain(&moved.messages) {
            let shown = snapshot.message(work.id, message.uid.unwrap()).unwrap().unwrap();
            assert_eq!(shown.entry, message.entry);
        }
        // The observer finds three of its own in Work.
        home.append("INBOX", "Subject: another\n\n");
    }
}

#[test]
fn messages_are_added_all_or_none() {
    let home = filled(0);
    let replica = &home.replica;
    let new = |body, flag: &str| NewMessage { body, keywords: words(&[flag]), internal_date: Some(7) };
    let (one, size) = replica.put_body(&b"Subject: 1\n\n"[..]).unwrap();
    assert_eq!(size, 12);
    let mut writer = replica.body_writer();
    writer.push(b"Subject: ").unwrap();
    writer.push(b"2\n\n").unwrap();
    let (two, _) = writer.finish().unwrap();
    let absent = BlobId::of(b"nobody has it");
    let refused = replica.append_all(&name("INBOX"), vec![new(one, "a"), new(absent, "b")]);
    assert!(matches!(refused, Err(ReplicaError::Owed { blob }) if blob == absent));
    assert!(uids(&home, "INBOX").is_empty());
    let added = replica.append_all(&name("INBOX"), vec![new(one, "a"), new(two, "b")]).unwrap();
    assert_eq!(added.into, Some(seen(&home, "INBOX")));
    let given: Vec<_> = added.messages.iter().map(|message| (message.uid, message.blob)).collect();
    assert_eq!(given, [(Some(uid(1)), one), (Some(uid(2)), two)]);
    let shown = replica.messages(&name("INBOX"), uid(2), 9).unwrap();
    assert_eq!((shown[0].size, &shown[0].keywords), (12, &words(&["b"])));
}

#[test]
fn a_large_body_that_is_pushed_is_the_same_as_one_that_is_read_and_leaves_nothing_if_it_is_dropped() {
    let home = filled(0);
    let line: Vec<u8> = (0..=255).collect();
    let body = line.repeat(6000);
    let spooled = || std::fs::read_dir(home.store().join("bodies/tmp")).unwrap().count();
    let mut cut = home.replica.body_writer();
    body.chunks(65_536).take(20).for_each(|piece| cut.push(piece).unwrap());
    assert_eq!((cut.length(), spooled()), (20 * 65_536, 1));
    drop(cut);
    assert_eq!(spooled(), 0);
    let mut writer = home.replica.body_writer();
    body.chunks(65_537).for_each(|piece| writer.push(piece).unwrap());
    assert_eq!(writer.id(), BlobId::of(&body));
    assert_eq!(writer.finish().unwrap(), (BlobId::of(&body), body.len() as u64));
    assert_eq!(spooled(), 0);
    let mut tail = Vec::new();
    home.replica.open_body(BlobId::of(&body), 1_000_000).unwrap().read_to_end(&mut tail).unwrap();
    assert_eq!(tail, body[1_000_000..]);
    let absent = BlobId::of(b"x");
    let owed = home.replica.open_body(absent, 0);
    assert!(matches!(owed, Err(ReplicaError::Owed { blob }) if blob == absent));
}

#[test]
fn changes_since_a_mod_sequence_are_told_apart_and_a_foreign_one_is_recognised() {
    let first = filled(4);
    let second = first.invite(Role::Observer, 2);
    for (home, flag) in [(&first, "\\Seen"), (&second, "\\Flagged")] {
        let replica = &home.replica;
        let known = uids(home, "INBOX");
        let before = replica.mailbox(&name("INBOX")).unwrap();
        replica.store_keywords(before.seen(), &[uid(known[0])], &set(&[flag]), None).unwrap();
        replica.expunge(before.seen(), &[uid(known[1])]).unwrap();
        home.append("INBOX", "Subject: new\n\n");
        let (snapshot, mailbox) = replica.open_mailbox(&name("INBOX")).unwrap();
        let changes = snapshot.changed_since(mailbox.id, before.highest_modseq).unwrap().unwrap();
        let changed: Vec<u32> = changes.changed.iter().map(|message| message.uid.value()).collect();
        assert_eq!(changed, [known[0], mailbox.uid_next - 1]);
        assert_eq!(changes.vanished, [uid(known[1])]);
        assert!(changes.changed.iter().all(|message| message.modseq > before.highest_modseq));
        assert!(changes.changed.iter().all(|message| message.modseq <= mailbox.highest_modseq));
        let now = snapshot.changed_since(mailbox.id, mailbox.highest_modseq).unwrap().unwrap();
        assert!(now.changed.is_empty() && now.vanished.is_empty());
        let era = mailbox.highest_modseq.era();
        let foreign = ModSeq::new(before.highest_modseq.counter(), era.wrapping_add(1));
        assert_eq!(snapshot.changed_since(mailbox.id, foreign).unwrap(), None);
        assert!(!snapshot.is_own(foreign).unwrap() && snapshot.era().unwrap() == era);
        first.sync(&second);
    }
}

#[test]
fn what_is_not_shown_up_to_what_a_client_can_know_is_listed_in_runs() {
    let home = filled(5);
    let inbox = seen(&home, "INBOX");
    home.replica.expunge(inbox, &[uid(1), uid(3), uid(4)]).unwrap();
    let (snapshot, mailbox) = home.replica.open_mailbox(&name("INBOX")).unwrap();
    let hidden = |up_to| {
        let runs = snapshot.hidden(mailbox.id, uid(up_to)).unwrap();
        runs.into_iter().map(|(first, last)| (first.value(), last.value())).collect::<Vec<_>>()
    };
    assert_eq!(hidden(1), [(1, 1)]);
    assert_eq!(hidden(2), [(1, 1)]);
    assert_eq!(hidden(3), [(1, 1), (3, 3)]);
    assert_eq!(hidden(u32::MAX), [(1, 1), (3, 4), (6, u32::MAX)]);
}

#[test]
fn summaries_are_kept_beside_the_log_and_go_with_the_index() {
    let mut home = filled(1);
    let (one, two) = (BlobId::of(b"1"), BlobId::of(b"2"));
    let digest = home.replica.digest().unwrap();
    let history = home.replica.history(9).unwrap().len();
    home.replica.put_summaries(vec![(one, b"first".to_vec()), (two, vec![0; 1 << 20])]).unwrap();
    let kept = || Some(b"first".to_vec());
    assert_eq!(home.replica.summaries(&[two, one]).unwrap(), [None, kept()], "a huge one is not kept");
    assert_eq!((home.replica.digest().unwrap(), home.replica.history(9).unwrap().len()), (digest, history));
    home.reopen();
    assert_eq!(home.replica.summaries(&[one]).unwrap(), [kept()]);
    home.append("INBOX", "Subject: the log goes on\n\n");
    home.shut();
    std::fs::remove_file(home.store().join("index.redb")).unwrap();
    home.open();
    assert_eq!(home.replica.summaries(&[one]).unwrap(), [None]);
    assert_eq!(uids(&home, "INBOX"), [1, 2]);
}

/// The length of a body, as text.
fn length(body: &mut dyn BufRead) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes)?;
    Ok(bytes.len().to_string().into_bytes())
}

const LENGTHS: Summarizer = Summarizer { version: 7, make: length };

#[test]
fn bodies_are_summarised_as_they_arrive_whichever_way() {
    let home = Home::found(Role::Server);
    home.replica.summarize_bodies(LENGTHS);
    assert!(!home.replica.are_all_summarized().unwrap(), "an index without bodies says nothing");
    let summary = |home: &Home, body: &[u8]| {
        let found = home.replica.summaries(&[BlobId::of(body)]).unwrap().pop().unwrap();
        found.map(|bytes| String::from_utf8(bytes).unwrap())
    };
    let mut known: Vec<Vec<u8>> = vec![b"appended".to_vec(), vec![b'x'; 3 << 20]];
    for body in &known {
        home.replica.append(&name("INBOX"), &body[..], Default::default(), None).unwrap();
        assert!(home.replica.are_all_summarized().unwrap());
    }
    let mut writer = home.replica.body_writer();
    writer.push(b"pushed").unwrap();
    let (body, _) = writer.finish().unwrap();
    let message = NewMessage { body, keywords: BTreeSet::new(), internal_date: None };
    home.replica.append_all(&name("INBOX"), vec![message]).unwrap();
    known.push(b"pushed".to_vec());
    let mut importer = home.replica.import(&name("Old"), None, false, false).unwrap();
    for n in 0..300 {
        known.push(format!("imported {n}").into_bytes());
        let found = ImportMessage { internal_date: 1, keywords: BTreeSet::new(), uid: None };
        importer.add(found, &known.last().unwrap()[..]).unwrap();
    }
    importer.finish().unwrap();
    let (guest, links) = home.invite_linked(Role::Server, 2);
    guest.replica.summarize_bodies(LENGTHS);
    pump(links.0, links.1).unwrap();
    for home in [&home, &guest] {
        for body in &known {
            assert_eq!(summary(home, body), Some(body.len().to_string()));
        }
        assert!(home.replica.are_all_summarized().unwrap());
    }
}

#[test]
fn a_body_without_a_summary_is_not_forgotten() {
    let mut home = Home::found(Role::Server);
    let all = |home: &Home| home.replica.are_all_summarized().unwrap();
    home.append("INBOX", "Subject: before anybody summarised\n\n");
    home.replica.summarize_bodies(LENGTHS);
    home.append("INBOX", "Subject: since then\n\n");
    assert!(!all(&home));
    home.replica.note_all_summarized().unwrap();
    home.reopen();
    assert!(!all(&home), "nobody says what would be made");
    home.replica.summarize_bodies(Summarizer { version: 8, ..LENGTHS });
    assert!(!all(&home), "they are of another version");
    home.reopen();
    home.replica.summarize_bodies(LENGTHS);
    assert!(all(&home));
    home.reopen();
    home.append("INBOX", "Subject: from a program that makes none\n\n");
    home.reopen();
    home.replica.summarize_bodies(LENGTHS);
    assert!(!all(&home));
    home.replica.note_all_summarized().unwrap();
    home.shut();
    std::fs::remove_file(home.store().join("index.redb")).unwrap();
    home.open();
    home.replica.summarize_bodies(LENGTHS);
    home.append("INBOX", "Subject: the log goes on\n\n");
    assert!(!all(&home), "the summaries went with the index");
}

#[test]
fn a_replica_that_was_not_let_in_yet_does_nothing() {
    let first = filled(1);
    let invitation = Invitation {
        role: Role::Server,
        addresses: vec!["127.0.0.1:1".into()],
        endpoint: first.endpoint,
        valid_for: 60,
    };
    let ticket = first.replica.invite(&invitation).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let guest = Replica::prepare_join(&dir.path().join("store"), None, &ticket).unwrap();
    let refused = |error| matches!(error, ReplicaError::NotJoined);
    let inbox = name("INBOX");
    assert!(guest.append(&inbox, &b"Subject: x\n\n"[..], BTreeSet::new(), None).is_err_and(refused));
    assert!(guest.create_mailbox(&name("Work"), None).is_err_and(refused));
    assert!(guest.set_subscribed(&inbox, true).is_err_and(refused));
    assert!(guest.import(&inbox, None, false, false).is_err_and(refused));
    assert!(guest.snapshot().is_err_and(refused));
    assert!(guest.history(9).unwrap().is_empty());
    guest.guest(&ticket, endpoint(2), MemberName::new("guest").unwrap()).unwrap();
}

#[test]
fn bodies_can_be_read_in_the_order_in_which_they_lie() {
    let home = Home::found(Role::Server);
    // Each fills a bundle of its own.
    let body = |n: u8| (0..200_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 ^ n).collect();
    let bodies: Vec<Vec<u8>> = (0..6).map(body).collect();
    let put = home.replica.put_bodies(bodies).unwrap();
    let mut shuffled: Vec<Option<BlobId>> = [4, 1, 5, 0, 3, 2].map(|at| Some(put[at])).to_vec();
    shuffled.insert(2, None);
    home.replica.sort_for_reading(&mut shuffled, |blob| *blob).unwrap();
    let expected: Vec<Option<BlobId>> = std::iter::once(None).chain(put.into_iter().map(Some)).collect();
    assert_eq!(shuffled, expected);
}
