//! Names and limits of message bodies. A body is named by the BLAKE3 of its raw bytes, so that every
//! replica gives the same message the same name and a body that arrives can be checked by itself.

mod bundle;

use std::fmt;
use std::str::FromStr;

pub use bundle::{Bundle, BundleError, Bundler, MAX_BUNDLE, MAX_BUNDLE_BODIES, MAX_BUNDLE_PLAIN, MAX_SMALL};
pub(crate) use bundle::{OpenBundle, saves};

/// Largest body that is stored or fetched: 256 MiB. The largest limit of a public mail provider in use is
/// 150 MB; twice that leaves room and still bounds what a peer can make us write for one message.
pub const MAX_BLOB: u64 = 256 << 20;

/// The BLAKE3 hash of a raw message; shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId([u8; 32]);

impl BlobId {
    /// Names `body`; costs about 1 µs for each 2 KiB.
    pub fn of(body: &[u8]) -> BlobId {
        BlobId(*blake3::hash(body).as_bytes())
    }

    /// Takes the 32 bytes of a hash that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> BlobId {
        BlobId(bytes)
    }

    /// The 32 bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({})", &data_encoding::HEXLOWER.encode(&self.0[..6]))
    }
}

impl FromStr for BlobId {
    type Err = BlobIdError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(s.as_bytes()).map_err(|_| BlobIdError)?;
        bytes.try_into().map(BlobId).map_err(|_| BlobIdError)
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a body's name is 64 hexadecimal digits")]
pub struct BlobIdError;

/// Names a body that arrives in pieces, so that it never has to be in memory as a whole.
#[derive(Default)]
pub struct BlobHasher(blake3::Hasher);

impl BlobHasher {
    /// Starts with no bytes.
    pub fn new() -> BlobHasher {
        BlobHasher::default()
    }

    /// Adds the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The name of all pieces so far.
    pub fn finish(&self) -> BlobId {
        BlobId(*self.0.finalize().as_bytes())
    }
}
