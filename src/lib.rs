//! A mailbox that lives on many machines at once and never lies to a mail client.

pub mod blob;
pub mod mailbox;
pub mod member;
#[cfg(feature = "net")]
pub mod net;
pub mod sync;
pub mod uid;
