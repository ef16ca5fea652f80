//! Bodies that were owed, and a power cut after the import that brought them.

use std::sync::Arc;

use super::*;
use crate::blob::BlobId;
use crate::member::{Body, MemberName, Members, Record, Role, SecretKey};
use crate::replica::identity::Identity;
use crate::store::Store;
use crate::store::disk::Disk;
use crate::store::disk::fault::Fault;
use crate::uid::Block;

const BODY: &[u8] = b"Subject: owed\n\n";

fn founded(store: Store) -> Replica {
    let (replica, key) = (crate::mailbox::ReplicaId::from_bytes([1; 16]), SecretKey::from_seed([1; 32]));
    let body = Body::Found {
        salt: [1; 16],
        block: Block::STANDARD,
        endpoint: key.peer_id(),
        name: MemberName::new("first").unwrap(),
        role: Role::Server,
    };
    let record = Record::sign(replica, &key, &[], &body).unwrap();
    let account = record.account().unwrap();
    let members = Members::fold(account, vec![record]).unwrap();
    let identity = Identity { account, replica, key, instance: store.instance(), succession: None };
    Replica::start(store, identity, members, None).unwrap()
}

#[test]
fn owed_bodies_that_an_import_brings_are_told_and_outlive_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let fault = Arc::new(Fault::after(u64::MAX));
    let replica = founded(Store::create_on(dir.path(), Disk::stopped_by(fault.clone())).unwrap());
    let blob = BlobId::of(BODY);
    let owed = Message { blob, internal_date: 5, size: BODY.len() as u64, keywords: BTreeSet::new() };
    replica
        .change(|account, txn| Ok(((), account.append(txn, now(), MailboxId::inbox(), vec![owed])?.1)))
        .unwrap();
    let mut look = 0;
    assert_eq!(replica.arrived_since(&mut look), Some(Vec::new()));

    let mut importer = replica.import(&MailboxName::inbox(), None, false, false).unwrap();
    importer.add(ImportMessage { internal_date: 5, keywords: BTreeSet::new(), uid: None }, BODY).unwrap();
    let report = importer.finish().unwrap();
    assert_eq!((report.imported, report.known, report.bodies), (0, 1, 1));
    fault.stop_now();
    let told = replica.arrived_since(&mut look);
    drop(replica);
    fault.lose_unsynced();
    let store = Store::open(dir.path()).unwrap();
    assert!(store.handle().bodies().contains(blob).unwrap(), "the body was not durable");
    assert_eq!(told, Some(vec![blob]));
}
