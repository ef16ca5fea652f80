//! Commands through the control socket of a daemon.

use std::io::Write;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::{World, files, until};
use crate::tree::write_tree;

#[test]
fn commands_do_the_same_through_the_socket() {
    let world = World::new();
    write_tree(&world.path("mail"));
    world.ok("a", &["init"]);
    world.ok("a", &["import", "mail"]);
    let entry = world.json("a", &["messages", "INBOX", "--json"])[8]["entry"].as_str().unwrap().to_owned();
    let commands: [&[&str]; 9] = [
        &["mailboxes", "--json"],
        &["mailboxes"],
        &["messages", "INBOX"],
        &["messages", "Nowhere"],
        &["peers", "--json"],
        &["log", "--json"],
        &["body", &entry],
        &["import", "mail", "--dry-run"],
        &["flag", "INBOX", "1", "seen"],
    ];
    let run = || {
        commands.map(|command| {
            let done = world.run("a", command);
            (done.code, done.out, done.err)
        })
    };
    let alone = run();
    let serve = world.serve("a", &["--offline"]);
    assert_eq!(run(), alone);
    world.ok("a", &["export", "through"]);
    assert!(world.ok("a", &["check"]).starts_with("all is well"));
    world.run("a", &["check", "--repair"]).fails(1, "Hint: stop");
    assert_eq!(serve.stop(), Some(0));
    assert!(files(&world.path("run")).is_empty(), "the socket is gone");
    world.ok("a", &["export", "alone"]);
    assert_eq!(files(&world.path("through")), files(&world.path("alone")));
}

#[test]
fn a_large_message_goes_in_and_comes_out_through_the_socket() {
    let world = World::new();
    world.ok("a", &["init"]);
    let _serve = world.serve("a", &["--offline"]);
    let message = format!("Subject: large\n\n{}", "0123456789 and some more of it\n".repeat(60_000));
    let (uid, entry) = world.append("a", "INBOX", &message);
    assert_eq!(uid, 1);
    assert!(world.ok("a", &["body", &entry]) == message);
}

#[test]
fn a_client_that_dies_leaves_no_half_message() {
    let world = World::new();
    world.ok("a", &["init"]);
    let _serve = world.serve("a", &["--offline"]);
    let mut command = world.command("a", &["append", "INBOX"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![b'x'; 1 << 20]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    drop(stdin);
    // The next command goes in behind whatever the daemon made of the last one.
    world.append("a", "INBOX", "Subject: whole\n\n");
    assert_eq!(world.json("a", &["mailboxes", "--json"])[0]["messages"], 1);
}

#[test]
fn a_store_whose_daemon_does_not_answer_is_locked() {
    let world = World::new();
    world.ok("a", &["init"]);
    let serve = world.serve("a", &["--offline"]);
    let mut elsewhere = world.command("a", &["mailboxes"]);
    let output = elsewhere.env("XDG_RUNTIME_DIR", world.path("other")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(11), "{said}");
    assert!(said.contains(&format!("locked by process {}", serve.pid())), "{said}");
    let second = world.run("a", &["serve", "--offline"]);
    second.fails(11, "served already");
    second.fails(11, "Hint: stop that one first");
}

#[test]
fn ctrl_c_and_sigterm_end_the_daemon_with_their_own_codes() {
    let world = World::new();
    world.ok("a", &["init"]);
    let serve = world.serve("a", &["--offline"]);
    assert_eq!(serve.end(rustix::process::Signal::INT), Some(130));
    assert_eq!(world.serve("a", &["--offline"]).stop(), Some(0));
}

#[test]
fn kill_9_loses_nothing_that_was_acknowledged() {
    let world = World::new();
    world.ok("a", &["init"]);
    for round in 0..3 {
        let serve = world.serve("a", &["--offline"]);
        let over = AtomicBool::new(false);
        let count = AtomicUsize::new(0);
        let acknowledged = std::thread::scope(|scope| {
            let (count, over, world) = (&count, &over, &world);
            let writer = scope.spawn(move || {
                let mut acknowledged = Vec::new();
                while !over.load(Ordering::SeqCst) {
                    let text = format!("Subject: {round}/{}\n\n", acknowledged.len());
                    let mut command = world.command("a", &["append", "INBOX", "--json"]);
                    // A client that finds no daemon would open the store itself.
                    let mut child = command
                        .stdin(Stdio::piped())
                        .stdout(Stdio::piped())
                        .stderr(Stdio::null())
                        .spawn()
                        .unwrap();
                    drop(child.stdin.take().unwrap().write_all(text.as_bytes()));
                    let output = child.wait_with_output().unwrap();
                    if output.status.success() {
                        let added: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
                        acknowledged.push((added["entry"].as_str().unwrap().to_owned(), text));
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                }
                acknowledged
            });
            until("a few messages", || count.load(Ordering::SeqCst) >= 5);
            serve.kill();
            over.store(true, Ordering::SeqCst);
            writer.join().unwrap()
        });
        for (entry, text) in &acknowledged {
            assert_eq!(world.ok("a", &["body", entry]), *text);
        }
        let shown = world.json("a", &["messages", "INBOX", "--json"]);
        let listed = |entry: &String| shown.as_array().unwrap().iter().any(|row| row["entry"] == **entry);
        assert!(acknowledged.iter().all(|(entry, _)| listed(entry)));
        assert!(world.ok("a", &["check"]).starts_with("all is well"));
    }
}
