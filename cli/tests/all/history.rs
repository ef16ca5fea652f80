//! What happened, why, and how to undo it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::World;

/// A store that made this many messages, and its newest change.
fn filled(world: &World, messages: usize) -> Vec<(u64, String)> {
    world.ok("a", &["init", "--name", "alpha"]);
    world.ok("a", &["mailbox", "create", "Work"]);
    (0..messages).map(|n| world.append("a", "INBOX", &format!("Subject: {n}\n\n"))).collect()
}

fn newest(world: &World) -> Value {
    world.json("a", &["log", "--limit", "1", "--json"])[0].clone()
}

#[test]
fn a_mistake_is_found_in_the_log_and_undone() {
    let world = World::new();
    let messages = filled(&world, 3);
    world.ok("a", &["flag", "INBOX", "1:3", "+deleted", "+seen"]);
    world.ok("a", &["move", "INBOX", "1", "Work"]);
    assert_eq!(newest(&world)["what"], "moved 1 message from INBOX to Work");
    let did = json!({"what": "moved", "from": "INBOX", "to": "Work", "count": 1});
    assert!(newest(&world)["did"].as_array().unwrap().contains(&did));
    world.ok("a", &["expunge", "INBOX", "2:3"]);
    let change = newest(&world)["change"].as_str().unwrap().to_owned();
    let log = world.ok("a", &["log"]);
    let line = log.lines().nth(1).unwrap();
    assert!(
        line.starts_with(&change[..10]) && line.ends_with("alpha  expunged 2 messages from INBOX"),
        "{line}"
    );

    let plan = world.json("a", &["undo", &change[..10], "--dry-run", "--json"]);
    assert_eq!((&plan["brought_back"]["INBOX"], &plan["dry_run"]), (&json!(2), &json!(true)));
    assert_eq!(world.json("a", &["messages", "INBOX", "--json"]), json!([]), "a plan changes nothing");
    assert!(world.ok("a", &["undo", &change, "--dry-run"]).starts_with("would have brought back 2 messages"));
    let done = world.json("a", &["undo", &change, "--json"]);
    assert_eq!((&done["brought_back"], &done["changes"]), (&plan["brought_back"], &json!(1)));
    let shown = world.json("a", &["messages", "INBOX", "--json"]);
    let rows = shown.as_array().unwrap();
    assert_eq!(rows.iter().map(|row| &row["uid"]).collect::<Vec<_>>(), [4, 5]);
    assert!(rows.iter().all(|row| row["flags"] == json!(["\\Seen"])), "{rows:?}");
    // Of one second, so their ids say which comes first.
    let brought: BTreeSet<_> = rows.iter().map(|row| row["entry"].as_str().unwrap()).collect();
    assert_eq!(brought, messages[1..].iter().map(|(_, entry)| &**entry).collect());
    let again = world.ok("a", &["undo", &change]);
    assert!(again.contains("2 messages left alone") && again.contains("there is nothing to undo"), "{again}");

    world.run("a", &["undo"]).fails(2, "--since");
    world.run("a", &["undo", "ab"]).fails(2, "four digits");
    world.run("a", &["undo", "--until", "1d"]).fails(2, "--since");
    world.run("a", &["undo", "ffffffffff"]).fails(1, "Hint: `postmerge log`");
    world.run("a", &["--read-only", "undo", &change]).fails(2, "leave out --read-only");
}

#[test]
fn all_that_a_replica_did_since_a_time_is_undone_at_once() {
    let world = World::new();
    filled(&world, 2);
    let serve = world.serve("a", &["--listen", "127.0.0.1:0"]);
    let ticket = world.ok("a", &["invite", "--role", "server"]).trim().to_owned();
    world.ok("b", &["join", &ticket, "--name", "laptop"]);
    world.ok("b", &["move", "INBOX", "1", "Work"]);
    world.ok("b", &["mailbox", "delete", "Work"]);
    world.ok("b", &["expunge", "INBOX", "2"]);
    world.ok("b", &["sync"]);
    // Through the daemon's socket, as all of it.
    assert_eq!(world.json("a", &["undo", "--since", "1h", "--until", "2000-01-01", "--json"])["changes"], 0);
    world.run("a", &["undo", "--since", "1h", "--by", "nobody"]).fails(1, "`postmerge peers`");
    let done = world.json("a", &["undo", "--since", "1d", "--by", "laptop", "--json"]);
    assert_eq!((&done["brought_back"], &done["mailboxes_made"]), (&json!({"INBOX": 2}), &json!(["Work"])));
    world.ok("b", &["sync"]);
    assert_eq!(world.json("b", &["messages", "INBOX", "--json"]).as_array().unwrap().len(), 2);
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_conflict_is_listed_and_explained_on_both_sides() {
    let world = World::new();
    let (_, entry) = filled(&world, 1).remove(0);
    let serve = world.serve("a", &["--listen", "127.0.0.1:0"]);
    let ticket = world.ok("a", &["invite", "--role", "server"]).trim().to_owned();
    world.ok("b", &["join", &ticket, "--name", "laptop"]);
    assert_eq!(world.json("a", &["conflicts", "--json"])["conflicts"], json!([]));
    world.ok("a", &["move", "INBOX", "1", "Work"]);
    world.ok("b", &["expunge", "INBOX", "1"]);
    world.ok("b", &["sync"]);
    for store in ["a", "b"] {
        let found = world.json(store, &["conflicts", "--json"]);
        assert_eq!(
            (&found["conflicts"][0]["kind"], &found["more"]),
            (&json!("move against expunge"), &json!(false))
        );
        let acts = found["conflicts"][0]["acts"].as_array().unwrap();
        let won = |won: bool| acts.iter().find(|act| act["won"] == won).unwrap();
        assert_eq!((&won(true)["name"], &won(false)["name"]), (&json!("alpha"), &json!("laptop")));
        assert_eq!(won(true)["did"], json!({"what": "moved", "from": "INBOX", "to": "Work"}));
        let told = world.ok(store, &["conflicts"]);
        assert!(told.contains("lost: laptop expunged 1 message from INBOX"), "{told}");
        // By its entry, by its UID, and by the one that vanished.
        let uid = world.json(store, &["messages", "Work", "--json"])[0]["uid"].to_string();
        for name in [entry.as_str(), &format!("Work/{uid}"), "INBOX/1"] {
            let why = world.json(store, &["why", name, "--json"]);
            assert_eq!((&why["entry"], &why["mailbox"]), (&json!(entry), &json!("Work")));
            let what: Vec<_> =
                why["history"].as_array().unwrap().iter().map(|one| &one["did"]["what"]).collect();
            assert_eq!(what.iter().filter(|what| **what == "claimed").count(), 2, "{what:?}");
            assert!(
                what[0] == "added" && what.contains(&&json!("moved")) && what.contains(&&json!("expunged"))
            );
            assert_eq!(why["conflicts"][0], found["conflicts"][0]);
        }
        let why = world.ok(store, &["why", &entry]);
        assert!(why.contains("in Work as UID") && why.contains("gave out UID 1 in INBOX"), "{why}");
    }
    world.run("a", &["why", "INBOX/99"]).fails(1, "Hint: `postmerge messages");
    world.run("a", &["why", "Nowhere/1"]).fails(1, "Hint: `postmerge mailboxes`");
    world.run("a", &["why", "INBOX"]).fails(2, "MAILBOX/UID");
    assert_eq!(serve.stop(), Some(0));
}
