//! The IMAP server as clients meet it.

mod client;
mod session;
#[path = "../support/talk.rs"]
mod talk;
