//! The two sizes of a body that Dovecot wants in a file's name.

/// Sizes of a body that comes in pieces.
#[derive(Default)]
pub(super) struct BodySize {
    pub(super) bytes: u64,
    bare_line_feeds: u64,
    after_cr: bool,
}

impl BodySize {
    pub(super) fn add(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        for byte in piece {
            self.bare_line_feeds += u64::from(*byte == b'\n' && !self.after_cr);
            self.after_cr = *byte == b'\r';
        }
    }

    /// The size once every line ends with CRLF, which is what Dovecot sends.
    pub(super) fn crlf_size(&self) -> u64 {
        self.bytes + self.bare_line_feeds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crlf_sizes_do_not_depend_on_the_pieces() {
        let mut count = BodySize::default();
        [&b"a\r"[..], b"\n", b"b\n", b"\n\r\r\n"].iter().for_each(|piece| count.add(piece));
        assert_eq!((count.bytes, count.crlf_size()), (9, 11));
    }
}
