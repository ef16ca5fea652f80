//! Words in messages.

use super::*;

/// Whether the message has the needle, and whether its summary alone told.
fn search(raw: &[u8], target: Target, needle: &str) -> (bool, bool) {
    let bytes = made(raw);
    let summary = Summary::read(&bytes).unwrap();
    let mut terms = Terms::new();
    assert_eq!(terms.add(target, needle), 0);
    let mut found = terms.in_summary(&summary);
    let from_summary = found.is_complete();
    terms.in_body(&summary, &mut found, at(raw)).unwrap();
    (found.has(0).unwrap(), from_summary)
}

fn header(name: &str) -> Target {
    Target::Header(name.as_bytes().to_vec())
}

const MAIL: &str = "Subject: =?utf-8?q?Caf=C3=A9?= au\n lait\nFrom: Zo\u{eb} <zoe@example.org>\nX-Odd: Strange\n\
    Content-Type: multipart/mixed; boundary=b\n\n\
    preamble\n--b\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\n\
    Stra=DFe und na=\n=EFve\n--b\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: base64\n\n\
    PGI+SGVsbG8gV29ybGQ8L2I+\n--b\nContent-Type: application/octet-stream; name=secret.bin\n\nbinary needle\n--b\n\
    Content-Type: message/rfc822\n\nSubject: inner words\n\nforwarded text\n--b--\n";

#[test]
fn words_are_found_where_a_person_reads_them() {
    let mail = MAIL.as_bytes();
    for (target, needle, is_there, from_summary) in [
        (header("subject"), "CAFÉ AU LAIT", true, true),
        (header("subject"), "cafe\u{301} au", true, true),
        (header("subject"), "utf-8", false, true),
        (header("from"), "zoë", true, true),
        (header("from"), "EXAMPLE.org", true, true),
        (header("x-odd"), "strange", true, false),
        (header("x-odd"), "", true, false),
        (header("x-none"), "", false, true),
        (header("to"), "", false, true),
        (Target::Body, "STRASSE UND NAÏVE", true, false),
        (Target::Body, "hello world", true, false),
        (Target::Body, "forwarded", true, false),
        (Target::Body, "", true, true),
        (Target::Body, "binary needle", false, false),
        (Target::Body, "inner words", false, false),
        (Target::Body, "café", false, false),
        (Target::Text, "inner words", true, false),
        (Target::Text, "café", true, false),
        (Target::Text, "SECRET.BIN", true, false),
        (Target::Text, "nowhere", false, false),
    ] {
        assert_eq!(search(mail, target.clone(), needle), (is_there, from_summary), "{target:?} {needle}");
    }
}

#[test]
fn many_terms_are_decided_at_once() {
    let bytes = made(MAIL);
    let summary = Summary::read(&bytes).unwrap();
    let mut terms = Terms::new();
    let subject = terms.add(header("subject"), "lait");
    let body = terms.add(Target::Body, "world");
    let nowhere = terms.add(Target::Body, "nowhere");
    let mut found = terms.in_summary(&summary);
    assert_eq!((found.has(subject), found.has(body), found.has(nowhere)), (Some(true), None, None));
    assert_eq!(found.has(99), None);
    terms.in_body(&summary, &mut found, at(MAIL.as_bytes())).unwrap();
    assert_eq!(
        (found.has(subject), found.has(body), found.has(nowhere)),
        (Some(true), Some(true), Some(false))
    );
}

/// Gives a byte at a time: the worst pieces there are.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = out.len().min(1).min(self.0.len());
        out[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        Ok(len)
    }
}

#[test]
fn a_needle_across_pieces_is_found() {
    let bytes = made(MAIL);
    let summary = Summary::read(&bytes).unwrap();
    for needle in ["straße und naïve", "hello world", "café au lait"] {
        let mut terms = Terms::new();
        terms.add(Target::Text, needle);
        let mut found = terms.in_summary(&summary);
        terms.in_body(&summary, &mut found, |from| Ok(Slow(&MAIL.as_bytes()[from as usize..]))).unwrap();
        assert_eq!(found.has(0), Some(true), "{needle}");
    }
    // One that the reader's own pieces cut.
    for start in 16_370..16_390 {
        let mail = format!("\n{}needle{}", "x".repeat(start), "y".repeat(50_000));
        assert!(search(mail.as_bytes(), Target::Body, "NEEDLE").0, "{start}");
    }
}

#[test]
fn a_large_attachment_is_not_read() {
    let mail = format!(
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n--b\nContent-Type: image/png\n\n{}\n--b\n\nlast\n--b--\n",
        "x".repeat(1_000_000)
    );
    let bytes = made(&mail);
    let summary = Summary::read(&bytes).unwrap();
    let mut terms = Terms::new();
    terms.add(Target::Body, "last");
    let mut found = terms.in_summary(&summary);
    let mut opened = Vec::new();
    terms
        .in_body(&summary, &mut found, |from| {
            opened.push(from);
            Ok(&mail.as_bytes()[from as usize..])
        })
        .unwrap();
    assert_eq!(found.has(0), Some(true));
    assert_eq!(opened.len(), 2, "once for the start and once behind the attachment: {opened:?}");
}
