//! Every rule for concurrent changes, one test each, on two accounts in memory. `docs/document.md` has them as a table.

use std::collections::{BTreeMap, BTreeSet};

use postmerge::blob::BlobId;
use postmerge::mailbox::{
    AccountId, Change, Document, EntryId, Keyword, MailboxId, Message, ReplicaId, Uid, UidRecord, UidValidity,
};
use postmerge::uid::{Account, Block, Event, Grant, Imported, KeywordChange, MemoryTables, Shown, Written};

use crate::pair::name;

/// A server in memory, with everything it ever wrote or received.
struct Server {
    account: Account,
    tables: MemoryTables,
    changes: Vec<Change>,
    /// What its clock says.
    time: i64,
}

impl Server {
    fn new(id: u8, grant: Grant) -> Server {
        let doc = Document::new(ReplicaId::from_bytes([id; 16]));
        let account =
            Account::new(AccountId::from_bytes([1; 16]), doc, Some(grant), Block::STANDARD, u16::from(id));
        let mut tables = MemoryTables::default();
        account.prepare(&mut tables).unwrap();
        Server { account, tables, changes: Vec::new(), time: 0 }
    }

    /// Two servers that share an account, the first with the lower lane.
    fn two() -> (Server, Server) {
        let (keep, give) = Grant::whole().split(&Default::default()).unwrap();
        (Server::new(1, keep), Server::new(2, give))
    }

    fn took<R>(&mut self, (result, written): (R, Written)) -> R {
        self.changes.extend(written.changes().cloned());
        result
    }

    fn hear(&mut self, other: &Server) {
        let known: BTreeSet<_> = self.changes.iter().map(Change::hash).collect();
        let news = other.changes.iter().filter(|change| !known.contains(&change.hash())).cloned().collect();
        let written = self.account.receive(&mut self.tables, news).unwrap();
        self.took(((), written));
    }

    fn settle(&mut self) {
        let written = self.account.settle(&mut self.tables, self.time, None).unwrap();
        self.took(((), written));
    }

    fn deliver(&mut self, mailbox: MailboxId, body: &str) -> EntryId {
        let blob = BlobId::of(body.as_bytes());
        let message = Message { blob, internal_date: 5, size: 9, keywords: BTreeSet::new() };
        let done = self.account.append(&mut self.tables, self.time, mailbox, vec![message]).unwrap();
        self.took(done)[0]
    }

    fn create(&mut self, mailbox: &str) -> MailboxId {
        let done = self.account.create_mailbox(&mut self.tables, self.time, &name(mailbox), None).unwrap();
        self.took(done)
    }

    fn move_to(&mut self, entry: EntryId, mailbox: MailboxId) {
        let written = self.account.move_to(&mut self.tables, self.time, &[entry], mailbox).unwrap();
        self.took(((), written));
    }

    fn expunge(&mut self, entry: EntryId) {
        let written = self.account.expunge(&mut self.tables, self.time, &[entry]).unwrap();
        self.took(((), written));
    }

    fn flag(&mut self, entry: EntryId, set: &[&str], clear: &[&str]) {
        let keywords = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let change = KeywordChange::Edit { set: keywords(set), clear: keywords(clear) };
        let written = self.account.store_keywords(&mut self.tables, self.time, &[entry], &change).unwrap();
        self.took(((), written));
    }

    fn rename(&mut self, from: &str, to: &str) {
        let written =
            self.account.rename_mailbox(&mut self.tables, self.time, &name(from), &name(to)).unwrap();
        self.took(((), written));
    }

    fn delete(&mut self, mailbox: &str) {
        let written = self.account.delete_mailbox(&mut self.tables, self.time, &name(mailbox)).unwrap();
        self.took(((), written));
    }

    fn names(&self) -> Vec<String> {
        let mailboxes = self.account.view(&self.tables).mailboxes().unwrap();
        mailboxes.into_iter().map(|mailbox| mailbox.name.to_string()).collect()
    }

    fn shown(&self, mailbox: MailboxId) -> Vec<Shown> {
        self.account.view(&self.tables).messages(mailbox, Uid::FIRST, usize::MAX).unwrap()
    }

    fn place(&self, entry: EntryId) -> Option<MailboxId> {
        self.account.view(&self.tables).entry(entry).unwrap().unwrap().2
    }

    fn keywords(&self, entry: EntryId) -> Vec<String> {
        let mailbox = self.place(entry).unwrap();
        let shown = self.shown(mailbox).into_iter().find(|message| message.entry == entry).unwrap();
        shown.keywords.iter().map(Keyword::to_string).collect()
    }

    fn saved(&self, entry: EntryId) -> i64 {
        let mailbox = self.place(entry).unwrap();
        self.shown(mailbox).into_iter().find(|message| message.entry == entry).unwrap().saved
    }

    fn validity(&self, mailbox: MailboxId) -> UidValidity {
        self.account.view(&self.tables).mailbox(mailbox).unwrap().unwrap().uid_validity
    }
}

/// Both hear of each other until neither has anything to write; then both must show the same.
fn heal(a: &mut Server, b: &mut Server) {
    for _ in 0..6 {
        a.hear(b);
        a.settle();
        b.hear(a);
        b.settle();
    }
    assert_eq!(a.account.document().heads(), b.account.document().heads(), "they go on writing");
    let picture = |server: &Server| -> Vec<_> {
        let view = server.account.view(&server.tables);
        let mailboxes = view.mailboxes().unwrap();
        mailboxes
            .into_iter()
            .map(|m| {
                let messages = server.shown(m.id).into_iter().map(|s| (s.uid, s.entry, s.keywords, s.saved));
                (m.name, m.uid_validity, messages.collect::<Vec<_>>())
            })
            .collect()
    };
    assert_eq!(picture(a), picture(b));
}

const INBOX: fn() -> MailboxId = MailboxId::inbox;

#[test]
fn two_flags_set_on_one_message_are_both_kept() {
    let (mut a, mut b) = Server::two();
    let entry = a.deliver(INBOX(), "x");
    heal(&mut a, &mut b);
    a.flag(entry, &["\\Seen"], &[]);
    b.flag(entry, &["\\Flagged"], &[]);
    heal(&mut a, &mut b);
    assert_eq!(a.keywords(entry), ["\\Flagged", "\\Seen"]);
}

#[test]
fn a_flag_set_here_and_cleared_there_stays_set() {
    let (mut a, mut b) = Server::two();
    let entry = a.deliver(INBOX(), "x");
    a.flag(entry, &["\\Flagged"], &[]);
    heal(&mut a, &mut b);
    a.flag(entry, &[], &["\\Flagged"]);
    b.flag(entry, &[], &["\\Flagged"]);
    b.flag(entry, &["\\Flagged"], &[]);
    heal(&mut a, &mut b);
    assert_eq!(a.keywords(entry), ["\\Flagged"]);
}

#[test]
fn deleted_set_here_and_cleared_there_is_cleared() {
    let (mut a, mut b) = Server::two();
    let entry = a.deliver(INBOX(), "x");
    a.flag(entry, &["\\Deleted"], &[]);
    heal(&mut a, &mut b);
    a.flag(entry, &[], &["\\Deleted"]);
    b.flag(entry, &[], &["\\Deleted"]);
    b.flag(entry, &["\\Deleted"], &[]);
    heal(&mut a, &mut b);
    assert!(a.keywords(entry).is_empty());
}

#[test]
fn clearing_deleted_beats_a_concurrent_expunge_and_the_uid_that_vanished_does_not_return() {
    let (mut a, mut b) = Server::two();
    let entry = a.deliver(INBOX(), "x");
    a.flag(entry, &["\\Deleted"], &[]);
    heal(&mut a, &mut b);
    let uid = a.shown(INBOX())[0].uid;
    a.flag(entry, &[], &["\\Deleted"]);
    b.expunge(entry);
    assert!(b.shown(INBOX()).is_empty());
    heal(&mut a, &mut b);
    let shown = b.shown(INBOX());
    assert_eq!(shown[0].entry, entry);
    assert!(shown[0].uid > uid, "clients of b were told that {uid} vanished");
}

#[test]
fn a_move_beats_a_concurrent_expunge() {
    let (mut a, mut b) = Server::two();
    let work = a.create("Work");
    let entry = a.deliver(INBOX(), "x");
    heal(&mut a, &mut b);
    a.move_to(entry, work);
    b.expunge(entry);
    heal(&mut a, &mut b);
    assert_eq!(b.place(entry), Some(work));
}

#[test]
fn of_two_concurrent_moves_one_wins_and_no_copy_is_made() {
    let (mut a, mut b) = Server::two();
    let (work, lists) = (a.create("Work"), a.create("Lists"));
    let entry = a.deliver(INBOX(), "x");
    heal(&mut a, &mut b);
    a.move_to(entry, work);
    b.move_to(entry, lists);
    heal(&mut a, &mut b);
    let count = [INBOX(), work, lists].map(|mailbox| a.shown(mailbox).len());
    assert_eq!(count.iter().sum::<usize>(), 1, "{count:?}");
}

#[test]
fn a_lost_move_does_not_come_back_under_its_old_uid_when_the_winner_is_expunged() {
    let (mut a, mut b) = Server::two();
    let (work, lists) = (a.create("Work"), a.create("Lists"));
    let entry = a.deliver(INBOX(), "x");
    heal(&mut a, &mut b);
    a.move_to(entry, work);
    b.move_to(entry, lists);
    let (in_work, in_lists) = (a.shown(work)[0].uid, b.shown(lists)[0].uid);
    // The server whose move loses hides it; then the other, which knows only its own move, expunges the message.
    let mut trial = Server::new(3, Grant::whole());
    trial.hear(&a);
    trial.hear(&b);
    let a_wins = trial.place(entry) == Some(work);
    let (winner, hiding) = if a_wins { (&mut a, &mut b) } else { (&mut b, &mut a) };
    hiding.hear(winner);
    hiding.settle();
    let (loser, old) = if a_wins { (lists, in_lists) } else { (work, in_work) };
    assert!(hiding.shown(loser).is_empty(), "its clients were told that {old} vanished");
    winner.expunge(entry);
    heal(&mut a, &mut b);
    let back = a.shown(loser);
    assert_eq!(back.len(), 1, "nobody expunged the message in the place where the other had put it");
    assert_ne!(back[0].uid, old);
}

#[test]
fn an_entry_that_leaves_and_comes_back_has_a_new_uid() {
    let (mut a, mut b) = Server::two();
    let work = a.create("Work");
    let entry = a.deliver(INBOX(), "x");
    let first = a.shown(INBOX())[0].uid;
    a.move_to(entry, work);
    a.move_to(entry, INBOX());
    heal(&mut a, &mut b);
    assert!(b.shown(INBOX())[0].uid > first);
}

#[test]
fn a_mailbox_made_on_both_sides_is_one_mailbox() {
    let (mut a, mut b) = Server::two();
    let (x, y) = (a.create("Work"), b.create("Work"));
    assert_eq!(x, y);
    a.deliver(x, "a");
    b.deliver(y, "b");
    let validity = a.validity(x);
    heal(&mut a, &mut b);
    assert_eq!(a.names(), ["INBOX", "Work"]);
    assert_eq!((a.shown(x).len(), a.validity(x)), (2, validity));
}

#[test]
fn a_mailbox_deleted_here_while_mail_arrives_there_stays_in_sight_with_that_mail() {
    let (mut a, mut b) = Server::two();
    let work = a.create("Work");
    let old = a.deliver(work, "old");
    heal(&mut a, &mut b);
    a.delete("Work");
    let new = b.deliver(work, "new");
    heal(&mut a, &mut b);
    assert_eq!((a.place(old), a.place(new)), (None, Some(work)));
    assert_eq!(a.names(), ["INBOX", "Work"]);
    a.expunge(new);
    heal(&mut a, &mut b);
    assert_eq!(b.names(), ["INBOX"]);
}

#[test]
fn a_mailbox_made_again_is_another_one_with_a_higher_uidvalidity() {
    let (mut a, mut b) = Server::two();
    let first = a.create("Work");
    heal(&mut a, &mut b);
    let old = b.validity(first);
    a.delete("Work");
    let again = a.create("Work");
    assert_ne!(first, again);
    heal(&mut a, &mut b);
    assert!(b.validity(again) > old);
}

#[test]
fn of_two_mailboxes_with_one_name_one_gets_a_marked_name_and_no_message_is_lost() {
    let (mut a, mut b) = Server::two();
    let (left, right) = (a.create("Left"), a.create("Right"));
    let (x, y) = (a.deliver(left, "x"), a.deliver(right, "y"));
    heal(&mut a, &mut b);
    a.rename("Left", "Both");
    b.rename("Right", "Both");
    heal(&mut a, &mut b);
    let names = a.names();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(
        names.contains(&"Both".into()) && names.iter().any(|name| name.starts_with("Both~")),
        "{names:?}"
    );
    assert_eq!((a.place(x), a.place(y)), (Some(left), Some(right)));
}

#[test]
fn of_two_renames_of_one_mailbox_one_holds_on_both_sides() {
    let (mut a, mut b) = Server::two();
    a.create("Work");
    heal(&mut a, &mut b);
    a.rename("Work", "Here");
    b.rename("Work", "There");
    heal(&mut a, &mut b);
    let names = a.names();
    assert!(names == ["Here", "INBOX"] || names == ["INBOX", "There"], "{names:?}");
}

#[test]
fn a_claim_that_arrives_already_burned_is_told_as_vanished() {
    let (mut a, mut b) = Server::two();
    heal(&mut a, &mut b);
    // The lower of the two UIDs is spanned by the run of the other, which did not know of it.
    let (low, high) = (a.deliver(INBOX(), "low"), b.deliver(INBOX(), "high"));
    let uid = |server: &Server, entry| {
        server.shown(INBOX()).into_iter().find(|message| message.entry == entry).unwrap().uid
    };
    let (of_low, of_high) = (uid(&a, low), uid(&b, high));
    assert!(of_low < of_high);
    let before = b.account.view(&b.tables).mailbox(INBOX()).unwrap().unwrap().highest_modseq;
    b.hear(&a);
    let changes = b.account.view(&b.tables).changed_since(INBOX(), before.counter()).unwrap();
    assert_eq!(changes.vanished, [of_low], "a client of the other server may have seen it");
    b.settle();
    let changes = b.account.view(&b.tables).changed_since(INBOX(), before.counter()).unwrap();
    let changed: Vec<EntryId> = changes.changed.iter().map(|message| message.entry).collect();
    assert_eq!((changed, changes.vanished), (vec![low], vec![of_low]));
    let now = b.account.view(&b.tables).mailbox(INBOX()).unwrap().unwrap().highest_modseq;
    let later = b.account.view(&b.tables).changed_since(INBOX(), now.counter()).unwrap();
    assert!(later.changed.is_empty() && later.vanished.is_empty());
}

#[test]
fn a_uid_that_is_burned_before_anybody_claims_it_names_no_message() {
    let (mut a, mut b) = Server::two();
    let burn = UidRecord::Burn { mailbox: INBOX(), epoch: 0, uids: vec![Uid::new(9).unwrap()] };
    let mut doc = Document::new(ReplicaId::from_bytes([7; 16]));
    let change = doc.write(0, |writer| writer.uid_record(&burn)).unwrap().unwrap();
    let written = a.account.receive(&mut a.tables, vec![change]).unwrap();
    let burned = |event: &&Event| matches!(event, Event::Burned { entry: None, uid, .. } if uid.value() == 9);
    assert_eq!(written.events.iter().filter(burned).count(), 1, "{:?}", written.events);
    a.took(((), written));
    for n in 0..12 {
        a.deliver(INBOX(), &format!("{n}"));
    }
    heal(&mut a, &mut b);
    assert_eq!(a.shown(INBOX()).len(), 12);
    assert!(a.shown(INBOX()).iter().all(|message| message.uid.value() != 9));
}

#[test]
fn an_observer_that_imports_claims_nothing_and_adopts_nothing() {
    let mut observer = Server::new(3, Grant::whole());
    observer.account.set_grant(None);
    let mailbox = observer.create("Folder");
    let adopted = Some((UidValidity::new(777_777).unwrap(), 99));
    let messages = folder(false, false, 0);
    let written = observer.account.import(&mut observer.tables, 0, mailbox, &messages, adopted).unwrap();
    assert!(written.changes().all(|change| change.touched().uids.is_empty()), "it wrote claims");
    observer.took(((), written));
    let (mut a, _) = Server::two();
    a.hear(&observer);
    a.settle();
    let uids: Vec<u32> = a.shown(mailbox).iter().map(|message| message.uid.value()).collect();
    assert_ne!(a.validity(mailbox).value(), 777_777, "under it these UIDs would mean other messages");
    assert_eq!(uids, [1, 2, 3]);
}

#[test]
fn ten_thousand_moves_fit_one_change() {
    let (mut a, _) = Server::two();
    let work = a.create("Work");
    let message = |n: u32| Message {
        blob: BlobId::of(&n.to_le_bytes()),
        internal_date: i64::from(n),
        size: 1,
        keywords: BTreeSet::new(),
    };
    let done =
        a.account.append(&mut a.tables, 0, INBOX(), (0..Account::MAX_BATCH as u32).map(message).collect());
    let entries = a.took(done.unwrap());
    let written = a.account.move_to(&mut a.tables, 0, &entries, work).unwrap();
    assert_eq!(written.changes().count(), 1);
    a.took(((), written));
    assert_eq!(a.account.view(&a.tables).uids(work).unwrap().len(), entries.len());
}

#[test]
fn many_keywords_on_many_new_messages_stay_within_what_one_change_may_be() {
    let (mut a, mut b) = Server::two();
    let keyword = |n: u32, k: u32| format!("{n:05}-{k:02}-{}", "x".repeat(80)).parse().unwrap();
    let message = |n: u32| Message {
        blob: BlobId::of(&n.to_le_bytes()),
        internal_date: 0,
        size: 1,
        keywords: (0..40).map(|k| keyword(n, k)).collect(),
    };
    let done = a.account.append(&mut a.tables, 0, INBOX(), (0..500).map(message).collect());
    a.took(done.unwrap());
    b.hear(&a);
    assert!(b.shown(INBOX()).iter().all(|message| message.keywords.len() == 40));
    assert_eq!(b.shown(INBOX()).len(), 500);
}

#[test]
fn a_subscription_of_either_side_is_kept() {
    let (mut a, mut b) = Server::two();
    a.create("Work");
    heal(&mut a, &mut b);
    for (server, subscribed) in [(&mut a, true), (&mut b, true)] {
        let written = server.account.subscribe(&mut server.tables, 0, &name("Work"), subscribed).unwrap();
        server.took(((), written));
    }
    let written = b.account.subscribe(&mut b.tables, 0, &name("Work"), false).unwrap();
    b.took(((), written));
    heal(&mut a, &mut b);
    let mailboxes = b.account.view(&b.tables).mailboxes().unwrap();
    assert!(mailboxes.iter().find(|mailbox| mailbox.name == name("Work")).unwrap().subscribed);
}

fn folder(seen: bool, deleted: bool, date: i64) -> Vec<Imported> {
    let mut keywords = BTreeSet::new();
    if seen {
        keywords.insert(Keyword::seen());
    }
    if deleted {
        keywords.insert(Keyword::deleted());
    }
    let message = |n: u32| Imported {
        message: Message {
            blob: BlobId::of(&n.to_le_bytes()),
            internal_date: date + i64::from(n),
            size: 4,
            keywords: keywords.clone(),
        },
        occurrence: 0,
        uid: Uid::new(10 * n + 10),
    };
    (0..3).map(message).collect()
}

fn import(server: &mut Server, messages: &[Imported], adopt: Option<(u32, u32)>) -> MailboxId {
    let mailbox = server.create("Folder");
    let adopted = adopt.map(|(validity, floor)| (UidValidity::new(validity).unwrap(), floor));
    let written = server.account.import(&mut server.tables, server.time, mailbox, messages, adopted).unwrap();
    server.took(((), written));
    mailbox
}

#[test]
fn a_folder_imported_on_both_sides_is_there_once_with_the_marks_of_both() {
    let (mut a, mut b) = Server::two();
    let folder_a = import(&mut a, &folder(true, true, 50), None);
    import(&mut b, &folder(false, false, 40), None);
    heal(&mut a, &mut b);
    let shown = a.shown(folder_a);
    assert_eq!(shown.len(), 3);
    for message in &shown {
        assert_eq!(message.keywords, [Keyword::seen()].into(), "\\Deleted is kept only if both had it");
        assert!(message.internal_date < 50, "the earlier date is kept");
    }
}

#[test]
fn a_folder_adopted_on_both_sides_keeps_uidvalidity_and_uids() {
    let (mut a, mut b) = Server::two();
    let mailbox = import(&mut a, &folder(false, false, 0), Some((777_777, 99)));
    import(&mut b, &folder(false, false, 0), Some((777_777, 99)));
    heal(&mut a, &mut b);
    let uids: Vec<u32> = a.shown(mailbox).iter().map(|message| message.uid.value()).collect();
    assert_eq!((a.validity(mailbox).value(), uids), (777_777, vec![10, 20, 30]));
    let next = a.deliver(mailbox, "new");
    let shown = a.shown(mailbox).into_iter().find(|message| message.entry == next).unwrap();
    assert!(shown.uid.value() > 99, "UIDs below the folder's UIDNEXT were shown once");
}

#[test]
fn a_uid_that_another_folder_had_passed_over_is_not_shown_late() {
    let (mut a, mut b) = Server::two();
    let mailbox = import(&mut a, &folder(false, false, 0), Some((777_777, 30)));
    // The other end of the folder was read after its last message, UID 30, was expunged.
    import(&mut b, &folder(false, false, 0)[..2], Some((777_777, 30)));
    let last = a.shown(mailbox)[2].entry;
    heal(&mut a, &mut b);
    let shown = b.shown(mailbox).into_iter().find(|message| message.entry == last).unwrap();
    assert!(shown.uid.value() > 30, "clients of b were told that UIDNEXT is 31");
}

#[test]
fn two_different_adopted_uidvalidities_make_a_higher_one() {
    let (mut a, mut b) = Server::two();
    let mailbox = import(&mut a, &folder(false, false, 0), Some((700_000, 99)));
    import(&mut b, &folder(false, false, 0), Some((800_000, 99)));
    heal(&mut a, &mut b);
    assert!(a.validity(mailbox).value() > 800_000);
    assert_eq!(a.shown(mailbox).len(), 3);
}

#[test]
fn uids_past_the_bound_raise_the_epoch() {
    let (mut a, mut b) = Server::two();
    let mailbox = import(&mut a, &folder(false, false, 0), Some((700_000, 1 << 20)));
    let near = (1u32 << 31) - 2;
    let burnt: Vec<Imported> = Vec::new();
    for step in 1..=128u32 {
        let floor = (step << 24).min(near);
        let adopted = Some((UidValidity::new(700_000).unwrap(), floor));
        let written = a.account.import(&mut a.tables, 0, mailbox, &burnt, adopted).unwrap();
        a.took(((), written));
    }
    let before = a.validity(mailbox);
    for n in 0..70 {
        a.deliver(mailbox, &format!("over {n}"));
    }
    heal(&mut a, &mut b);
    assert!(a.validity(mailbox) > before);
    assert_eq!(a.shown(mailbox).len(), 73);
    assert!(a.shown(mailbox).iter().all(|message| message.uid.value() < 1 << 20));
}

#[test]
fn an_expunged_import_stays_expunged_when_the_other_side_imports_it() {
    let (mut a, mut b) = Server::two();
    let mailbox = import(&mut a, &folder(false, false, 0), None);
    let gone = a.shown(mailbox)[0].entry;
    a.expunge(gone);
    import(&mut b, &folder(false, false, 0), None);
    heal(&mut a, &mut b);
    assert_eq!((b.place(gone), b.shown(mailbox).len()), (None, 2));
}

#[test]
fn flags_on_many_messages_at_once_stay_within_what_one_change_may_be() {
    let (mut a, mut b) = Server::two();
    let message = |n: u32| Message {
        blob: BlobId::of(&n.to_le_bytes()),
        internal_date: 0,
        size: 1,
        keywords: BTreeSet::new(),
    };
    let mut entries = Vec::new();
    let messages = (0..Account::MAX_BATCH as u32).map(message).collect();
    let done = a.account.append(&mut a.tables, 0, INBOX(), messages).unwrap();
    entries.extend(a.took(done));
    let long: Keyword = "x".repeat(Keyword::MAX_LEN).parse().unwrap();
    let set = BTreeSet::from([Keyword::seen(), long]);
    let change = KeywordChange::Exactly(set.clone());
    let written = a.account.store_keywords(&mut a.tables, 0, &entries, &change).unwrap();
    for change in written.changes() {
        Change::vet(change.bytes()).unwrap();
    }
    a.took(((), written));
    b.hear(&a);
    assert!(b.shown(INBOX()).iter().all(|message| message.keywords == set));
    entries.push(entries[0]);
    assert!(a.account.store_keywords(&mut a.tables, 0, &entries, &change).is_err());
}

#[test]
fn a_message_is_saved_where_it_is_since_it_came_there() {
    let (mut a, mut b) = Server::two();
    a.time = 10;
    let work = a.create("Work");
    let entry = a.deliver(INBOX(), "x");
    assert_eq!(a.saved(entry), 10, "not the internal date");
    a.time = 20;
    a.flag(entry, &["\\Deleted"], &[]);
    assert_eq!(a.saved(entry), 10);
    a.move_to(entry, work);
    assert_eq!(a.saved(entry), 20);
    heal(&mut a, &mut b);
    // The stay is renewed, by somebody whose clock is late and somebody whose clock is early.
    for (time, set, clear) in
        [(5, &[][..], &["\\Deleted"][..]), (30, &["\\Deleted"], &[]), (31, &[], &["\\Deleted"])]
    {
        b.time = time;
        b.flag(entry, set, clear);
        assert_eq!(b.saved(entry), 20);
    }
    heal(&mut a, &mut b);
    a.time = 40;
    a.move_to(entry, INBOX());
    assert_eq!(a.saved(entry), 40, "it came back");
}

#[test]
fn of_two_concurrent_moves_the_winner_says_when_the_message_was_saved() {
    let (mut a, mut b) = Server::two();
    let (one, other) = (a.create("One"), a.create("Other"));
    let entry = a.deliver(INBOX(), "x");
    heal(&mut a, &mut b);
    (a.time, b.time) = (100, 90);
    a.move_to(entry, one);
    b.move_to(entry, other);
    heal(&mut a, &mut b);
    let expected = if a.place(entry) == Some(one) { 100 } else { 90 };
    assert_eq!((a.saved(entry), b.saved(entry)), (expected, expected));
    // Who hears of all of it at once shows the same.
    let mut late = Server::new(3, Grant::whole());
    late.hear(&a);
    assert_eq!(late.saved(entry), expected);
}

#[test]
fn what_both_sides_imported_is_saved_since_the_first_import() {
    // The whole folder is one pack on both sides; of a part of it only the messages are the same.
    for (times, part, expected) in
        [((100, 200), 3, [100, 100, 100]), ((200, 100), 3, [100, 100, 100]), ((200, 100), 1, [100, 200, 200])]
    {
        let (mut a, mut b) = Server::two();
        (a.time, b.time) = times;
        let mailbox = import(&mut a, &folder(true, true, 50), None);
        import(&mut b, &folder(true, true, 50)[..part], None);
        heal(&mut a, &mut b);
        // Who hears of all of it at once shows the same.
        let mut late = Server::new(3, Grant::whole());
        late.hear(&a);
        for server in [&a, &b, &late] {
            let saved: BTreeMap<_, _> = server
                .shown(mailbox)
                .into_iter()
                .map(|message| (message.internal_date, message.saved))
                .collect();
            assert_eq!(saved.into_values().collect::<Vec<_>>(), expected);
        }
    }
}
