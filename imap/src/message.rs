//! What IMAP tells of a message's text.
