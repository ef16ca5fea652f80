//! Maildirs that are kept in step, by `sync` and by `serve`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Serve, World, until};

/// A Maildir with INBOX and the folders named.
fn maildir(world: &World, name: &str, folders: &[&str]) -> PathBuf {
    let root = world.path(name);
    for dir in std::iter::once(root.clone()).chain(folders.iter().map(|folder| root.join(folder))) {
        ["tmp", "new", "cur"].iter().for_each(|sub| fs::create_dir_all(dir.join(sub)).unwrap());
    }
    root
}

/// What a Maildir holds: folder, flags and first line of each message.
fn mail(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let folders = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let folders = folders.filter(|dir| dir.join("cur").is_dir()).chain([root.to_owned()]);
    for dir in folders {
        for file in ["new", "cur"].iter().flat_map(|sub| fs::read_dir(dir.join(sub)).unwrap()) {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let flags = name.split_once(":2,").map_or("", |(_, flags)| flags);
            // It may be renamed at this very moment; whoever waits looks again.
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let folder = dir.strip_prefix(root).unwrap().display();
            found.insert(format!("{folder} {flags} {}", text.lines().next().unwrap_or_default()));
        }
    }
    found
}

fn deliver(root: &Path, name: &str, subject: &str) {
    let tmp = root.join("tmp").join(name);
    fs::write(&tmp, format!("Subject: {subject}\n\nhello\n")).unwrap();
    fs::rename(tmp, root.join("new").join(name)).unwrap();
}

/// A server with a Maildir that has mail, and an observer with an empty one, both attached.
fn pair(world: &World) -> (PathBuf, PathBuf, Serve) {
    let (a, b) = (maildir(world, "mail-a", &[".Work"]), maildir(world, "mail-b", &[]));
    deliver(&a, "1.one.h", "one");
    fs::write(a.join(".Work/cur/2.two.h:2,S"), "Subject: two\n\nhello\n").unwrap();
    world.ok("a", &["init", "--name", "alpha"]);
    let attached = world.json("a", &["maildir", "attach", "mail-a", "--json"]);
    assert_eq!((&attached["imported"], &attached["known"]), (&json!(2), &json!(0)));
    let serve = world.serve("a", &["--listen", "127.0.0.1:0"]);
    let ticket = world.ok("a", &["invite"]).trim().to_owned();
    world.ok("b", &["join", &ticket, "--name", "beta"]);
    let attached = world.ok("b", &["maildir", "attach", "mail-b"]);
    assert!(attached.contains("into it 2 added, 1 mailbox changed"), "{attached}");
    assert_eq!(mail(&a), mail(&b));
    (a, b, serve)
}

#[test]
fn one_shot_brings_both_maildirs_in_step() {
    let world = World::new();
    let (a, b, serve) = pair(&world);
    fs::rename(a.join("new/1.one.h"), a.join(".Work/cur/1.one.h:2,F")).unwrap();
    deliver(&b, "3.three.h", "three");
    let plan = world.ok("b", &["sync", "--dry-run"]);
    assert!(plan.contains("would be from it 1 added") && plan.contains("would sync with alpha"), "{plan}");
    assert_eq!(mail(&b).len(), 3, "a plan changes nothing");
    until("the server to see the move", || {
        let shown = world.json("a", &["messages", "Work", "--json"]);
        shown.as_array().unwrap().len() == 2
    });
    let done = world.json("b", &["sync", "--json"]);
    assert_eq!(done["maildirs"][0]["into_replica"]["added"], 1);
    assert_eq!(done["maildirs"][0]["into_maildir"]["moved"], 1);
    assert_eq!(done["peers"][0]["synced"], true);
    until("the other Maildir to have it", || mail(&a) == mail(&b));
    assert!(mail(&b).contains(".Work F Subject: one") && mail(&b).contains("  Subject: three"));
    let again = world.json("b", &["sync", "--json"]);
    let nothing = |counts: &Value| counts.as_object().unwrap().values().all(|count| *count == 0);
    assert!(nothing(&again["maildirs"][0]["into_replica"]) && nothing(&again["maildirs"][0]["into_maildir"]));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn who_answers_on_pipes_brings_its_own_maildir_in_step_too() {
    let world = World::new();
    let (a, b, serve) = pair(&world);
    assert_eq!(serve.stop(), Some(0));
    let through = format!("{} --store {} stdio", env!("CARGO_BIN_EXE_postmerge"), world.path("a").display());
    deliver(&a, "3.three.h", "three");
    deliver(&b, "4.four.h", "four");
    world.ok("b", &["sync", "--via", &through]);
    assert!(mail(&b).contains("  Subject: three"), "looked at before the conversation");
    assert_eq!(mail(&a), mail(&b), "written after it");
    // A Maildir that is not mounted is told of, and holds up nobody.
    fs::rename(&a, world.path("aside")).unwrap();
    deliver(&b, "5.five.h", "five");
    let done = world.run("b", &["sync", "--via", &through]);
    assert!(done.code == 0 && done.err.contains("is it mounted?"), "{done:?}");
    assert_eq!(world.json("a", &["messages", "INBOX", "--json"]).as_array().unwrap().len(), 4);
}

#[test]
fn daemons_keep_both_maildirs_in_step_as_things_happen() {
    let world = World::new();
    let (a, b, serve_a) = pair(&world);
    let serve_b = world.serve("b", &["--listen", "127.0.0.1:0"]);
    fs::rename(a.join("new/1.one.h"), a.join("cur/1.one.h:2,FS")).unwrap();
    until("flags from a", || mail(&b).contains(" FS Subject: one"));
    deliver(&b, "3.three.h", "three");
    until("mail from b", || mail(&a).contains("  Subject: three"));
    let new = maildir(&world, "mail-b/.New.Deep", &[]);
    deliver(&new, "4.four.h", "four");
    until("a folder from b", || mail(&a).contains(".New.Deep  Subject: four"));
    fs::remove_file(new.join("new/4.four.h")).unwrap();
    until("a removal from b", || !mail(&a).contains(".New.Deep  Subject: four"));
    world.ok("a", &["mailbox", "rename", "Work", "Play"]);
    until("a rename at the replica", || [&a, &b].iter().all(|root| root.join(".Play/cur").is_dir()));
    assert!(!b.join(".Work").exists());
    let listed = world.json("b", &["maildir", "list", "--json"]);
    assert_eq!((&listed[0]["watched"], &listed[0]["error"]), (&json!(true), &Value::Null));
    assert_eq!((serve_a.stop(), serve_b.stop()), (Some(0), Some(0)));
    assert_eq!(mail(&a), mail(&b));
}

#[test]
fn a_directory_that_vanishes_and_comes_back_loses_nothing() {
    let world = World::new();
    let (a, b, serve) = pair(&world);
    fs::rename(&a, world.path("aside")).unwrap();
    // A mount point without its disk.
    maildir(&world, "mail-a", &[]);
    let state = |world: &World| world.json("a", &["maildir", "list", "--json"])[0]["error"].clone();
    until("the error to be told", || {
        state(&world).as_str().is_some_and(|error| error.contains(".postmerge"))
    });
    world.run("a", &["sync"]).fails(1, "is it mounted?");
    assert_eq!(world.json("a", &["messages", "INBOX", "--json"]).as_array().unwrap().len(), 1);
    fs::remove_dir_all(&a).unwrap();
    fs::rename(world.path("aside"), &a).unwrap();
    deliver(&a, "5.five.h", "five");
    until("it to go on", || state(&world).is_null());
    world.ok("b", &["sync"]);
    until("mail that came meanwhile", || {
        world.ok("b", &["sync"]);
        mail(&b).contains("  Subject: five")
    });
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn too_many_removals_stop_and_are_asked_for() {
    let world = World::new();
    let root = maildir(&world, "mail-a", &[]);
    (0..150).for_each(|n| deliver(&root, &format!("{n}.x.h"), &n.to_string()));
    world.ok("a", &["init"]);
    world.ok("a", &["maildir", "attach", "mail-a"]);
    (0..120).for_each(|n| fs::remove_file(root.join(format!("new/{n}.x.h"))).unwrap());
    let stopped = world.run("a", &["sync"]);
    stopped.fails(3, "postmerge resume --allow-removals");
    assert!(world.json("a", &["maildir", "list", "--json"])[0]["stopped"]["into_replica"] == 120);
    let count = || world.json("a", &["messages", "INBOX", "--json"]).as_array().unwrap().len();
    assert_eq!(count(), 150);
    world.run("a", &["resume"]).fails(2, "--allow-removals");
    let plan = world.json("a", &["resume", "--allow-removals", "--dry-run", "--json"]);
    assert_eq!((&plan[0]["into_replica"]["removed"], count()), (&json!(120), 150));
    world.ok("a", &["resume", "--allow-removals"]);
    assert_eq!(count(), 30);
    assert_eq!(world.ok("a", &["resume", "--allow-removals"]), "nothing was stopped\n");
    // And it can be taken back: the messages come as files again.
    world.ok("a", &["undo", "--since", "1d"]);
    world.ok("a", &["sync"]);
    assert_eq!(mail(&root).len(), 150);
    assert_eq!(count(), 150);
}

#[test]
fn attaching_says_what_is_wrong() {
    let world = World::new();
    world.ok("a", &["init"]);
    world.run("a", &["maildir", "attach", "nowhere"]).fails(1, "cannot read");
    fs::create_dir(world.path("empty")).unwrap();
    world.run("a", &["maildir", "attach", "empty"]).fails(1, "mkdir -p DIR/cur");
    maildir(&world, "mail", &[]);
    world.run("a", &["maildir", "detach", "mail"]).fails(1, "postmerge maildir list");
    world.ok("a", &["maildir", "attach", "mail"]);
    world.run("a", &["maildir", "attach", "mail"]).fails(1, "attached already, to this replica");
    world.ok("b", &["init"]);
    world.run("b", &["maildir", "attach", "mail"]).fails(1, "detach it there first");
    world.ok("a", &["maildir", "detach", "mail"]);
    assert!(!world.path("mail/.postmerge").exists());
    assert_eq!(world.json("a", &["maildir", "list", "--json"]), json!([]));
    world.ok("b", &["maildir", "attach", "mail"]);
}

#[test]
fn kill_9_while_files_come_in_and_go_out_loses_and_doubles_nothing() {
    let world = World::new();
    let root = maildir(&world, "mail-a", &[".Work"]);
    world.ok("a", &["init"]);
    world.ok("a", &["maildir", "attach", "mail-a"]);
    for round in 0..6 {
        (0..300).for_each(|n| deliver(&root, &format!("{round}-{n}.x.h"), &format!("{round}-{n}")));
        if round > 0 {
            (0..40).for_each(|n| {
                let name = format!("{}-{n}.x.h", round - 1);
                fs::rename(root.join("new").join(&name), root.join(format!(".Work/cur/{name}:2,S"))).unwrap();
            });
        }
        let serve = world.serve("a", &["--offline"]);
        // Somewhere in the middle, at another moment each time.
        let wanted = round * 50;
        until("some to be taken in", || {
            let listed = world.json("a", &["mailboxes", "--json"]);
            let sum: u64 =
                listed.as_array().unwrap().iter().map(|row| row["messages"].as_u64().unwrap()).sum();
            sum >= round * 300 + wanted
        });
        serve.kill();
    }
    world.ok("a", &["sync"]);
    // Each message has a body of its own.
    let bodies = |mailbox: &str| {
        let rows = world.json("a", &["messages", mailbox, "--json"]);
        rows.as_array()
            .unwrap()
            .iter()
            .map(|row| row["blob"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (inbox, work) = (bodies("INBOX"), bodies("Work"));
    assert_eq!((inbox.len(), work.len()), (6 * 300 - 5 * 40, 5 * 40));
    assert_eq!(inbox.iter().chain(&work).collect::<BTreeSet<_>>().len(), 6 * 300);
    assert_eq!(mail(&root).len(), 6 * 300);
}
