//! One AUTHENTICATE command, whatever its mechanism (RFC 9051, section 6.2.2).

use data_encoding::BASE64;
use zeroize::Zeroizing;

use super::authenticator::Authenticator;
use super::channel::{Channel, Mechanism};
use super::plain::Plain;
use super::scram::{Scram, ScramError, ServerNonce};
use super::users::User;

/// Longest response in bytes, decoded: two names and a password of their greatest lengths, SCRAM's nonces and a
/// channel binding need less than half of it.
pub const MAX_RESPONSE_LEN: usize = 4096;

/// An exchange that awaits the client's next line. A session drives it so:
///
/// 1. `AUTHENTICATE mechanism [initial-response]` becomes [`Sasl::start`].
/// 2. At [`Step::Challenge`] send `+ `, its line and CRLF; hand the client's next line to [`Sasl::respond`]; again 2.
/// 3. At [`Step::Done`] answer OK; at [`Step::Failed`] answer what [`Failure::answer`] says.
///
/// A step of PLAIN takes as long as [`super::Iterations`] tells; run it where it stops no other connection.
#[derive(Debug)]
pub struct Sasl(State);

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Send a challenge and go on with what the client answers.
    Challenge {
        /// The challenge in base64, maybe empty.
        line: String,
        /// What takes the answer.
        next: Sasl,
    },
    /// This user has logged in.
    Done(User),
    /// The client is not logged in.
    Failed(Failure),
}

#[derive(Debug)]
enum State {
    /// The mechanism was chosen without an initial response.
    First(First),
    /// server-first was sent.
    ScramFinal(Scram),
    /// server-final was sent; IMAP's OK cannot carry it, so the client answers it with an empty line.
    ScramDone(User),
}

#[derive(Debug)]
struct First {
    mechanism: Mechanism,
    channel: Channel,
    nonce: ServerNonce,
}

impl Sasl {
    /// Takes the arguments of AUTHENTICATE: `initial` is the initial response as it was sent, `=` for an empty one
    /// (RFC 4959). `nonce` is drawn anew for each call.
    pub fn start(
        mechanism: Mechanism,
        initial: Option<&[u8]>,
        channel: &Channel,
        authenticator: &Authenticator,
        nonce: ServerNonce,
    ) -> Step {
        if !channel.offers(mechanism) {
            return Step::Failed(Failure::NotOffered { mechanism });
        }
        let first = First { mechanism, channel: channel.clone(), nonce };
        match initial {
            None => Step::Challenge { line: String::new(), next: Sasl(State::First(first)) },
            Some(b"=") => first.take(b"", authenticator).unwrap_or_else(Step::Failed),
            Some(initial) => decode(initial)
                .and_then(|message| first.take(&message, authenticator))
                .unwrap_or_else(Step::Failed),
        }
    }

    /// Takes the client's answer to a challenge: a line without its CRLF, `*` to give up.
    pub fn respond(self, line: &[u8], authenticator: &Authenticator) -> Step {
        self.take(line, authenticator).unwrap_or_else(Step::Failed)
    }

    fn take(self, line: &[u8], authenticator: &Authenticator) -> Result<Step, Failure> {
        if line == b"*" {
            return Err(Failure::Cancelled);
        }
        let message = decode(line)?;
        match self.0 {
            State::First(first) => first.take(&message, authenticator),
            State::ScramFinal(scram) => {
                let (server_final, user) = scram.finish(&message)?;
                Ok(challenge(&server_final, State::ScramDone(user)))
            }
            State::ScramDone(user) if message.is_empty() => Ok(Step::Done(user)),
            State::ScramDone(_) => Err(Failure::Malformed),
        }
    }
}

impl First {
    fn take(self, message: &[u8], authenticator: &Authenticator) -> Result<Step, Failure> {
        let plus = match self.mechanism {
            Mechanism::Plain => return plain(message, authenticator),
            Mechanism::ScramSha256 => false,
            Mechanism::ScramSha256Plus => true,
        };
        let (server_first, scram) = Scram::start(message, plus, &self.channel, authenticator, self.nonce)?;
        Ok(challenge(&server_first, State::ScramFinal(scram)))
    }
}

fn plain(message: &[u8], authenticator: &Authenticator) -> Result<Step, Failure> {
    let plain = Plain::parse(message).ok_or(Failure::Malformed)?;
    // Before the password: the answer depends on nothing but the message, so it tells nothing.
    if plain.authzid.is_some_and(|authzid| authzid != plain.name) {
        return Err(Failure::Authzid);
    }
    authenticator.check_password(&plain.name, plain.password).map(Step::Done).ok_or(Failure::Credentials)
}

fn challenge(message: &str, next: State) -> Step {
    Step::Challenge { line: BASE64.encode(message.as_bytes()), next: Sasl(next) }
}

fn decode(line: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // Longer lines decode to more, so they need not be decoded; what is left is measured.
    if line.len() > BASE64.encode_len(MAX_RESPONSE_LEN) {
        return Err(Failure::TooLong);
    }
    let message = Zeroizing::new(BASE64.decode(line).map_err(|_| Failure::Base64)?);
    if message.len() > MAX_RESPONSE_LEN { Err(Failure::TooLong) } else { Ok(message) }
}

/// Why an AUTHENTICATE command did not log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The client gave up.
    #[error("the client gave up")]
    Cancelled,
    /// The mechanism is not offered on this connection.
    #[error("{mechanism} is not offered on this connection")]
    NotOffered {
        /// The mechanism.
        mechanism: Mechanism,
    },
    /// A response is longer than [`MAX_RESPONSE_LEN`].
    #[error("a response is longer than {MAX_RESPONSE_LEN} bytes")]
    TooLong,
    /// A response is not in base64.
    #[error("a response is not in base64 (RFC 4648, section 4)")]
    Base64,
    /// A response is no message of its mechanism, or names somebody that nobody can be.
    #[error("a response is no message of its mechanism")]
    Malformed,
    /// One user asks to act as another.
    #[error("nobody may act as somebody else")]
    Authzid,
    /// The password is wrong, or nobody has that name.
    #[error("wrong name or password")]
    Credentials,
    /// SCRAM failed.
    #[error(transparent)]
    Scram(#[from] ScramError),
}

impl Failure {
    /// How IMAP answers it.
    pub fn answer(self) -> Answer {
        match self {
            Failure::Cancelled | Failure::TooLong | Failure::Base64 => Answer::Bad,
            Failure::NotOffered { mechanism: Mechanism::Plain } => Answer::PrivacyRequired,
            Failure::NotOffered { .. } => Answer::No,
            Failure::Authzid | Failure::Scram(ScramError::Authzid) => Answer::AuthorizationFailed,
            Failure::Malformed | Failure::Credentials | Failure::Scram(_) => Answer::AuthenticationFailed,
        }
    }
}

/// The tagged response to a failed AUTHENTICATE (RFC 9051, sections 6.2.2 and 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// BAD.
    Bad,
    /// NO without a code.
    No,
    /// NO with AUTHENTICATIONFAILED.
    AuthenticationFailed,
    /// NO with AUTHORIZATIONFAILED.
    AuthorizationFailed,
    /// NO with PRIVACYREQUIRED.
    PrivacyRequired,
}

#[cfg(test)]
mod tests;
