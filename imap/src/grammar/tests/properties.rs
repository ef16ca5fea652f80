//! Bytes that nobody has thought of.

use super::print::{key, print};
use super::valid::VALID;
use super::{Command, NameEncoding};
use crate::grammar::*;
use proptest::prelude::*;

fn commands() -> Vec<&'static [u8]> {
    let entries = VALID.iter().flat_map(|(_, commands)| *commands);
    entries.map(|entry| entry.split(" => ").next().unwrap_or(entry).as_bytes()).collect()
}

/// A command of the table with some bytes changed, put in or taken out.
pub(super) fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        proptest::sample::select(&b" ()[]<>{}\"\\*%$.,:;-+~\r\n\0\x7f0129aAzZ\xc3\xa4"[..]),
        any::<u8>()
    ];
    let edits = proptest::collection::vec((any::<proptest::sample::Index>(), byte, 0..3), 0..4);
    (proptest::sample::select(commands()), edits).prop_map(|(command, edits)| {
        let mut command = command.to_vec();
        for (at, byte, how) in edits {
            match how {
                0 => command.insert(at.index(command.len() + 1), byte),
                _ if command.is_empty() => {}
                1 => drop(command.remove(at.index(command.len()))),
                _ => {
                    let at = at.index(command.len());
                    command[at] = byte;
                }
            }
        }
        command
    })
}

fn search_key() -> impl Strategy<Value = SearchKey> {
    let text = proptest::collection::vec(1u8.., 0..6);
    let keyword = "[a-z$]{1,8}".prop_map(|keyword| Flag::Keyword(keyword.parse().unwrap()));
    let day = (0u16..=9999, 1u8..=12, 1u8..=28).prop_map(|(y, m, d)| Date::new(y, m, d).unwrap());
    let of = proptest::sample::select(vec![DateOf::Internal, DateOf::Sent, DateOf::Saved]);
    let relation = proptest::sample::select(vec![Relation::Before, Relation::On, Relation::Since]);
    let leaf = prop_oneof![
        Just(SearchKey::All),
        Just(SearchKey::Recent),
        Just(SearchKey::Messages(MessageSet::Saved)),
        keyword.clone().prop_map(SearchKey::Has),
        keyword.prop_map(SearchKey::HasNot),
        text.clone().prop_map(SearchKey::Text),
        (text.clone(), text).prop_map(|(field, text)| SearchKey::Header(field, text)),
        (of, relation, day).prop_map(|(of, relation, day)| SearchKey::Date(of, relation, day)),
        (0..=i64::MAX as u64).prop_map(SearchKey::Larger),
        (1..=u32::MAX).prop_map(SearchKey::Younger),
    ];
    leaf.prop_recursive(6, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|key| SearchKey::Not(Box::new(key))),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| SearchKey::Or(Box::new(a), Box::new(b))),
            proptest::collection::vec(inner, 1..4).prop_map(SearchKey::And),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn what_is_taken_is_printed_and_taken_again(text in mutated(), utf8: bool) {
        let names = if utf8 { NameEncoding::Utf8 } else { NameEncoding::ModifiedUtf7 };
        match Command::parse(&text, names) {
            // The printer writes modified UTF-7, and names and patterns that can be.
            Ok(command) if !utf8 && !["Err(", "nothing"].iter().any(|no| format!("{command:?}").contains(no)) => {
                let printed = print(&command);
                let again = Command::parse(&printed, names);
                prop_assert!(again.is_ok(), "{}: {again:?}", String::from_utf8_lossy(&printed));
                prop_assert_eq!(print(&again.unwrap()), printed);
            }
            Ok(_) => {}
            Err(error) => prop_assert!(error.at <= text.len()),
        }
    }

    #[test]
    fn any_bytes_do_no_harm(text: Vec<u8>) {
        let _ = Command::parse(&text, NameEncoding::Utf8);
    }
}

proptest! {
    #[test]
    fn search_keys_come_back(wanted in search_key()) {
        let mut text = b"a SEARCH ".to_vec();
        key(&mut text, &wanted);
        let command = Command::parse(&text, NameEncoding::ModifiedUtf7);
        let Ok(Command { body: CommandBody::Search(search), .. }) = command else {
            panic!("{}: {command:?}", String::from_utf8_lossy(&text));
        };
        prop_assert_eq!(search.criteria.keys, vec![wanted]);
    }
}
