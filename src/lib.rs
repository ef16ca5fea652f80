//! A mailbox that lives on many machines at once and never lies to a mail client.

pub mod blob;
mod bytes;
pub mod mailbox;
pub mod maildir;
pub mod member;
#[cfg(feature = "net")]
pub mod net;
pub mod replica;
pub mod store;
pub mod sync;
pub mod uid;
