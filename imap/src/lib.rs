//! An IMAP server for caching clients on a postmerge replica: IMAP4rev1 (RFC 3501) and IMAP4rev2 (RFC 9051).
//!
//! | module | what it is |
//! |---|---|
//! | [`auth`] | who may log in: SCRAM, PLAIN and LOGIN against verifiers, never passwords |
//! | [`grammar`] | commands from bytes, responses to bytes |
//! | [`message`] | what IMAP tells of a message's text: structure, envelope, sections, threads |

mod account;
pub mod auth;
pub mod grammar;
mod listener;
pub mod message;
mod session;
mod summaries;
mod uids;
pub mod view;

pub use account::Account;
pub use listener::{Counts, Limits, Mode, Server, Tls, TlsError};
pub use session::{OUTPUT, Opened, Session, SessionEvent, SessionLimits, Settings};
pub use summaries::{Indexer, summarize_arrivals};
