//! Two replicas in one process that are apart, get mail, and meet again; the bytes are carried by hand.
//!
//! ```sh
//! cargo run --example two_replicas -- /tmp/two
//! ```

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use postmerge::mailbox::{MailboxName, Uid};
use postmerge::member::{MemberName, Role, SecretKey};
use postmerge::replica::{Founding, Invitation, Link, Replica, Stay};
use postmerge::uid::Block;

/// A link takes bytes in pieces of at most this size.
const PIECE: usize = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let arg = std::env::args().nth(1).ok_or("usage: two_replicas DIRECTORY, which must not exist yet")?;
    let dir = Path::new(&arg);
    let (here, there) = (SecretKey::from_seed([1; 32]).peer_id(), SecretKey::from_seed([2; 32]).peer_id());

    let founding = Founding {
        role: Role::Server,
        name: MemberName::new("cellar")?,
        block: Block::STANDARD,
        endpoint: here,
    };
    let cellar = Replica::found(&dir.join("cellar"), None, &founding)?;
    deliver(&cellar, "before the split")?;

    // A ticket goes to the other machine by any way that only its owner reads.
    let ticket = cellar.invite(&Invitation {
        role: Role::Server,
        addresses: vec!["cellar.example.org:4433".into()],
        endpoint: here,
        valid_for: 3600,
    })?;
    let attic = Replica::prepare_join(&dir.join("attic"), None, &ticket)?;
    let guest = attic.guest(&ticket, there, MemberName::new("attic")?)?;
    let (binding, now) = ([1; 32], Duration::ZERO);
    let from = Link::join(&attic, &ticket, &guest, binding, Stay::Once, now)?;
    converse(from, Link::respond(&cellar, binding, Some(there), now))?;

    deliver(&cellar, "while apart, in the cellar")?;
    deliver(&attic, "while apart, in the attic")?;
    show("apart", &cellar, &attic)?;

    // A name for this very conversation. A transport takes it from its handshake, so that no hello can be replayed.
    let binding = [2; 32];
    let from = Link::initiate(&attic, cellar.id()?, Some(here), binding, Stay::Once, now)?;
    converse(from, Link::respond(&cellar, binding, Some(there), now))?;
    show("together", &cellar, &attic)?;
    assert_eq!(cellar.digest()?, attic.digest()?, "both have the same");
    Ok(())
}

fn deliver(replica: &Replica, text: &str) -> Result<(), Box<dyn Error>> {
    let mail = format!("Subject: {text}\r\n\r\n");
    let added = replica.append(&MailboxName::inbox(), mail.as_bytes(), BTreeSet::new(), None)?;
    println!("{text}: UID {:?}", added.uid.map(Uid::value));
    Ok(())
}

/// Carries bytes both ways until neither end has anything to say.
fn converse(from: Link, to: Link) -> Result<(), Box<dyn Error>> {
    let mut ends = [from, to];
    // Nobody waits in this process, so a clock that ticks with each round will do.
    let mut now = Duration::ZERO;
    while !ends[0].is_finished() {
        let mut quiet = true;
        for side in 0..2 {
            while let Some(bytes) = ends[side].poll_send(PIECE)? {
                ends[1 - side].receive(&bytes, now)?;
                quiet = false;
            }
            while let Some(event) = ends[side].poll_event() {
                println!("  {}: {event:?}", ["attic", "cellar"][side]);
            }
            // An end that committed something may have more to say.
            ends[side].wake(now)?;
        }
        if quiet {
            now += Duration::from_secs(1);
            for end in &mut ends {
                end.handle_timeout(now)?;
            }
        }
    }
    Ok(())
}

fn show(when: &str, cellar: &Replica, attic: &Replica) -> Result<(), Box<dyn Error>> {
    for (name, replica) in [("cellar", cellar), ("attic", attic)] {
        let messages = replica.messages(&MailboxName::inbox(), Uid::FIRST, 100)?;
        let uids: Vec<u32> = messages.iter().map(|message| message.uid.value()).collect();
        println!("{when}, {name}: UIDs {uids:?}");
    }
    Ok(())
}
