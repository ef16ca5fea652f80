//! A UDP socket that accepts and makes connections.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::{ClientConfig, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::connection::Connection;
use super::{
    HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE, MAX_ATTEMPTS, MAX_STRANGERS, MAX_STRANGERS_OF_ONE, NetError,
    SOCKET_BUFFER, STRANGER_WINDOW, WINDOW, tls,
};
use crate::member::{PeerId, SecretKey};
use crate::sync::Side;

/// Longest try of one address when a peer has several.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(5);
/// Most addresses that are tried for one peer: what a ticket can hold, in two families.
const MAX_TRIES: usize = 16;

/// An endpoint with one key. Many accounts can share it.
#[derive(Clone)]
pub struct Endpoint {
    inner: quinn::Endpoint,
    id: PeerId,
    strangers: Arc<Semaphore>,
    guests: Arc<Guests>,
    attempts: Arc<Semaphore>,
    #[cfg(test)]
    pub(super) verifier: Arc<tls::Pinned>,
}

impl Endpoint {
    /// Opens a socket at `listen` (port 0 takes any) and serves it on `runtime`.
    pub fn bind(listen: SocketAddr, key: &SecretKey, runtime: &Handle) -> Result<Endpoint, NetError> {
        let _inside = runtime.enter();
        let configs = tls::configs(key).map_err(NetError::Tls)?;
        let mut server = ServerConfig::with_crypto(Arc::new(configs.server));
        server.transport_config(Arc::new(transport(Side::Responder)));
        server.max_incoming(MAX_STRANGERS);
        let mut client = ClientConfig::new(Arc::new(configs.client));
        client.transport_config(Arc::new(transport(Side::Initiator)));
        let socket = socket(listen).map_err(|source| NetError::Bind { address: listen, source })?;
        let runtime = Arc::new(TokioRuntime);
        let mut inner = quinn::Endpoint::new(recognizable(key), Some(server), socket, runtime)
            .map_err(|source| NetError::Bind { address: listen, source })?;
        inner.set_default_client_config(client);
        Ok(Endpoint {
            inner,
            id: key.peer_id(),
            strangers: Arc::new(Semaphore::new(MAX_STRANGERS)),
            guests: Arc::default(),
            attempts: Arc::new(Semaphore::new(MAX_ATTEMPTS)),
            #[cfg(test)]
            verifier: configs.verifier,
        })
    }

    /// This endpoint's name.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Where it listens.
    pub fn local_address(&self) -> Result<SocketAddr, NetError> {
        self.inner.local_addr().map_err(NetError::Lost)
    }

    /// The next peer that knocks; nothing once the endpoint is closed. Establish it in a task of its own.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let incoming = self.inner.accept().await?;
            let Some(guest) = Guest::from(&self.guests, incoming.remote_address().ip()) else {
                incoming.refuse();
                continue;
            };
            let crowded = guest.is_crowded || self.strangers.available_permits() < MAX_STRANGERS / 2;
            if crowded && incoming.may_retry() {
                // It costs us one packet and nothing to remember.
                let _ = incoming.retry();
                continue;
            }
            match self.strangers.clone().try_acquire_owned() {
                Ok(permit) => {
                    let stranger = Stranger { _permit: permit, _guest: guest };
                    return Some(Incoming { incoming, stranger });
                }
                Err(_) => incoming.refuse(),
            }
        }
    }

    /// Connects to `peer` at one address, and to nobody else. That it returns does not mean that the peer lets
    /// us in: in TLS 1.3 a client that is refused hears so later.
    pub async fn connect(&self, peer: PeerId, address: SocketAddr) -> Result<Connection, NetError> {
        let _attempt = self.attempts.acquire().await.map_err(|_| NetError::Busy)?;
        let connecting = self.inner.connect(address, &tls::server_name(peer)).map_err(|error| {
            NetError::Address { address: address.to_string(), source: std::io::Error::other(error) }
        })?;
        let connection = match timeout(HANDSHAKE_TIMEOUT, connecting).await {
            Err(_) => return Err(NetError::Timeout { after: HANDSHAKE_TIMEOUT }),
            Ok(Err(quinn::ConnectionError::TransportError(error))) if is_bad_certificate(error.code) => {
                return Err(NetError::WrongPeer { expected: peer });
            }
            Ok(connection) => connection?,
        };
        // A resumed session was not verified by anybody.
        if tls::peer_of(&connection) != Some(peer) {
            connection.close(VarInt::from_u32(0), b"");
            return Err(NetError::WrongPeer { expected: peer });
        }
        let stream = connection.open_bi().await?;
        Connection::quic(connection, Side::Initiator, stream, None)
    }

    /// Connects to `peer` at the first of `addresses` (`host:port`) where it answers.
    pub async fn connect_any(&self, peer: PeerId, addresses: &[String]) -> Result<Connection, NetError> {
        let late = || NetError::Timeout { after: ADDRESS_TIMEOUT };
        let mut last = late();
        let mut tries = 0;
        for address in addresses {
            let resolved = match timeout(ADDRESS_TIMEOUT, tokio::net::lookup_host(address)).await {
                Ok(Ok(resolved)) => resolved,
                Ok(Err(source)) => {
                    last = NetError::Address { address: address.clone(), source };
                    continue;
                }
                Err(_) => {
                    last = late();
                    continue;
                }
            };
            for resolved in resolved {
                tries += 1;
                if tries > MAX_TRIES {
                    return Err(last);
                }
                match timeout(ADDRESS_TIMEOUT, self.connect(peer, resolved)).await {
                    Ok(Ok(connection)) => return Ok(connection),
                    Ok(Err(error)) => last = error,
                    Err(_) => last = late(),
                }
            }
        }
        Err(last)
    }

    /// Connections that are open, those of strangers among them.
    pub fn connections(&self) -> usize {
        self.inner.open_connections()
    }

    /// Ends all connections and accepts no more. [`wait_idle`](Endpoint::wait_idle) lets the peers hear of it.
    pub fn close(&self, code: u32, reason: &str) {
        self.attempts.close();
        self.inner.close(VarInt::from_u32(code), reason.as_bytes());
    }

    /// Waits until no connection is left.
    pub async fn wait_idle(&self) {
        self.inner.wait_idle().await;
    }
}

/// A peer that knocks. It is a stranger until its [`Link`](super::Link) is told otherwise.
#[must_use]
pub struct Incoming {
    incoming: quinn::Incoming,
    stranger: Stranger,
}

/// A place among the strangers; dropped once its bearer is known, or gone.
pub(super) struct Stranger {
    _permit: OwnedSemaphorePermit,
    _guest: Guest,
}

/// Who knocks, by network: a single one must not take all places.
#[derive(Default)]
struct Guests(Mutex<HashMap<IpAddr, usize>>);

struct Guest {
    guests: Arc<Guests>,
    network: IpAddr,
    is_crowded: bool,
}

impl Guest {
    /// Nothing if too many of that network knock already.
    fn from(guests: &Arc<Guests>, address: IpAddr) -> Option<Guest> {
        let network = network(address);
        let mut all = guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = all.entry(network).or_default();
        if *here >= MAX_STRANGERS_OF_ONE {
            return None;
        }
        *here += 1;
        let is_crowded = *here > MAX_STRANGERS_OF_ONE / 2;
        Some(Guest { guests: Arc::clone(guests), network, is_crowded })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut all = self.guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = all.get_mut(&self.network) {
            *here -= 1;
            if *here == 0 {
                all.remove(&self.network);
            }
        }
    }
}

/// One host in IPv4; in IPv6 a host has a whole /64 to choose from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address,
    }
}

impl Incoming {
    /// Where it says that it is.
    pub fn remote(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Shakes hands and waits for the peer's first bytes, for at most [`HANDSHAKE_TIMEOUT`].
    pub async fn establish(self) -> Result<Connection, NetError> {
        let Incoming { incoming, stranger } = self;
        let established = timeout(HANDSHAKE_TIMEOUT, async move {
            let connection = incoming.accept()?.await?;
            let stream = connection.accept_bi().await?;
            Connection::quic(connection, Side::Responder, stream, Some(stranger))
        });
        established.await.unwrap_or(Err(NetError::Timeout { after: HANDSHAKE_TIMEOUT }))
    }
}

/// An endpoint that was killed and started again answers what belonged to its old connections with resets that its peers can
/// tell from forged ones (RFC 9000, section 10.3). So they dial anew at once, and not when the connection has been idle for
/// [`IDLE_TIMEOUT`].
fn recognizable(key: &SecretKey) -> EndpointConfig {
    let derive = |context| Zeroizing::new(blake3::derive_key(context, key.seed()));
    let reset_key = derive("postmerge 1 stateless reset");
    let id_key = derive("postmerge 1 connection ids");
    let id_key = u64::from_le_bytes(*id_key.first_chunk().expect("eight of thirty-two bytes"));
    let mut config =
        EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset_key.as_slice())));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    config
}

fn transport(side: Side) -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32));
    config.max_idle_timeout(Some(idle));
    config.max_concurrent_uni_streams(VarInt::from_u32(0));
    config.datagram_receive_buffer_size(None);
    config.stream_receive_window(VarInt::from_u32(WINDOW));
    config.send_window(WINDOW.into());
    match side {
        Side::Initiator => {
            config.keep_alive_interval(Some(KEEP_ALIVE));
            config.max_concurrent_bidi_streams(VarInt::from_u32(0));
            config.receive_window(VarInt::from_u32(WINDOW));
        }
        Side::Responder => {
            config.max_concurrent_bidi_streams(VarInt::from_u32(1));
            config.receive_window(VarInt::from_u32(STRANGER_WINDOW));
        }
    }
    config
}

fn socket(listen: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(listen),
        socket2::Type::DGRAM,
        Some(socket2::Protocol::UDP),
    )?;
    if listen.is_ipv6() && listen.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // The kernel grants what its limits allow; less than asked for is no error.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&listen.into())?;
    let receive = socket.recv_buffer_size().unwrap_or(0);
    let send = socket.send_buffer_size().unwrap_or(0);
    tracing::info!(%listen, receive, send, asked = SOCKET_BUFFER, "socket buffers granted");
    Ok(socket.into())
}

/// Whether a handshake failed because our verifier did not take the key.
fn is_bad_certificate(code: quinn::TransportErrorCode) -> bool {
    // TLS alerts are carried as 0x100 and the alert's number; 42 to 46 and 49 are about certificates.
    let code = u64::from(code);
    matches!(code.checked_sub(0x100), Some(42..=46 | 49))
}
