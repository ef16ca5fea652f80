//! Some commands in all their fields: the canonical form of the table cannot show a mistake that the printer shares.

use super::parse;
use crate::grammar::*;
use postmerge::mailbox::{MailboxName, ModSeq, SpecialUse, UidValidity};

fn body(text: &str) -> CommandBody {
    parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}")).body
}

fn name(name: &str) -> MailboxArg {
    Ok(name.parse::<MailboxName>().unwrap())
}

fn flag(flag: &str) -> Flag {
    Flag::Keyword(flag.parse().unwrap())
}

/// The numbers of a set in a mailbox of 100.
fn numbers(set: &MessageSet) -> Vec<u32> {
    match set {
        MessageSet::Saved => vec![],
        MessageSet::Numbers(set) => set.resolve(100).iter().collect(),
    }
}

#[test]
fn names_of_mailboxes() {
    assert_eq!(body("a SELECT Entw&APw-rfe"), body("a SELECT {12}\r\nEntw&APw-rfe"));
    let CommandBody::Delete(spelled) = body("a DELETE Entw&APw-rfe") else { panic!() };
    assert_eq!(spelled, name("Entwürfe"));
    let utf8 = Command::parse("a DELETE \"Entwu\u{308}rfe\"".as_bytes(), NameEncoding::Utf8).unwrap();
    assert_eq!(utf8.body, CommandBody::Delete(name("Entwürfe")));
    let plain = Command::parse(b"a DELETE \"Entw&APw-rfe\"", NameEncoding::Utf8).unwrap();
    assert_eq!(plain.body, CommandBody::Delete(name("Entw&APw-rfe")));
    for (bad, why) in [
        ("\"Tom & Jerry\"", "the mailbox name is not modified UTF-7: the \"&\" at 4 is not ended by a \"-\""),
        ("\"ä\"", "the mailbox name is not modified UTF-7: byte 0xc3 at 0 is not printable ASCII"),
        ("\"\"", "a mailbox name is empty"),
        ("../etc", "mailbox name \"../etc\" has a level that is empty, \".\" or \"..\""),
        ("foo/", "mailbox name \"foo/\" has a level that is empty, \".\" or \"..\""),
    ] {
        let CommandBody::Subscribe(spelled) = body(&format!("a SUBSCRIBE {bad}")) else { panic!() };
        assert_eq!(spelled.unwrap_err().to_string(), why);
    }
}

#[test]
fn login_keeps_its_secret() {
    let login = body("a LOGIN fred {3}\r\nx\"y");
    let shown = format!("{login:?}");
    assert!(!shown.contains("120") && !shown.contains("x\""), "{shown}");
    let CommandBody::Login { user, password } = login else { panic!() };
    assert_eq!((&user[..], password.as_bytes()), (&b"fred"[..], &b"x\"y"[..]));
    let CommandBody::Authenticate { mechanism, initial_response } = body("a AUTHENTICATE plain AGEAYg==")
    else {
        panic!()
    };
    assert_eq!((mechanism.name(), initial_response.unwrap().as_bytes()), ("PLAIN", &b"AGEAYg=="[..]));
    let CommandBody::Authenticate { initial_response, .. } = body("a AUTHENTICATE EXTERNAL =") else {
        panic!()
    };
    assert_eq!(initial_response, Some(Secret::new(b"=".to_vec())));
    assert_eq!(Secret::from_base64(b"*"), None);
}

#[test]
fn create_and_list() {
    assert_eq!(
        body("a CREATE x (USE (\\sent \\New))"),
        CommandBody::Create { mailbox: name("x"), uses: vec![Some(SpecialUse::Sent), None] }
    );
    let CommandBody::List(list) = body("a LIST (SUBSCRIBED REMOTE) b/ (\"\" % x*) RETURN (STATUS (SIZE))")
    else {
        panic!()
    };
    assert_eq!(
        list.select,
        ListSelect { subscribed: true, remote: true, recursive_match: false, special_use: false }
    );
    assert_eq!((list.extended, list.asks_separator, list.patterns.len()), (true, false, 2));
    assert!(list.patterns[0].matches(&"b/c".parse().unwrap()));
    assert!(!list.patterns[0].matches(&"b/c/d".parse().unwrap()));
    assert!(list.patterns[1].matches(&"b/xc/d".parse().unwrap()));
    assert_eq!(list.returns, ListReturn { status: vec![StatusItem::Size], ..ListReturn::default() });
    let CommandBody::List(list) = body("a LIST x \"\"") else { panic!() };
    assert_eq!((list.extended, list.asks_separator, list.patterns.len()), (false, true, 0));
}

#[test]
fn qresync() {
    let CommandBody::Select(select) = body("a SELECT inbox (QRESYNC (7 20 1:9,12 (1:2,5 3:4,9)))") else {
        panic!()
    };
    let known = select.qresync.unwrap();
    assert_eq!((select.mailbox, select.condstore), (name("INBOX"), false));
    assert_eq!((Some(known.uid_validity), known.mod_seq), (UidValidity::new(7), ModSeq::from_value(20)));
    assert_eq!(known.known_uids.unwrap().resolve(10).count(), 9);
    let matches = known.matches.unwrap();
    assert_eq!(matches.numbers.resolve(100).iter().collect::<Vec<_>>(), [1, 2, 5]);
    assert_eq!(matches.uids.resolve(100).iter().collect::<Vec<_>>(), [3, 4, 9]);
}

#[test]
fn search() {
    let CommandBody::Search(search) = body(
        "a UID SEARCH RETURN (MIN SAVE) CHARSET UTF-8 OR UNSEEN KEYWORD Later NOT (SENTSINCE 2-Jan-1970 98:*) UID 7",
    ) else {
        panic!()
    };
    assert_eq!(search.numbering, Numbering::Uid);
    assert_eq!(search.returns, Some(SearchReturn { min: true, save: true, ..SearchReturn::default() }));
    assert_eq!(search.criteria.charset.as_deref(), Some("UTF-8"));
    let [SearchKey::Or(unseen, later), SearchKey::Not(both), SearchKey::Uid(uids)] =
        &search.criteria.keys[..]
    else {
        panic!("{:?}", search.criteria.keys)
    };
    assert_eq!(**unseen, SearchKey::HasNot(flag("\\Seen")));
    assert_eq!(**later, SearchKey::Has(flag("Later")));
    let SearchKey::And(both) = &**both else { panic!() };
    assert_eq!(both[0], SearchKey::Date(DateOf::Sent, Relation::Since, Date::new(1970, 1, 2).unwrap()));
    let SearchKey::Messages(messages) = &both[1] else { panic!() };
    assert_eq!((numbers(messages), numbers(uids)), (vec![98, 99, 100], vec![7]));
}

#[test]
fn fetch_and_store() {
    let CommandBody::Fetch(fetch) = body(
        "a FETCH 5 (BODY.PEEK[1.2.HEADER.FIELDS.NOT (From \"To\")]<5.6> BINARY[3]) (CHANGEDSINCE 9 PARTIAL -1:-7)",
    ) else {
        panic!()
    };
    let names = vec![b"From".to_vec(), b"To".to_vec()];
    let section = Section { part: vec![1, 2], text: Some(SectionText::HeaderFields { not: true, names }) };
    let partial = Some(Partial { start: 5, length: 6 });
    assert_eq!(fetch.items[0], FetchItem::Section { peek: true, section, partial });
    assert_eq!(fetch.items[1], FetchItem::Binary { peek: false, part: vec![3], partial: None });
    assert_eq!(fetch.items.iter().map(FetchItem::sets_seen).collect::<Vec<_>>(), [false, true]);
    assert_eq!((fetch.changed_since, fetch.vanished), (Some(ModSeq::from_value(9)), false));
    assert_eq!(fetch.partial, Some(PartialRange { first: 1, last: 7, from_end: true }));
    assert_eq!((fetch.numbering, numbers(&fetch.messages)), (Numbering::Sequence, vec![5]));

    let CommandBody::Store(store) = body("a UID STORE 1 (UNCHANGEDSINCE 0) -FLAGS.SILENT (\\Draft \\Recent)")
    else {
        panic!()
    };
    assert_eq!((store.numbering, store.action, store.silent), (Numbering::Uid, StoreAction::Remove, true));
    assert_eq!(store.unchanged_since, Some(ModSeq::from_value(0)));
    assert_eq!(store.flags, [flag("\\Draft"), Flag::Other("\\Recent".into())]);
    let long = "x".repeat(101);
    let CommandBody::Store(store) = body(&format!("a STORE 1 FLAGS {long}")) else { panic!() };
    assert_eq!(store.flags, [Flag::Other(long.into())]);
}
