//! A client between two servers that were apart: after the merge it has everything, once, whichever server it meets.

use std::net::UdpSocket;

use crate::imap::Message;
use crate::program::{Kind, Program};
use crate::server::{Server, add_user};
use crate::session::{MAILBOXES, calm, fill, id, message, same};
use crate::support::{World, until};

/// Two machines with a store each. They are apart unless one serves at `address`.
pub(crate) struct Pair {
    pub(crate) alpha: World,
    pub(crate) beta: World,
    /// Where alpha talks to its peer: a port that stays, since beta remembers it.
    address: String,
}

/// The store of either.
pub(crate) const STORE: &str = "mail";

/// Two stores of one account with the same mail, and nobody serving.
pub(crate) fn two_replicas() -> Pair {
    let (alpha, beta) = (World::new(), World::new());
    let address = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).unwrap().to_string();
    alpha.ok(STORE, &["init", "--name", "alpha"]);
    add_user(&alpha, STORE);
    let server = Server::postmerge(&alpha, STORE);
    fill(&mut server.connect());
    drop(server);
    let peer = alpha.serve(STORE, &["--listen", &address]);
    let ticket = alpha.ok(STORE, &["invite", "--role", "server"]).trim().to_owned();
    beta.ok(STORE, &["join", &ticket, "--name", "beta"]);
    add_user(&beta, STORE);
    assert_eq!(peer.stop(), Some(0));
    Pair { alpha, beta, address }
}

/// Lets both exchange everything, claims of UIDs included.
pub(crate) fn heal(pair: &Pair) {
    let Pair { alpha, beta, address } = pair;
    let peer = alpha.serve(STORE, &["--listen", address]);
    until("both to show the same", || {
        alpha.view(STORE);
        beta.ok(STORE, &["sync"]);
        beta.view(STORE);
        beta.ok(STORE, &["sync"]);
        alpha.status(STORE, "digest") == beta.status(STORE, "digest")
    });
    assert_eq!(peer.stop(), Some(0));
}

/// What a store holds, asked without IMAP.
fn held(world: &World, mailbox: &str) -> Vec<Message> {
    let name = if mailbox.starts_with("Entw") { "Entwürfe" } else { mailbox };
    let rows = world.json(STORE, &["messages", name, "--json"]);
    let mut held: Vec<Message> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let body = world.ok(STORE, &["body", row["entry"].as_str().unwrap()]);
            let flags = row["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap().to_owned());
            (crate::imap::message_id(&body), flags.collect())
        })
        .collect();
    held.sort();
    held
}

/// Mail and changes at both while they are apart: the next UID of INBOX is wanted twice.
fn go_apart(pair: &Pair, client: &Program) {
    let alpha = Server::postmerge(&pair.alpha, STORE);
    let mut imap = alpha.connect();
    for n in 0..3 {
        imap.append("INBOX", "", &message(&format!("at-alpha-{n}")));
    }
    imap.command("SELECT INBOX");
    let (one, two) = (imap.uid(&id("inbox-1")), imap.uid(&id("inbox-2")));
    imap.command(&format!("UID STORE {one} +FLAGS (\\Flagged)"));
    imap.command(&format!("UID MOVE {two} Work"));
    // The client learns of alpha's side, and adds to it.
    client.roam(&alpha);
    client.set_letters("Work", &id("work-1"), "FS");
    client.add("INBOX", &message("by-the-client"));
    client.run();
    same(&alpha, client);
    drop((imap, alpha));

    let beta = Server::postmerge(&pair.beta, STORE);
    let mut imap = beta.connect();
    for n in 0..3 {
        imap.append("INBOX", "\\Seen", &message(&format!("at-beta-{n}")));
    }
    imap.command("SELECT INBOX");
    let (one, two, three) = (imap.uid(&id("inbox-1")), imap.uid(&id("inbox-2")), imap.uid(&id("inbox-3")));
    imap.command(&format!("UID STORE {one} +FLAGS (\\Answered)"));
    // The same message goes elsewhere: one place wins, and there is one message.
    imap.command(&format!("UID MOVE {two} Entw&APw-rfe"));
    imap.command(&format!("UID STORE {three} +FLAGS.SILENT (\\Deleted)"));
    imap.command(&format!("UID EXPUNGE {three}"));
}

/// What must be there after the merge, each once.
fn expected() -> Vec<String> {
    let mut ids: Vec<String> = ["inbox", "work", "entw"]
        .iter()
        .flat_map(|mailbox| (1..=4).map(move |n| id(&format!("{mailbox}-{n}"))))
        .filter(|shown| *shown != id("inbox-3"))
        .chain((0..3).flat_map(|n| [id(&format!("at-alpha-{n}")), id(&format!("at-beta-{n}"))]))
        .chain([id("by-the-client")])
        .collect();
    ids.sort();
    ids
}

/// The client's Maildir against the store and the server.
fn compare(world: &World, server: &Server, client: &Program) {
    same(server, client);
    let mut all = Vec::new();
    for mailbox in MAILBOXES {
        let shown = client.look(mailbox);
        if mailbox == "INBOX" {
            let both = (id("inbox-1"), ["\\Answered", "\\Flagged"].map(str::to_owned).into());
            assert!(shown.contains(&both), "a flag of one side is lost: {shown:?}");
        }
        assert_eq!(shown, held(world, mailbox), "{mailbox}: client left, store right");
        all.extend(shown.into_iter().map(|(id, _)| id));
    }
    all.sort();
    assert_eq!(all, expected(), "left is what the client has");
}

fn split_and_heal(kind: Kind) {
    let pair = two_replicas();
    let alpha = Server::postmerge(&pair.alpha, STORE);
    let client = Program::new(kind, &alpha);
    client.run();
    same(&alpha, &client);
    drop(alpha);

    go_apart(&pair, &client);
    heal(&pair);
    let alpha = Server::postmerge(&pair.alpha, STORE);
    client.roam(&alpha);
    client.run();
    compare(&pair.alpha, &alpha, &client);
    calm(&client);
    drop(alpha);

    // The other server is the same mailbox: nothing is fetched again.
    let beta = Server::postmerge(&pair.beta, STORE);
    client.roam(&beta);
    calm(&client);
    compare(&pair.beta, &beta, &client);
}

#[test]
#[ignore = "needs mbsync"]
fn mbsync_across_a_merge() {
    split_and_heal(Kind::Mbsync);
}

#[test]
#[ignore = "needs offlineimap"]
fn offlineimap_across_a_merge() {
    split_and_heal(Kind::OfflineImap);
}

#[test]
#[ignore = "needs python3"]
fn imaplib_across_a_merge() {
    split_and_heal(Kind::Imaplib);
}
