//! PREVIEW (RFC 8970): the first words of a message.

use super::parts::Encoding;
use super::{charset, limits, transfer};

/// Collects the start of text parts until one has words.
#[derive(Default)]
pub(super) struct Preview {
    source: Option<Source>,
    words: String,
}

struct Source {
    is_html: bool,
    encoding: Encoding,
    charset: Vec<u8>,
    bytes: Vec<u8>,
}

impl Preview {
    pub(super) fn start(&mut self, is_html: bool, encoding: Encoding, charset: &[u8]) {
        if self.words.is_empty() && encoding != Encoding::Unknown {
            self.source = Some(Source { is_html, encoding, charset: charset.to_vec(), bytes: Vec::new() });
        }
    }

    pub(super) fn line(&mut self, text: &[u8]) {
        let Some(source) = &mut self.source else { return };
        let room = limits::PREVIEW_SOURCE.saturating_sub(source.bytes.len());
        source.bytes.extend_from_slice(&text[..text.len().min(room)]);
        if room > text.len() + 1 {
            source.bytes.extend_from_slice(b"\r\n");
        }
    }

    pub(super) fn end_part(&mut self) {
        if let Some(source) = self.source.take() {
            self.words = source.words();
        }
    }

    pub(super) fn finish(self) -> String {
        self.words
    }
}

impl Source {
    fn words(&self) -> String {
        let bytes = transfer::decode(self.encoding, &self.bytes);
        let mut text = String::new();
        charset::decode_piece(&mut charset::decoder(&self.charset), &bytes, true, &mut text);
        if self.is_html {
            return shorten(std::iter::once(&text_of_html(&text)[..]));
        }
        // What the author answers to is shown only where there is nothing else.
        let own = shorten(text.lines().filter(|line| !line.starts_with('>')));
        if own.is_empty() { shorten(text.lines()) } else { own }
    }
}

/// The first words, one blank between them.
fn shorten<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let (mut out, mut left) = (String::new(), limits::PREVIEW);
    let is_blank = |c: char| {
        c.is_whitespace()
            || c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{feff}' | '\u{34f}' | '\u{ad}')
    };
    for word in lines.flat_map(|line| line.split(is_blank)).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            if left <= 1 {
                break;
            }
            out.push(' ');
            left -= 1;
        }
        for c in word.chars().take(left) {
            out.push(c);
            left -= 1;
        }
        if left == 0 {
            break;
        }
    }
    out
}

/// What is between the tags, as far as a person reads it. Stops once a preview is full.
fn text_of_html(html: &str) -> String {
    let (mut out, mut rest) = (String::new(), html);
    while let Some(start) = rest.find('<') {
        push_text(&mut out, &rest[..start]);
        rest = &rest[start..];
        // Blanks are joined later, so that may be fewer characters than it seems.
        if out.len() > limits::PREVIEW * 16 {
            return out;
        }
        let Some(after) = skip_tag(rest, &mut out) else { return out };
        rest = after;
    }
    push_text(&mut out, rest);
    out
}

/// What follows the tag or comment at the front, or the element where its text is not read.
fn skip_tag<'a>(text: &'a str, out: &mut String) -> Option<&'a str> {
    if let Some(comment) = text.strip_prefix("<!--") {
        return comment.find("-->").map(|end| &comment[end + 3..]);
    }
    let inner = &text[1..];
    if !inner.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) {
        out.push('<');
        return Some(inner);
    }
    let name_len = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '/').unwrap_or(inner.len());
    let name = inner[..name_len].to_ascii_lowercase();
    let mut after = &inner[inner.find('>')? + 1..];
    if matches!(name.as_str(), "style" | "script" | "title" | "template") {
        let end = find_end(after, &name)?;
        after = &after[end..];
    }
    if !matches!(name.trim_start_matches('/'), "b" | "i" | "u" | "em" | "strong" | "a" | "span" | "font") {
        out.push(' ');
    }
    Some(after)
}

/// Where `</name` starts.
fn find_end(text: &str, name: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find("</")?;
        if text.as_bytes()[at + 2..]
            .get(..name.len())
            .is_some_and(|end| end.eq_ignore_ascii_case(name.as_bytes()))
        {
            return Some(at);
        }
        from = at + 2;
    }
}

/// Appends text with its entities decoded.
fn push_text(out: &mut String, mut text: &str) {
    while let Some(start) = text.find('&') {
        out.push_str(&text[..start]);
        text = &text[start + 1..];
        let decoded = text
            .as_bytes()
            .iter()
            .take(12)
            .position(|byte| *byte == b';')
            .and_then(|end| entity(&text[..end]).map(|c| (c, end)));
        match decoded {
            Some((c, end)) => {
                out.push(c);
                text = &text[end + 1..];
            }
            None => out.push('&'),
        }
    }
    out.push_str(text);
}

fn entity(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        };
        return char::from_u32(code.ok()?);
    }
    // Those that mailers write though UTF-8 has the characters.
    Some(match name {
        "nbsp" => ' ',
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "auml" => 'ä',
        "ouml" => 'ö',
        "uuml" => 'ü',
        "Auml" => 'Ä',
        "Ouml" => 'Ö',
        "Uuml" => 'Ü',
        "szlig" => 'ß',
        "eacute" => 'é',
        "egrave" => 'è',
        "agrave" => 'à',
        "ccedil" => 'ç',
        "ntilde" => 'ñ',
        "copy" => '©',
        "reg" => '®',
        "euro" => '€',
        "pound" => '£',
        "hellip" => '…',
        "ndash" => '–',
        "mdash" => '—',
        "lsquo" => '‘',
        "rsquo" => '’',
        "ldquo" => '“',
        "rdquo" => '”',
        "bull" => '•',
        "middot" => '·',
        "laquo" => '«',
        "raquo" => '»',
        "zwnj" => '\u{200c}',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preview(is_html: bool, encoding: Encoding, charset: &str, text: &[u8]) -> String {
        let mut preview = Preview::default();
        preview.start(is_html, encoding, charset.as_bytes());
        text.split(|byte| *byte == b'\n').for_each(|line| preview.line(line));
        preview.end_part();
        preview.finish()
    }

    #[test]
    fn first_words() {
        use Encoding::{Base64, Identity, QuotedPrintable};
        assert_eq!(preview(false, Identity, "", b"\n Hello\n\n  world \n"), "Hello world");
        assert_eq!(preview(false, Identity, "", b"> quoted\nanswer"), "answer");
        assert_eq!(preview(false, Identity, "", b"> only quoted"), "> only quoted");
        assert_eq!(preview(false, QuotedPrintable, "iso-8859-1", b"caf=E9 au=\n lait"), "café au lait");
        assert_eq!(preview(false, Base64, "utf-8", b"SGVs\nbG8="), "Hello");
        assert_eq!(
            preview(true, Identity, "", b"<html><head><title>T</title><STYLE>p {}</style></head><!-- <p> no -->\n<p>Fish &amp;&nbsp;chips &#8364;5<br>a<b>b</b> 1 < 2 &bogus; &</p>"),
            "Fish & chips €5 ab 1 < 2 &bogus; &"
        );
        assert_eq!(preview(true, Identity, "", b"a<script>never ends"), "a");
        let long = preview(false, Identity, "utf-8", "é".repeat(1000).as_bytes());
        assert_eq!(long.chars().count(), 200);
        let words = preview(false, Identity, "", "ab ".repeat(1000).as_bytes());
        assert!(words.len() <= 200 && words.ends_with("ab"), "{words}");
    }

    #[test]
    fn the_first_part_with_words_counts() {
        let mut preview = Preview::default();
        for text in ["  ", "first", "second"] {
            preview.start(false, Encoding::Identity, b"");
            preview.line(text.as_bytes());
            preview.end_part();
        }
        assert_eq!(preview.finish(), "first");
    }
}
