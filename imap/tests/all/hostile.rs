//! Clients that send what makes no sense.

use postmerge_imap::SessionLimits;
use postmerge_imap::grammar::Limits;
use proptest::prelude::*;

use crate::client::{Client, home};
use crate::talk::limited;

/// What a client may send wrongly after it has selected INBOX with one message, and how the answer starts.
const WRONG: &[(&str, &str)] = &[
    ("NONSENSE", "BAD"),
    ("FETCH", "BAD"),
    ("FETCH 0 (FLAGS)", "BAD"),
    ("FETCH 2 (FLAGS)", "BAD"),
    ("FETCH 4294967296 (FLAGS)", "BAD"),
    ("FETCH 1 (BODY[1.0])", "BAD"),
    ("FETCH 1 (BODY[]<0.0>)", "BAD"),
    ("FETCH 1 (FLAGS", "BAD"),
    ("FETCH 1 (FLAGS) (CHANGEDSINCE 0 VANISHED)", "BAD"),
    ("STORE 1 +FLAGS (\\Seen", "BAD"),
    ("STORE 1 FLAGGED (\\Seen)", "BAD"),
    ("STORE 1 (UNCHANGEDSINCE x) +FLAGS (\\Seen)", "BAD"),
    ("SEARCH", "BAD"),
    ("SEARCH CHARSET KLINGON ALL", "NO [BADCHARSET"),
    ("SEARCH SINCE 32-Foo-2020", "BAD"),
    ("SORT (WEIGHT) UTF-8 ALL", "BAD"),
    ("THREAD KNITTING UTF-8 ALL", "BAD"),
    ("COPY 1 Nowhere", "NO [TRYCREATE]"),
    ("MOVE 2 INBOX", "BAD"),
    ("CREATE INBOX", "NO"),
    ("CREATE a//b", "NO"),
    ("DELETE Nowhere", "NO [NONEXISTENT]"),
    ("RENAME Nowhere Somewhere", "NO [NONEXISTENT]"),
    ("STATUS INBOX (WEATHER)", "BAD"),
    ("LIST \"\"", "BAD"),
    ("EXAMINE INBOX (QRESYNC (1 1))", "BAD"),
    ("LOGIN kim secret", "BAD"),
    ("STARTTLS", "BAD"),
    ("APPEND INBOX (\\Seen)", "BAD"),
    ("APPEND INBOX {99999999999999999999}", "BAD"),
    ("DONE", "BAD"),
    ("UID", "BAD"),
    ("UID NOOP", "BAD"),
    ("ENABLE", "BAD"),
    ("NOOP NOOP", "BAD"),
];

#[test]
fn every_mistake_is_answered_and_the_session_lives() {
    let home = home();
    let mut client = Client::login(&home.account);
    client.ok("APPEND INBOX {14+}\r\nSubject: x\r\n\r\n");
    client.ok("SELECT INBOX");
    for (command, expected) in WRONG {
        let answer = client.refused(command);
        assert!(answer.starts_with(expected), "{command}: {answer}");
    }
    // Without a tag nobody can be answered but the connection.
    for line in ["", " ", "\t", "x", "* NOOP", "+ NOOP", "\u{7f} NOOP"] {
        let heard = client.say_bytes(format!("{line}\r\n").as_bytes());
        assert!(
            heard.starts_with("* BAD") || heard.starts_with("x BAD") || heard.is_empty(),
            "{line:?}: {heard}"
        );
        client.ok("NOOP");
    }
    assert_eq!(client.ok("FETCH 1 (FLAGS)"), ["* 1 FETCH (FLAGS ())"]);
}

#[test]
fn what_is_beyond_a_limit_of_the_settings_is_refused_and_the_session_goes_on() {
    let home = home();
    let limits = SessionLimits {
        command: Limits { line: 60, literals: 10, swallow: 100 },
        message: 20,
        messages: 2,
        search_keys: 3,
    };
    let (mut client, _) = Client::connect_with(&home.account, limited(limits));
    client.ok("LOGIN kim secret");
    client.ok("SELECT INBOX");
    client.ok("SEARCH OR SEEN DRAFT");
    assert!(client.refused("SEARCH OR SEEN NOT DRAFT").starts_with("NO [LIMIT]"));
    assert!(client.refused("SEARCH (SEEN) DRAFT ANSWERED").starts_with("NO [LIMIT]"));
    assert!(client.refused(&format!("NOOP {}", "x".repeat(60))).starts_with("BAD"));
    client.ok("STATUS {5+}\r\nINBOX (MESSAGES)");
    assert!(client.refused("STATUS {11+}\r\nINBOX/12345 (MESSAGES)").starts_with("BAD"));
    client.ok("APPEND INBOX {20+}\r\n01234567890123456789");
    assert!(client.refused("APPEND INBOX {21+}\r\n012345678901234567890").starts_with("NO [TOOBIG]"));
    client.ok("APPEND INBOX {1+}\r\na {1+}\r\nb");
    assert!(client.refused("APPEND INBOX {1+}\r\na {1+}\r\nb {1+}\r\nc").starts_with("NO [LIMIT]"));
    client.ok("NOOP");
    let heard = client.say_bytes(b"x APPEND INBOX {101+}\r\n");
    assert!(heard.contains("* BYE [LIMIT]"), "{heard}");
}

#[test]
fn a_url_that_means_nothing_is_told_without_breaking_the_line() {
    let home = home();
    let mut client = Client::login(&home.account);
    let url = "/INBOX]\r\n* BYE \u{e9}";
    let (lines, done) = client.command(&format!("APPEND INBOX CATENATE (URL {{{}+}}\r\n{url})", url.len()));
    assert_eq!(lines, Vec::<String>::new());
    assert!(done.starts_with("NO [BADURL /INBOX%5D%0D%0A*%20BYE%20%C3%A9] "), "{done}");
    client.ok("NOOP");
}

#[test]
fn a_line_without_end_ends_the_session() {
    let home = home();
    let mut client = Client::login(&home.account);
    let mut heard = String::new();
    for _ in 0..1000 {
        heard += &client.say_bytes(&[b'a'; 64 << 10]);
        if client.closed {
            break;
        }
    }
    assert!(client.closed && heard.starts_with("* BYE ") || heard.contains("BAD"), "{heard}");
}

/// Pieces of which lines are made that nearly make sense.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let words = &[
        "a ",
        "b2 ",
        "LOGIN kim secret",
        "LOGIN ",
        "SELECT INBOX",
        "EXAMINE ",
        "FETCH ",
        "UID ",
        "STORE 1 ",
        "SEARCH ",
        "APPEND INBOX ",
        "AUTHENTICATE PLAIN",
        "IDLE",
        "DONE",
        "\r\n",
        "\r\n",
        "\r\n",
        "\n",
        "\r",
        "1:*",
        "$",
        "*",
        "{3}",
        "{3+}",
        "{0}",
        "~{4}",
        "{99999}",
        "(",
        ")",
        "<1.2>",
        "BODY[",
        "HEADER.FIELDS (a)",
        "]",
        "\"",
        "\\",
        "\\Seen",
        "FLAGS",
        "(QRESYNC (1 2 3 (4 5)))",
        "ENABLE QRESYNC UIDONLY",
        "&-",
        "&AAA",
        "RETURN (SAVE)",
        "OR ",
        "NOT ",
        "EXPUNGE",
        "MOVE 1 INBOX",
        "REPLACE 1 INBOX ",
        "RENAME INBOX x",
        "LIST \"\" ",
        "%",
        "\0",
        "\u{fffd}",
        "é",
        "=",
    ];
    prop_oneof![
        8 => prop::sample::select(&words[..]).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_bytes_break_a_session(
        pieces in prop::collection::vec(piece(), 1..80),
        logged_in in any::<bool>(),
        cut in 1usize..200,
    ) {
        thread_local!(static HOME: crate::talk::Home = home());
        HOME.with(|home| {
            let mut client =
                if logged_in { Client::login(&home.account) } else { Client::connect(&home.account).0 };
            for part in pieces.concat().chunks(cut) {
                let heard = client.say_bytes(part);
                assert!(heard.is_empty() || heard.ends_with("\r\n"), "{heard:?}");
                assert_eq!(client.closed, client.closed && !client.session.wants_input());
                client.wait(std::time::Duration::from_secs(8));
            }
            // A silent client is sent away, whatever state it left the session in.
            let heard = client.wait(std::time::Duration::from_secs(32 * 60));
            assert!(client.closed, "{heard}");
        });
    }
}
