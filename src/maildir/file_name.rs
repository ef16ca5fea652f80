//! Names of message files: `<base>:2,<letters>`. The base names the message for its whole life; the letters
//! are its flags, and a change of flags is a rename.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use super::keywords::KeywordTable;
use crate::mailbox::Keyword;

/// What a message file is called before the `:`. Bytes, since other programs write names that are not UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseName(Box<[u8]>);

/// Why a file's name cannot be a message's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileNameError {
    /// Nothing stands before the `:`.
    #[error("a message file's name is empty")]
    Empty,
    /// It starts with a dot; Dovecot and others keep such files for themselves.
    #[error("a message file's name starts with a dot")]
    Hidden,
    /// It holds a byte that a uidlist or a directory cannot carry.
    #[error("a message file's name holds the byte {byte:#04x}")]
    Byte {
        /// The byte: a line feed, a NUL, a slash, or in a base a colon.
        byte: u8,
    },
    /// It is longer than [`BaseName::MAX_LEN`].
    #[error("a message file's name of {len} bytes is longer than {max}", max = BaseName::MAX_LEN)]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The token for a new name is empty or holds more than letters, digits, `-`, `_` and `.`.
    #[error("a token is letters, digits, \"-\", \"_\" and \".\"")]
    Token,
}

impl BaseName {
    /// Longest name that file systems take.
    pub const MAX_LEN: usize = 255;

    /// Checks that a file can carry the name and a uidlist line can name it.
    pub fn new(bytes: &[u8]) -> Result<BaseName, FileNameError> {
        match bytes.first() {
            None => return Err(FileNameError::Empty),
            Some(b'.') => return Err(FileNameError::Hidden),
            Some(_) if bytes.len() > BaseName::MAX_LEN => {
                return Err(FileNameError::TooLong { len: bytes.len() });
            }
            Some(_) => {}
        }
        match bytes.iter().find(|byte| matches!(byte, b'\n' | 0 | b'/' | b':')) {
            Some(&byte) => Err(FileNameError::Byte { byte }),
            None => Ok(BaseName(bytes.into())),
        }
    }

    /// Makes a new name from the internal date (Unix seconds), a token that no other message has, the size of
    /// the file, and its size with CRLF line ends.
    pub fn unique(date: i64, token: &str, size: u64, crlf_size: u64) -> Result<BaseName, FileNameError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if token.is_empty() || !token.bytes().all(plain) {
            return Err(FileNameError::Token);
        }
        // A date before 1970 would start the name with "-", which command lines take for an option.
        BaseName::new(format!("{}.{token},S={size},W={crlf_size}", date.max(0)).as_bytes())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The size of the file as the name states it (`,S=`). It may be wrong; Dovecot drops the connection then.
    pub fn size(&self) -> Option<u64> {
        self.number(b"S=")
    }

    /// The size with CRLF line ends as the name states it (`,W=`).
    pub fn crlf_size(&self) -> Option<u64> {
        self.number(b"W=")
    }

    fn number(&self, key: &[u8]) -> Option<u64> {
        let field = self.0.split(|byte| *byte == b',').skip(1).find_map(|field| field.strip_prefix(key))?;
        // `parse` alone would also take a sign.
        if field.iter().all(u8::is_ascii_digit) {
            std::str::from_utf8(field).ok()?.parse().ok()
        } else {
            None
        }
    }
}

impl fmt::Display for BaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl fmt::Debug for BaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// The flag letters of a file's name, sorted, each once. Letters that mean nothing to us are kept.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Letters(BTreeSet<u8>);

/// The letters with a fixed meaning. Dovecot knows all but `P`.
const FIXED: [(u8, &str); 6] = [
    (b'D', "\\Draft"),
    (b'F', "\\Flagged"),
    (b'P', "$Forwarded"),
    (b'R', "\\Answered"),
    (b'S', "\\Seen"),
    (b'T', "\\Deleted"),
];

impl Letters {
    /// The letters in order.
    pub fn iter(&self) -> impl Iterator<Item = u8> {
        self.0.iter().copied()
    }

    /// What the letters say; `a` to `z` by the folder's table.
    pub fn keywords(&self, table: &KeywordTable) -> BTreeSet<Keyword> {
        self.iter().filter_map(|letter| fixed(letter).or_else(|| table.keyword(letter).cloned())).collect()
    }

    /// Makes the letters say `keywords`; those that mean nothing to us stay. Gives back the keywords that have
    /// no letter. `$Forwarded` is written both ways, since Dovecot reads only the table's.
    pub fn set_keywords(&mut self, keywords: &BTreeSet<Keyword>, table: &KeywordTable) -> BTreeSet<Keyword> {
        self.0.retain(|letter| fixed(*letter).is_none() && table.keyword(*letter).is_none());
        let mut rest = BTreeSet::new();
        for keyword in keywords {
            let own = FIXED.iter().find(|(_, text)| *text == keyword.as_str()).map(|(letter, _)| *letter);
            let listed = table.letter(keyword);
            if own.is_none() && listed.is_none() {
                rest.insert(keyword.clone());
            }
            self.0.extend(own.into_iter().chain(listed));
        }
        rest
    }
}

fn fixed(letter: u8) -> Option<Keyword> {
    FIXED.iter().find(|(own, _)| *own == letter).and_then(|(_, text)| text.parse().ok())
}

/// Whether a keyword has a letter that needs no table.
pub(super) fn has_fixed_letter(keyword: &Keyword) -> bool {
    FIXED.iter().any(|(_, text)| *text == keyword.as_str())
}

impl fmt::Debug for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|letter| write!(f, "{}", letter.escape_ascii()))
    }
}

/// The whole name of a message file, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileName {
    /// What names the message.
    pub base: BaseName,
    /// Its flags.
    pub letters: Letters,
    /// What else stands after the `:`, kept as it was: another program's fields after the letters (with
    /// their comma), or an info of a version that is not 2 (with its colon).
    rest: Vec<u8>,
}

impl FileName {
    /// A name for `base` with flags.
    pub fn new(base: BaseName, letters: Letters) -> FileName {
        FileName { base, letters, rest: Vec::new() }
    }

    /// The same flags under another base.
    pub(super) fn called(&self, base: BaseName) -> FileName {
        FileName { base, ..self.clone() }
    }

    /// Takes a directory entry's name apart. The base ends at the first `:`, as it does for Dovecot.
    pub fn parse(name: &OsStr) -> Result<FileName, FileNameError> {
        let name = name.as_bytes();
        if let Some(&byte) = name.iter().find(|byte| matches!(byte, b'\n' | 0 | b'/')) {
            return Err(FileNameError::Byte { byte });
        }
        let colon = name.iter().position(|byte| *byte == b':').unwrap_or(name.len());
        let (base, info) = name.split_at(colon);
        let base = BaseName::new(base)?;
        let Some(flags) = info.strip_prefix(b":2,") else {
            return Ok(FileName { base, letters: Letters::default(), rest: info.into() });
        };
        let end = flags.iter().position(|byte| *byte == b',').unwrap_or(flags.len());
        let letters = Letters(flags[..end].iter().copied().collect());
        Ok(FileName { base, letters, rest: flags[end..].into() })
    }

    /// The name as the directory has it, for a file in `cur`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.base.as_bytes().to_vec();
        if !self.rest.starts_with(b":") {
            out.extend(b":2,");
            out.extend(self.letters.iter());
        }
        out.extend(&self.rest);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> FileName {
        FileName::parse(OsStr::new(text)).unwrap()
    }

    #[test]
    fn names_of_the_field() {
        for (text, base, letters, size, crlf) in [
            ("1204680122.27c448.host", "1204680122.27c448.host", "", None, None),
            ("1.M2P3.h,S=10,W=12:2,SF", "1.M2P3.h,S=10,W=12", "FS", Some(10), Some(12)),
            ("1.h,S=10:2,", "1.h,S=10", "", Some(10), None),
            ("1.h,W=12,S=10:2,Sab", "1.h,W=12,S=10", "Sab", Some(10), Some(12)),
            ("1.h,U=7:2,SXé", "1.h,U=7", "SX\\xa9\\xc3", None, None),
            ("1.h,S=+5:2,S", "1.h,S=+5", "S", None, None),
            ("1.h,S=99999999999999999999", "1.h,S=99999999999999999999", "", None, None),
            ("1.S=3.h", "1.S=3.h", "", None, None),
            ("1.h:2,S,other=1", "1.h", "S", None, None),
            ("1.h:1,trial", "1.h", "", None, None),
            ("1.h:2", "1.h", "", None, None),
            ("1.h:2,SS", "1.h", "S", None, None),
        ] {
            let parsed = name(text);
            assert_eq!(parsed.base.as_bytes(), base.as_bytes(), "{text}");
            assert_eq!(format!("{:?}", parsed.letters), letters, "{text}");
            assert_eq!((parsed.base.size(), parsed.base.crlf_size()), (size, crlf), "{text}");
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        use FileNameError::*;
        for (text, why) in [
            ("", Empty),
            (":2,S", Empty),
            (".nfs01", Hidden),
            ("a\nb", Byte { byte: 10 }),
            ("a:2,\n", Byte { byte: 10 }),
        ] {
            assert_eq!(FileName::parse(OsStr::new(text)), Err(why), "{text:?}");
        }
        assert_eq!(BaseName::new(b"a:2,S"), Err(Byte { byte: b':' }));
        assert_eq!(BaseName::new(&[b'a'; 256]), Err(TooLong { len: 256 }));
    }

    #[test]
    fn a_name_that_is_not_utf_8_is_a_name() {
        let parsed = FileName::parse(OsStr::from_bytes(b"1.\xff\xfe,S=3:2,S")).unwrap();
        assert_eq!(parsed.base.size(), Some(3));
        assert_eq!(parsed.to_bytes(), b"1.\xff\xfe,S=3:2,S");
    }

    #[test]
    fn new_names_hold_date_token_and_sizes() {
        let base = BaseName::unique(1_700_000_000, "abc.postmerge", 10, 12).unwrap();
        assert_eq!(base.as_bytes(), b"1700000000.abc.postmerge,S=10,W=12");
        assert_eq!((base.size(), base.crlf_size()), (Some(10), Some(12)));
        assert_eq!(BaseName::unique(-5, "abc", 1, 1).unwrap().as_bytes(), b"0.abc,S=1,W=1");
        for token in ["", "a/b", "a,S=1", "a:b", "a b"] {
            assert_eq!(BaseName::unique(0, token, 1, 1), Err(FileNameError::Token));
        }
    }

    #[test]
    fn letters_and_keywords() {
        let table = KeywordTable::parse(b"0 work\n1 $Forwarded\n").unwrap();
        let said = name("1.h:2,DFPRSTaxX").letters.keywords(&table);
        let said: Vec<&str> = said.iter().map(Keyword::as_str).collect();
        assert_eq!(said, ["$Forwarded", "\\Answered", "\\Deleted", "\\Draft", "\\Flagged", "\\Seen", "work"]);
        let mut letters = name("1.h:2,DRaxX").letters;
        let wanted = ["\\Seen", "$Forwarded", "home"].iter().map(|text| text.parse().unwrap()).collect();
        let rest = letters.set_keywords(&wanted, &table);
        assert_eq!(format!("{letters:?}"), "PSXbx", "unknown x and X stay");
        assert_eq!(rest, BTreeSet::from(["home".parse().unwrap()]));
    }

    proptest! {
        #[test]
        fn names_come_back(base in "[ -.0-9;-~]{1,40}", letters in "[DFPRSTa-zQ]{0,9}", rest in "(,[ -.0-~]{0,5})?") {
            prop_assume!(!base.starts_with('.'));
            let parsed = name(&format!("{base}:2,{letters}{rest}"));
            let again = FileName::parse(OsStr::from_bytes(&parsed.to_bytes())).unwrap();
            prop_assert_eq!(&again, &parsed);
            prop_assert_eq!(again.base.as_bytes(), base.as_bytes());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(parsed) = FileName::parse(OsStr::from_bytes(&bytes)) {
                prop_assert!(FileName::parse(OsStr::from_bytes(&parsed.to_bytes())).unwrap() == parsed);
            }
        }
    }
}
