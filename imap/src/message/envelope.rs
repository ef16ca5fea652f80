//! ENVELOPE (RFC 9051, section 7.5.2): raw values of a header's fields.

use super::address::{self, Address, put_addresses};
use super::encode::nstring;
use super::header::{self, Field};

/// Writes the envelope that a header tells.
pub(super) fn put_envelope(out: &mut Vec<u8>, header: &[u8]) {
    let found = Fields::of(header);
    out.push(b'(');
    put_text(out, found.date);
    put_text(out, found.subject);
    let from = addresses(found.from);
    put_addresses(out, &from);
    for other in [found.sender, found.reply_to] {
        out.push(b' ');
        match addresses(other) {
            // Who is not said is the author.
            list if list.is_empty() => put_addresses(out, &from),
            list => put_addresses(out, &list),
        }
    }
    for field in [found.to, found.cc, found.bcc] {
        out.push(b' ');
        put_addresses(out, &addresses(field));
    }
    out.push(b' ');
    put_text(out, found.in_reply_to);
    nstring(out, found.message_id.map(|field| field.unfolded()).as_deref());
    out.push(b')');
}

fn put_text(out: &mut Vec<u8>, field: Option<Field<'_>>) {
    nstring(out, field.map(|field| field.unfolded()).as_deref());
    out.push(b' ');
}

fn addresses(field: Option<Field<'_>>) -> Vec<Address> {
    field.map(|field| address::parse(field.value)).unwrap_or_default()
}

#[derive(Default)]
struct Fields<'a> {
    date: Option<Field<'a>>,
    subject: Option<Field<'a>>,
    from: Option<Field<'a>>,
    sender: Option<Field<'a>>,
    reply_to: Option<Field<'a>>,
    to: Option<Field<'a>>,
    cc: Option<Field<'a>>,
    bcc: Option<Field<'a>>,
    in_reply_to: Option<Field<'a>>,
    message_id: Option<Field<'a>>,
}

impl<'a> Fields<'a> {
    fn of(header: &'a [u8]) -> Fields<'a> {
        let mut found = Fields::default();
        for field in header::fields(header) {
            // The length first: most fields are none of these.
            let slot = match field.name.len() {
                2 if field.is("to") => &mut found.to,
                2 if field.is("cc") => &mut found.cc,
                3 if field.is("bcc") => &mut found.bcc,
                4 if field.is("date") => &mut found.date,
                4 if field.is("from") => &mut found.from,
                6 if field.is("sender") => &mut found.sender,
                7 if field.is("subject") => &mut found.subject,
                8 if field.is("reply-to") => &mut found.reply_to,
                10 if field.is("message-id") => &mut found.message_id,
                11 if field.is("in-reply-to") => &mut found.in_reply_to,
                _ => continue,
            };
            slot.get_or_insert(field);
        }
        found
    }
}
