//! Reads the tokens of a command: atoms, numbers, strings and literals (RFC 9051, section 9).

use std::borrow::Cow;

use super::error::{Fault, Parsed, Problem};

/// A place in the text of one command. The text holds literals as they came: header, line end, octets.
#[derive(Clone)]
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The header of a literal: `{12}`, `{12+}`, `~{12}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LiteralHeader {
    pub(super) size: u64,
    pub(super) synchronizing: bool,
    pub(super) binary: bool,
}

/// The name of an option, and the place in `T` that says that it was given.
pub(super) type Switch<T> = (&'static str, fn(&mut T) -> &mut bool);

/// Any byte of an atom (ATOM-CHAR): printable ASCII without the specials.
pub(super) fn is_atom_char(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
}

/// Any byte of an unquoted astring (ASTRING-CHAR).
pub(super) fn is_astring_char(byte: u8) -> bool {
    is_atom_char(byte) || byte == b']'
}

/// Any byte of an unquoted LIST pattern (list-char).
fn is_list_char(byte: u8) -> bool {
    is_astring_char(byte) || matches!(byte, b'%' | b'*')
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Scanner<'a> {
        Scanner { bytes, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn fault(&self, problem: Problem) -> Fault {
        Fault { at: self.at, problem }
    }

    pub(super) fn expected(&self, what: &'static str) -> Fault {
        self.fault(Problem::Expected(what))
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(super) fn at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(super) fn end(&self) -> Parsed<()> {
        if self.at_end() { Ok(()) } else { Err(self.expected("the end of the command")) }
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, byte: u8, what: &'static str) -> Parsed<()> {
        if self.eat(byte) { Ok(()) } else { Err(self.expected(what)) }
    }

    pub(super) fn space(&mut self) -> Parsed<()> {
        self.expect(b' ', "a space")
    }

    pub(super) fn open(&mut self) -> Parsed<()> {
        self.expect(b'(', "\"(\"")
    }

    pub(super) fn close(&mut self) -> Parsed<()> {
        self.expect(b')', "\")\"")
    }

    /// What `take` makes of the text; the place stays where it was if `take` finds nothing.
    pub(super) fn attempt<T>(&mut self, take: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let start = self.at;
        let taken = take(self);
        if taken.is_none() {
            self.at = start;
        }
        taken
    }

    fn run(&mut self, allowed: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|byte| !allowed(*byte)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// One or more bytes that `allowed` takes; they must be ASCII.
    pub(super) fn text(&mut self, what: &'static str, allowed: impl Fn(u8) -> bool) -> Parsed<&'a str> {
        let start = self.at;
        match str::from_utf8(self.run(allowed)) {
            Ok(text) if !text.is_empty() => Ok(text),
            _ => Err(Fault { at: start, problem: Problem::Expected(what) }),
        }
    }

    pub(super) fn atom(&mut self, what: &'static str) -> Parsed<&'a str> {
        self.text(what, is_atom_char)
    }

    /// The atom here, without going over it; empty if there is none.
    pub(super) fn peek_atom(&self) -> &'a str {
        self.clone().atom("").unwrap_or("")
    }

    /// Goes over `word` in any case of letters if the whole atom here is it.
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let found = self.peek_atom().eq_ignore_ascii_case(word);
        if found {
            self.at += word.len();
        }
        found
    }

    /// Looks an atom up in a table, in any case of letters.
    pub(super) fn one_of<T: Copy>(&mut self, what: &'static str, table: &[(&str, T)]) -> Parsed<T> {
        let atom = self.peek_atom();
        let (name, value) = table
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(atom))
            .ok_or_else(|| self.expected(what))?;
        self.at += name.len();
        Ok(*value)
    }

    /// Notes in `options` which of the switches is here.
    pub(super) fn switch<T>(
        &mut self,
        what: &'static str,
        switches: &[Switch<T>],
        options: &mut T,
    ) -> Parsed<()> {
        *self.one_of(what, switches)?(options) = true;
        Ok(())
    }

    /// A number below 2^63 (number64).
    pub(super) fn number64(&mut self, what: &'static str) -> Parsed<u64> {
        let start = self.at;
        let digits = self.text(what, |byte| byte.is_ascii_digit())?;
        let value = digits.parse::<u64>().ok().filter(|value| i64::try_from(*value).is_ok());
        value.ok_or(Fault { at: start, problem: Problem::Expected(what) })
    }

    /// A number below 2^32 (number).
    pub(super) fn number(&mut self, what: &'static str) -> Parsed<u32> {
        let start = self.at;
        let value = self.number64(what)?;
        value.try_into().map_err(|_| Fault { at: start, problem: Problem::Expected(what) })
    }

    /// A number from 1 to 2^32 - 1 (nz-number). Leading zeros, which the grammar has not, do no harm.
    pub(super) fn nz_number(&mut self, what: &'static str) -> Parsed<u32> {
        let fault = self.expected(what);
        self.number(what).and_then(|number| if number == 0 { Err(fault) } else { Ok(number) })
    }

    /// `"..."`. Octets above 0x7F are taken if they are UTF-8: RFC 9051 allows them once it is enabled, and
    /// clients of RFC 3501 send them in SEARCH although they should not.
    fn quoted(&mut self) -> Parsed<Cow<'a, [u8]>> {
        self.expect(b'"', "a quoted string")?;
        let start = self.at;
        let mut unescaped: Option<Vec<u8>> = None;
        loop {
            let run = self.run(|byte| !matches!(byte, b'"' | b'\\' | b'\r' | b'\n' | 0));
            if let Some(so_far) = &mut unescaped {
                so_far.extend_from_slice(run);
            }
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    unescaped.get_or_insert_with(|| self.bytes[start..self.at].to_vec());
                    self.at += 1;
                    let byte = self.peek().filter(|byte| matches!(byte, b'"' | b'\\'));
                    let byte = byte.ok_or_else(|| self.expected("\"\\\" or a quote after \"\\\""))?;
                    unescaped.get_or_insert_default().push(byte);
                    self.at += 1;
                }
                _ => return Err(self.expected("a closing quote")),
            }
        }
        let raw = &self.bytes[start..self.at];
        if str::from_utf8(raw).is_err() {
            return Err(Fault { at: start, problem: Problem::Expected("UTF-8 in a quoted string") });
        }
        self.at += 1;
        Ok(unescaped.map_or(Cow::Borrowed(raw), Cow::Owned))
    }

    /// The header of a literal with its line end.
    pub(super) fn literal_header(&mut self) -> Parsed<LiteralHeader> {
        let what = "a literal";
        let binary = self.eat(b'~');
        self.expect(b'{', what)?;
        let size = self.number64(what)?;
        let synchronizing = !self.eat(b'+');
        self.expect(b'}', what)?;
        self.eat(b'\r');
        self.expect(b'\n', "a line end after the header of a literal")?;
        Ok(LiteralHeader { size, synchronizing, binary })
    }

    fn literal(&mut self) -> Parsed<&'a [u8]> {
        let start = self.at;
        let header = self.literal_header()?;
        let rest = &self.bytes[self.at..];
        let octets = usize::try_from(header.size).ok().and_then(|size| rest.get(..size));
        let octets = octets.ok_or_else(|| self.fault(Problem::Incomplete))?;
        if header.binary || octets.contains(&0) {
            return Err(Fault { at: start, problem: Problem::Expected("a literal without NUL") });
        }
        self.at += octets.len();
        Ok(octets)
    }

    pub(super) fn string(&mut self, what: &'static str) -> Parsed<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{') => self.literal().map(Cow::Borrowed),
            _ => Err(self.expected(what)),
        }
    }

    pub(super) fn astring(&mut self, what: &'static str) -> Parsed<Cow<'a, [u8]>> {
        match self.peek() {
            Some(byte) if is_astring_char(byte) => {
                Ok(Cow::Borrowed(self.text(what, is_astring_char)?.as_bytes()))
            }
            _ => self.string(what),
        }
    }

    /// An astring that may hold wildcards unquoted (list-mailbox).
    pub(super) fn list_mailbox(&mut self) -> Parsed<Cow<'a, [u8]>> {
        match self.peek() {
            Some(byte) if is_list_char(byte) => {
                Ok(Cow::Borrowed(self.text("a pattern", is_list_char)?.as_bytes()))
            }
            _ => self.string("a pattern"),
        }
    }

    /// A string, or nothing for NIL.
    pub(super) fn nstring(&mut self, what: &'static str) -> Parsed<Option<Cow<'a, [u8]>>> {
        if self.eat_word("NIL") { Ok(None) } else { self.string(what).map(Some) }
    }

    /// `(item item ...)`, at least one.
    pub(super) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        self.open()?;
        let mut items = vec![item(self)?];
        while self.eat(b' ') {
            items.push(item(self)?);
        }
        self.close()?;
        Ok(items)
    }

    /// `(item item ...)`, also `()`.
    pub(super) fn list_or_empty<T>(&mut self, item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        match self.bytes.get(self.at..self.at + 2) {
            Some(b"()") => {
                self.at += 2;
                Ok(Vec::new())
            }
            _ => self.list(item),
        }
    }
}
