//! What a verifier's derivation takes besides the password.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use data_encoding::BASE64;

/// How often a password is hashed: what a login costs, and what a guess costs whoever stole the verifier.
///
/// SCRAM leaves the cost to the client. PLAIN and LOGIN leave it to this server: on an EPYC core with SHA
/// instructions 0.8 ms at the minimum, 20 ms at the default and 180 ms at 600,000; more without them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Iterations(NonZeroU32);

impl Iterations {
    /// Fewest: what RFC 7677, section 4 asks for.
    pub const MIN: u32 = 4096;

    /// Most: 3 s for each PLAIN or LOGIN, beyond any use.
    pub const MAX: u32 = 10_000_000;

    /// What new verifiers get, unless told otherwise.
    ///
    /// OWASP asks for 600,000 where only the server hashes. Here clients do too, and they cap what a server may
    /// ask of them: Cyrus SASL, hence isync, refuses more than 65,536.
    pub const DEFAULT: Iterations = Iterations(NonZeroU32::new(65_536).expect("not zero"));

    /// Takes a number between [`Self::MIN`] and [`Self::MAX`].
    pub fn new(iterations: u32) -> Result<Iterations, IterationsError> {
        let bounded = (Self::MIN..=Self::MAX).contains(&iterations);
        NonZeroU32::new(iterations).filter(|_| bounded).map(Iterations).ok_or(IterationsError)
    }

    /// The number.
    pub fn count(self) -> u32 {
        self.0.get()
    }

    pub(super) fn non_zero(self) -> NonZeroU32 {
        self.0
    }
}

impl Default for Iterations {
    fn default() -> Iterations {
        Iterations::DEFAULT
    }
}

impl FromStr for Iterations {
    type Err = IterationsError;

    /// Takes decimal digits without sign or leading zeros, so that a verifier has one text only.
    fn from_str(text: &str) -> Result<Iterations, IterationsError> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) || text.starts_with('0') {
            return Err(IterationsError);
        }
        Iterations::new(text.parse().map_err(|_| IterationsError)?)
    }
}

/// A number of iterations is none or out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("iterations must be a number from {min} to {max}", min = Iterations::MIN, max = Iterations::MAX)]
pub struct IterationsError;

/// Random bytes that make equal passwords have different verifiers. Clients learn it before they log in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Salt(Box<[u8]>);

impl Salt {
    /// Shortest salt in bytes: 2^64 values are still too many for tables.
    pub const MIN_LEN: usize = 8;

    /// Longest salt in bytes: one block of SHA-256; more adds nothing and has to fit server-first.
    pub const MAX_LEN: usize = 64;

    /// How long a salt should be, and how long those of names that nobody has are at first.
    pub const DEFAULT_LEN: usize = 16;

    /// Takes from [`Self::MIN_LEN`] to [`Self::MAX_LEN`] bytes that the caller drew from the system's entropy.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Salt, SaltError> {
        let bytes = bytes.into();
        match bytes.len() {
            Self::MIN_LEN..=Self::MAX_LEN => Ok(Salt(bytes)),
            len => Err(SaltError { len }),
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// As it stands in messages and verifiers: base64.
impl fmt::Display for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(&self.0))
    }
}

/// A salt is too short or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a salt of {len} bytes is not between {min} and {max}", min = Salt::MIN_LEN, max = Salt::MAX_LEN)]
pub struct SaltError {
    /// Its length in bytes.
    pub len: usize,
}
