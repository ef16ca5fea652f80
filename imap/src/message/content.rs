//! What a part's Content-* fields say, as the text of a body structure (RFC 9051, section 7.5.2).

use crate::grammar::{put_nstring, put_string};

use super::header::{self, Field};
use super::parts::{Encoding, Kind};

/// What a part's header says of its body.
pub(super) struct Content {
    pub(super) kind: Kind,
    pub(super) encoding: Encoding,
    /// What separates the parts of a multipart.
    pub(super) boundary: Vec<u8>,
    /// Whether its parts are messages unless they say otherwise.
    pub(super) is_digest: bool,
    pub(super) is_html: bool,
    pub(super) is_attachment: bool,
    pub(super) charset: Vec<u8>,
    /// The body structure's text up to the size; of a multipart, its subtype.
    pub(super) before: Vec<u8>,
    /// The extension data: from MD5 on; of a multipart, from its parameters on.
    pub(super) after: Vec<u8>,
}

/// Where a part stands, as far as its meaning depends on that.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Whether it stands directly in a multipart/digest.
    pub(super) in_digest: bool,
    /// Whether it may have parts; if not it is opaque, whatever it says.
    pub(super) may_nest: bool,
}

/// Reads the Content-* fields of a header.
pub(super) fn describe(header: &[u8], place: Place) -> Content {
    let found = Fields::of(header);
    let mut media = found.kind.map(|field| Structured::parse(field.value)).filter(Structured::is_media_type);
    if media
        .as_ref()
        .is_some_and(|media| media.is("multipart") && media.param("boundary").is_none_or(<[u8]>::is_empty))
    {
        media = None;
    }
    let media = media
        .unwrap_or_else(|| Structured::plain(if place.in_digest { "message/rfc822" } else { "text/plain" }));
    let (main, sub) = media.main_and_sub();
    let kind = match (main, sub) {
        (b"multipart", _) => Kind::Multipart,
        (b"message", b"rfc822" | b"global") => Kind::Message,
        (b"text", _) => Kind::Text,
        (b"message", _) => Kind::Status,
        _ => Kind::Other,
    };
    if !place.may_nest && matches!(kind, Kind::Multipart | Kind::Message) {
        return opaque();
    }
    let disposition =
        found.disposition.map(|field| Structured::parse(field.value)).filter(|it| !it.value.is_empty());
    let encoding =
        found.encoding.map(token_of).filter(|token| !token.is_empty()).unwrap_or_else(|| b"7bit".to_vec());
    let (mut before, mut after) = (Vec::new(), Vec::new());
    if kind == Kind::Multipart {
        put_string(&mut before, sub, false);
        put_params(&mut after, &media.params);
    } else {
        put_string(&mut before, main, false);
        before.push(b' ');
        put_string(&mut before, sub, false);
        before.push(b' ');
        let mut params = media.params.clone();
        if kind == Kind::Text && media.param("charset").is_none() {
            params.push((b"charset".to_vec(), b"us-ascii".to_vec()));
        }
        put_params(&mut before, &params);
        for field in [found.id, found.description] {
            before.push(b' ');
            put_nstring(&mut before, field.map(|field| field.unfolded()).as_deref(), false);
        }
        before.push(b' ');
        put_string(&mut before, &encoding, false);
        put_nstring(&mut after, found.md5.map(|field| field.unfolded()).as_deref(), false);
    }
    after.push(b' ');
    put_disposition(&mut after, disposition.as_ref());
    after.push(b' ');
    put_languages(&mut after, found.language);
    after.push(b' ');
    put_nstring(&mut after, found.location.map(|field| field.unfolded()).as_deref(), false);
    Content {
        kind,
        encoding: Encoding::named(&encoding),
        boundary: media.param("boundary").unwrap_or_default().to_vec(),
        is_digest: sub == b"digest",
        is_html: sub == b"html",
        is_attachment: disposition.is_some_and(|disposition| disposition.is("attachment")),
        charset: media.param("charset").unwrap_or_default().to_vec(),
        before,
        after,
    }
}

/// A part that is not looked into.
pub(super) fn opaque() -> Content {
    Content {
        kind: Kind::Other,
        encoding: Encoding::Identity,
        boundary: Vec::new(),
        is_digest: false,
        is_html: false,
        is_attachment: false,
        charset: Vec::new(),
        before: b"\"application\" \"octet-stream\" NIL NIL NIL \"7bit\"".to_vec(),
        after: b"NIL NIL NIL NIL".to_vec(),
    }
}

#[derive(Default)]
struct Fields<'a> {
    kind: Option<Field<'a>>,
    encoding: Option<Field<'a>>,
    id: Option<Field<'a>>,
    description: Option<Field<'a>>,
    md5: Option<Field<'a>>,
    disposition: Option<Field<'a>>,
    language: Option<Field<'a>>,
    location: Option<Field<'a>>,
}

impl<'a> Fields<'a> {
    fn of(header: &'a [u8]) -> Fields<'a> {
        let mut found = Fields::default();
        for field in header::fields(header) {
            let Some((_, name)) =
                field.name.split_at_checked(8).filter(|(head, _)| head.eq_ignore_ascii_case(b"content-"))
            else {
                continue;
            };
            let slot = match name.to_ascii_lowercase().as_slice() {
                b"type" => &mut found.kind,
                b"transfer-encoding" => &mut found.encoding,
                b"id" => &mut found.id,
                b"description" => &mut found.description,
                b"md5" => &mut found.md5,
                b"disposition" => &mut found.disposition,
                b"language" => &mut found.language,
                b"location" => &mut found.location,
                _ => continue,
            };
            // The first of equals counts, for us as for the mailers that made the rest up.
            slot.get_or_insert(field);
        }
        found
    }
}

/// A value with parameters: `text/plain; charset=utf-8`.
struct Structured {
    /// In lower case.
    value: Vec<u8>,
    params: Params,
}

type Params = Vec<(Vec<u8>, Vec<u8>)>;

impl Structured {
    fn plain(value: &str) -> Structured {
        Structured { value: value.as_bytes().to_vec(), params: Vec::new() }
    }

    fn parse(value: &[u8]) -> Structured {
        let mut lexer = Lexer(value);
        lexer.skip();
        let mut main = lexer.token(b";").to_ascii_lowercase();
        lexer.skip();
        // Blanks around the slash are rare and harmless.
        while lexer.0.first().is_some_and(|byte| *byte == b'/')
            || main.ends_with(b"/") && lexer.0.first() != Some(&b';')
        {
            let more = lexer.token(b";").to_ascii_lowercase();
            if more.is_empty() {
                break;
            }
            main.extend(more);
            lexer.skip();
        }
        Structured { value: main, params: join_continuations(lexer.params()) }
    }

    fn is(&self, main: &str) -> bool {
        self.main_and_sub().0 == main.as_bytes()
    }

    fn is_media_type(&self) -> bool {
        let (main, sub) = self.main_and_sub();
        !main.is_empty() && !sub.is_empty() && !sub.contains(&b'/')
    }

    fn main_and_sub(&self) -> (&[u8], &[u8]) {
        match memchr::memchr(b'/', &self.value) {
            Some(slash) => (&self.value[..slash], &self.value[slash + 1..]),
            None => (&self.value, b""),
        }
    }

    fn param(&self, name: &str) -> Option<&[u8]> {
        self.params.iter().find(|(param, _)| param == name.as_bytes()).map(|(_, value)| &value[..])
    }
}

struct Lexer<'a>(&'a [u8]);

impl<'a> Lexer<'a> {
    /// Skips blanks and comments.
    fn skip(&mut self) {
        let mut depth = 0u32;
        while let Some((byte, rest)) = self.0.split_first() {
            match byte {
                b'(' => depth += 1,
                b')' if depth > 0 => depth -= 1,
                b'\\' if depth > 0 => {
                    self.0 = rest.get(1..).unwrap_or_default();
                    continue;
                }
                _ if depth > 0 || byte.is_ascii_whitespace() => {}
                _ => return,
            }
            self.0 = rest;
        }
    }

    /// Takes what stands before a blank, a comment or one of `ends`.
    fn token(&mut self, ends: &[u8]) -> &'a [u8] {
        let stops = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'(' || ends.contains(byte);
        let len = self.0.iter().position(stops).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(len);
        self.0 = rest;
        token
    }

    fn quoted(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = self.0.get(1..).unwrap_or_default().iter();
        while let Some(byte) = rest.next() {
            match byte {
                b'"' => break,
                b'\\' => out.extend(rest.next()),
                b'\r' | b'\n' => {}
                _ => out.push(*byte),
            }
        }
        self.0 = rest.as_slice();
        out
    }

    fn params(&mut self) -> Params {
        let mut params = Params::new();
        while let Some(semicolon) = memchr::memchr(b';', self.0) {
            self.0 = &self.0[semicolon + 1..];
            self.skip();
            let name = self.token(b"=;").to_ascii_lowercase();
            self.skip();
            let Some(rest) = self.0.strip_prefix(b"=") else { continue };
            self.0 = rest;
            self.skip();
            let value = if self.0.starts_with(b"\"") { self.quoted() } else { self.token(b";").to_vec() };
            if !name.is_empty() {
                params.push((name, value));
            }
        }
        params
    }
}

/// Joins `name*0`, `name*1`, ... (RFC 2231, section 3); the whole is `name*` if one of its pieces is encoded.
fn join_continuations(params: Params) -> Params {
    if !params.iter().any(|(name, _)| name.contains(&b'*')) {
        return params;
    }
    let mut out: Params = Vec::with_capacity(params.len());
    // The name being joined, the number of its next piece, whether one was encoded.
    let mut open: Option<(Vec<u8>, u32, bool)> = None;
    for (name, value) in params {
        let piece = piece_of(&name);
        if let (
            Some((base, number, encoded)),
            Some((open_base, next, open_encoded)),
            Some((open_name, open_value)),
        ) = (&piece, &mut open, out.last_mut())
            && base == open_base
            && number == next
        {
            *next += 1;
            if *encoded && !*open_encoded {
                *open_encoded = true;
                open_name.push(b'*');
                // Without a charset the earlier pieces would be read as one.
                *open_value = [b"''", &percent(open_value)[..]].concat();
            }
            open_value.extend(if *open_encoded && !*encoded { percent(&value) } else { value });
            continue;
        }
        match piece {
            Some((base, 0, encoded)) => {
                let whole = if encoded { [&base[..], b"*"].concat() } else { base.clone() };
                open = Some((base, 1, encoded));
                out.push((whole, value));
            }
            _ => {
                open = None;
                out.push((name, value));
            }
        }
    }
    out
}

/// `name*3*` is the fourth piece of `name`, and encoded.
fn piece_of(name: &[u8]) -> Option<(Vec<u8>, u32, bool)> {
    let (name, encoded) = name.strip_suffix(b"*").map_or((name, false), |name| (name, true));
    let star = memchr::memrchr(b'*', name)?;
    let number = std::str::from_utf8(&name[star + 1..]).ok()?.parse().ok()?;
    Some((name[..star].to_vec(), number, encoded))
}

fn percent(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for byte in value {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(*byte),
            _ => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    out
}

fn token_of(field: Field<'_>) -> Vec<u8> {
    let mut lexer = Lexer(field.value);
    lexer.skip();
    lexer.token(b";").to_ascii_lowercase()
}

fn put_params(out: &mut Vec<u8>, params: &Params) {
    if params.is_empty() {
        out.extend_from_slice(b"NIL");
        return;
    }
    for (index, (name, value)) in params.iter().enumerate() {
        out.push(if index == 0 { b'(' } else { b' ' });
        put_string(out, name, false);
        out.push(b' ');
        put_string(out, value, false);
    }
    out.push(b')');
}

fn put_disposition(out: &mut Vec<u8>, disposition: Option<&Structured>) {
    let Some(disposition) = disposition else { return out.extend_from_slice(b"NIL") };
    out.push(b'(');
    put_string(out, &disposition.value, false);
    out.push(b' ');
    put_params(out, &disposition.params);
    out.push(b')');
}

fn put_languages(out: &mut Vec<u8>, field: Option<Field<'_>>) {
    let mut count = 0;
    let mut lexer = Lexer(field.map_or(b"", |field| field.value));
    loop {
        lexer.skip();
        let language = lexer.token(b",");
        if !language.is_empty() {
            out.push(if count == 0 { b'(' } else { b' ' });
            put_string(out, language, false);
            count += 1;
        }
        match lexer.0.split_first() {
            Some((b',', rest)) => lexer.0 = rest,
            Some(_) => {}
            None => break,
        }
    }
    out.extend_from_slice(if count == 0 { b"NIL" } else { b")" });
}
