//! A Maildir whose files another program wrote with other bytes than the messages have.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::{Serve, World, files};

const MARKED: &str = "Subject: marked\nMessage-ID: <1@x>\n\nwhat only has a mark\n";
const LOST: &str =
    "Subject: lost\nMessage-ID: <2@x>\n\none\rtwo\rthree, and it cannot be told where the CRs were\n";
const TWINS: &str =
    "Subject: twins\nMessage-ID: <3@x>\n\nthe same bytes, other flags, altered\r in the same way\n";
const ONLY: &str = "Subject: only\nMessage-ID: <4@x>\n\nwhat only this Maildir has\n";

fn stamped(message: &str) -> String {
    message.replacen("\n\n", "\nX-TUID: abcdefghijkl\n\n", 1).replace('\r', "")
}

fn write(root: &Path, mail: &[(&str, String)]) {
    ["tmp", "new", "cur"].iter().for_each(|sub| fs::create_dir_all(root.join(sub)).unwrap());
    for (name, message) in mail {
        fs::write(root.join("cur").join(name), message).unwrap();
    }
}

/// A replica with the mail as it came, and a Maildir `laptop` as mbsync would have written it, with a mark set since and one more
/// message.
fn start(world: &World) -> (Serve, String) {
    let server = [("1.a:2,S", MARKED), ("2.a:2,", LOST), ("3.a:2,F", TWINS), ("4.a:2,S", TWINS)];
    write(&world.path("server"), &server.map(|(name, message)| (name, message.to_owned())));
    let laptop = [
        ("7.a,U=1:2,FS", stamped(MARKED)),
        ("6.a,U=2:2,", stamped(LOST)),
        ("8.a,U=3:2,S", stamped(TWINS)),
        ("9.a,U=4:2,F", stamped(TWINS)),
        ("5.new:2,", ONLY.to_owned()),
    ];
    write(&world.path("laptop"), &laptop);
    world.ok("a", &["init", "--name", "alpha"]);
    world.ok("a", &["import", "server"]);
    let serve = world.serve("a", &["--listen", "127.0.0.1:0"]);
    let ticket = world.ok("a", &["invite", "--role", "server"]).trim().to_owned();
    (serve, ticket)
}

/// Flags and bodies, sorted.
fn shown(world: &World, store: &str) -> Vec<(String, String)> {
    let rows = world.json(store, &["messages", "INBOX", "--json"]);
    let one = |row: &serde_json::Value| {
        (row["flags"].to_string(), world.ok(store, &["body", row["entry"].as_str().unwrap()]))
    };
    let mut shown: Vec<_> = rows.as_array().unwrap().iter().map(one).collect();
    shown.sort();
    shown
}

fn expected(marks: &str) -> Vec<(String, String)> {
    let all = [
        (marks, MARKED),
        ("[]", LOST),
        ("[\"\\\\Flagged\"]", TWINS),
        ("[\"\\\\Seen\"]", TWINS),
        ("[]", ONLY),
    ];
    let mut all: Vec<_> = all.iter().map(|(flags, text)| ((*flags).to_owned(), (*text).to_owned())).collect();
    all.sort();
    all
}

const SEEN: &str = "[\"\\\\Seen\"]";
const BOTH: &str = "[\"\\\\Flagged\",\"\\\\Seen\"]";

#[test]
fn what_can_be_told_from_a_file_does_not_cross_and_nothing_is_doubled() {
    let world = World::new();
    let (serve, ticket) = start(&world);
    let before = files(&world.path("laptop"));
    let joined = world.run("b", &["join", &ticket, "--adopt", "laptop"]);
    assert_eq!(joined.code, 0, "{joined:?}");
    for words in [
        "took the bodies of 1 message from ",
        "fetched the bodies of 3 messages, ",
        "added 1 message that only ",
        "3 files of known messages were altered",
        "`postmerge maildir attach ",
    ] {
        assert!(joined.err.contains(words), "{words:?}: {joined:?}");
    }
    assert_eq!((files(&world.path("laptop")), shown(&world, "b")), (before, expected(SEEN)));
    assert_eq!(shown(&world, "a"), shown(&world, "b"), "what only the Maildir had is at the peer");
    let attached = world.json("b", &["maildir", "attach", "laptop", "--json"]);
    let numbers = ["imported", "known", "altered"].map(|field| attached[field].clone());
    assert_eq!(numbers, [json!(0), json!(5), json!(3)], "{attached}");
    // A mark that only the file had is kept, and the twins have theirs.
    assert_eq!(shown(&world, "b"), expected(BOTH));
    let attached = files(&world.path("laptop")).len();
    world.ok("b", &["sync"]);
    assert_eq!((files(&world.path("laptop")).len(), shown(&world, "a")), (attached, expected(BOTH)));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn before_the_bodies_are_here_nobody_can_tell_what_is_new() {
    let world = World::new();
    let (serve, ticket) = start(&world);
    let joined = world.run("b", &["join", &ticket, "--adopt", "laptop", "--no-sync"]);
    joined.fails(3, "4 files may be messages whose bodies have not arrived");
    assert_eq!(world.json("b", &["mailboxes", "--json"])[0]["messages"], 4);
    world.run("b", &["maildir", "attach", "laptop"]).fails(1, "Hint: `postmerge sync` fetches them");
    world.run("b", &["import", "laptop"]).fails(3, "`postmerge sync`, then import again");
    assert!(!world.path("laptop/.postmerge").exists());
    world.ok("b", &["sync"]);
    world.ok("b", &["maildir", "attach", "laptop"]);
    assert_eq!(shown(&world, "b"), expected(BOTH));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn an_altered_file_is_found_again_wherever_it_goes() {
    let world = World::new();
    let (serve, ticket) = start(&world);
    world.ok("b", &["join", &ticket]);
    world.ok("b", &["maildir", "attach", "laptop"]);
    let entries = || -> BTreeMap<String, String> {
        let view = world.view("b").into_iter();
        let rows = view.flat_map(|(mailbox, rows)| {
            let name = mailbox["name"].as_str().unwrap().to_owned();
            rows.as_array().unwrap().clone().into_iter().map(move |row| (row, name.clone()))
        });
        rows.map(|(row, name)| (row["entry"].as_str().unwrap().to_owned(), name)).collect()
    };
    let before = entries();
    write(&world.path("laptop/.Other"), &[]);
    let moved =
        [("cur/6.a,U=2:2,", "x.1:2,S"), ("cur/8.a,U=3:2,S", "x.2:2,S"), ("cur/9.a,U=4:2,F", "x.3:2,F")];
    for (from, to) in moved {
        fs::rename(world.path("laptop").join(from), world.path("laptop/.Other/cur").join(to)).unwrap();
    }
    world.ok("b", &["sync"]);
    // It is renamed from here, and goes back: what was remembered goes with the file.
    let lost = world.json("b", &["messages", "Other", "--json"]);
    let lost = lost.as_array().unwrap().iter().find(|row| row["size"] == LOST.len()).unwrap();
    world.ok("b", &["flag", "Other", &lost["uid"].to_string(), "+\\Answered"]);
    world.ok("b", &["sync"]);
    fs::rename(world.path("laptop/.Other/cur/x.1:2,RS"), world.path("laptop/cur/y.1:2,RS")).unwrap();
    world.ok("b", &["sync"]);
    let after = entries();
    assert!(before.keys().eq(after.keys()), "{before:?} {after:?}");
    assert_eq!(after.values().filter(|name| *name == "Other").count(), 2);
    assert_eq!(world.json("b", &["messages", "Other", "--json"]).as_array().unwrap().len(), 2);
    assert_eq!(fs::read_to_string(world.path("laptop/cur/y.1:2,RS")).unwrap(), stamped(LOST));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn an_attach_that_cannot_decide_yet_keeps_the_bodies_that_the_files_gave() {
    let world = World::new();
    let (serve, ticket) = start(&world);
    world.ok("b", &["join", &ticket, "--no-sync"]);
    assert_eq!(world.status("b", "owed_bodies"), 4);
    world
        .run("b", &["maildir", "attach", "laptop"])
        .fails(1, "4 files, the first in mailbox \"INBOX\", may be messages");
    assert_eq!(world.status("b", "owed_bodies"), 3);
    assert_eq!(serve.stop(), Some(0));
}
