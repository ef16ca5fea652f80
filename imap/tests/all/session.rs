//! Sessions, command by command.

use std::time::Duration;

use postmerge::mailbox::MailboxName;

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
    println!("{heard}");
    assert!(heard.ends_with("BODY[TEXT] {13}\r\nSoup today?\r\n)"), "{heard}");
    for command in [
        "NOOP",
        "LIST \"\" *",
        "STATUS INBOX (MESSAGES UNSEEN UIDNEXT SIZE)",
        "STORE 1 +FLAGS (\\Deleted kw)",
        "SEARCH SUBJECT lunch",
        "UID SEARCH RETURN (ALL COUNT) TEXT soup",
        "SORT (SUBJECT) UTF-8 ALL",
        "THREAD REFERENCES UTF-8 ALL",
        "EXPUNGE",
        "CAPABILITY",
    ] {
        println!("{command}\n  {:?}", client.command(command));
    }
    assert_eq!(home.replica.mailbox(&MailboxName::inbox()).unwrap().messages, 0);
}

#[test]
fn who_is_silent_hears_the_news_and_at_last_goodbye() {
    let home = home();
    let mut client = Client::login(&home.replica);
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
