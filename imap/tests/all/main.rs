//! The IMAP server as clients meet it.

mod client;
mod hostile;
mod merge;
mod peer;
mod random;
mod session;
mod strict;
#[path = "../support/talk.rs"]
mod talk;
