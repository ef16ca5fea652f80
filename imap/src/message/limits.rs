//! How much of a message is looked at. Beyond a limit nothing is lost: the bytes belong to the part that reached it.

/// Bytes of one part's header that are interpreted. Real headers are below 64 KiB; a list of thousands of
/// recipients still fits. Fields beyond it are fetched from the body as they are, but make no envelope.
pub const HEADER: usize = 256 * 1024;

/// Parts of one message, the message itself included. The summary of so many stays below 1 MiB, and a digest of a
/// busy mailing list has hundreds. The last part takes all that follows.
pub const PARTS: usize = 10_000;

/// Parts inside parts. Forwards of forwards reach ten; structures are written recursively, so it also bounds the
/// stack. A part so deep is opaque.
pub const DEPTH: usize = 100;

/// Bytes of text that a summary holds for the parts together: a row of the index stays small whatever came.
/// Parts after that are described as plain `application/octet-stream`.
pub const STRUCTURE: usize = 1024 * 1024;

/// Bytes of a boundary that count. RFC 2046 allows 70.
pub const BOUNDARY: usize = 256;

/// Bytes of a text part that are read for its preview: HTML has long style sheets before its first word.
pub const PREVIEW_SOURCE: usize = 64 * 1024;

/// Characters of a preview (RFC 8970, section 3.1).
pub const PREVIEW: usize = 200;

/// References of one message that count for its thread, the newest ones. Clients shorten the list themselves.
pub const REFERENCES: usize = 200;

/// Bytes by which SORT tells texts apart; beyond, they are equal. A line of a header has 998 at most (RFC 5322,
/// section 2.1.1), and all messages of a mailbox are sorted in memory.
pub const SORT_KEY: usize = 998;

/// Bytes that HEADER.FIELDS may answer with: the answer's length precedes it, so it is gathered first.
pub const FIELDS: usize = 1024 * 1024;
