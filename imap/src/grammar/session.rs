//! Commands about the session: who is there and what is spoken.

use std::fmt;

use data_encoding::BASE64;

use super::command::CommandBody;
use super::error::{Fault, Parsed, Problem};
use super::scanner::Scanner;

/// Octets that no log may hold: a password or a SASL message.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the octets.
    pub fn new(octets: Vec<u8>) -> Secret {
        Secret(octets)
    }

    /// The octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the client's line in the course of AUTHENTICATE; nothing if it is not base64. The line `*`, which
    /// cancels, is not base64 either: look for it first.
    pub fn from_base64(line: &[u8]) -> Option<Secret> {
        BASE64.decode(line).ok().map(Secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A SASL mechanism, in upper case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mechanism(Box<str>);

impl Mechanism {
    /// The registered name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// An extension that has to be enabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Extension {
    /// CONDSTORE (RFC 7162)
    Condstore,
    /// QRESYNC (RFC 7162)
    Qresync,
    /// IMAP4rev2 (RFC 9051)
    Imap4rev2,
    /// UTF8=ACCEPT (RFC 6855)
    Utf8Accept,
    /// UIDONLY (RFC 9586)
    UidOnly,
}

impl Extension {
    const ALL: [Extension; 5] = [
        Extension::Condstore,
        Extension::Qresync,
        Extension::Imap4rev2,
        Extension::Utf8Accept,
        Extension::UidOnly,
    ];

    /// The capability's name.
    pub const fn name(self) -> &'static str {
        match self {
            Extension::Condstore => "CONDSTORE",
            Extension::Qresync => "QRESYNC",
            Extension::Imap4rev2 => "IMAP4rev2",
            Extension::Utf8Accept => "UTF8=ACCEPT",
            Extension::UidOnly => "UIDONLY",
        }
    }
}

pub(super) fn authenticate(scanner: &mut Scanner<'_>) -> Parsed<CommandBody> {
    scanner.space()?;
    let mechanism = Mechanism(scanner.atom("a SASL mechanism")?.to_ascii_uppercase().into());
    let mut initial_response = None;
    if scanner.eat(b' ') {
        let at = scanner.at();
        let what = "base64 or \"=\"";
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        let text = scanner.text(what, is_base64)?;
        if text != "=" && BASE64.decode(text.as_bytes()).is_err() {
            return Err(Fault { at, problem: Problem::Expected(what) });
        }
        initial_response = Some(Secret(text.as_bytes().to_vec()));
    }
    Ok(CommandBody::Authenticate { mechanism, initial_response })
}

pub(super) fn login(scanner: &mut Scanner<'_>) -> Parsed<CommandBody> {
    scanner.space()?;
    let user = scanner.astring("a user name")?.into_owned();
    scanner.space()?;
    let password = Secret(scanner.astring("a password")?.into_owned());
    Ok(CommandBody::Login { user, password })
}

pub(super) fn compress(scanner: &mut Scanner<'_>) -> Parsed<CommandBody> {
    scanner.space()?;
    if scanner.eat_word("DEFLATE") { Ok(CommandBody::Compress) } else { Err(scanner.expected("DEFLATE")) }
}

pub(super) fn enable(scanner: &mut Scanner<'_>) -> Parsed<CommandBody> {
    let mut extensions = Vec::new();
    loop {
        scanner.space()?;
        let name = scanner.atom("a capability")?;
        let known = Extension::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(name));
        extensions.extend(known.filter(|known| !extensions.contains(known)));
        if scanner.at_end() {
            return Ok(CommandBody::Enable(extensions));
        }
    }
}

pub(super) fn id(scanner: &mut Scanner<'_>) -> Parsed<CommandBody> {
    scanner.space()?;
    if scanner.eat_word("NIL") {
        return Ok(CommandBody::Id(Vec::new()));
    }
    let fields = scanner.list_or_empty(|scanner| {
        let field = scanner.string("the name of an ID field")?.into_owned();
        scanner.space()?;
        let value = scanner.nstring("the value of an ID field")?;
        Ok((field, value.map(|value| value.into_owned())))
    })?;
    Ok(CommandBody::Id(fields))
}
