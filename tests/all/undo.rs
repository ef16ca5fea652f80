//! Undoing changes, and what an undo leaves alone.

use std::collections::BTreeSet;

use postmerge::mailbox::{ChangeId, EntryId, Keyword, SpecialUse, Uid};
use postmerge::member::Role;
use postmerge::replica::{NewMessage, Replica, Selection};
use postmerge::uid::{KeywordChange, Undone};

use crate::pair::{Home, name};

/// The changes that `act` makes.
fn changes(replica: &Replica, act: impl FnOnce()) -> Selection {
    let known: BTreeSet<ChangeId> = all(replica).collect();
    act();
    Selection::Changes(all(replica).filter(|id| !known.contains(id)).collect())
}

fn all(replica: &Replica) -> impl Iterator<Item = ChangeId> {
    replica.history(usize::MAX).unwrap().into_iter().map(|(_, change)| change.id())
}

/// A server with so many messages in Work.
fn filled(count: usize) -> Home {
    let home = Home::found(Role::Server);
    home.replica.create_mailbox(&name("Work"), None).unwrap();
    let new = |n: usize| {
        let (body, _) = home.replica.put_body(format!("Subject: {n}\n\n").as_bytes()).unwrap();
        NewMessage { body, keywords: BTreeSet::new(), internal_date: Some(n as i64) }
    };
    home.replica.append_all(&name("Work"), (0..count).map(new).collect()).unwrap();
    home
}

fn uids(home: &Home, mailbox: &str) -> Vec<u32> {
    let messages = home.replica.messages(&name(mailbox), Uid::FIRST, usize::MAX).unwrap();
    messages.iter().map(|message| message.uid.value()).collect()
}

fn entries(home: &Home, mailbox: &str) -> BTreeSet<EntryId> {
    let messages = home.replica.messages(&name(mailbox), Uid::FIRST, usize::MAX).unwrap();
    messages.iter().map(|message| message.entry).collect()
}

fn flag(home: &Home, mailbox: &str, uids: &[Uid], set: &[&str], clear: &[&str]) {
    let keywords = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let change = KeywordChange::Edit { set: keywords(set), clear: keywords(clear) };
    let seen = home.replica.mailbox(&name(mailbox)).unwrap().seen();
    home.replica.store_keywords(seen, uids, &change, None).unwrap();
}

fn shown(home: &Home, mailbox: &str) -> Vec<Uid> {
    let (snapshot, mailbox) = home.replica.open_mailbox(&name(mailbox)).unwrap();
    snapshot.uids(mailbox.id).unwrap()
}

fn expunge(home: &Home, mailbox: &str, uids: &[Uid]) {
    let seen = home.replica.mailbox(&name(mailbox)).unwrap().seen();
    home.replica.expunge(seen, uids).unwrap();
}

fn keywords(home: &Home, mailbox: &str) -> Vec<Vec<String>> {
    let messages = home.replica.messages(&name(mailbox), Uid::FIRST, usize::MAX).unwrap();
    let texts = |keywords: BTreeSet<Keyword>| keywords.iter().map(Keyword::to_string).collect();
    messages.into_iter().map(|message| texts(message.keywords)).collect()
}

fn one(mailbox: &str, count: u64) -> std::collections::BTreeMap<postmerge::mailbox::MailboxName, u64> {
    [(name(mailbox), count)].into()
}

#[test]
fn a_thousand_expunged_messages_come_back_once_and_everywhere() {
    let home = filled(1000);
    let guest = home.invite(Role::Server, 2);
    let (before, had) = (entries(&home, "Work"), shown(&home, "Work"));
    let next = home.replica.mailbox(&name("Work")).unwrap().uid_next;
    flag(&guest, "Work", &had[..10], &["\\Deleted", "\\Seen"], &[]);
    // The laptop's script.
    let disaster = changes(&guest.replica, || expunge(&guest, "Work", &had));
    guest.sync(&home);
    assert!(uids(&home, "Work").is_empty());

    let planned = home.replica.plan_undo(&disaster).unwrap();
    assert_eq!((planned.brought_back.clone(), planned.overwritten), (one("Work", 1000), 0));
    assert!(uids(&home, "Work").is_empty(), "a plan changes nothing");
    assert_eq!(home.replica.undo(&disaster).unwrap(), planned);
    assert_eq!(entries(&home, "Work"), before);
    let now = uids(&home, "Work");
    assert!(now.iter().all(|uid| *uid >= next), "a UID that vanished never returns");
    let marks: BTreeSet<Vec<String>> = keywords(&home, "Work").into_iter().collect();
    assert_eq!(marks, [vec![], vec!["\\Seen".to_owned()]].into(), "not marked \\Deleted any more");

    let again = home.replica.undo(&disaster).unwrap();
    assert!(again.is_nothing() && again.overwritten == 1000, "{again:?}");
    home.sync(&guest);
    assert_eq!(home.picture(), guest.picture());
    assert!(guest.replica.undo(&disaster).unwrap().is_nothing(), "it was undone elsewhere");
}

#[test]
fn messages_move_back_and_later_moves_are_left_alone() {
    let home = filled(3);
    home.replica.create_mailbox(&name("Trash"), None).unwrap();
    home.replica.create_mailbox(&name("Later"), None).unwrap();
    let to = |from: &str, uids: &[Uid], to: &str| {
        let seen = home.replica.mailbox(&name(from)).unwrap().seen();
        home.replica.move_to(seen, uids, &name(to)).unwrap();
    };
    let moved = changes(&home.replica, || to("Work", &shown(&home, "Work"), "Trash"));
    to("Trash", &shown(&home, "Trash")[..1], "Later");
    let kept = entries(&home, "Later");
    let undone = home.replica.undo(&moved).unwrap();
    assert_eq!((undone.moved_back, undone.overwritten), (one("Work", 2), 1));
    assert_eq!(uids(&home, "Work"), [4, 5]);
    assert_eq!((entries(&home, "Later"), uids(&home, "Trash")), (kept, vec![]));
    assert!(home.replica.undo(&moved).unwrap().is_nothing());
}

#[test]
fn flags_are_as_they_were_but_for_those_changed_since() {
    let home = filled(2);
    let both = shown(&home, "Work");
    flag(&home, "Work", &both[..1], &["kept", "gone"], &[]);
    let changed = changes(&home.replica, || flag(&home, "Work", &both, &["\\Seen"], &["gone"]));
    flag(&home, "Work", &both[1..], &[], &["\\Seen"]);
    flag(&home, "Work", &both[1..], &["\\Seen"], &[]);
    let undone = home.replica.undo(&changed).unwrap();
    assert_eq!((undone.keywords, undone.overwritten), (1, 1));
    assert_eq!(keywords(&home, "Work"), [vec!["gone", "kept"], vec!["\\Seen"]]);
    assert_eq!(uids(&home, "Work"), [1, 2], "flags give nobody a new UID");
    assert!(home.replica.undo(&changed).unwrap().is_nothing());
}

#[test]
fn a_deleted_mailbox_comes_back_as_a_new_one_with_its_messages() {
    let home = filled(5);
    home.replica.set_subscribed(&name("Work"), true).unwrap();
    let (before, had) = (entries(&home, "Work"), home.replica.mailbox(&name("Work")).unwrap());
    let deleted = changes(&home.replica, || home.replica.delete_mailbox(&name("Work")).unwrap());
    assert!(home.replica.mailbox(&name("Work")).is_err());
    let planned = home.replica.plan_undo(&deleted).unwrap();
    assert_eq!((planned.brought_back.clone(), planned.made.len()), (one("Work", 5), 1));
    assert_eq!(home.replica.undo(&deleted).unwrap(), planned);
    let now = home.replica.mailbox(&name("Work")).unwrap();
    assert_eq!((entries(&home, "Work"), now.subscribed), (before, true));
    assert!(now.uid_validity > had.uid_validity, "a name's UIDVALIDITY never means two mailboxes");
    assert!(home.replica.undo(&deleted).unwrap().is_nothing());
    // It can be emptied and stays, as any other.
    expunge(&home, "Work", &shown(&home, "Work"));
    assert_eq!(home.replica.mailbox(&name("Work")).unwrap().messages, 0);
    assert!(home.replica.undo(&deleted).unwrap().is_nothing(), "what was done since is left alone");
}

#[test]
fn an_empty_mailbox_and_an_old_name_come_back() {
    let home = Home::found(Role::Server);
    home.replica.create_mailbox(&name("Archive"), Some(SpecialUse::Archive)).unwrap();
    home.replica.create_mailbox(&name("Work/Old"), None).unwrap();
    home.replica.create_mailbox(&name("Work"), None).unwrap();
    let changed = changes(&home.replica, || {
        home.replica.delete_mailbox(&name("Archive")).unwrap();
        home.replica.rename_mailbox(&name("Work"), &name("Play")).unwrap();
    });
    home.replica.create_mailbox(&name("Work/Old"), None).unwrap();
    let undone = home.replica.undo(&changed).unwrap();
    assert_eq!(undone.made, [name("Archive")].into());
    assert_eq!(undone.renamed, [(name("Play"), name("Work"))].into());
    assert_eq!(undone.taken, [name("Work/Old")].into(), "a name that is in use is not taken away");
    let names: Vec<_> = home.replica.mailboxes().unwrap().into_iter().map(|m| m.name.to_string()).collect();
    assert_eq!(names, ["Archive", "INBOX", "Play/Old", "Work", "Work/Old"]);
    assert_eq!(home.replica.mailbox(&name("Archive")).unwrap().special_use, Some(SpecialUse::Archive));
}

#[test]
fn all_that_one_replica_did_since_a_time_is_undone_together() {
    let home = filled(4);
    let guest = home.invite(Role::Server, 2);
    let before = entries(&home, "Work");
    let had = shown(&home, "Work");
    // Each message through three hands, so that no single change tells where it was.
    guest.replica.create_mailbox(&name("Trash"), None).unwrap();
    let seen = guest.replica.mailbox(&name("Work")).unwrap().seen();
    guest.replica.move_to(seen, &had[..3], &name("Trash")).unwrap();
    flag(&guest, "Trash", &shown(&guest, "Trash"), &["\\Deleted"], &[]);
    expunge(&guest, "Trash", &shown(&guest, "Trash"));
    guest.replica.delete_mailbox(&name("Trash")).unwrap();
    let added = guest.append("INBOX", "Subject: new\n\n");
    guest.sync(&home);
    // Somebody else's own doing, at the same time.
    expunge(&home, "Work", &had[3..]);
    let by = Some(guest.replica.id().unwrap());
    let Undone { brought_back, added: stays, made, .. } =
        home.replica.undo(&Selection::Since { from: 0, until: None, by }).unwrap();
    assert_eq!((brought_back, stays, made.len()), (one("Work", 3), 1, 0));
    assert_eq!(entries(&home, "Work").len(), 3);
    assert!(entries(&home, "Work").is_subset(&before) && home.uid_of("INBOX", added).is_some());
    let later = Selection::Since { from: i64::MAX, until: None, by: None };
    assert_eq!(home.replica.undo(&later).unwrap(), Undone::default());
}

#[test]
fn an_expunge_that_two_made_apart_is_undone_by_undoing_both() {
    let home = filled(1);
    let guest = home.invite(Role::Server, 2);
    let had = shown(&home, "Work");
    let one_here = changes(&home.replica, || expunge(&home, "Work", &had));
    let one_there = changes(&guest.replica, || expunge(&guest, "Work", &had));
    guest.sync(&home);
    assert!(home.replica.undo(&one_here).unwrap().is_nothing(), "the guest wanted it gone as well");
    let (Selection::Changes(mut both), Selection::Changes(there)) = (one_here, one_there) else { panic!() };
    both.extend(there);
    assert_eq!(home.replica.undo(&Selection::Changes(both)).unwrap().brought_back, one("Work", 1));
}

#[test]
fn an_observer_undoes_too_and_a_message_without_a_body_stays_gone() {
    let home = filled(2);
    let entry = home.append("INBOX", "Subject: never synced\n\n");
    let gone = changes(&home.replica, || {
        expunge(&home, "INBOX", &shown(&home, "INBOX"));
        expunge(&home, "Work", &shown(&home, "Work")[..1]);
    });
    // The guest never gets the bodies of messages that were gone before it came.
    let guest = home.invite(Role::Observer, 2);
    let undone = guest.replica.undo(&gone).unwrap();
    assert_eq!((undone.brought_back.len(), undone.without_body.len()), (0, 2));
    assert!(undone.without_body.contains(&entry));
    let undone = home.replica.undo(&gone).unwrap();
    assert_eq!((undone.brought_back.len(), undone.without_body.len()), (2, 0));
    home.sync(&guest);
    assert_eq!(home.picture(), guest.picture(), "bodies come with their messages");
    let flagged = changes(&guest.replica, || {
        expunge(&guest, "INBOX", &shown(&guest, "INBOX"));
    });
    assert_eq!(guest.replica.undo(&flagged).unwrap().brought_back, one("INBOX", 1));
    guest.sync(&home);
    assert_eq!(home.picture().len(), guest.picture().len());
    assert_eq!(entries(&home, "INBOX"), [entry].into());
}
