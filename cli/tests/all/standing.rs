//! How it stands with each peer, as `status` says it with a daemon and without.

use serde_json::{Value, json};

use crate::support::{Serve, World, until};

/// Two servers that have met, the first of which is served.
fn pair(world: &World) -> Serve {
    world.ok("a", &["init", "--name", "alpha"]);
    world.append("a", "INBOX", "Subject: one\n\n");
    let serve = world.serve("a", &["--listen", "127.0.0.1:0"]);
    assert_eq!(world.status("a", "peers"), json!([]));
    let ticket = world.ok("a", &["invite", "--role", "server"]);
    world.ok("b", &["join", ticket.trim(), "--name", "beta"]);
    serve
}

/// The only peer of a store.
#[track_caller]
fn peer(world: &World, store: &str) -> Value {
    let peers = world.status(store, "peers");
    assert_eq!(peers.as_array().unwrap().len(), 1, "{peers}");
    peers[0].clone()
}

/// What each lacks of the other's.
#[track_caller]
fn lag(world: &World, store: &str) -> [u64; 2] {
    let peer = peer(world, store);
    ["unacknowledged_changes", "missing_changes"].map(|field| peer[field].as_u64().unwrap())
}

#[test]
fn a_lag_is_told_with_a_daemon_and_without() {
    let world = World::new();
    let serve = pair(&world);
    assert_eq!((lag(&world, "a"), lag(&world, "b")), ([0, 0], [0, 0]));
    let met = peer(&world, "a");
    assert_eq!(
        (&met["name"], &met["connected"], &met["error"]),
        (&json!("beta"), &json!(false), &Value::Null)
    );
    assert!(met["sent_bytes"].as_u64().unwrap() > 1000 && met["received_bytes"].as_u64().unwrap() > 1000);
    assert_eq!(met["since"], met["last_contact"]);

    world.append("a", "INBOX", "Subject: two\n\n");
    world.append("b", "INBOX", "Subject: three\n\n");
    assert_eq!((lag(&world, "a"), lag(&world, "b")), ([1, 0], [1, 0]));
    assert_eq!(serve.stop(), Some(0));
    let away = peer(&world, "a");
    assert_eq!(lag(&world, "a"), [1, 0], "what was seen is remembered");
    assert_eq!(away["last_contact"], met["last_contact"]);
    assert_eq!((&away["connected"], &away["sent_bytes"]), (&Value::Null, &Value::Null));
    let said = world.run("a", &["status"]).out;
    assert!(said.contains("beta  away "), "{said}");

    let _serve = world.serve("a", &["--listen", "127.0.0.1:0"]);
    let through = format!("{} --store {} stdio", env!("CARGO_BIN_EXE_postmerge"), world.path("a").display());
    world.ok("b", &["sync", "--via", &through]);
    until("both to know of it", || (lag(&world, "a"), lag(&world, "b")) == ([0, 0], [0, 0]));
    assert!(peer(&world, "a")["last_contact"].as_str() >= away["last_contact"].as_str());
    let said = world.run("a", &["--read-only", "status"]).out;
    assert!(said.contains("beta  away "), "{said}");
}

#[test]
fn a_peer_that_is_connected_is_told_from_one_that_went_away() {
    let world = World::new();
    let _serve = pair(&world);
    let second = world.serve("b", &["--listen", "127.0.0.1:0"]);
    until("a conversation", || peer(&world, "a")["in_sync"] == json!(true));
    let begun = peer(&world, "a");
    assert!(begun["last_contact"].as_str() >= begun["since"].as_str(), "{begun}");
    // What is pushed is acknowledged, and counted.
    world.append("a", "INBOX", "Subject: pushed\n\n");
    until("the acknowledgement", || {
        lag(&world, "a") == [0, 0] && peer(&world, "a")["in_sync"] == json!(true)
    });
    let pushed = peer(&world, "a");
    assert!(pushed["sent_bytes"].as_u64() > begun["sent_bytes"].as_u64(), "{pushed}");
    assert_eq!(pushed["since"], begun["since"]);
    let said = world.run("a", &["status"]).out;
    assert!(said.contains("beta  in sync "), "{said}");

    assert_eq!(second.stop(), Some(0));
    until("the end of it", || peer(&world, "a")["connected"] == json!(false));
    let gone = peer(&world, "a");
    assert!(gone["sent_bytes"].as_u64() >= pushed["sent_bytes"].as_u64(), "what was counted stays counted");
    assert!(gone["since"].as_str() >= pushed["since"].as_str(), "{gone}");
}

#[test]
fn a_backup_and_a_store_that_is_only_read_say_what_they_know() {
    let world = World::new();
    let serve = pair(&world);
    assert_eq!(serve.stop(), Some(0));
    world.ok("a", &["backup", "copy"]);
    let status: Value =
        serde_json::from_str(&world.run("copy", &["--read-only", "status", "--json"]).out).unwrap();
    assert_eq!(status["peers"][0]["last_contact"], Value::Null, "a backup has met nobody");
    let said = world.run("copy", &["--read-only", "status"]).out;
    assert!(said.contains("beta  never seen "), "{said}");
    // What cannot be read is as good as none.
    std::fs::write(world.path("a/contacts"), "nonsense").unwrap();
    assert_eq!(peer(&world, "a")["unacknowledged_changes"], Value::Null);
    assert!(world.ok("a", &["check"]).starts_with("all is well"));
}
