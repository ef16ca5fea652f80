//! A server on a socket of loopback, and what a client needs to talk to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use postmerge_imap::{Account, Limits, Mode, Server, Tls};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::talk::{Home, home, settings};

/// Longest silence of the server; a loaded machine needs a fraction.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs until this is dropped.
pub(crate) struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
    runtime: Runtime,
    _home: Option<Home>,
}

impl Running {
    /// Serves a new account to `kim`, whose password is `secret`.
    pub(crate) fn start(mode: Mode, limits: Limits) -> Running {
        let home = home();
        let account = home.account.clone();
        Running { _home: Some(home), ..Running::serve(account, mode, limits) }
    }

    /// Serves an account that is there.
    pub(crate) fn serve(account: Account, mode: Mode, limits: Limits) -> Running {
        let server = Server::new(limits, settings, move |_| Ok(account.clone()));
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let until = async move { drop(stopped.await) };
        let serving = runtime.spawn(server.serve(listener, mode, until));
        Running { address, stop, serving, runtime, _home: None }
    }

    pub(crate) fn connect(&self) -> Wire<TcpStream> {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Wire(BufReader::new(stream))
    }

    /// Stops it, and waits for that.
    pub(crate) fn stop(self) {
        self.stop.send(()).unwrap();
        self.runtime.block_on(self.serving).unwrap().unwrap();
    }
}

/// A certificate of this test, for the server and for its clients.
pub(crate) struct Authority {
    pub(crate) tls: Arc<Tls>,
    trusting: Arc<ClientConfig>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trusting = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Authority { tls: Arc::new(Tls::load(&certificate, &key).unwrap()), trusting: Arc::new(trusting) }
    }

    /// Puts a connection under TLS.
    pub(crate) fn secure(&self, wire: Wire<TcpStream>) -> Wire<StreamOwned<ClientConnection, TcpStream>> {
        assert!(wire.0.buffer().is_empty(), "the server said more before TLS");
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(self.trusting.clone(), name).unwrap();
        Wire(BufReader::new(StreamOwned::new(connection, wire.0.into_inner())))
    }
}

/// A client's end of a connection.
pub(crate) struct Wire<S: Read + Write>(pub(crate) BufReader<S>);

impl<S: Read + Write> Wire<S> {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
        self.0.get_mut().flush().unwrap();
    }

    /// The next line without its end.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the server hung up");
        line.trim_end_matches("\r\n").to_owned()
    }

    /// Whether the server hangs up instead of saying more.
    pub(crate) fn is_over(&mut self) -> bool {
        self.0.fill_buf().unwrap().is_empty()
    }

    /// Sends a command with the tag `a`; gives all lines of its answer, the tagged one last.
    #[track_caller]
    pub(crate) fn command(&mut self, command: &str) -> Vec<String> {
        self.send(format!("a {command}\r\n").as_bytes());
        let mut lines = Vec::new();
        loop {
            lines.push(self.line());
            if lines.last().unwrap().starts_with("a ") {
                return lines;
            }
        }
    }

    /// A command that must be done; gives all of its answer as one text.
    #[track_caller]
    pub(crate) fn ok(&mut self, command: &str) -> String {
        let lines = self.command(command);
        assert!(lines.last().unwrap().starts_with("a OK"), "{command}: {lines:?}");
        lines.join("\n")
    }
}
