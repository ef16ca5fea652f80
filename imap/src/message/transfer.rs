//! Content-transfer-encodings (RFC 2045, section 6), decoded piece by piece.

use std::io::{self, Read};

use thiserror::Error;

use super::parts::Encoding;

/// Why BINARY cannot be answered.
#[derive(Debug, Error)]
pub enum TransferError {
    /// The answer is `NO [UNKNOWN-CTE]` (RFC 3516).
    #[error("the part's content-transfer-encoding is unknown")]
    UnknownEncoding,
    /// The body cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Decodes pieces of a part. What is not of the encoding is passed over (base64) or passed on (quoted-printable).
#[derive(Debug)]
pub(super) enum Decoder {
    Identity,
    Base64 { bits: u32, count: u32 },
    QuotedPrintable(QuotedPrintable),
}

#[derive(Debug, Default)]
pub(super) struct QuotedPrintable {
    /// Blanks that the end of a line would drop.
    blanks: Vec<u8>,
    escape: Escape,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After `=`.
    Start,
    /// After `=` and one digit.
    Digit(u8),
    /// After `=` and a blank: a soft line break that something lengthened.
    Blank,
}

/// Blanks that are held back at most: a line has 76 characters, and memory has bounds.
const MAX_BLANKS: usize = 1024;

impl Decoder {
    pub(super) fn new(encoding: Encoding) -> Option<Decoder> {
        Some(match encoding {
            Encoding::Identity => Decoder::Identity,
            Encoding::Base64 => Decoder::Base64 { bits: 0, count: 0 },
            Encoding::QuotedPrintable => Decoder::QuotedPrintable(QuotedPrintable::default()),
            Encoding::Unknown => return None,
        })
    }

    /// Appends what a piece gives.
    pub(super) fn piece(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        match self {
            Decoder::Identity => out.extend_from_slice(piece),
            Decoder::Base64 { bits, count } => base64_piece(bits, count, piece, out),
            Decoder::QuotedPrintable(decoder) => decoder.piece(piece, out),
        }
    }

    /// Appends what was held back.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if let Decoder::QuotedPrintable(decoder) = self {
            match std::mem::take(&mut decoder.escape) {
                Escape::Digit(digit) => out.extend_from_slice(&[b'=', digit]),
                Escape::None => out.append(&mut decoder.blanks),
                Escape::Start | Escape::Blank => {}
            }
        }
    }
}

/// Six bits a letter; `=` ends a run, and another may follow.
fn base64_piece(bits: &mut u32, count: &mut u32, piece: &[u8], out: &mut Vec<u8>) {
    out.reserve(piece.len() / 4 * 3 + 3);
    for byte in piece {
        let value = SIX_BITS[usize::from(*byte)];
        if value < 64 {
            *bits = *bits << 6 | u32::from(value);
            *count += 6;
            if *count >= 8 {
                *count -= 8;
                out.push((*bits >> *count) as u8);
            }
        } else if *byte == b'=' {
            (*bits, *count) = (0, 0);
        }
    }
}

static SIX_BITS: [u8; 256] = {
    let mut table = [255; 256];
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut index = 0;
    while index < letters.len() {
        table[letters[index] as usize] = index as u8;
        index += 1;
    }
    table
};

impl QuotedPrintable {
    fn piece(&mut self, mut piece: &[u8], out: &mut Vec<u8>) {
        while let Some((byte, rest)) = piece.split_first() {
            if self.escape != Escape::None {
                if self.escaped(*byte, out) {
                    piece = rest;
                }
                continue;
            }
            let special = memchr::memchr3(b'=', b'\r', b'\n', piece);
            let (text, rest) = piece.split_at(special.unwrap_or(piece.len()));
            self.text(text, out);
            match rest.first() {
                Some(b'=') => {
                    out.append(&mut self.blanks);
                    self.escape = Escape::Start;
                }
                Some(line_end) => {
                    self.blanks.clear();
                    out.push(*line_end);
                }
                None => return,
            }
            piece = &rest[1..];
        }
    }

    /// Text without line ends and escapes; blanks at its end wait for what follows.
    fn text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let kept = text.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
        if kept > 0 {
            out.append(&mut self.blanks);
            out.extend_from_slice(&text[..kept]);
        }
        self.blanks.extend_from_slice(&text[kept..]);
        if self.blanks.len() > MAX_BLANKS {
            out.append(&mut self.blanks);
        }
    }

    /// A byte inside of an escape; whether it was used up.
    fn escaped(&mut self, byte: u8, out: &mut Vec<u8>) -> bool {
        let (next, is_used) = match (self.escape, byte) {
            (Escape::Start | Escape::Blank, b' ' | b'\t' | b'\r') => (Escape::Blank, true),
            (Escape::Start | Escape::Blank, b'\n') => (Escape::None, true),
            (Escape::Start, _) if byte.is_ascii_hexdigit() => (Escape::Digit(byte), true),
            (Escape::Digit(high), _) if byte.is_ascii_hexdigit() => {
                out.push(hex(high) << 4 | hex(byte));
                (Escape::None, true)
            }
            (Escape::Digit(high), _) => {
                out.extend_from_slice(&[b'=', high]);
                (Escape::None, false)
            }
            _ => {
                out.push(b'=');
                (Escape::None, false)
            }
        };
        self.escape = next;
        is_used
    }
}

fn hex(digit: u8) -> u8 {
    (digit as char).to_digit(16).unwrap_or(0) as u8
}

/// Decodes all of a short text; of an unknown encoding nothing.
pub(super) fn decode(encoding: Encoding, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(mut decoder) = Decoder::new(encoding) {
        decoder.piece(text, &mut out);
        decoder.finish(&mut out);
    }
    out
}

/// Decodes the `B` encoding of RFC 2047.
pub(super) fn base64(text: &[u8]) -> Vec<u8> {
    decode(Encoding::Base64, text)
}

/// Decodes the `Q` encoding of RFC 2047.
pub(super) fn q(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'_' { b' ' } else { *byte }).collect();
    decode(Encoding::QuotedPrintable, &spaced)
}

/// The decoded bytes of a part.
#[derive(Debug)]
pub struct Decoded<R> {
    source: R,
    decoder: Decoder,
    buffer: Box<[u8]>,
    ready: Vec<u8>,
    given: usize,
    is_done: bool,
}

impl<R: Read> Decoded<R> {
    pub(super) fn new(source: R, encoding: Encoding) -> Result<Decoded<R>, TransferError> {
        let decoder = Decoder::new(encoding).ok_or(TransferError::UnknownEncoding)?;
        let buffer = vec![0; 16 * 1024].into_boxed_slice();
        Ok(Decoded { source, decoder, buffer, ready: Vec::new(), given: 0, is_done: false })
    }

    /// Reads to the end and gives how many bytes there were.
    pub fn count(mut self) -> Result<u64, TransferError> {
        Ok(io::copy(&mut self, &mut io::sink())?)
    }
}

impl<R: Read> Read for Decoded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.given == self.ready.len() {
            if self.is_done {
                return Ok(0);
            }
            self.ready.clear();
            self.given = 0;
            let len = self.source.read(&mut self.buffer)?;
            self.decoder.piece(&self.buffer[..len], &mut self.ready);
            if len == 0 {
                self.is_done = true;
                self.decoder.finish(&mut self.ready);
            }
        }
        let len = out.len().min(self.ready.len() - self.given);
        out[..len].copy_from_slice(&self.ready[self.given..self.given + len]);
        self.given += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_of_rfc_2045() {
        for (encoding, coded, plain) in [
            (Encoding::Identity, &b"a=20\x00"[..], &b"a=20\x00"[..]),
            (Encoding::Base64, b"SGVsbG8=", b"Hello"),
            (Encoding::Base64, b"SGV\r\nsbG8", b"Hello"),
            (Encoding::Base64, b"SGVsbA==SGVsbA==\r\n", b"HellHell"),
            (Encoding::Base64, b"!!", b""),
            (Encoding::QuotedPrintable, b"caf=C3=a9 \t\r\nx", b"caf\xc3\xa9\r\nx"),
            (Encoding::QuotedPrintable, b"soft=\r\nbreak= \t\nagain=\n", b"softbreakagain"),
            (Encoding::QuotedPrintable, b"a=3Db =4 =zz =", b"a=b =4 =zz "),
            (Encoding::QuotedPrintable, b"a =20\r\nb =4", b"a  \r\nb =4"),
            (Encoding::QuotedPrintable, b"==41 end ", b"=A end "),
        ] {
            assert_eq!(decode(encoding, coded), plain, "{:?}", String::from_utf8_lossy(coded));
            let (mut decoder, mut out) = (Decoder::new(encoding).unwrap(), Vec::new());
            coded.chunks(1).for_each(|piece| decoder.piece(piece, &mut out));
            decoder.finish(&mut out);
            assert_eq!(out, plain);
            let mut read = Vec::new();
            Decoded::new(coded, encoding).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, plain);
        }
        assert!(matches!(Decoded::new(&b""[..], Encoding::Unknown), Err(TransferError::UnknownEncoding)));
    }
}
