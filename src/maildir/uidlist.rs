//! `dovecot-uidlist`, version 3: which UID each file of a folder has.

use std::collections::BTreeMap;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use super::file_name::BaseName;
use super::list::{LineError, LineProblem, lines};
use crate::mailbox::{Uid, UidValidity};

/// A folder's UIDs as Dovecot keeps them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UidList {
    /// UIDVALIDITY (`V`).
    pub validity: UidValidity,
    /// UIDNEXT (`N`), above every entry's UID. Never lower it.
    pub next: Uid,
    /// The mailbox's GUID (`G`).
    pub guid: Option<[u8; 16]>,
    /// The header's other fields, kept as they were.
    pub other: Vec<(u8, Vec<u8>)>,
    /// One entry a message, UIDs ascending.
    pub entries: Vec<UidEntry>,
}

/// One message's line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UidEntry {
    /// Its UID.
    pub uid: Uid,
    /// Fields of the line (`S` size, `W` CRLF size, `G` GUID, `P` and `O` for POP3), kept as they were.
    pub fields: Vec<(u8, Vec<u8>)>,
    /// The file's name before its `:`, with `,S=` and all.
    pub base: BaseName,
}

impl UidList {
    /// Reads the file as Dovecot does: a name that stands there twice belongs to its last UID, and UIDs
    /// that were appended behind the header's back raise UIDNEXT.
    pub fn parse(bytes: &[u8]) -> Result<UidList, LineError> {
        let mut lines = lines(bytes).enumerate();
        let (_, header) = lines.next().ok_or(LineProblem::NoHeader.at(0))?;
        let mut list = parse_header(header).map_err(|problem| problem.at(0))?;
        let mut last = 0;
        for (index, line) in lines {
            let entry = parse_entry(line).map_err(|problem| problem.at(index))?;
            let uid = entry.uid.value();
            // Dovecot writes an entry again when two of its processes saved at once.
            let again = uid == last && list.entries.last().is_some_and(|before| before.base == entry.base);
            if again {
                list.entries.pop();
            } else if uid <= last {
                return Err(LineProblem::Order { uid }.at(index));
            }
            let above = uid.checked_add(1).and_then(Uid::new).ok_or(LineProblem::Uid.at(index))?;
            list.next = list.next.max(above);
            list.entries.push(entry);
            last = uid;
        }
        let owner: BTreeMap<BaseName, Uid> = list.entries.iter().map(|e| (e.base.clone(), e.uid)).collect();
        if owner.len() < list.entries.len() {
            list.entries.retain(|entry| owner.get(&entry.base) == Some(&entry.uid));
        }
        Ok(list)
    }

    /// The file's bytes. Entries must ascend, as [`UidList::parse`] demands.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = format!("3 V{} N{}", self.validity, self.next).into_bytes();
        if let Some(guid) = self.guid {
            out.extend(format!(" G{}", HEXLOWER.encode(&guid)).bytes());
        }
        write_fields(&self.other, &mut out);
        out.push(b'\n');
        for entry in &self.entries {
            out.extend(entry.uid.to_string().bytes());
            write_fields(&entry.fields, &mut out);
            out.extend(b" :");
            out.extend(entry.base.as_bytes());
            out.push(b'\n');
        }
        out
    }
}

fn write_fields(fields: &[(u8, Vec<u8>)], out: &mut Vec<u8>) {
    for (key, value) in fields {
        out.extend([b' ', *key]);
        out.extend(value);
    }
}

fn parse_header(line: &[u8]) -> Result<UidList, LineProblem> {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    if words.next() != Some(b"3") {
        return Err(LineProblem::Version);
    }
    let (mut validity, mut next, mut guid, mut other) = (None, None, None, Vec::new());
    for word in words {
        let (key, value) = field(word)?;
        let wrong = LineProblem::Header { key: key.into() };
        match key {
            b'V' => validity = Some(number(value).and_then(UidValidity::new).ok_or(wrong)?),
            b'N' => next = Some(number(value).and_then(Uid::new).ok_or(wrong)?),
            b'G' => guid = Some(guid_bytes(value).ok_or(wrong)?),
            _ => other.push((key, value.to_vec())),
        }
    }
    let validity = validity.ok_or(LineProblem::Header { key: 'V' })?;
    let next = next.ok_or(LineProblem::Header { key: 'N' })?;
    Ok(UidList { validity, next, guid, other, entries: Vec::new() })
}

fn parse_entry(line: &[u8]) -> Result<UidEntry, LineProblem> {
    let mut rest = line;
    let uid = number(next_word(&mut rest)).and_then(Uid::new).ok_or(LineProblem::Uid)?;
    let mut fields = Vec::new();
    loop {
        if let Some(name) = rest.strip_prefix(b":") {
            // Flags do not belong here, but early versions wrote them.
            let base = name.split(|byte| *byte == b':').next().unwrap_or(name);
            return BaseName::new(base).map(|base| UidEntry { uid, fields, base }).map_err(LineProblem::Name);
        }
        let (key, value) = field(next_word(&mut rest))?;
        fields.push((key, value.to_vec()));
    }
}

/// Takes a word and the space behind it.
fn next_word<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|byte| *byte == b' ');
    let word = &rest[..end.unwrap_or(rest.len())];
    *rest = end.map_or(&[], |end| &rest[end + 1..]);
    word
}

fn field(word: &[u8]) -> Result<(u8, &[u8]), LineProblem> {
    match word {
        [key @ b'A'..=b'Z', value @ ..] => Ok((*key, value)),
        _ => Err(LineProblem::Field),
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    // `parse` alone would also take a sign.
    if digits.iter().all(u8::is_ascii_digit) { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

fn guid_bytes(hex: &[u8]) -> Option<[u8; 16]> {
    HEXLOWER_PERMISSIVE.decode(hex).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DOVECOT: &[u8] = b"3 V1275660208 N25022 G3085f01b7f11094c501100008c4a11c1 P1\n\
        25006 W5432 S5300 :1276528487.M364837P9451.host,S=5300,W=5432\n\
        25017 G1a2b :1276533073.M242911P3632.host\n\
        25021 :1276533090.M1P2.host,S=7:2,S\n";

    #[test]
    fn a_list_of_dovecot_is_understood() {
        let list = UidList::parse(DOVECOT).unwrap();
        assert_eq!((list.validity.value(), list.next.value()), (1_275_660_208, 25_022));
        assert_eq!(list.guid.unwrap()[..2], [0x30, 0x85]);
        assert_eq!(list.other, [(b'P', b"1".to_vec())]);
        assert_eq!(list.entries.iter().map(|e| e.uid.value()).collect::<Vec<_>>(), [25_006, 25_017, 25_021]);
        assert_eq!(list.entries[0].fields, [(b'W', b"5432".to_vec()), (b'S', b"5300".to_vec())]);
        assert_eq!(list.entries[2].base.as_bytes(), b"1276533090.M1P2.host,S=7");
        assert_eq!(UidList::parse(&list.to_bytes()).unwrap(), list);
    }

    #[test]
    fn what_dovecot_appends_is_taken() {
        let list = UidList::parse(b"3 V9 N5\n3 :a\n4 :b\n7 :a\n7 :a\n9 :hal").unwrap();
        assert_eq!(list.next.value(), 8, "appended UIDs raise UIDNEXT");
        let entries: Vec<_> = list.entries.iter().map(|e| (e.uid.value(), e.base.as_bytes())).collect();
        assert_eq!(
            entries,
            [(4, &b"b"[..]), (7, b"a")],
            "the last UID of a name counts, half a line does not"
        );
    }

    #[test]
    fn damaged_lists_name_the_line() {
        use LineProblem::*;
        for (bytes, line, problem) in [
            (&b""[..], 1, NoHeader),
            (b"3 V1 N1", 1, NoHeader),
            (b"1 12 34\n", 1, Version),
            (b"3 N1\n", 1, Header { key: 'V' }),
            (b"3 V1\n", 1, Header { key: 'N' }),
            (b"3 V0 N1\n", 1, Header { key: 'V' }),
            (b"3 V1 N-1\n", 1, Header { key: 'N' }),
            (b"3 V1 N1 Gxyz\n", 1, Header { key: 'G' }),
            (b"3 V1 N9\n1 :a\n0 :b\n", 3, Uid),
            (b"3 V1 N9\n\n", 2, Uid),
            (b"3 V1 N9\n4294967295 :a\n", 2, Uid),
            (b"3 V1 N9\n2 :a\n1 :b\n", 3, Order { uid: 1 }),
            (b"3 V1 N9\n2 :a\n2 :b\n", 3, Order { uid: 2 }),
            (b"3 V1 N9\n2 a\n", 2, Field),
            (b"3 V1 N9\n2\n", 2, Field),
            (b"3 V1 N9\n2 :\n", 2, Name(crate::maildir::FileNameError::Empty)),
        ] {
            assert_eq!(UidList::parse(bytes), Err(LineError { line, problem }), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn lists_come_back(
            validity in 1u32..,
            uids in proptest::collection::btree_set(1u32..u32::MAX, 0..20),
            guid in any::<Option<[u8; 16]>>(),
            value in "[!-9;-~]{0,4}",
        ) {
            let entries: Vec<UidEntry> = uids.iter().map(|uid| UidEntry {
                uid: Uid::new(*uid).unwrap(),
                fields: vec![(b'X', value.clone().into_bytes())],
                base: BaseName::new(format!("{uid} \u{fc},S=1").as_bytes()).unwrap(),
            }).collect();
            let next = Uid::new(uids.last().map_or(1, |last| last + 1)).unwrap();
            let list = UidList { validity: UidValidity::new(validity).unwrap(), next, guid, other: vec![], entries };
            prop_assert_eq!(UidList::parse(&list.to_bytes()).unwrap(), list);
        }

        #[test]
        fn no_bytes_panic(lines in proptest::collection::vec("[0-9 A-C:\\PC]{0,12}", 0..6)) {
            let _ = UidList::parse(format!("3 V1 N1\n{}\n", lines.join("\n")).as_bytes());
        }
    }
}
