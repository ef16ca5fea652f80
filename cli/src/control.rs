//! The control socket: while `serve` holds a store, every other command runs inside it.
//!
//! The client sends its arguments and its directory; the daemon runs the command as the client would have, on its open
//! replica, and sends back what it prints. A frame is a kind (one byte), a length (four, little-endian) and that many
//! bytes. Whoever can open the socket owns the mail: it has mode 0600 in a directory of mode 0700.

mod client;
mod server;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use client::{answers, call};
pub(crate) use server::Control;

/// The first field of a request. Another program version may speak another one.
const PROTOCOL: &[u8] = b"postmerge-control-1";
/// Largest frame: a request with very many arguments fits.
const MAX_FRAME: usize = 1 << 20;
/// Bytes of output or input in one frame.
const PIECE: usize = 32 << 10;

/// What a frame holds. From the client: a request, input, its end. From the daemon: the rest.
mod kind {
    pub(super) const REQUEST: u8 = b'r';
    pub(super) const INPUT: u8 = b'i';
    pub(super) const INPUT_END: u8 = b'e';
    /// The command reads its standard input.
    pub(super) const WANT_INPUT: u8 = b'w';
    pub(super) const OUT: u8 = b'o';
    pub(super) const ERR: u8 = b'x';
    pub(super) const PROGRESS: u8 = b'p';
    pub(super) const EXIT: u8 = b'q';
}

fn read_frame(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if len > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a control frame is too large"));
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    Ok((head[0], body))
}

/// The sending half; frames of several writers do not mix.
#[derive(Clone)]
struct Sender(Arc<Mutex<UnixStream>>);

impl Sender {
    fn new(stream: UnixStream) -> Sender {
        Sender(Arc::new(Mutex::new(stream)))
    }

    fn send(&self, kind: u8, body: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(body.len() + 5);
        frame.push(kind);
        frame.extend((body.len() as u32).to_le_bytes());
        frame.extend(body);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&frame)
    }
}
