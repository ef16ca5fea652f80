//! Names of mailboxes.

use std::fmt;
use std::str::FromStr;

use unicode_normalization::{UnicodeNormalization, is_nfc};

/// The full name of a mailbox: Unicode in NFC, levels separated by `/`.
///
/// `INBOX` is special in any case of letters, also as the first level (RFC 9051, section 5.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxName(Box<str>);

/// Why a text is no mailbox name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailboxNameError {
    /// It has no characters.
    #[error("a mailbox name is empty")]
    Empty,
    /// It is longer than [`MailboxName::MAX_LEN`].
    #[error("a mailbox name of {len} bytes is longer than {max}", max = MailboxName::MAX_LEN)]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It has more levels than [`MailboxName::MAX_LEVELS`].
    #[error("mailbox name {name:?} has more than {max} levels", max = MailboxName::MAX_LEVELS)]
    TooDeep {
        /// The text.
        name: String,
    },
    /// A level is empty, `.` or `..`.
    #[error("mailbox name {name:?} has a level that is empty, \".\" or \"..\"")]
    Level {
        /// The text.
        name: String,
    },
    /// It holds a control character.
    #[error("mailbox name {name:?} holds the control character U+{code:04X}")]
    Control {
        /// The text.
        name: String,
        /// The character's number.
        code: u32,
    },
}

impl MailboxName {
    /// Longest name in bytes: in modified UTF-7 and as a Maildir folder it still fits a path of 4,096.
    pub const MAX_LEN: usize = 512;
    /// Deepest name: more levels than people use, few enough for a recursive client.
    pub const MAX_LEVELS: usize = 32;

    /// INBOX.
    pub fn inbox() -> MailboxName {
        MailboxName("INBOX".into())
    }

    /// Whether this is INBOX itself.
    pub fn is_inbox(&self) -> bool {
        &*self.0 == "INBOX"
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, outermost first.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The rest of the name below `parent`, without the separator; nothing if it is not below it.
    pub fn below(&self, parent: &MailboxName) -> Option<&str> {
        self.0.strip_prefix(&*parent.0)?.strip_prefix('/')
    }
}

impl FromStr for MailboxName {
    type Err = MailboxNameError;

    fn from_str(s: &str) -> Result<MailboxName, MailboxNameError> {
        if s.is_empty() {
            return Err(MailboxNameError::Empty);
        }
        let mut name = if is_nfc(s) { s.to_owned() } else { s.nfc().collect() };
        if name.len() > MailboxName::MAX_LEN {
            return Err(MailboxNameError::TooLong { len: name.len() });
        }
        if let Some(c) = name.chars().find(|c| c.is_control()) {
            return Err(MailboxNameError::Control { name, code: c.into() });
        }
        if name.split('/').any(|level| matches!(level, "" | "." | "..")) {
            return Err(MailboxNameError::Level { name });
        }
        if name.split('/').count() > MailboxName::MAX_LEVELS {
            return Err(MailboxNameError::TooDeep { name });
        }
        let first = name.split('/').next().map_or(0, str::len);
        if name[..first].eq_ignore_ascii_case("INBOX") {
            name.replace_range(..first, "INBOX");
        }
        Ok(MailboxName(name.into()))
    }
}

impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_nfc_and_inbox_has_one_spelling() {
        assert_eq!("Mu\u{308}ller".parse::<MailboxName>().unwrap().as_str(), "Müller");
        assert_eq!("inbox".parse::<MailboxName>().unwrap(), MailboxName::inbox());
        assert_eq!("inBox/Lists".parse::<MailboxName>().unwrap().as_str(), "INBOX/Lists");
        assert_eq!("Inboxes".parse::<MailboxName>().unwrap().as_str(), "Inboxes");
    }

    #[test]
    fn path_parts_and_control_characters_are_refused() {
        for bad in ["", "/a", "a/", "a//b", "../etc", "a/./b", "a\nb", &"x".repeat(513), &["a"; 33].join("/")]
        {
            assert!(bad.parse::<MailboxName>().is_err(), "{bad:?} was taken");
        }
    }
}
