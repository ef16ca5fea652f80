//! What `why`, `conflicts` and the log tell of changes that were made apart.

use std::collections::BTreeSet;

use postmerge::mailbox::{EntryId, MailboxId, ReplicaId, Uid};
use postmerge::member::Role;
use postmerge::replica::{Decision, Deed, Kind, Replica};
use postmerge::uid::{Burn, KeywordChange};

use crate::pair::{Home, name};

fn shown(home: &Home, mailbox: &str) -> Vec<Uid> {
    let (snapshot, mailbox) = home.replica.open_mailbox(&name(mailbox)).unwrap();
    snapshot.uids(mailbox.id).unwrap()
}

fn id(home: &Home, mailbox: &str) -> MailboxId {
    home.replica.mailbox(&name(mailbox)).unwrap().id
}

fn move_to(home: &Home, entry: EntryId, from: &str, to: &str) {
    let uid = home.uid_of(from, entry).unwrap();
    let seen = home.replica.mailbox(&name(from)).unwrap().seen();
    home.replica.move_to(seen, &[uid], &name(to)).unwrap();
}

fn expunge(home: &Home, entry: EntryId, from: &str) {
    let uid = home.uid_of(from, entry).unwrap();
    let seen = home.replica.mailbox(&name(from)).unwrap().seen();
    home.replica.expunge(seen, &[uid]).unwrap();
}

fn flag(home: &Home, entry: EntryId, keyword: &str, set: bool) {
    let uid = home.uid_of("INBOX", entry).unwrap();
    let keywords = BTreeSet::from([keyword.parse().unwrap()]);
    let none = BTreeSet::new();
    let (set, clear) = if set { (keywords, none) } else { (none, keywords) };
    let seen = home.replica.mailbox(&name("INBOX")).unwrap().seen();
    home.replica.store_keywords(seen, &[uid], &KeywordChange::Edit { set, clear }, None).unwrap();
}

/// Two servers with mailboxes Work and Play and so many messages in INBOX.
fn two(messages: usize) -> (Home, Home, Vec<EntryId>) {
    let home = Home::found(Role::Server);
    for mailbox in ["Work", "Play"] {
        home.replica.create_mailbox(&name(mailbox), None).unwrap();
    }
    let entries = (0..messages).map(|n| home.append("INBOX", &format!("Subject: {n}\n\n"))).collect();
    let guest = home.invite(Role::Server, 2);
    (home, guest, entries)
}

/// Both show everything until neither has anything to write.
fn heal(home: &Home, guest: &Home) {
    for _ in 0..3 {
        home.sync(guest);
        home.picture();
        guest.picture();
    }
    assert_eq!(home.replica.digest().unwrap(), guest.replica.digest().unwrap());
}

fn decisions(replica: &Replica) -> Vec<Decision> {
    let found = replica.conflicts(usize::MAX, u64::MAX).unwrap();
    assert!(!found.more);
    found.decisions
}

/// Who won and who lost.
fn parties(decision: &Decision) -> (Vec<ReplicaId>, Vec<ReplicaId>) {
    let (won, lost): (Vec<_>, Vec<_>) = decision.acts.iter().partition(|act| act.won);
    let authors = |acts: Vec<&postmerge::replica::Act>| acts.iter().map(|act| act.stamp.replica).collect();
    (authors(won), authors(lost))
}

fn of_kind(decisions: &[Decision], kind: Kind) -> &Decision {
    let found: Vec<_> = decisions.iter().filter(|decision| decision.kind == kind).collect();
    assert_eq!(found.len(), 1, "{kind:?} in {decisions:?}");
    found[0]
}

#[test]
fn a_move_against_an_expunge_is_told_once_on_both_sides() {
    let (home, guest, entries) = two(2);
    for entry in &entries {
        expunge(&home, *entry, "INBOX");
        move_to(&guest, *entry, "INBOX", "Work");
    }
    heal(&home, &guest);
    let [a, b] = [&home, &guest].map(|home| home.replica.id().unwrap());
    for side in [&home, &guest] {
        let all = decisions(&side.replica);
        assert_eq!(all.iter().filter(|one| one.kind == Kind::MoveAgainstExpunge).count(), 2, "{all:?}");
        for decision in all.iter().filter(|one| one.kind == Kind::MoveAgainstExpunge) {
            assert_eq!(parties(decision), (vec![b], vec![a]));
            let (from, to) = (id(side, "INBOX"), id(side, "Work"));
            let deeds: Vec<_> = decision.acts.iter().map(|act| act.deed.clone()).collect();
            assert!(deeds.contains(&Deed::Expunged { from: Some(from) }), "{deeds:?}");
            assert!(deeds.contains(&Deed::Moved { from, to }));
        }
        let story = side.replica.why(entries[0]).unwrap();
        assert_eq!((story.mailbox, story.uid), (Some(id(side, "Work")), side.uid_of("Work", entries[0])));
        assert_eq!(of_kind(&story.decisions, Kind::MoveAgainstExpunge).messages, [entries[0]].into());
    }
    // One more merge decides nothing again.
    let before = decisions(&home.replica);
    home.append("INBOX", "Subject: calm\n\n");
    heal(&home, &guest);
    assert_eq!(decisions(&home.replica), before);
}

#[test]
fn of_two_moves_the_one_that_lost_is_named_and_its_uid_burned() {
    let (home, guest, entries) = two(1);
    move_to(&home, entries[0], "INBOX", "Work");
    move_to(&guest, entries[0], "INBOX", "Play");
    heal(&home, &guest);
    let (all, there) = (decisions(&home.replica), decisions(&guest.replica));
    let moves = of_kind(&all, Kind::Moves);
    let place = ["Work", "Play"].into_iter().find(|name| home.uid_of(name, entries[0]).is_some()).unwrap();
    let won = moves.acts.iter().find(|act| act.won).unwrap();
    assert_eq!(won.deed, Deed::Moved { from: id(&home, "INBOX"), to: id(&home, place) });
    assert_eq!(moves.acts.len(), 2);
    let burned = of_kind(&all, Kind::Uid(Burn::Recorded));
    let lost = if place == "Work" { "Play" } else { "Work" };
    assert_eq!((burned.mailbox, burned.uids.len()), (Some(id(&home, lost)), 1));
    assert_eq!(burned.messages, [entries[0]].into());
    let sorted = |mut all: Vec<Decision>| {
        all.sort_by_key(|one| (one.kind, one.acts.clone()));
        all
    };
    assert_eq!(sorted(all.clone()), sorted(there), "both tell the same");
    // Whoever asks for the UID that vanished is told of its message.
    let uid = *burned.uids.first().unwrap();
    assert_eq!(home.replica.bearer(&name(lost), uid).unwrap(), entries[0]);
    let story = guest.replica.why(entries[0]).unwrap();
    let claims: Vec<_> = story.told.iter().filter(|told| matches!(told.deed, Deed::Claimed { .. })).collect();
    assert_eq!(claims.len(), 3, "in INBOX, Work and Play: {claims:?}");
    assert!(story.told.is_sorted() && matches!(story.told[0].deed, Deed::Arrived { .. }));
    of_kind(&story.decisions, Kind::Uid(Burn::Recorded));
}

#[test]
fn flags_renewals_and_names_are_told_with_what_lost() {
    let (home, guest, entries) = two(2);
    flag(&home, entries[0], "work", true);
    flag(&home, entries[1], "\\Deleted", true);
    heal(&home, &guest);
    flag(&home, entries[0], "work", false);
    flag(&guest, entries[0], "work", false);
    flag(&guest, entries[0], "work", true);
    flag(&home, entries[1], "\\Deleted", false);
    expunge(&guest, entries[1], "INBOX");
    home.replica.rename_mailbox(&name("Work"), &name("A")).unwrap();
    guest.replica.rename_mailbox(&name("Work"), &name("B")).unwrap();
    heal(&home, &guest);
    let [a, b] = [&home, &guest].map(|home| home.replica.id().unwrap());
    let all = decisions(&home.replica);
    assert_eq!(parties(of_kind(&all, Kind::Flag)), (vec![b], vec![a]), "set beats cleared");
    assert_eq!(parties(of_kind(&all, Kind::KeepAgainstExpunge)), (vec![a], vec![b]));
    let named = of_kind(&all, Kind::Name);
    let Deed::Renamed { to, from, .. } = &named.acts.iter().find(|act| act.won).unwrap().deed else {
        panic!()
    };
    assert_eq!((from.as_str(), home.replica.mailbox(&name(to)).is_ok()), ("Work", true));
    assert!(all.iter().all(|one| one.kind != Kind::Moves), "{all:?}");
}

#[test]
fn two_mailboxes_that_want_one_name_are_told() {
    let (home, guest, _) = two(1);
    home.replica.rename_mailbox(&name("Work"), &name("New")).unwrap();
    guest.replica.rename_mailbox(&name("Play"), &name("New")).unwrap();
    heal(&home, &guest);
    for side in [&home, &guest] {
        let all = decisions(&side.replica);
        let clash = of_kind(&all, Kind::NameClash);
        let bearer = id(side, "New");
        assert_ne!(clash.mailbox, Some(bearer));
        assert!(
            clash
                .acts
                .iter()
                .any(|act| act.won && act.deed == Deed::Made { mailbox: bearer, name: "New".into() })
        );
    }
}

#[test]
fn uids_that_were_passed_over_are_told_together() {
    let (home, guest, _) = two(1);
    let apart: Vec<EntryId> =
        (0..5).map(|n| home.append("INBOX", &format!("Subject: here {n}\n\n"))).collect();
    let there: Vec<EntryId> =
        (0..5).map(|n| guest.append("INBOX", &format!("Subject: there {n}\n\n"))).collect();
    let had = shown(&home, "INBOX");
    heal(&home, &guest);
    let all = decisions(&home.replica);
    let burned: Vec<&Decision> = all.iter().filter(|one| one.kind == Kind::Uid(Burn::Spanned)).collect();
    let uids: BTreeSet<Uid> = burned.iter().flat_map(|one| one.uids.iter().copied()).collect();
    let messages: BTreeSet<EntryId> = burned.iter().flat_map(|one| one.messages.iter().copied()).collect();
    assert!(!uids.is_empty() && messages.is_subset(&apart.iter().chain(&there).copied().collect()));
    let now: BTreeSet<Uid> = shown(&home, "INBOX").into_iter().collect();
    assert_eq!(
        had.iter().filter(|uid| !now.contains(uid)).count(),
        uids.intersection(&had.into_iter().collect()).count()
    );
    let entry = *messages.first().unwrap();
    let story = guest.replica.why(entry).unwrap();
    of_kind(&story.decisions, Kind::Uid(Burn::Spanned));
    let claimed: Vec<Uid> = story.told.iter().filter_map(|told| told.uid).collect();
    assert!(claimed.len() == 2 && Some(claimed[1]) == story.uid, "once burned, once claimed anew");
}

#[test]
fn the_log_says_what_each_change_did() {
    let (home, _, entries) = two(3);
    for entry in &entries[..2] {
        flag(&home, *entry, "\\Seen", true);
    }
    let seen = home.replica.mailbox(&name("INBOX")).unwrap().seen();
    home.replica.move_to(seen, &shown(&home, "INBOX")[..2], &name("Work")).unwrap();
    expunge(&home, entries[2], "INBOX");
    home.replica.delete_mailbox(&name("Work")).unwrap();
    let (inbox, work) = (MailboxId::inbox(), MailboxId::derive(&name("Work"), 0));
    let told: Vec<_> = home.replica.happened(4).unwrap().into_iter().map(|one| one.deeds).collect();
    let expected: [&[(Deed, u64)]; 4] = [
        &[(Deed::Deleted { mailbox: work }, 1)],
        &[(Deed::Expunged { from: Some(work) }, 2)],
        &[(Deed::Expunged { from: Some(inbox) }, 1)],
        &[(Deed::Moved { from: inbox, to: work }, 2), (Deed::Claimed { mailbox: work }, 2)],
    ];
    for (told, expected) in told.into_iter().zip(expected) {
        assert_eq!(told, expected.iter().cloned().collect());
    }
    let last = home.replica.happened(1).unwrap()[0].stamp;
    assert_eq!(home.replica.find_changes(&last.change.short()).unwrap(), [last]);
    assert_eq!(home.replica.find_changes(&last.change.to_string().to_uppercase()).unwrap(), [last]);
    for none in ["", "x", &"0".repeat(65)] {
        assert_eq!(home.replica.find_changes(none).unwrap(), []);
    }
}
