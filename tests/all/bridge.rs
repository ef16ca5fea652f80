//! A Maildir and a replica in step: what is done on either side, or on both, and what comes of it. Each case is run once, run
//! again, which must do nothing, run in halves that are cut off after each step, and with a merge in between.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use postmerge::mailbox::{Keyword, Uid};
use postmerge::maildir::{BridgeError, FileName, How, Maildirs, RemovalLimit, Report, UidLists};
use postmerge::member::Role;
use postmerge::replica::Replica;
use postmerge::uid::KeywordChange;
use tempfile::TempDir;

use crate::pair::{Home, name};

/// What a side has: `mailbox subject` to flags, sorted; the same twice is there twice.
type Mail = Vec<String>;

const FLAGS: [(char, &str); 5] =
    [('S', "\\Seen"), ('F', "\\Flagged"), ('T', "\\Deleted"), ('R', "\\Answered"), ('D', "\\Draft")];

struct World {
    home: Home,
    mail: TempDir,
    maildirs: Maildirs,
}

fn body(subject: &str) -> String {
    format!("Subject: {subject}\n\nBody of {subject}, with a\rbare CR and no last line end")
}

fn letters<'a>(keywords: impl IntoIterator<Item = &'a Keyword>) -> String {
    let keywords: BTreeSet<&str> = keywords.into_iter().map(Keyword::as_str).collect();
    FLAGS.iter().filter(|(_, keyword)| keywords.contains(keyword)).map(|(letter, _)| *letter).collect()
}

fn keywords(letters: &str) -> BTreeSet<Keyword> {
    let of = |letter| FLAGS.iter().find(|(known, _)| *known == letter).unwrap().1.parse().unwrap();
    letters.chars().map(of).collect()
}

impl World {
    /// A Maildir with INBOX, A and B, attached and in step. `start` says what is in it: `INBOX one S`.
    fn new(start: &[&str]) -> World {
        let (home, mail) = (Home::found(Role::Server), TempDir::new().unwrap());
        for mailbox in ["INBOX", "A", "B"] {
            make_folder(&dir(mail.path(), mailbox));
        }
        for (number, line) in start.iter().enumerate() {
            let mut words = line.split(' ');
            let (mailbox, subject, flags) =
                (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or(""));
            let file = format!("cur/{number}.x.host:2,{flags}");
            fs::write(dir(mail.path(), mailbox).join(file), body(subject)).unwrap();
        }
        let maildirs = Maildirs::open(&home.replica).unwrap();
        let world = World { home, mail, maildirs };
        world.maildirs.attach(world.mail.path(), UidLists::None, false, &mut |_| {}).unwrap();
        world.run();
        assert_eq!(world.on_disk(), world.in_replica());
        world
    }

    #[expect(clippy::disallowed_methods, reason = "the test is the edge where the clock comes in")]
    fn try_run(&self, how: How, progress: &mut dyn FnMut()) -> Result<Report, BridgeError> {
        let id = self.maildirs.find(self.mail.path())?.id;
        self.maildirs.run(id, how, &SystemTime::now, &mut |_| progress())
    }

    fn run(&self) -> Report {
        let report = self.try_run(How::default(), &mut || {}).unwrap();
        assert!(report.busy.is_empty(), "{report:?}");
        report
    }

    fn on_disk(&self) -> Mail {
        let mut mail = Vec::new();
        for mailbox in self.folders() {
            for sub in ["new", "cur"] {
                for entry in fs::read_dir(dir(self.mail.path(), &mailbox).join(sub)).unwrap() {
                    let path = entry.unwrap().path();
                    let found = FileName::parse(path.file_name().unwrap()).unwrap();
                    let text = fs::read_to_string(&path).unwrap();
                    let subject = text.lines().next().unwrap().strip_prefix("Subject: ").unwrap().to_owned();
                    assert_eq!(text, body(&subject), "bytes stay as they are");
                    let said = letters(&found.letters.keywords(&Default::default()));
                    mail.push(format!("{mailbox} {subject} {said}").trim_end().to_owned());
                }
            }
            assert_eq!(fs::read_dir(dir(self.mail.path(), &mailbox).join("tmp")).unwrap().count(), 0);
        }
        mail.sort();
        mail
    }

    fn folders(&self) -> Vec<String> {
        let mut folders = vec!["INBOX".to_owned()];
        for entry in fs::read_dir(self.mail.path()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.path().join("cur").is_dir() && name.starts_with('.') {
                folders.push(name[1..].replace('.', "/"));
            }
        }
        folders
    }

    fn in_replica(&self) -> Mail {
        mail_of(&self.home.replica)
    }

    /// Whether both sides have the same folders.
    fn same_folders(&self) -> bool {
        let mailboxes: BTreeSet<String> =
            self.home.replica.mailboxes().unwrap().iter().map(|mailbox| mailbox.name.to_string()).collect();
        mailboxes == self.folders().into_iter().collect()
    }

    fn file(&self, mailbox: &str, subject: &str) -> PathBuf {
        let wanted = body(subject);
        for sub in ["new", "cur"] {
            for entry in fs::read_dir(dir(self.mail.path(), mailbox).join(sub)).unwrap() {
                let path = entry.unwrap().path();
                if fs::read_to_string(&path).unwrap() == wanted {
                    return path;
                }
            }
        }
        panic!("no {subject} in {mailbox}");
    }

    /// Does as another program does to the files.
    fn act_on_disk(&self, act: &str) {
        let words: Vec<&str> = act.split(' ').collect();
        let to_flags = |path: &Path, flags: &str| {
            let found = FileName::parse(path.file_name().unwrap()).unwrap();
            format!("{}:2,{flags}", found.base)
        };
        match words[..] {
            ["add", mailbox, subject] => {
                fs::write(
                    dir(self.mail.path(), mailbox).join(format!("new/9.{subject}.host")),
                    body(subject),
                )
                .unwrap();
            }
            ["flag", mailbox, subject, flags] => {
                let from = self.file(mailbox, subject);
                let to = dir(self.mail.path(), mailbox).join("cur").join(to_flags(&from, flags));
                fs::rename(from, to).unwrap();
            }
            ["unflag", mailbox, subject] => {
                let from = self.file(mailbox, subject);
                fs::rename(&from, from.with_file_name(to_flags(&from, ""))).unwrap();
            }
            ["move", mailbox, subject, to] => {
                let from = self.file(mailbox, subject);
                let to = dir(self.mail.path(), to).join("cur").join(from.file_name().unwrap());
                fs::rename(from, to).unwrap();
            }
            // As mbsync and mutt do it: under another name.
            ["refile", mailbox, subject, to, flags] => {
                let from = self.file(mailbox, subject);
                let to = dir(self.mail.path(), to).join(format!("cur/77.{subject}.other,U=5:2,{flags}"));
                fs::rename(from, to).unwrap();
            }
            ["copy", mailbox, subject, to] => {
                let to = dir(self.mail.path(), to).join(format!("cur/8.{subject}.copy:2,"));
                fs::copy(self.file(mailbox, subject), to).unwrap();
            }
            ["remove", mailbox, subject] => fs::remove_file(self.file(mailbox, subject)).unwrap(),
            ["mkdir", mailbox] => make_folder(&dir(self.mail.path(), mailbox)),
            ["rename", from, to] => {
                fs::rename(dir(self.mail.path(), from), dir(self.mail.path(), to)).unwrap();
            }
            ["rmdir", mailbox] => fs::remove_dir_all(dir(self.mail.path(), mailbox)).unwrap(),
            _ => panic!("{act}"),
        }
    }

    /// Does as a mail client does at the replica.
    fn act_in_replica(&self, what: &str) {
        act(&self.home.replica, what);
    }
}

fn mail_of(replica: &Replica) -> Mail {
    let mut mail = Vec::new();
    for mailbox in replica.mailboxes().unwrap() {
        for message in replica.messages(&mailbox.name, Uid::FIRST, usize::MAX).unwrap() {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut replica.body(message.entry).unwrap(), &mut text).unwrap();
            let subject = text.lines().next().unwrap().strip_prefix("Subject: ").unwrap().to_owned();
            let said = letters(&message.keywords);
            mail.push(format!("{} {subject} {said}", mailbox.name).trim_end().to_owned());
        }
    }
    mail.sort();
    mail
}

fn dir(root: &Path, mailbox: &str) -> PathBuf {
    match mailbox {
        "INBOX" => root.to_owned(),
        other => root.join(format!(".{}", other.replace('/', "."))),
    }
}

fn make_folder(dir: &Path) {
    for sub in ["tmp", "new", "cur"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
}

fn find(replica: &Replica, mailbox: &str, subject: &str) -> Uid {
    let all = replica.messages(&name(mailbox), Uid::FIRST, 1000).unwrap();
    let found = all.into_iter().find(|message| {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut replica.body(message.entry).unwrap(), &mut text).unwrap();
        text == body(subject)
    });
    found.unwrap_or_else(|| panic!("no {subject} in {mailbox}")).uid
}

fn act(replica: &Replica, act: &str) {
    let words: Vec<&str> = act.split(' ').collect();
    let seen = |mailbox: &str| replica.mailbox(&name(mailbox)).unwrap().seen();
    match words[..] {
        ["add", mailbox, subject] => {
            replica.append(&name(mailbox), body(subject).as_bytes(), BTreeSet::new(), Some(9)).unwrap();
        }
        ["flag", mailbox, subject, flags] => {
            let change = KeywordChange::Exactly(keywords(flags));
            let uid = find(replica, mailbox, subject);
            replica.store_keywords(seen(mailbox), &[uid], &change, None).unwrap();
        }
        ["move", mailbox, subject, to] => {
            replica.move_to(seen(mailbox), &[find(replica, mailbox, subject)], &name(to)).unwrap();
        }
        ["copy", mailbox, subject, to] => {
            replica.copy(seen(mailbox), &[find(replica, mailbox, subject)], &name(to)).unwrap();
        }
        ["remove", mailbox, subject] => {
            replica.expunge(seen(mailbox), &[find(replica, mailbox, subject)]).unwrap();
        }
        ["mkdir", mailbox] => drop(replica.create_mailbox(&name(mailbox), None).unwrap()),
        ["rename", from, to] => replica.rename_mailbox(&name(from), &name(to)).unwrap(),
        ["rmdir", mailbox] => replica.delete_mailbox(&name(mailbox)).unwrap(),
        _ => panic!("{act}"),
    }
}

/// What the Maildir's user does, what is done at the replica, and what both have then. All start with one in INBOX, two in A,
/// marked seen, and the same bytes twice in B.
const START: [&str; 4] = ["INBOX one", "A two S", "B twin", "B twin F"];
const CASES: [(&str, &str, &str); 34] = [
    ("", "", "INBOX one, A two S, B twin, B twin F"),
    ("add INBOX new", "", "INBOX one, INBOX new, A two S, B twin, B twin F"),
    ("", "add INBOX new", "INBOX one, INBOX new, A two S, B twin, B twin F"),
    ("add INBOX new", "add INBOX other", "INBOX one, INBOX new, INBOX other, A two S, B twin, B twin F"),
    ("flag INBOX one S", "", "INBOX one S, A two S, B twin, B twin F"),
    ("", "flag INBOX one S", "INBOX one S, A two S, B twin, B twin F"),
    ("flag INBOX one S", "flag INBOX one F", "INBOX one SF, A two S, B twin, B twin F"),
    ("unflag A two", "flag A two SR", "INBOX one, A two R, B twin, B twin F"),
    ("flag A two SF", "flag A two R", "INBOX one, A two FR, B twin, B twin F"),
    ("move INBOX one A", "", "A one, A two S, B twin, B twin F"),
    ("", "move INBOX one A", "A one, A two S, B twin, B twin F"),
    ("refile INBOX one A SF", "", "A one SF, A two S, B twin, B twin F"),
    ("refile INBOX one INBOX S", "", "INBOX one S, A two S, B twin, B twin F"),
    ("move INBOX one A", "flag INBOX one F", "A one F, A two S, B twin, B twin F"),
    ("flag INBOX one F", "move INBOX one A", "A one F, A two S, B twin, B twin F"),
    ("move INBOX one A", "move INBOX one A", "A one, A two S, B twin, B twin F"),
    ("move INBOX one B", "move INBOX one A", "A one, A two S, B twin, B twin F"),
    ("remove INBOX one", "", "A two S, B twin, B twin F"),
    ("", "remove INBOX one", "A two S, B twin, B twin F"),
    ("remove INBOX one", "remove INBOX one", "A two S, B twin, B twin F"),
    ("remove INBOX one", "flag INBOX one F", "A two S, B twin, B twin F"),
    ("flag INBOX one F", "remove INBOX one", "A two S, B twin, B twin F"),
    ("remove INBOX one", "move INBOX one A", "A one, A two S, B twin, B twin F"),
    ("move INBOX one A", "remove INBOX one", "A one, A two S, B twin, B twin F"),
    ("copy INBOX one A", "", "INBOX one, A one, A two S, B twin, B twin F"),
    ("", "copy INBOX one A", "INBOX one, A one, A two S, B twin, B twin F"),
    ("mkdir C; move A two C", "", "INBOX one, C two S, B twin, B twin F"),
    ("", "mkdir C; move A two C", "INBOX one, C two S, B twin, B twin F"),
    ("rename A C", "", "INBOX one, C two S, B twin, B twin F"),
    ("", "rename A C", "INBOX one, C two S, B twin, B twin F"),
    ("rename A C", "flag A two F", "INBOX one, C two F, B twin, B twin F"),
    ("rmdir A", "", "INBOX one, B twin, B twin F"),
    ("", "rmdir A", "INBOX one, B twin, B twin F"),
    ("rmdir A", "add A late", "INBOX one, A late, B twin, B twin F"),
];

fn expected(text: &str) -> Mail {
    let mut mail: Mail = text.split(", ").map(str::to_owned).collect();
    mail.sort();
    mail
}

fn acts(text: &str) -> Vec<&str> {
    text.split("; ").filter(|act| !act.is_empty()).collect()
}

#[test]
fn every_case_comes_out_as_it_should_and_a_second_run_does_nothing() {
    for (disk, replica, outcome) in CASES {
        let case = format!("disk: {disk:?}, replica: {replica:?}");
        let world = World::new(&START);
        acts(disk).into_iter().for_each(|act| world.act_on_disk(act));
        acts(replica).into_iter().for_each(|act| world.act_in_replica(act));
        let plan = world.try_run(How { dry_run: true, ..How::default() }, &mut || {}).unwrap();
        let idle = disk == replica;
        assert_eq!(plan.is_nothing(), idle, "{case}: the plan says so: {plan:?}");
        world.run();
        assert_eq!(world.in_replica(), expected(outcome), "{case}, in the replica");
        assert_eq!(world.on_disk(), expected(outcome), "{case}, on disk");
        let changes = world.home.replica.status().unwrap().changes;
        let again = world.run();
        assert!(again.is_nothing(), "{case}, once more: {again:?}");
        assert_eq!(world.home.replica.status().unwrap().changes, changes, "{case}: nothing more is written");
        assert!(world.same_folders(), "{case}");
    }
}

#[test]
fn the_order_of_sides_does_not_matter() {
    for (disk, replica, outcome) in CASES {
        // One side at a time, with a run in between, where no conflict makes the order count.
        let case = format!("disk: {disk:?}, replica: {replica:?}");
        if !disk.is_empty() && !replica.is_empty() && !disk.starts_with("add") {
            continue;
        }
        let world = World::new(&START);
        acts(replica).into_iter().for_each(|act| world.act_in_replica(act));
        world.run();
        acts(disk).into_iter().for_each(|act| world.act_on_disk(act));
        world.run();
        assert_eq!((world.in_replica(), world.on_disk()), (expected(outcome), expected(outcome)), "{case}");
    }
}

#[test]
fn a_run_that_is_cut_off_anywhere_is_finished_by_the_next() {
    let mut cuts = 0;
    for (disk, replica, outcome) in CASES {
        for cut in 1.. {
            let case = format!("disk: {disk:?}, replica: {replica:?}, cut off after {cut}");
            let world = World::new(&START);
            acts(disk).into_iter().for_each(|act| world.act_on_disk(act));
            acts(replica).into_iter().for_each(|act| world.act_in_replica(act));
            let mut steps = 0;
            let mut count = || {
                steps += 1;
                assert!(steps < cut, "cut off");
            };
            let whole =
                catch_unwind(AssertUnwindSafe(|| world.try_run(How::default(), &mut count).unwrap())).is_ok();
            cuts += usize::from(!whole);
            world.run();
            assert_eq!(world.in_replica(), expected(outcome), "{case}, in the replica");
            assert_eq!(world.on_disk(), expected(outcome), "{case}, on disk");
            if whole {
                break;
            }
        }
    }
    assert!(cuts >= CASES.len() - 4, "only {cuts} runs were cut off");
}

#[test]
fn what_a_run_left_in_doubt_may_be_moved_or_removed_before_the_next() {
    for (disk, replica, then, outcome) in [
        ("add INBOX new", "", "move INBOX new A", "A new, A two S, B twin, B twin F, INBOX one"),
        ("add INBOX new", "", "remove INBOX new", "A two S, B twin, B twin F, INBOX one"),
        ("add INBOX new", "", "flag INBOX new S", "A two S, B twin, B twin F, INBOX new S, INBOX one"),
        ("", "add INBOX new", "move INBOX new A", "A new, A two S, B twin, B twin F, INBOX one"),
        ("", "add INBOX new", "flag INBOX new S", "A two S, B twin, B twin F, INBOX new S, INBOX one"),
    ] {
        let world = World::new(&START);
        acts(disk).into_iter().for_each(|act| world.act_on_disk(act));
        acts(replica).into_iter().for_each(|act| world.act_in_replica(act));
        let cut = catch_unwind(AssertUnwindSafe(|| world.try_run(How::default(), &mut || panic!("cut off"))));
        assert!(cut.is_err());
        world.act_on_disk(then);
        world.run();
        let case = format!("disk: {disk:?}, replica: {replica:?}, then {then:?}");
        assert_eq!((world.in_replica(), world.on_disk()), (expected(outcome), expected(outcome)), "{case}");
    }
}

#[test]
fn an_account_that_empties_is_stopped_and_asked_for() {
    let start: Vec<String> = (0..200).map(|n| format!("INBOX m{n}")).collect();
    let world = World::new(&start.iter().map(String::as_str).collect::<Vec<_>>());
    (0..120).for_each(|n| world.act_on_disk(&format!("remove INBOX m{n}")));
    world.act_in_replica("flag INBOX m150 S");
    let report = world.run();
    let stopped = report.brake.into_replica.unwrap();
    assert_eq!((stopped.removals, stopped.messages), (120, 200));
    assert_eq!(world.maildirs.find(world.mail.path()).unwrap().brake, report.brake);
    assert_eq!(world.in_replica().len(), 200, "nothing is expunged");
    assert!(world.on_disk().contains(&"INBOX m150 S".to_owned()), "the other direction goes on");
    assert_eq!(world.run().brake, report.brake, "until somebody says so");
    let allowed = world.try_run(How { allow_removals: true, ..How::default() }, &mut || {}).unwrap();
    assert_eq!((allowed.into_replica.removed, allowed.brake.is_off()), (120, true));
    assert_eq!((world.in_replica().len(), world.on_disk().len()), (80, 80));
    assert!(world.maildirs.find(world.mail.path()).unwrap().brake.is_off());
}

#[test]
fn the_brake_and_the_plan_judge_a_run_that_takes_several_rounds_as_a_whole() {
    let start: Vec<String> = (0..5000).map(|n| format!("INBOX m{n}")).collect();
    let world = World::new(&start.iter().map(String::as_str).collect::<Vec<_>>());
    let inbox = world.home.replica.mailbox(&name("INBOX")).unwrap();
    let messages = world.home.replica.messages(&inbox.name, Uid::FIRST, 4500).unwrap();
    let uids: Vec<Uid> = messages.iter().map(|message| message.uid).collect();
    world.home.replica.expunge(inbox.seen(), &uids).unwrap();
    // The first 4,000 of them are 88.9 % of what is there without the others.
    let how = How { limit: RemovalLimit { count: 100, percent: 89 }, ..How::default() };
    let allowed = How { allow_removals: true, dry_run: true, ..how };
    assert_eq!(world.try_run(allowed, &mut || {}).unwrap().into_maildir.removed, 4500);
    let report = world.try_run(how, &mut || {}).unwrap();
    assert_eq!(report.brake.into_maildir.map(|stopped| stopped.removals), Some(4500));
    assert_eq!(world.on_disk().len(), 5000, "not even a part is removed");
    world.try_run(How { allow_removals: true, ..how }, &mut || {}).unwrap();
    assert_eq!((world.on_disk().len(), world.in_replica().len()), (500, 500));
}

#[test]
fn the_replica_s_removals_have_a_brake_too() {
    let world = World::new(&START);
    let limit = RemovalLimit { count: 1, percent: 10 };
    world.act_in_replica("rmdir B");
    let how = How { limit, ..How::default() };
    let report = world.try_run(how, &mut || {}).unwrap();
    assert_eq!(report.brake.into_maildir.map(|stopped| stopped.removals), Some(2));
    assert_eq!(world.on_disk().len(), 4);
    world.try_run(How { allow_removals: true, ..how }, &mut || {}).unwrap();
    assert_eq!(world.on_disk(), expected("INBOX one, A two S"));
}

#[test]
fn a_maildir_that_is_missing_or_another_one_is_an_error() {
    let world = World::new(&START);
    let marker = world.mail.path().join(".postmerge");
    let kept = fs::read(&marker).unwrap();
    fs::remove_file(&marker).unwrap();
    let error = world.try_run(How::default(), &mut || {}).unwrap_err();
    assert!(matches!(error, BridgeError::Marker { found: "missing", .. }), "{error}");
    fs::write(&marker, "another").unwrap();
    assert!(matches!(world.try_run(How::default(), &mut || {}), Err(BridgeError::Marker { .. })));
    fs::write(&marker, kept).unwrap();
    let aside = world.mail.path().with_extension("aside");
    fs::rename(world.mail.path(), &aside).unwrap();
    assert!(world.try_run(How::default(), &mut || {}).is_err());
    fs::create_dir(world.mail.path()).unwrap();
    assert!(matches!(world.try_run(How::default(), &mut || {}), Err(BridgeError::Marker { .. })));
    assert_eq!(world.in_replica().len(), 4);
    fs::remove_dir(world.mail.path()).unwrap();
    fs::rename(&aside, world.mail.path()).unwrap();
    assert!(world.run().is_nothing());
}

#[test]
fn what_cannot_be_a_message_is_reported_and_stays() {
    let world = World::new(&START);
    let cur = world.mail.path().join("cur");
    std::os::unix::fs::symlink(world.file("INBOX", "one"), cur.join("5.link:2,")).unwrap();
    fs::create_dir(cur.join("dir")).unwrap();
    fs::write(world.mail.path().join("tmp/half"), "half a deliv").unwrap();
    let report = world.run();
    assert!(report.is_nothing());
    assert_eq!(report.skipped.len(), 2, "{:?}", report.skipped);
    assert!(cur.join("5.link:2,").symlink_metadata().is_ok() && cur.join("dir").is_dir());
    fs::remove_file(world.mail.path().join("tmp/half")).unwrap();
    let mail = world.in_replica();
    assert_eq!(mail, expected("INBOX one, A two S, B twin, B twin F"));
}

#[test]
fn letters_that_mean_nothing_to_us_stay() {
    let world = World::new(&START);
    let from = world.file("INBOX", "one");
    fs::rename(&from, from.with_file_name("0.x.host:2,Xq")).unwrap();
    assert!(world.run().is_nothing());
    world.act_in_replica("flag INBOX one F");
    world.run();
    assert_eq!(world.file("INBOX", "one").file_name().unwrap(), "0.x.host:2,FXq");
}

#[test]
fn a_maildir_that_is_attached_again_is_not_taken_twice() {
    let world = World::new(&START);
    world.act_in_replica("move INBOX one A");
    let attachment = world.maildirs.find(world.mail.path()).unwrap();
    let again = world.maildirs.attach(world.mail.path(), UidLists::None, false, &mut |_| {});
    assert!(matches!(again, Err(BridgeError::Attached { here: true, .. })));
    world.maildirs.detach(&attachment).unwrap();
    assert!(world.maildirs.list().unwrap().is_empty() && !world.mail.path().join(".postmerge").exists());
    let (_, met) = world.maildirs.attach(world.mail.path(), UidLists::None, false, &mut |_| {}).unwrap();
    assert_eq!((met.imported, met.known), (0, 4));
    world.run();
    let outcome = expected("A one, A two S, B twin, B twin F");
    assert_eq!((world.in_replica(), world.on_disk()), (outcome.clone(), outcome));
}

#[test]
fn two_maildirs_of_two_replicas_become_the_same() {
    let world = World::new(&START);
    for role in [Role::Server, Role::Observer] {
        let guest = world.home.invite_named(role, if role == Role::Server { 2 } else { 3 }, "far");
        let mail = TempDir::new().unwrap();
        make_folder(mail.path());
        let far = World { maildirs: Maildirs::open(&guest.replica).unwrap(), home: guest, mail };
        far.maildirs.attach(far.mail.path(), UidLists::None, false, &mut |_| {}).unwrap();
        far.run();
        assert_eq!(far.on_disk(), world.on_disk());
        far.act_on_disk("flag A two SF");
        world.act_on_disk("move A two B");
        far.act_on_disk("add INBOX far");
        let (a, b) = (world.run(), far.run());
        assert!(!a.is_nothing() && !b.is_nothing());
        far.home.sync(&world.home);
        world.run();
        far.run();
        let outcome = expected("INBOX one, INBOX far, B two SF, B twin, B twin F");
        assert_eq!((world.on_disk(), far.on_disk()), (outcome.clone(), outcome));
        far.act_on_disk("remove INBOX far");
        world.act_on_disk("move B two A");
        far.run();
        world.run();
        far.home.sync(&world.home);
        world.run();
        world.act_on_disk("flag A two S");
        world.run();
    }
}
