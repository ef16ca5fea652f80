//! What opening costs after a crash.

use std::path::Path;

use super::*;
use crate::mailbox::MailboxName;
use crate::member::{MemberName, SecretKey};
use crate::replica::{Founding, Replica, members};

fn founded(dir: &Path) -> Replica {
    let founding = Founding {
        role: Role::Server,
        name: MemberName::new("first").unwrap(),
        block: Block::STANDARD,
        endpoint: SecretKey::from_seed([1; 32]).peer_id(),
    };
    Replica::found(dir, None, &founding).unwrap()
}

/// What a power cut leaves of an open store: all that was synced. The index's last commits were not.
fn power_cut(dir: &Path) -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    for sub in ["", "log", "bodies", "bodies/large", "bodies/partial", "bodies/tmp"] {
        std::fs::create_dir_all(image.path().join(sub)).unwrap();
        for entry in std::fs::read_dir(dir.join(sub)).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), image.path().join(sub).join(entry.file_name())).unwrap();
            }
        }
    }
    image
}

#[test]
fn after_a_power_cut_no_more_is_read_than_came_since_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let replica = founded(dir.path());
    let inbox: MailboxName = "INBOX".parse().unwrap();
    let append = |text: &str| {
        replica.append(&inbox, text.as_bytes(), Default::default(), Some(0)).unwrap();
    };
    for n in 0..40 {
        append(&format!("Subject: {n}\n\n"));
    }
    let logged = replica.with(|core| Ok(core.since_snapshot)).unwrap();
    // Both kept snapshots are newer than what the index made durable by itself.
    for _ in 0..2 {
        replica.with(Core::snapshot).unwrap();
        append("Subject: later\n\n");
    }
    let since = replica.with(|core| Ok(core.since_snapshot)).unwrap();
    assert!(since * 10 < logged, "{since} bytes since the snapshot, {logged} before");

    let image = power_cut(dir.path());
    let store = Store::open(image.path()).unwrap();
    let behind = store.position().0 - store.reader().unwrap().position().0;
    assert_eq!(behind, 1, "the index is behind by what came after the snapshot");
    let identity = Identity::read(image.path()).unwrap();
    let members = members::read(image.path(), identity.account).unwrap();
    let watch = Watch::new(None, &identity);
    let core = Core::open(store, identity, members, watch).unwrap();
    // Counts the bytes of changes that were read behind the snapshot; nothing for those that were replayed.
    assert_eq!(core.since_snapshot, 0);
    let expected = replica.with(|core| Core::heads(&core.store.reader()?)).unwrap();
    assert_eq!(Core::heads(&core.store.reader().unwrap()).unwrap(), expected);
}
