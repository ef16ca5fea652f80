//! Flags and keywords of a message (RFC 9051, section 2.3.2).

use std::fmt;
use std::str::FromStr;

/// A system flag (`\Seen`) or a keyword (`$Forwarded`, `project-x`).
///
/// System flags and the registered `$` keywords are kept in their registered spelling, whatever case they
/// arrive in; any other keyword keeps the spelling it was given.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Keyword(Box<str>);

/// Why a text is no keyword.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeywordError {
    /// It has no characters.
    #[error("a keyword is empty")]
    Empty,
    /// It is longer than [`Keyword::MAX_LEN`].
    #[error("a keyword of {len} bytes is longer than {max}", max = Keyword::MAX_LEN)]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It holds a character that IMAP does not allow in an atom.
    #[error("{keyword:?} holds {character:?}, which no IMAP keyword may")]
    Character {
        /// The text.
        keyword: String,
        /// The character.
        character: char,
    },
    /// It starts with a backslash and is none of the five system flags.
    #[error("{keyword:?} is no system flag: those are \\Seen \\Answered \\Flagged \\Deleted \\Draft")]
    System {
        /// The text.
        keyword: String,
    },
}

const SYSTEM: [&str; 5] = ["\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft"];
const REGISTERED: [&str; 9] = [
    "$Forwarded",
    "$MDNSent",
    "$Junk",
    "$NotJunk",
    "$Phishing",
    "$SubmitPending",
    "$Submitted",
    "$Important",
    "$Recent",
];

impl Keyword {
    /// Longest keyword in bytes: the longest in the IANA registry is under 40; 100 leaves room for people's own
    /// and keeps a document key small.
    pub const MAX_LEN: usize = 100;

    /// The text, in its canonical spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `\Seen`.
    pub fn seen() -> Keyword {
        Keyword(SYSTEM[0].into())
    }

    /// `\Deleted`.
    pub fn deleted() -> Keyword {
        Keyword(SYSTEM[3].into())
    }

    /// Whether this is `\Deleted`, whose merge rule differs: a mark to delete is kept only if nobody took it off.
    pub fn is_deleted(&self) -> bool {
        &*self.0 == SYSTEM[3]
    }

    /// Which of concurrent values holds; nothing if there is none.
    pub fn winner(&self, values: impl Iterator<Item = bool>) -> Option<bool> {
        values.reduce(|a, b| if self.is_deleted() { a && b } else { a || b })
    }

    /// Whether this is one of the five system flags.
    pub fn is_system(&self) -> bool {
        self.0.starts_with('\\')
    }
}

impl FromStr for Keyword {
    type Err = KeywordError;

    fn from_str(s: &str) -> Result<Keyword, KeywordError> {
        if s.is_empty() {
            return Err(KeywordError::Empty);
        }
        if s.len() > Keyword::MAX_LEN {
            return Err(KeywordError::TooLong { len: s.len() });
        }
        if let Some(known) = SYSTEM.iter().chain(&REGISTERED).find(|known| known.eq_ignore_ascii_case(s)) {
            return Ok(Keyword((*known).into()));
        }
        if s.starts_with('\\') {
            return Err(KeywordError::System { keyword: s.into() });
        }
        match s.chars().find(|c| !c.is_ascii_graphic() || "(){%*\"\\]".contains(*c)) {
            Some(character) => Err(KeywordError::Character { keyword: s.into(), character }),
            None => Ok(Keyword(s.into())),
        }
    }
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_is_canonical_for_registered_names_only() {
        assert_eq!("\\SEEN".parse::<Keyword>().unwrap().as_str(), "\\Seen");
        assert_eq!("$forwarded".parse::<Keyword>().unwrap().as_str(), "$Forwarded");
        assert_eq!("Project-X".parse::<Keyword>().unwrap().as_str(), "Project-X");
    }

    #[test]
    fn what_imap_cannot_carry_is_refused() {
        for bad in ["", "a b", "\\Recent", "ö", "a(b", &"x".repeat(101)] {
            assert!(bad.parse::<Keyword>().is_err(), "{bad:?} was taken");
        }
    }
}
