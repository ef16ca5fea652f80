//! One process that serves several accounts.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use crate::support::World;

/// Logs in, and gives the lines that end with the answer to `command`.
fn imap(port: u16, user: &str, command: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "a LOGIN {user} secret\r\nb {command}\r\nc LOGOUT\r\n").unwrap();
    let lines: Vec<String> = BufReader::new(stream).lines().map(Result::unwrap).collect();
    lines.join("\n")
}

#[test]
fn two_accounts_share_a_udp_port_and_an_imap_port() {
    let world = World::new();
    world.ok("kim", &["init", "--name", "alpha"]);
    let share = world.path("kim");
    world.ok("lee", &["init", "--name", "alpha", "--share-endpoint", share.to_str().unwrap()]);
    world.ok("eve", &["init", "--name", "alpha"]);
    world.append("kim", "INBOX", "Subject: for Kim\n\n");
    world.append("lee", "INBOX", "Subject: for Lee\n\n");
    for user in ["kim", "lee"] {
        world.run_with(user, &["user", "add", user], b"secret\n").ok();
    }
    let host = world.path("lee");
    let other = world.path("eve");
    world.run("kim", &["serve", "--host", other.to_str().unwrap()]).fails(1, "different endpoints");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let imap_at = format!("127.0.0.1:{port}");
    let arguments = ["--listen", "127.0.0.1:0", "--host", host.to_str().unwrap(), "--imap", imap_at.as_str()];
    let serve = world.serve("kim", &arguments);

    // Over QUIC the hello names the account.
    for user in ["kim", "lee"] {
        let ticket = world.ok(user, &["invite"]);
        let guest = format!("{user}-laptop");
        world.ok(&guest, &["join", ticket.trim()]);
        let shown = world.json(&guest, &["messages", "INBOX", "--json"]);
        let entry = shown[0]["entry"].as_str().unwrap();
        let body = world.ok(&guest, &["body", entry]);
        assert!(body.to_lowercase().contains(&format!("for {user}")), "{body}");
    }
    // Over IMAP the user's name selects it.
    for user in ["kim", "lee"] {
        let heard = imap(port, user, "STATUS INBOX (MESSAGES)");
        assert!(heard.contains("STATUS INBOX (MESSAGES 1)"), "{heard}");
    }
    assert_eq!(serve.stop(), Some(0));
}

#[test]
fn a_user_goes_to_another_store_only_if_that_is_asked_for() {
    let world = World::new();
    world.ok("kim", &["init", "--name", "alpha"]);
    world.ok("lee", &["init", "--name", "alpha"]);
    let [kim, lee] = ["kim", "lee"].map(|store| world.path(store).display().to_string());
    let add = |store: &str, more: &[&str]| {
        world.run_with(store, &[&["user", "add", "eve"], more].concat(), b"secret\n")
    };
    let list = || world.ok("kim", &["user", "list"]);
    assert_eq!(add("kim", &["--dry-run"]).ok(), format!("would add eve, who then logs in to {kim}\n"));
    assert_eq!(add("kim", &[]).ok(), format!("eve logs in to {kim}\n"));
    assert_eq!(add("kim", &[]).ok(), format!("eve logs in to {kim}, with another password\n"));
    add("lee", &[]).fails(1, &format!("eve logs in to {kim} already"));
    add("lee", &["--move", "--dry-run"]).ok();
    assert_eq!(list(), format!("eve  {kim}\n"), "nothing was done");
    assert_eq!(add("lee", &["--move"]).ok(), format!("eve logs in to {lee}, and no longer to {kim}\n"));
    assert_eq!(list(), format!("eve  {lee}\n"));
}
