//! The servers that clients are tried with.

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use crate::daemon::{Dovecot, PASSWORD};
use crate::imap::Imap;
use crate::support::{Serve, World, until};

/// A server with one user. It ends when this is dropped.
pub(crate) struct Server {
    /// `HOST:PORT`.
    pub(crate) address: String,
    pub(crate) user: &'static str,
    pub(crate) password: &'static str,
    _daemon: Daemon,
}

enum Daemon {
    Dovecot { _daemon: Dovecot },
    Postmerge { _serve: Serve },
}

impl Server {
    /// A Dovecot without mail.
    pub(crate) fn dovecot() -> Server {
        Server::of(Dovecot::start(&std::env::temp_dir(), ""))
    }

    /// What a Dovecot serves.
    pub(crate) fn of(daemon: Dovecot) -> Server {
        let address = daemon.address();
        Server { address, user: "tester", password: PASSWORD, _daemon: Daemon::Dovecot { _daemon: daemon } }
    }

    /// A store of the program, which must have the user already ([`add_user`]). It talks to no peer.
    pub(crate) fn postmerge(world: &World, store: &str) -> Server {
        let any = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = any.unwrap().to_string();
        let serve = world.serve(store, &["--offline", "--imap", &address]);
        until("the server to greet", || {
            let mut greeting = [0; 4];
            TcpStream::connect(&address).and_then(|mut stream| stream.read_exact(&mut greeting)).is_ok()
        });
        Server { address, user: "tester", password: PASSWORD, _daemon: Daemon::Postmerge { _serve: serve } }
    }

    pub(crate) fn connect(&self) -> Imap {
        Imap::connect(&self.address, self.user, self.password)
    }
}

/// Lets the tester log in.
pub(crate) fn add_user(world: &World, store: &str) {
    world.run_with(store, &["user", "add", "tester"], PASSWORD.as_bytes()).ok();
}
