//! This replica's signatures of its own changes.
//!
//! It makes them when it sends changes, and keeps none: but for what it wrote under an earlier name, whose key is gone. Those
//! are local records of the log, and rows.

use std::collections::BTreeMap;

use super::ReplicaError;
use super::core::Core;
use super::identity::Identity;
use super::record::LocalRecord;
use crate::mailbox::ReplicaId;
use crate::member::{ChainHead, Signature};
use crate::store::{Change, Txn};
use crate::sync::MAX_QUEUED;
use crate::uid::{Table, TableError, Tables, TablesMut};

/// Followed by the name and the number of a change that this replica wrote under an earlier name: the signature.
const SIGNED: &[u8] = b"signed:";
const SIGNED_END: &[u8] = b"signed;";

/// Signs a change that this replica wrote under its present name.
pub(super) fn sign(identity: &Identity, change: &Change) -> Signature {
    let Identity { account, replica, key, .. } = identity;
    ChainHead { account: *account, replica: *replica, seq: change.seq, hash: change.hash }.sign(key)
}

/// Signs what this replica wrote, for those who get it when the key is gone: wherever a peer would want a signature.
pub(super) fn sign_all(core: &Core) -> Result<Vec<LocalRecord>, ReplicaError> {
    let (reader, replica) = (core.store.reader()?, core.identity.replica);
    let mut others = reader.vector()?;
    let last = others.remove(&replica);
    let (mut records, mut bytes) = (Vec::new(), 0);
    for change in reader.missing(&others)? {
        let change = change?;
        bytes += change.bytes.len();
        if bytes > MAX_QUEUED / 2 || Some(change.seq) == last {
            let signature = sign(&core.identity, &change);
            records.push(LocalRecord::Signed { replica, seq: change.seq, signature });
            bytes = 0;
        }
    }
    Ok(records)
}

/// Keeps one of them.
pub(super) fn keep(
    txn: &mut Txn<'_>,
    replica: ReplicaId,
    seq: u64,
    signature: &Signature,
) -> Result<(), TableError> {
    let key = [SIGNED, replica.as_bytes(), &seq.to_be_bytes()].concat();
    txn.put(Table::Meta, &key, signature.as_bytes())
}

/// Those that are kept, by author and number.
pub(super) fn kept(tables: &impl Tables) -> Result<BTreeMap<(ReplicaId, u64), Signature>, TableError> {
    let rows = tables.range(Table::Meta, SIGNED, SIGNED_END, usize::MAX)?;
    let signatures = rows.iter().filter_map(|(key, value)| {
        let (replica, seq) = key.strip_prefix(SIGNED)?.split_at_checked(16)?;
        let seq = u64::from_be_bytes(seq.try_into().ok()?);
        let signature = Signature::from_bytes(value.as_slice().try_into().ok()?);
        Some(((ReplicaId::from_slice(replica)?, seq), signature))
    });
    Ok(signatures.collect())
}
