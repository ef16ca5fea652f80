//! Who may log in: users, their verifiers, and the SASL mechanisms that check them.
//!
//! Everything here is pure: entropy and time are arguments, files are texts. What it keeps true:
//!
//! - No password is stored. A [`Verifier`] can check one but not tell it.
//! - A name that nobody has costs as much and looks the same as one with a wrong password; see [`Authenticator`].
//! - What CAPABILITY advertises is what AUTHENTICATE and LOGIN accept: both ask [`Channel`].
//! - A state is consumed by the next one, so no answer is checked twice and no nonce serves twice.
//!
//! | module | what it is |
//! |---|---|
//! | `verifier`, `parameters` | SCRAM-SHA-256 keys of a password, as one line of text; iterations and salt |
//! | `users` | the file of the users of this machine |
//! | `authenticator` | users, and decoys for names that nobody has |
//! | `channel` | what a connection protects, hence which mechanisms it offers |
//! | `plain`, `scram` | the two mechanisms (RFC 4616; RFC 5802 and 7677) |
//! | `sasl` | one AUTHENTICATE command, whatever its mechanism |
//! | `attempts` | how failed logins slow a connection down and end it |

mod attempts;
mod authenticator;
mod channel;
mod parameters;
mod plain;
mod sasl;
mod scram;
#[cfg(test)]
mod testing;
mod user_name;
mod users;
mod verifier;

pub use attempts::{Attempts, MAX_DELAY, MAX_FAILURES, Penalty};
pub use authenticator::{Authenticator, DecoySecret};
pub use channel::{Bindings, Channel, Mechanism, UnknownMechanism};
pub use parameters::{Iterations, IterationsError, Salt, SaltError};
pub use sasl::{Answer, Failure, MAX_RESPONSE_LEN, Sasl, Step};
pub use scram::{ScramError, ServerNonce};
pub use user_name::{UserName, UserNameError};
pub use users::{LineError, User, UserError, Users, UsersError};
pub use verifier::{MAX_PASSWORD_LEN, PasswordError, Verifier, VerifierError};
