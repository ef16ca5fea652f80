//! What the simulator found, as small as it gets.

use postmerge::member::Role;

use crate::pair::{Home, copy_dir, name, pump};

#[test]
fn a_backup_that_is_put_back_twice_never_shows_a_uid_validity_again() {
    let mut home = Home::found(Role::Server);
    home.append("INBOX", "Subject: old\n\n");
    home.shut();
    let backup = tempfile::TempDir::new().unwrap();
    copy_dir(&home.store(), backup.path());
    let mut shown = Vec::new();
    for subject in ["before", "between", "after"] {
        home.open();
        home.append("INBOX", &format!("Subject: {subject}\n\n"));
        shown.push(home.replica.mailbox(&name("INBOX")).unwrap().uid_validity);
        home.shut();
        std::fs::remove_dir_all(home.store()).unwrap();
        copy_dir(backup.path(), &home.store());
    }
    assert!(shown.is_sorted_by(|earlier, later| earlier < later), "{shown:?}");
}

#[test]
fn who_joins_while_a_conversation_begins_is_introduced_before_its_changes() {
    let first = Home::found(Role::Server);
    let second = first.invite(Role::Server, 2);
    first.sync(&second);
    // Both have the same members now, and say so. Then one of them learns of a third.
    let (from, to) = first.links(&second);
    let third = first.invite(Role::Observer, 3);
    third.append("INBOX", "Subject: hello\n\n");
    third.sync(&first);
    pump(from, to).unwrap();
    assert!(
        second.replica.peers().unwrap().iter().any(|peer| peer.member.replica == third.replica.id().unwrap())
    );
    assert_eq!(second.picture(), first.picture());
}
