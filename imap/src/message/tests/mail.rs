//! Envelopes and structures: the RFCs' examples, and mail as it should not be.

use super::*;

/// RFC 9051, section 8, with the body's 92 lines and 3028 bytes made up.
fn rfc_9051() -> String {
    let header = "Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\r\n\
        From: Terry Gray <gray@cac.washington.edu>\r\n\
        Subject: IMAP4rev2 WG mtg summary and minutes\r\n\
        To: imap@cac.washington.edu\r\n\
        cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>\r\n\
        Message-Id: <B27397-0100000@cac.washington.edu>\r\n\
        MIME-Version: 1.0\r\n\
        Content-Type: TEXT/PLAIN; CHARSET=US-ASCII\r\n\r\n";
    let line = format!("{}\r\n", "x".repeat(31));
    format!("{header}{}{}\r\n", line.repeat(91), "y".repeat(3028 - 91 * 33 - 2))
}

#[test]
fn the_example_of_rfc_9051() {
    let mail = rfc_9051();
    assert_eq!(
        envelope(&mail),
        "(\"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\" \"IMAP4rev2 WG mtg summary and minutes\" \
         ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) \
         ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) ((NIL NIL \"imap\" \"cac.washington.edu\")) \
         ((NIL NIL \"minutes\" \"CNRI.Reston.VA.US\")(\"John Klensin\" NIL \"KLENSIN\" \"MIT.EDU\")) NIL NIL \
         \"<B27397-0100000@cac.washington.edu>\")"
    );
    assert_eq!(body(&mail), r#"("text" "plain" ("charset" "US-ASCII") NIL NIL "7bit" 3028 92)"#);
    let bytes = made(&mail);
    let summary = Summary::read(&bytes).unwrap();
    assert_eq!(summary.sent(), Some(Sent { seconds: 837_595_405, zone: -420 }));
    assert_eq!(summary.size(), mail.len() as u64);
}

/// The tree of RFC 9051, section 6.4.5.1: `4.1` is a picture's part, `4.2.2` a message's.
pub(super) fn rfc_9051_parts() -> String {
    let text = |what: &str| format!("Content-Type: TEXT/PLAIN\r\n\r\n{what}\r\n");
    let octets = |what: &str| format!("Content-Type: APPLICATION/OCTET-STREAM\r\n\r\n{what}\r\n");
    let message = |inner: &str| format!("Content-Type: MESSAGE/RFC822\r\n\r\n{inner}\r\n");
    let mixed = |boundary: &str, parts: &[String]| {
        let parts: String = parts.iter().map(|part| format!("--{boundary}\r\n{part}")).collect();
        format!("Content-Type: MULTIPART/MIXED; boundary={boundary}\r\n\r\n{parts}--{boundary}--\r\n")
    };
    let alternative = "Content-Type: MULTIPART/ALTERNATIVE; boundary=C\r\n\r\n\
        --C\r\nContent-Type: TEXT/PLAIN\r\n\r\n4.2.2.1\r\n--C\r\nContent-Type: TEXT/RICHTEXT\r\n\r\n4.2.2.2\r\n--C--\r\n";
    let inner3 = format!("Subject: three\r\n{}", mixed("D", &[text("3.1"), octets("3.2")]));
    let inner42 = format!("Subject: four\r\n{}", mixed("E", &[text("4.2.1"), alternative.to_owned()]));
    let fourth = mixed(
        "F",
        &["Content-Type: IMAGE/GIF\r\nContent-ID: <4.1>\r\n\r\n4.1\r\n".to_owned(), message(&inner42)],
    );
    format!("Subject: top\r\n{}", mixed("A", &[text("1"), octets("2"), message(&inner3), fourth]))
}

#[test]
fn nested_parts() {
    let nil4 = "NIL NIL NIL NIL";
    let plain =
        |octets| format!(r#"("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" {octets} 0 {nil4})"#);
    let data = |octets| format!(r#"("application" "octet-stream" NIL NIL NIL "7bit" {octets} {nil4})"#);
    let rich = format!(r#"("text" "richtext" ("charset" "us-ascii") NIL NIL "7bit" 7 0 {nil4})"#);
    let alternative = format!(r#"({}{rich} "alternative" ("boundary" "C") NIL NIL NIL)"#, plain(7));
    let three = format!(r#"({}{} "mixed" ("boundary" "D") NIL NIL NIL)"#, plain(3), data(3));
    let four = format!(r#"({}{alternative} "mixed" ("boundary" "E") NIL NIL NIL)"#, plain(5));
    let env = |subject| format!(r#"(NIL "{subject}" NIL NIL NIL NIL NIL NIL NIL NIL)"#);
    let mail = rfc_9051_parts();
    let size = |part: &str| fetched(mail.as_bytes(), part, None).unwrap().len();
    let lines = |part: &str| fetched(mail.as_bytes(), part, None).unwrap().matches('\n').count();
    let message3 = format!(
        r#"("message" "rfc822" NIL NIL NIL "7bit" {} {} {three} {} {nil4})"#,
        size("3"),
        env("three"),
        lines("3")
    );
    let message42 = format!(
        r#"("message" "rfc822" NIL NIL NIL "7bit" {} {} {four} {} {nil4})"#,
        size("4.2"),
        env("four"),
        lines("4.2")
    );
    let picture = format!(r#"("image" "gif" NIL "<4.1>" NIL "7bit" 3 {nil4})"#);
    let fourth = format!(r#"({picture}{message42} "mixed" ("boundary" "F") NIL NIL NIL)"#);
    assert_eq!(
        structure(&mail),
        format!(r#"({}{}{message3}{fourth} "mixed" ("boundary" "A") NIL NIL NIL)"#, plain(1), data(1))
    );
}

#[test]
fn fields_of_a_part() {
    let mail = "Content-Type: text/html; charset=utf-8; name*0=\"a b\";\r\n name*1=c; format=flowed (why)\r\n\
        Content-ID: <id@x>\r\nContent-Description: what\r\n it is\r\nContent-Transfer-Encoding: QUOTED-PRINTABLE\r\n\
        Content-MD5: abc=\r\nContent-Disposition: attachment; filename*=utf-8''%e2%82%ac\r\n\
        Content-Language: en, de\r\nContent-Location: http://x/\r\n\r\nx";
    assert_eq!(
        structure(mail),
        "(\"text\" \"html\" (\"charset\" \"utf-8\" \"name\" \"a bc\" \"format\" \"flowed\") \"<id@x>\" \"what it is\" \
         \"quoted-printable\" 1 0 \"abc=\" (\"attachment\" (\"filename*\" \"utf-8''%e2%82%ac\")) (\"en\" \"de\") \
         \"http://x/\")"
    );
}

#[test]
fn mail_as_it_should_not_be() {
    let plain = |octets: u64, lines: u64| {
        format!(r#"("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" {octets} {lines})"#)
    };
    let multipart = "Content-Type: multipart/mixed; boundary=b\n\n";
    for (why, mail, expected) in [
        ("nothing", "", plain(0, 0)),
        ("only an empty line", "\n", plain(0, 0)),
        ("no empty line", "Subject: x\nTo: y", plain(0, 0)),
        ("no header", "\nhello\n", plain(7, 1)),
        ("a type without a subtype", "Content-Type: text\n\nx", plain(1, 0)),
        ("a multipart without a boundary", "Content-Type: multipart/mixed\n\nx", plain(1, 0)),
        (
            "no end of the last part",
            &format!("{multipart}--b\n\nx\n"),
            format!(r#"({} "mixed")"#, plain(3, 1)),
        ),
        ("no parts", &format!("{multipart}x\n"), format!(r#"({} "mixed")"#, plain(0, 0))),
        (
            "a boundary in place of the header's end",
            &format!("{multipart}--b\nA: b\n--b\n\nx\n--b--"),
            format!(r#"({}{} "mixed")"#, plain(0, 0), plain(1, 0)),
        ),
        ("an empty part", &format!("{multipart}--b\n\n--b--\n"), format!(r#"({} "mixed")"#, plain(0, 0))),
        (
            "text after the end",
            &format!("{multipart}before\n--b\n\nx\n--b--\n--b\nafter\n"),
            format!(r#"({} "mixed")"#, plain(1, 0)),
        ),
        (
            "blanks after a boundary",
            &format!("{multipart}--b \t\n\nx\n--b--  \n"),
            format!(r#"({} "mixed")"#, plain(1, 0)),
        ),
        (
            "mixed line ends",
            &format!("{multipart}--b\r\n\nx\r\ny\nz\r\n--b--\n"),
            format!(r#"({} "mixed")"#, plain(7, 2)),
        ),
        (
            "bytes above 127 in a type",
            "Content-Type: text/pl\u{e9}in\n\n",
            "(\"text\" {6}\r\npl\u{e9}in (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0)".to_owned(),
        ),
    ] {
        assert_eq!(body(mail), expected, "{why}");
    }
}

#[test]
fn one_boundary_that_starts_like_another() {
    let mail = "Content-Type: multipart/mixed; boundary=b\n\n--b\n\
        Content-Type: multipart/mixed; boundary=b2\n\n--b2\n\nin\n--b2--\n--b\n\nout\n--b--\n";
    let leaf = |octets| format!(r#"("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" {octets} 0)"#);
    assert_eq!(body(mail), format!(r#"(({} "mixed"){} "mixed")"#, leaf(2), leaf(3)));
    // The inner one ends where the outer one goes on, though its own end is missing.
    let mail = mail.replace("--b2--\n", "");
    assert_eq!(body(mail), format!(r#"(({} "mixed"){} "mixed")"#, leaf(2), leaf(3)));
}

#[test]
fn parts_of_a_digest_are_messages() {
    let mail = "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: one\n\nx\n--b\n\
        Content-Type: text/plain\n\ny\n--b--\n";
    let plain = |octets| format!(r#"("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" {octets} 0)"#);
    assert_eq!(
        body(mail),
        format!(
            r#"(("message" "rfc822" NIL NIL NIL "7bit" 17 (NIL "one" NIL NIL NIL NIL NIL NIL NIL NIL) {} 2){} "digest")"#,
            plain(1),
            plain(1)
        )
    );
}

#[test]
fn what_is_too_deep_or_too_much_is_opaque() {
    let deep: String =
        (0..300).map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}x\n\n--b{n}x\n")).collect();
    let told = body(&deep);
    assert_eq!(told.matches("\"mixed\"").count(), limits::DEPTH - 1);
    assert!(told.contains(r#""application" "octet-stream""#), "{told}");

    let forwards = "Content-Type: message/rfc822\n\n".repeat(300);
    assert_eq!(body(&forwards).matches("\"rfc822\"").count(), limits::DEPTH - 1);

    let wide =
        format!("Content-Type: multipart/mixed; boundary=b\n\n{}", "--b\n\nx\n".repeat(limits::PARTS + 10));
    let bytes = made(&wide);
    let summary = Summary::read(&bytes).unwrap();
    assert_eq!(summary.parts().len(), limits::PARTS);
    assert!(bytes.len() < 2 * limits::STRUCTURE);
    let last = summary.parts().pop().unwrap();
    assert_eq!(last.end, summary.whole().end, "the last part takes the rest");
}

#[test]
fn a_huge_header_costs_no_memory() {
    let line = format!("X-Long: {}\n", "x".repeat(limits::HEADER));
    let mail = format!("Subject: first\n{line}From: a@b\n\nbody");
    let bytes = made(&mail);
    assert!(bytes.len() < 4096);
    let summary = Summary::read(&bytes).unwrap();
    assert_eq!(fetched(mail.as_bytes(), "TEXT", None).unwrap(), "body");
    // What was cut cannot be answered from the summary.
    assert_eq!(summary.header_fields(&["subject"]), None);
}

#[test]
fn nul_and_raw_bytes() {
    assert_eq!(
        String::from_utf8_lossy(&{
            let (bytes, mut out) = (made(b"Subject: a\0b\xe9\n\n"), Vec::new());
            Summary::read(&bytes).unwrap().put_envelope(&mut out);
            out
        }),
        "(NIL {4}\r\na\u{fffd}b\u{fffd} NIL NIL NIL NIL NIL NIL NIL NIL)"
    );
    assert_eq!(fetched(b"\na\0b\r\n", "TEXT", None).unwrap(), "a\u{fffd}b\r\n");
}

#[test]
fn senders_that_are_not_said_are_the_author() {
    let told = envelope("From: a@b\nSender: \nReply-To: c@d\nTo: x: e@f, g;\n\n");
    assert_eq!(
        told,
        "(NIL NIL ((NIL NIL \"a\" \"b\")) ((NIL NIL \"a\" \"b\")) ((NIL NIL \"c\" \"d\")) \
         ((NIL NIL \"x\" NIL)(NIL NIL \"e\" \"f\")(NIL NIL \"g\" \"\")(NIL NIL NIL NIL)) NIL NIL NIL NIL)"
    );
}
