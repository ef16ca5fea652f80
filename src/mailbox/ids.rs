//! Ids, counters and their texts. Each is a type of its own, so that two cannot be swapped.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;

/// A text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is 26 letters and digits (base32), not {text:?}")]
pub struct IdError {
    what: &'static str,
    text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Takes the 16 bytes of an id.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes of the id.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// Takes the id from a slice of exactly 16 bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), &self.to_string()[..8])
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(s: &str) -> Result<Self, IdError> {
                let bad = || IdError { what: $what, text: s.chars().take(64).collect() };
                let bytes = BASE32_NOPAD.decode(s.to_ascii_uppercase().as_bytes()).map_err(|_| bad())?;
                Self::from_slice(&bytes).ok_or_else(bad)
            }
        }
    };
}

id!(
    /// One account: the document that its replicas share.
    AccountId, "an account id"
);
id!(
    /// One replica of an account; also its Automerge actor. A restored store takes a new one.
    ReplicaId, "a replica id"
);
id!(
    /// One mailbox, whatever its name is now.
    MailboxId, "a mailbox id"
);
id!(
    /// One message of the account, wherever it is now. Two copies of one body are two entries.
    EntryId, "an entry id"
);
id!(
    /// An immutable batch of entries: the BLAKE3 of its bytes, cut to 16.
    PackId, "a pack id"
);

/// Tells the stays of one entry apart; 0 is where its pack placed it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Nonce(pub u64);

impl Nonce {
    /// The stay that an entry's pack gave it.
    pub const INITIAL: Nonce = Nonce(0);
}

/// One stay of an entry in a mailbox. UIDs belong to placements: an entry that comes back gets a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Placement {
    /// The entry that stays.
    pub entry: EntryId,
    /// Which of its stays.
    pub nonce: Nonce,
}

/// A message's UID in its mailbox (RFC 9051, section 2.3.1.1), never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Uid(NonZeroU32);

impl Uid {
    /// The first UID of an empty mailbox.
    pub const FIRST: Uid = Uid(NonZeroU32::MIN);

    /// Nothing for 0.
    pub const fn new(uid: u32) -> Option<Uid> {
        match NonZeroU32::new(uid) {
            Some(uid) => Some(Uid(uid)),
            None => None,
        }
    }

    /// The number itself.
    pub const fn value(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A mailbox's UIDVALIDITY (RFC 9051, section 2.3.1.1), never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UidValidity(NonZeroU32);

impl UidValidity {
    /// The lowest.
    pub const MIN: UidValidity = UidValidity(NonZeroU32::MIN);

    /// Nothing for 0.
    pub const fn new(value: u32) -> Option<UidValidity> {
        match NonZeroU32::new(value) {
            Some(value) => Some(UidValidity(value)),
            None => None,
        }
    }

    /// The number itself.
    pub const fn value(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for UidValidity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A mod-sequence of this replica (RFC 7162): below 2^53 so that every client can hold it, never falling.
/// The low 16 bits are the replica's era; a value of another era was given by another history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ModSeq(u64);

impl ModSeq {
    /// Bits that hold the era.
    pub const ERA_BITS: u32 = 16;
    /// Largest counter: 53 bits less the era's.
    pub const MAX_COUNTER: u64 = (1 << (53 - Self::ERA_BITS)) - 1;

    /// Puts a counter and an era together. The counter stops at its maximum (a change a second for 4,000 years).
    pub fn new(counter: u64, era: u16) -> ModSeq {
        ModSeq(counter.min(Self::MAX_COUNTER) << Self::ERA_BITS | u64::from(era))
    }

    /// Takes a number that a client brought.
    pub const fn from_value(value: u64) -> ModSeq {
        ModSeq(value)
    }

    /// The number itself, as clients see it.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The counter of changes.
    pub const fn counter(self) -> u64 {
        self.0 >> Self::ERA_BITS
    }

    /// The era that the value was given in.
    pub const fn era(self) -> u16 {
        self.0 as u16
    }
}
