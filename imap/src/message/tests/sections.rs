//! Which bytes a section is.

use super::mail::rfc_9051_parts;
use super::*;

#[test]
fn the_parts_of_rfc_9051() {
    let crlf = rfc_9051_parts();
    let lf = crlf.replace("\r\n", "\n");
    for mail in [crlf.as_bytes(), lf.as_bytes()] {
        let got = |text: &str| fetched(mail, text, None);
        for part in ["1", "2", "3.1", "3.2", "4.1", "4.2.1", "4.2.2.1", "4.2.2.2"] {
            assert_eq!(got(part).as_deref(), Some(part));
        }
        assert_eq!(got("").unwrap(), crlf);
        assert_eq!(got("HEADER").unwrap() + &got("TEXT").unwrap(), crlf);
        assert_eq!(got("1.MIME").unwrap(), "Content-Type: TEXT/PLAIN\r\n\r\n");
        assert_eq!(got("4.1.MIME").unwrap(), "Content-Type: IMAGE/GIF\r\nContent-ID: <4.1>\r\n\r\n");
        assert!(got("3.HEADER").unwrap().starts_with("Subject: three\r\nContent-Type: MULTIPART"));
        assert_eq!(got("3.HEADER").unwrap() + &got("3.TEXT").unwrap(), got("3").unwrap());
        assert!(got("4.2.TEXT").unwrap().contains("4.2.1"));
        for nothing in ["0", "5", "1.1", "1.HEADER", "1.TEXT", "3.3", "4.2.2.3", "4.1.1", "4.HEADER"] {
            assert_eq!(got(nothing), None, "{nothing}");
        }
    }
}

#[test]
fn a_message_without_parts_has_one() {
    let mail = b"Subject: x\n\nhello\n";
    assert_eq!(fetched(mail, "1", None).unwrap(), "hello\r\n");
    assert_eq!(fetched(mail, "1.MIME", None).unwrap(), "Subject: x\r\n\r\n");
    let forward = b"Content-Type: message/rfc822\n\nSubject: in\n\nhello\n";
    assert_eq!(fetched(forward, "1", None).unwrap(), "Subject: in\r\n\r\nhello\r\n");
    assert_eq!(fetched(forward, "1.1", None).unwrap(), "hello\r\n");
    assert_eq!(fetched(forward, "1.HEADER", None).unwrap(), "Subject: in\r\n\r\n");
}

#[test]
fn every_partial_range_is_a_slice() {
    for mail in
        [&b"A: b\n\none\r\ntwo\nthree\r\r\n\n\r\n\nx"[..], b"\r\n\r\nall\r\n", b"", b"\n", b"A\0\n\0\r\n"]
    {
        let whole = fetched(mail, "", None).unwrap();
        let whole: Vec<char> = whole.chars().collect();
        for offset in 0..whole.len() + 2 {
            for count in 0..whole.len() + 2 {
                let partial = Partial { offset: offset as u64, count: count as u64 };
                let expected: String = whole.iter().skip(offset).take(count).collect();
                assert_eq!(fetched(mail, "", Some(partial)).unwrap(), expected, "{partial:?}");
            }
        }
    }
}

#[test]
fn a_far_offset_is_found_without_reading_up_to_it() {
    // Lines of all lengths, so that marks fall on carriage returns, line feeds and text.
    let mut mail = b"Subject: x\n\n".to_vec();
    for n in 0..60_000 {
        mail.extend((0..n % 37).map(|_| b'x'));
        mail.extend_from_slice(if n % 3 == 0 { b"\r\n" } else { b"\n" });
    }
    let mut whole = Vec::new();
    for (index, byte) in mail.iter().enumerate() {
        if *byte == b'\n' && mail[index - 1] != b'\r' {
            whole.push(b'\r');
        }
        whole.push(*byte);
    }
    let bytes = made(&mail);
    let summary = Summary::read(&bytes).unwrap();
    assert_eq!(summary.size(), whole.len() as u64);
    for offset in (0..whole.len()).step_by(997) {
        let raw_at = |from: u64| {
            assert!(
                offset as u64 - from.min(offset as u64) <= 2 * summary::MARK,
                "opened at {from} for {offset}"
            );
            Ok(&mail[from as usize..])
        };
        let partial = Partial { offset: offset as u64, count: 40 };
        let mut out = Vec::new();
        summary.open(summary.whole(), Some(partial), raw_at).unwrap().read_to_end(&mut out).unwrap();
        assert_eq!(out, whole[offset..whole.len().min(offset + 40)]);
    }
}

#[test]
fn a_body_shorter_than_its_summary_is_an_error() {
    let bytes = made("A: b\r\n\r\nhello\r\n");
    let summary = Summary::read(&bytes).unwrap();
    let mut reader = summary.open(summary.whole(), None, at(b"A: b\r\n")).unwrap();
    assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn header_fields_keep_order_and_folds() {
    let mail = "X-A: 1\nTo: a,\n\tb\nX-a : 2\nSubject: s\nX-B: 3\n\nbody";
    let bytes = made(mail);
    let summary = Summary::read(&bytes).unwrap();
    let span = summary.section(&section("HEADER")).unwrap();
    let header = summary.read_header(span, at(mail.as_bytes())).unwrap();
    let filter = |names: &[&str], not| String::from_utf8(filter_fields(&header, names, not)).unwrap();
    assert_eq!(filter(&["x-a", "TO"], false), "X-A: 1\r\nTo: a,\r\n\tb\r\nX-a : 2\r\n\r\n");
    assert_eq!(filter(&["x-a", "TO"], true), "Subject: s\r\nX-B: 3\r\n\r\n");
    assert_eq!(filter(&["none"], false), "\r\n");
    // What the summary keeps, and what it knows to be absent, needs no body.
    let kept = |names: &[&str]| summary.header_fields(names).map(|fields| String::from_utf8(fields).unwrap());
    assert_eq!(kept(&["SUBJECT", "to", "x-none"]).as_deref(), Some("To: a,\r\n\tb\r\nSubject: s\r\n\r\n"));
    assert_eq!(kept(&["subject", "X-B"]), None);
    assert_eq!(Partial { offset: 3, count: 4 }.cut(b"To: a\r\n".to_vec()), b" a\r\n");
}

#[test]
fn binary_is_decoded() {
    let mail = b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Transfer-Encoding: base64\n\nAGEK\n--b\n\
        Content-Transfer-Encoding: quoted-printable\n\na=20=\nb\nc\n--b\nContent-Transfer-Encoding: x-unknown\n\nd\n--b\n\na\0\n--b--\n";
    let bytes = made(mail);
    let summary = Summary::read(&bytes).unwrap();
    let decoded = |part: &[u32]| {
        let mut out = Vec::new();
        let mut reader = summary.decoded(part, at(mail)).unwrap()?;
        reader.read_to_end(&mut out).unwrap();
        assert_eq!(summary.decoded(part, at(mail)).unwrap()?.count().unwrap(), out.len() as u64);
        Some(out)
    };
    assert_eq!(decoded(&[1]).unwrap(), b"\0a\n");
    assert_eq!(decoded(&[2]).unwrap(), b"a b\r\nc");
    assert_eq!(decoded(&[4]).unwrap(), b"a\0");
    assert_eq!(decoded(&[5]), None);
    assert!(matches!(summary.decoded(&[3], at(mail)), Err(TransferError::UnknownEncoding)));
    assert_eq!(decoded(&[]).unwrap().len() as u64, summary.size());
}
