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
        let (Some(first), Some(last)) = (piece.first(), piece.last()) else { return };
        self.bytes += piece.len() as u64;
        // Two counts without a memory of the byte before, which the compiler does many bytes at a time.
        let line_feeds = piece.iter().filter(|byte| **byte == b'\n').count();
        let pairs = piece.iter().zip(&piece[1..]).filter(|(a, b)| **a == b'\r' && **b == b'\n').count();
        let split = usize::from(self.after_cr && *first == b'\n');
        self.bare_line_feeds += (line_feeds - pairs - split) as u64;
        self.after_cr = *last == b'\r';
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
