//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's side (RFC 5802, RFC 7677).
//!
//! ```text
//! client-first -> Scram::start  -> server-first
//! client-final -> Scram::finish -> server-final
//! ```
//!
//! A name that nobody has goes the same way to the end and fails there as a wrong password does, so `unknown-user`
//! is never said. The server's proof is sent only after the client's was right.

mod message;
#[cfg(test)]
mod tests;

use data_encoding::BASE64;

use self::message::{BindingFlag, ClientFinal, ClientFirst};
use super::authenticator::{Authenticator, Candidate};
use super::channel::{Channel, Mechanism};
use super::users::User;

/// The server's part of a nonce: printable, unpredictable, and used once.
#[derive(PartialEq, Eq, Debug)]
pub struct ServerNonce(String);

impl ServerNonce {
    /// Bytes of entropy in it.
    pub const LEN: usize = 18;

    /// Takes bytes that the caller drew from the system's entropy for this login.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> ServerNonce {
        ServerNonce(BASE64.encode(&bytes))
    }
}

/// A server that has sent server-first and awaits client-final.
#[derive(Debug)]
pub(super) struct Scram {
    candidate: Candidate,
    /// What `c=` must say: the header of client-first and the channel's binding (RFC 5802, section 7).
    binding: String,
    /// What `r=` must say: both nonces.
    nonce: String,
    /// client-first-bare and server-first, joined as in AuthMessage.
    opening: String,
}

impl Scram {
    /// Takes client-first; gives server-first and the state that awaits client-final. Costs a few microseconds.
    pub(super) fn start(
        message: &[u8],
        plus: bool,
        channel: &Channel,
        authenticator: &Authenticator,
        nonce: ServerNonce,
    ) -> Result<(String, Scram), ScramError> {
        let first = ClientFirst::parse(message)?;
        let bound = bound_data(first.flag, plus, channel)?;
        if first.authzid.as_ref().is_some_and(|authzid| *authzid != first.name) {
            return Err(ScramError::Authzid);
        }
        let candidate = authenticator.candidate(&first.name);
        let nonce = format!("{}{}", first.nonce, nonce.0);
        let (salt, iterations) = (candidate.verifier.salt(), candidate.verifier.iterations());
        let server_first = format!("r={nonce},s={salt},i={}", iterations.count());
        let opening = format!("{},{server_first}", first.bare);
        let binding = BASE64.encode(&[first.gs2_header.as_bytes(), bound].concat());
        Ok((server_first, Scram { candidate, binding, nonce, opening }))
    }

    /// Takes client-final; gives server-final and who logged in. Costs a few microseconds.
    pub(super) fn finish(self, message: &[u8]) -> Result<(String, User), ScramError> {
        let last = ClientFinal::parse(message)?;
        if last.binding != self.binding {
            return Err(ScramError::BindingsDiffer);
        }
        if last.nonce != self.nonce {
            return Err(ScramError::Nonce);
        }
        let auth_message = format!("{},{}", self.opening, last.without_proof);
        let proven = self.candidate.verifier.verify_proof(&last.proof, auth_message.as_bytes());
        let user = self.candidate.user.filter(|_| proven).ok_or(ScramError::Proof)?;
        let signature = self.candidate.verifier.server_signature(auth_message.as_bytes());
        Ok((format!("v={}", BASE64.encode(&*signature)), user))
    }
}

/// The data to which the client must have bound its login: none without PLUS (RFC 5802, section 6).
fn bound_data<'a>(flag: BindingFlag<'_>, plus: bool, channel: &'a Channel) -> Result<&'a [u8], ScramError> {
    match (flag, plus) {
        (BindingFlag::Used(name), true) => channel.binding(name).ok_or(ScramError::BindingType),
        (BindingFlag::Used(_), false) => Err(ScramError::BindingWithoutPlus),
        (_, true) => Err(ScramError::BindingOffered),
        // The client did not see the PLUS that was sent: somebody on the way took it out of the list.
        (BindingFlag::NotSeen, false) if channel.offers(Mechanism::ScramSha256Plus) => {
            Err(ScramError::BindingOffered)
        }
        (BindingFlag::NotSeen | BindingFlag::None, false) => Ok(&[]),
    }
}

/// Why a SCRAM exchange failed. Each is the client's fault, or of somebody between it and this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A message breaks the grammar.
    #[error("a SCRAM message breaks the grammar (RFC 5802, section 7)")]
    Encoding,
    /// A mandatory extension is asked for; there are none.
    #[error("a SCRAM message asks for a mandatory extension")]
    Extension,
    /// The name is not of the form that SCRAM and SASLprep ask for.
    #[error("the user name is not encoded as SCRAM asks for")]
    UserName,
    /// One user asks to act as another.
    #[error("nobody may act as somebody else")]
    Authzid,
    /// The client binds the login to the channel but did not choose PLUS, maybe since it is not offered.
    #[error("channel binding needs the PLUS mechanism")]
    BindingWithoutPlus,
    /// The client binds the login to something that this channel does not have.
    #[error("this channel does not have the binding that the client uses")]
    BindingType,
    /// PLUS was offered and the client believes it was not, or it chose PLUS and binds to nothing.
    #[error("this server offers channel binding and the client does not use it")]
    BindingOffered,
    /// What the client bound the login to is not this channel.
    #[error("the login is bound to another channel, or its header was changed")]
    BindingsDiffer,
    /// The second message does not repeat both nonces.
    #[error("the client did not repeat the nonce")]
    Nonce,
    /// The password is wrong, or nobody has that name.
    #[error("wrong name or password")]
    Proof,
}

impl ScramError {
    /// What server-final says of it after `e=` (RFC 5802, section 7). This server ends the exchange instead, as
    /// section 5.1 allows, and uses it in logs.
    pub fn value(self) -> &'static str {
        match self {
            ScramError::Encoding => "invalid-encoding",
            ScramError::Extension => "extensions-not-supported",
            ScramError::UserName => "invalid-username-encoding",
            ScramError::Authzid | ScramError::Nonce => "other-error",
            ScramError::BindingWithoutPlus => "channel-binding-not-supported",
            ScramError::BindingType => "unsupported-channel-binding-type",
            ScramError::BindingOffered => "server-does-support-channel-binding",
            ScramError::BindingsDiffer => "channel-bindings-dont-match",
            ScramError::Proof => "invalid-proof",
        }
    }
}
