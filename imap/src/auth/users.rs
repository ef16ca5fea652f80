//! The users of this machine, as a text file.
//!
//! The first line is `postmerge users 1`. Each further line is one user, three fields between tabs: name, verifier,
//! directory of the replica that the user opens. Every line ends with a line feed. There are no comments, since a
//! program that adds a user would lose them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::user_name::{UserName, UserNameError};
use super::verifier::{Verifier, VerifierError};

/// First line of the file: what it is, and the version of its format.
const HEADER: &str = "postmerge users 1";

/// Longest directory in bytes: the longest path that Linux takes.
const MAX_REPLICA_LEN: usize = 4096;

/// Somebody who may log in, and what opens then. Clones are cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User(Arc<(UserName, Box<str>)>);

impl User {
    /// Takes a name and the directory of the replica it opens; a relative one is relative to what the caller says.
    pub fn new(name: UserName, replica: &str) -> Result<User, UserError> {
        if replica.is_empty() {
            return Err(UserError::Empty);
        }
        if replica.len() > MAX_REPLICA_LEN {
            return Err(UserError::TooLong { len: replica.len() });
        }
        if replica.chars().any(char::is_control) {
            return Err(UserError::Control);
        }
        Ok(User(Arc::new((name, replica.into()))))
    }

    /// The name.
    pub fn name(&self) -> &UserName {
        &self.0.0
    }

    /// The directory of the replica that the user opens.
    pub fn replica(&self) -> &Path {
        Path::new(&*self.0.1)
    }
}

/// Why a text is no replica's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// It has no characters.
    #[error("the directory of a user's replica is empty")]
    Empty,
    /// It does not fit a path.
    #[error("the directory of a user's replica has {len} bytes, more than {MAX_REPLICA_LEN}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It holds a control character, which would not survive the file.
    #[error("the directory of a user's replica holds a control character")]
    Control,
}

/// The users of this machine with their verifiers, by name.
#[derive(Clone, Debug, Default)]
pub struct Users(BTreeMap<UserName, (User, Verifier)>);

impl Users {
    /// Reads the text that [`Self::to_text`] makes.
    pub fn parse(text: &str) -> Result<Users, UsersError> {
        let mut users = Users::default();
        let mut lines = text.split_terminator('\n').zip(1..);
        if lines.next().map(|(line, _)| line) != Some(HEADER) {
            return Err(UsersError { line: 1, error: LineError::Header });
        }
        if !text.ends_with('\n') {
            return Err(UsersError { line: text.split('\n').count(), error: LineError::Torn });
        }
        for (line, number) in lines {
            users.parse_line(line).map_err(|error| UsersError { line: number, error })?;
        }
        Ok(users)
    }

    /// The text of the file, ordered by name. It holds verifiers: the file must be readable by its owner only.
    pub fn to_text(&self) -> Zeroizing<String> {
        // Room for all of it at once: a text that grows leaves copies behind that nobody erases.
        let room =
            self.0.values().map(|(user, _)| user.name().as_str().len() + user.0.1.len() + 256).sum::<usize>();
        let mut text = Zeroizing::new(String::with_capacity(HEADER.len() + 1 + room));
        text.push_str(HEADER);
        text.push('\n');
        for (user, verifier) in self.0.values() {
            for part in [user.name().as_str(), "\t", &verifier.to_text(), "\t", &user.0.1, "\n"] {
                text.push_str(part);
            }
        }
        text
    }

    /// Adds a user, or gives one another password or replica.
    pub fn insert(&mut self, user: User, verifier: Verifier) {
        self.0.insert(user.name().clone(), (user, verifier));
    }

    /// Takes a user out; says whether there was one.
    pub fn remove(&mut self, name: &UserName) -> bool {
        self.0.remove(name).is_some()
    }

    /// The user of that name.
    pub fn find(&self, name: &UserName) -> Option<(&User, &Verifier)> {
        self.0.get(name).map(|(user, verifier)| (user, verifier))
    }

    /// All users, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&User, &Verifier)> {
        self.0.values().map(|(user, verifier)| (user, verifier))
    }

    fn parse_line(&mut self, line: &str) -> Result<(), LineError> {
        let mut fields = line.split('\t');
        let (Some(name), Some(verifier), Some(replica), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(LineError::Fields { found: line.split('\t').count() });
        };
        let user = User::new(name.parse()?, replica)?;
        let verifier = verifier.parse()?;
        match self.0.entry(user.name().clone()) {
            Entry::Occupied(taken) => Err(LineError::Twice { name: taken.key().clone() }),
            Entry::Vacant(place) => {
                place.insert((user, verifier));
                Ok(())
            }
        }
    }
}

/// A line of a file of users cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the users")]
pub struct UsersError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    #[source]
    pub error: LineError,
}

/// What is wrong with a line of a file of users.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The first line is not what this program writes, or of a version it does not know.
    #[error("it should be {HEADER:?}")]
    Header,
    /// The last line has no line feed: whoever wrote the file did not get to its end.
    #[error("it does not end with a line feed, so the file may have been cut off")]
    Torn,
    /// It does not have three fields.
    #[error("it has {found} fields between tabs instead of name, verifier and replica")]
    Fields {
        /// How many it has.
        found: usize,
    },
    /// An earlier line has the same user, maybe spelled in another way.
    #[error("user {name} is there twice")]
    Twice {
        /// The name.
        name: UserName,
    },
    /// The first field is no name.
    #[error(transparent)]
    Name(#[from] UserNameError),
    /// The second field is no verifier.
    #[error(transparent)]
    Verifier(#[from] VerifierError),
    /// The third field is no directory.
    #[error(transparent)]
    Replica(#[from] UserError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Iterations, Salt};

    const V: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn a_file_is_read_changed_and_written() {
        let text = format!("postmerge users 1\nzoe\t{V}\t/mail/zoe\nan na@example.org\t{V}\tanna's mail\n");
        let mut users = Users::parse(&text).unwrap();
        let (zoe, verifier) = users.find(&"zoe".parse().unwrap()).unwrap();
        assert_eq!(zoe.replica(), Path::new("/mail/zoe"));
        assert!(verifier.verify_password(b"pencil"));

        let other =
            Verifier::derive(b"other", Salt::new([1; 8]).unwrap(), Iterations::new(4096).unwrap()).unwrap();
        users.insert(User::new("zoe".parse().unwrap(), "elsewhere").unwrap(), other.clone());
        let expected = format!(
            "postmerge users 1\nan na@example.org\t{V}\tanna's mail\nzoe\t{}\telsewhere\n",
            &**other.to_text()
        );
        assert_eq!(&**users.to_text(), expected);
        assert!(users.remove(&"zoe".parse().unwrap()));
        assert!(!users.remove(&"zoe".parse().unwrap()));
        assert_eq!(users.iter().count(), 1);
        assert_eq!(&**Users::parse(&expected).unwrap().to_text(), expected);
    }

    #[test]
    fn a_bad_line_is_told_by_its_number() {
        use LineError::*;
        let good = format!("anna\t{V}\t/a\n");
        let long = "x".repeat(4097);
        for (text, line, error) in [
            (String::new(), 1, Header),
            ("postmerge users 2\n".into(), 1, Header),
            ("postmerge users 1\r\n".into(), 1, Header),
            (good.clone(), 1, Header),
            ("postmerge users 1".into(), 1, Torn),
            (format!("postmerge users 1\n{good}bob\t{V}\t/b"), 3, Torn),
            (format!("postmerge users 1\n{good}bob\tSCRAM-SH"), 3, Torn),
            (format!("postmerge users 1\nbob\t{V}\t/b\r\n"), 2, Replica(UserError::Control)),
            (format!("postmerge users 1\n{good}\n"), 3, Fields { found: 1 }),
            (format!("postmerge users 1\n# a comment\n{good}"), 2, Fields { found: 1 }),
            (format!("postmerge users 1\nbob\t{V}\n"), 2, Fields { found: 2 }),
            (format!("postmerge users 1\nbob\t{V}\t/b\t\n"), 2, Fields { found: 4 }),
            (format!("postmerge users 1\n{good}{good}"), 3, Twice { name: "anna".parse().unwrap() }),
            (
                format!("postmerge users 1\n{good}an\u{ad}na\t{V}\t/b\n"),
                3,
                Twice { name: "anna".parse().unwrap() },
            ),
            (format!("postmerge users 1\n\t{V}\t/b\n"), 2, Name(UserNameError::Empty)),
            (format!("postmerge users 1\nb\u{7}b\t{V}\t/b\n"), 2, Name(UserNameError::Forbidden)),
            ("postmerge users 1\nbob\tsecret\t/b\n".into(), 2, Verifier(VerifierError::Scheme)),
            (format!("postmerge users 1\nbob\t{V}\t\n"), 2, Replica(UserError::Empty)),
            (format!("postmerge users 1\nbob\t{V}\t/b\u{85}\n"), 2, Replica(UserError::Control)),
            (format!("postmerge users 1\nbob\t{V}\t{long}\n"), 2, Replica(UserError::TooLong { len: 4097 })),
        ] {
            assert_eq!(Users::parse(&text).map(drop), Err(UsersError { line, error }), "{text:?}");
        }
    }

    #[test]
    fn an_error_does_not_show_the_verifier() {
        let text = format!("postmerge users 1\nbob\t{V}=\t/b\n");
        let error = Users::parse(&text).unwrap_err();
        assert!(!format!("{error:?} {error} {}", error.error).contains("WG5d"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}", tail in ".{0,40}") {
            let _ = Users::parse(&text);
            if let Ok(users) = Users::parse(&format!("postmerge users 1\n{text}\t{V}\t{tail}\n")) {
                let written = users.to_text();
                proptest::prop_assert_eq!(&**Users::parse(&written).unwrap().to_text(), &**written);
            }
        }
    }
}
