//! What a connection protects, hence how one may log in over it.

use std::fmt;
use std::str::FromStr;

/// A SASL mechanism of this server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mechanism {
    /// SCRAM-SHA-256 bound to the TLS connection (RFC 7677).
    ScramSha256Plus,
    /// SCRAM-SHA-256 (RFC 7677).
    ScramSha256,
    /// PLAIN (RFC 4616).
    Plain,
}

impl Mechanism {
    /// Its registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::Plain => "PLAIN",
        }
    }

    /// What CAPABILITY says of it (RFC 9051, section 7.2.2).
    pub fn capability(self) -> &'static str {
        match self {
            Mechanism::ScramSha256Plus => "AUTH=SCRAM-SHA-256-PLUS",
            Mechanism::ScramSha256 => "AUTH=SCRAM-SHA-256",
            Mechanism::Plain => "AUTH=PLAIN",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name is no mechanism of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such mechanism")]
pub struct UnknownMechanism;

impl FromStr for Mechanism {
    type Err = UnknownMechanism;

    /// Takes a mechanism's name in any case of letters (RFC 9051, section 6.2.2).
    fn from_str(name: &str) -> Result<Mechanism, UnknownMechanism> {
        [Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain]
            .into_iter()
            .find(|mechanism| mechanism.as_str().eq_ignore_ascii_case(name))
            .ok_or(UnknownMechanism)
    }
}

/// What the connection of a client protects, told by the listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Channel {
    /// Everyone on the way can read along.
    Clear {
        /// Whether passwords may cross all the same: on a loopback address or a Unix socket.
        passwords: bool,
    },
    /// TLS protects it.
    Tls(Bindings),
}

impl Channel {
    /// Whether AUTHENTICATE takes `mechanism` here.
    pub fn offers(&self, mechanism: Mechanism) -> bool {
        match (mechanism, self) {
            (Mechanism::ScramSha256Plus, Channel::Clear { .. }) => false,
            (Mechanism::ScramSha256Plus, Channel::Tls(bindings)) => bindings != &Bindings::default(),
            (Mechanism::ScramSha256, _) => true,
            (Mechanism::Plain, Channel::Clear { passwords }) => *passwords,
            (Mechanism::Plain, Channel::Tls(_)) => true,
        }
    }

    /// Whether LOGIN is taken here: wherever PLAIN is.
    pub fn offers_login(&self) -> bool {
        self.offers(Mechanism::Plain)
    }

    /// What CAPABILITY says before login, the strongest mechanism first: each AUTH= and maybe LOGINDISABLED.
    pub fn capabilities(&self) -> impl Iterator<Item = &'static str> {
        [Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain]
            .into_iter()
            .filter(|mechanism| self.offers(*mechanism))
            .map(Mechanism::capability)
            .chain((!self.offers_login()).then_some("LOGINDISABLED"))
    }

    /// The data of a channel binding by its registered name, if this connection has it.
    pub(super) fn binding(&self, name: &str) -> Option<&[u8]> {
        match (self, name) {
            (Channel::Tls(bindings), "tls-exporter") => bindings.exporter.as_ref().map(|bytes| &bytes[..]),
            (Channel::Tls(bindings), "tls-server-end-point") => bindings.server_end_point.as_deref(),
            _ => None,
        }
    }
}

/// What is unique to a TLS connection, to which SCRAM-SHA-256-PLUS binds a login.
///
/// `tls-unique` is not here: TLS 1.3 does not have it (RFC 9266).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Bindings {
    /// `tls-exporter` (RFC 9266): 32 bytes of exported keying material, label `EXPORTER-Channel-Binding`, an empty
    /// context. Only for TLS 1.3, or for TLS 1.2 with the extended master secret.
    pub exporter: Option<[u8; 32]>,
    /// `tls-server-end-point` (RFC 5929, section 4): the hash of the certificate that was sent, by the hash function
    /// of its signature, or SHA-256 for MD5 and SHA-1. None where the signature has no such function (Ed25519).
    pub server_end_point: Option<Box<[u8]>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_advertised_is_what_is_taken() {
        let exporter = Bindings { exporter: Some([0; 32]), ..Bindings::default() };
        let end_point = Bindings { server_end_point: Some([0; 48].into()), ..Bindings::default() };
        let plus = "AUTH=SCRAM-SHA-256-PLUS AUTH=SCRAM-SHA-256 AUTH=PLAIN";
        for (channel, advertised) in [
            (Channel::Clear { passwords: false }, "AUTH=SCRAM-SHA-256 LOGINDISABLED"),
            (Channel::Clear { passwords: true }, "AUTH=SCRAM-SHA-256 AUTH=PLAIN"),
            (Channel::Tls(Bindings::default()), "AUTH=SCRAM-SHA-256 AUTH=PLAIN"),
            (Channel::Tls(exporter), plus),
            (Channel::Tls(end_point), plus),
        ] {
            let said: Vec<_> = channel.capabilities().collect();
            assert_eq!(said.join(" "), advertised, "{channel:?}");
            assert_eq!(channel.offers_login(), !said.contains(&"LOGINDISABLED"));
            for name in ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN"] {
                let taken = channel.offers(name.parse().unwrap());
                assert_eq!(taken, said.contains(&&*format!("AUTH={name}")), "{name} over {channel:?}");
            }
        }
    }

    #[test]
    fn names_are_read_in_any_case() {
        assert_eq!("plain".parse(), Ok(Mechanism::Plain));
        assert_eq!("Scram-sha-256-plus".parse(), Ok(Mechanism::ScramSha256Plus));
        for name in ["", "LOGIN", "SCRAM-SHA-1", "SCRAM-SHA-256 ", "PLAIN\0"] {
            assert_eq!(name.parse::<Mechanism>(), Err(UnknownMechanism), "{name:?}");
        }
    }
}
