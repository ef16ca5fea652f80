//! One connection: a stream of bytes in each direction, who is there, and a name for this very connection.

use std::io;
use std::net::SocketAddr;

use quinn::VarInt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::endpoint::Stranger;
use super::{FINISH_TIMEOUT, NetError, WINDOW, tls};
use crate::member::PeerId;
use crate::sync::{Binding, Side};

/// A connection, to be taken apart: read in one task, write in another.
pub struct Connection {
    /// The endpoint that the handshake proved; nobody over pipes, whose other end was somebody else's to check.
    pub peer: Option<PeerId>,
    /// Names this connection, the same on both sides and never again.
    pub binding: Binding,
    /// Who opened it.
    pub side: Side,
    /// What comes in.
    pub reader: Reader,
    /// What goes out.
    pub writer: Writer,
    /// The connection as a whole. It is lost once all three parts are dropped.
    pub link: Link,
}

impl Connection {
    pub(super) fn quic(
        connection: quinn::Connection,
        side: Side,
        (send, receive): (quinn::SendStream, quinn::RecvStream),
        stranger: Option<Stranger>,
    ) -> Result<Connection, NetError> {
        let peer = tls::peer_of(&connection).ok_or(NetError::NoKey)?;
        let mut binding = [0; 32];
        connection
            .export_keying_material(&mut binding, b"EXPORTER-postmerge-1-binding", b"")
            .map_err(|_| NetError::Lost(io::Error::other("no keying material")))?;
        Ok(Connection {
            peer: Some(peer),
            binding,
            side,
            reader: Reader(ReaderKind::Quic(receive)),
            writer: Writer(WriterKind::Quic(send)),
            link: Link { quic: Some(connection), stranger },
        })
    }

    pub(super) fn pipe(
        binding: Binding,
        side: Side,
        reader: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
        writer: Box<dyn AsyncWrite + Send + Unpin>,
    ) -> Connection {
        Connection {
            peer: None,
            binding,
            side,
            reader: Reader(ReaderKind::Pipe(reader)),
            writer: Writer(WriterKind::Pipe(writer)),
            link: Link { quic: None, stranger: None },
        }
    }
}

/// The incoming half.
pub struct Reader(ReaderKind);

enum ReaderKind {
    Quic(quinn::RecvStream),
    Pipe(BufReader<Box<dyn AsyncRead + Send + Unpin>>),
}

impl Reader {
    /// Reads some bytes, 0 at the end. Cancelling it loses nothing.
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, NetError> {
        match &mut self.0 {
            ReaderKind::Quic(stream) => match stream.read(buffer).await {
                Ok(count) => Ok(count.unwrap_or(0)),
                Err(quinn::ReadError::ConnectionLost(error)) => Err(error.into()),
                Err(error) => Err(NetError::Lost(error.into())),
            },
            ReaderKind::Pipe(pipe) => pipe.read(buffer).await.map_err(NetError::Lost),
        }
    }
}

/// The outgoing half.
pub struct Writer(WriterKind);

enum WriterKind {
    Quic(quinn::SendStream),
    Pipe(Box<dyn AsyncWrite + Send + Unpin>),
}

impl Writer {
    /// Writes all of `bytes` and flushes. After a cancelled call it is unknown how much was written.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), NetError> {
        match &mut self.0 {
            WriterKind::Quic(stream) => match stream.write_all(bytes).await {
                Ok(()) => Ok(()),
                Err(quinn::WriteError::ConnectionLost(error)) => Err(error.into()),
                Err(error) => Err(NetError::Lost(error.into())),
            },
            WriterKind::Pipe(pipe) => {
                pipe.write_all(bytes).await.map_err(NetError::Lost)?;
                pipe.flush().await.map_err(NetError::Lost)
            }
        }
    }

    /// Says that nothing more comes and waits, for at most [`FINISH_TIMEOUT`], until the peer has it all.
    /// Closing a connection without this may lose the last frames.
    pub async fn finish(mut self) {
        match &mut self.0 {
            WriterKind::Quic(stream) => {
                if stream.finish().is_ok() {
                    let _ = tokio::time::timeout(FINISH_TIMEOUT, stream.stopped()).await;
                }
            }
            WriterKind::Pipe(pipe) => {
                let _ = tokio::time::timeout(FINISH_TIMEOUT, pipe.shutdown()).await;
            }
        }
    }
}

/// The connection as a whole.
pub struct Link {
    quic: Option<quinn::Connection>,
    /// The place among strangers, until the peer is admitted.
    stranger: Option<Stranger>,
}

/// What went over the wire, everything included; zeros for pipes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Bytes of UDP payload sent.
    pub sent: u64,
    /// Bytes of UDP payload received.
    pub received: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, more: Traffic) {
        self.sent += more.sent;
        self.received += more.received;
    }
}

/// Reads the traffic of a connection.
#[derive(Clone, Default)]
pub(super) struct Meter(Option<quinn::Connection>);

impl Meter {
    pub(super) fn traffic(&self) -> Traffic {
        self.0.as_ref().map_or(Traffic::default(), |connection| {
            let stats = connection.stats();
            Traffic { sent: stats.udp_tx.bytes, received: stats.udp_rx.bytes }
        })
    }
}

impl Link {
    /// The host knows the peer: it gets full windows and no longer counts as a stranger.
    pub fn admit(&mut self) {
        self.stranger = None;
        if let Some(connection) = &self.quic {
            connection.set_receive_window(VarInt::from_u32(WINDOW));
        }
    }

    /// Ends the connection at once. The reason must not hold secrets.
    pub fn close(&self, code: u32, reason: &str) {
        if let Some(connection) = &self.quic {
            connection.close(VarInt::from_u32(code), reason.as_bytes());
        }
    }

    /// Where the peer is now.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.quic.as_ref().map(quinn::Connection::remote_address)
    }

    /// What went over the wire so far.
    pub fn traffic(&self) -> Traffic {
        self.meter().traffic()
    }

    /// What tells the traffic to others than who drives the connection.
    pub(super) fn meter(&self) -> Meter {
        Meter(self.quic.clone())
    }
}
