//! FETCH responses, written item by item: the hot path of a server.

use postmerge::mailbox::{Keyword, ModSeq, Uid};

use super::date::put_date_time;
use super::encode::{put_literal_header, put_literal8_header, put_nstring, put_number, put_spaced};
use super::response::Responses;
use super::section::{Section, put_part};

/// One FETCH response; [`FetchRow::end`] completes it.
#[derive(Debug)]
#[must_use = "the response lacks its end"]
pub struct FetchRow<'a> {
    responses: &'a mut Responses,
    first: bool,
}

impl<'a> FetchRow<'a> {
    pub(super) fn begin(responses: &'a mut Responses, number: u32, name: &str) -> FetchRow<'a> {
        responses.out.extend_from_slice(b"* ");
        put_number(&mut responses.out, number.into());
        responses.out.push(b' ');
        responses.out.extend_from_slice(name.as_bytes());
        FetchRow { responses, first: true }
    }

    pub(super) fn resume(responses: &'a mut Responses, first: bool) -> FetchRow<'a> {
        FetchRow { responses, first }
    }

    /// Leaves the response as it is, to be gone on with by [`Responses::resume_fetch`].
    pub fn pause(self) {}

    /// Completes the response.
    pub fn end(self) {
        self.responses.out.push(b')');
        self.responses.end();
    }

    /// An item of any name whose value `put` writes: ENVELOPE, BODY, BODYSTRUCTURE.
    pub fn item(&mut self, name: &str, put: impl FnOnce(&mut Vec<u8>)) {
        self.name(name);
        self.responses.out.push(b' ');
        put(&mut self.responses.out);
    }

    /// UID
    pub fn uid(&mut self, uid: Uid) {
        self.item("UID", |out| put_number(out, uid.value().into()));
    }

    /// FLAGS
    pub fn flags<'f>(&mut self, flags: impl IntoIterator<Item = &'f Keyword>) {
        self.item("FLAGS", |out| {
            out.push(b'(');
            put_spaced(out, flags, |out, flag| out.extend_from_slice(flag.as_str().as_bytes()));
            out.push(b')');
        });
    }

    /// INTERNALDATE, from seconds since 1970.
    pub fn internal_date(&mut self, seconds: i64) {
        self.item("INTERNALDATE", |out| put_date_time(out, seconds));
    }

    /// RFC822.SIZE, in octets.
    pub fn size(&mut self, octets: u64) {
        self.item("RFC822.SIZE", |out| put_number(out, octets));
    }

    /// MODSEQ
    pub fn mod_seq(&mut self, mod_seq: ModSeq) {
        self.item("MODSEQ", |out| {
            out.push(b'(');
            put_number(out, mod_seq.value());
            out.push(b')');
        });
    }

    /// EMAILID: an id of letters, digits, `_` and `-`.
    pub fn email_id(&mut self, id: &str) {
        self.object_id("EMAILID", Some(id));
    }

    /// THREADID, if there are threads.
    pub fn thread_id(&mut self, id: Option<&str>) {
        self.object_id("THREADID", id);
    }

    /// SAVEDATE, from seconds since 1970; nothing if it is not kept.
    pub fn save_date(&mut self, seconds: Option<i64>) {
        self.item("SAVEDATE", |out| match seconds {
            Some(seconds) => put_date_time(out, seconds),
            None => out.extend_from_slice(b"NIL"),
        });
    }

    /// PREVIEW; nothing if it was wanted only if it costs nothing.
    pub fn preview(&mut self, text: Option<&str>) {
        let utf8 = self.responses.utf8();
        self.item("PREVIEW", |out| put_nstring(out, text.map(str::as_bytes), utf8));
    }

    /// RFC822, RFC822.HEADER or RFC822.TEXT as a literal of `size` octets, which [`FetchRow::octets`] has to bring.
    pub fn literal(&mut self, name: &str, size: u64) {
        self.item(name, |out| put_literal_header(out, size));
    }

    /// A section as a literal of `size` octets, which [`FetchRow::octets`] has to bring. `origin` is the first octet
    /// that was asked for, if a piece was; nothing in place of a size says that there is no such section.
    pub fn section(&mut self, section: &Section, origin: Option<u64>, size: Option<u64>) {
        self.name("BODY");
        section.put(&mut self.responses.out);
        self.origin(origin);
        self.size_or_nil(size, put_literal_header);
    }

    /// A decoded part as a literal of `size` octets, which [`FetchRow::octets`] has to bring; as a literal8 if they may
    /// hold NUL.
    pub fn binary(&mut self, part: &[u32], origin: Option<u64>, size: Option<u64>, holds_nul: bool) {
        self.part("BINARY", part);
        self.origin(origin);
        self.size_or_nil(size, if holds_nul { put_literal8_header } else { put_literal_header });
    }

    /// BINARY.SIZE, in octets.
    pub fn binary_size(&mut self, part: &[u32], octets: u64) {
        self.part("BINARY.SIZE", part);
        self.responses.out.push(b' ');
        put_number(&mut self.responses.out, octets);
    }

    /// The next octets of a literal. What was written so far may be taken from the buffer and sent meanwhile.
    pub fn octets(&mut self, octets: &[u8]) {
        self.responses.out.extend_from_slice(octets);
    }

    /// The same from what appends them to the buffer.
    pub fn octets_from<R>(&mut self, append: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        append(&mut self.responses.out)
    }

    /// Takes what was written so far, of this response and those before it.
    pub fn take(&mut self) -> Vec<u8> {
        self.responses.take()
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.first) {
            self.responses.out.push(b' ');
        }
        self.responses.out.extend_from_slice(name.as_bytes());
    }

    fn part(&mut self, name: &str, part: &[u32]) {
        self.name(name);
        self.responses.out.push(b'[');
        put_part(&mut self.responses.out, part);
        self.responses.out.push(b']');
    }

    fn origin(&mut self, origin: Option<u64>) {
        if let Some(origin) = origin {
            self.responses.out.push(b'<');
            put_number(&mut self.responses.out, origin);
            self.responses.out.push(b'>');
        }
    }

    fn size_or_nil(&mut self, size: Option<u64>, put_header: impl FnOnce(&mut Vec<u8>, u64)) {
        self.responses.out.push(b' ');
        match size {
            Some(size) => put_header(&mut self.responses.out, size),
            None => self.responses.out.extend_from_slice(b"NIL"),
        }
    }

    fn object_id(&mut self, name: &str, id: Option<&str>) {
        self.item(name, |out| match id {
            Some(id) => {
                out.push(b'(');
                out.extend_from_slice(id.as_bytes());
                out.push(b')');
            }
            None => out.extend_from_slice(b"NIL"),
        });
    }
}
