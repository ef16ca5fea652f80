//! Dialogues, each sent at once and cut at every byte.

use super::*;

/// What a session did: everything it sent, and its events in words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    sent: String,
    events: Vec<String>,
}

/// Drives a session as a connection does. Addresses that start with `no` are nobody's; a message is stored for the first
/// recipient, and for the others there is no room.
struct Driver {
    session: Session,
    heard: Heard,
    taken: usize,
}

impl Driver {
    fn new() -> Driver {
        let mut driver = Driver { session: Session::new("mx", 1000), heard: Heard::default(), taken: 0 };
        driver.act();
        driver
    }

    fn act(&mut self) {
        while let Some(event) = self.session.poll_event() {
            let words = match &event {
                Event::Recipient { address } => format!("recipient {address}"),
                Event::Begin { sender } => format!("begin {sender}"),
                Event::Text(text) => match self.heard.events.last_mut() {
                    Some(last) if last.starts_with("text ") => {
                        last.push_str(&text.escape_ascii().to_string());
                        continue;
                    }
                    _ => format!("text {}", text.escape_ascii()),
                },
                Event::End => "end".into(),
                Event::Forget => "forget".into(),
                Event::Close => "close".into(),
            };
            self.heard.events.push(words);
            match event {
                Event::Recipient { address } if address.starts_with("no") => {
                    self.session.recipient(Err(Reply::new(550, "1.1", "nobody")));
                }
                Event::Recipient { .. } => {
                    self.taken += 1;
                    self.session.recipient(Ok(()));
                }
                Event::Forget => self.taken = 0,
                Event::End => {
                    let reply = |at| match at {
                        0 => Reply::new(250, "0.0", "stored"),
                        _ => Reply::new(452, "3.1", "full"),
                    };
                    let replies: Vec<Reply> = (0..std::mem::take(&mut self.taken)).map(reply).collect();
                    self.session.delivered(&replies);
                }
                _ => {}
            }
        }
        while let Some(bytes) = self.session.poll_send() {
            self.heard.sent.push_str(&String::from_utf8(bytes).unwrap());
        }
    }

    fn hear(mut self, pieces: &[&[u8]]) -> Heard {
        for piece in pieces {
            self.session.receive(piece);
            self.act();
        }
        self.heard
    }
}

const LHLO: &str = "220 mx LMTP\r\n250-mx\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
                    250 ENHANCEDSTATUSCODES\r\n";

/// What is sent after LHLO; the replies; the events.
type Case = (&'static [u8], &'static [&'static str], &'static [&'static str]);

const DIALOGUES: &[Case] = &[
    (
        b"MAIL FROM:<a@b> SIZE=12 BODY=8BITMIME\r\nRCPT TO:<k@x>\r\nDATA\r\nhi\r\n..\r\n.\r\nQUIT\r\n",
        &["250 2.1.0 taken", "250 2.1.5 taken", "354 the message, then a dot on a line of its own", "250 2.0.0 stored", "221 2.0.0 mx is done"],
        &["forget", "recipient k@x", "begin a@b", "text hi\\r\\n.\\r\\n", "end", "close"],
    ),
    // A reply for each recipient that was taken, and for no other.
    (
        b"mail from:<>\r\nrcpt to:<k@x>\r\nrcpt to:<no@x>\r\nrcpt to:<l@x>\r\ndata\r\n.\r\nNOOP\r\n",
        &["250 2.1.0 taken", "250 2.1.5 taken", "550 5.1.1 nobody", "250 2.1.5 taken", "354 the message, then a dot on a line of its own", "250 2.0.0 stored", "452 4.3.1 full", "250 2.0.0 nothing done"],
        &["forget", "recipient k@x", "recipient no@x", "recipient l@x", "begin ", "end"],
    ),
    // Two messages in one connection.
    (
        b"MAIL FROM:<a@b>\r\nRCPT TO:<k@x>\r\nDATA\r\n1\r\n.\r\nMAIL FROM:<c@d>\r\nRCPT TO:<l@x>\r\nDATA\r\n2\r\n.\r\n",
        &["250 2.1.0 taken", "250 2.1.5 taken", "354 the message, then a dot on a line of its own", "250 2.0.0 stored", "250 2.1.0 taken", "250 2.1.5 taken", "354 the message, then a dot on a line of its own", "250 2.0.0 stored"],
        &["forget", "recipient k@x", "begin a@b", "text 1\\r\\n", "end", "forget", "recipient l@x", "begin c@d", "text 2\\r\\n", "end"],
    ),
    // DATA for nobody is refused, and what follows is a command.
    (
        b"MAIL FROM:<a@b>\r\nRCPT TO:<no@x>\r\nDATA\r\nRSET\r\nDATA\r\n",
        &["250 2.1.0 taken", "550 5.1.1 nobody", "503 5.5.1 there are no recipients", "250 2.0.0 forgotten", "503 5.5.1 first comes MAIL"],
        &["forget", "recipient no@x", "forget"],
    ),
    (
        b"MAIL FROM:<a@b>\r\nRCPT TO:<k@x>\r\nRSET\r\nRCPT TO:<l@x>\r\nMAIL FROM:<a@b>\r\nMAIL FROM:<a@b>\r\nLHLO again\r\nRSET\r\n",
        &["250 2.1.0 taken", "250 2.1.5 taken", "250 2.0.0 forgotten", "503 5.5.1 first comes MAIL", "250 2.1.0 taken", "503 5.5.1 there is a sender already", "250-mx", "250-PIPELINING", "250-SIZE 1000", "250-8BITMIME", "250-SMTPUTF8", "250 ENHANCEDSTATUSCODES", "250 2.0.0 forgotten"],
        &["forget", "recipient k@x", "forget", "forget", "forget"],
    ),
    // Addresses.
    (
        "MAIL FROM:<ä@b> SMTPUTF8\r\nRCPT TO:<ö@x>\r\nRCPT TO:<\"a b\"@x>\r\nRCPT TO:<kim>\r\nRCPT TO:<postmaster>\r\nRCPT TO:<@far:kim@x>\r\n".as_bytes(),
        &["250 2.1.0 taken", "250 2.1.5 taken", "250 2.1.5 taken", "250 2.1.5 taken", "250 2.1.5 taken", "250 2.1.5 taken"],
        &["forget", "recipient ö@x", "recipient a b@x", "recipient kim@localhost", "recipient ", "recipient kim@x"],
    ),
    (
        "MAIL FROM:<ä@b>\r\nMAIL FROM:a@b\r\nMAIL FROM:<a b@c>\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ö@x>\r\nRCPT TO:kim\r\nRCPT TO:<kim\r\nRCPT TO:<a b@x>\r\n".as_bytes(),
        &["553 5.6.7 such an address needs SMTPUTF8", "501 5.5.4 write: MAIL FROM:<reverse-path> [parameters]", "553 5.1.7 that is no address", "250 2.1.0 taken", "553 5.6.7 such an address needs SMTPUTF8", "501 5.5.4 write: RCPT TO:<forward-path> [parameters]", "553 5.1.3 that is no address", "553 5.1.3 that is no address"],
        &["forget"],
    ),
    // Parameters that were not offered.
    (
        b"MAIL FROM:<a@b> REQUIRETLS\r\nMAIL FROM:<a@b> BODY=BINARYMIME\r\nMAIL FROM:<a@b> RET=HDRS\r\nMAIL FROM:<a@b> X=1\r\nMAIL FROM:<a@b> SIZE=x\r\nMAIL FROM:<a@b> SIZE=1001\r\nMAIL FROM:<a@b> SIZE=1000\r\nRCPT TO:<k@x> NOTIFY=NEVER\r\n",
        &["555 5.5.4 there is no such parameter here", "555 5.5.4 there is no such parameter here", "555 5.5.4 there is no such parameter here", "555 5.5.4 there is no such parameter here", "501 5.5.4 a parameter has a wrong value", "552 5.3.4 the message is too large", "250 2.1.0 taken", "555 5.5.4 there is no such parameter here"],
        &["forget"],
    ),
    // Commands of others.
    (
        b"EHLO me\r\nHELO me\r\nAUTH PLAIN AAAA\r\nSTARTTLS\r\nBDAT 3 LAST\r\nHELP\r\nVRFY kim\r\nfoo\r\n\r\n",
        &["500 5.5.1 this is LMTP: say LHLO", "500 5.5.1 this is LMTP: say LHLO", "502 5.5.1 there is no AUTH here", "502 5.5.1 there is no STARTTLS here", "502 5.5.1 there is no BDAT here", "502 5.5.1 there is no HELP here", "252 2.5.0 RCPT tells", "500 5.5.1 there is no such command", "500 5.5.1 there is no such command"],
        &[],
    ),
    // What is no line.
    (
        b"NOOP\nNOOP \0\r\nNOOP \xff\r\nNOOP a\rb\r\nRCPT TO:<k\x7f@x>\r\nNOOP\r\n",
        &["500 5.5.2 a line ends with CR LF", "500 5.5.2 a command holds no control characters", "500 5.5.2 that is not UTF-8", "500 5.5.2 a command holds no control characters", "500 5.5.2 a command holds no control characters", "250 2.0.0 nothing done"],
        &[],
    ),
    // A message that would like to smuggle another one in.
    (
        b"MAIL FROM:<a@b>\r\nRCPT TO:<k@x>\r\nDATA\r\nhi\n.\nMAIL FROM:<evil@x>\r\n.\r\r\n\n.\r\nRCPT TO:<l@x>\r\n.\r\nQUIT\r\n",
        &["250 2.1.0 taken", "250 2.1.5 taken", "354 the message, then a dot on a line of its own", "250 2.0.0 stored", "221 2.0.0 mx is done"],
        &["forget", "recipient k@x", "begin a@b", "text hi\\n.\\nMAIL FROM:<evil@x>\\r\\n\\r\\r\\n\\n.\\r\\nRCPT TO:<l@x>\\r\\n", "end", "close"],
    ),
    // Nothing is heard behind QUIT.
    (b"QUIT\r\nNOOP\r\n", &["221 2.0.0 mx is done"], &["close"]),
];

#[test]
fn dialogues() {
    for (input, replies, events) in DIALOGUES {
        let whole = [b"LHLO me\r\n", *input].concat();
        let heard = Driver::new().hear(&[&whole]);
        let wanted = LHLO.to_owned() + &replies.iter().map(|line| format!("{line}\r\n")).collect::<String>();
        assert_eq!(heard.sent, wanted, "{}", input.escape_ascii());
        assert_eq!(heard.events, *events, "{}", input.escape_ascii());
        for cut in 1..whole.len() {
            let (first, second) = whole.split_at(cut);
            assert_eq!(Driver::new().hear(&[first, second]), heard, "cut at {cut}: {}", input.escape_ascii());
        }
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(Driver::new().hear(&bytes), heard, "byte by byte: {}", input.escape_ascii());
    }
}

#[test]
fn nothing_works_before_the_greeting() {
    let heard = Driver::new()
        .hear(&[b"MAIL FROM:<a@b>\r\nRCPT TO:<k@x>\r\nDATA\r\nRSET\r\nMAIL FROM:<a@b>\r\nNOOP\r\n"]);
    let codes: Vec<&str> = heard.sent.lines().map(|line| &line[..3]).collect();
    assert_eq!(codes, ["220", "503", "503", "503", "250", "503", "250"]);
    assert!(heard.events.is_empty());
}

#[test]
fn a_question_holds_up_what_follows() {
    let mut session = Session::new("mx", 1000);
    session.receive(b"LHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<k@x>\r\nNOOP\r\n");
    assert_eq!(session.poll_event(), Some(Event::Forget));
    assert!(matches!(session.poll_event(), Some(Event::Recipient { .. })));
    session.poll_send();
    assert_eq!((session.poll_event(), session.poll_send()), (None, None));
    session.recipient(Ok(()));
    assert_eq!(session.poll_event(), None);
    assert_eq!(session.poll_send().unwrap(), b"250 2.1.5 taken\r\n250 2.0.0 nothing done\r\n");
}

#[test]
fn a_line_without_end_is_not_kept() {
    let mut driver = Driver::new();
    for _ in 0..1000 {
        driver.session.receive(&[b'x'; 4096]);
        driver.act();
        assert!(driver.session.input.len() <= MAX_LINE);
    }
    let heard = driver.hear(&[b"\r\nNOOP\r\n"]);
    assert_eq!(heard.sent, "220 mx LMTP\r\n500 5.5.6 the line is too long\r\n250 2.0.0 nothing done\r\n");
    let long = format!("NOOP {}\r\n", "x".repeat(MAX_LINE));
    assert!(Driver::new().hear(&[long.as_bytes()]).sent.ends_with("500 5.5.6 the line is too long\r\n"));
}

#[test]
fn a_text_line_has_no_limit_and_is_not_kept() {
    let mut driver = Driver::new();
    driver.session.receive(b"LHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<k@x>\r\nDATA\r\n");
    driver.act();
    for _ in 0..100 {
        driver.session.receive(&[b'x'; 4096]);
        driver.act();
        assert!(driver.session.input.is_empty());
    }
    let heard = driver.hear(&[b"\r\n.\r\n"]);
    assert!(heard.sent.ends_with("250 2.0.0 stored\r\n"));
    assert_eq!(heard.events[3].len(), "text ".len() + 100 * 4096 + "\\r\\n".len());
}

#[test]
fn recipients_are_limited() {
    let rcpt = b"RCPT TO:<k@x>\r\n".repeat(MAX_RECIPIENTS + 1);
    let input = [b"LHLO me\r\nMAIL FROM:<a@b>\r\n", &rcpt[..], b"DATA\r\n.\r\n"].concat();
    let heard = Driver::new().hear(&[&input]);
    let count = |code: &str| heard.sent.lines().filter(|line| line.starts_with(code)).count();
    assert_eq!((count("250 2.1.5"), count("452 4.5.3")), (MAX_RECIPIENTS, 1));
    assert_eq!(count("250 2.0.0") + count("452 4.3.1"), MAX_RECIPIENTS);
}

#[test]
fn who_makes_no_sense_is_sent_away() {
    let heard = Driver::new().hear(&[&b"GET / HTTP/1.1\r\n".repeat(50)]);
    assert_eq!(heard.sent.lines().count(), 1 + MAX_MISTAKES as usize + 1);
    assert!(heard.sent.ends_with("421 4.7.0 too many mistakes\r\n"));
    assert_eq!(heard.events, ["close"]);
}

#[test]
fn any_bytes_are_answered_or_awaited() {
    // Pieces of commands in any order: whatever comes of it, nothing panics and little is kept.
    let pieces: [&[u8]; 12] = [
        b"MAIL FROM:<",
        b"RCPT TO:<",
        b"a@b>",
        b"\r\n",
        b"DATA\r\n",
        b".\r\n",
        b"\"",
        b"\\",
        b"\0\xff",
        b"LHLO x\r\n",
        b"\n",
        b" SIZE=9",
    ];
    let mut state = 1u32;
    for _ in 0..500 {
        let mut driver = Driver::new();
        for _ in 0..60 {
            // A generator of Marsaglia's: the same texts each time.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            driver.session.receive(pieces[state as usize % pieces.len()]);
            driver.act();
            assert!(driver.session.input.len() <= MAX_LINE);
        }
    }
}
