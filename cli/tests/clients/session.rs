//! One day of a client that keeps a Maildir: download, nothing to do, changes on both sides.

use crate::imap::Imap;
use crate::program::{Kind, Program};
use crate::server::Server;
use crate::support::World;

/// The mailboxes of a test; the last one in modified UTF-7.
pub(crate) const MAILBOXES: [&str; 3] = ["INBOX", "Work", "Entw&APw-rfe"];

/// Bytes of a message at least: more than a run may be sent that has nothing to do.
const BODY: usize = 40_000;

pub(crate) fn message(id: &str) -> String {
    let mut body = String::new();
    // Letters that nobody can compress much: some clients ask for that, and bytes are counted.
    let mut state = id.bytes().fold(1u64, |state, byte| state.wrapping_mul(31).wrapping_add(u64::from(byte)));
    while body.len() < BODY {
        for _ in 0..72 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            body.push(char::from(b'0' + (state >> 58) as u8));
        }
        body.push_str("\r\n");
    }
    format!("From: a@example.org\r\nSubject: {id}\r\nMessage-ID: <{id}@test>\r\n\r\n{body}")
}

pub(crate) fn id(name: &str) -> String {
    format!("<{name}@test>")
}

/// Four messages in each mailbox, `INBOX-1` and so on, some with flags.
pub(crate) fn fill(imap: &mut Imap) {
    for mailbox in MAILBOXES {
        if mailbox != "INBOX" {
            imap.command(&format!("CREATE {mailbox}"));
            // OfflineIMAP looks at subscribed mailboxes only.
            imap.command(&format!("SUBSCRIBE {mailbox}"));
        }
        for (n, flags) in [(1, ""), (2, "\\Seen"), (3, "\\Answered \\Flagged"), (4, "\\Seen \\Draft")] {
            imap.append(mailbox, flags, &message(&format!("{}-{n}", short(mailbox))));
        }
    }
}

/// The part of a mailbox's name that stands in its messages' ids.
pub(crate) fn short(mailbox: &str) -> String {
    mailbox.split('&').next().unwrap().to_lowercase()
}

/// Demands that the client has what the server shows, all of it and once.
#[track_caller]
pub(crate) fn same(server: &Server, client: &Program) {
    let mut imap = server.connect();
    assert_eq!(client.mailboxes(), MAILBOXES.map(str::to_owned).into());
    for mailbox in MAILBOXES {
        assert_eq!(client.look(mailbox), imap.look(mailbox), "{mailbox}: client left, server right");
    }
}

/// Demands that another run changes no file and is sent no body.
#[track_caller]
pub(crate) fn calm(client: &Program) {
    let before = client.files();
    let received = client.run();
    assert!(client.files() == before, "a run with nothing to do changed files");
    assert!(received < BODY as u64, "a run with nothing to do was sent {received} bytes");
}

#[track_caller]
fn has(server: &Server, mailbox: &str, name: &str, flags: &[&str]) {
    let shown = server.connect().look(mailbox);
    let wanted = (id(name), flags.iter().map(|flag| (*flag).to_owned()).collect());
    assert!(shown.contains(&wanted), "{mailbox} has no {wanted:?}: {shown:?}");
}

#[track_caller]
fn lacks(server: &Server, mailbox: &str, name: &str) {
    let shown = server.connect().look(mailbox);
    assert!(shown.iter().all(|(shown, _)| *shown != id(name)), "{mailbox} has {name}: {shown:?}");
}

fn day(server: &Server, kind: Kind) {
    let client = Program::new(kind, server);
    let mut imap = server.connect();
    fill(&mut imap);
    let received = client.run();
    assert!(received > 12 * BODY as u64 / 2, "{received} bytes are no download");
    same(server, &client);
    calm(&client);

    // Flags and new messages, both ways.
    imap.command("SELECT INBOX");
    let (one, two) = (imap.uid(&id("inbox-1")), imap.uid(&id("inbox-2")));
    imap.command(&format!("UID STORE {one} +FLAGS (\\Flagged)"));
    imap.command(&format!("UID STORE {two} -FLAGS (\\Seen)"));
    client.set_letters("INBOX", &id("inbox-3"), "FRS");
    client.set_letters("INBOX", &id("inbox-4"), "D");
    imap.append("Work", "\\Seen", &message("from-there"));
    client.add("Work", &message("from-here"));
    client.run();
    same(server, &client);
    has(server, "INBOX", "inbox-1", &["\\Flagged"]);
    has(server, "INBOX", "inbox-2", &[]);
    has(server, "INBOX", "inbox-3", &["\\Answered", "\\Flagged", "\\Seen"]);
    has(server, "INBOX", "inbox-4", &["\\Draft"]);
    has(server, "Work", "from-here", &[]);
    has(server, "Work", "from-there", &["\\Seen"]);
    calm(&client);

    // Moves.
    imap.command("SELECT INBOX");
    imap.command(&format!("UID MOVE {one} Work"));
    client.move_file("INBOX", &id("inbox-2"), "Entw&APw-rfe");
    client.run();
    same(server, &client);
    for (name, mailbox, flags) in [("inbox-1", "Work", &["\\Flagged"][..]), ("inbox-2", "Entw&APw-rfe", &[])]
    {
        has(server, mailbox, name, flags);
        lacks(server, "INBOX", name);
    }
    calm(&client);

    // Expunges.
    imap.command("SELECT Work");
    let gone = imap.uid(&id("work-2"));
    imap.command(&format!("UID STORE {gone} +FLAGS.SILENT (\\Deleted)"));
    imap.command(&format!("UID EXPUNGE {gone}"));
    client.remove("Work", &id("work-3"));
    client.run();
    same(server, &client);
    lacks(server, "Work", "work-2");
    lacks(server, "Work", "work-3");
    calm(&client);
}

/// A store of the program with a user, served.
pub(crate) fn new_store(world: &World) -> Server {
    world.ok("a", &["init", "--name", "alpha"]);
    Server::postmerge(world, "a")
}

#[test]
#[ignore = "needs mbsync"]
fn mbsync_and_dovecot() {
    day(&Server::dovecot(), Kind::Mbsync);
}

#[test]
#[ignore = "needs mbsync"]
fn mbsync_and_postmerge() {
    day(&new_store(&World::new()), Kind::Mbsync);
}

#[test]
#[ignore = "needs offlineimap"]
fn offlineimap_and_dovecot() {
    day(&Server::dovecot(), Kind::OfflineImap);
}

#[test]
#[ignore = "needs offlineimap"]
fn offlineimap_and_postmerge() {
    day(&new_store(&World::new()), Kind::OfflineImap);
}

#[test]
#[ignore = "needs python3"]
fn imaplib_and_dovecot() {
    day(&Server::dovecot(), Kind::Imaplib);
}

#[test]
#[ignore = "needs python3"]
fn imaplib_and_postmerge() {
    day(&new_store(&World::new()), Kind::Imaplib);
}
