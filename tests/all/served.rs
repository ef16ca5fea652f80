//! A Maildir that a Dovecot serves. The Dovecot here does to the files what the real one does, and remembers all that it told
//! its clients: no UID may ever mean two messages, and what is new must lie at or above the UIDNEXT that it told.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use postmerge::mailbox::Uid;
use postmerge::maildir::{
    BaseName, BridgeError, FileName, How, Maildirs, Report, UidEntry, UidList, UidLists,
};
use postmerge::member::Role;
use postmerge::uid::{Block, Event};
use tempfile::TempDir;

use crate::pair::{Home, name};

/// What clients were told of a folder.
#[derive(Default)]
struct Told {
    validity: u32,
    next: u32,
    shown: BTreeMap<u32, String>,
    ever: BTreeMap<(u32, u32), String>,
}

struct Served {
    home: Home,
    mail: TempDir,
    maildirs: Maildirs,
    told: RefCell<BTreeMap<String, Told>>,
}

fn dir(root: &Path, folder: &str) -> PathBuf {
    if folder == "INBOX" { root.to_owned() } else { root.join(format!(".{folder}")) }
}

fn body(subject: &str) -> String {
    format!("Subject: {subject}\n\nBody of {subject}\n")
}

fn make_folder(dir: &Path) {
    for sub in ["tmp", "new", "cur"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
}

impl Served {
    /// A Maildir in which Dovecot has numbered what is there, attached and in step.
    fn new(home: Home, start: &[&str]) -> Served {
        let (mail, maildirs) = (TempDir::new().unwrap(), Maildirs::open(&home.replica).unwrap());
        let served = Served { home, mail, maildirs, told: RefCell::default() };
        for folder in ["INBOX", "A"] {
            make_folder(&dir(served.mail.path(), folder));
        }
        for subject in start {
            served.deliver("INBOX", subject);
        }
        served.look("INBOX");
        served.maildirs.attach(served.mail.path(), UidLists::Dovecot, false, &mut |_| {}).unwrap();
        served.run();
        served
    }

    fn first(start: &[&str]) -> Served {
        Served::new(Home::found_with(Role::Server, Block::DOVECOT), start)
    }

    fn second(&self) -> Served {
        Served::new(self.home.invite_named(Role::Server, 2, "far"), &[])
    }

    #[expect(clippy::disallowed_methods, reason = "whoever runs a bridge reads the clock")]
    fn try_run(&self, progress: &mut dyn FnMut()) -> Result<Report, BridgeError> {
        let id = self.maildirs.find(self.mail.path())?.id;
        self.maildirs.run(id, How::default(), &SystemTime::now, &mut |_| progress())
    }

    fn run(&self) -> Report {
        let report = self.try_run(&mut || {}).unwrap();
        assert!(report.busy.is_empty(), "{report:?}");
        report
    }

    /// Runs until nothing is left to be done, and looks after each run, as a client would.
    fn settle(&self) {
        for round in 0.. {
            assert!(round < 6, "it does not come to rest");
            let changes = self.home.replica.status().unwrap().changes;
            let report = self.run();
            self.look_all();
            if report.is_nothing() && self.home.replica.status().unwrap().changes == changes {
                return;
            }
        }
    }

    fn deliver(&self, folder: &str, subject: &str) {
        fs::write(dir(self.mail.path(), folder).join(format!("new/9.{subject}.host")), body(subject))
            .unwrap();
    }

    fn files(&self, folder: &str) -> BTreeMap<BaseName, (PathBuf, String)> {
        let mut files = BTreeMap::new();
        for sub in ["new", "cur"] {
            for entry in fs::read_dir(dir(self.mail.path(), folder).join(sub)).unwrap() {
                let path = entry.unwrap().path();
                let text = fs::read_to_string(&path).unwrap();
                let subject = text.lines().next().unwrap().strip_prefix("Subject: ").unwrap().to_owned();
                files.insert(FileName::parse(path.file_name().unwrap()).unwrap().base, (path, subject));
            }
        }
        files
    }

    fn path(&self, folder: &str, subject: &str) -> PathBuf {
        self.files(folder).into_values().find(|(_, found)| found == subject).unwrap().0
    }

    fn rename(&self, folder: &str, subject: &str, to: &str) {
        let from = self.path(folder, subject);
        fs::rename(&from, dir(self.mail.path(), to).join("cur").join(from.file_name().unwrap())).unwrap();
    }

    fn list(&self, folder: &str) -> Option<UidList> {
        let bytes = fs::read(dir(self.mail.path(), folder).join("dovecot-uidlist")).ok()?;
        Some(UidList::parse(&bytes).unwrap())
    }

    /// What Dovecot does when a client looks: it numbers the files that have no UID, and forgets those that are gone.
    fn look(&self, folder: &str) -> BTreeMap<u32, String> {
        let mut list = self.list(folder).unwrap_or_else(|| {
            UidList::parse(b"3 V1700000000 N1 G3085f01b7f11094c501100008c4a11c1\n").unwrap()
        });
        let (before, files) = (list.clone(), self.files(folder));
        list.entries.retain(|line| files.contains_key(&line.base));
        let listed: BTreeSet<BaseName> = list.entries.iter().map(|line| line.base.clone()).collect();
        for base in files.keys().filter(|base| !listed.contains(base)) {
            let entry = UidEntry { uid: list.next, fields: Vec::new(), base: base.clone() };
            list.entries.push(entry);
            list.next = Uid::new(list.next.value() + 1).unwrap();
        }
        if list != before || self.list(folder).is_none() {
            fs::write(dir(self.mail.path(), folder).join("dovecot-uidlist"), list.to_bytes()).unwrap();
        }
        let shown: BTreeMap<u32, String> =
            list.entries.iter().map(|line| (line.uid.value(), files[&line.base].1.clone())).collect();
        self.check(folder, list.validity.value(), list.next.value(), &shown);
        shown
    }

    fn check(&self, folder: &str, validity: u32, next: u32, shown: &BTreeMap<u32, String>) {
        let mut all = self.told.borrow_mut();
        let told = all.entry(folder.to_owned()).or_default();
        assert!(validity >= told.validity, "{folder}: UIDVALIDITY fell");
        if validity > told.validity {
            (told.validity, told.next, told.shown) = (validity, 1, BTreeMap::new());
        }
        assert!(next >= told.next, "{folder}: UIDNEXT fell from {} to {next}", told.next);
        for (uid, subject) in shown {
            let same = told.ever.entry((validity, *uid)).or_insert_with(|| subject.clone());
            assert_eq!(same, subject, "{folder}: UID {uid} means two messages");
            let is_new = !told.shown.contains_key(uid);
            assert!(!is_new || *uid >= told.next, "{folder}: {subject} came as {uid} below {}", told.next);
        }
        (told.next, told.shown) = (next, shown.clone());
    }

    fn look_all(&self) {
        for folder in ["INBOX", "A"] {
            self.look(folder);
        }
    }

    /// What the account shows.
    fn account(&self, folder: &str) -> BTreeMap<u32, String> {
        let messages = self.home.replica.messages(&name(folder), Uid::FIRST, 1000).unwrap();
        let subject = |entry| {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut self.home.replica.body(entry).unwrap(), &mut text).unwrap();
            text.lines().next().unwrap().strip_prefix("Subject: ").unwrap().to_owned()
        };
        messages.into_iter().map(|message| (message.uid.value(), subject(message.entry))).collect()
    }

    #[track_caller]
    fn agree(&self) {
        for folder in ["INBOX", "A"] {
            assert_eq!(self.look(folder), self.account(folder), "{folder}");
            let shown = self.home.replica.mailbox(&name(folder)).unwrap();
            assert_eq!(self.list(folder).unwrap().validity, shown.uid_validity);
        }
    }

    fn uid(&self, folder: &str, subject: &str) -> u32 {
        let shown = self.account(folder);
        *shown.iter().find(|(_, found)| *found == subject).unwrap_or_else(|| panic!("no {subject}")).0
    }
}

#[test]
fn what_dovecot_has_shown_is_claimed() {
    let served = Served::first(&["one", "two"]);
    served.agree();
    assert_eq!(served.account("INBOX"), BTreeMap::from([(1, "one".into()), (2, "two".into())]));
    let next = served.list("INBOX").unwrap().next.value();
    assert_eq!(next, 2048, "what Dovecot gives out itself is in its part of the lane");
    served.deliver("INBOX", "three");
    assert_eq!(served.look("INBOX").last_key_value().unwrap().0, &2048);
    served.deliver("INBOX", "four");
    served.settle();
    served.agree();
    assert_eq!((served.uid("INBOX", "three"), served.uid("INBOX", "four")), (2048, 2049));
    // One that Dovecot showed and that is gone before anybody else saw it.
    served.deliver("INBOX", "five");
    served.look("INBOX");
    fs::remove_file(served.path("INBOX", "five")).unwrap();
    served.deliver("INBOX", "six");
    served.settle();
    served.agree();
    assert_eq!(served.uid("INBOX", "six"), 2051);
}

/// The account numbers others meanwhile, past what Dovecot gives out: that UID was shown and ends, so it must be on record.
#[test]
fn a_uid_that_dovecot_gave_out_too_late_is_burned() {
    let served = Served::first(&["one"]);
    served.deliver("INBOX", "two");
    served.look("INBOX");
    served.settle();
    let burned: Arc<Mutex<Vec<u32>>> = Arc::default();
    let heard = burned.clone();
    let listening = served.home.replica.subscribe(move |events| {
        for event in events {
            if let Event::Burned { uid, .. } = event {
                heard.lock().unwrap().push(uid.value());
            }
        }
    });
    served.home.append("INBOX", &body("direct"));
    served.deliver("INBOX", "three");
    assert_eq!(served.look("INBOX").last_key_value().unwrap().0, &2049);
    served.settle();
    served.agree();
    assert!(burned.lock().unwrap().contains(&2049), "{burned:?}");
    drop(listening);
}

#[test]
fn a_uid_of_a_file_that_is_gone_is_spent() {
    let served = Served::first(&["one"]);
    served.deliver("INBOX", "two");
    served.look("INBOX");
    fs::remove_file(served.path("INBOX", "two")).unwrap();
    served.settle();
    served.agree();
    assert_eq!(served.home.replica.mailbox(&name("INBOX")).unwrap().uid_next, 2049);
}

#[test]
fn a_message_that_a_client_moved_keeps_the_uid_it_was_shown_under() {
    let served = Served::first(&["one", "two"]);
    served.rename("INBOX", "one", "A");
    served.look_all();
    let (shown, mail) = (served.look("A"), served.home.replica.status().unwrap().messages);
    served.settle();
    served.agree();
    assert_eq!(served.account("A"), shown);
    assert_eq!(served.home.replica.status().unwrap().messages, mail, "it is one message still");
    // One that Dovecot did not see before the bridge.
    served.rename("INBOX", "two", "A");
    served.settle();
    served.agree();
}

#[test]
fn what_the_account_got_appears_under_its_uid() {
    let served = Served::first(&["one"]);
    served.home.append("INBOX", &body("direct"));
    served.settle();
    served.agree();
    served.home.append("INBOX", &body("again"));
    served.home.append("A", &body("other"));
    served.settle();
    served.agree();
    let seen = served.home.replica.mailbox(&name("INBOX")).unwrap().seen();
    let uid = Uid::new(served.uid("INBOX", "direct")).unwrap();
    served.home.replica.move_to(seen, &[uid], &name("A")).unwrap();
    served.settle();
    served.agree();
}

/// Both deliver while they are apart, then meet; the same again, so that each has what the other told its clients.
#[test]
fn two_dovecots_heal_into_the_same_uids() {
    let a = Served::first(&["one", "two"]);
    let b = a.second();
    b.settle();
    b.agree();
    for round in 0..4 {
        for (served, side) in [(&a, "a"), (&b, "b")] {
            served.deliver("INBOX", &format!("{side}{round}seen"));
            served.look_all();
            served.settle();
            served.deliver("INBOX", &format!("{side}{round}new"));
            if round == 2 {
                served.rename("INBOX", "one", "A");
                served.look_all();
            }
            served.settle();
            served.agree();
        }
        for _ in 0..4 {
            a.home.sync(&b.home);
            a.settle();
            b.settle();
        }
        a.agree();
        b.agree();
        assert_eq!((a.account("INBOX"), a.account("A")), (b.account("INBOX"), b.account("A")), "{round}");
        let changes = a.home.replica.status().unwrap().changes;
        a.home.sync(&b.home);
        a.settle();
        b.settle();
        assert_eq!(
            b.home.replica.status().unwrap().changes,
            changes,
            "two that agree leave each other alone"
        );
    }
}

#[test]
fn a_claim_below_what_dovecot_told_is_never_shown() {
    let a = Served::first(&["one"]);
    let b = a.second();
    // The other side's UID is known to nobody here when this Dovecot goes past it.
    b.deliver("INBOX", "theirs");
    b.settle();
    a.deliver("INBOX", "burst");
    // A burst that left the block, and of which everything but one message is gone.
    let mut list = a.list("INBOX").unwrap();
    list.next = Uid::new(list.next.value() + 10_000).unwrap();
    fs::write(a.mail.path().join("dovecot-uidlist"), list.to_bytes()).unwrap();
    a.look_all();
    a.home.sync(&b.home);
    for _ in 0..3 {
        a.settle();
        b.settle();
        a.home.sync(&b.home);
    }
    a.agree();
    b.agree();
    assert_eq!(a.account("INBOX"), b.account("INBOX"));
}

#[test]
fn a_list_that_dovecot_made_anew_gets_a_higher_uidvalidity() {
    let served = Served::first(&["one", "two"]);
    let mut list = served.list("INBOX").unwrap();
    list.validity = postmerge::mailbox::UidValidity::new(1_800_000_000).unwrap();
    (list.next, list.entries) = (Uid::FIRST, Vec::new());
    fs::write(served.mail.path().join("dovecot-uidlist"), list.to_bytes()).unwrap();
    served.look_all();
    served.settle();
    served.agree();
    assert!(served.list("INBOX").unwrap().validity.value() > 1_800_000_000);
}

#[test]
fn a_run_that_is_cut_off_anywhere_tells_no_lie() {
    let mut cuts = 0;
    for cut in 1.. {
        let served = Served::first(&["one", "two"]);
        served.deliver("INBOX", "three");
        served.look_all();
        served.deliver("INBOX", "four");
        served.home.append("INBOX", &body("five"));
        served.rename("INBOX", "one", "A");
        let mut steps = 0;
        let mut count = || {
            steps += 1;
            assert!(steps < cut, "cut off");
        };
        let whole = catch_unwind(AssertUnwindSafe(|| served.try_run(&mut count).unwrap())).is_ok();
        cuts += usize::from(!whole);
        served.look_all();
        served.deliver("INBOX", "six");
        served.look_all();
        served.settle();
        served.agree();
        assert_eq!(served.account("INBOX").len() + served.account("A").len(), 6, "cut off after {cut}");
        if whole {
            break;
        }
    }
    assert!(cuts >= 3, "only {cuts} runs were cut off");
}

#[test]
fn keywords_get_letters_and_keep_them() {
    let served = Served::first(&["one"]);
    fs::write(served.mail.path().join("dovecot-keywords"), "0 theirs\n").unwrap();
    let seen = served.home.replica.mailbox(&name("INBOX")).unwrap().seen();
    let uid = Uid::new(served.uid("INBOX", "one")).unwrap();
    let set = ["$Junk", "work"].map(|keyword| keyword.parse().unwrap()).into();
    let change = postmerge::uid::KeywordChange::Edit { set, clear: Default::default() };
    served.home.replica.store_keywords(seen, &[uid], &change, None).unwrap();
    served.settle();
    let text = fs::read_to_string(served.mail.path().join("dovecot-keywords")).unwrap();
    assert_eq!(text, "0 theirs\n1 $Junk\n2 work\n");
    let file = served.path("INBOX", "one");
    assert!(file.to_str().unwrap().ends_with(":2,bc"), "{file:?}");
    served.agree();
}

#[test]
fn a_held_lock_is_respected() {
    let served = Served::first(&["one"]);
    served.deliver("INBOX", "two");
    let lock = served.mail.path().join("dovecot-uidlist.lock");
    fs::write(&lock, "").unwrap();
    let report = served.try_run(&mut || {}).unwrap();
    assert_eq!(report.busy, [name("INBOX")]);
    assert_eq!(served.account("INBOX").len(), 1);
    fs::remove_file(&lock).unwrap();
    served.settle();
    served.agree();
    assert!(!lock.exists() && served.account("INBOX").len() == 2);
}

/// Dovecot would number a file that it sees before its line.
#[test]
fn no_file_appears_before_its_line() {
    let served = Served::first(&["one"]);
    served.home.append("INBOX", &body("late"));
    let in_the_way = served.mail.path().join("dovecot-uidlist.tmp");
    fs::create_dir(&in_the_way).unwrap();
    assert!(matches!(served.try_run(&mut || {}), Err(BridgeError::Write { .. })));
    assert_eq!(served.files("INBOX").len(), 1);
    assert!(!served.mail.path().join("dovecot-uidlist.lock").exists());
    fs::remove_dir(&in_the_way).unwrap();
    served.settle();
    served.agree();
}

#[test]
fn who_gives_out_no_uids_cannot_be_served() {
    let refused = |home: &Home| {
        let mail = TempDir::new().unwrap();
        make_folder(mail.path());
        let maildirs = Maildirs::open(&home.replica).unwrap();
        let error = maildirs.attach(mail.path(), UidLists::Dovecot, false, &mut |_| {}).unwrap_err();
        assert!(!mail.path().join(".postmerge").exists());
        error.to_string()
    };
    let server = Home::found_with(Role::Server, Block::DOVECOT);
    let observer = server.invite(Role::Observer, 2);
    assert!(refused(&observer).contains("as a server"), "{}", refused(&observer));
    assert!(refused(&Home::found(Role::Server)).contains("--dovecot"));
    let served = Served::new(server, &[]);
    let other = TempDir::new().unwrap();
    make_folder(other.path());
    let error = served.maildirs.attach(other.path(), UidLists::Dovecot, false, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("another one"), "{error}");
}
