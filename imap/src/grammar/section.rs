//! Parts of a message's text that FETCH names (RFC 9051, section 6.4.5).

use super::encode::put_astring;
use super::error::Parsed;
use super::scanner::Scanner;

/// `[4.2.HEADER.FIELDS (DATE)]`: what of a message's text is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Section {
    /// Numbers of the parts, outermost first, from 1; empty for the message itself.
    pub part: Vec<u32>,
    /// What of that part; nothing means its whole content.
    pub text: Option<SectionText>,
}

/// What of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SectionText {
    /// The header of a message.
    Header,
    /// Some fields of a message's header, or all but those.
    HeaderFields {
        /// Whether the named fields are left out rather than taken.
        not: bool,
        /// Names in the client's spelling and order. Any octets: a name that no field can have finds none.
        names: Vec<Vec<u8>>,
    },
    /// The body of a message.
    Text,
    /// The MIME header of a part; never of the message itself.
    Mime,
}

/// `<start.length>`: a piece of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// First octet, from 0.
    pub start: u64,
    /// Most octets wanted, at least 1.
    pub length: u64,
}

impl Section {
    /// Writes the section with its brackets, as a response repeats it.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        put_part(out, &self.part);
        if let Some(text) = &self.text {
            if !self.part.is_empty() {
                out.push(b'.');
            }
            match text {
                SectionText::Header => out.extend_from_slice(b"HEADER"),
                SectionText::Text => out.extend_from_slice(b"TEXT"),
                SectionText::Mime => out.extend_from_slice(b"MIME"),
                SectionText::HeaderFields { not, names } => {
                    out.extend_from_slice(if *not { b"HEADER.FIELDS.NOT (" } else { b"HEADER.FIELDS (" });
                    for (at, name) in names.iter().enumerate() {
                        if at > 0 {
                            out.push(b' ');
                        }
                        put_astring(out, name);
                    }
                    out.push(b')');
                }
            }
        }
        out.push(b']');
    }
}

/// Writes `4.2`.
pub(super) fn put_part(out: &mut Vec<u8>, part: &[u32]) {
    for (at, number) in part.iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        super::encode::put_number(out, u64::from(*number));
    }
}

pub(super) fn section(scanner: &mut Scanner<'_>) -> Parsed<Section> {
    scanner.expect(b'[', "\"[\"")?;
    let part = part_numbers(scanner)?;
    let mut section = Section { part, text: None };
    let more = section.part.is_empty() || scanner.eat(b'.');
    if more && scanner.peek() != Some(b']') {
        section.text = Some(section_text(scanner, !section.part.is_empty())?);
    } else if more && !section.part.is_empty() {
        return Err(scanner.expected("a part of the section"));
    }
    scanner.expect(b']', "\"]\"")?;
    Ok(section)
}

/// `[1.2]` or `[]`, of BINARY.
pub(super) fn binary_section(scanner: &mut Scanner<'_>) -> Parsed<Vec<u32>> {
    scanner.expect(b'[', "\"[\"")?;
    let part = part_numbers(scanner)?;
    scanner.expect(b']', "\"]\"")?;
    Ok(part)
}

pub(super) fn partial(scanner: &mut Scanner<'_>) -> Parsed<Option<Partial>> {
    if !scanner.eat(b'<') {
        return Ok(None);
    }
    let start = scanner.number64("the first octet")?;
    scanner.expect(b'.', "\".\"")?;
    let zero = scanner.expected("a length above 0");
    let length = scanner.number64("a length")?;
    if length == 0 {
        return Err(zero);
    }
    scanner.expect(b'>', "\">\"")?;
    Ok(Some(Partial { start, length }))
}

/// Leaves a last `.` that no digit follows.
fn part_numbers(scanner: &mut Scanner<'_>) -> Parsed<Vec<u32>> {
    let what = "a part number";
    let mut part = Vec::new();
    if scanner.peek().is_some_and(|byte| byte.is_ascii_digit()) {
        part.push(scanner.nz_number(what)?);
        let dot_and_digit = |scanner: &mut Scanner<'_>| {
            (scanner.eat(b'.') && scanner.peek().is_some_and(|byte| byte.is_ascii_digit())).then_some(())
        };
        while scanner.attempt(dot_and_digit).is_some() {
            part.push(scanner.nz_number(what)?);
        }
    }
    Ok(part)
}

fn section_text(scanner: &mut Scanner<'_>, in_part: bool) -> Parsed<SectionText> {
    let what = "HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT, TEXT or (in a part) MIME";
    if scanner.eat_word("HEADER") {
        Ok(SectionText::Header)
    } else if scanner.eat_word("TEXT") {
        Ok(SectionText::Text)
    } else if in_part && scanner.eat_word("MIME") {
        Ok(SectionText::Mime)
    } else {
        let not = scanner.eat_word("HEADER.FIELDS.NOT");
        if !not && !scanner.eat_word("HEADER.FIELDS") {
            return Err(scanner.expected(what));
        }
        scanner.space()?;
        Ok(SectionText::HeaderFields { not, names: scanner.list(field_name)? })
    }
}

pub(super) fn field_name(scanner: &mut Scanner<'_>) -> Parsed<Vec<u8>> {
    scanner.astring("the name of a header field").map(|name| name.into_owned())
}
