//! Sessions over TCP, as `run` wants them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Silence after which nothing more is awaited. Only a case that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections to one server, opened when they are first used.
pub(crate) struct Sessions<'a> {
    address: &'a str,
    streams: BTreeMap<usize, TcpStream>,
}

impl Sessions<'_> {
    pub(crate) fn new(address: &str) -> Sessions<'_> {
        Sessions { address, streams: BTreeMap::new() }
    }

    pub(crate) fn exchange(&mut self, session: usize, bytes: &[u8]) -> Vec<u8> {
        let address = self.address;
        let stream = self.streams.entry(session).or_insert_with(|| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        });
        if !bytes.is_empty() {
            // A server may have hung up; what it said last is still to be read.
            let _ = stream.write_all(bytes);
            return Vec::new();
        }
        let mut buffer = vec![0; 64 << 10];
        let length = stream.read(&mut buffer).unwrap_or(0);
        buffer.truncate(length);
        buffer
    }
}
