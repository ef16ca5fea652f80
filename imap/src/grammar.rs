//! The grammar of IMAP: commands from bytes, responses to bytes.
