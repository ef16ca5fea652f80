//! Connections between endpoints: QUIC with pinned raw public keys (RFC 7250), or any pair of pipes.
//!
//! An endpoint proves its key and nothing else; who may do what is judged by the host after every handshake,
//! resumed ones included, and "connected" means that a hello was answered (see [`crate::sync`]). A TLS server
//! accepts any Ed25519 key; a client accepts the one that it pinned. Server names are made up and not sent,
//! 0-RTT is off, nothing is installed process-wide, and the caller brings the tokio runtime.
//!
//! Memory: at most [`WINDOW`] bytes received and [`WINDOW`] sent wait for each admitted connection;
//! [`STRANGER_WINDOW`] for each of at most [`MAX_STRANGERS`] others.

mod backoff;
mod connection;
mod endpoint;
mod node;
mod port;
mod stdio;
mod tls;

use std::io;
use std::time::Duration;

pub use backoff::{Backoff, MAX_BACKOFF};
pub use connection::{Connection, Link, Reader, Traffic, Writer};
pub use endpoint::{Endpoint, Incoming};
pub use node::{Node, NodeError, PeerState, SyncResult, talk};
pub use port::serve;
pub use stdio::pipe;

use crate::member::PeerId;

/// The protocol's name in TLS (ALPN). The version inside is of the frames' envelope and rarely changes.
pub const ALPN: &[u8] = b"postmerge/1";
/// Bytes that may be under way in each direction: 100 Mbit/s at 160 ms.
pub const WINDOW: u32 = 2 << 20;
/// Bytes that a peer may send before it is admitted: a hello is below 512.
pub const STRANGER_WINDOW: u32 = 16 << 10;
/// Most connections that are not admitted yet; from half of this on an address must prove itself first.
pub const MAX_STRANGERS: usize = 64;
/// Most of them from one IPv4 address or one /64 of IPv6, so that no single host keeps the others out; a household behind one
/// address has fewer replicas. From half of this on it must prove itself first: whoever lies about its address cannot fill it.
pub const MAX_STRANGERS_OF_ONE: usize = 16;
/// Most attempts to connect at once.
pub const MAX_ATTEMPTS: usize = 16;
/// A handshake, and the peer's first bytes, must come within this time.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without any packet for this long is lost.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The initiator says that it is there this often: well below the 30 s after which home routers forget.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What a writer waits for the last bytes to arrive.
pub const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// The socket buffer that is asked for. The usual 208 KiB overflow under load, which looks like a bad network.
pub const SOCKET_BUFFER: usize = 4 << 20;

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Ours: the socket could not be opened.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Ours: the TLS library does not take the configuration.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// Ours: the address cannot be connected to.
    #[error("cannot connect to {address}")]
    Address {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// A limit: the endpoint is closed or too many attempts are under way.
    #[error("too many connection attempts at once, or the endpoint is closed")]
    Busy,
    /// A limit: the other side did not answer in time.
    #[error("no answer within {} s", after.as_secs())]
    Timeout {
        /// How long it was waited for.
        after: Duration,
    },
    /// Theirs: somebody else answers at this address.
    #[error("another endpoint than {expected} answers there")]
    WrongPeer {
        /// Who should.
        expected: PeerId,
    },
    /// Theirs: it has no Ed25519 raw public key.
    #[error("the peer has no Ed25519 key")]
    NoKey,
    /// The other side closed the connection with this code.
    #[error("the peer closed the connection with code {code}")]
    Closed {
        /// The code.
        code: u64,
    },
    /// The network's: the connection was lost or never came about.
    #[error("the connection was lost")]
    Lost(#[source] io::Error),
    /// Theirs: no postmerge speaks at the other end of the pipes.
    #[error("no postmerge answers at the other end")]
    NotPostmerge,
}

impl From<quinn::ConnectionError> for NetError {
    fn from(error: quinn::ConnectionError) -> NetError {
        match error {
            quinn::ConnectionError::ApplicationClosed(close) => {
                NetError::Closed { code: close.error_code.into_inner() }
            }
            quinn::ConnectionError::TimedOut => NetError::Timeout { after: IDLE_TIMEOUT },
            other => NetError::Lost(other.into()),
        }
    }
}

#[cfg(test)]
mod tests;
