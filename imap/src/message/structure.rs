//! BODY and BODYSTRUCTURE (RFC 9051, section 7.5.2).

use crate::grammar::put_number;

use super::limits;
use super::parts::{Kind, Rows};

/// A multipart has at least one part; one that came without any gets an empty text.
const NO_PARTS: &[u8] = br#"("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0"#;

/// Writes the structure of the part at the front of `rows`, `extended` for BODYSTRUCTURE.
pub(super) fn put_structure(out: &mut Vec<u8>, rows: &mut Rows<'_>, extended: bool) {
    put_part(out, rows, extended, 0);
}

fn put_part(out: &mut Vec<u8>, rows: &mut Rows<'_>, extended: bool, depth: usize) {
    let Some(part) = rows.next().filter(|_| depth <= limits::DEPTH) else {
        // Only damaged bytes lead here.
        out.extend_from_slice(NO_PARTS);
        out.extend_from_slice(if extended { b" NIL NIL NIL NIL)" } else { b")" });
        return;
    };
    out.push(b'(');
    if part.kind == Kind::Multipart {
        for _ in 0..part.children {
            put_part(out, rows, extended, depth + 1);
            if rows.is_empty() {
                break;
            }
        }
        if part.children == 0 {
            out.extend_from_slice(NO_PARTS);
            out.extend_from_slice(if extended { b" NIL NIL NIL NIL)" } else { b")" });
        }
        out.push(b' ');
        out.extend_from_slice(part.before);
    } else {
        out.extend_from_slice(part.before);
        out.push(b' ');
        put_number(out, part.body_span().size());
    }
    if part.kind == Kind::Message {
        out.push(b' ');
        out.extend_from_slice(part.envelope);
        out.push(b' ');
        put_part(out, rows, extended, depth + 1);
    }
    if matches!(part.kind, Kind::Message | Kind::Text) {
        out.push(b' ');
        put_number(out, part.lines);
    }
    if extended {
        out.push(b' ');
        out.extend_from_slice(part.after);
    }
    out.push(b')');
}
