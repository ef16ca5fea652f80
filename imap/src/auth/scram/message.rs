//! The messages of a SCRAM client (RFC 5802, section 7).

use data_encoding::BASE64;

use super::ScramError;
use crate::auth::user_name::UserName;
use crate::auth::verifier::KEY_LEN;

/// What a client says of channel binding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BindingFlag<'a> {
    /// `n`: it has none.
    None,
    /// `y`: it has one, but saw no PLUS on offer.
    NotSeen,
    /// `p=`: it uses the binding of this name.
    Used(&'a str),
}

/// client-first-message.
#[derive(Debug)]
pub(super) struct ClientFirst<'a> {
    pub(super) flag: BindingFlag<'a>,
    pub(super) authzid: Option<UserName>,
    pub(super) name: UserName,
    pub(super) nonce: &'a str,
    /// The header as it was sent, with its last comma.
    pub(super) gs2_header: &'a str,
    /// All after the header.
    pub(super) bare: &'a str,
}

impl<'a> ClientFirst<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<ClientFirst<'a>, ScramError> {
        let text = text(message)?;
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(ScramError::Encoding);
        };
        let flag = match flag.strip_prefix("p=") {
            Some(name) if is_binding_name(name) => BindingFlag::Used(name),
            None if flag == "n" => BindingFlag::None,
            None if flag == "y" => BindingFlag::NotSeen,
            _ => return Err(ScramError::Encoding),
        };
        let authzid = match authzid {
            "" => None,
            authzid => Some(user_name(authzid.strip_prefix("a=").ok_or(ScramError::Encoding)?)?),
        };

        let mut attributes = bare.split(',');
        let name = user_name(attribute(attributes.next(), "n=")?)?;
        let nonce = attribute(attributes.next(), "r=")?;
        if nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ScramError::Encoding);
        }
        check_extensions(attributes)?;
        Ok(ClientFirst { flag, authzid, name, nonce, gs2_header: &text[..text.len() - bare.len()], bare })
    }
}

/// client-final-message.
#[derive(Debug)]
pub(super) struct ClientFinal<'a> {
    /// What follows `c=`: valid base64, not decoded.
    pub(super) binding: &'a str,
    pub(super) nonce: &'a str,
    pub(super) proof: [u8; KEY_LEN],
    /// All before the comma that precedes the proof.
    pub(super) without_proof: &'a str,
}

impl<'a> ClientFinal<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<ClientFinal<'a>, ScramError> {
        let (without_proof, proof) = text(message)?.rsplit_once(",p=").ok_or(ScramError::Encoding)?;
        let proof = BASE64.decode(proof.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        let mut attributes = without_proof.split(',');
        let binding = attribute(attributes.next(), "c=")?;
        BASE64.decode(binding.as_bytes()).map_err(|_| ScramError::Encoding)?;
        let nonce = attribute(attributes.next(), "r=")?;
        check_extensions(attributes)?;
        Ok(ClientFinal { binding, nonce, proof: proof.ok_or(ScramError::Encoding)?, without_proof })
    }
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    let text = std::str::from_utf8(message).map_err(|_| ScramError::Encoding)?;
    if text.contains('\0') { Err(ScramError::Encoding) } else { Ok(text) }
}

/// The value of an attribute that must stand here.
fn attribute<'a>(part: Option<&'a str>, name: &str) -> Result<&'a str, ScramError> {
    let part = part.ok_or(ScramError::Encoding)?;
    if part.starts_with("m=") {
        return Err(ScramError::Extension);
    }
    part.strip_prefix(name).ok_or(ScramError::Encoding)
}

/// Optional extensions are passed over, as section 5.1 asks for.
fn check_extensions<'a>(attributes: impl Iterator<Item = &'a str>) -> Result<(), ScramError> {
    for part in attributes {
        match part.as_bytes() {
            [b'm', b'=', ..] => return Err(ScramError::Extension),
            [name, b'=', _, ..] if name.is_ascii_alphabetic() => {}
            _ => return Err(ScramError::Encoding),
        }
    }
    Ok(())
}

/// Reads a saslname, in which `=2C` is a comma and `=3D` an equals sign.
fn user_name(encoded: &str) -> Result<UserName, ScramError> {
    let mut pieces = encoded.split('=');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (sign, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(ScramError::UserName),
        };
        name.push(sign);
        name.push_str(rest);
    }
    name.parse().map_err(|_| ScramError::UserName)
}

/// Letters, digits, `.` and `-` (RFC 5056, section 7).
fn is_binding_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
}
