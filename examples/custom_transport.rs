//! A transport of one's own: the conversation of two replicas over a pair of Unix sockets, a thread each.
//!
//! The sockets know who is at their other end. Over anything else, the transport must check the peer's key itself and
//! hand it to the link, and derive the binding from its handshake.
//!
//! ```sh
//! cargo run --example custom_transport -- /tmp/sockets
//! ```

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use postmerge::mailbox::MailboxName;
use postmerge::member::{MemberName, Role, SecretKey};
use postmerge::replica::{Founding, Invitation, Link, Replica, Stay};
use postmerge::uid::Block;

const PIECE: usize = 64 << 10;
/// How often a link is asked whether its replica has news, if the peer is silent.
const TICK: Duration = Duration::from_millis(20);

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arg = std::env::args().nth(1).ok_or("usage: custom_transport DIRECTORY, which must not exist yet")?;
    let dir = Path::new(&arg);
    let (here, there) = (SecretKey::from_seed([1; 32]).peer_id(), SecretKey::from_seed([2; 32]).peer_id());

    let founding = Founding {
        role: Role::Server,
        name: MemberName::new("server")?,
        block: Block::STANDARD,
        endpoint: here,
    };
    let server = Replica::found(&dir.join("server"), None, &founding)?;
    for n in 1..=100 {
        let mail = format!("Subject: number {n}\r\n\r\n");
        server.append(&MailboxName::inbox(), mail.as_bytes(), BTreeSet::new(), None)?;
    }
    let ticket = server.invite(&Invitation {
        role: Role::Observer,
        addresses: vec!["server.example.org:4433".into()],
        endpoint: here,
        valid_for: 3600,
    })?;
    let laptop = Replica::prepare_join(&dir.join("laptop"), None, &ticket)?;
    let guest = laptop.guest(&ticket, there, MemberName::new("laptop")?)?;

    // Both ends must agree on it, and no other conversation may have it.
    let (binding, now) = ([3; 32], Duration::ZERO);
    let from = Link::join(&laptop, &ticket, &guest, binding, Stay::Once, now)?;
    let to = Link::respond(&server, binding, Some(there), now);
    let (ours, theirs) = UnixStream::pair()?;
    let answering = std::thread::spawn(move || carry(to, theirs));
    carry(from, ours)?;
    answering.join().map_err(|_| "the other thread panicked")??;

    println!("the laptop has {} messages", laptop.mailbox(&MailboxName::inbox())?.messages);
    assert_eq!(server.digest()?, laptop.digest()?, "both have the same");
    Ok(())
}

/// The pump, one thread for both directions: send what there is, then read for a moment.
#[expect(clippy::disallowed_methods, reason = "a transport is where time comes from")]
fn carry(mut link: Link, mut stream: UnixStream) -> Result<(), Failure> {
    let start = Instant::now();
    let mut buffer = vec![0; PIECE];
    // Both sides write without reading, so a full socket must not stop them.
    stream.set_read_timeout(Some(TICK))?;
    let mut writer = stream.try_clone()?;
    let (queue, queued) = std::sync::mpsc::channel::<Vec<u8>>();
    let writing = std::thread::spawn(move || queued.iter().try_for_each(|bytes| writer.write_all(&bytes)));
    while !link.is_finished() {
        while let Some(bytes) = link.poll_send(PIECE)? {
            // An error here shows as the end of the stream below.
            let _ = queue.send(bytes);
        }
        while let Some(event) = link.poll_event() {
            println!("{event:?}");
        }
        if link.is_finished() {
            break;
        }
        let read = stream.read(&mut buffer);
        let now = start.elapsed();
        match read {
            Ok(0) => return Err("the peer hung up".into()),
            Ok(length) => link.receive(&buffer[..length], now)?,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                link.wake(now)?;
                link.handle_timeout(now)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    // What was said last must arrive before the stream is dropped.
    drop(queue);
    writing.join().map_err(|_| "the writing thread panicked")??;
    Ok(())
}
