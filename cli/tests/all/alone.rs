//! One replica and nobody else.

use crate::support::{World, files};
use crate::tree::{read_tree, write_tree};

#[test]
fn a_maildir_comes_out_as_it_went_in_with_its_uids() {
    let world = World::new();
    let source = world.path("mail");
    write_tree(&source);
    let before = files(&source);
    world.ok("a", &["init"]);
    let plan = world.json("a", &["import", "mail", "--dry-run", "--json"]);
    assert_eq!(plan["mailboxes"].as_array().unwrap().len(), 4);
    assert!(plan["mailboxes"].as_array().unwrap().iter().all(|row| row["uids"] == "adopted"), "{plan}");
    assert_eq!(world.json("a", &["mailboxes", "--json"])[0]["messages"], 0, "a dry run changes nothing");
    let done = world.json("a", &["import", "mail", "--json"]);
    assert_eq!(
        done["mailboxes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["imported"].as_u64().unwrap())
            .sum::<u64>(),
        39
    );
    assert_eq!(files(&source), before, "an import changes nothing there");
    world.ok("a", &["export", "out"]);
    assert_eq!(read_tree(&source), read_tree(&world.path("out")));
    let again = world.json("a", &["import", "mail", "--json"]);
    assert!(again["mailboxes"].as_array().unwrap().iter().all(|row| row["imported"] == 0), "{again}");
    world.run("a", &["export", "out"]).fails(1, "is not empty");
    assert!(world.ok("a", &["check"]).starts_with("all is well"));
}

#[test]
fn an_expunged_message_is_not_imported_again_unless_asked() {
    let world = World::new();
    write_tree(&world.path("mail"));
    world.ok("a", &["init"]);
    world.ok("a", &["import", "mail"]);
    world.ok("a", &["expunge", "INBOX", "3", "--dry-run"]);
    world.ok("a", &["expunge", "INBOX", "3"]);
    let again = world.json("a", &["import", "mail", "--json"]);
    let inbox = |report: &serde_json::Value| {
        let rows = report["mailboxes"].as_array().unwrap();
        rows.iter().find(|row| row["mailbox"] == "INBOX").unwrap().clone()
    };
    assert_eq!((&inbox(&again)["imported"], &inbox(&again)["expunged"]), (&0.into(), &1.into()));
    let asked = world.json("a", &["import", "mail", "--again", "--json"]);
    assert_eq!(inbox(&asked)["imported"], 1);
}

#[test]
fn folders_are_subscribed_unless_a_list_leaves_them_out() {
    let world = World::new();
    write_tree(&world.path("mail"));
    let subscribed = |store| {
        let rows = world.json(store, &["mailboxes", "--json"]);
        let rows = rows.as_array().unwrap().iter().filter(|row| row["subscribed"] == true);
        rows.map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    world.ok("listed", &["init"]);
    world.ok("listed", &["import", "mail"]);
    assert_eq!(subscribed("listed"), ["Entwürfe"]);
    std::fs::remove_file(world.path("mail").join("subscriptions")).unwrap();
    world.ok("plain", &["init"]);
    world.ok("plain", &["import", "mail"]);
    assert_eq!(subscribed("plain"), ["Empty", "Entwürfe", "日本/語"]);
    world.ok("plain", &["mailbox", "unsubscribe", "Empty"]);
    world.ok("plain", &["import", "mail"]);
    assert_eq!(subscribed("plain"), ["Entwürfe", "日本/語"], "the owner has decided");
}

#[test]
fn an_mbox_is_imported_and_what_is_left_alone_is_said() {
    let world = World::new();
    let text = "From a@b Thu Jan  1 00:00:00 2026\nSubject: one\nStatus: RO\n\n>From here\n\n\
                From a@b Fri Jan  2 00:00:00 2026\nSubject: two\n\nbody\n";
    std::fs::write(world.path("Old.mbox"), text).unwrap();
    world.ok("a", &["init"]);
    world.ok("a", &["import", "Old.mbox"]);
    let shown = world.json("a", &["messages", "Old", "--json"]);
    assert_eq!(shown.as_array().unwrap().len(), 2);
    assert_eq!(shown[0]["flags"][0], "\\Seen");
    let body = world.ok("a", &["body", shown[0]["entry"].as_str().unwrap()]);
    assert!(body.ends_with("\n\nFrom here\n"), "{body:?}");
    std::fs::create_dir_all(world.path("mail/cur")).unwrap();
    std::fs::create_dir_all(world.path("mail/new")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", world.path("mail/cur/1.x:2,")).unwrap();
    world.run("a", &["import", "mail"]).fails(3, "1.x:2,");
}

#[test]
fn a_tree_goes_below_a_mailbox_if_that_is_asked() {
    let world = World::new();
    write_tree(&world.path("mail"));
    world.ok("a", &["init"]);
    world.ok("a", &["import", "mail", "--mailbox", "Old/2025"]);
    let names = |report: &serde_json::Value| -> Vec<(String, u64)> {
        let rows = report.as_array().unwrap().iter();
        rows.map(|row| (row["name"].as_str().unwrap().to_owned(), row["messages"].as_u64().unwrap()))
            .collect()
    };
    let expected = [
        ("INBOX", 0),
        ("Old/2025", 36),
        ("Old/2025/Empty", 0),
        ("Old/2025/Entwürfe", 2),
        ("Old/2025/日本/語", 1),
    ];
    let mut shown = names(&world.json("a", &["mailboxes", "--json"]));
    shown.retain(|(name, _)| name != "Old" && name != "Old/2025/日本");
    assert_eq!(shown, expected.map(|(name, messages)| (name.to_owned(), messages)));
    assert_eq!(world.json("a", &["messages", "Old/2025/Entwürfe", "--json"])[1]["uid"], 900);
    let deep = vec!["x"; 200].join("/");
    assert_ne!(world.run("a", &["import", "mail", "--mailbox", &deep]).code, 0);
    // The same mail under its own names is other mail.
    let report = world.json("a", &["import", "mail", "--json"]);
    let imported =
        report["mailboxes"].as_array().unwrap().iter().map(|row| row["imported"].as_u64().unwrap());
    assert_eq!(imported.sum::<u64>(), 39);
}

#[test]
fn messages_are_flagged_moved_copied_and_mailboxes_made() {
    let world = World::new();
    world.ok("a", &["init"]);
    for number in 1..=4 {
        let (uid, _) = world.append("a", "INBOX", &format!("Subject: {number}\n\n"));
        assert_eq!(uid, number);
    }
    world.ok("a", &["flag", "INBOX", "1,3:4", "+seen", "+work", "-flagged"]);
    world.ok("a", &["mailbox", "create", "Lists/Rust", "--special-use", "archive"]);
    let moved = world.ok("a", &["move", "INBOX", "4", "Lists/Rust"]);
    assert_eq!(moved, "moved 1 message to mailbox \"Lists/Rust\": UID 1 there, 4 here\n");
    let copied = world.json("a", &["copy", "INBOX", "1:2", "Lists/Rust", "--json"]);
    let list = world.json("a", &["messages", "Lists/Rust", "--json"]);
    for (pair, (old, new)) in copied["messages"].as_array().unwrap().iter().zip([(1, 2), (2, 3)]) {
        assert_eq!((&pair["uid"], &pair["new_uid"]), (&old.into(), &new.into()));
        assert_eq!(pair["entry"], list[new - 1]["entry"]);
    }
    world.ok("a", &["expunge", "INBOX", "2:*"]);
    let shown = world.json("a", &["messages", "INBOX", "--json"]);
    assert_eq!(shown.as_array().unwrap().len(), 1);
    assert_eq!(shown[0]["flags"], serde_json::json!(["\\Seen", "work"]));
    let lists = world.json("a", &["messages", "Lists/Rust", "--json"]);
    let uids: Vec<u64> = lists.as_array().unwrap().iter().map(|row| row["uid"].as_u64().unwrap()).collect();
    assert_eq!(uids, [1, 2, 3]);
    world.ok("a", &["mailbox", "rename", "Lists/Rust", "Rust"]);
    world.ok("a", &["mailbox", "subscribe", "Rust"]);
    let mailboxes = world.json("a", &["mailboxes", "--json"]);
    let rust = mailboxes.as_array().unwrap().iter().find(|row| row["name"] == "Rust").unwrap().clone();
    assert_eq!((&rust["subscribed"], &rust["special_use"]), (&true.into(), &"\\Archive".into()));
    let plan = world.ok("a", &["mailbox", "delete", "Rust", "--dry-run"]);
    assert!(plan.contains("3 messages"), "{plan}");
    world.ok("a", &["mailbox", "delete", "Rust"]);
    assert_eq!(world.json("a", &["mailboxes", "--json"]).as_array().unwrap().len(), 1);
    assert!(world.json("a", &["log", "--json"]).as_array().unwrap().len() >= 8);
}

#[test]
fn exit_codes_say_what_happened() {
    let world = World::new();
    world.run("none", &["mailboxes"]).fails(10, "Hint: ");
    world.run("none", &["check"]).fails(10, "Hint: ");
    world.run("none", &["serve"]).fails(10, "Hint: ");
    world.run("none", &["nonsense"]).fails(2, "nonsense");
    world.ok("a", &["init"]);
    world.run("a", &["init"]).fails(1, "already");
    let misused = world.run("a", &["flag", "INBOX", "1", "seen"]);
    misused.fails(2, "neither + nor -");
    misused.fails(2, "`postmerge flag --help`");
    let unknown = world.run("a", &["flag", "INBOX", "1", "+seen"]);
    unknown.fails(1, "no message with UID 1");
    unknown.fails(1, "`postmerge messages \"INBOX\"`");
    let empty = world.run("a", &["append", "INBOX"]);
    empty.fails(1, "standard input is empty");
    empty.fails(1, "Hint: ");
    world.run("a", &["invite", "--valid", "7"]).fails(2, "30m");
    world.run("a", &["messages", "Nowhere"]).fails(1, "there is no mailbox \"Nowhere\"");
    world.run("a", &["import", "nowhere"]).fails(1, "nowhere");
    world.run("a", &["sync"]).fails(1, "no peer");
    std::fs::create_dir_all(world.path("config/postmerge")).unwrap();
    std::fs::write(world.path("config/postmerge/config.toml"), "listne = 1\n").unwrap();
    world.run("a", &["mailboxes"]).fails(1, "listne");
}

#[test]
fn nothing_but_plain_text_is_written_to_a_file() {
    let world = World::new();
    world.ok("a", &["init"]);
    world.append("a", "INBOX", "Subject: one\n\n");
    let (segment, mut bytes) = files(&world.path("a/log")).pop_last().unwrap();
    bytes.extend(b"torn");
    std::fs::write(world.path("a/log").join(segment), bytes).unwrap();
    let done = world.run("a", &["mailboxes"]);
    assert!(done.code == 0 && done.err.contains("cut a torn group off the log"), "{done:?}");
    assert!(done.err.starts_with(" WARN ") && !done.err.contains('\u{1b}'), "{done:?}");
}

#[test]
fn an_interrupted_command_says_so() {
    let world = World::new();
    world.ok("a", &["init"]);
    let mut command = world.command("a", &["append", "INBOX"]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    // More than a pipe holds: once it is written, somebody reads.
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, &vec![b'x'; 1 << 20]).unwrap();
    crate::support::signal(child.id(), rustix::process::Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(stdin);
    assert_eq!(world.json("a", &["mailboxes", "--json"])[0]["messages"], 0);
}

#[test]
fn damage_is_found_and_repaired() {
    let world = World::new();
    world.ok("a", &["init"]);
    let (_, entry) = world.append("a", "INBOX", &"Subject: precious\n\nthe same words\n".repeat(50));
    let pack = files(&world.path("a/bodies")).into_iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let (path, mut bytes) = (world.path("a/bodies").join(pack.0), pack.1);
    let at = bytes.len() - 9;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let found = world.run("a", &["check"]);
    assert!(found.code == 1 && found.out.contains("problem: "), "{found:?}");
    let repaired = world.run("a", &["check", "--repair"]);
    assert!(repaired.code == 3 && repaired.out.contains("body "), "{repaired:?}");
    assert_eq!(world.run("a", &["check"]).code, 0);
    world.run("a", &["body", &entry]).fails(1, "has not arrived");
}

#[test]
fn each_damaged_file_is_named_with_what_to_do() {
    let world = World::new();
    world.ok("a", &["init"]);
    world.append("a", "INBOX", "Subject: precious\n\n");
    for (file, hint) in [
        ("identity", "Hint: copy the file from a backup"),
        ("endpoint", "Hint: copy the file from a backup"),
        ("members", "Hint: `postmerge check --repair`"),
        ("STORE", "Hint: `postmerge check --repair`"),
        ("log/00000001.log", "Hint: `postmerge check --repair`"),
    ] {
        let path = world.path("a").join(file);
        let whole = std::fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let found = world.run("a", &["check"]);
        assert!(found.code == 1 && found.out.contains(&path.display().to_string()), "{file}: {found:?}");
        assert!(found.out.contains(hint), "{file}: {found:?}");
        if file == "STORE" || file.starts_with("log") {
            let before = files(&world.path("a"));
            let planned = world.run("a", &["check", "--repair", "--dry-run"]);
            assert!(
                planned.out.contains(&format!("would repair: {}", path.display())),
                "{file}: {planned:?}"
            );
            assert!(files(&world.path("a")) == before, "a dry run changes nothing");
        }
        std::fs::write(&path, &whole).unwrap();
        assert!(world.ok("a", &["check"]).starts_with("all is well"));
    }
    assert_eq!(world.ok("a", &["check", "--repair", "--dry-run"]), "there is nothing to repair\n");
}

#[test]
fn a_backup_is_verified_and_stays_a_backup() {
    let world = World::new();
    world.ok("a", &["init"]);
    let (_, entry) = world.append("a", "INBOX", "Subject: kept\n\n");
    world.ok("a", &["backup", "copy"]);
    let shown = world.view("a");
    let before = files(&world.path("copy"));
    assert!(world.ok("copy", &["check"]).starts_with("all is well"));
    for verb in [&["mailboxes"][..], &["messages", "INBOX"], &["body", &entry], &["log"]] {
        let arguments = [&["--read-only"], verb].concat();
        assert_eq!(world.ok("copy", &arguments), world.ok("a", verb), "{verb:?}");
    }
    world.ok("copy", &["export", "out", "--read-only"]);
    world.ok("copy", &["backup", "again", "--read-only"]);
    world.run("copy", &["expunge", "INBOX", "1", "--read-only"]).fails(2, "leave out --read-only");
    world.run("copy", &["check", "--repair", "--read-only"]).fails(2, "leave out --read-only");
    assert!(files(&world.path("copy")) == before, "nothing was changed");
    world.run("a", &["backup", "a/inside"]).fails(1, "Hint: name a directory elsewhere");
    // What was verified is what can be put back.
    assert_eq!(world.ok("again", &["body", &entry]), "Subject: kept\n\n");
    assert_eq!(world.view("again")[0].1[0]["entry"], shown[0].1[0]["entry"]);
}

#[test]
fn a_backup_that_is_put_back_goes_on_as_a_new_replica() {
    let world = World::new();
    world.ok("a", &["init"]);
    let (_, entry) = world.append("a", "INBOX", "Subject: kept\n\n");
    world.ok("a", &["backup", "copy"]);
    let (before, after) = (world.view("a"), world.view("copy"));
    assert_eq!(world.ok("copy", &["body", &entry]), "Subject: kept\n\n");
    let validity =
        |view: &[(serde_json::Value, serde_json::Value)]| view[0].0["uidvalidity"].as_u64().unwrap();
    assert!(validity(&after) > validity(&before));
    assert_ne!(world.status("a", "replica"), world.status("copy", "replica"));
}

#[test]
fn the_demo_keeps_the_promises() {
    let world = World::new();
    let shown = world.ok("none", &["demo"]);
    assert!(shown.contains("The two sides are equal"), "{shown}");
    let facts = world.json("none", &["demo", "--json"]);
    assert_eq!(facts["equal"], true);
    assert!(facts["burned"].as_array().unwrap().iter().any(|burned| burned["rule"] == "3b"), "{facts}");
    assert!(facts["burned"].as_array().unwrap().iter().any(|burned| burned["rule"] == "3c"), "{facts}");
    let lines = facts["imap"][0]["lines"].as_array().unwrap();
    assert!(lines.iter().any(|line| line == "S: * VANISHED 22:23"), "{facts}");
    assert_eq!(facts["imap"][0]["known"].as_array().unwrap().len(), 2, "{facts}");
    let promises = facts["promises"].as_array().unwrap();
    assert!(promises.len() == 6 && promises.iter().all(|promise| promise["broken"] == serde_json::json!([])));
}

#[test]
fn bodies_of_expunged_messages_go_when_they_are_asked_to() {
    let world = World::new();
    world.ok("a", &["init"]);
    for n in 0..5 {
        world.append("a", "INBOX", &format!("Subject: {n}\r\n\r\nhello\r\n"));
    }
    world.ok("a", &["expunge", "INBOX", "1:3"]);
    let kept = world.json("a", &["gc", "--json"]);
    assert_eq!((&kept["bodies"], &kept["kept_bodies"]), (&0.into(), &3.into()), "{kept}");
    assert_eq!(world.status("a", "expunged_bodies"), 3);
    assert_eq!(world.json("a", &["gc", "--keep", "forever", "--json"])["bodies"], 0);
    world.run("a", &["gc", "--keep", "soon"]).fails(2, "neither a number of days");
    let plan = world.json("a", &["gc", "--keep", "0", "--dry-run", "--json"]);
    assert_eq!((&plan["bodies"], &plan["dry_run"]), (&3.into(), &true.into()), "{plan}");
    assert_eq!(world.status("a", "expunged_bodies"), 3);
    let said = world.ok("a", &["gc", "--keep", "0"]);
    assert!(said.starts_with("forgotten the bodies of 3 messages"), "{said}");
    assert_eq!(world.status("a", "expunged_bodies"), 0);
    assert!(world.ok("a", &["check"]).starts_with("all is well"));
    let change = world.json("a", &["log", "--json"]);
    let expunge = change.as_array().unwrap().iter().find(|row| row.to_string().contains("expunged"));
    let id = expunge.unwrap()["change"].as_str().unwrap().to_owned();
    world.run("a", &["undo", &id]).fails(3, "body");
}
