//! The IMAP server as clients meet it.

mod client;
mod listener;
mod server;
mod session;
