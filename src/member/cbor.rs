//! CBOR with limits: what records, tickets and frames are made of. A reader never allocates more than the
//! bytes it was given hold, and every list and text it takes has a bound.

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

/// Bytes are not what the format says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed bytes")]
pub(crate) struct Malformed;

impl From<minicbor::decode::Error> for Malformed {
    fn from(_: minicbor::decode::Error) -> Malformed {
        Malformed
    }
}

const INFALLIBLE: &str = "a vector takes every byte";

/// Appends CBOR items to a vector.
pub(crate) struct Writer(Encoder<Vec<u8>>);

impl Writer {
    /// Starts after `prefix`.
    pub(crate) fn after(prefix: Vec<u8>) -> Writer {
        Writer(Encoder::new(prefix))
    }

    pub(crate) fn new() -> Writer {
        Writer::after(Vec::new())
    }

    pub(crate) fn array(&mut self, len: usize) -> &mut Writer {
        self.0.array(len as u64).expect(INFALLIBLE);
        self
    }

    pub(crate) fn map(&mut self, len: usize) -> &mut Writer {
        self.0.map(len as u64).expect(INFALLIBLE);
        self
    }

    pub(crate) fn uint(&mut self, value: u64) -> &mut Writer {
        self.0.u64(value).expect(INFALLIBLE);
        self
    }

    pub(crate) fn bool(&mut self, value: bool) -> &mut Writer {
        self.0.bool(value).expect(INFALLIBLE);
        self
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Writer {
        self.0.bytes(bytes).expect(INFALLIBLE);
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Writer {
        self.0.str(text).expect(INFALLIBLE);
        self
    }

    pub(crate) fn null(&mut self) -> &mut Writer {
        self.0.null().expect(INFALLIBLE);
        self
    }

    /// The bytes so far; the writer is empty afterwards.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(self.0.writer_mut())
    }
}

/// Takes CBOR items from a slice.
pub(crate) struct Reader<'b>(Decoder<'b>);

impl<'b> Reader<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Reader<'b> {
        Reader(Decoder::new(bytes))
    }

    /// An array of at most `max` items; its length.
    pub(crate) fn array(&mut self, max: usize) -> Result<usize, Malformed> {
        let len = self.0.array()?.ok_or(Malformed)?;
        usize::try_from(len).ok().filter(|len| *len <= max).ok_or(Malformed)
    }

    /// An array of at least `known` items, as a struct is written; how many unknown ones follow them.
    pub(crate) fn fields(&mut self, known: usize) -> Result<usize, Malformed> {
        self.array(known + MAX_LATER_FIELDS)?.checked_sub(known).ok_or(Malformed)
    }

    /// A map of at most `max` entries; its length.
    pub(crate) fn map(&mut self, max: usize) -> Result<usize, Malformed> {
        let len = self.0.map()?.ok_or(Malformed)?;
        usize::try_from(len).ok().filter(|len| *len <= max).ok_or(Malformed)
    }

    pub(crate) fn uint(&mut self) -> Result<u64, Malformed> {
        Ok(self.0.u64()?)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        Ok(self.0.bool()?)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'b [u8], Malformed> {
        Ok(self.0.bytes()?)
    }

    pub(crate) fn exactly<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.bytes()?.try_into().map_err(|_| Malformed)
    }

    pub(crate) fn text(&mut self, max: usize) -> Result<&'b str, Malformed> {
        Ok(self.0.str()?).and_then(|text| if text.len() <= max { Ok(text) } else { Err(Malformed) })
    }

    /// Nothing for null, else what `item` reads.
    pub(crate) fn optional<T>(
        &mut self,
        item: impl FnOnce(&mut Reader<'b>) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.0.datatype()? == Type::Null {
            self.0.null()?;
            return Ok(None);
        }
        item(self).map(Some)
    }

    pub(crate) fn skip(&mut self, items: usize) -> Result<(), Malformed> {
        for _ in 0..items {
            self.0.skip()?;
        }
        Ok(())
    }

    /// The bytes that were not read yet.
    pub(crate) fn rest(&self) -> &'b [u8] {
        self.0.input().get(self.0.position()..).unwrap_or_default()
    }

    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.rest().is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// Fields that a later minor version may append to a struct: generous, and still small.
const MAX_LATER_FIELDS: usize = 16;
