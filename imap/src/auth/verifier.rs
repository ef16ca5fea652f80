//! SCRAM-SHA-256 verifiers: what a server keeps instead of a password.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::parameters::{Iterations, IterationsError, Salt, SaltError};

/// Longest password in bytes: with two names of 255 bytes it still fits a PLAIN response, even if SASLprep on the
/// other side made it twice as long.
pub const MAX_PASSWORD_LEN: usize = 1024;

/// Length of SHA-256, hence of every key here.
pub(super) const KEY_LEN: usize = digest::SHA256_OUTPUT_LEN;

/// How a verifier's text begins.
const SCHEME: &str = "SCRAM-SHA-256";

/// A key that is erased when it is dropped.
pub(super) type Key = Zeroizing<[u8; KEY_LEN]>;

/// The SCRAM-SHA-256 verifier of a password (RFC 5802, section 3; RFC 7677).
///
/// Its text is the one of RFC 5803 and PostgreSQL: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`,
/// the last three in base64. Who reads it can guess passwords offline and can pose as this server, so a file of
/// verifiers is as private as the mail. Keys are erased when they are dropped, and `Debug` shows none.
#[derive(Clone)]
pub struct Verifier {
    iterations: Iterations,
    salt: Salt,
    stored_key: Key,
    server_key: Key,
}

impl Verifier {
    /// Derives the verifier of `password`; `salt` comes from the caller's entropy and serves one verifier only.
    ///
    /// Costs what [`Iterations`] says.
    pub fn derive(password: &[u8], salt: Salt, iterations: Iterations) -> Result<Verifier, PasswordError> {
        match password.len() {
            0 => Err(PasswordError::Empty),
            _ if password.contains(&0) => Err(PasswordError::Nul),
            1..=MAX_PASSWORD_LEN => Ok(Verifier::of(password, salt, iterations)),
            len => Err(PasswordError::TooLong { len }),
        }
    }

    /// Whether `password` is the one it was derived from; LOGIN and PLAIN ask so.
    ///
    /// Costs what [`Iterations`] says, whatever the answer: keep it off threads that serve other connections.
    pub fn verify_password(&self, password: &[u8]) -> bool {
        let offered = Verifier::of(password, self.salt.clone(), self.iterations);
        // HMAC fills short keys up with NULs, so to PBKDF2 a password is the same with some at its end.
        let nul = password.contains(&0);
        bool::from(self.stored_key.ct_eq(&*offered.stored_key)) && !nul
    }

    /// The line of text that [`Verifier::from_str`] reads.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "{SCHEME}${}:{}${}:{}",
            self.iterations.count(),
            self.salt,
            BASE64.encode(&*self.stored_key),
            BASE64.encode(&*self.server_key)
        ))
    }

    /// How often a client must hash.
    pub fn iterations(&self) -> Iterations {
        self.iterations
    }

    /// The salt.
    pub fn salt(&self) -> &Salt {
        &self.salt
    }

    /// A verifier of no password, for a name that nobody has.
    pub(super) fn decoy(iterations: Iterations, salt: Salt, stored_key: Key, server_key: Key) -> Verifier {
        Verifier { iterations, salt, stored_key, server_key }
    }

    /// Whether `proof` shows knowledge of the password behind `auth_message` (RFC 5802, section 3).
    pub(super) fn verify_proof(&self, proof: &[u8; KEY_LEN], auth_message: &[u8]) -> bool {
        let signature = hmac(&*self.stored_key, auth_message);
        let mut client_key = Zeroizing::new(*proof);
        for (byte, mask) in client_key.iter_mut().zip(signature.iter()) {
            *byte ^= mask;
        }
        self.stored_key.ct_eq(&*sha256(&*client_key)).into()
    }

    /// What shows a client that this server knows its verifier (RFC 5802, section 3).
    pub(super) fn server_signature(&self, auth_message: &[u8]) -> Key {
        hmac(&*self.server_key, auth_message)
    }

    fn of(password: &[u8], salt: Salt, iterations: Iterations) -> Verifier {
        let salted = salted_password(&prepare(password), &salt, iterations);
        let stored_key = sha256(&*hmac(&*salted, b"Client Key"));
        let server_key = hmac(&*salted, b"Server Key");
        Verifier { iterations, salt, stored_key, server_key }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({SCHEME}, {}, ..)", self.iterations.count())
    }
}

impl FromStr for Verifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Verifier, VerifierError> {
        let rest =
            text.strip_prefix(SCHEME).and_then(|rest| rest.strip_prefix('$')).ok_or(VerifierError::Scheme)?;
        let (parameters, keys) = rest.split_once('$').ok_or(VerifierError::Fields)?;
        let (iterations, salt) = parameters.split_once(':').ok_or(VerifierError::Fields)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or(VerifierError::Fields)?;
        Ok(Verifier {
            iterations: iterations.parse()?,
            salt: Salt::new(BASE64.decode(salt.as_bytes()).map_err(|_| VerifierError::Base64)?)?,
            stored_key: key_from(stored_key)?,
            server_key: key_from(server_key)?,
        })
    }
}

/// Why no verifier can be derived from a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// It has no bytes.
    #[error("a password is empty")]
    Empty,
    /// It holds a NUL, which neither PLAIN nor LOGIN can carry.
    #[error("a password holds a NUL")]
    Nul,
    /// It is longer than [`MAX_PASSWORD_LEN`].
    #[error("a password of {len} bytes is longer than {MAX_PASSWORD_LEN}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
}

/// Why a text is no verifier. It does not repeat the text, which is a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// It is of another scheme.
    #[error("a verifier does not begin with \"{SCHEME}$\"")]
    Scheme,
    /// It lacks a separator.
    #[error("a verifier is not of the form {SCHEME}$<iterations>:<salt>$<StoredKey>:<ServerKey>")]
    Fields,
    /// Salt or keys are not in base64.
    #[error("a verifier's salt or key is not in base64 (RFC 4648, section 4)")]
    Base64,
    /// A key is not as long as SHA-256.
    #[error("a verifier's key has {len} bytes instead of {KEY_LEN}")]
    KeyLength {
        /// Its length in bytes.
        len: usize,
    },
    /// The iterations are out of bounds.
    #[error(transparent)]
    Iterations(#[from] IterationsError),
    /// The salt is too short or too long.
    #[error(transparent)]
    Salt(#[from] SaltError),
}

fn key_from(text: &str) -> Result<Key, VerifierError> {
    let bytes = Zeroizing::new(BASE64.decode(text.as_bytes()).map_err(|_| VerifierError::Base64)?);
    let key = bytes.as_slice().try_into().map_err(|_| VerifierError::KeyLength { len: bytes.len() })?;
    Ok(Zeroizing::new(key))
}

/// The bytes of a password that are hashed: after SASLprep where it applies, else as they are.
///
/// SASLprep knows only Unicode 3.2, so a password with an emoji fails it; so does one that is not UTF-8, as LOGIN
/// can carry. PostgreSQL takes those as they are, and so does this server.
fn prepare(password: &[u8]) -> Zeroizing<Vec<u8>> {
    std::str::from_utf8(password)
        .ok()
        .and_then(|text| stringprep::saslprep(text).ok())
        .map(|prepared| Zeroizing::new(prepared.into_owned().into_bytes()))
        .filter(|prepared| !prepared.is_empty())
        .unwrap_or_else(|| Zeroizing::new(password.to_vec()))
}

fn salted_password(prepared: &[u8], salt: &Salt, iterations: Iterations) -> Key {
    let mut salted = Key::default();
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        iterations.non_zero(),
        salt.as_bytes(),
        prepared,
        &mut *salted,
    );
    salted
}

fn hmac(key: &[u8], message: &[u8]) -> Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    Zeroizing::new(tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes"))
}

fn sha256(bytes: &[u8]) -> Key {
    let hash = digest::digest(&digest::SHA256, bytes);
    Zeroizing::new(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Python's `hashlib` and `hmac` for the password `pencil`
    /// and the salt of RFC 7677, section 3.
    const PENCIL: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn derive(password: &[u8]) -> Verifier {
        let salt = Salt::new(BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap()).unwrap();
        Verifier::derive(password, salt, Iterations::new(4096).unwrap()).unwrap()
    }

    #[test]
    fn a_text_made_elsewhere_is_derived_printed_and_parsed() {
        assert_eq!(&**derive(b"pencil").to_text(), PENCIL);
        let parsed: Verifier = PENCIL.parse().unwrap();
        assert_eq!(&**parsed.to_text(), PENCIL);
        assert!(parsed.verify_password(b"pencil"));
        for wrong in [&b""[..], b"Pencil", b"pencil ", b"pencil\0"] {
            assert!(!parsed.verify_password(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn passwords_are_prepared_where_saslprep_applies() {
        for (set, typed) in [
            (&b"IX"[..], "\u{2168}".as_bytes()),
            ("Zo\u{eb}".as_bytes(), "Zoe\u{308}".as_bytes()),
            (b"a b", "a\u{a0}b".as_bytes()),
        ] {
            assert!(derive(set).verify_password(typed), "{set:?}");
            assert!(derive(typed).verify_password(set), "{set:?}");
        }
    }

    #[test]
    fn passwords_that_saslprep_refuses_are_taken_as_they_are() {
        let odd = [
            "\u{1fae0}\u{2168}".as_bytes(),
            b"gr\xfc\xdfe",
            "\u{ad}".as_bytes(),
            b"bell\x07",
            "\u{627}1".as_bytes(),
        ];
        for password in odd {
            let verifier = derive(password);
            assert!(verifier.verify_password(password), "{password:?}");
            assert!(
                odd.iter().all(|other| *other == password || !verifier.verify_password(other)),
                "{password:?}"
            );
        }
    }

    #[test]
    fn passwords_without_use_are_refused() {
        let derive = |password: &[u8]| {
            Verifier::derive(password, Salt::new([7; 8]).unwrap(), Iterations::new(4096).unwrap()).map(drop)
        };
        assert_eq!(derive(b""), Err(PasswordError::Empty));
        assert_eq!(derive(b"pencil\0"), Err(PasswordError::Nul));
        assert_eq!(derive(&[b'p'; 1024]), Ok(()));
        assert_eq!(derive(&[b'p'; 1025]), Err(PasswordError::TooLong { len: 1025 }));
    }

    #[test]
    fn bad_texts_are_refused() {
        use VerifierError::*;
        for (from, to, why) in [
            ("SCRAM-SHA-256$", "SCRAM-SHA-1$", Scheme),
            ("SCRAM-SHA-256$", "SCRAM-SHA-256", Scheme),
            ("SCRAM-SHA-256$", "SCRAM-SHA-256-PLUS$", Scheme),
            ("4096:", "4096", Fields),
            ("==$", "==", Fields),
            ("=:wf", "=wf", Fields),
            ("4096", "4095", Iterations(IterationsError)),
            ("4096", "+4096", Iterations(IterationsError)),
            ("4096", "04096", Iterations(IterationsError)),
            ("4096", "", Iterations(IterationsError)),
            ("4096", "10000001", Iterations(IterationsError)),
            ("4096", "99999999999999999999", Iterations(IterationsError)),
            ("gQ==", "gQ", Base64),
            ("W22ZaJ0SNY7soEsUEjb6gQ==", "AAAAAAAAAA==", Salt(SaltError { len: 7 })),
            ("W22ZaJ0SNY7soEsUEjb6gQ==", "", Salt(SaltError { len: 0 })),
            ("WG5d", "", KeyLength { len: 29 }),
            ("2dU=", "2dU= ", Base64),
            ("2dU=", "2dU=:", Base64),
        ] {
            let text = PENCIL.replacen(from, to, 1);
            assert_eq!(text.parse::<Verifier>().map(drop), Err(why), "{text}");
        }
        assert_eq!("".parse::<Verifier>().map(drop), Err(Scheme));
        assert!(PENCIL.replacen("4096", "10000000", 1).parse::<Verifier>().is_ok());
    }

    #[test]
    fn nothing_secret_is_shown() {
        let shown = format!("{:?}", derive(b"pencil"));
        assert!(!shown.contains("WG5d") && !shown.contains("wfPL") && !shown.contains("88, 110"), "{shown}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_parses_to_itself_or_not_at_all(text in "(SCRAM-SHA-256\\$)?[0-9]{0,5}[:$A-Za-z0-9+/=]{0,120}") {
            if let Ok(verifier) = text.parse::<Verifier>() {
                proptest::prop_assert_eq!(&**verifier.to_text(), text.as_str());
            }
        }
    }
}
