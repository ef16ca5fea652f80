//! The reader on whole conversations.

use super::print::print;
use super::valid::VALID;
use crate::grammar::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits { line: 100, literals: 40, swallow: 200 };

/// What a session sees: one line for each item, chunks of one text put together. Every text is taken but those of
/// messages for the mailbox `no`.
fn run(limits: Limits, pieces: &[&[u8]]) -> Vec<String> {
    let mut reader = Reader::new(limits);
    let mut seen: Vec<String> = Vec::new();
    let mut chunks = Vec::new();
    let mut refuse = false;
    for piece in pieces {
        reader.push(piece);
        while let Some(item) = reader.poll() {
            if let Item::Append(AppendItem::Chunk(octets)) = item {
                assert!(!octets.is_empty());
                chunks.extend(octets);
                continue;
            }
            if !chunks.is_empty() {
                seen.push(format!("chunk {}", String::from_utf8_lossy(&std::mem::take(&mut chunks))));
            }
            match &item {
                Item::Append(AppendItem::Begin(begin)) => {
                    refuse = begin.mailbox.as_ref().is_ok_and(|mailbox| mailbox.as_str() == "no");
                }
                Item::Append(AppendItem::Text(_)) if refuse => reader.refuse(),
                Item::Append(AppendItem::Text(_)) => reader.accept(),
                Item::Command(Command { body: CommandBody::Idle, .. }) => reader.expect_line(),
                _ => {}
            }
            seen.push(show(&item));
        }
    }
    if !chunks.is_empty() {
        seen.push(format!("part of a text: {}", String::from_utf8_lossy(&chunks)));
    }
    seen
}

fn show(item: &Item) -> String {
    match item {
        Item::Command(command) => String::from_utf8_lossy(&print(command)).into_owned(),
        Item::Line(line) => format!("line {}", String::from_utf8_lossy(line.as_bytes())),
        Item::Bad(error) => format!("{} BAD {error}", error.tag.as_ref().map_or("*", Tag::as_str)),
        Item::Continue => "+".into(),
        Item::Overrun => "overrun".into(),
        Item::Append(AppendItem::Begin(append)) => {
            let replaces =
                append.replaces.map(|(numbering, number)| format!(" for {numbering:?} {number:?}"));
            let mailbox = append.mailbox.as_ref().map_or("?", |mailbox| mailbox.as_str());
            format!("{} to {mailbox}{}", append.tag, replaces.unwrap_or_default())
        }
        Item::Append(AppendItem::Message(head)) => {
            format!("message {:?} {:?}", head.flags.len(), head.date.map(|date| date.seconds))
        }
        Item::Append(AppendItem::Url(url)) => format!("url {}", String::from_utf8_lossy(url)),
        Item::Append(AppendItem::Text(head)) => {
            let kind = [(head.synchronizing, " waits"), (head.binary, " binary"), (head.utf8, " utf8")];
            let kind: String = kind.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
            format!("text {}{kind}", head.size)
        }
        Item::Append(AppendItem::Chunk(_)) => "chunk".into(),
        Item::Append(AppendItem::MessageEnd) => "message end".into(),
        Item::Append(AppendItem::End) => "end".into(),
    }
}

/// Conversations and what is to be seen of them, with [`LIMITS`].
fn scenes() -> Vec<(String, Vec<String>)> {
    let scene =
        |input: &str, seen: &[&str]| (input.to_owned(), seen.iter().map(|s| (*s).to_owned()).collect());
    vec![
        scene("a NOOP\r\nb NOOP\nc NO", &["a NOOP", "b NOOP"]),
        scene("\r\n\na NOOP\r\n", &["a NOOP"]),
        scene("a NONSENSE\r\nb NOOP\r\n", &["a BAD unknown command at byte 2", "b NOOP"]),
        scene("a NOOP\rb NOOP\r\n", &["a BAD expected the end of the command at byte 6"]),
        scene("a LOGIN {1}\r\nx {2+}\r\nyz\r\nb NOOP\r\n", &["+", "a LOGIN \"x\" \"yz\"", "b NOOP"]),
        scene("a LOGIN {0}\r\n {0+}\n\nb NOOP\r\n", &["+", "a LOGIN \"\" \"\"", "b NOOP"]),
        scene("a LOGIN {4+}\r\n\r\n{9 x\r\n", &["a LOGIN {4+}\r\n\r\n{9 \"x\""]),
        scene("a LOGIN x \"y{3}\"\r\n", &["a LOGIN \"x\" \"y{3}\""]),
        // Too much: the rest of the command is thrown away as far as the client sends it unasked.
        scene("a LOGIN {41}\r\nb NOOP\r\n", &["a BAD more than 40 octets in literals at byte 14", "b NOOP"]),
        scene(
            "a LOGIN {20+}\r\n12345678901234567890 {21+}\r\n123456789012345678901\r\nb NOOP\r\n",
            &["a BAD more than 40 octets in literals at byte 43", "b NOOP"],
        ),
        scene(
            "a LOGIN {50+}\r\n12345678901234567890123456789012345678901234567890 {7+}\r\nx NOOP\n {5}\r\nb NOOP\r\n",
            &["a BAD more than 40 octets in literals at byte 15", "b NOOP"],
        ),
        scene(
            "a LOGIN {201+}\r\nb NOOP\r\n",
            &["a BAD more than 40 octets in literals at byte 16", "overrun"],
        ),
        scene(
            &format!("a SEARCH {}\r\nb NOOP\r\n", "ALL ".repeat(50)),
            &["a BAD more than 100 octets in a line at byte 100", "b NOOP"],
        ),
        scene(
            &format!("{}\r\nb NOOP\r\n", "x".repeat(200)),
            &["* BAD more than 100 octets in a line at byte 100", "b NOOP"],
        ),
        scene(
            &format!("a SEARCH {} {{9+}}\r\nx NOOP\r\n \r\nb NOOP\r\n", "ALL ".repeat(50)),
            &["a BAD more than 100 octets in a line at byte 100", "b NOOP"],
        ),
        scene(
            &format!("a SEARCH {}X{{9+}}\r\nx NOOP\r\n \r\nb NOOP\r\n", "ALL ".repeat(22)),
            &["a BAD more than 100 octets in a line at byte 100", "b NOOP"],
        ),
        // One line as it is.
        scene("a IDLE\r\nDONE\r\nb NOOP\r\n", &["a IDLE", "line DONE", "b NOOP"]),
        scene("a IDLE\r\n*\nb NOOP\r\n", &["a IDLE", "line *", "b NOOP"]),
        scene("a IDLE\r\n\r\nb NOOP\r\n", &["a IDLE", "line ", "b NOOP"]),
        scene("a IDLE\r\nx {5}\r\nb NOOP\r\n", &["a IDLE", "line x {5}", "b NOOP"]),
        scene(
            &format!("a IDLE\r\nb {}\r\nb NOOP\r\n", "x".repeat(100)),
            &["a IDLE", "* BAD more than 100 octets in a line at byte 100", "b NOOP"],
        ),
        // APPEND and REPLACE.
        scene(
            "a APPEND x (\\Seen) {3+}\r\nabc\r\nb NOOP\r\n",
            &["a to x", "message 1 None", "text 3", "chunk abc", "message end", "end", "b NOOP"],
        ),
        scene(
            "a append {1}\r\nx \" 1-Jan-1970 00:00:01 +0000\" {2}\r\n\r\n\r\nb NOOP\r\n",
            &[
                "+",
                "a to x",
                "message 0 Some(1)",
                "text 2 waits",
                "chunk \r\n",
                "message end",
                "end",
                "b NOOP",
            ],
        ),
        scene(
            "a APPEND x ~{0+}\r\n\r\n",
            &["a to x", "message 0 None", "text 0 binary", "message end", "end"],
        ),
        scene(
            "a APPEND x (\\Seen) {1+}\r\na (\\Draft x) {1}\r\nb {1+}\r\nc\r\n",
            &[
                "a to x",
                "message 1 None",
                "text 1",
                "chunk a",
                "message end",
                "message 2 None",
                "text 1 waits",
                "chunk b",
                "message end",
                "message 0 None",
                "text 1",
                "chunk c",
                "message end",
                "end",
            ],
        ),
        scene(
            "a APPEND x CATENATE (URL \"/x;UID=1\" TEXT {2+}\r\nab URL {2}\r\n/y TEXT {1}\r\nc UTF8 (~{1+}\r\nd))\r\n",
            &[
                "a to x",
                "message 0 None",
                "url /x;UID=1",
                "text 2",
                "chunk ab",
                "+",
                "url /y",
                "text 1 waits",
                "chunk c",
                "text 1 binary utf8",
                "chunk d",
                "message end",
                "end",
            ],
        ),
        scene(
            "a APPEND x CATENATE (URL {0+}\r\n)\r\n",
            &["a to x", "message 0 None", "url ", "message end", "end"],
        ),
        scene(
            "a APPEND x UTF8 (~{1+}\r\nd)\r\n",
            &["a to x", "message 0 None", "text 1 binary utf8", "chunk d", "message end", "end"],
        ),
        scene(
            "a UID REPLACE 4 x {1+}\r\nd\r\nb REPLACE * x {1+}\r\nd {1+}\r\ne\r\n",
            &[
                "a to x for Uid Number(4)",
                "message 0 None",
                "text 1",
                "chunk d",
                "message end",
                "end",
                "b to x for Sequence Last",
                "message 0 None",
                "text 1",
                "chunk d",
                "b BAD expected the end of the command at byte 20",
            ],
        ),
        scene("a APPEND no {300}\r\nb NOOP\r\n", &["a to no", "message 0 None", "text 300 waits", "b NOOP"]),
        scene(
            "a APPEND no {6+}\r\nx NOOP {7+}\r\ny NOOP\n\r\nb NOOP\r\n",
            &["a to no", "message 0 None", "text 6", "b NOOP"],
        ),
        scene("a APPEND no {201+}\r\nb NOOP\r\n", &["a to no", "message 0 None", "text 201", "overrun"]),
        scene("a APPEND no {200+}\r\n", &["a to no", "message 0 None", "text 200"]),
        scene("a APPEND x\r\nb NOOP\r\n", &["a BAD expected a space at byte 10", "b NOOP"]),
        scene(
            "a APPEND x (\\Seen {3+}\r\nx\n\r\nb NOOP\r\n",
            &["a BAD expected a flag at byte 18", "b NOOP"],
        ),
        scene(
            "a APPEND x {1+}\r\nd)\r\nb NOOP\r\n",
            &["a to x", "message 0 None", "text 1", "chunk d", "a BAD expected a space at byte 17", "b NOOP"],
        ),
        scene(
            "a APPEND x TEXT {1}\r\nb NOOP\r\n",
            &["a BAD expected the literal of a message at byte 11", "b NOOP"],
        ),
        scene("a APPEND x UTF8 ({1}\r\nb NOOP\r\n", &["a BAD expected a literal8 at byte 17", "b NOOP"]),
        scene("a APPEND {41}\r\nb NOOP\r\n", &["a BAD more than 40 octets in literals at byte 15", "b NOOP"]),
        scene("a UID APPEND x {1}\r\nb NOOP\r\n", &["+", "a BAD unknown command at byte 6"]),
    ]
}

#[test]
fn conversations() {
    for (input, seen) in scenes() {
        assert_eq!(run(LIMITS, &[input.as_bytes()]), seen, "{input:?}");
        let bytes: Vec<&[u8]> = input.as_bytes().chunks(1).collect();
        assert_eq!(run(LIMITS, &bytes), seen, "one byte at a time: {input:?}");
    }
}

#[test]
fn a_large_message_is_not_held() {
    let mut reader = Reader::new(Limits::AFTER_LOGIN);
    reader.push(b"a APPEND x {52428800}\r\n");
    while let Some(item) = reader.poll() {
        if matches!(item, Item::Append(AppendItem::Text(_))) {
            break;
        }
    }
    assert_eq!(reader.poll(), None, "nothing moves before the text is taken");
    reader.accept();
    let piece = vec![b'x'; 1 << 16];
    for _ in 0..800 {
        reader.push(&piece);
        assert_eq!(reader.poll(), Some(Item::Append(AppendItem::Chunk(piece.clone()))));
        assert_eq!(reader.poll(), None);
    }
    reader.push(b"\r\n");
    assert_eq!(reader.poll(), Some(Item::Append(AppendItem::MessageEnd)));
    assert_eq!(reader.poll(), Some(Item::Append(AppendItem::End)));
    assert_eq!(reader.poll(), None);
}

/// Refuses the APPEND as soon as `at` shows, and tells what is seen after that.
fn refuse_at(at: &str, pieces: &[&str]) -> Vec<String> {
    let mut reader = Reader::new(LIMITS);
    let mut refused = false;
    let mut seen = Vec::new();
    for piece in pieces {
        reader.push(piece.as_bytes());
        while let Some(item) = reader.poll() {
            if refused {
                seen.push(show(&item));
            } else if show(&item) == at {
                reader.refuse();
                refused = true;
            } else if matches!(item, Item::Append(AppendItem::Text(_))) {
                reader.accept();
            }
        }
    }
    assert!(refused, "{at} did not show");
    seen
}

#[test]
fn an_append_can_be_refused_at_any_place() {
    let waits = &["a APPEND x {9}\r\n", "b NOOP\r\n"][..];
    for at in ["a to x", "message 0 None", "text 9 waits"] {
        assert_eq!(refuse_at(at, waits), ["b NOOP"], "{at}");
    }
    let unasked = &["a APPEND x {9+}\r\nx NO", "OP\r\n (\\Seen", ") {8+}\r\nx NOOP\r\n\r\nb NOOP\r\n"][..];
    for at in ["a to x", "message 0 None", "text 9", "chunk"] {
        assert_eq!(refuse_at(at, unasked), ["b NOOP"], "{at}");
    }
    let later = &["a APPEND x {1+}\r\nd", " {8", "+}\r\nx NOOP\r\n {1}\r\nb NOOP\r\n"][..];
    assert_eq!(refuse_at("chunk", later), ["b NOOP"]);
    assert_eq!(refuse_at("message end", later), ["b NOOP"]);
    let url = "a APPEND x CATENATE (TEXT {1+}\r\nd URL {7}\r\n";
    assert_eq!(refuse_at("chunk", &[url, "b NOOP\r\n"]), ["b NOOP"]);
    assert_eq!(refuse_at("+", &[url, "x NOOP\n)\r\nb NOOP\r\n"]), ["b NOOP"]);
}

#[test]
fn nothing_secret_is_shown() {
    let mut reader = Reader::new(LIMITS);
    reader.expect_line();
    reader.push(b"c2VjcmV0\r\na LOGIN x hidden");
    let line = reader.poll();
    assert!(matches!(&line, Some(Item::Line(line)) if line.as_bytes() == b"c2VjcmV0"));
    assert_eq!(reader.poll(), None);
    assert_eq!(format!("{line:?}"), "Some(Line(Secret(..)))");
    assert_eq!(format!("{reader:?}"), "Reader { state: Line, gathered: 16, unread: 0, .. }");
}

#[test]
fn what_was_not_read_can_be_taken() {
    let mut reader = Reader::new(LIMITS);
    reader.push(b"a STARTTLS\r\nb LOGIN x y\r\n");
    assert!(matches!(reader.poll(), Some(Item::Command(_))));
    assert_eq!(reader.take_input(), b"b LOGIN x y\r\n");
    assert_eq!(reader.poll(), None);
    reader.push(b"c NOOP\r\n");
    assert!(matches!(reader.poll(), Some(Item::Command(_))));
}

#[test]
fn names_change_between_commands() {
    let mut reader = Reader::new(LIMITS);
    reader.push("a DELETE ä\r\nb DELETE \"ä\"\r\nc DELETE \"ä\"\r\n".as_bytes());
    assert_eq!(show(&reader.poll().unwrap()), "a BAD expected a mailbox name at byte 9");
    let Some(Item::Command(Command { body: CommandBody::Delete(name), .. })) = reader.poll() else {
        panic!()
    };
    assert!(name.is_err());
    reader.set_names(NameEncoding::Utf8);
    let Some(Item::Command(Command { body: CommandBody::Delete(name), .. })) = reader.poll() else {
        panic!()
    };
    assert_eq!(name.unwrap().as_str(), "ä");
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_items(
        picks in proptest::collection::vec(any::<proptest::sample::Index>(), 1..6),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        noise in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let scenes = scenes();
        let table: Vec<&str> = VALID.iter().flat_map(|(_, commands)| *commands).copied().collect();
        let mut input = Vec::new();
        for pick in picks {
            let at = pick.index(scenes.len() + table.len());
            match scenes.get(at) {
                Some((text, _)) => input.extend_from_slice(text.as_bytes()),
                None => {
                    input.extend_from_slice(table[at - scenes.len()].split(" => ").next().unwrap().as_bytes());
                    input.extend_from_slice(b"\r\n");
                }
            }
        }
        for (at, byte) in noise {
            let at = at.index(input.len());
            input[at] = byte;
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len())).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &input[ends[0]..ends[1]]).collect();
        prop_assert_eq!(run(LIMITS, &pieces), run(LIMITS, &[&input]));
    }
}
