//! The IMAP server as clients meet it.

mod client;
mod hostile;
mod listener;
mod merge;
mod peer;
mod random;
mod server;
mod session;
mod stress;
mod strict;
#[path = "../support/talk.rs"]
mod talk;
