//! Whatever the bytes are.

use proptest::prelude::*;

use super::*;
use crate::message::parts::Kind;

/// Bytes that look like mail now and then.
fn mailish() -> impl Strategy<Value = Vec<u8>> {
    const WORDS: &[&str] = &[
        "\n",
        "\r\n",
        "\r",
        "--",
        "--b",
        "--b\n",
        "--b--\n",
        "--bb\n",
        "--c\r\n",
        "\n\n",
        " ",
        "\t",
        "\0",
        "\u{e9}",
        "Content-Type: multipart/mixed; boundary=b\n\n",
        "Content-Type: multipart/digest; boundary=\"bb\"\r\n\r\n",
        "Content-Type: multipart/mixed; boundary=c\n\n",
        "Content-Type: message/rfc822\n\n",
        "Content-Type: text/html; charset=utf-8\n",
        "Content-Transfer-Encoding: base64\n",
        "Content-Transfer-Encoding: quoted-printable\r\n",
        "Content-Disposition: attachment; x*0*=a; x*1=b\n",
        "Subject: =?utf-8?q?x=C3?= =?utf-8?b?qQ==?=\n",
        "From: A \"b\" <c@d>, e: f;\n",
        "References: <a@b> <c@d\n",
        "=3D=",
        "Date: 1 Jan 2020 00:00 +0100\n",
        "<p>&amp;<style>",
        "(((",
        "word",
        "<",
        ";:,\"\\",
    ];
    let word = proptest::sample::select(WORDS).prop_map(|word| word.as_bytes().to_vec());
    let any = proptest::collection::vec(any::<u8>(), 0..8);
    proptest::collection::vec(prop_oneof![4 => word, 1 => any], 0..60).prop_map(|words| words.concat())
}

fn crlf(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, byte) in raw.iter().enumerate() {
        if *byte == b'\n' && (index == 0 || raw[index - 1] != b'\r') {
            out.push(b'\r');
        }
        out.push(if *byte == 0 { 0x80 } else { *byte });
    }
    out
}

proptest! {
    #[test]
    fn pieces_do_not_matter(raw in mailish(), sizes in proptest::collection::vec(1usize..20, 1..20)) {
        let mut maker = Maker::new();
        let mut rest = &raw[..];
        for size in sizes.iter().cycle() {
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            maker.push(piece);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(maker.finish(), made(&raw));
        prop_assert_eq!(make(&mut &raw[..]).unwrap(), made(&raw));
    }

    #[test]
    fn parts_are_ordered_and_nested(raw in mailish()) {
        let bytes = made(&raw);
        let summary = Summary::read(&bytes).unwrap();
        let whole = crlf(&raw);
        prop_assert_eq!((summary.raw_size(), summary.size()), (raw.len() as u64, whole.len() as u64));
        let parts = summary.parts();
        // The end of each open part and how many parts it still has.
        let mut open: Vec<(Position, u64)> = vec![(summary.whole().end, 1)];
        let mut last = Position::default();
        for part in &parts {
            while open.last().is_some_and(|(_, left)| *left == 0) {
                open.pop();
            }
            let (end, left) = open.last_mut().expect("each part has a place");
            *left -= 1;
            prop_assert!(last <= part.header && part.header <= part.body && part.body <= part.end);
            prop_assert!(part.end <= *end);
            let text = &whole[part.body.crlf() as usize..part.end.crlf() as usize];
            prop_assert_eq!(part.lines, text.iter().filter(|byte| **byte == b'\n').count() as u64);
            last = part.body;
            match part.kind {
                Kind::Multipart => {}
                Kind::Message => prop_assert_eq!(part.children, 1),
                _ => prop_assert_eq!(part.children, 0),
            }
            open.push((part.end, part.children));
        }
        prop_assert!(open.iter().all(|(_, left)| *left == 0));
    }

    #[test]
    fn sections_are_slices(raw in mailish(), offset in 0u64..300, count in 0u64..300) {
        let bytes = made(&raw);
        let summary = Summary::read(&bytes).unwrap();
        let whole = crlf(&raw);
        for text in ["", "HEADER", "TEXT", "1", "1.MIME", "2", "1.1", "1.TEXT", "1.HEADER", "2.1", "1.1.1"] {
            let Some(span) = summary.section(&section(text)) else { continue };
            let expected = &whole[span.start.crlf() as usize..span.end.crlf() as usize];
            let mut out = Vec::new();
            summary.open(span, None, at(&raw)).unwrap().read_to_end(&mut out).unwrap();
            prop_assert_eq!(&out[..], expected);
            out.clear();
            let partial = Partial { offset, count };
            summary.open(span, Some(partial), at(&raw)).unwrap().read_to_end(&mut out).unwrap();
            prop_assert_eq!(out, partial.cut(expected.to_vec()));
        }
    }

    #[test]
    fn answers_have_the_protocols_shape(raw in mailish()) {
        let bytes = made(&raw);
        let summary = Summary::read(&bytes).unwrap();
        let (mut envelope, mut structure) = (Vec::new(), Vec::new());
        summary.put_envelope(&mut envelope);
        summary.put_body_structure(&mut structure);
        prop_assert_eq!(values(&envelope), Some(10));
        prop_assert!(values(&structure).is_some());
        prop_assert!(summary.preview().chars().count() <= limits::PREVIEW);
        let _ = (summary.thread_id(), ThreadRow::new(1, 0, &summary));
    }

    #[test]
    fn damaged_summaries_are_harmless(raw in mailish(), at_byte: usize, byte: u8, cut: usize) {
        let mut bytes = made(&raw);
        let index = at_byte % bytes.len();
        bytes[index] = byte;
        bytes.truncate(bytes.len() - cut % bytes.len().min(20));
        let Ok(summary) = Summary::read(&bytes) else { return Ok(()) };
        let mut out = Vec::new();
        summary.put_envelope(&mut out);
        summary.put_body_structure(&mut out);
        for text in ["", "1", "1.1", "2.TEXT"] {
            let Some(span) = summary.section(&section(text)) else { continue };
            if let Ok(reader) = summary.open(span, Some(Partial { offset: 5, count: 10 }), at(&raw)) {
                let _ = reader.take(1 << 20).read_to_end(&mut out);
            }
        }
        let mut terms = Terms::new();
        terms.add(Target::Text, "needle");
        let mut found = terms.in_summary(&summary);
        let _ = terms.in_body(&summary, &mut found, at(&raw));
    }
}

/// How many values the one list has that these bytes are; nothing if they are not one list.
fn values(text: &[u8]) -> Option<usize> {
    let (mut rest, mut depth, mut count) = (text, 0usize, 0);
    loop {
        let before = depth;
        match rest {
            [b'(', after @ ..] => (rest, depth) = (after, depth + 1),
            [b')', after @ ..] => (rest, depth) = (after, depth.checked_sub(1)?),
            [b' ', after @ ..] => rest = after,
            [b'{', ..] => {
                let end = rest.iter().position(|byte| *byte == b'}')?;
                let len: usize = std::str::from_utf8(&rest[1..end]).ok()?.parse().ok()?;
                rest = rest.get(end + 3 + len..)?;
            }
            [b'"', ..] => {
                let mut at = 1;
                while *rest.get(at)? != b'"' {
                    at += if rest[at] == b'\\' { 2 } else { 1 };
                }
                rest = &rest[at + 1..];
            }
            _ => {
                let len = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
                rest = rest.get(len..).filter(|_| len > 0)?;
            }
        }
        let is_value = depth == 1 && before == 1 && text[text.len() - rest.len() - 1] != b' ';
        count += usize::from(is_value || before == 2 && depth == 1);
        if depth == 0 {
            return rest.is_empty().then_some(count);
        }
    }
}
