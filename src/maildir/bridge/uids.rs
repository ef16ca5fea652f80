//! What a folder's `dovecot-uidlist` must say, from what it says: pure.
//!
//! A UID that Dovecot gave out stands, whoever has it. One of ours is good there only if Dovecot has not told a higher UIDNEXT
//! yet; otherwise the file gets one that Dovecot itself would give next, and that becomes a claim of ours.

use std::collections::{BTreeMap, BTreeSet};

use crate::mailbox::{Uid, UidValidity};
use crate::maildir::{BaseName, UidEntry, UidList};

/// What a file of the folder needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// This UID, under which the account shows it.
    Uid(Uid),
    /// Any: it is a message that the account has not numbered here.
    Any,
    /// Its line as it is, if it has one.
    AsIs,
}

/// How UIDs are found that Dovecot would give out.
pub(super) struct Numbers<'a> {
    /// The mailbox's UIDVALIDITY.
    pub(super) validity: UidValidity,
    /// The UIDNEXT that this list was given last: what lies at or above it Dovecot gave out itself.
    pub(super) told: Uid,
    /// The highest UID that the account knows to be taken.
    pub(super) top: u32,
    /// The first UID above a number that is Dovecot's to give out.
    pub(super) next: &'a dyn Fn(u32) -> Option<Uid>,
}

/// The list as it must be; nothing if the numbers are used up. The caller has raised a UIDVALIDITY that was below the list's.
pub(super) fn plan(
    now: Option<&UidList>,
    files: &BTreeMap<BaseName, Want>,
    numbers: &Numbers<'_>,
) -> Option<UidList> {
    // Under another UIDVALIDITY nothing was said yet.
    let said = now.filter(|list| list.validity == numbers.validity);
    let lines: BTreeMap<&BaseName, &UidEntry> =
        now.iter().flat_map(|list| &list.entries).map(|line| (&line.base, line)).collect();
    let mut entries: BTreeMap<Uid, UidEntry> = BTreeMap::new();
    let next = said.map_or(numbers.told, |list| list.next.max(numbers.told));
    let is_dovecots = |uid: Uid| uid >= numbers.told;
    let (mut unnumbered, mut left): (Vec<&BaseName>, Vec<&UidEntry>) = Default::default();
    for (base, want) in files {
        let line = lines.get(base).copied().filter(|_| said.is_some());
        let line_of = |uid| {
            let fields = lines.get(base).map(|line| line.fields.clone()).unwrap_or_default();
            UidEntry { uid, fields, base: base.clone() }
        };
        match (want, line) {
            (Want::Uid(uid), Some(line)) if line.uid == *uid => drop(entries.insert(*uid, line.clone())),
            (Want::Uid(_) | Want::Any, Some(line)) if is_dovecots(line.uid) => {
                entries.insert(line.uid, line.clone());
            }
            (Want::Any, Some(line)) => left.push(line),
            (Want::Uid(uid), _) if *uid >= next => drop(entries.insert(*uid, line_of(*uid))),
            (Want::Uid(_) | Want::Any, _) => unnumbered.push(base),
            (Want::AsIs, Some(line)) => left.push(line),
            (Want::AsIs, None) => {}
        }
    }
    // Lines of files that are not there any more, or not yet seen, which Dovecot wrote: it is not known here whose they are.
    let strange = said.iter().flat_map(|list| &list.entries);
    left.extend(strange.filter(|line| is_dovecots(line.uid) && !files.contains_key(&line.base)));
    for line in left {
        entries.entry(line.uid).or_insert_with(|| line.clone());
    }
    let highest = entries.keys().next_back().map_or(0, |uid| uid.value());
    let mut last = highest.max(numbers.top).max(next.value() - 1);
    for base in unnumbered {
        let uid = (numbers.next)(last)?;
        last = uid.value();
        let fields = lines.get(base).map(|line| line.fields.clone()).unwrap_or_default();
        entries.insert(uid, UidEntry { uid, fields, base: base.clone() });
    }
    Some(UidList {
        validity: numbers.validity,
        next: (numbers.next)(last)?,
        guid: now.and_then(|list| list.guid),
        other: now.map(|list| list.other.clone()).unwrap_or_default(),
        entries: entries.into_values().collect(),
    })
}

/// The lines that Dovecot wrote, or this bridge in its place, since it was last told a UIDNEXT.
pub(super) fn assigned(list: &UidList, told: Uid) -> impl Iterator<Item = &UidEntry> {
    list.entries.iter().filter(move |line| line.uid >= told)
}

/// The files of a list.
pub(super) fn names(list: Option<&UidList>) -> BTreeSet<&BaseName> {
    list.iter().flat_map(|list| &list.entries).map(|line| &line.base).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uid::{Block, Lane};

    fn base(name: &str) -> BaseName {
        BaseName::new(name.as_bytes()).unwrap()
    }

    fn uid(value: u32) -> Uid {
        Uid::new(value).unwrap()
    }

    /// `now` is a list, `files` are `name=uid`, `name?` and `name.`; gives the lines and the UIDNEXT.
    fn planned(now: &str, files: &str, told: u32, top: u32) -> String {
        let now = UidList::parse(now.as_bytes()).ok();
        let files = files.split_whitespace().map(|file| match file.split_once('=') {
            Some((name, number)) => (base(name), Want::Uid(uid(number.parse().unwrap()))),
            None if file.ends_with('?') => (base(file.trim_end_matches('?')), Want::Any),
            None => (base(file.trim_end_matches('.')), Want::AsIs),
        });
        let lane = Lane::new(1, 0).unwrap();
        let next = |above| lane.next_for_dovecot(above, Block::DOVECOT);
        let validity = UidValidity::new(7).unwrap();
        let numbers = Numbers { validity, told: uid(told), top, next: &next };
        let list = plan(now.as_ref(), &files.collect(), &numbers).unwrap();
        String::from_utf8(list.to_bytes()).unwrap()
    }

    #[test]
    fn a_list_says_what_the_account_shows() {
        for (case, now, files, told, top, then) in [
            ("new", "", "a=5 b=6", 1, 6, "3 V7 N2048\n5 :a\n6 :b\n"),
            ("kept, fields and all", "3 V7 N2048 P1\n5 S9 :a\n", "a=5", 2048, 5, "3 V7 N2048 P1\n5 S9 :a\n"),
            ("ascending", "3 V7 N7\n5 :a\n6 :b\n", "a=9 b=6", 7, 9, "3 V7 N2048\n6 :b\n9 :a\n"),
            ("gone", "3 V7 N2048\n5 :a\n6 :b\n", "b=6", 2048, 6, "3 V7 N2048\n6 :b\n"),
            ("another's UID above", "3 V7 N2048\n", "a=4096", 2048, 4096, "3 V7 N18432\n4096 :a\n"),
            ("below what was told", "3 V7 N2050\n", "a=9", 2050, 9, "3 V7 N2051\n2050 :a\n"),
            (
                "below, and a high one",
                "3 V7 N2050\n",
                "a=9 b=4096",
                2050,
                4096,
                "3 V7 N18433\n4096 :b\n18432 :a\n",
            ),
            ("Dovecot was first", "3 V7 N2051\n2050 :a\n", "a=9", 2050, 9, "3 V7 N2051\n2050 :a\n"),
            (
                "Dovecot knows another file",
                "3 V7 N2051\n2050 :x\n",
                "a=9",
                2050,
                9,
                "3 V7 N2052\n2050 :x\n2051 :a\n",
            ),
            ("numbered for Dovecot", "3 V7 N2050\n", "a? b?", 2050, 9, "3 V7 N2052\n2050 :a\n2051 :b\n"),
            ("left alone", "3 V7 N2050\n4 :a\n", "a. b.", 2050, 9, "3 V7 N2050\n4 :a\n"),
            ("never lower", "3 V7 N2100\n", "a=5", 2100, 5, "3 V7 N2101\n2100 :a\n"),
            ("another UIDVALIDITY", "3 V6 N99\n4 S1 :a\n", "a=5", 1, 5, "3 V7 N2048\n5 S1 :a\n"),
            ("out of the lane", "3 V7 N4100\n4099 :a\n", "a=4099", 4100, 4099, "3 V7 N18432\n4099 :a\n"),
        ] {
            assert_eq!(planned(now, files, told, top), then, "{case}");
        }
    }
}
