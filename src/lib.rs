//! A mailbox that lives on many machines at once and never lies to a mail client.
//!
//! One account, many replicas, no server in charge. Each replica works offline, merges what the others did, and shows
//! caching IMAP clients UIDs that stay true: `(mailbox name, UIDVALIDITY, UID)` never means two messages, on any server of
//! the account, not even while they are cut off from each other. `docs/uids.md` says why.
//!
//! ```
//! use postmerge::mailbox::{MailboxName, Uid};
//! use postmerge::member::{MemberName, Role, SecretKey};
//! use postmerge::replica::{Founding, Replica};
//! use postmerge::uid::Block;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let endpoint = SecretKey::from_seed([7; 32]).peer_id(); // Draw and keep a seed of your own.
//! let founding = Founding { role: Role::Server, name: MemberName::new("desk")?, block: Block::STANDARD, endpoint };
//! let replica = Replica::found(&dir.path().join("mail"), None, &founding)?;
//! let inbox = MailboxName::inbox();
//! let added = replica.append(&inbox, &b"Subject: hello\r\n\r\nhello\r\n"[..], Default::default(), None)?;
//! assert_eq!(added.uid, Some(Uid::FIRST)); // Durable by now.
//! for message in replica.messages(&inbox, Uid::FIRST, 100)? {
//!     println!("{} {} bytes", message.uid, message.size);
//! }
//! replica.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`mailbox`] | the account's document: ids, names, packs, claim runs, vetted changes |
//! | [`blob`] | names of bodies, and bundles of them |
//! | [`uid`] | the post-merge pass: who owns which UID; an account in memory |
//! | [`member`] | keys, tickets and the signed membership log |
//! | [`store`] | the directory: log, bodies, snapshots, index |
//! | [`sync`] | the conversation of two replicas, without I/O |
//! | [`replica`] | the face that a mail client embeds |
//! | [`maildir`] | Maildir++, Dovecot's lists and mbox, read and written |
//! | `net` | QUIC with pinned keys, pipes, and the node that keeps conversations (feature `net`) |
//!
//! What always holds: nothing is shown or acknowledged before it is durable; a merge loses no message; what a peer sends is
//! checked before it is believed. The library prints nothing, reads no environment and keeps no global state.

#[cfg(test)]
#[macro_use]
mod trial;

pub mod blob;
mod bytes;
pub mod mailbox;
pub mod maildir;
pub mod member;
mod mutation;
#[cfg(feature = "net")]
pub mod net;
pub mod replica;
pub mod store;
pub mod sync;
pub mod uid;
