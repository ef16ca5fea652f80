//! What stands between a client and its server: it counts bytes, and can point to another server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A port that leads to a server.
pub(crate) struct Relay {
    pub(crate) port: u16,
    target: Arc<Mutex<String>>,
    /// Bytes that the server sent.
    received: Arc<AtomicU64>,
}

impl Relay {
    pub(crate) fn new() -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let relay = Relay { port, target: Arc::default(), received: Arc::default() };
        let (target, received) = (relay.target.clone(), relay.received.clone());
        // It ends with the process: nothing else would end a blocking accept.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let address = target.lock().unwrap().clone();
                // A client whose server is gone sees its connection end.
                let Ok(server) = TcpStream::connect(address) else { continue };
                let (up, down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || pass(up, server, &AtomicU64::new(0)));
                let received = received.clone();
                std::thread::spawn(move || pass(down, client, &received));
            }
        });
        relay
    }

    /// From now on connections go there.
    pub(crate) fn lead_to(&self, address: &str) {
        *self.target.lock().unwrap() = address.to_owned();
    }

    /// Bytes that servers sent since this was last asked.
    pub(crate) fn received(&self) -> u64 {
        self.received.swap(0, Ordering::SeqCst)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        count.fetch_add(length as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
