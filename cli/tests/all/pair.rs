//! Two replicas, each a process, over QUIC on loopback.

use crate::support::{World, files, until};
use crate::tree::{read_tree, write_folder, write_tree};

/// A store with mail that is served, and a ticket for another.
fn first(world: &World, role: &str) -> (crate::support::Serve, String) {
    write_tree(&world.path("mail"));
    world.ok("a", &["init", "--name", "alpha"]);
    world.ok("a", &["import", "mail"]);
    let serve = world.serve("a", &["--listen", "127.0.0.1:0"]);
    let ticket = world.ok("a", &["invite", "--role", role]).trim().to_owned();
    assert!(ticket.starts_with("postmerge1-") && !ticket.contains(char::is_whitespace), "{ticket}");
    (serve, ticket)
}

#[test]
fn two_servers_go_apart_and_come_together() {
    let world = World::new();
    let (serve, ticket) = first(&world, "server");
    world.ok("b", &["join", &ticket, "--name", "beta"]);
    assert_eq!(world.view("a"), world.view("b"));
    assert_eq!(world.status("b", "owed_bodies"), 0);
    // Apart: the same next UIDs would be given twice if nobody thought of it.
    let mine = world.append("a", "INBOX", "Subject: at A\n\n");
    let other = world.append("b", "INBOX", "Subject: at B\n\n");
    let gone = world.append("b", "INBOX", "Subject: soon gone\n\n");
    assert!(mine.0 != other.0, "two servers gave one UID");
    world.ok("b", &["expunge", "INBOX", &gone.0.to_string()]);
    for (store, target, change) in
        [("a", "Archive", ["+flagged", "-seen"]), ("b", "Work", ["+answered", "+later"])]
    {
        world.ok(store, &["mailbox", "create", target]);
        world.ok(store, &["move", "INBOX", "9", target]);
        world.ok(store, &["flag", "INBOX", "3,6", change[0], change[1]]);
    }
    world.ok("a", &["flag", "Entwürfe", "900", "+deleted"]);
    world.ok("b", &["sync"]);
    settle(&world, || drop(world.ok("b", &["sync"])));
    let view = world.view("a");
    assert_eq!(view, world.view("b"));
    let shown = format!("{view:?}");
    assert!(shown.contains(&mine.1) && shown.contains(&other.1) && !shown.contains(&gone.1));
    let flags: Vec<_> = view.iter().find(|(mailbox, _)| mailbox["name"] == "INBOX").unwrap().1[0]["flags"]
        .as_array()
        .unwrap()
        .clone();
    assert!(
        ["\\Answered", "\\Flagged", "later"].iter().all(|flag| flags.contains(&(*flag).into())),
        "{flags:?}"
    );
    world.ok("a", &["export", "from-a"]);
    world.ok("b", &["export", "from-b"]);
    assert_eq!(files(&world.path("from-a")), files(&world.path("from-b")));
    assert_eq!(read_tree(&world.path("from-a")), read_tree(&world.path("from-b")));
    // And live: what one is given, the other shows.
    let second = world.serve("b", &["--listen", "127.0.0.1:0"]);
    until("a conversation", || world.status("a", "connected") == 1);
    let pushed = world.append("a", "INBOX", "Subject: pushed\n\n");
    until("the push", || world.run("b", &["body", &pushed.1]).code == 0);
    let back = world.append("b", "INBOX", "Subject: back\n\n");
    until("the push back", || world.run("a", &["body", &back.1]).code == 0);
    assert_eq!((second.stop(), serve.stop()), (Some(0), Some(0)));
}

/// Both are shown until nobody has a UID left to give.
fn settle(world: &World, sync: impl Fn()) {
    until("both to show the same", || {
        world.view("a");
        sync();
        world.view("b");
        sync();
        world.status("a", "digest") == world.status("b", "digest")
    });
}

#[test]
fn a_bad_ticket_lets_nobody_in() {
    let world = World::new();
    let (_serve, ticket) = first(&world, "observer");
    world.run("b", &["join", "hello"]).fails(1, "Hint: ");
    let mut altered = ticket.clone().into_bytes();
    let at = altered.len() / 2;
    altered[at] = if altered[at] == b'a' { b'b' } else { b'a' };
    world.run("b", &["join", &String::from_utf8(altered).unwrap()]).fails(1, "Hint: ");
    assert!(world.ok("b", &["join", &ticket, "--dry-run"]).contains("would join"));
    world.run("b", &["mailboxes"]).fails(10, "");
    world.ok("b", &["join", &ticket]);
    world.run("c", &["join", &ticket]).fails(1, "already used");
    assert!(!world.path("c").exists(), "nothing is left of it");
    let again = world.run("b", &["join", &ticket]);
    again.fails(1, "there is a replica in ");
    again.fails(1, "Hint: --store DIR");
    let _second = world.serve("b", &["--offline"]);
    let served = world.run("b", &["join", &ticket]);
    served.fails(11, "there is a replica in ");
    served.fails(11, "already, and it is being served");
}

#[test]
fn a_ticket_that_came_too_late_is_of_no_use() {
    let world = World::new();
    let (_serve, _) = first(&world, "server");
    let ticket = world.ok("a", &["invite", "--valid", "1s"]).trim().to_owned();
    until("the ticket to expire", || world.run("b", &["join", &ticket, "--dry-run"]).code != 0);
    let late = world.run("b", &["join", &ticket]);
    late.fails(1, "the ticket expired");
    late.fails(1, "Hint: ask for a new one");
    assert!(!world.path("b").exists());
    assert_eq!(world.json("a", &["peers", "--json"]).as_array().unwrap().len(), 1);
    // Nothing stands in the way of the next one.
    let fresh = world.ok("a", &["invite", "--valid", "5m"]).trim().to_owned();
    world.ok("b", &["join", &fresh]);
}

#[test]
fn an_observer_has_uids_of_its_own_and_knows_the_shared_ones() {
    let world = World::new();
    let (_serve, ticket) = first(&world, "observer");
    world.ok("b", &["join", &ticket, "--no-sync"]);
    assert!(world.status("b", "owed_bodies").as_u64().unwrap() > 0);
    let partly = world.run("b", &["export", "half"]);
    partly.fails(3, "left out 39 messages");
    partly.fails(3, "  and 34 more");
    assert!(partly.err.lines().filter(|line| line.contains("UID ")).count() == 5, "{partly:?}");
    world.ok("b", &["sync"]);
    assert_eq!(world.status("b", "owed_bodies"), 0);
    let shown = world.json("b", &["messages", "INBOX", "--json"]);
    let shared = world.json("a", &["messages", "INBOX", "--json"]);
    let uids = |rows: &serde_json::Value, field: &str| -> Vec<u64> {
        let mut uids: Vec<u64> =
            rows.as_array().unwrap().iter().map(|row| row[field].as_u64().unwrap()).collect();
        uids.sort_unstable();
        uids
    };
    assert_eq!(uids(&shown, "shared_uid"), uids(&shared, "uid"));
    assert_eq!(uids(&shown, "uid"), (1..=36).collect::<Vec<_>>());
    assert!(shared[0].get("shared_uid").is_none());
}

#[test]
fn a_maildir_that_is_there_already_gives_the_bodies() {
    let world = World::new();
    let (serve, ticket) = first(&world, "server");
    write_tree(&world.path("copy"));
    write_folder(&world.path("copy/.Only here"), 5, &[(1, "S", b"Subject: only here\n\n")]);
    let before = world.view("a");
    world.ok("b", &["join", &ticket, "--adopt", "copy", "--no-sync"]);
    // Without a sync no body can have come from the other side.
    assert_eq!(world.status("b", "owed_bodies"), 0);
    let mut after = world.view("b");
    after.retain(|(mailbox, _)| mailbox["name"] != "Only here");
    assert_eq!(after, before, "nothing is doubled");
    world.ok("b", &["sync"]);
    assert_eq!(world.view("a"), world.view("b"));
    // A peer that is away does not keep anybody from joining.
    world.ok("b", &["peers", "set-address", "nowhere.invalid:7367"]);
    world.ok("b", &["sync"]);
    let ticket = world.ok("a", &["invite", "--role", "server"]).trim().to_owned();
    write_folder(&world.path("third"), 5, &[(1, "S", b"Subject: only in the third\n\n")]);
    let third = world.run("c", &["join", &ticket, "--adopt", "third"]);
    assert!(third.code == 0 && third.err.contains("cannot sync with "), "{third:?}");
    assert!(third.err.contains("joined account"), "{third:?}");
    assert_eq!(world.view("a"), world.view("c"));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn the_same_conversation_runs_through_pipes() {
    let world = World::new();
    let (serve, ticket) = first(&world, "server");
    world.ok("b", &["join", &ticket]);
    let program = env!("CARGO_BIN_EXE_postmerge");
    let through = format!("{program} --store {} stdio", world.path("a").display());
    // Inside the daemon of the other side, then without one.
    let (_, entry) = world.append("a", "INBOX", "Subject: by pipe\n\n");
    world.ok("b", &["sync", "--via", &through]);
    assert_eq!(world.ok("b", &["body", &entry]), "Subject: by pipe\n\n");
    assert_eq!(serve.stop(), Some(0));
    let (_, entry) = world.append("b", "INBOX", "Subject: the other way\n\n");
    world.ok("b", &["sync", "--via", &through]);
    assert_eq!(world.ok("a", &["body", &entry]), "Subject: the other way\n\n");
    world.run("b", &["sync"]).fails(1, "Hint: ");
}

#[test]
fn who_is_forgotten_is_sent_away() {
    let world = World::new();
    let (_serve, ticket) = first(&world, "server");
    world.ok("b", &["join", &ticket, "--name", "beta"]);
    let _second = world.serve("b", &["--listen", "127.0.0.1:0"]);
    until("a conversation", || world.status("a", "connected") == 1);
    world.ok("a", &["forget", "beta", "--dry-run"]);
    assert_eq!(world.status("a", "connected"), 1);
    world.ok("a", &["forget", "beta"]);
    until("the conversation to end", || world.status("a", "connected") == 0);
    let refused = world.run("b", &["sync"]);
    refused.fails(1, "this replica was forgotten");
    refused.fails(1, "Hint: `postmerge export` still writes out what it holds; ");
    let peers = world.json("a", &["peers", "--json"]);
    let beta = peers.as_array().unwrap().iter().find(|peer| peer["name"] == "beta").unwrap().clone();
    assert_eq!(beta["status"], "forgotten");
}

#[test]
fn a_port_that_the_system_chose_is_not_told_to_the_peers() {
    let world = World::new();
    world.ok("a", &["init", "--name", "alpha"]);
    let serve = world.serve("a", &["--listen", "127.0.0.1:0"]);
    let peers = world.json("a", &["peers", "--json"]);
    assert_eq!(peers[0]["addresses"], serde_json::json!([]));
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_command_that_does_not_end_holds_nobody_up() {
    let world = World::new();
    let (_serve, ticket) = first(&world, "observer");
    world.ok("b", &["join", &ticket, "--name", "beta"]);
    let marker = world.path("it went on");
    let command = format!("exec >&-; sleep 20; touch '{}'", marker.display());
    world.run("b", &["sync", "--via", &command]).fails(1, "no postmerge answers");
    assert!(!marker.exists(), "it was waited for");
}

#[test]
fn a_peer_is_compared_alone_and_beside_a_daemon() {
    let world = World::new();
    let (serve, ticket) = first(&world, "server");
    world.ok("b", &["join", &ticket, "--name", "beta"]);
    world.append("b", "INBOX", "Subject: only at B before\n\n");
    let verdict = world.json("b", &["verify", "alpha", "--json"]);
    assert_eq!((&verdict["same"], &verdict["uids_compared"]), (&true.into(), &true.into()), "{verdict}");
    assert!(world.ok("b", &["verify", "alpha"]).contains("same     INBOX: "));
    world.run("b", &["verify", "beta"]).fails(1, "this replica itself");
    world.run("b", &["verify", "nobody"]).fails(1, "no peer");
    let second = world.serve("b", &["--listen", "127.0.0.1:0"]);
    until("a conversation", || world.status("a", "connected") == 1);
    for (store, peer) in [("a", "beta"), ("b", "alpha")] {
        let verdict = world.json(store, &["verify", peer, "--json"]);
        assert_eq!(verdict["same"], true, "{verdict}");
        assert_eq!(world.status(store, "peers")[0]["differs"], false);
    }
    assert_eq!(world.status("a", "connected"), 1, "in the conversation that goes on");
    assert_eq!((serve.stop(), second.stop()), (Some(0), Some(0)));
    world.run("b", &["verify", "alpha"]).fails(1, "cannot compare with alpha");
}
