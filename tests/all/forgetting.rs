//! Bodies of expunged messages: when they go, what keeps them, and what happens when they are needed again.

use std::collections::BTreeSet;

use postmerge::mailbox::{ChangeId, EntryId, Uid};
use postmerge::member::Role;
use postmerge::replica::{Forgotten, LinkEvent, ReplicaError, Retention, Selection};
use postmerge::store::Level;

use crate::pair::{Home, copy_dir, exchange, name};

const AT_ONCE: Retention = Retention::days(0);

fn expunge(home: &Home, mailbox: &str, entry: EntryId) {
    let uid = home.uid_of(mailbox, entry).unwrap();
    let seen = home.replica.mailbox(&name(mailbox)).unwrap().seen();
    assert_eq!(home.replica.expunge(seen, &[uid]).unwrap(), [uid]);
}

/// Forgets what it can; twice, since what was put a moment ago stays for a round.
fn forget(home: &Home) -> Forgotten {
    let first = home.replica.forget_bodies_now(AT_ONCE).unwrap();
    let second = home.replica.forget_bodies_now(AT_ONCE).unwrap();
    Forgotten { bodies: first.bodies + second.bodies, bytes: first.bytes + second.bytes, ..second }
}

fn has_body(home: &Home, entry: EntryId) -> bool {
    match home.replica.body(entry) {
        Ok(_) => true,
        Err(ReplicaError::Owed { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

fn changes(home: &Home) -> BTreeSet<ChangeId> {
    home.replica.history(usize::MAX).unwrap().into_iter().map(|(_, change)| change.id()).collect()
}

#[test]
fn a_body_goes_once_every_member_knows_of_the_expunge() {
    let home = Home::found(Role::Server);
    let (gone, stays) = (home.append("INBOX", "gone\n"), home.append("INBOX", "stays\n"));
    let guest = home.invite_named(Role::Server, 2, "guest");
    let third = home.invite_named(Role::Observer, 3, "third");
    forget(&home);
    expunge(&home, "INBOX", gone);
    let planned = home.replica.plan_forgetting(AT_ONCE).unwrap();
    assert_eq!((planned.bodies, planned.kept_bodies, planned.blockers.len()), (0, 1, 2));
    let done = forget(&home);
    assert_eq!((done.bodies, done.kept_bodies, done.blockers.len()), (0, 1, 2), "nobody knows of it");
    guest.sync(&home);
    let done = forget(&home);
    assert_eq!((done.bodies, done.blockers.len()), (0, 1));
    assert_eq!(done.blockers[0].replica, third.replica.id().unwrap());
    assert!(done.blockers[0].since.is_some());
    assert!(has_body(&home, gone));
    assert_eq!(home.replica.forgetting(AT_ONCE).unwrap(), Forgotten { bodies: 0, bytes: 0, ..done });
    third.sync(&home);
    assert_eq!(home.replica.plan_forgetting(AT_ONCE).unwrap().bodies, 1);
    assert!(has_body(&home, gone), "a plan changes nothing");
    let done = forget(&home);
    assert_eq!((done.bodies, done.bytes, done.kept_bodies, done.blockers), (1, 5, 0, vec![]));
    assert!(!has_body(&home, gone) && has_body(&home, stays));
    assert_eq!(forget(&home).bodies, 0);
    assert_eq!(home.replica.check(Level::Full, &mut |_| {}).unwrap().problems, []);
    // The others have not met each other, and each keeps its own.
    let done = forget(&guest);
    assert_eq!((done.bodies, done.blockers.len(), done.blockers[0].since), (0, 1, None));
    guest.replica.forget(third.replica.id().unwrap()).unwrap();
    home.sync(&guest);
    assert_eq!(forget(&guest).bodies, 1, "a member that was forgotten is not waited for");
}

#[test]
fn a_copy_keeps_a_body_and_so_does_a_younger_expunge() {
    let home = Home::found(Role::Server);
    home.replica.create_mailbox(&name("Work"), None).unwrap();
    let entry = home.append("INBOX", "twice\n");
    let inbox = home.replica.mailbox(&name("INBOX")).unwrap().seen();
    let copy = home.replica.copy(inbox, &[Uid::FIRST], &name("Work")).unwrap().messages[0].entry;
    forget(&home);
    expunge(&home, "INBOX", entry);
    let done = forget(&home);
    assert_eq!((done.bodies, done.kept_bodies), (0, 0), "it is in a mailbox, and waits for nothing");
    let month = home.replica.forget_bodies_now(Retention::USUAL).unwrap();
    expunge(&home, "Work", copy);
    assert_eq!(month.bodies, 0);
    let month = home.replica.forget_bodies_now(Retention::USUAL).unwrap();
    assert_eq!((month.bodies, month.kept_bodies), (0, 1), "one of the two is too young");
    assert_eq!(home.replica.forget_bodies_now(Retention::FOREVER).unwrap().bodies, 0);
    assert_eq!(forget(&home).bodies, 1);
    assert!(!has_body(&home, entry));
    // The same bytes once more are stored once more.
    let again = home.append("INBOX", "twice\n");
    assert!(has_body(&home, again) && has_body(&home, entry));
    assert_eq!(forget(&home).bodies, 0);
    assert!(has_body(&home, again));
}

#[test]
fn a_large_body_is_unlinked_and_small_ones_are_given_back() {
    let home = Home::found(Role::Server);
    let noise = |seed: u32, length: usize| {
        let mut bytes = vec![0; length / 2];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        data_encoding::HEXLOWER.encode(&bytes)
    };
    let large = home.append("INBOX", &noise(0, 2 << 20));
    let small: Vec<EntryId> = (1..60).map(|seed| home.append("INBOX", &noise(seed, 100_000))).collect();
    forget(&home);
    let on_disk = || {
        let mut bytes = 0;
        let mut dirs = vec![home.store().join("bodies")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
                match entry.metadata().unwrap() {
                    meta if meta.is_dir() => dirs.push(entry.path()),
                    meta => bytes += meta.len(),
                }
            }
        }
        bytes
    };
    let before = on_disk();
    expunge(&home, "INBOX", large);
    small[..40].iter().for_each(|entry| expunge(&home, "INBOX", *entry));
    assert_eq!(forget(&home).bodies, 41);
    let mut compaction = home.replica.plan_compaction().unwrap();
    let dead = compaction.dead();
    let (mut steps, mut freed) = (0, 0);
    while !compaction.is_done() {
        let step = home.replica.compact(&mut compaction, 200_000).unwrap();
        assert!(step.read <= 300_000, "{step:?}");
        (steps, freed) = (steps + 1, freed + step.freed);
        assert!(has_body(&home, small[50]));
    }
    assert!(steps > 5 && freed == dead, "{steps} {freed} {dead}");
    assert!(on_disk() < before / 2, "{} of {before}", on_disk());
    small[40..].iter().for_each(|entry| assert!(has_body(&home, *entry)));
    assert_eq!(home.replica.check(Level::Full, &mut |_| {}).unwrap().problems, []);
    assert!(home.replica.plan_compaction().unwrap().is_done());
}

#[test]
fn an_undo_says_that_a_body_is_gone_and_one_elsewhere_brings_it_back() {
    let home = Home::found(Role::Server);
    let entry = home.append("INBOX", "needed again\n");
    let guest = home.invite(Role::Server, 2);
    forget(&home);
    let known = changes(&home);
    expunge(&home, "INBOX", entry);
    let expunged = Selection::Changes(changes(&home).difference(&known).copied().collect());
    guest.sync(&home);
    assert_eq!(forget(&home).bodies, 1);
    let undone = home.replica.undo(&expunged).unwrap();
    assert_eq!(undone.without_body, [entry]);
    assert!(undone.brought_back.is_empty());

    // The guest kept it.
    assert!(guest.replica.undo(&expunged).unwrap().without_body.is_empty());
    let events = home.sync(&guest);
    assert!(events.iter().any(|event| matches!(event, LinkEvent::Bodies { count: 1, .. })), "{events:?}");
    assert!(has_body(&home, entry));
    assert_eq!(home.picture(), guest.picture());
}

#[test]
fn a_body_that_is_gone_everywhere_is_missing_and_stops_nothing_else() {
    let home = Home::found(Role::Server);
    let entry = home.append("INBOX", "gone\n");
    let mut guest = home.invite(Role::Server, 2);
    forget(&home);
    let known = changes(&home);
    expunge(&home, "INBOX", entry);
    let expunged = Selection::Changes(changes(&home).difference(&known).copied().collect());
    guest.sync(&home);
    assert_eq!(forget(&home).bodies, 1);
    guest.replica.undo(&expunged).unwrap();
    guest.append("INBOX", "other\n");
    // And then it loses its body to damage.
    guest.shut();
    std::fs::remove_file(guest.store().join("bodies/00000001.pack")).unwrap();
    std::fs::remove_file(guest.store().join("index.redb")).unwrap();
    guest.open();
    guest.replica.note_lost_bodies().unwrap();
    let events = guest.sync(&home);
    assert!(events.iter().any(|event| matches!(event, LinkEvent::Missing(_))), "{events:?}");
    assert!(!has_body(&home, entry) && !has_body(&guest, entry));
    assert_eq!(home.replica.messages(&name("INBOX"), Uid::FIRST, 9).unwrap().len(), 2, "both are shown");
}

#[test]
fn who_comes_back_after_a_year_loses_nothing_and_brings_nothing_back() {
    let home = Home::found(Role::Server);
    let old: Vec<EntryId> = (0..8).map(|n| home.append("INBOX", &format!("old {n}\n"))).collect();
    let laptop = home.invite_named(Role::Server, 2, "laptop");
    let mut backup = home.invite_named(Role::Observer, 3, "backup");
    home.replica.create_mailbox(&name("Work"), None).unwrap();
    forget(&home);
    // All know of these; the backup's store is copied before.
    backup.shut();
    let copy = tempfile::tempdir().unwrap();
    copy_dir(&backup.store(), copy.path());
    backup.open();
    old[..2].iter().for_each(|entry| expunge(&home, "INBOX", *entry));
    laptop.sync(&home);
    backup.sync(&home);
    assert_eq!(forget(&home).bodies, 2);

    // A year apart: of the messages that go at home the laptop flags one, moves one, and leaves one alone.
    let seen = laptop.replica.mailbox(&name("INBOX")).unwrap().seen();
    let uid = |entry| laptop.uid_of("INBOX", entry).unwrap();
    let seen_flag =
        postmerge::uid::KeywordChange::Edit { set: ["\\Seen".parse().unwrap()].into(), clear: [].into() };
    laptop.replica.store_keywords(seen, &[uid(old[2]), uid(old[5])], &seen_flag, None).unwrap();
    laptop.replica.move_to(seen, &[uid(old[3])], &name("Work")).unwrap();
    let written: Vec<EntryId> =
        (0..3).map(|n| laptop.append("Work", &format!("written away {n}\n"))).collect();
    old[2..5].iter().for_each(|entry| expunge(&home, "INBOX", *entry));
    for _ in 0..3 {
        assert_eq!(forget(&home).bodies, 0, "the laptop does not know");
        backup.sync(&home);
    }
    laptop.sync(&home);
    assert_eq!(home.picture(), laptop.picture());
    let here = |home: &Home, entry| home.uid_of("INBOX", entry).or(home.uid_of("Work", entry)).is_some();
    assert!([old[0], old[1], old[2], old[4]].iter().all(|entry| !here(&home, *entry)), "nothing came back");
    assert!(here(&home, old[3]), "a move beats an expunge that it did not know of");
    assert!(written.iter().all(|entry| has_body(&home, *entry) && here(&home, *entry)));
    assert!(has_body(&home, old[3]));
    backup.sync(&home);
    assert_eq!(forget(&home).bodies, 2);
    assert_eq!(home.picture(), laptop.picture());
    assert_eq!(home.replica.check(Level::Full, &mut |_| {}).unwrap().problems, []);

    // And a store that comes back from before all of it.
    backup.shut();
    std::fs::remove_dir_all(backup.store()).unwrap();
    copy_dir(copy.path(), &backup.store());
    backup.open();
    backup.sync(&home);
    assert_eq!(home.picture(), backup.picture());
    assert!([old[0], old[1], old[2], old[4]].iter().all(|entry| !here(&backup, *entry)));
}

#[test]
fn the_index_that_is_built_anew_owes_nothing_that_was_forgotten() {
    let mut home = Home::found(Role::Server);
    let large = "x".repeat(2 << 20);
    let entry = home.append("INBOX", &large);
    let guest = home.invite(Role::Server, 2);
    forget(&home);
    expunge(&home, "INBOX", entry);
    guest.sync(&home);
    assert_eq!(forget(&home).bodies, 1);
    home.shut();
    std::fs::remove_file(home.store().join("index.redb")).unwrap();
    home.open();
    assert_eq!(home.replica.status().unwrap().owed_bodies, 0);
    let done = forget(&home);
    assert_eq!((done.bodies, done.kept_bodies), (0, 0));
    guest.append("INBOX", "later\n");
    guest.sync(&home);
    assert_eq!(home.picture(), guest.picture());
}

/// Text with some fifteen hundred different words, as mail has.
fn letter(n: u64) -> String {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut text = format!("Message-ID: <{n}@example.org>\nSubject: letter {n}\n\n");
    for at in 0..700 {
        let word = draw(1500).min(draw(1500));
        let hash = blake3::hash(&word.to_le_bytes()).to_hex();
        text += &hash[..3 + (word % 7) as usize];
        text.push(if at % 12 == 11 { '\n' } else { ' ' });
    }
    text
}

/// How many bytes the file has that tells of a peer's last contact, without its first and last line.
fn contact_bytes(home: &Home) -> usize {
    let text = std::fs::read_to_string(home.store().join("contacts")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    lines[1..lines.len() - 1].iter().map(|line| line.len() + 1).sum()
}

/// A peer is away while 300 things happen each day: 60 letters come, 40 are moved, 40 expunged, 200 are flagged, not all of them anew. With
/// POSTMERGE_DAYS=365 this is the figure of docs/bench.md; it takes some minutes then.
#[test]
#[expect(clippy::disallowed_methods, reason = "how long it is to take is for who runs it")]
fn who_is_away_costs_a_line_and_later_little_more_than_what_is_new() {
    let days: u64 = std::env::var("POSTMERGE_DAYS").map_or(6, |days| days.parse().unwrap());
    let home = Home::found(Role::Server);
    home.replica.create_mailbox(&name("Archive"), None).unwrap();
    for n in 0..50 {
        home.append("INBOX", &letter(n));
    }
    let away = home.invite_named(Role::Server, 2, "away");
    let before = contact_bytes(&home);
    let mut inbox: Vec<Uid> =
        home.replica.messages(&name("INBOX"), Uid::FIRST, 999).unwrap().iter().map(|m| m.uid).collect();
    let (mut next, mut changes) = (50, 0);
    for _ in 0..days {
        let seen = home.replica.mailbox(&name("INBOX")).unwrap().seen();
        for _ in 0..60 {
            let body = letter(next);
            let new = home.replica.append(&name("INBOX"), body.as_bytes(), Default::default(), None).unwrap();
            inbox.push(new.uid.unwrap());
            next += 1;
        }
        for n in 0..200 {
            let uid = inbox[inbox.len() - 1 - n % 67];
            let flag = ["\\Seen", "\\Flagged", "\\Answered"][n / 67];
            let set =
                postmerge::uid::KeywordChange::Edit { set: [flag.parse().unwrap()].into(), clear: [].into() };
            changes += home.replica.store_keywords(seen, &[uid], &set, None).unwrap().done.len();
        }
        for n in 0..40 {
            // Half of what goes came today.
            let expunged = inbox.remove(if n % 2 == 0 { inbox.len() - 1 - n / 2 } else { 0 });
            home.replica.expunge(seen, &[expunged]).unwrap();
        }
        for _ in 0..40.min(inbox.len().saturating_sub(40)) {
            home.replica.move_to(seen, &[inbox.remove(0)], &name("Archive")).unwrap();
        }
        home.replica.forget_bodies(AT_ONCE).unwrap();
    }
    assert!(changes > 0);
    let (line, note) =
        (contact_bytes(&home), std::fs::metadata(home.store().join("forgetting")).unwrap().len());
    let unheard = home.replica.contacts().unwrap()[&away.replica.id().unwrap()].unacknowledged;
    // What is new in the end, as it is sent: bodies in bundles.
    let mut bundler = postmerge::blob::Bundler::new();
    let (mut net, mut count) = (0, 0);
    for mailbox in ["INBOX", "Archive"] {
        for message in home.replica.messages(&name(mailbox), Uid::FIRST, usize::MAX).unwrap() {
            let mut body = Vec::new();
            std::io::Read::read_to_end(&mut home.replica.body(message.entry).unwrap(), &mut body).unwrap();
            if away.replica.has_body(message.blob).unwrap() {
                continue;
            }
            if !bundler.fits(body.len()) {
                net += bundler.finish().unwrap().unwrap().len();
            }
            bundler.push(message.blob, body);
            count += 1;
        }
    }
    net += bundler.finish().unwrap().map_or(0, |bundle| bundle.len());
    let mut ends = away.live(&home);
    let sent = exchange(&mut ends, 64 << 10, || false);
    assert_eq!(home.replica.digest().unwrap(), away.replica.digest().unwrap());
    assert_eq!(away.replica.status().unwrap().owed_bodies, 0);
    let wire: usize = sent.iter().sum();
    println!(
        "{days} days, {unheard} changes unheard of: a contact of {before} B became {line} B, all marks have {note} B; \
         {wire} B both ways for {count} new bodies of {net} B, {:.2} times as many",
        wire as f64 / net as f64
    );
    assert!(line <= before + 8 && line <= 1024 && note <= 4096, "{line} {note}");
    assert!(wire <= 2 * net, "{wire} for {net}");
    assert_eq!(home.replica.check(Level::Quick, &mut |_| {}).unwrap().problems, []);
}
