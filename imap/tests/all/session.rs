//! Sessions, command by command.

use std::time::Duration;

use postmerge::mailbox::MailboxName;
use postmerge::member::{MemberName, Role, SecretKey};
use postmerge::replica::{Founding, NewMessage, Replica};
use postmerge::uid::Block;
use postmerge_imap::message::Summary;
use postmerge_imap::{Indexer, OUTPUT, summarize_arrivals};

use crate::client::{Client, home};

const MESSAGE: &str = "From: Kim <kim@example.org>\r\nTo: Ada <ada@example.org>\r\nSubject: lunch\r\nDate: Mon, 24 Nov 2025 12:00:00 +0100\r\nMessage-ID: <1@example.org>\r\n\r\nSoup today?\r\n";

#[test]
fn a_message_comes_back_as_it_was_sent() {
    let home = home();
    let mut client = Client::login(&home.account);
    let done = client.command(&format!("APPEND INBOX (\\Seen) {{{}+}}\r\n{MESSAGE}", MESSAGE.len())).1;
    assert!(done.starts_with("OK [APPENDUID "), "{done}");
    let lines = client.ok("SELECT INBOX");
    assert!(lines.contains(&"* 1 EXISTS".to_owned()), "{lines:?}");
    let heard =
        client.ok("FETCH 1 (UID FLAGS RFC822.SIZE ENVELOPE BODYSTRUCTURE BODY.PEEK[TEXT])").join("\r\n");
    assert!(heard.ends_with("BODY[TEXT] {13}\r\nSoup today?\r\n)"), "{heard}");
    for (command, answer) in [
        ("STATUS INBOX (MESSAGES UNSEEN UIDNEXT)", "* STATUS INBOX (MESSAGES 1 UNSEEN 0 UIDNEXT 2)"),
        ("STORE 1 +FLAGS.SILENT (\\Deleted kw)", ""),
        ("SEARCH SUBJECT lunch", "* SEARCH 1"),
        ("UID SEARCH RETURN (COUNT) TEXT soup", " UID COUNT 1"),
        ("SORT (SUBJECT) UTF-8 ALL", "* SORT 1"),
        ("THREAD REFERENCES UTF-8 ALL", "* THREAD (1)"),
        ("EXPUNGE", "* 1 EXPUNGE"),
        ("SEARCH ALL", "* SEARCH"),
    ] {
        let lines = client.ok(command).join("\n");
        assert!(lines.ends_with(answer), "{command}: {lines}");
    }
    assert_eq!(home.replica.mailbox(&MailboxName::inbox()).unwrap().messages, 0);
}

/// Whether the index has a summary of each of so many messages.
fn summarised(replica: &Replica) -> Vec<bool> {
    let (snapshot, mailbox) = replica.open_mailbox(&MailboxName::inbox()).unwrap();
    let messages = snapshot.messages(mailbox.id, postmerge::mailbox::Uid::FIRST, usize::MAX).unwrap();
    let blobs: Vec<_> = messages.iter().map(|message| message.blob).collect();
    let found = replica.summaries(&blobs).unwrap();
    let is_whole = |bytes: &Vec<u8>| Summary::read(bytes).is_ok_and(|summary| summary.size() > 0);
    found.iter().map(|bytes| bytes.as_ref().is_some_and(is_whole)).collect()
}

#[test]
fn summaries_are_there_before_a_client_asks() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = SecretKey::from_seed([7; 32]).peer_id();
    let name = MemberName::new("desk").unwrap();
    let founding = Founding { role: Role::Server, name, block: Block::STANDARD, endpoint };
    let replica = Replica::found(dir.path(), None, &founding).unwrap();
    let append = |n: usize| {
        let text = format!("Subject: {n}\n\n");
        replica.append(&MailboxName::inbox(), text.as_bytes(), Default::default(), None).unwrap();
    };
    (0..70).for_each(append);
    summarize_arrivals(&replica);
    append(70);
    assert_eq!(summarised(&replica), [vec![false; 70], vec![true]].concat());
    let mut indexer = Indexer::default();
    while indexer.step(&replica).unwrap() {}
    assert_eq!(summarised(&replica), vec![true; 71]);
    append(71);
    assert_eq!(summarised(&replica), vec![true; 72]);
    assert!(!Indexer::default().step(&replica).unwrap(), "there is nothing left to do");
}

#[test]
fn who_is_silent_hears_the_news_and_at_last_goodbye() {
    let home = home();
    let mut client = Client::login(&home.account);
    assert!(client.refused("SELECT nowhere").starts_with("NO"));
    client.ok("SELECT INBOX");
    assert!(client.say_bytes(b"i IDLE\r\n").starts_with("+ "));
    home.replica.append(&MailboxName::inbox(), MESSAGE.as_bytes(), Default::default(), None).unwrap();
    let news = client.changed();
    assert!(news.contains("* 1 EXISTS\r\n"), "{news}");
    assert!(client.say_bytes(b"DONE\r\n").starts_with("i OK ") && !client.closed);
    // RFC 9051, section 5.4: no server may lose patience before 30 minutes.
    assert_eq!(client.wait(Duration::from_secs(30 * 60)), "");
    let bye = client.wait(Duration::from_secs(5 * 60));
    assert!(bye.starts_with("* BYE ") && client.closed, "{bye}");
}

/// The most that one step says, in bytes, and how many lines all of them say, tagged one included.
fn said(client: &mut Client, command: &str) -> (usize, usize) {
    client.session.receive(format!("t {command}\r\n").as_bytes(), client.now);
    let (mut most, mut heard) = (0, String::new());
    while let Some(step) = client.step() {
        most = most.max(step.len());
        heard.push_str(&step);
    }
    let last = heard.lines().last().unwrap_or_default();
    assert!(last.starts_with("t OK"), "{command}: {last}");
    (most, heard.lines().count())
}

#[test]
fn answers_about_thousands_of_messages_come_in_steps() {
    const COUNT: usize = 3000;
    let home = home();
    let (body, _) = home.replica.put_body(MESSAGE.as_bytes()).unwrap();
    let one = NewMessage { body, keywords: Default::default(), internal_date: None };
    home.replica.append_all(&MailboxName::inbox(), vec![one; COUNT]).unwrap();
    let mut client = Client::login(&home.account);
    client.ok("ENABLE QRESYNC");
    client.ok("SELECT INBOX");
    // Every second one goes, so that what vanished is many ranges.
    let odd: Vec<String> = (1..=COUNT).step_by(2).map(|uid| uid.to_string()).collect();
    client.ok(&format!("UID STORE {} +FLAGS.SILENT (\\Deleted)", odd.join(",")));
    client.ok("EXPUNGE");
    let long = "k".repeat(90);
    let (most, lines) = said(&mut client, &format!("STORE 1:* +FLAGS ({long})"));
    assert!(most < OUTPUT + 1024, "{most}");
    // FLAGS and PERMANENTFLAGS, and the tagged one.
    assert_eq!(lines, COUNT / 2 + 3);
    let mailbox = home.replica.mailbox(&MailboxName::inbox()).unwrap();
    let own = mailbox.highest_modseq.value();
    for modseq in [own & 0xffff | 1 << 16, own ^ 1] {
        let select = format!("SELECT INBOX (QRESYNC ({} {modseq}))", mailbox.uid_validity);
        let (most, lines) = said(&mut client, &select);
        assert!(most < OUTPUT + 1024, "{modseq}: {most}");
        assert!((COUNT / 2 + 8..COUNT / 2 + 20).contains(&lines), "{modseq}: {lines}");
    }
}
