//! COMPRESS=DEFLATE (RFC 4978): raw deflate both ways, flushed after each answer.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What one piece of input may grow to at once; it is handed on in such pieces, so that a bomb never takes more.
const PIECE: usize = 16 * 1024;

/// The client's side of the stream.
pub(super) struct Inflate(Decompress);

impl Default for Inflate {
    fn default() -> Inflate {
        Inflate(Decompress::new(false))
    }
}

impl Inflate {
    /// Gives what `bytes` say, piece by piece.
    pub(super) fn inflate(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8])) -> std::io::Result<()> {
        let mut plain = vec![0; PIECE];
        loop {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            let status = self.0.decompress(bytes, &mut plain, FlushDecompress::Sync)?;
            bytes = &bytes[(self.0.total_in() - read) as usize..];
            let len = (self.0.total_out() - written) as usize;
            take(&plain[..len]);
            if status == Status::StreamEnd {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if bytes.is_empty() && len < plain.len() {
                return Ok(());
            }
            if len == 0 && status == Status::BufError {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
        }
    }
}

/// The server's side of the stream.
pub(super) struct Deflate(Compress);

impl Default for Deflate {
    fn default() -> Deflate {
        Deflate(Compress::new(Compression::fast(), false))
    }
}

impl Deflate {
    pub(super) fn deflate(&mut self, mut bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(bytes.len() / 2 + 64);
        loop {
            let read = self.0.total_in();
            self.0.compress_vec(bytes, &mut out, FlushCompress::Sync)?;
            bytes = &bytes[(self.0.total_in() - read) as usize..];
            // A sync flush is complete once it left room.
            if bytes.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(out.capacity().max(64));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_said_is_heard(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60_000), 1..4)) {
            let (mut deflate, mut inflate) = (Deflate::default(), Inflate::default());
            for line in lines {
                let sent = deflate.deflate(&line).unwrap();
                let mut heard: Vec<u8> = Vec::new();
                for part in sent.chunks(1000) {
                    inflate.inflate(part, |plain| heard.extend(plain)).unwrap();
                }
                prop_assert_eq!(heard, line);
            }
        }

        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut heard = 0;
            let _ = Inflate::default().inflate(&bytes, |plain| heard += plain.len());
            prop_assert!(heard <= 2000 * 1100);
        }
    }
}
