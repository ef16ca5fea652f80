//! Mail clients that others wrote, against servers over IMAP. Each session also runs against Dovecot: what fails there
//! is a fault of the test.
//!
//! `cargo test -p postmerge-cli --test clients -- --ignored`, with `dovecot-imapd`, `isync`, `offlineimap3`,
//! `python3` and `thunderbird` installed.

mod adopt;
#[path = "../../../imap/tests/support/dovecot.rs"]
mod daemon;
mod imap;
mod merge;
mod program;
mod relay;
mod server;
mod session;
#[path = "../all/support.rs"]
#[allow(dead_code, reason = "the other tests of the program need more of it")]
mod support;
mod thunderbird;
