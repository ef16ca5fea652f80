//! ENVELOPE (RFC 9051, section 7.5.2): raw values of a header's fields.

use crate::grammar::put_nstring;

use super::address::{self, Address, put_addresses};
use super::header::{self, Field};

/// Writes the envelope that a header tells. Of a text field the first counts; address fields that come more than
/// once, which RFC 5322 forbids and mail has, are one list.
pub(super) fn put_envelope(out: &mut Vec<u8>, header: &[u8]) {
    let found = Fields::of(header);
    out.push(b'(');
    put_text(out, found.date);
    out.push(b' ');
    put_text(out, found.subject);
    // Who is not said is the author.
    let or_author = |list| if Vec::is_empty(list) { &found.from } else { list };
    let lists =
        [&found.from, or_author(&found.sender), or_author(&found.reply_to), &found.to, &found.cc, &found.bcc];
    for list in lists {
        out.push(b' ');
        put_addresses(out, list);
    }
    out.push(b' ');
    put_text(out, found.in_reply_to);
    out.push(b' ');
    put_text(out, found.message_id);
    out.push(b')');
}

fn put_text(out: &mut Vec<u8>, field: Option<Field<'_>>) {
    put_nstring(out, field.map(|field| field.unfolded()).as_deref(), false);
}

#[derive(Default)]
struct Fields<'a> {
    date: Option<Field<'a>>,
    subject: Option<Field<'a>>,
    from: Vec<Address>,
    sender: Vec<Address>,
    reply_to: Vec<Address>,
    to: Vec<Address>,
    cc: Vec<Address>,
    bcc: Vec<Address>,
    in_reply_to: Option<Field<'a>>,
    message_id: Option<Field<'a>>,
}

impl<'a> Fields<'a> {
    fn of(header: &'a [u8]) -> Fields<'a> {
        let mut found = Fields::default();
        for field in header::fields(header) {
            // The length first: most fields are none of these.
            let list = match field.name.len() {
                2 if field.is("to") => &mut found.to,
                2 if field.is("cc") => &mut found.cc,
                3 if field.is("bcc") => &mut found.bcc,
                4 if field.is("from") => &mut found.from,
                6 if field.is("sender") => &mut found.sender,
                8 if field.is("reply-to") => &mut found.reply_to,
                _ => {
                    found.text(field);
                    continue;
                }
            };
            list.extend(address::parse(field.value));
        }
        found
    }

    fn text(&mut self, field: Field<'a>) {
        let slot = match field.name.len() {
            4 if field.is("date") => &mut self.date,
            7 if field.is("subject") => &mut self.subject,
            10 if field.is("message-id") => &mut self.message_id,
            11 if field.is("in-reply-to") => &mut self.in_reply_to,
            _ => return,
        };
        slot.get_or_insert(field);
    }
}
