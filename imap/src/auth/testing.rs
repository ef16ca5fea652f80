//! Users for the tests of the mechanisms.

use data_encoding::BASE64;

use super::{Authenticator, DecoySecret, Iterations, Salt, User, Users, Verifier};

/// The user of RFC 7677, section 3, and one whose name SCRAM must escape; both have the password `pencil`.
pub(super) fn authenticator() -> Authenticator {
    let mut users = Users::default();
    for name in ["user", "a,b=c"] {
        let salt = Salt::new(BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap()).unwrap();
        let verifier = Verifier::derive(b"pencil", salt, Iterations::new(4096).unwrap()).unwrap();
        users.insert(User::new(name.parse().unwrap(), "/mail").unwrap(), verifier);
    }
    Authenticator::new(users, DecoySecret::from_bytes([9; 32]))
}
