//! Names of users.

use std::fmt;
use std::str::FromStr;

/// The name of a user, as SASLprep leaves it (RFC 4013): two spellings of one name are equal, letter case counts.
///
/// SASLprep forbids control characters, so a name fits a line of text and a field between tabs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(Box<str>);

/// Why a text is no user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UserNameError {
    /// Nothing is left of it.
    #[error("a user name is empty")]
    Empty,
    /// It is longer than [`UserName::MAX_LEN`].
    #[error("a user name of {len} bytes is longer than {max}", max = UserName::MAX_LEN)]
    TooLong {
        /// Its length in bytes, prepared.
        len: usize,
    },
    /// It holds control characters, text that mixes directions, or characters that Unicode 3.2 did not know.
    #[error("a user name holds what SASLprep forbids (RFC 4013)")]
    Forbidden,
}

impl UserName {
    /// Longest name in bytes: more than any mail address.
    pub const MAX_LEN: usize = 255;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = UserNameError;

    fn from_str(text: &str) -> Result<UserName, UserNameError> {
        let prepared = stringprep::saslprep(text).map_err(|_| UserNameError::Forbidden)?;
        match prepared.len() {
            0 => Err(UserNameError::Empty),
            1..=Self::MAX_LEN => Ok(UserName(prepared.into())),
            len => Err(UserNameError::TooLong { len }),
        }
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_are_equal() {
        // The last three are the examples of RFC 4013, section 3.
        for (text, name) in [
            ("Zoe\u{308}", "Zo\u{eb}"),
            ("two\u{a0}words", "two words"),
            ("I\u{ad}X", "IX"),
            ("\u{aa}", "a"),
            ("\u{2168}", "IX"),
        ] {
            assert_eq!(text.parse::<UserName>().unwrap().as_str(), name);
        }
        assert_ne!("user".parse::<UserName>(), "USER".parse::<UserName>());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (text, why) in [
            ("", UserNameError::Empty),
            ("\u{ad}", UserNameError::Empty),
            ("tab\there", UserNameError::Forbidden),
            ("line\n", UserNameError::Forbidden),
            ("nul\0", UserNameError::Forbidden),
            ("\u{7f}", UserNameError::Forbidden),
            ("\u{627}1", UserNameError::Forbidden),
        ] {
            assert_eq!(text.parse::<UserName>(), Err(why), "{text:?}");
        }
        let longest = "n".repeat(UserName::MAX_LEN);
        assert!(longest.parse::<UserName>().is_ok());
        assert_eq!(format!("{longest}n").parse::<UserName>(), Err(UserNameError::TooLong { len: 256 }));
    }
}
