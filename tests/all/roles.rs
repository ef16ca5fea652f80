//! Roles: what each may write, who judges it, and that all judge alike. And new keys.

use postmerge::mailbox::{Keyword, Uid};
use postmerge::member::Role;
use postmerge::replica::ReplicaError;
use postmerge::uid::KeywordChange;

use crate::pair::{Home, endpoint, name};

fn flag(home: &Home, mailbox: &str) -> Result<(), ReplicaError> {
    let uid = home.replica.messages(&name(mailbox), Uid::FIRST, 1)?[0].uid;
    let seen = home.replica.mailbox(&name(mailbox))?.seen();
    let change = KeywordChange::Edit { set: [Keyword::seen()].into(), clear: Default::default() };
    home.replica.store_keywords(seen, &[uid], &change, None).map(drop)
}

fn expunge(home: &Home) -> Result<(), ReplicaError> {
    let uid = home.replica.messages(&name("INBOX"), Uid::FIRST, 1)?[0].uid;
    home.replica.expunge(home.replica.mailbox(&name("INBOX"))?.seen(), &[uid]).map(drop)
}

fn append(home: &Home, body: &str) -> Result<(), ReplicaError> {
    home.replica.append(&name("INBOX"), body.as_bytes(), Default::default(), Some(1_000)).map(drop)
}

fn refused(result: Result<(), ReplicaError>) -> bool {
    matches!(result, Err(ReplicaError::Role { .. }))
}

#[test]
fn a_role_lets_its_own_replica_do_what_it_says_and_no_more() {
    let first = Home::found(Role::Server);
    first.append("INBOX", "Subject: here\n\n");
    let reader = first.invite(Role::Reader, 2);
    let deliver = first.invite(Role::Deliver, 3);

    let before = reader.picture();
    assert!(refused(append(&reader, "Subject: no\n\n")));
    assert!(refused(flag(&reader, "INBOX")) && refused(expunge(&reader)));
    assert!(refused(reader.replica.create_mailbox(&name("Work"), None).map(drop)));
    assert_eq!(reader.picture(), before);

    append(&deliver, "Subject: delivered\n\n").unwrap();
    assert!(refused(flag(&deliver, "INBOX")) && refused(expunge(&deliver)));
    assert!(refused(deliver.replica.create_mailbox(&name("Work"), None).map(drop)));
    assert_eq!(deliver.picture()["INBOX"].len(), 2, "what was refused left no trace");

    deliver.sync(&first);
    reader.sync(&first);
    assert_eq!(first.picture()["INBOX"].len(), 2);
    assert_eq!(reader.picture()["INBOX"].len(), 2, "a reader gets all there is");
    assert_eq!(reader.replica.digest().unwrap(), first.replica.digest().unwrap());
}

#[test]
fn another_role_holds_from_when_the_peer_hears_of_it_and_what_it_wrote_before_stays() {
    let first = Home::found(Role::Server);
    first.append("INBOX", "Subject: one\n\n");
    let third = first.invite(Role::Server, 3);
    let laptop = first.invite(Role::Observer, 2);
    // While the laptop is away and works, it becomes a reader.
    append(&laptop, "Subject: on the train\n\n").unwrap();
    first.replica.assign(laptop.replica.id().unwrap(), Role::Reader).unwrap();
    first.sync(&third);
    // Others than the one who decided it take what it wrote, and judge alike.
    laptop.sync(&third);
    assert_eq!(laptop.replica.role().unwrap(), Role::Reader);
    assert!(refused(append(&laptop, "Subject: too late\n\n")));
    third.sync(&first);
    assert_eq!(first.picture(), third.picture());
    assert_eq!(first.picture()["INBOX"].len(), 2);

    // And back: what it writes now names the record that allows it, and goes round whoever passes it on.
    third.replica.assign(laptop.replica.id().unwrap(), Role::Observer).unwrap();
    third.sync(&laptop);
    flag(&laptop, "INBOX").unwrap();
    let mut laptop = laptop;
    laptop.reopen();
    append(&laptop, "Subject: allowed again\n\n").unwrap();
    laptop.sync(&third);
    third.sync(&first);
    assert_eq!(first.picture(), third.picture());
    assert_eq!(first.picture()["INBOX"].len(), 3);
    let late = first.invite(Role::Server, 4);
    assert_eq!(late.picture(), first.picture());
}

#[test]
fn a_server_stays_one_and_who_may_not_write_decides_nothing() {
    let first = Home::found(Role::Server);
    let server = first.invite(Role::Server, 2);
    let reader = first.invite(Role::Reader, 3);
    let ids = [&server, &reader].map(|home| home.replica.id().unwrap());
    assert!(first.replica.assign(ids[0], Role::Reader).is_err());
    assert!(first.replica.assign(ids[1], Role::Server).is_err());
    assert!(reader.replica.assign(ids[1], Role::Observer).is_err());
    assert!(reader.replica.forget(ids[0]).is_err());
    assert_eq!(reader.replica.role().unwrap(), Role::Reader);
}

#[test]
fn laptops_that_meet_on_a_train_carry_each_others_changes() {
    let first = Home::found(Role::Server);
    first.append("INBOX", "Subject: one\n\n");
    let [one, two] = [2, 3].map(|seed| first.invite(Role::Observer, seed));
    for home in [&one, &two] {
        home.sync(&first);
    }
    for n in 0..20 {
        append([&one, &two][n % 2], &format!("Subject: {n}\n\n")).unwrap();
        if n % 6 == 5 {
            one.sync(&two);
        }
    }
    flag(&one, "INBOX").unwrap();
    two.sync(&one);
    // Only one of them ever reaches the server again.
    two.sync(&first);
    assert_eq!(first.picture()["INBOX"].len(), 21);
    one.sync(&first);
    assert_eq!(first.replica.digest().unwrap(), one.replica.digest().unwrap());
}

#[test]
fn new_keys_keep_mail_and_uids_and_old_ones_are_good_for_nothing() {
    let first = Home::found(Role::Server);
    for n in 0..3 {
        first.append("INBOX", &format!("Subject: {n}\n\n"));
    }
    let mut second = first.invite(Role::Server, 2);
    append(&second, "Subject: under the old key\n\n").unwrap();
    let (before, old) = (second.picture(), second.replica.id().unwrap());
    let validity = second.replica.mailbox(&name("INBOX")).unwrap().uid_validity;
    let with_old_key = second.links(&first);

    second.endpoint = endpoint(9);
    assert_ne!(second.replica.rotate(second.endpoint).unwrap(), old);
    assert_eq!(second.picture(), before);
    assert_eq!(second.replica.mailbox(&name("INBOX")).unwrap().uid_validity, validity);
    append(&second, "Subject: under the new key\n\n").unwrap();
    // It introduces itself; nobody pairs anew. What the old key signed comes along, also to who never met it.
    second.sync(&first);
    assert_eq!(first.picture(), second.picture());
    let late = second.invite(Role::Server, 4);
    assert_eq!(late.picture(), first.picture());
    assert_eq!(first.replica.lane().unwrap().is_some(), second.replica.lane().unwrap().is_some());

    let (from, to) = with_old_key;
    assert!(crate::pair::pump(from, to).is_err(), "whoever has the old key is refused");
    second.reopen();
    assert_eq!(second.picture(), late.picture());
}
