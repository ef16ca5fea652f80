//! Sessions, command by command.

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
        client.ok(command);
    }
    assert_eq!(home.replica.mailbox(&MailboxName::inbox()).unwrap().messages, 0);
}
