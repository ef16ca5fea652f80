//! What a replica signs of its own changes.
//!
//! A change names by hash what it follows, and a replica's changes each follow the one before. So one signature of the last
//! change vouches for all that the replica wrote, and whoever passes changes on can neither forge nor leave out any.

use super::keys::{PublicKey, SecretKey, Signature};
use crate::mailbox::{AccountId, ReplicaId};

/// Signed bytes begin with this, so that no other signature of a replica can be passed off as one of its changes.
const DOMAIN: &[u8] = b"postmerge 1 change\0";

/// One change of a replica: the end of its chain for whoever signs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChainHead {
    /// The account whose document it changes.
    pub account: AccountId,
    /// Its author.
    pub replica: ReplicaId,
    /// Its number among the author's changes, from 1.
    pub seq: u64,
    /// Its Automerge hash.
    pub hash: [u8; 32],
}

impl ChainHead {
    /// Signs it with its author's key; costs about 40 µs.
    pub fn sign(&self, key: &SecretKey) -> Signature {
        key.sign(&self.message())
    }

    /// Whether the owner of `key` signed it; costs about 60 µs.
    pub fn is_signed(&self, key: &PublicKey, signature: &Signature) -> bool {
        key.verify(&self.message(), signature)
    }

    fn message(&self) -> Vec<u8> {
        let seq = self.seq.to_be_bytes();
        [DOMAIN, self.account.as_bytes(), self.replica.as_bytes(), &seq, &self.hash].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_about_one_change_of_one_account() {
        let key = SecretKey::from_seed([1; 32]);
        let (account, replica) = (AccountId::from_bytes([2; 16]), ReplicaId::from_bytes([3; 16]));
        let head = ChainHead { account, replica, seq: 7, hash: [4; 32] };
        let signature = head.sign(&key);
        assert!(head.is_signed(&key.public(), &signature));
        let others = [
            ChainHead { account: AccountId::from_bytes([9; 16]), ..head },
            ChainHead { replica: ReplicaId::from_bytes([9; 16]), ..head },
            ChainHead { seq: 8, ..head },
            ChainHead { hash: [9; 32], ..head },
        ];
        assert!(others.iter().all(|other| !other.is_signed(&key.public(), &signature)));
        assert!(!head.is_signed(&SecretKey::from_seed([9; 32]).public(), &signature));
    }
}
