//! Frames out of a stream of bytes.

use super::BATCH;
use super::error::Misbehaved;
use super::frame::Frame;

/// Cuts a stream of bytes into frames. It holds at most one frame that is not complete.
#[derive(Default)]
pub(super) struct Assembler {
    buffer: Vec<u8>,
}

impl Assembler {
    /// Takes bytes from the front of `input` and returns the next frame, or nothing if the input ran out.
    /// `max` bounds the body: a longer frame is refused as soon as its length is read.
    pub(super) fn next(&mut self, input: &mut &[u8], max: usize) -> Result<Option<Frame>, Misbehaved> {
        let (len, head) = loop {
            match header(&self.buffer, max)? {
                Some(header) => break header,
                None => match input.split_first() {
                    Some((byte, rest)) => {
                        self.buffer.push(*byte);
                        *input = rest;
                    }
                    None => return Ok(None),
                },
            }
        };
        let missing = (head + len).saturating_sub(self.buffer.len());
        let (taken, rest) = input.split_at(missing.min(input.len()));
        self.buffer.extend_from_slice(taken);
        *input = rest;
        if self.buffer.len() < head + len {
            return Ok(None);
        }
        let frame = Frame::decode(self.buffer[head - 1], &self.buffer[head..]);
        self.buffer.clear();
        // A rare large frame must not keep its memory for as long as the session lasts.
        self.buffer.shrink_to(BATCH);
        frame.map(Some)
    }
}

/// Length of the body and of what precedes it, once the length and the type are complete.
fn header(bytes: &[u8], max: usize) -> Result<Option<(usize, usize)>, Misbehaved> {
    let mut len = 0;
    for (at, byte) in bytes.iter().enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * at);
        if len > max || at > 3 {
            return Err(Misbehaved::FrameTooLarge { len, max });
        }
        if byte & 0x80 == 0 {
            return Ok((bytes.len() > at + 1).then_some((len, at + 2)));
        }
    }
    Ok(None)
}
