//! Users, and decoys for names that nobody has.

use std::collections::BTreeMap;
use std::fmt;

use ring::hkdf;
use zeroize::Zeroizing;

use super::parameters::{Iterations, Salt};
use super::user_name::UserName;
use super::users::{User, Users};
use super::verifier::{KEY_LEN, Key, Verifier};

/// Checks names and passwords against [`Users`] without telling which names exist.
///
/// A name that nobody has gets a decoy: a verifier that no password fits, derived from a secret of this server, so
/// that its salt is the same each time (RFC 5802, section 9). It has the iterations and the length of salt that
/// most users have; a user whose verifier has others can be told from a decoy.
#[derive(Clone, Debug)]
pub struct Authenticator {
    users: Users,
    secret: DecoySecret,
    iterations: Iterations,
    salt_len: usize,
}

impl Authenticator {
    /// Takes the users; `secret` must outlive a restart, else names that nobody has change their salts.
    pub fn new(users: Users, secret: DecoySecret) -> Authenticator {
        let (iterations, salt_len) = usual_shape(&users);
        Authenticator { users, secret, iterations, salt_len }
    }

    /// The user who has that name and password; LOGIN asks so.
    ///
    /// Costs the same for a wrong name as for a wrong password: see [`Iterations`].
    pub fn check_password(&self, name: &UserName, password: &[u8]) -> Option<User> {
        let candidate = self.candidate(name);
        let fits = candidate.verifier.verify_password(password);
        candidate.user.filter(|_| fits)
    }

    /// The users.
    pub fn users(&self) -> &Users {
        &self.users
    }

    /// What stands behind a name, which may be nobody.
    pub(super) fn candidate(&self, name: &UserName) -> Candidate {
        // Made for each name, so that making it tells nothing either.
        let decoy = self.decoy(name);
        match self.users.find(name) {
            Some((user, verifier)) => Candidate { user: Some(user.clone()), verifier: verifier.clone() },
            None => Candidate { user: None, verifier: decoy },
        }
    }

    fn decoy(&self, name: &UserName) -> Verifier {
        let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &*self.secret.0);
        let mut bytes = Zeroizing::new(vec![0; self.salt_len + 2 * KEY_LEN]);
        prk.expand(&[b"postmerge imap decoy 1 ", name.as_str().as_bytes()], OutputLen(bytes.len()))
            .and_then(|output| output.fill(&mut bytes))
            .expect("HKDF gives up to 8,160 bytes");
        let (keys, salt) = bytes.split_at(2 * KEY_LEN);
        let mut stored_key = Key::default();
        let mut server_key = Key::default();
        stored_key.copy_from_slice(&keys[..KEY_LEN]);
        server_key.copy_from_slice(&keys[KEY_LEN..]);
        let salt = Salt::new(salt).expect("as long as a user's salt, or as the default");
        Verifier::decoy(self.iterations, salt, stored_key, server_key)
    }
}

/// A verifier, and the user who opens with it unless it is a decoy.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) verifier: Verifier,
    pub(super) user: Option<User>,
}

/// 32 bytes that nobody else knows, from which the salts of names that nobody has are derived.
#[derive(Clone)]
pub struct DecoySecret(Zeroizing<[u8; 32]>);

impl DecoySecret {
    /// Takes bytes that the caller drew from the system's entropy once and stored.
    pub fn from_bytes(bytes: [u8; 32]) -> DecoySecret {
        DecoySecret(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for DecoySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecoySecret(..)")
    }
}

struct OutputLen(usize);

impl hkdf::KeyType for OutputLen {
    fn len(&self) -> usize {
        self.0
    }
}

/// The iterations and the length of salt that most verifiers have; of equally many the costlier.
fn usual_shape(users: &Users) -> (Iterations, usize) {
    let mut shapes = BTreeMap::new();
    for (_, verifier) in users.iter() {
        *shapes.entry((verifier.iterations(), verifier.salt().as_bytes().len())).or_insert(0_usize) += 1;
    }
    shapes
        .into_iter()
        .max_by_key(|(shape, count)| (*count, *shape))
        .map_or((Iterations::DEFAULT, Salt::DEFAULT_LEN), |(shape, _)| shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticator(shapes: &[(u32, usize)], secret: u8) -> Authenticator {
        let mut users = Users::default();
        for (n, (iterations, salt_len)) in shapes.iter().enumerate() {
            let salt = Salt::new(vec![n as u8; *salt_len]).unwrap();
            let verifier = Verifier::derive(b"pencil", salt, Iterations::new(*iterations).unwrap()).unwrap();
            users.insert(User::new(format!("user{n}").parse().unwrap(), "/mail").unwrap(), verifier);
        }
        Authenticator::new(users, DecoySecret::from_bytes([secret; 32]))
    }

    fn text(authenticator: &Authenticator, name: &str) -> String {
        authenticator.candidate(&name.parse().unwrap()).verifier.to_text().to_string()
    }

    #[test]
    fn only_the_right_name_with_the_right_password_opens() {
        let authenticator = authenticator(&[(4096, 16)], 1);
        let check = |name: &str, password: &[u8]| {
            authenticator.check_password(&name.parse().unwrap(), password).map(|user| user.name().to_string())
        };
        assert_eq!(check("user0", b"pencil"), Some("user0".into()));
        assert_eq!(check("user0", b"pen"), None);
        assert_eq!(check("user1", b"pencil"), None);
        assert_eq!(check("user1", b""), None);
    }

    #[test]
    fn a_decoy_is_stable_and_depends_on_secret_and_name() {
        let users = [(4096, 16)];
        let decoy = text(&authenticator(&users, 1), "nobody");
        assert_eq!(text(&authenticator(&users, 1), "nobody"), decoy);
        assert_ne!(text(&authenticator(&users, 2), "nobody"), decoy);
        assert_ne!(text(&authenticator(&users, 1), "nobody else"), decoy);
    }

    #[test]
    fn a_decoy_looks_like_most_users() {
        let shape = |users: &[(u32, usize)]| {
            let decoy = authenticator(users, 1).candidate(&"nobody".parse().unwrap()).verifier;
            (decoy.iterations().count(), decoy.salt().as_bytes().len())
        };
        assert_eq!(shape(&[]), (65_536, 16));
        assert_eq!(shape(&[(4096, 64), (5000, 16), (4096, 64)]), (4096, 64));
        assert_eq!(shape(&[(4096, 16), (5000, 16)]), (5000, 16));
    }
}
