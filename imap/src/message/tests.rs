//! Whole messages: what is told of them, whatever they are.

mod mail;
mod many;
mod property;
mod search;
mod sections;

use std::io::{self, Read};

use super::*;

/// The summary's bytes of a message.
fn made(raw: impl AsRef<[u8]>) -> Vec<u8> {
    let mut maker = Maker::new();
    maker.push(raw.as_ref());
    maker.finish()
}

fn envelope(raw: impl AsRef<[u8]>) -> String {
    let (bytes, mut out) = (made(raw), Vec::new());
    Summary::read(&bytes).unwrap().put_envelope(&mut out);
    String::from_utf8(out).unwrap()
}

fn structure(raw: impl AsRef<[u8]>) -> String {
    let (bytes, mut out) = (made(raw), Vec::new());
    Summary::read(&bytes).unwrap().put_body_structure(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn body(raw: impl AsRef<[u8]>) -> String {
    let (bytes, mut out) = (made(raw), Vec::new());
    Summary::read(&bytes).unwrap().put_body(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Opens a body in memory.
fn at<'a>(raw: &'a [u8]) -> impl Fn(u64) -> io::Result<&'a [u8]> {
    move |offset| Ok(&raw[usize::try_from(offset).unwrap().min(raw.len())..])
}

/// A section by its text in the protocol: `""`, `1.2`, `2.TEXT`, `HEADER`.
fn section(text: &str) -> Section {
    let mut section = Section::default();
    for word in text.split('.').filter(|word| !word.is_empty()) {
        match word {
            "HEADER" => section.text = SectionText::Header,
            "TEXT" => section.text = SectionText::Text,
            "MIME" => section.text = SectionText::Mime,
            number => section.part.push(number.parse().unwrap()),
        }
    }
    section
}

/// What BODY[...] answers; nothing for `NIL`.
fn fetched(raw: &[u8], text: &str, partial: Option<Partial>) -> Option<String> {
    let bytes = made(raw);
    let summary = Summary::read(&bytes).unwrap();
    let span = summary.section(&section(text))?;
    let mut reader = summary.open(span, partial, at(raw)).unwrap();
    let (len, mut out) = (reader.len(), Vec::new());
    reader.read_to_end(&mut out).unwrap();
    assert_eq!(len, out.len() as u64, "a literal has the length it says");
    for room in [1, 7, 1 << 20] {
        let (mut text, mut appended) = (summary.open(span, partial, at(raw)).unwrap(), Vec::new());
        while text.append(&mut appended, room).unwrap() > 0 {}
        assert_eq!(appended, out, "in pieces of {room}");
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}
