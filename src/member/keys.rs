//! Ed25519 keys of replicas and endpoints.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::record::OfferId;

/// What precedes the seed in a PKCS#8 v1 document of an Ed25519 key (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// What precedes the key in a SubjectPublicKeyInfo of an Ed25519 key (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// An Ed25519 seed; its bytes are erased when it is dropped and never shown.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<[u8; 32]>);

impl SecretKey {
    /// Takes 32 bytes that the caller drew from the system's entropy.
    pub fn from_seed(seed: [u8; 32]) -> SecretKey {
        SecretKey(Zeroizing::new(seed))
    }

    /// The seed, to be stored.
    pub fn seed(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key that others know; costs about 20 µs.
    pub fn public(&self) -> PublicKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair().public_key().as_ref());
        PublicKey(key)
    }

    /// The name of the endpoint that has this key.
    pub fn peer_id(&self) -> PeerId {
        PeerId(self.public())
    }

    /// Signs `message`, whose first bytes must say what it is, so that no signature serves two purposes.
    pub fn sign(&self, message: &[u8]) -> Signature {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair().sign(message).as_ref());
        Signature(signature)
    }

    /// The secret of an offer that this replica made. It is derived, so an inviter has nothing to store.
    pub fn ticket_secret(&self, offer: OfferId) -> TicketSecret {
        let key = Zeroizing::new(blake3::derive_key("postmerge 1 ticket secret", self.seed()));
        let hash = blake3::keyed_hash(&key, offer.as_bytes());
        let mut secret = [0; 16];
        secret.copy_from_slice(&hash.as_bytes()[..16]);
        TicketSecret::from_bytes(secret)
    }

    /// The key as PKCS#8 v1, as TLS libraries want it.
    pub fn pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let mut document = Zeroizing::new(Vec::with_capacity(PKCS8_PREFIX.len() + self.0.len()));
        document.extend_from_slice(&PKCS8_PREFIX);
        document.extend_from_slice(self.seed());
        document
    }

    fn pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(self.seed()).expect("every 32 bytes are an Ed25519 seed")
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Takes the 32 bytes of a key. Bytes that are no key verify nothing.
    pub const fn from_bytes(bytes: [u8; 32]) -> PublicKey {
        PublicKey(bytes)
    }

    /// The 32 bytes of the key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether the owner of this key signed `message`; costs about 60 µs.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, &signature.0).is_ok()
    }

    /// The key as a SubjectPublicKeyInfo, as TLS carries a raw public key (RFC 7250).
    pub fn spki(&self) -> Vec<u8> {
        [&SPKI_PREFIX[..], &self.0].concat()
    }

    /// Takes an Ed25519 key from a SubjectPublicKeyInfo; nothing for any other kind of key.
    pub fn from_spki(spki: &[u8]) -> Option<PublicKey> {
        spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(PublicKey)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", data_encoding::HEXLOWER.encode(&self.0[..6]))
    }
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Takes the 64 bytes of a signature.
    pub const fn from_bytes(bytes: [u8; 64]) -> Signature {
        Signature(bytes)
    }

    /// The 64 bytes of the signature.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

/// Names an endpoint by its public key; shown as 52 letters and digits (base32).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(PublicKey);

impl PeerId {
    /// The endpoint that has `key`.
    pub const fn new(key: PublicKey) -> PeerId {
        PeerId(key)
    }

    /// The endpoint's key.
    pub const fn key(&self) -> &PublicKey {
        &self.0
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", &self.to_string()[..8])
    }
}

impl FromStr for PeerId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<PeerId, KeyError> {
        let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| KeyError)?;
        bytes.try_into().map(|key| PeerId(PublicKey(key))).map_err(|_| KeyError)
    }
}

/// A text does not name an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an endpoint's name is 52 letters and digits (base32)")]
pub struct KeyError;

/// What proves that somebody holds a ticket; 128 bits, erased when dropped and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketSecret(Zeroizing<[u8; 16]>);

impl TicketSecret {
    /// Takes the 16 bytes of a secret.
    pub fn from_bytes(bytes: [u8; 16]) -> TicketSecret {
        TicketSecret(Zeroizing::new(bytes))
    }

    /// The secret itself, to be written into a ticket.
    pub fn expose(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_bind_key_and_message() {
        let (ours, other) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
        let signature = ours.sign(b"message");
        assert!(ours.public().verify(b"message", &signature));
        assert!(!ours.public().verify(b"massage", &signature));
        assert!(!other.public().verify(b"message", &signature));
    }

    #[test]
    fn encodings_come_back() {
        let key = SecretKey::from_seed([7; 32]);
        assert_eq!(PublicKey::from_spki(&key.public().spki()), Some(key.public()));
        assert_eq!(PublicKey::from_spki(&key.public().spki()[1..]), None);
        assert_eq!(key.peer_id().to_string().len(), 52);
        assert_eq!(key.peer_id().to_string().parse(), Ok(key.peer_id()));
        assert_eq!("short".parse::<PeerId>(), Err(KeyError));
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key.pkcs8()).unwrap();
        assert_eq!(pair.public_key().as_ref(), key.public().as_bytes());
    }

    #[test]
    fn secrets_are_not_shown() {
        let key = SecretKey::from_seed([0xab; 32]);
        let secret = key.ticket_secret(OfferId::from_bytes([1; 16]));
        assert_eq!(format!("{key:?} {secret:?}"), "SecretKey(..) TicketSecret(..)");
        assert_ne!(secret, key.ticket_secret(OfferId::from_bytes([2; 16])));
    }
}
