//! A mailbox inside of a program: found an account, add a message, list, flag, read, and hear of it.
//!
//! ```sh
//! cargo run --example embed -- /tmp/mailbox
//! ```

use std::collections::BTreeSet;
use std::error::Error;
use std::io::Read;
use std::path::Path;

use postmerge::mailbox::{Keyword, MailboxName, Uid};
use postmerge::member::{MemberName, Role, SecretKey};
use postmerge::replica::{Founding, Replica};
use postmerge::uid::{Block, KeywordChange};

const MAIL: &str = "From: ada@example.org\r\nSubject: Lunch\r\n\r\nAt noon?\r\n";

fn main() -> Result<(), Box<dyn Error>> {
    let arg = std::env::args().nth(1).ok_or("usage: embed DIRECTORY")?;
    let dir = Path::new(&arg);
    let (store, state) = (dir.join("store"), dir.join("state"));

    // The state directory lies outside of the store, so that a store that was copied back is noticed.
    let replica = match store.exists() {
        true => Replica::open(&store, Some(&state))?,
        false => Replica::found(&store, Some(&state), &founding()?)?,
    };

    // What clients see of a commit, after it; this runs in the thread that committed.
    let _subscription = replica.subscribe(|events| println!("seen: {events:?}"));

    let inbox = MailboxName::inbox();
    let added = replica.append(&inbox, MAIL.as_bytes(), BTreeSet::new(), None)?;
    println!("UID {:?} is durable", added.uid);

    if let Some(uid) = added.uid {
        let (set, clear) = (BTreeSet::from([Keyword::seen(), "$Important".parse()?]), BTreeSet::new());
        // UIDs mean something only together with the UIDVALIDITY they came with.
        let seen = replica.mailbox(&inbox)?.seen();
        replica.store_keywords(seen, &[uid], &KeywordChange::Edit { set, clear }, None)?;
    }

    // Both are of one commit, whatever a peer pushes in between.
    let (snapshot, mailbox) = replica.open_mailbox(&inbox)?;
    println!("INBOX: UIDVALIDITY {}, UIDNEXT {}", mailbox.uid_validity, mailbox.uid_next);
    for message in snapshot.messages(mailbox.id, Uid::FIRST, 100)? {
        let mut body = String::new();
        replica.body(message.entry)?.read_to_string(&mut body)?;
        println!("{} {:?} {} bytes: {}", message.uid, message.keywords, message.size, body.trim_end());
    }
    Ok(replica.close()?)
}

/// A server claims UIDs; a laptop would be an observer. Peers know the endpoint by its key: keep the seed, and draw it
/// from the system's entropy. This account never meets a peer, so any will do here.
fn founding() -> Result<Founding, Box<dyn Error>> {
    Ok(Founding {
        role: Role::Server,
        name: MemberName::new("example")?,
        block: Block::STANDARD,
        endpoint: SecretKey::from_seed([7; 32]).peer_id(),
    })
}
