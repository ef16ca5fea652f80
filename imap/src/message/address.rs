//! Address lists (RFC 5322, section 3.4, obsolete forms included) as ENVELOPE tells them.

use crate::grammar::put_nstring;

/// One address as IMAP has it. A group is a row whose host is missing, its members, and a row with nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Address {
    /// Display name, quoting removed, encoded words left alone.
    pub(super) name: Option<Vec<u8>>,
    /// Source route, obsolete.
    pub(super) route: Option<Vec<u8>>,
    /// Local part, or the name of a group that starts here.
    pub(super) mailbox: Option<Vec<u8>>,
    /// Domain. An address without one has an empty one, since a missing one would mean a group.
    pub(super) host: Option<Vec<u8>>,
}

impl Address {
    pub(super) fn is_mailbox(&self) -> bool {
        self.host.is_some()
    }

    fn write(&self, out: &mut Vec<u8>) {
        for (index, part) in [&self.name, &self.route, &self.mailbox, &self.host].into_iter().enumerate() {
            out.push(if index == 0 { b'(' } else { b' ' });
            put_nstring(out, part.as_deref(), false);
        }
        out.push(b')');
    }
}

/// Writes a list, or `NIL` for an empty one.
pub(super) fn put_addresses(out: &mut Vec<u8>, list: &[Address]) {
    if list.is_empty() {
        return out.extend_from_slice(b"NIL");
    }
    out.push(b'(');
    list.iter().for_each(|address| address.write(out));
    out.push(b')');
}

/// Reads a list. Whatever is there, something comes out, and in linear time.
pub(super) fn parse(value: &[u8]) -> Vec<Address> {
    let mut parser = Parser { rest: value, ..Parser::default() };
    while let Some((byte, rest)) = parser.rest.split_first() {
        parser.rest = rest;
        parser.take(*byte);
    }
    parser.end_address();
    if parser.in_group {
        parser.list.push(Address::default());
    }
    parser.list
}

/// The words read so far of one address.
#[derive(Default)]
struct Parser<'a> {
    rest: &'a [u8],
    list: Vec<Address>,
    /// Words before `@` or `<`, one blank between them.
    words: Vec<u8>,
    /// Whether a blank stood after the last word.
    blank: bool,
    /// How many words there are, and whether one was quoted.
    count: usize,
    has_words: bool,
    /// The last comment: who has no display name often has one.
    comment: Option<Vec<u8>>,
    /// What `<...>` said.
    angle: Option<Address>,
    /// The domain of an address without angles.
    host: Option<Vec<u8>>,
    in_group: bool,
}

impl Parser<'_> {
    fn take(&mut self, byte: u8) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => self.blank = true,
            b'(' => self.comment = Some(self.comment()),
            b'"' => {
                let text = self.quoted();
                self.begin_word();
                self.words.extend(text);
            }
            b'<' => {
                // A second one belongs to nobody.
                let address = self.angle_address();
                self.angle.get_or_insert(address);
            }
            b',' => self.end_address(),
            b';' => {
                self.end_address();
                if std::mem::take(&mut self.in_group) {
                    self.list.push(Address::default());
                }
            }
            b':' if self.has_words && !self.in_group && self.host.is_none() && self.angle.is_none() => {
                let name = std::mem::take(&mut self.words);
                self.list.push(Address { mailbox: Some(name), ..Address::default() });
                self.in_group = true;
                self.reset();
            }
            b'@' if self.angle.is_none() && self.host.is_none() => self.host = Some(self.domain(b",;<")),
            _ => {
                self.begin_word();
                self.words.push(byte);
            }
        }
    }

    fn begin_word(&mut self) {
        if !self.has_words {
            self.count = 1;
        } else if self.blank {
            self.words.push(b' ');
            self.count += 1;
        }
        self.has_words = true;
        self.blank = false;
    }

    fn end_address(&mut self) {
        let words = self.has_words.then(|| std::mem::take(&mut self.words));
        let comment = self.comment.take().filter(|comment| !comment.is_empty());
        let address = match (self.angle.take(), self.host.take()) {
            (Some(angle), _) => {
                Some(Address { name: words.filter(|words| !words.is_empty()).or(comment), ..angle })
            }
            (None, Some(host)) => Some(Address {
                name: comment,
                mailbox: Some(local_part(words)),
                host: Some(host),
                route: None,
            }),
            (None, None) => words.map(|words| bare(words, self.count, comment)),
        };
        self.list.extend(address);
        self.reset();
    }

    fn reset(&mut self) {
        self.words.clear();
        (self.blank, self.count, self.has_words) = (false, 0, false);
        (self.comment, self.angle, self.host) = (None, None, None);
    }

    /// What follows `<`, up to `>`.
    fn angle_address(&mut self) -> Address {
        let mut address = Address { host: Some(Vec::new()), ..Address::default() };
        let mut local = Vec::new();
        while let Some((byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            match byte {
                b'>' => break,
                b'"' => local.extend(self.quoted()),
                b'(' => {
                    self.comment();
                }
                b'@' if local.is_empty() && address.route.is_none() => {
                    let route = self.route();
                    match route {
                        Some(route) => address.route = Some(route),
                        None => address.host = Some(self.domain(b">,")),
                    }
                }
                b'@' => address.host = Some(self.domain(b">")),
                byte if byte.is_ascii_whitespace() => {}
                byte => local.push(*byte),
            }
        }
        address.mailbox = Some(local);
        address
    }

    /// `a,@b:` after its first `@`; nothing if no colon comes before the end of the angle.
    fn route(&mut self) -> Option<Vec<u8>> {
        let end = self.rest.iter().position(|byte| matches!(byte, b':' | b'>'))?;
        if self.rest[end] != b':' {
            return None;
        }
        let mut route = b"@".to_vec();
        route.extend(self.rest[..end].iter().filter(|byte| !byte.is_ascii_whitespace()));
        self.rest = &self.rest[end + 1..];
        Some(route)
    }

    /// A domain, up to one of `ends`, a comment or a blank that no dot stands beside.
    fn domain(&mut self, ends: &[u8]) -> Vec<u8> {
        let mut host = Vec::new();
        let mut blank = false;
        while let Some((byte, rest)) = self.rest.split_first() {
            if ends.contains(byte) || *byte == b'(' {
                break;
            }
            let is_blank = byte.is_ascii_whitespace();
            if !is_blank && blank && !host.is_empty() && *byte != b'.' && host.last() != Some(&b'.') {
                break;
            }
            blank = is_blank;
            if !is_blank {
                host.push(*byte);
            }
            self.rest = rest;
        }
        host
    }

    fn quoted(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some((byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            match byte {
                b'"' => break,
                b'\\' => self.escaped(&mut out),
                b'\r' | b'\n' => {}
                _ => out.push(*byte),
            }
        }
        out
    }

    /// The byte that a backslash stands before.
    fn escaped(&mut self, out: &mut Vec<u8>) {
        if let Some((byte, rest)) = self.rest.split_first() {
            out.push(*byte);
            self.rest = rest;
        }
    }

    fn comment(&mut self) -> Vec<u8> {
        let (mut out, mut depth) = (Vec::new(), 1u32);
        while let Some((byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            match byte {
                b'(' => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            match byte {
                b')' if depth == 0 => break,
                b'\\' => self.escaped(&mut out),
                b'\r' | b'\n' => {}
                _ => out.push(*byte),
            }
        }
        out.trim_ascii().to_vec()
    }
}

/// Blanks around the dots of a local part are not part of it.
fn local_part(words: Option<Vec<u8>>) -> Vec<u8> {
    let words = words.unwrap_or_default();
    let beside_dot =
        |at: usize| words.get(at.wrapping_sub(1)) == Some(&b'.') || words.get(at + 1) == Some(&b'.');
    let kept = words.iter().enumerate().filter(|(at, byte)| **byte != b' ' || !beside_dot(*at));
    kept.map(|(_, byte)| *byte).collect()
}

/// Words without `@`: one is a local user, several are a name whose address is missing.
fn bare(words: Vec<u8>, count: usize, comment: Option<Vec<u8>>) -> Address {
    if count > 1 {
        return Address { name: Some(words), mailbox: Some(Vec::new()), host: Some(Vec::new()), route: None };
    }
    Address { name: comment, mailbox: Some(words), host: Some(Vec::new()), route: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &str) -> String {
        let mut out = Vec::new();
        put_addresses(&mut out, &parse(value.as_bytes()));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn addresses_of_rfc_5322() {
        for (value, text) in [
            ("", "NIL"),
            (" , ,", "NIL"),
            ("jdoe@machine.example", r#"((NIL NIL "jdoe" "machine.example"))"#),
            ("John Doe <jdoe@machine.example>", r#"(("John Doe" NIL "jdoe" "machine.example"))"#),
            (
                r#""Joe Q. Public" <john.q.public@example.com>"#,
                r#"(("Joe Q. Public" NIL "john.q.public" "example.com"))"#,
            ),
            (r#""Giant; \"Big\" Box" <a@b>"#, r#"(("Giant; \"Big\" Box" NIL "a" "b"))"#),
            (
                "Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>",
                r#"(("Mary Smith" NIL "mary" "x.test")(NIL NIL "jdoe" "example.org")("Who?" NIL "one" "y.test"))"#,
            ),
            (
                "A Group:Ed Jones <joe@where.test>,john@jdoe.test;",
                r#"((NIL NIL "A Group" NIL)("Ed Jones" NIL "joe" "where.test")(NIL NIL "john" "jdoe.test")(NIL NIL NIL NIL))"#,
            ),
            ("Undisclosed recipients:;", r#"((NIL NIL "Undisclosed recipients" NIL)(NIL NIL NIL NIL))"#),
            (
                "Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>",
                r#"(("Pete" NIL "pete" "silly.test"))"#,
            ),
            ("john@example.com (John (D) Doe)", r#"(("John (D) Doe" NIL "john" "example.com"))"#),
            (
                "Mary Smith <@node.test,@b.test:mary@example.net>",
                r#"(("Mary Smith" "@node.test,@b.test" "mary" "example.net"))"#,
            ),
            ("jdoe@test   . example", r#"((NIL NIL "jdoe" "test.example"))"#),
            ("john . doe @ example.org", r#"((NIL NIL "john.doe" "example.org"))"#),
            ("\"a b\"@c", r#"((NIL NIL "a b" "c"))"#),
            ("a@[1.2.3.4]", r#"((NIL NIL "a" "[1.2.3.4]"))"#),
            ("root", r#"((NIL NIL "root" ""))"#),
            ("John Doe", r#"(("John Doe" NIL "" ""))"#),
            ("<>", r#"((NIL NIL "" ""))"#),
            ("g: a@b", r#"((NIL NIL "g" NIL)(NIL NIL "a" "b")(NIL NIL NIL NIL))"#),
            ("x <a@b", r#"(("x" NIL "a" "b"))"#),
            ("=?utf-8?q?J=C3=B6?= <j@x>", r#"(("=?utf-8?q?J=C3=B6?=" NIL "j" "x"))"#),
        ] {
            assert_eq!(written(value), text, "{value}");
        }
    }
}
