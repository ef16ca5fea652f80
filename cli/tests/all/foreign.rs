//! Mail that programs of others wrote and read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crate::dovecot::{Dovecot, Imap, Message, Told};
use crate::support::World;

/// Mailboxes in modified UTF-7, as they go over the wire, and in words.
const MAILBOXES: [(&str, &str); 5] = [
    ("INBOX", "INBOX"),
    ("Entw&APw-rfe", "Entwürfe"),
    ("Entw&APw-rfe/&ZeVnLIqe-", "Entwürfe/日本語"),
    ("R&-D", "R&D"),
    ("Empty", "Empty"),
];

/// Internal dates: as they are sent, as Dovecot tells them in UTC, and in seconds.
const DATES: [(&str, &str, i64); 3] = [
    ("17-Jul-2020 02:44:25 +0200", "17-Jul-2020 00:44:25 +0000", 1_594_946_665),
    ("01-Jan-1999 00:00:00 +0000", "01-Jan-1999 00:00:00 +0000", 915_148_800),
    ("29-Feb-2024 23:59:59 -0330", "01-Mar-2024 03:29:59 +0000", 1_709_263_799),
];

const FLAGS: [&str; 7] = [
    "",
    "\\Seen",
    "\\Answered \\Flagged work",
    "\\Draft \\Seen $Forwarded",
    "\\Deleted",
    "NonJunk work $MDNSent",
    "\\Flagged",
];

/// Mail with gaps between UIDs, also below UIDNEXT, flags that changed later, and messages that were moved and copied.
fn fill(imap: &mut Imap) {
    for (name, _) in &MAILBOXES[1..] {
        imap.command(&format!("CREATE \"{name}\""));
    }
    imap.command("SUBSCRIBE \"Entw&APw-rfe\"");
    imap.command("SUBSCRIBE \"R&-D\"");
    for (number, (name, _)) in (0..24).zip(MAILBOXES[..4].iter().cycle()) {
        let body = format!("From: a@example.org\r\nSubject: {number}\r\n\r\nbody {number}\r\nFrom here\r\n");
        imap.append(name, FLAGS[number % FLAGS.len()], DATES[number % DATES.len()].0, &body);
    }
    imap.command("SELECT INBOX");
    imap.command("UID STORE 1,4 +FLAGS (\\Seen later)");
    imap.command("UID STORE 3 -FLAGS (work)");
    imap.command("UID COPY 1:3 Entw&APw-rfe");
    imap.command("UID MOVE 5 \"R&-D\"");
    imap.command("UID STORE 2,6 +FLAGS (\\Deleted)");
    imap.command("UID EXPUNGE 2,6");
}

fn look(imap: &mut Imap) -> BTreeMap<&'static str, Told> {
    MAILBOXES.map(|(wire, name)| (name, imap.look(wire))).into()
}

/// What the program shows of a mailbox, in the words of IMAP.
fn shown(world: &World, store: &str, name: &str) -> Told {
    let mailboxes = world.json(store, &["mailboxes", "--json"]);
    let mailbox = mailboxes.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
    let number = |field: &str| mailbox[field].as_u64().unwrap() as u32;
    let rows = world.json(store, &["messages", name, "--json"]);
    let message = |row: &serde_json::Value| {
        let date = row["internal_date"].as_i64().unwrap();
        let date = DATES.iter().find(|dates| dates.2 == date).unwrap_or_else(|| panic!("{date} is new")).1;
        let flags = row["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap().to_owned());
        let body = world.ok(store, &["body", row["entry"].as_str().unwrap()]);
        // Dovecot keeps lines without CR and sends them with it.
        let message =
            Message { flags: flags.collect(), date: date.to_owned(), body: body.replace('\n', "\r\n") };
        (row["uid"].as_u64().unwrap() as u32, message)
    };
    let messages = rows.as_array().unwrap().iter().map(message).collect();
    Told { validity: number("uidvalidity"), next: number("uidnext"), messages }
}

#[test]
#[ignore = "needs dovecot"]
fn what_dovecot_told_its_clients_stays_true_here_and_in_an_export() {
    let (world, dovecot) = (World::new(), Dovecot::new());
    let mut imap = dovecot.connect();
    fill(&mut imap);
    let told = look(&mut imap);
    assert_eq!(told["INBOX"].messages.keys().copied().collect::<Vec<_>>(), [1, 3, 4]);
    assert_eq!(told["INBOX"].next, 7, "the last UIDs are expunged, so the list is all that knows of them");
    assert_eq!((told["Entwürfe"].messages.len(), told["R&D"].messages.len()), (9, 7));
    let subscribed = imap.names("LSUB");
    drop(imap);

    let mail = dovecot.mail();
    let mail = mail.to_str().unwrap();
    world.ok("a", &["init"]);
    let report = world.json("a", &["import", mail, "--json"]);
    assert!(report["mailboxes"].as_array().unwrap().iter().all(|row| row["uids"] == "adopted"), "{report}");
    for (name, told) in &told {
        assert_eq!(shown(&world, "a", name), *told, "{name}");
    }
    let mailboxes = world.json("a", &["mailboxes", "--json"]);
    let words = |wire: &String| MAILBOXES.iter().find(|names| names.0 == wire).unwrap().1;
    let rows = mailboxes.as_array().unwrap().iter().filter(|row| row["subscribed"] == true);
    let ours: BTreeSet<&str> = rows.map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(ours, subscribed.iter().map(words).collect());
    let again = world.json("a", &["import", mail, "--json"]);
    assert!(again["mailboxes"].as_array().unwrap().iter().all(|row| row["imported"] == 0), "{again}");

    world.ok("a", &["export", "out"]);
    let second = Dovecot::on(&world.path("out"));
    let mut imap = second.connect();
    assert_eq!(look(&mut imap), told);
    assert_eq!(imap.names("LSUB"), subscribed);
    assert_eq!(imap.names("LIST"), MAILBOXES.iter().map(|names| names.0.to_owned()).collect());
    imap.append("INBOX", "later", DATES[0].0, "Subject: next\r\n\r\n");
    assert_eq!(imap.look("INBOX").messages.last_key_value().unwrap().0, &7, "no UID is given twice");
}

/// Fetches everything from the Dovecot into `near`.
fn mbsync(world: &World, dovecot: &Dovecot, layout: &str, near: &Path) {
    std::fs::create_dir_all(near).unwrap();
    let place = match layout {
        "Maildir++" => format!("Inbox {}/", near.display()),
        _ => format!("Path {0}/\nInbox {0}/INBOX", near.display()),
    };
    let config = world.path("mbsyncrc");
    let run = dovecot.listen(|port| {
        let text = format!(
            "IMAPStore far\nHost 127.0.0.1\nPort {port}\nUser tester\nPass none\nSSLType None\n\n\
             MaildirStore near\nSubFolders {layout}\n{place}\n\n\
             Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Near\nSync Pull\n\
             CopyArrivalDate yes\nSyncState *\n",
        );
        std::fs::write(&config, text).unwrap();
        Command::new("mbsync").arg("-c").arg(&config).arg("all").env("HOME", world.path("")).output()
    });
    let run = run.unwrap();
    assert!(run.status.success(), "{run:?}");
}

#[test]
#[ignore = "needs mbsync"]
fn a_maildir_of_mbsync_comes_in_once_whatever_it_renames() {
    for layout in ["Verbatim", "Maildir++"] {
        let (world, dovecot) = (World::new(), Dovecot::new());
        let mut imap = dovecot.connect();
        fill(&mut imap);
        let near = world.path("near");
        mbsync(&world, &dovecot, layout, &near);
        world.ok("a", &["init"]);
        let imported = || {
            let report = world.json("a", &["import", "near", "--json"]);
            assert_eq!(report["skipped"], serde_json::json!([]));
            report["mailboxes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["imported"].as_u64().unwrap())
                .sum::<u64>()
        };
        let told = look(&mut imap);
        let all = told.values().map(|told| told.messages.len() as u64).sum::<u64>();
        assert_eq!(imported(), all, "{layout}");
        let names: Vec<_> = told.keys().copied().collect();
        for name in names {
            // UIDs are new, and this mbsync leaves keywords behind.
            let plain = |told: &Told| {
                let messages = told.messages.values().cloned().map(|mut message| {
                    message.flags.retain(|flag| flag.starts_with('\\'));
                    (message.flags, message.date, without_stamp(&message.body))
                });
                messages.collect::<BTreeSet<_>>()
            };
            assert_eq!(plain(&shown(&world, "a", name)), plain(&told[name]), "{layout}: {name}");
        }
        assert_eq!(imported(), 0, "{layout}: nothing is new");
        imap.command("SELECT INBOX");
        imap.command("UID STORE 3 +FLAGS (\\Seen)");
        imap.append("INBOX", "", DATES[0].0, "Subject: new\r\n\r\n");
        mbsync(&world, &dovecot, layout, &near);
        assert_eq!(imported(), 1, "{layout}: a file that was renamed is the same message");
        assert!(world.ok("a", &["check"]).starts_with("all is well"));
    }
}

/// The body without the header that mbsync adds to find its own messages again.
fn without_stamp(body: &str) -> String {
    body.split_inclusive("\r\n").filter(|line| !line.starts_with("X-TUID: ")).collect()
}
