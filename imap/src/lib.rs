//! Placeholder of the IMAP server; it has an issue of its own.
