//! Commands that have to be refused, with the place and the words of the answer.

use super::parse;

/// `(command, the display of its error)`.
const INVALID: &[(&str, &str)] = &[
    ("", "expected a tag at byte 0"),
    ("* NOOP", "expected a tag at byte 0"),
    ("+a NOOP", "expected a tag at byte 0"),
    ("a+ NOOP", "expected a space at byte 1"),
    ("a(b NOOP", "expected a space at byte 1"),
    ("a", "expected a space at byte 1"),
    ("a ", "expected the name of a command at byte 2"),
    ("a  NOOP", "expected the name of a command at byte 2"),
    ("a NOOP ", "expected the end of the command at byte 6"),
    ("a NOOP\r", "expected the end of the command at byte 6"),
    ("a NOOP\0", "expected the end of the command at byte 6"),
    ("A442 XPIG-LATIN", "unknown command at byte 5"),
    ("a UID NOOP", "unknown command at byte 6"),
    ("a UID UID FETCH 1 UID", "unknown command at byte 6"),
    ("a APPEND INBOX {5}", "unknown command at byte 2"),
    ("a LOGIN x", "expected a space at byte 9"),
    ("a LOGIN x ", "expected a password at byte 10"),
    ("a LOGIN x y z", "expected the end of the command at byte 11"),
    ("a LOGIN \"x y", "expected a closing quote at byte 12"),
    ("a LOGIN \"x\\y\" z", "expected \"\\\" or a quote after \"\\\" at byte 11"),
    ("a LOGIN \"x\ry\" z", "expected a closing quote at byte 10"),
    ("a LOGIN \"x\0y\" z", "expected a closing quote at byte 10"),
    ("a LOGIN {3}\r\nxy", "a literal ends early at byte 13"),
    ("a LOGIN {3} xyz", "expected a line end after the header of a literal at byte 11"),
    ("a LOGIN {-1}\r\n x", "expected a literal at byte 9"),
    ("a LOGIN {99999999999999999999}\r\n x", "expected a literal at byte 9"),
    ("a LOGIN ~{1}\r\nx y", "expected a space at byte 9"),
    ("a LOGIN {1}\r\n\0 y", "expected a literal without NUL at byte 8"),
    ("a LOGIN %x y", "expected a user name at byte 8"),
    ("a AUTHENTICATE", "expected a space at byte 14"),
    ("a AUTHENTICATE PLAIN dGVzd", "expected base64 or \"=\" at byte 21"),
    ("a AUTHENTICATE PLAIN ===", "expected base64 or \"=\" at byte 21"),
    ("a AUTHENTICATE PLAIN ", "expected base64 or \"=\" at byte 21"),
    ("a ENABLE", "expected a space at byte 8"),
    ("a ENABLE (CONDSTORE)", "expected a capability at byte 9"),
    ("a COMPRESS LZW", "expected DEFLATE at byte 11"),
    ("a ID (\"a\")", "expected a space at byte 9"),
    ("a ID (a b)", "expected the name of an ID field at byte 6"),
    ("a ID (NIL \"a\")", "expected the name of an ID field at byte 6"),
    ("a SELECT", "expected a space at byte 8"),
    ("a SELECT ", "expected a mailbox name at byte 9"),
    ("a SELECT a b", "expected \"(\" at byte 11"),
    ("a SELECT a ()", "expected CONDSTORE or QRESYNC at byte 12"),
    ("a SELECT a (QRESYNC)", "expected a space at byte 19"),
    ("a SELECT a (QRESYNC (0 1))", "expected a UIDVALIDITY at byte 21"),
    ("a SELECT a (QRESYNC (1 0))", "expected a mod-sequence above 0 at byte 23"),
    ("a SELECT a (QRESYNC (1 9223372036854775808))", "expected a mod-sequence above 0 at byte 23"),
    ("a SELECT a (QRESYNC (1 2 1:*))", "expected a set without \"*\" at byte 25"),
    ("a SELECT a (QRESYNC (1 2 3 (4 *)))", "expected a set without \"*\" at byte 30"),
    ("a SELECT a (QRESYNC (1 2) QRESYNC (1 2))", "QRESYNC given twice at byte 33"),
    ("a CREATE a (USE)", "expected a space at byte 15"),
    ("a CREATE a (USE (Sent))", "expected a special use such as \\Sent at byte 17"),
    ("a CREATE a (NOUSE (\\Sent))", "expected USE at byte 12"),
    ("a RENAME a", "expected a space at byte 10"),
    ("a STATUS a ()", "expected a STATUS item at byte 12"),
    ("a STATUS a MESSAGES", "expected \"(\" at byte 11"),
    ("a STATUS a (MESSAGES  UNSEEN)", "expected a STATUS item at byte 21"),
    ("a LIST \"\"", "expected a space at byte 9"),
    ("a LIST (RECURSIVEMATCH) \"\" *", "RECURSIVEMATCH needs SUBSCRIBED at byte 7"),
    ("a LIST (RECURSIVEMATCH REMOTE) \"\" *", "RECURSIVEMATCH needs SUBSCRIBED at byte 7"),
    ("a LIST (NONSENSE) \"\" *", "expected a selection option of LIST at byte 8"),
    ("a LIST \"\" ()", "expected a pattern at byte 11"),
    ("a LIST \"\" * RETURN", "expected a space at byte 18"),
    ("a LIST \"\" * RETURN (STATUS)", "expected a space at byte 26"),
    ("a LIST \"\" * RETURN (MYRIGHTS)", "expected a return option of LIST at byte 20"),
    ("a LIST %x *", "expected a reference name at byte 7"),
    ("a UID EXPUNGE", "expected a space at byte 13"),
    ("a EXPUNGE 1", "expected the end of the command at byte 9"),
    ("a SEARCH", "expected a space at byte 8"),
    ("a SEARCH ", "expected a search key at byte 9"),
    ("a SEARCH RETURN (MIN)", "expected a space at byte 21"),
    ("a SEARCH RETURN (UPDATE) ALL", "expected a return option of SEARCH at byte 17"),
    ("a SEARCH RETURN (ALL PARTIAL 1:2) ALL", "PARTIAL does not go with ALL at byte 16"),
    ("a SEARCH RETURN (PARTIAL 1:2 PARTIAL 3:4) ALL", "PARTIAL given twice at byte 40"),
    ("a SEARCH RETURN (PARTIAL 1:*) ALL", "expected a range such as 1:500 or -1:-100 at byte 27"),
    ("a SEARCH CHARSET ALL", "expected a space at byte 20"),
    ("a SEARCH CHARSET (x) ALL", "expected a charset at byte 17"),
    ("a SEARCH NONSENSE", "expected a search key at byte 9"),
    ("a SEARCH UNALL", "expected a search key at byte 9"),
    ("a SEARCH ()", "expected a search key at byte 10"),
    ("a SEARCH (ALL", "expected \")\" at byte 13"),
    ("a SEARCH OR ALL", "expected a space at byte 15"),
    ("a SEARCH NOT", "expected a space at byte 12"),
    ("a SEARCH KEYWORD \\Seen", "expected a keyword at byte 17"),
    ("a SEARCH ON 30-Feb-2000", "expected a date such as 1-Feb-1994 at byte 12"),
    ("a SEARCH LARGER -1", "expected a size at byte 16"),
    ("a SEARCH LARGER 9223372036854775808", "expected a size at byte 16"),
    ("a SEARCH YOUNGER 0", "expected seconds above 0 at byte 17"),
    ("a SEARCH MODSEQ \"/comment\" all 1", "expected \"/flags/...\" at byte 16"),
    ("a SEARCH MODSEQ \"/flags/x\" 1", "expected priv, shared or all at byte 27"),
    ("a SEARCH EMAILID a.b", "expected an object id at byte 17"),
    ("a SEARCH 0", "expected a message number or \"*\" at byte 9"),
    ("a SEARCH 1:", "expected a message number or \"*\" at byte 11"),
    ("a SEARCH 4294967296", "expected a message number or \"*\" at byte 9"),
    ("a SEARCH $,1", "expected the end of the command at byte 10"),
    ("a SEARCH TEXT \"\u{fffd}", "expected a closing quote at byte 18"),
    ("a SORT (DATE) ALL", "expected a space at byte 17"),
    ("a SORT () UTF-8 ALL", "expected a sort key at byte 8"),
    ("a SORT (REVERSE) UTF-8 ALL", "expected a space at byte 15"),
    ("a THREAD NONSENSE UTF-8 ALL", "expected ORDEREDSUBJECT or REFERENCES at byte 9"),
    ("a FETCH 1", "expected a space at byte 9"),
    ("a FETCH 1 ()", "expected a FETCH item at byte 11"),
    ("a FETCH 1 (ALL)", "expected a FETCH item at byte 11"),
    ("a FETCH 1 FLAGS UID", "expected \"(\" at byte 16"),
    ("a FETCH 1 BODY.PEEK", "expected a FETCH item at byte 10"),
    ("a FETCH 1 FLAGS[]", "expected a FETCH item at byte 10"),
    (
        "a FETCH 1 BODY[MIME]",
        "expected HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT, TEXT or (in a part) MIME at byte 15",
    ),
    ("a FETCH 1 BODY[1.]", "expected a part of the section at byte 17"),
    ("a FETCH 1 BODY[0]", "expected a part number at byte 15"),
    ("a FETCH 1 BODY[HEADER.FIELDS ()]", "expected the name of a header field at byte 30"),
    ("a FETCH 1 BODY[]<0>", "expected \".\" at byte 18"),
    ("a FETCH 1 BODY[]<0.0>", "expected a length above 0 at byte 19"),
    ("a FETCH 1 BINARY[TEXT]", "expected \"]\" at byte 17"),
    ("a FETCH 1 BINARY.SIZE[1]<0.1>", "expected the end of the command at byte 24"),
    ("a FETCH 1 FLAGS (CHANGEDSINCE x)", "expected a mod-sequence at byte 30"),
    ("a FETCH 1 FLAGS (VANISHED CHANGEDSINCE 1)", "VANISHED needs UID FETCH and CHANGEDSINCE at byte 16"),
    ("a UID FETCH 1 FLAGS (VANISHED)", "VANISHED needs UID FETCH and CHANGEDSINCE at byte 20"),
    ("a FETCH 1 PREVIEW (LAZY EAGER)", "expected LAZY at byte 24"),
    ("a STORE 1 FLAGS", "expected a space at byte 15"),
    ("a STORE 1 FLAGS ", "expected a flag at byte 16"),
    ("a STORE 1 FLAGS (\\Seen", "expected \")\" at byte 22"),
    ("a STORE 1 *FLAGS (\\Seen)", "expected FLAGS, +FLAGS or -FLAGS, perhaps with .SILENT at byte 10"),
    ("a STORE 1 FLAGS \\*", "expected a flag at byte 17"),
    ("a STORE 1 (UNCHANGEDSINCE) FLAGS x", "expected a space at byte 25"),
    ("a COPY 1", "expected a space at byte 8"),
    ("a COPY inbox 1", "expected a message number or \"*\" at byte 7"),
];

#[test]
fn commands_are_refused_at_the_right_place() {
    for (text, answer) in INVALID {
        let error = parse(text.as_bytes()).expect_err(text);
        assert_eq!(error.to_string(), *answer, "{text}");
        assert!(error.at <= text.len());
    }
}

#[test]
fn the_tag_is_told_if_it_could_be_read() {
    assert_eq!(parse(b"A1 NONSENSE").unwrap_err().tag.unwrap().as_str(), "A1");
    assert_eq!(parse(b"A+1 NOOP").unwrap_err().tag.unwrap().as_str(), "A");
    assert_eq!(parse(b"* NOOP").unwrap_err().tag, None);
}

#[test]
fn searches_are_bounded_in_depth() {
    let deep = |levels: usize| format!("a SEARCH {}ALL{}", "(".repeat(levels), ")".repeat(levels));
    assert!(parse(deep(128).as_bytes()).is_ok());
    let error = parse(deep(129).as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "more than 128 levels of search keys at byte 137");
    let nots = format!("a SEARCH {}ALL", "NOT ".repeat(100_000));
    assert!(parse(nots.as_bytes()).is_err());
}

#[test]
fn patterns_of_list_are_bounded_in_number() {
    let many = |patterns: usize| format!("a LIST \"\" (%{})", " %".repeat(patterns - 1));
    assert!(parse(many(100).as_bytes()).is_ok());
    let error = parse(many(101).as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "more than 100 patterns at byte 10");
}
