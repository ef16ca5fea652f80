//! A server's Maildir and a laptop's that another program kept in step: they become a pair of replicas, with no body moved
//! that can be told from the laptop's file, and nothing doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::Dovecot;
use crate::program::{Kind, Program, is_message};
use crate::server::Server;
use crate::support::{Done, Serve, World, until};

/// Folder of the server, letters, message; lines end in LF, as Dovecot keeps them. Sizes differ, so that they tell messages apart.
fn mail() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let text = |subject: &str, id: &str, body: &str| {
        format!("From: a@example.org\nSubject: {subject}\nMessage-ID: <{id}@example.org>\nDate: Thu, 22 Aug 2002 12:36:23 +0000\n\n{body}")
            .into_bytes()
    };
    let mut eight_bit = text("eight bit", "eight", "");
    eight_bit.extend(b"Gr\xfc\xdfe \x80\xff\n");
    let multipart = "Subject: open\nMessage-ID: <open@example.org>\nContent-Type: multipart/mixed; boundary=\"b\"\nMIME-Version: 1.0\n\n\
                     --b\nContent-Type: text/plain\n\nA part that is never closed\n";
    let large = format!("{}\n", "0123456789abcdef".repeat(4)).repeat(20_000);
    vec![
        ("", "S", text("plain", "plain", "hello\n")),
        ("", "FRS", text("answered", "answered", "hello hello\n")),
        ("", "", text("new", "new", "nobody has read this\n")),
        ("", "S", text("bare", "bare", "one\rtwo =\r=\nthree three three\n")),
        ("", "F", text("doubled", "doubled", "one\r\r\ntwo\r\r\nthree three three three\n")),
        ("", "S", eight_bit),
        ("", "", text("no end", "no-end", "the last line does not end, no, not at all")),
        (".Lists.rust", "S", text("same id", "same", "the one of them, from the list, with a footer\n")),
        (".Lists.rust", "F", text("same id", "same", "the other of them, which came directly\n")),
        (
            ".Lists.rust",
            "S",
            text("twice", "twice", "the same bytes are there twice, and are two messages\n"),
        ),
        (
            ".Lists.rust",
            "FS",
            text("twice", "twice", "the same bytes are there twice, and are two messages\n"),
        ),
        (".Lists.rust", "", multipart.as_bytes().to_vec()),
        (
            ".Entw&APw-rfe",
            "D",
            b"Subject: spaces\nX-Nil:\nMessage-ID:   <spaces@example.org>\n\nx\n".to_vec(),
        ),
        (".Entw&APw-rfe", "DS", text("large", "large", &large)),
    ]
}

/// Puts the mail into the Maildir of a Dovecot.
fn fill(root: &Path) {
    for (number, (folder, letters, message)) in mail().into_iter().enumerate() {
        let dir = root.join(folder);
        ["tmp", "new", "cur"].iter().for_each(|sub| fs::create_dir_all(dir.join(sub)).unwrap());
        let name = format!("cur/103002{number:04}.M1P1.host,S={}:2,{letters}", message.len());
        fs::write(dir.join(name), message).unwrap();
    }
}

/// Who kept the laptop's Maildir.
#[derive(Clone, Copy, PartialEq)]
enum Keeper {
    Mbsync,
    OfflineImap,
    Dsync,
}

/// The Maildir at `laptop`, made from what the Dovecot has by the program.
fn keep(keeper: Keeper, dovecot: Dovecot, server: &Path, laptop: &Path) {
    let (mail, work) = (dovecot.maildir("tester"), TempDir::new().unwrap());
    match keeper {
        Keeper::Mbsync | Keeper::OfflineImap => {
            let kind = if keeper == Keeper::Mbsync { Kind::Mbsync } else { Kind::OfflineImap };
            let dovecot = Server::of(dovecot);
            let program = Program::new(kind, &dovecot);
            // The second run brings nothing; it is the last before the change.
            program.run();
            program.run();
            copy(&program.mail(), laptop);
            copy(&mail, server);
        }
        Keeper::Dsync => {
            let near = dovecot.maildir("laptop");
            fs::create_dir(&near).unwrap();
            dovecot.hand_over();
            let config = mail.ancestors().nth(2).unwrap().join("dovecot.conf");
            let mut command = Command::new("doveadm");
            command.arg("-c").arg(config).args(["backup", "-u", "tester"]);
            let output = command.arg(format!("maildir:{}", near.display())).current_dir(work.path()).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{output:?}");
            copy(&near, laptop);
            copy(&mail, server);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// Names and bytes of messages, or of all else. A file that is renamed at this very moment is not seen.
fn tree(root: &Path, messages: bool) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut dirs) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(root).unwrap().to_owned();
            if path.is_dir() {
                dirs.push(path);
            } else if is_message(&path) == messages
                && name.as_os_str() != ".postmerge"
                && let Ok(bytes) = fs::read(&path)
            {
                found.insert(name, bytes);
            }
        }
    }
    found
}

/// How many of the server's messages cannot be told from what the laptop has: it neither has the bytes nor only added to them.
fn lost(server: &Path, laptop: &Path) -> usize {
    let mut had: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for (_, file) in tree(laptop, true) {
        let lines: Vec<&[u8]> = file.split_inclusive(|byte| *byte == b'\n').collect();
        let unstamped: Vec<&[u8]> =
            lines.iter().filter(|line| !line.starts_with(b"X-TUID:")).copied().collect();
        let open = unstamped.iter().filter(|line| **line != b"--b--\n");
        let unclosed: Vec<&[u8]> = open.copied().collect();
        for text in BTreeSet::from([file.clone(), unstamped.concat(), unclosed.concat()]) {
            *had.entry(text).or_default() += 1;
        }
    }
    let has = |text: &Vec<u8>| had.get(text).is_some_and(|count| *count > 0);
    tree(server, true).values().filter(|text| !has(text)).count()
}

/// What both replicas show: mailbox, size and flags of each message.
fn shown(world: &World, store: &str) -> Vec<(String, u64, BTreeSet<String>)> {
    let mut shown = Vec::new();
    for (mailbox, rows) in world.view(store) {
        for row in rows.as_array().unwrap() {
            let flags = row["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap().to_owned());
            let name = mailbox["name"].as_str().unwrap().to_owned();
            shown.push((name, row["size"].as_u64().unwrap(), flags.collect()));
        }
    }
    shown.sort();
    shown
}

/// What they must show.
fn expected() -> Vec<(String, u64, BTreeSet<String>)> {
    let names = BTreeMap::from([("", "INBOX"), (".Lists.rust", "Lists/rust"), (".Entw&APw-rfe", "Entwürfe")]);
    let flag = |letter| match letter {
        'D' => "\\Draft",
        'F' => "\\Flagged",
        'R' => "\\Answered",
        _ => "\\Seen",
    };
    let one = |(folder, letters, message): (&str, &str, Vec<u8>)| {
        let flags = letters.chars().map(|letter| flag(letter).to_owned()).collect();
        (names[folder].to_owned(), message.len() as u64, flags)
    };
    let mut expected: Vec<_> = mail().into_iter().map(one).collect();
    expected.sort();
    expected
}

/// The file of a message, wherever it is; it may be renamed at this very moment.
fn find(root: &Path, subject: &str) -> PathBuf {
    let line = format!("Subject: {subject}\n").into_bytes();
    let mut found = None;
    until("a file to stand still", || {
        let mut files = tree(root, true).into_iter();
        found = files
            .find(|(_, text)| text.starts_with(&line) || text.windows(line.len()).any(|part| part == line));
        found.is_some()
    });
    root.join(found.expect("it was found").0)
}

fn letters(path: &Path) -> String {
    path.to_str().unwrap().split_once(":2,").map_or("", |(_, letters)| letters).to_owned()
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// Makes the pair, and looks at what that came to.
fn adopt(keeper: Keeper) {
    let world = World::new();
    let (server, laptop) = (world.path("server"), world.path("laptop"));
    let dovecot = Dovecot::start(&std::env::temp_dir(), "");
    fill(&dovecot.maildir("tester"));
    dovecot.hand_over();
    keep(keeper, dovecot, &server, &laptop);
    let (before, state) = (tree(&laptop, true), tree(&laptop, false));
    assert_eq!(before.len(), mail().len());
    let crosses = lost(&server, &laptop);
    assert!(crosses < 5, "{crosses}");

    world.ok("a", &["init", "--name", "alpha"]);
    world.ok("a", &["maildir", "attach", "server"]);
    let serve = world.serve("a", &["--listen", "127.0.0.1:0"]);
    assert_eq!(shown(&world, "a"), expected());
    let ticket = world.ok("a", &["invite", "--role", "server"]).trim().to_owned();
    let joined = world.run("b", &["join", &ticket, "--name", "beta", "--adopt", "laptop"]);
    assert_eq!(joined.code, 0, "{joined:?}");
    assert_eq!(number_in(&joined, "fetched the bodies of "), crosses as u64, "{joined:?}");
    assert_eq!(number_in(&joined, "took the bodies of "), (mail().len() - crosses) as u64, "{joined:?}");
    assert!(!joined.err.contains("added "), "{joined:?}");
    // Attached, and nothing happens for it.
    let attached = world.json("b", &["maildir", "attach", "laptop", "--json"]);
    let nothing = json!({"added": 0, "bytes": 0, "moved": 0, "flagged": 0, "removed": 0, "mailboxes": 0});
    assert_eq!((&attached["imported"], &attached["known"]), (&json!(0), &json!(mail().len())), "{attached}");
    assert_eq!(attached["run"]["into_replica"], nothing, "{attached}");
    assert_eq!(attached["run"]["into_maildir"], nothing, "{attached}");
    assert_eq!(attached["altered"], json!(crosses), "{attached}");
    assert_eq!(tree(&laptop, true), before, "names and bytes stay");
    assert_eq!(tree(&laptop, false), state, "and what the program keeps for itself");
    world.ok("b", &["sync"]);
    assert_eq!((shown(&world, "a"), world.view("b")), (expected(), world.view("a")));
    goes_on(&world, &server, &laptop, serve);
}

/// The number behind some words of standard error; 0 if they are not said.
fn number_in(done: &Done, words: &str) -> u64 {
    let number = done.err.split_once(words).map(|(_, rest)| rest.split(' ').next().unwrap().parse().unwrap());
    number.unwrap_or(0)
}

/// Flags and moves of messages that the program wrote with other bytes and of others, each way.
fn goes_on(world: &World, server: &Path, laptop: &Path, serve: Serve) {
    let entries = |store: &str| -> BTreeSet<String> {
        let rows = world.view(store).into_iter().flat_map(|(_, rows)| rows.as_array().unwrap().clone());
        rows.map(|row: Value| row["entry"].as_str().unwrap().to_owned()).collect()
    };
    let before = entries("a");
    for subject in ["bare", "new"] {
        let from = find(laptop, subject);
        let base = name(&from).split(":2,").next().unwrap();
        fs::rename(&from, from.parent().unwrap().with_file_name("cur").join(format!("{base}:2,RS"))).unwrap();
    }
    // Under another name, as mail readers file it.
    let target = |root: &Path| find(root, "open").parent().unwrap().with_file_name("cur");
    fs::rename(find(laptop, "doubled"), target(laptop).join("1700000000.filed.host:2,S")).unwrap();
    fs::rename(find(server, "answered"), target(server).join("1700000001.filed.host:2,FRS")).unwrap();
    let from = find(server, "eight bit");
    fs::rename(&from, from.with_file_name(name(&from).replace(":2,", ":2,F"))).unwrap();
    let at = |root: &Path, subject: &str| {
        let path = find(root, subject);
        let folder = path.parent().unwrap().with_file_name("cur");
        (folder == target(root), letters(&path))
    };
    let heard = |root: &Path| {
        at(root, "new") == (false, "RS".into())
            && at(root, "bare") == (false, "RS".into())
            && at(root, "eight bit") == (false, "FS".into())
            && at(root, "doubled") == (true, "S".into())
            && at(root, "answered") == (true, "FRS".into())
    };
    until("both to hear of it", || {
        world.ok("b", &["sync"]);
        heard(server) && heard(laptop) && world.view("a") == world.view("b")
    });
    assert_eq!(entries("a"), before, "no message is another one for it");
    assert_eq!(tree(server, true).len(), mail().len());
    assert_eq!(tree(laptop, true).len(), mail().len());
    assert_eq!(serve.stop(), Some(0));
    assert!(world.ok("b", &["check"]).starts_with("all is well"));
}

#[test]
#[ignore = "needs mbsync"]
fn a_pair_of_mbsync_becomes_a_pair_of_replicas() {
    adopt(Keeper::Mbsync);
}

#[test]
#[ignore = "needs offlineimap"]
fn a_pair_of_offlineimap_becomes_a_pair_of_replicas() {
    adopt(Keeper::OfflineImap);
}

#[test]
#[ignore = "needs dovecot"]
fn a_pair_of_dsync_becomes_a_pair_of_replicas() {
    adopt(Keeper::Dsync);
}
